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


@dataclass(frozen=True)
class Scored:
    """What is scored.

    Attributes:
        data: Its test split is scored against.
        codec: What made strings into rows of symbols, as the cards name it; None for other data.
        subjects: "reconstruction", "interpolation", "codes", and names of fitted densities.
        model: Hash of the weights, for the cards.
        split: What the cards call the test split.
    """

    data: Data
    codec: Part | None
    subjects: Sequence[str]
    model: str
    split: str = "test"


def _tensors(generator: Generator, scored: Scored, features: str, protocol: Protocol, device: str) -> list[Score]:
    with main_first():  # weights may be downloaded
        space = pick_space(features, scored.data, device)
    return evaluate_generator(generator, scored.data, space, scored.subjects, protocol, scored.model, scored.split)


def _strings(generator: Generator, scored: Scored, features: str, protocol: Protocol, device: str) -> list[Score]:
    codec = scored.data.codec
    assert codec is not None
    assert scored.codec is not None
    strings = StringGenerator(generator, codec)
    return evaluate_strings(strings, scored.data, scored.codec, scored.subjects, protocol, scored.model, scored.split)


#: What scores examples, by their kind, and the measures that there are for them.
SCORERS: dict[str, tuple[tuple[str, ...], Callable[[Generator, Scored, str, Protocol, str], list[Score]]]] = {
    "images": (tuple(ALL_MEASURES), _tensors),
    "strings": (tuple(STRING_MEASURES), _strings),
    "vectors": (tuple(ALL_MEASURES), _tensors),
}


def measures_of(data: Data) -> tuple[str, ...]:
    """Return the measures that there are for a data set's examples."""
    return SCORERS[kind_of_data(data).like][0]


def check_scoring(data: Data, features: str, protocol: Protocol) -> None:
    """Refuse what a data set's examples cannot be scored by.

    Raises:
        UsageError: for unknown measures, or features of examples that have none.
    """
    protocol.chosen(measures_of(data))
    if SCORERS[kind_of_data(data).like][1] is _strings and (features != "auto" or protocol.bootstrap):
        raise UsageError("features and bootstrap are for images and vectors, this run is of strings; leave them out")


def score_generator(
    generator: Generator, scored: Scored, features: str = "auto", protocol: Protocol | None = None, device: str = "auto"
) -> list[Score]:
    """Score a model whose densities are fitted.

    Args:
        generator: The model.
        scored: What is scored, and against what.
        features: As `pick_space` takes them.
        protocol: What to compute, and how.
        device: Where features are computed.
    """
    return SCORERS[kind_of_data(scored.data).like][1](generator, scored, features, protocol or Protocol(), device)
