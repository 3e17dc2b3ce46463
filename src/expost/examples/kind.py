"""The base class of the kinds of examples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from expost.config import DataConfig
from expost.generators.generator import Generator
from expost.types import Data

#: Two batches of examples, row by row.
Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Wish:
    """A request for samples.

    Attributes:
        count: How many.
        density: A fitted density; None takes gmm if it is fitted, else another.
        label: A class, or a value of a property; None takes any.
        seed: Seeds the draws.
        temperature: Strings only: 0 takes the most likely symbol at each step.
        code_temperature: Below 1, codes concentrate near the modes of the density.
    """

    count: int
    density: str | None = None
    label: str | None = None
    seed: int = 0
    temperature: float = 0.0
    code_temperature: float = 1.0


class Examples(ABC):
    """A kind of examples: how they are drawn and written.

    Args:
        data: The data of a run.

    Attributes:
        name: Name of the kind.
        like: The kind whose scores, pages and ways of sharing this one takes.
        pixels: Whether values are pixels: only these have image features, PSNR and SSIM.
        symbols: Whether an example is a row of symbols, each drawn at a temperature.
        usual: The default file of samples.
        samples: Suffixes of files of samples.
        pairs: Suffixes of files of examples beside their reconstructions.
        paths: Suffixes of files of interpolations.
    """

    name: ClassVar[str]
    like: ClassVar[str]
    pixels: ClassVar[bool] = False
    symbols: ClassVar[bool] = False
    usual: ClassVar[str]
    samples: tuple[str, ...]
    pairs: tuple[str, ...]
    paths: tuple[str, ...]

    def __init__(self, data: DataConfig) -> None:
        self.data = data

    @staticmethod
    @abstractmethod
    def holds(shape: Sequence[int], coded: bool) -> bool:
        """Return whether examples of this shape are of this kind.

        Args:
            shape: Of one example, as a model sees it.
            coded: Whether a codec made it.
        """

    @classmethod
    def slots(cls, data: Data) -> dict[str, Any]:
        """Return options of the model's slots that follow from the data, such as reconstruction.groups."""
        return {}

    @classmethod
    def values(cls, data: Data, x: Tensor, name: str) -> Tensor | None:
        """Return a property of each example, NaN where it has none; None if examples have no such property.

        Args:
            data: What the examples are of.
            x: The examples.
            name: The property, for example logp.
        """
        return None

    @abstractmethod
    def draw(self, generator: Generator, wish: Wish) -> Any:
        """Return samples in the form that `write` takes."""

    @abstractmethod
    def write(self, drawn: Any, path: Path) -> None:
        """Write samples to a file, and report what could not be written."""

    @abstractmethod
    def write_pairs(self, generator: Generator, x: Tensor, path: Path) -> None:
        """Write examples beside their reconstructions."""

    @abstractmethod
    def write_paths(self, generator: Generator, ends: Pair, t: Tensor, method: str, path: Path) -> None:
        """Write interpolations between pairs of examples, at positions t in [0, 1]."""
