"""Examples before they are tensors: where they lie and how to bring any subset of them into memory."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from expost.errors import DataError, UsageError

if TYPE_CHECKING:
    from expost.config import SoundConfig
    from expost.data.notations import Domain

Array: TypeAlias = NDArray[Any]
Indices: TypeAlias = NDArray[np.int64]
New: TypeAlias = Callable[[tuple[int, ...], type[np.generic]], Array]
"""Makes an array of a shape and type, to be filled in: in memory, or somewhere else."""

POOL = "all"
"""The key of `Found.parts` for examples that nobody has divided yet."""

PARTS = ("train", "validation", "test", POOL)
"""What parts can be called."""

_SHORT = {"val": "validation", "valid": "validation"}
_LAYOUTS = ("HNW", "CHNW", "DN", "HW", "CHW")

LARGEST_SIDE = 4096
"""Sides that `Preprocess` accepts, in pixels: 1 to this."""


@dataclass(frozen=True)
class Preprocess:
    """What is done to every image, in this order.

    Attributes:
        crop: Cut the central square of this side, in pixels, out of each image; None leaves it whole.
        size: Cut the largest central square and resize it to this side with Pillow's bilinear filter, which widens its
            support when it shrinks an image and so does not alias. Images of this size are left as they are.
        channels: 1 turns color into grey (ITU-R 601-2 luma), 3 repeats grey; None keeps what is there.
        pad: Surround with zeros (black) to a square of this side, evenly; a remainder goes right and below.
        range: Before all that, scale these two values to 0 and 255, linearly; values beyond them are clipped. None
            keeps 8-bit values, divides 16-bit ones by 257, and multiplies floats by 255.

    Raises:
        UsageError: for a side outside 1..4096, a number of channels other than 1 and 3, or a range that does not rise.
    """

    crop: int | None = None
    size: int | None = None
    channels: int | None = None
    pad: int | None = None
    range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        for name, side in (("crop", self.crop), ("size", self.size), ("pad", self.pad)):
            if side is not None and (type(side) is not int or not 1 <= side <= LARGEST_SIDE):
                raise UsageError(f"{name} is {side!r}; give whole pixels from 1 to {LARGEST_SIDE}")
        if self.channels is not None and (type(self.channels) is not int or self.channels not in (1, 3)):
            raise UsageError(f"channels is {self.channels!r}; choose 1 (grey) or 3 (color)")
        if self.range is not None:
            low, high = self.range
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise UsageError(f"range is {low} to {high}; give two finite numbers, the lower first")

    def describe(self, every: bool = False) -> str:
        """Say in words what is done; empty if nothing is.

        Args:
            every: Whether every image is known to have another size than `size`.

        Example:
            >>> Preprocess(crop=140, size=64).describe(), Preprocess(size=64).describe()
            ('central 140x140 crop, resized to 64x64', 'resized to 64x64 where of another size')
        """
        steps = []
        if self.range:
            low, high = self.range
            steps.append(f"values {low:,g} to {high:,g} scaled to 0..255, beyond them clipped")
        if self.crop:
            steps.append(f"central {self.crop}x{self.crop} crop")
        if self.size:
            steps.append(
                f"resized to {self.size}x{self.size}" + ("" if self.crop or every else " where of another size")
            )
        if self.channels:
            steps.append("grey" if self.channels == 1 else "3 channels")
        if self.pad:
            steps.append(f"zero-padded to {self.pad}x{self.pad}")
        return ", ".join(steps)


def in_memory(shape: tuple[int, ...], kind: type[np.generic]) -> Array:
    """Make an array in memory; a `New`."""
    return np.empty(shape, kind)


class Examples(ABC):
    """Examples in a fixed order, not necessarily in memory yet."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of examples."""

    @abstractmethod
    def load(self, indices: Indices, prep: Preprocess, new: New = in_memory) -> Array:
        """Bring some examples into memory, or into what `new` makes; no more than a few at a time are held beside it.

        Args:
            indices: Which ones, int64, shape (n,), each in 0..len-1, in any order; at least one.
            prep: What to do to every image.
            new: Makes the array that is returned. Examples that are mapped from a file, in the order and the form that
                is asked for, may be returned as they are.

        Returns:
            In the order of `indices`. Images: uint8, shape (n, C, H, W), with C = 3 as soon as one of them has color.
            Vectors: float32, shape (n, d).

        Raises:
            DataError: if an example cannot be read, or the images differ in size and `prep` does not make them equal.
            UsageError: if `prep` does something and the examples are not images.
        """


@dataclass(frozen=True)
class Part:
    """Examples and their labels.

    Attributes:
        examples: The examples.
        labels: Integers or strings, shape (N,), in the same order; None where there are none.
        names: Names of the labels 0, 1, ... where the source gives them apart; empty otherwise.
    """

    examples: Examples
    labels: Array | None = None
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.examples)


