"""Scoring a model by the kind of its examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from expost.config import ModelConfig
from expost.densities import DENSITIES
from expost.densities.staged import StagedDensity
from expost.distributed import main_first
from expost.errors import UsageError
from expost.evaluation.catalog import ALL_MEASURES, PROPERTIES, STRING_MEASURES
from expost.evaluation.evaluate import evaluate_generator
from expost.evaluation.protocol import INTERPOLATION, RECONSTRUCTION, Protocol, pick_space, resolve_features
from expost.evaluation.scores import Score
from expost.evaluation.spoken import SPOKEN, intended_digits, kept_digits
from expost.evaluation.strings import evaluate_strings
from expost.examples import kind_of_data
from expost.generators.generator import Generator
from expost.generators.strings import StringGenerator
from expost.registry import Part
from expost.types import Data

#: Scores a model with fitted densities: gets the model, the subjects, the hash of its weights, and the split's name.
Scorer = Callable[[Generator, Sequence[str], str, str], list[Score]]


@dataclass(frozen=True)
class Request:
    """A request for scores.

    Attributes:
        data: Its test split is scored against.
        codec: The strings' codec, for the cards; None for other data.
        features: As `pick_space` takes them.
        protocol: What to compute, and how.
        device: Where features are computed.
        through: Name of the density through which reconstructions and interpolations go; None for none.
    """

    data: Data
    codec: Part | None
    features: str
    protocol: Protocol
    device: str
    through: str | None = None


def _tensors(request: Request) -> Scorer:
    with main_first():  # weights may be downloaded
        space = pick_space(request.features, request.data, request.device)

    def score(generator: Generator, subjects: Sequence[str], model: str, split: str) -> list[Score]:
        through = generator.densities[request.through] if request.through is not None else None
        assert through is None or isinstance(through, StagedDensity)
        return evaluate_generator(generator, request.data, space, subjects, request.protocol, model, split, through)

    return score


def _sound(request: Request) -> Scorer:
    """Score as images are; where digits are spoken, also whether samples by label are heard as intended."""
    score_images = _tensors(request)
    hears = resolve_features(request.features, request.data) == SPOKEN

    def score(generator: Generator, subjects: Sequence[str], model: str, split: str) -> list[Score]:
        found = score_images(generator, subjects, model, split)
        if hears and RECONSTRUCTION in subjects:
            found += kept_digits(generator, request.data, request.protocol, model, split)
        for name in subjects if hears else ():
            if name in generator.by_label:
                found += intended_digits(generator, name, request.data, request.protocol, model, split)
        return found

    return score


def _strings(request: Request) -> Scorer:
    if request.features != "auto" or request.protocol.bootstrap:
        raise UsageError("features and bootstrap are for images and vectors, this run is of strings; leave them out")
    codec, part = request.data.codec, request.codec
    assert codec is not None
    assert part is not None

    def score(generator: Generator, subjects: Sequence[str], model: str, split: str) -> list[Score]:
        strings = StringGenerator(generator, codec)
        return evaluate_strings(strings, request.data, part, subjects, request.protocol, model, split)

    return score


@dataclass(frozen=True)
class Scoring:
    """How examples of a kind are scored.

    Attributes:
        measures: Names of the available measures.
        ranking: Measures that rank runs by default.
        complete: Whether every run gets every score; strings lack some where no sample is valid.
        scorer: Makes the function that scores as requested.
    """

    measures: tuple[str, ...]
    ranking: tuple[str, ...]
    complete: bool
    scorer: Callable[[Request], Scorer]


#: How examples are scored, by their kind.
SCORERS: dict[str, Scoring] = {
    "images": Scoring(tuple(ALL_MEASURES), ("frechet",), True, _tensors),
    "sound": Scoring(tuple(ALL_MEASURES), ("frechet",), True, _sound),
    "strings": Scoring(tuple(STRING_MEASURES), (PROPERTIES,), False, _strings),
    "vectors": Scoring(tuple(ALL_MEASURES), ("frechet",), True, _tensors),
}


def scoring_of(data: Data) -> Scoring:
    """Return how a data set's examples are scored."""
    return SCORERS[kind_of_data(data).like]


def stage_of(model: ModelConfig, subjects: Sequence[str]) -> str | None:
    """Return the second stage that a model's reconstructions and mid-points go through, if some are among the subjects.

    Args:
        model: A model that samples from a `StagedDensity`, or any other.
        subjects: What is scored.
    """
    prior = model.prior
    if prior is None or not {RECONSTRUCTION, INTERPOLATION} & set(subjects):
        return None
    return prior.name if issubclass(DENSITIES[prior.name], StagedDensity) else None


def scorer_of(request: Request) -> Scorer:
    """Return the function that scores as requested, after checking the request and loading features.

    Raises:
        UsageError: for unknown measures, or features that do not suit the examples.
    """
    scoring = scoring_of(request.data)
    request.protocol.chosen(scoring.measures)
    return scoring.scorer(request)
