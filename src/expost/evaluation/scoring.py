"""Scoring a model's examples, whatever kind they are of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from expost.distributed import main_first
from expost.errors import UsageError
from expost.evaluation.evaluate import evaluate_generator
from expost.evaluation.protocol import ALL_MEASURES, Protocol, pick_space
from expost.evaluation.scores import Score
from expost.evaluation.strings import STRING_MEASURES, evaluate_strings
from expost.examples import kind_of_data
from expost.generators.generator import Generator
from expost.generators.strings import StringGenerator
from expost.registry import Part
from expost.types import Data

#: Scores a model whose densities are fitted: gets it, the subjects, the hash of its weights, and the split's name.
Scorer = Callable[[Generator, Sequence[str], str, str], list[Score]]


@dataclass(frozen=True)
class Request:
    """What is to be scored, and how.

    Attributes:
        data: Its test split is scored against.
        codec: What made strings into rows of symbols, as the cards name it; None for other data.
        features: As `pick_space` takes them.
        protocol: What to compute, and how.
        device: Where features are computed.
    """

    data: Data
    codec: Part | None
    features: str
    protocol: Protocol
    device: str


def _tensors(request: Request) -> Scorer:
    with main_first():  # weights may be downloaded
        space = pick_space(request.features, request.data, request.device)

    def score(generator: Generator, subjects: Sequence[str], model: str, split: str) -> list[Score]:
        return evaluate_generator(generator, request.data, space, subjects, request.protocol, model, split)

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


#: The measures that there are for examples, by their kind, and what makes a scorer of them.
SCORERS: dict[str, tuple[tuple[str, ...], Callable[[Request], Scorer]]] = {
    "images": (tuple(ALL_MEASURES), _tensors),
    "strings": (tuple(STRING_MEASURES), _strings),
    "vectors": (tuple(ALL_MEASURES), _tensors),
}


def measures_of(data: Data) -> tuple[str, ...]:
    """Return the measures that there are for a data set's examples."""
    return SCORERS[kind_of_data(data).like][0]


def scorer_of(request: Request) -> Scorer:
    """Return what scores as requested; what cannot be is refused, and features are loaded, before a model is asked.

    Raises:
        UsageError: for unknown measures, or features that do not suit the examples.
    """
    request.protocol.chosen(measures_of(request.data))
    return SCORERS[kind_of_data(request.data).like][1](request)
