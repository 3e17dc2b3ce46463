"""Images in zip archives, read where they are: nothing is unpacked to disk."""

from __future__ import annotations

import zipfile
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from expost.data.decoding import Source
from expost.data.examples import Indices
from expost.data.images import SUFFIXES, ImageSource
from expost.errors import DataError

LARGEST = 2**28
"""Most bytes that one image of an archive may unpack to: 256 MiB, of which a bomb would make more."""


@dataclass(frozen=True)
class ZipImages(ImageSource):
    """Images of a zip archive, in the order of their names.

    Attributes:
        path: The archive.
        names: Their names in it.
        others: How many other files the archive holds.
    """

    path: Path
    names: tuple[str, ...]
    others: int = 0

    @classmethod
    def open(cls, path: Path, suffixes: Container[str] = SUFFIXES, what: str = "images") -> ZipImages:
        """List the images of an archive. Names that lead out of it are of no use, and count as other files.

        Args:
            path: The archive.
            suffixes: Of the files that count, lower case.
            what: What errors call them.

        Raises:
            DataError: if it is damaged, encrypted, or holds none.
        """
        entries = _entries(path)
        images = [entry for entry in entries if is_inside(entry.filename, suffixes)]
        if not images:
            raise DataError(f"{path} holds no {what}, only {len(entries)} other files; unpack it and pass its folder")
        if any(entry.flag_bits & 1 for entry in images):
            raise DataError(f"{path} is encrypted; unpack it and pass its folder")
        names = sorted((entry.filename for entry in images), key=lambda name: name.split("/"))
        hidden = sum(_is_hidden(entry.filename) for entry in entries)
        return cls(path, tuple(names), len(entries) - len(names) - hidden)

    def only(self, chosen: Sequence[int]) -> ZipImages:
        """Return some of the images, by their places."""
        return ZipImages(self.path, tuple(self.names[index] for index in chosen))

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.names)

    def encoded(self, indices: Indices) -> Iterator[tuple[str, Source]]:
        """Yield each image's name and contents.

        Raises:
            DataError: if one is damaged, or larger than `LARGEST`.
        """
        try:
            with zipfile.ZipFile(self.path) as archive:
                for index in indices:
                    where = f"{self.path}/{self.names[index]}"
                    with archive.open(self.names[index]) as file:
                        content = file.read(LARGEST + 1)
                    if len(content) > LARGEST:
                        raise DataError(f"{where} unpacks to more than {LARGEST >> 20} MiB; shrink or remove it")
                    yield where, content
        except DataError:
            raise
        except Exception as error:  # zipfile and zlib raise many things for damage
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(f"cannot read {self.path}: {reason}; restore it") from None


def names_inside(path: Path, suffixes: Container[str]) -> bool:
    """Tell whether an archive holds files of these suffixes; one that cannot be read holds none."""
    try:
        return any(is_inside(entry.filename, suffixes) for entry in _entries(path))
    except DataError:
        return False


def is_image_inside(name: str) -> bool:
    """Tell whether a name in an archive is that of an image, and does not lead out of it."""
    return is_inside(name, SUFFIXES)


def is_inside(name: str, suffixes: Container[str]) -> bool:
    """Tell whether a name in an archive has one of these suffixes, and does not lead out of it."""
    path = PurePosixPath(name)
    inside = not path.is_absolute() and ".." not in path.parts and "\\" not in name
    return inside and path.suffix.lower() in suffixes and not _is_hidden(name)


def _entries(path: Path) -> list[zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(path) as archive:
            return [entry for entry in archive.infolist() if not entry.is_dir()]
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError, EOFError) as error:
        reason = (error.strerror if isinstance(error, OSError) else "") or " ".join(str(error).split())
        raise DataError(f"cannot read {path}: {reason or 'no zip archive'}; restore it") from None


def _is_hidden(name: str) -> bool:
    return PurePosixPath(name).name.startswith(".")