@dataclass(frozen=True)
class Overrules:
    """What a person says where a reader would have to find out.

    Attributes:
        layout: Axes of arrays, a letter each: N examples, H height, W width, C channels; D the entries of a vector.
            None: told by the shape.
        parts: Folders, files or arrays of each part: pairs of a part (train, validation, test; all for the undivided)
            and a path below what is read. Empty: told by the names.
        label_column: The column of a table that holds the labels, in any case, or "none"; None to find it.
        rate: Samples a second that recordings are brought to; None for the commonest.
        seconds: The length that they are brought to; None for what holds most of them.
        mels: Bands of their log-mel frames; None for the usual number.

    Raises:
        UsageError: for a layout that is none, a part of another name, or parts without a training part.
    """

    layout: str | None = None
    parts: tuple[tuple[str, str], ...] = ()
    label_column: str | None = None
    rate: int | None = None
    seconds: float | None = None
    mels: int | None = None

    def __post_init__(self) -> None:
        if self.layout is not None and "".join(sorted(self.layout)) not in _LAYOUTS:
            raise UsageError(
                f"layout is {self.layout!r}; give each axis a letter: N (examples), H, W and perhaps C (channels), as "
                "NHW, NCHW, NHWC, HWN; N and D for rows of numbers"
            )
        for part, _ in self.parts:
            if part not in PARTS:
                raise UsageError(f"parts names '{part}'; choose {', '.join(PARTS)}, as in train=a test=b")
        named = {part for part, _ in self.parts}
        if named and POOL not in named and "train" not in named:
            raise UsageError("parts names no training part; give train=FOLDER, or all=FOLDER to draw the parts")
        if POOL in named and len(named) > 1:
            raise UsageError(f"parts gives '{POOL}' and others; give one or the other")

    @property
    def given(self) -> list[str]:
        """Names of what is said."""
        return [name for name, value in asdict(self).items() if value not in (None, ())]

    def places(self) -> dict[str, list[str]]:
        """Return the places of each part."""
        places: dict[str, list[str]] = {}
        for part, place in self.parts:
            places.setdefault(part, []).append(place)
        return places


def parts_of(asked: Sequence[str] | Mapping[str, str | Sequence[str]] | None) -> tuple[tuple[str, str], ...]:
    """Return the places of parts as pairs: from the words of the command line, or a mapping.

    Raises:
        UsageError: for a word that is no PART=PLACE.

    Example:
        >>> parts_of(["train=a", "val=b"]), parts_of({"train": ["a", "c"]})
        ((('train', 'a'), ('validation', 'b')), (('train', 'a'), ('train', 'c')))
    """
    pairs: list[tuple[str, str]] = []
    if isinstance(asked, Mapping):
        for part, places in asked.items():
            pairs += [(part, place) for place in ([places] if isinstance(places, str) else places)]
    else:
        for word in asked or ():
            part, _, place = word.partition("=")
            if not place:
                raise UsageError(f"parts has '{word}'; write PART=FOLDER, as in train=a test=b")
            pairs.append((part, place))
    return tuple((_SHORT.get(part, part), place) for part, place in pairs)


FOUND_OUT = Overrules()
"""Nothing is overruled: readers find everything out."""


@dataclass(frozen=True)
class Found:
    """What a reader found.

    Attributes:
        parts: By name: "train", "validation", "test" as the source divides them, or "all" alone if it does not.
        where: What was read, for notes and errors ("IDX files in data/mnist").
        remarks: What a reader of results should know (files ignored, layout assumed), one short clause each.
        files: The files that hold all of it; they tell whether the source has changed. None for what is in memory.
        columns: Names of a vector's entries, where there are any.
        overrules: What a person said of it.
        domain: What strings are, where the source says it; None where it is to be guessed, and for other examples.
        sound: What recordings are brought to; None for other examples.
    """

    parts: Mapping[str, Part]
    where: str
    remarks: tuple[str, ...] = field(default=())
    files: tuple[Path, ...] = field(default=())
    columns: tuple[str, ...] = ()
    overrules: Overrules = field(default_factory=Overrules)
    domain: Domain | None = None
    sound: SoundConfig | None = None


def existing(path: str | Path) -> Path | None:
    """Return a path with ~ resolved, or None if there is nothing.

    Raises:
        UsageError: if it is no path.
        DataError: if it may not be looked at.
    """
    try:
        place = Path(path).expanduser()
        return place if place.exists() else None
    except PermissionError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; make its folder readable") from None
    except (OSError, ValueError, RuntimeError):
        raise UsageError(
            f"{str(path)[:80]!r} is no usable path: too long, of an unknown ~user, or with a NUL"
        ) from None
