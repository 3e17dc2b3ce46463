"""The base class of the kinds of examples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from expost.config import DataConfig
from expost.examples.figures import PLAIN, Look, Sheet
from expost.generators.generator import Generator
from expost.types import Data

#: Two batches of examples, row by row.
Pair = tuple[Tensor, Tensor]
#: The label of each example; None where there are none.
Labels = Sequence[Any] | None


@dataclass(frozen=True)
class Wish:
    """A request for samples.

    Attributes:
        count: How many.
        density: A fitted density; None takes the best (`usual_density`).
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


@dataclass(frozen=True)
class PanelWish:
    """A request for the parts of a panel.

    Attributes:
        densities: The fitted densities that are drawn from, and
        by_label: those that are drawn from by label.
        seed: Seeds pairs and draws.
        look: Columns and scale; its title and labels are not for the parts.
    """

    densities: tuple[str, ...]
    by_label: tuple[str, ...] = ()
    seed: int = 0
    look: Look = PLAIN


def counted(n: int, what: str) -> str:
    """Return how many there are of something, in words.

    Example:
        >>> counted(1, "sample"), counted(2000, "sample")
        ('1 sample', '2,000 samples')
    """
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def ends_of(x: Tensor, n: int, seed: int) -> Pair:
    """Return n random pairs of examples, or as many as there are, each example in one of them at most."""
    chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    half = min(n, len(x) // 2)
    return x[chosen[:half]], x[chosen[half : 2 * half]]


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
    def holds(shape: Sequence[int], coded: bool, sound: bool) -> bool:
        """Return whether examples of this shape are of this kind.

        Args:
            shape: Of one example, as a model sees it.
            coded: Whether a codec made it.
            sound: Whether it is log-mel frames of a recording.
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
    def write(self, drawn: Any, path: Path, look: Look = PLAIN, labels: Labels = None) -> None:
        """Write samples to a file, and report what could not be written.

        Args:
            drawn: What `draw` returned.
            path: The file, or a folder.
            look: Pictures only.
            labels: Tables of text only: the label of each sample, which is their last column.
        """

    @abstractmethod
    def write_pairs(
        self, generator: Generator, x: Tensor, path: Path, look: Look = PLAIN, labels: Labels = None
    ) -> None:
        """Write examples beside their reconstructions; arguments are those of `write`."""

    @abstractmethod
    def write_paths(
        self, generator: Generator, ends: Pair, t: Tensor, method: str, path: Path, look: Look = PLAIN
    ) -> None:
        """Write interpolations between pairs of examples, at positions t in [0, 1]."""

    @abstractmethod
    def parts(self, generator: Generator, data: Data, wish: PanelWish) -> list[tuple[str, Sheet]]:
        """Return the parts of a panel, with titles: real examples beside reconstructions, paths, samples.

        Args:
            generator: The model with its densities.
            data: The run's data, whose test split is shown.
            wish: What is asked for.
        """
