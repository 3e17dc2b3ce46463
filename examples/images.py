"""Images: digits sampled from a regularized autoencoder, with one Gaussian and with a mixture on its codes.

The script trains RAE-L2 on the 5,000 bundled digits, fits both densities on the codes afterwards, and writes
samples.png: real digits, reconstructions, and samples of each density. It prints the Frechet distance of each to
held-out digits, on the features of the bundled digit classifier (lower is better).

    python examples/images.py --out runs/images
"""

from __future__ import annotations

import argparse
from pathlib import Path

import expost
from expost.examples import pictures


def main() -> None:
    """Train, fit, sample, score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/images"), help="a new folder (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=15, help="passes over the training set (default: %(default)s)")
    given = parser.parse_args()
    run = expost.train(
        "rae-l2", "mnist-5k", given.out, network="mlp", epochs=given.epochs, batch_size=50, tensorboard=False
    )
    expost.fit(run, "gaussian")
    expost.fit(run, "gmm", components=10)

    generator, real = run.generator(), run.data().test.x[:60]
    shown = {
        "held-out digits": real,
        "their reconstructions": generator.reconstruct(real),
        "samples of one Gaussian": generator.sample(60, "gaussian", seed=0),
        "samples of a mixture of ten": generator.sample(60, "gmm", seed=0),
    }
    sections = [(title, pictures.grid(images, columns=10)) for title, images in shown.items()]
    pictures.save_picture(pictures.panel(sections), given.out / "samples.png")

    for score in expost.evaluate(run, ("gaussian", "gmm"), ("frechet",), features="digits"):
        if score.name == "frechet-digits":
            print(f"{score.of:16}{score.value:8.3f}")
    print(given.out / "samples.png")


if __name__ == "__main__":
    main()
