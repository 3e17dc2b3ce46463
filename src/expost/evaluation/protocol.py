"""The protocol of an evaluation: what is scored, by which measures, in which space, on which examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from expost.config import SoundConfig
from expost.data import DATASETS
from expost.errors import UsageError
from expost.evaluation.catalog import check_measures
from expost.examples import kind_of_data
from expost.generators.interpolation import INTERPOLATIONS
from expost.metrics import FEATURES, Space, StandardizedValues
from expost.metrics.bootstrap import LEAST_RESAMPLES
from expost.metrics.measures import Context
from expost.training.devices import pick_device
from expost.types import Data
from expost.utils.precision import bf16_warning, choose
from expost.utils.progress import say
from expost.utils.seeding import PAIRS, generator

#: The paper's number of samples, and of reconstructions and interpolations, where there are as many test images.
PAPER_COUNT = 10_000
#: Subjects besides the samples of densities.
RECONSTRUCTION, INTERPOLATION, CODES = "reconstruction", "interpolation", "codes"


@dataclass(frozen=True)
class Protocol:
    """How to score.

    Attributes:
        measures: Names of `MEASURES`, "memorization" and "latent", for strings those of `STRING_MEASURES`; empty takes
            all that suit the data.
        samples: Samples of each density, and the most reconstructions and mid-points; few bias a distance upwards.
            None takes as many as there are test examples, at most 10,000.
        method: Interpolation between codes.
        seed: Seeds samples, pairs, clusters, subsets and resamples.
        bootstrap: Resamples for intervals of the Frechet distance; 0 for none.
        allow_few: Whether to compute a Frechet distance from fewer examples than features.

    Raises:
        UsageError: for unknown names, and numbers out of range.
    """

    measures: tuple[str, ...] = ()
    samples: int | None = None
    method: str = "linear"
    seed: int = 0
    bootstrap: int = 0
    allow_few: bool = False

    def __post_init__(self) -> None:
        if self.samples is not None and self.samples < 2:
            raise UsageError(f"samples is {self.samples}; a distance between distributions needs at least 2")
        if self.bootstrap != 0 and self.bootstrap < LEAST_RESAMPLES:
            raise UsageError(f"bootstrap is {self.bootstrap}; give 0, or at least {LEAST_RESAMPLES} resamples")
        _ = INTERPOLATIONS[self.method]

    def count(self, available: int) -> int:
        """Return the number of samples for `available` test examples."""
        return min(available, PAPER_COUNT) if self.samples is None else self.samples

    def chosen(self, available: Sequence[str]) -> tuple[str, ...]:
        """Return the chosen measures, all available ones by default.

        Raises:
            UsageError: for a measure that is not available for the data; the message says where it is.
        """
        check_measures(self.measures, available)
        return self.measures or tuple(available)

    def context(self, space: Space) -> Context:
        """Return the settings that the measures read."""
        return Context(space.score_name, self.seed, self.bootstrap, self.allow_few)


class Omissions:
    """Collects measures that cannot be computed, so that each reason is printed once with all its subjects.

    Args:
        protocol: Its measures were asked for by name, and raise their error instead.
    """

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol
        self._of: dict[tuple[str, str], list[str]] = {}

    def add(self, measure: str, subject: str, error: Exception, score: str | None = None) -> None:
        """Note that a measure, or one score of it, cannot be computed; raise the error if it was asked for by name."""
        if measure in self.protocol.measures:
            raise type(error)(f"{measure} of {subject} cannot be computed: {error}") from None
        self._of.setdefault((score or measure, str(error)), []).append(subject)

    def tell(self) -> None:
        """Print what is left out, and why."""
        for (measure, reason), subjects in self._of.items():
            say(f"{measure} of {', '.join(subjects)} is left out: {reason}")


def pick_space(name: str, data: Data, device: str = "auto") -> Space:
    """Return the space to compare examples in: features of images, or standardized values of vectors.

    Args:
        name: Entry of `FEATURES`, or "auto": Inception's if its weights are on this machine and there are enough test
            images for so many features, else what suits the data without a download.
        data: The data set.
        device: Where features are computed.

    Raises:
        UsageError: for an unknown name, features asked for vectors, or images that the features do not take.
    """
    if not kind_of_data(data).pixels:
        if name != "auto":
            _ = FEATURES[name]
            raise UsageError(
                f"features '{name}' are of images, data set '{data.name}' has vectors; leave --features out"
            )
        return StandardizedValues(data.train.x)
    chosen = FEATURES[resolve_features(name, data)]
    if chosen.sound not in (None, data.sound):
        raise UsageError(
            f"features '{chosen.name}' are of sound as fsdd has it, and data set '{data.name}' is not: "
            f"{_differences(chosen.sound, data.sound)}; choose other features"
        )
    features = chosen.load(pick_device(device))
    channels, height, width = data.shape
    features.check((channels, height, width))
    if features.protocol()["precision"] == "bfloat16" and not choose("auto", features.device).hardware:
        say(f"features in bf16: {bf16_warning(features.device)}; {features.name} in float32 is another protocol")
    return features


def _differences(wanted: SoundConfig | None, have: SoundConfig | None) -> str:
    """Say which parameters of sound differ."""
    assert wanted is not None
    if have is None:
        return "it holds no sound"
    own, other = asdict(have), asdict(wanted)
    return ", ".join(f"{name} {own[name]:g} instead of {other[name]:g}" for name in own if own[name] != other[name])


def resolve_features(name: str, data: Data) -> str:
    """Return the name that "auto" stands for here: see `pick_space`."""
    if not kind_of_data(data).pixels:
        return name
    count = len(data.test) if data.sound is None else 0  # Inception has seen photographs, not spectrograms
    return suitable_features(name, count, bundled_features(data))


def suitable_features(name: str, count: int, bundled: str) -> str:
    """Return the name that "auto" stands for: Inception's if its weights are here and `count` images suffice.

    Args:
        name: As asked; any but "auto" is returned as it is.
        count: Images of the smaller set.
        bundled: Features that ship with the package, and suit the images.
    """
    if name != "auto":
        return name
    for key in ("inception-2048", "inception-768"):
        if FEATURES[key].available() and count > FEATURES[key].dim:
            return key
    return bundled


def bundled_features(data: Data) -> str:
    """Return the features that suit the data and ship with the package."""
    own = DATASETS[data.name].features if data.name in DATASETS else "pixels"
    return own if FEATURES[own].sound in (None, data.sound) else "pixels"


def chosen_examples(x: Tensor, protocol: Protocol) -> Tensor:
    """Return the test examples to reconstruct and interpolate: a seeded draw, because files are often sorted."""
    return x if protocol.count(len(x)) >= len(x) else x[chosen_places(len(x), protocol)]


def chosen_places(available: int, protocol: Protocol) -> Tensor:
    """Return the places of the examples that `chosen_examples` takes of so many, ascending."""
    drawn = torch.randperm(available, generator=generator(protocol.seed, PAIRS, 1))[: protocol.count(available)]
    return drawn.sort().values


def pairs(codes: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Pair codes along a random cycle: each code is in two pairs, none with itself."""
    shuffled = codes[torch.randperm(len(codes), generator=generator(seed, PAIRS))]
    return shuffled, shuffled.roll(1, 0)
