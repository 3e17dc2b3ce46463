"""The interface of a kind of examples in the explorer: decode, read, show, compare, save."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import PurePosixPath, PureWindowsPath
from typing import Generic, TypeVar

import numpy as np
import torch
from markupsafe import Markup
from torch import Tensor

from expost.errors import DataError, UsageError
from expost.generators.generator import Generator
from expost.metrics.distances import Points

Items = TypeVar("Items")


@dataclass(frozen=True)
class File:
    """A file that a person may save; its contents are made when it is asked for.

    Attributes:
        name: With its suffix.
        media: Media type.
        contents: Makes the bytes.
    """

    name: str
    media: str
    contents: Callable[[], bytes]


@dataclass(frozen=True)
class Given(Generic[Items]):
    """An example that a person brought.

    Attributes:
        items: It alone, as several.
        said: How it was understood, in words.
    """

    items: Items
    said: str = ""


@dataclass(frozen=True)
class Neighbours:
    """The nearest training examples by one distance.

    Attributes:
        title: Name of the distance.
        indices: Which training examples of those that are compared, nearest first.
        distances: How far.
    """

    title: str
    indices: Sequence[int]
    distances: Sequence[float]


class Kind(ABC, Generic[Items]):
    """A kind of examples. `Items` is what holds several of them: a tensor, or a list of strings.

    Attributes:
        noun: What one is called.
        accept: File suffixes of uploads; empty where nothing can be uploaded.
        typed: An example of what can be typed into the field; empty where nothing can be typed.
        symbols: Whether decoding draws symbols, at a temperature of its own.
    """

    noun: str
    accept: tuple[str, ...] = ()
    typed: str = ""
    symbols: bool = False

    @abstractmethod
    def of_rows(self, x: Tensor) -> Items:
        """Return rows of a data set as examples."""

    @abstractmethod
    def encode(self, items: Items) -> Tensor:
        """Return codes, shape (N, ...)."""

    @abstractmethod
    def decode(self, z: Tensor, temperature: float = 0.0, seed: int = 0) -> Items:
        """Return decoded codes (N, ...); temperature and seed are of the symbols that are drawn."""

    @abstractmethod
    def read(self, body: bytes, name: str) -> Given[Items]:
        """Read one example from a file's contents, in the way that the run's data are read.

        Raises:
            DataError: if it is unusable; the message is one line.
        """

    @abstractmethod
    def parse(self, text: str) -> Items:
        """Read one example from typed text.

        Raises:
            DataError: if it is unusable.
        """

    @abstractmethod
    def text(self, items: Items) -> str:
        """Return the first example as typed text; empty where examples cannot be typed."""

    @abstractmethod
    def size(self, items: Items) -> int:
        """Return about how many bytes examples take."""

    @abstractmethod
    def one(self, items: Items) -> Markup:
        """Show one example, large."""

    @abstractmethod
    def small(self, items: Items) -> Markup:
        """Show one example, small."""

    @abstractmethod
    def sheet(self, items: Items) -> Markup:
        """Show many examples; a click on one, an element with `data-index`, selects it."""

    @abstractmethod
    def pair(self, item: Items, back: Items) -> Markup:
        """Show an example beside its reconstruction, and how far they are apart."""

    @abstractmethod
    def path(self, items: Items) -> Markup:
        """Show the steps of a path."""

    @abstractmethod
    def row(self, items: Items, captions: Sequence[str]) -> Markup:
        """Show a few examples, each with a caption."""

    @abstractmethod
    def take(self, items: Items, index: int) -> Items:
        """Return one of several examples, as several."""

    @abstractmethod
    def nearest(self, item: Items, n: int) -> Neighbours:
        """Return the n training examples nearest to an example, by a distance of examples rather than codes."""

    @abstractmethod
    def files(self, items: Items, stem: str) -> list[File]:
        """Return the files that examples can be saved as."""


class TensorKind(Kind[Tensor]):
    """Examples that are rows of a tensor, as the model reads and writes them.

    Args:
        generator: From the trained model.
    """

    def __init__(self, generator: Generator) -> None:
        self.generator = generator

    def encode(self, items: Tensor) -> Tensor:
        """Return codes."""
        return self.generator.encode(items)

    def decode(self, z: Tensor, temperature: float = 0.0, seed: int = 0) -> Tensor:
        """Return decoded codes."""
        return self.generator.decode(z)

    def take(self, items: Tensor, index: int) -> Tensor:
        """Return one example of several."""
        return items[index : index + 1]


class Compared:
    """Rows that others are compared with by Euclidean distance.

    Args:
        rows: Shape (N, D), float32.
    """

    def __init__(self, rows: Tensor) -> None:
        self.points = Points(rows)

    def nearest(self, query: Tensor, n: int) -> tuple[list[int], list[float]]:
        """Return the n nearest rows to one query, shape (1, D), and their distances."""
        distances, indices = self.points.nearest(query.to(self.points.points), min(n, len(self.points)))
        return indices[0].tolist(), distances[0].tolist()


def npy(array: Tensor | np.ndarray) -> bytes:
    """Return the bytes of a .npy file."""
    buffer = BytesIO()
    np.save(buffer, array.cpu().numpy() if isinstance(array, torch.Tensor) else array, allow_pickle=False)
    return buffer.getvalue()


def array_of(body: bytes) -> np.ndarray:
    """Return the array of a .npy file, without taking the memory that its header claims.

    Raises:
        DataError: if it is none, of other things than numbers, or of another size than its header says.
    """
    file = BytesIO(body)
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        if dtype.kind not in "buif" or int(np.prod(shape, dtype=object)) * dtype.itemsize > len(body):
            raise ValueError("its header does not match what it holds")
        array = np.load(BytesIO(body), allow_pickle=False)
    except Exception as error:  # NumPy's header is Python for its own tokenizer, which can fail in any way
        reason = " ".join(str(error).split())[:100]
        raise DataError(
            f"the file is no array of numbers that can be read ({reason}); save it with numpy.save"
        ) from None
    if not array.size:
        raise DataError("the array is empty; save at least one example")
    return np.asarray(array)


def codes_file(z: Tensor, stem: str) -> File:
    """Return codes as a .npy file, float32, shape (N, d)."""
    return File(f"{stem}-codes.npy", "application/octet-stream", lambda: npy(z.float().flatten(1)))


def suffix_of(name: str, accepted: Sequence[str]) -> str:
    """Return the suffix of an upload's name, lower case.

    Raises:
        UsageError: if it is not one of those accepted.

    Example:
        >>> suffix_of("../a/Photo.JPG", [".jpg", ".png"])
        '.jpg'
    """
    last = PurePosixPath(PureWindowsPath(name).name).name
    suffix = PurePosixPath(last).suffix.lower()
    if suffix not in accepted:
        shown = re.sub(r"[^\w.\- ]", "?", last)[:60] or "the file"
        raise UsageError(f"cannot read '{shown}'; give one of: {', '.join(accepted)}")
    return suffix
