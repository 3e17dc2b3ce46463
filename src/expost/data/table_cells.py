"""A table while it is read: its columns and their cells; reading errors in one line."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from expost.data.examples import Array, Indices, Part
from expost.errors import DataError


class Cells(ABC):
    """A column of a table, or a piece of one."""

    @abstractmethod
    def missing(self) -> Indices:
        """Return the rows that have no value."""

    @abstractmethod
    def matrix(self, name: str) -> Array:
        """Return the numbers as float64, shape (N, d); `name` is what errors call the column."""

    @abstractmethod
    def values(self) -> Array:
        """Return the values of a column of numbers or text."""

    def written(self) -> Cells:
        """Return the cells as text, as in the file, if its format has no types; else unchanged."""
        return self


@dataclass(frozen=True)
class Field:
    """What a column is.

    Attributes:
        name: Its name.
        numeric: Whether it holds numbers, or lists of them.
        what: What it holds instead, with an example; of numbers, empty, or "dates" if they are that.
        fault: Why its numbers cannot be read, with the row and the cell; empty if they can, or there are none.
        kinds: How many different values a column of text has; 0 where nobody counted.
    """

    name: str
    numeric: bool
    what: str = ""
    fault: str = ""
    kinds: int = 0


@dataclass(frozen=True)
class Piece:
    """Some rows of a table.

    Attributes:
        count: How many rows.
        cells: Its columns.
    """

    count: int
    cells: Sequence[Cells]


@dataclass(frozen=True)
class Rows:
    """A table, read in pieces.

    Attributes:
        name: What errors call it.
        fields: Of its columns.
        count: How many rows.
        column: Reads the whole of one column, by name.
        pieces: Reads all columns, a few rows at a time.
        titled: Whether the file names its columns; otherwise they are numbered.
        remarks: What was recognized beyond the usual, one short clause each.
        classes: Names of the labels 0, 1, ... in the last column, where the file gives them apart; empty otherwise.
        class_names: The same by column, where a file has them for any column.
    """

    name: str
    fields: Sequence[Field]
    count: int
    column: Callable[[str], Cells]
    pieces: Callable[[], Iterator[Piece]]
    titled: bool = True
    remarks: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Images:
    """The images of a table.

    Attributes:
        part: The images and their labels.
        remarks: Which columns they are in, and which are left out; one short clause each.
    """

    part: Part
    remarks: tuple[str, ...] = ()


@contextmanager
def reading(name: Path | str) -> Iterator[None]:
    """Turn the errors of reading a file into one line each."""
    try:
        yield
    except MemoryError:
        raise DataError(
            f"{name} does not fit in memory; convert it to .npy or parquet, which are read in pieces"
        ) from None
    except OSError as error:
        reason = " ".join(str(error.strerror or error).split())[:200]
        raise DataError(f"cannot read {name}: {reason}; restore it") from None
