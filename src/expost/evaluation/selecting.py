"""The Frechet distance that stands beside the likelihoods where a density is chosen, on validation examples."""

from __future__ import annotations

from collections.abc import Callable

import torch

from expost.densities import Density
from expost.densities.choice import spaced
from expost.evaluation.protocol import bundled_features, pick_space
from expost.examples import kind_of_data
from expost.generators.generator import Generator
from expost.metrics.frechet import frechet_distance
from expost.metrics.measures import Cloud
from expost.types import Data
from expost.utils.seeding import SAMPLES, stream_seed

#: Samples of each density, and validation examples, that are compared.
COMPARED = 1_000
#: What a Frechet distance is computed from, at the least.
LEAST = 2


def distance_to(generator: Generator, data: Data) -> Callable[[Density], float | None] | None:
    """Return a function that scores a density's decoded samples against validation examples; None where there is none.

    Features are the bundled ones that suit the images, or the standardized values of vectors: distances compare with
    one another, not with those of `evaluate`. As many samples are decoded as there are validation examples, at most
    `COMPARED`. Strings have no such distance.

    Args:
        generator: Decodes.
        data: Its validation split is the reference.
    """
    kind = kind_of_data(data)
    if kind.symbols or len(data.validation) < LEAST:
        return None
    space = pick_space(bundled_features(data) if kind.pixels else "auto", data, str(generator.device))
    rows = spaced(len(data.validation), COMPARED)
    reference = Cloud(space(data.validation.x if rows is None else data.validation.x[rows]))

    def distance(density: Density) -> float | None:
        source = torch.Generator().manual_seed(stream_seed(0, SAMPLES))
        samples = generator.decode(density.sample(len(reference), generator=source))
        return frechet_distance(Cloud(space(samples)).statistics, reference.statistics)

    return distance
