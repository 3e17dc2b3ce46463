"""An autoencoder of your own: densities on the codes of any pair of networks, trained by any loop.

A small autoencoder learns scikit-learn's 8x8 digits in plain torch, without expost. Then `wrap` makes it a generator,
and three densities are fitted on its codes. The script prints, for each density, the log-likelihood of held-out codes
(higher is better) and the Frechet distance between pixels of samples and of held-out digits (lower is better), and
writes a picture.

    python examples/foreign_autoencoder.py runs/foreign.png
"""

import sys
from pathlib import Path

import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor, nn

from expost import foreign
from expost.examples import pictures
from expost.metrics.frechet import Statistics, frechet_distance


def tiles(images: Tensor) -> Image.Image:
    """Draw forty images, each with a margin, since these digits reach the border."""
    return pictures.grid(nn.functional.pad(images[:40], (1, 1, 1, 1)), columns=10)


def main(out: Path) -> None:
    """Train, wrap, fit, compare."""
    torch.manual_seed(0)
    x = torch.tensor(load_digits().images / 16, dtype=torch.float32).unsqueeze(1)[torch.randperm(1797)]
    train, test = x[:1400], x[1400:]
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 8))
    decoder = nn.Sequential(nn.Linear(8, 128), nn.GELU(), nn.Linear(128, 64), nn.Sigmoid(), nn.Unflatten(1, (1, 8, 8)))
    adam = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 2e-3)
    for _ in range(60):
        for batch in train[torch.randperm(len(train))].split(50):
            codes = encoder(batch)
            loss = (decoder(codes) - batch).square().sum() + 0.01 * codes.square().sum()
            adam.zero_grad()
            (loss / len(batch)).backward()
            adam.step()

    generator, sections = foreign.wrap(encoder, decoder, encoder, decoder, code_shape=8), [("held-out", tiles(test))]
    reference = Statistics.of(test.flatten(1))
    for name in ("standard-normal", "gaussian", "gmm"):
        density = generator.fit(name, train)
        images = generator.sample(1000, name, seed=0)
        distance = frechet_distance(Statistics.of(images.flatten(1)), reference)
        likelihood = density.log_prob(generator.encode(test)).mean()
        print(f"{name:16}  log-likelihood {likelihood:6.2f}  frechet of pixels {distance:.3f}")
        sections.append((name, tiles(images)))
    pictures.save_picture(pictures.panel(sections), out)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "foreign.png"))
