"""An autoencoder of one's own: densities on the codes of any pair of networks, trained by any loop.

A small autoencoder learns scikit-learn's 8x8 digits in plain torch, without a word of expost. Then `wrap` makes a
generator of it, and three densities are fitted on its codes. Compared are the held-out log-likelihood of the codes
(higher is better), and samples: the Frechet distance of their pixels to held-out digits (lower is better), and a picture.

    python examples/foreign_autoencoder.py --out runs/foreign.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn

from expost import foreign
from expost.examples import pictures
from expost.metrics.frechet import Statistics, frechet_distance

DENSITIES = {"standard-normal": {}, "gaussian": {}, "gmm": {"components": 10}}


def main() -> None:
    """Train, wrap, fit, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/foreign.png"), help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=60, help="default: %(default)s")
    given = parser.parse_args()
    torch.manual_seed(0)
    x = torch.tensor(load_digits().images / 16, dtype=torch.float32).unsqueeze(1)[torch.randperm(1797)]
    train, test = x[:1400], x[1400:]

    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 8))
    decoder = nn.Sequential(nn.Linear(8, 128), nn.GELU(), nn.Linear(128, 64), nn.Sigmoid(), nn.Unflatten(1, (1, 8, 8)))
    adam = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 2e-3)
    for _ in range(given.epochs):
        for batch in train[torch.randperm(len(train))].split(50):
            codes = encoder(batch)
            loss = (decoder(codes) - batch).square().sum() / len(batch) + 0.01 * codes.square().sum() / len(batch)
            adam.zero_grad()
            loss.backward()
            adam.step()

    generator, sections = foreign.wrap(encoder, decoder, encoder, decoder, code_shape=8), []
    reference = Statistics.of(test.flatten(1))
    for name, options in DENSITIES.items():
        density = generator.fit(name, train, **options)
        images = generator.sample(1000, name, seed=0)
        distance = frechet_distance(Statistics.of(images.flatten(1)), reference)
        likelihood = density.log_prob(generator.encode(test)).mean()
        print(f"{name:16} log-likelihood {likelihood:8.2f}   frechet-pixels {distance:6.3f}")
        sections.append((name, pictures.grid(images[:40], columns=10)))
    pictures.save_picture(pictures.panel([("held-out digits", pictures.grid(test[:40], columns=10)), *sections]), given.out)


if __name__ == "__main__":
    main()
