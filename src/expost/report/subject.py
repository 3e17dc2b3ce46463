"""A trained run with its data, from which its sections are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from expost.densities import Choice, usual_density
from expost.generators.generator import Generator
from expost.metrics.pool import Pool
from expost.report.blocks import Block
from expost.report.codes import Codes
from expost.report.glance import Glance
from expost.run import Run
from expost.types import Data, to_unit
from expost.utils.seeding import PAIRS, SAMPLES, generator, stream_seed

#: Training codes on the map.
ENCODED = 4_000


@dataclass(frozen=True, eq=False)
class Subject:
    """A trained run with its data.

    Attributes:
        run: The run.
        data: Its data.
        generator: Its model, with the densities that belong to its weights.
        seed: Seeds samples and pairs.
        scale: Pixels of the page for each pixel of an image, a side; None for a size that suits the page.
    """

    run: Run
    data: Data
    generator: Generator
    seed: int
    scale: int | None = None

    @property
    def density(self) -> str | None:
        """The density to show where one is enough: the best fitted (`usual_density`)."""
        return None if (taken := self.choice) is None else taken.name

    @property
    def choice(self) -> Choice | None:
        """Which density is shown where one is enough, and why."""
        return usual_density(self.generator.densities)

    @cached_property
    def codes(self) -> Codes:
        """Codes of training examples, drawn at random, with their labels."""
        train = self.data.train
        chosen = torch.randperm(len(train), generator=generator(self.seed, PAIRS, 2))[:ENCODED]
        labels = self.data.labels(train)
        z = self.rows(self.generator.encode(train.x[chosen]))
        return Codes(z, None if labels is None else labels[chosen.numpy()], self.rows)

    def rows(self, z: Tensor) -> Tensor:
        """Return codes as points, one row each."""
        return self.generator.points(z).flatten(1)

    def sample_codes(self, n: int, density: str) -> Tensor:
        """Draw n codes, the same as an evaluation with this seed."""
        source = torch.Generator().manual_seed(stream_seed(self.seed, SAMPLES))
        return self.generator.density(density).sample(n, generator=source)

    def sample(self, n: int, density: str) -> Tensor:
        """Draw n codes and decode them."""
        return self.generator.decode(self.sample_codes(n, density))

    def ends(self, n: int) -> tuple[Tensor, Tensor]:
        """Return at most n random pairs of test examples."""
        x = self.data.test.x
        chosen = torch.randperm(len(x), generator=generator(self.seed, PAIRS))
        half = min(n, len(x) // 2)
        return x[chosen[:half]], x[chosen[half : 2 * half]]

    def nearest_training(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Return for each sample the distance to its nearest training example, and which that is.

        Args:
            samples: Shape (N, ...), images in [0, 1].
        """
        distances, indices = Pool(self.data.train.x, "training examples").nearest(samples)
        return distances[:, 0], indices[:, 0]

    @cached_property
    def typical_distance(self) -> float:
        """The median distance of test examples to their nearest training examples, as a yardstick."""
        distances, _ = self.nearest_training(to_unit(self.data.test.across(100).x))
        return float(distances.median())


Maker = Callable[[Subject], list[Block]]


@dataclass(frozen=True)
class Makers:
    """What makes the sections of a kind of examples.

    Attributes:
        reconstructions: Test examples beside their reconstructions.
        samples: Samples of every density.
        neighbours: Samples beside their nearest training examples.
        interpolations: Paths between test examples.
        glance: What stands beside other runs.
        columns: The entries of examples one by one; None where they mean nothing by themselves.
    """

    reconstructions: Maker
    samples: Maker
    neighbours: Maker
    interpolations: Maker
    glance: Callable[[Subject], Glance]
    columns: Maker | None = None
