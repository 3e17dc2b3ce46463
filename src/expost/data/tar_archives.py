"""Images in tar archives, plain or compressed, and their classes as WebDataset keeps them; read where they are.

Links, devices and names that lead out of an archive are of no use here. Declared sizes are checked against the file,
and what a compressed archive unpacks to has a bound.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np

from expost.data.decoding import Source
from expost.data.examples import Array, Indices
from expost.data.image_archives import LARGEST, is_image_inside
from expost.data.images import ImageSource
from expost.data.mapped import PIECE, scratch
from expost.errors import DataError

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
"""How the names of tar archives end, lower case."""

_RATIO, _FREE = 100, 2**30
"""A compressed archive may unpack to so many times its size, and a GiB more: images hardly shrink."""

_LONGEST_CLASS = 1000  # bytes
_OPENERS: dict[bytes, Callable[[Path], IO[bytes]]] = {
    b"\x1f\x8b": gzip.open,  # type: ignore[dict-item]
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}


class _Bounded:
    """The unpacked bytes of an archive, of which no more can be asked for than are allowed.

    Args:
        file: Reads them.
        most: How many there may be.
        path: What errors call the archive.
    """

    def __init__(self, file: IO[bytes], most: int, path: Path) -> None:
        self.file, self.most, self.path = file, most, path

    def read(self, size: int) -> bytes:
        """Read some bytes."""
        self._check(self.file.tell() + size)
        if size > LARGEST:
            raise DataError(f"{self.path} declares {size:,} bytes of one entry; unpack it and pass its folder")
        return self.file.read(size)

    def seek(self, position: int) -> int:
        """Go to a position, counted from the beginning."""
        self._check(position)
        return self.file.seek(position)

    def tell(self) -> int:
        """Return the position."""
        return self.file.tell()

    def _check(self, position: int) -> None:
        if position > self.most:
            raise DataError(
                f"{self.path} is damaged, or unpacks to more than {self.most >> 20:,} MiB; restore it, or unpack it "
                "and pass its folder"
            )


@dataclass(frozen=True)
class Member:
    """An image in an archive.

    Attributes:
        name: Its name there.
        begin: Where its bytes begin, in the unpacked archive.
        size: How many there are.
        label: Its class, of the file `.cls` beside it; empty without one.
    """

    name: str
    begin: int
    size: int
    label: str = ""


@dataclass(frozen=True)
class Archive:
    """A tar archive.

    Attributes:
        path: The file.
        members: Its images, in the order of their names.
        others: How many other files it holds.
    """

    path: Path
    members: tuple[Member, ...] = field(repr=False)
    others: int

    @classmethod
    def open(cls, path: Path) -> Archive:
        """List the images of an archive.

        Raises:
            DataError: if it is damaged, or would unpack to too much.
        """
        found: list[Member] = []
        classes: dict[str, str] = {}
        others = 0
        with _unpacked(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:  # type: ignore[call-overload]
            for entry in archive:
                if entry.isreg():
                    file.seek(entry.offset_data + entry.size)  # which is refused where the archive is shorter
                    if not entry.issparse() and is_image_inside(entry.name):
                        found.append(Member(entry.name, entry.offset_data, entry.size))
                    elif entry.name.lower().endswith(".cls") and entry.size <= _LONGEST_CLASS:
                        file.seek(entry.offset_data)
                        classes[_key(entry.name)] = file.read(entry.size).decode("utf-8", "replace").strip()
                    else:
                        others += not PurePosixPath(entry.name).name.startswith(".")
                elif not entry.isdir():
                    others += 1
            file.seek(archive.offset)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # tarfile stops at damage as at the end
                raise DataError(f"{path} is damaged: it breaks off after {len(found):,} images; restore it")
        labelled = [Member(each.name, each.begin, each.size, classes.get(_key(each.name), "")) for each in found]
        return cls(path, tuple(sorted(labelled, key=lambda each: each.name.split("/"))), others)

    @cached_property
    def is_compressed(self) -> bool:
        """Whether its bytes have to be unpacked to be found."""
        return _opener(self.path) is not None

    @cached_property
    def _contents(self) -> tuple[Array, dict[str, int]]:
        """The images of a compressed archive, unpacked in one go, and where each begins."""
        unpacked = scratch((sum(each.size for each in self.members),), np.uint8)
        begins: dict[str, int] = {}
        at = 0
        with _unpacked(self.path) as file:
            for each in sorted(self.members, key=lambda each: each.begin):
                file.seek(each.begin)
                begins[each.name] = at
                for start in range(0, each.size, PIECE):
                    piece = file.read(min(PIECE, each.size - start))
                    unpacked[at + start : at + start + len(piece)] = np.frombuffer(piece, np.uint8)
                at += each.size
        return unpacked, begins

    def read(self, members: Sequence[Member]) -> Iterator[bytes]:
        """Yield the contents of images.

        Raises:
            DataError: if the archive is damaged, or one is larger than `LARGEST`.
        """
        for each in members:
            if each.size > LARGEST:
                raise DataError(f"{self.path}/{each.name} has more than {LARGEST >> 20} MiB; shrink or remove it")
        if self.is_compressed:
            unpacked, begins = self._contents
            for each in members:
                yield unpacked[begins[each.name] : begins[each.name] + each.size].tobytes()
            return
        with _unpacked(self.path) as file:
            for each in members:
                file.seek(each.begin)
                content = file.read(each.size)
                if len(content) < each.size:
                    raise DataError(f"{self.path} is damaged: it ends within {each.name}; restore it")
                yield content


class TarImages(ImageSource):
    """Images of tar archives.

    Args:
        members: Each with the archive that holds it.
    """

    def __init__(self, members: Sequence[tuple[Archive, Member]]) -> None:
        self.members = list(members)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.members)

    def encoded(self, indices: Indices) -> Iterator[tuple[str, Source]]:
        """Yield each image's name and contents.

        Raises:
            DataError: as `Archive.read` does.
        """
        chosen = [self.members[index] for index in indices]
        start = 0
        while start < len(chosen):
            archive = chosen[start][0]
            end = next((at for at in range(start, len(chosen)) if chosen[at][0] is not archive), len(chosen))
            members = [member for _, member in chosen[start:end]]
            for member, content in zip(members, archive.read(members), strict=True):
                yield f"{archive.path}/{member.name}", content
            start = end


def stem_of_archive(path: Path) -> str:
    """Return the name of an archive without its suffix."""
    suffix = next(suffix for suffix in sorted(SUFFIXES, key=len, reverse=True) if path.name.lower().endswith(suffix))
    return path.name[: -len(suffix)]


def is_tar(path: Path) -> bool:
    """Tell whether a file is a tar archive, by its name."""
    return path.name.lower().endswith(SUFFIXES)


def _key(name: str) -> str:
    """Return what the files of one example share: their name up to the first dot."""
    folder, _, file = name.rpartition("/")
    return f"{folder}/{file.split('.')[0]}"


def _opener(path: Path) -> Callable[[Path], IO[bytes]] | None:
    with path.open("rb") as file:
        head = file.read(6)
    return next((opener for magic, opener in _OPENERS.items() if head.startswith(magic)), None)


@contextmanager
def _unpacked(path: Path) -> Iterator[_Bounded]:
    """Open the unpacked bytes of an archive; its faults become one line each."""
    try:
        opener, size = _opener(path), path.stat().st_size
        with path.open("rb") if opener is None else opener(path) as file:
            yield _Bounded(file, size if opener is None else _RATIO * size + _FREE, path)
    except (OSError, EOFError, ValueError, OverflowError, zlib.error, lzma.LZMAError, tarfile.TarError) as error:
        if isinstance(error, DataError):
            raise
        reason = (error.strerror if isinstance(error, OSError) else "") or " ".join(str(error).split())
        raise DataError(f"cannot read {path}: {reason or 'no tar archive'}; restore it") from None
