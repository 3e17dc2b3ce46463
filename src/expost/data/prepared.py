"""Prepared examples: data too large for memory are decoded, cropped and resized once, and kept in mapped files.

A file holds one part of a data set in its final order and form. Its name is a hash of the source's files (with sizes
and modification times), the preprocessing, and the chosen examples in order; if any of them changes, another file is
made. The least recently used files are removed when the disk has no room for a new one.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import PIL
from filelock import FileLock, Timeout

from expost.data.examples import Array, Found, Indices, Part, Preprocess, in_memory
from expost.data.mapped import VARIABLE, memory_limit, new_file, no_room, open_file, prepared_folder, scratch
from expost.errors import DataError

_FORMAT = 3  # of what is in the files; raised whenever the same source would be prepared differently


class _MadeMeanwhile(Exception):
    """Another process made the file first."""


@dataclass
class Preparation:
    """Loads the parts of one data set, into memory or, where they are too large together, into mapped files.

    Attributes:
        found: The source. Without its files there is nothing to name a prepared file by, and none is kept.
        total: Examples that are going to be loaded, in all parts.
        kept: The prepared files that were used, for the note.
    """

    found: Found
    total: int
    kept: list[Path] = field(default_factory=list)

    def load(self, part: Part, indices: Indices, prep: Preprocess) -> Array:
        """Load some examples; arguments and result are those of `Examples.load`.

        Returns:
            In memory, or mapped: a prepared file, or the source's own where it has the form and the order already.

        Raises:
            DataError: as `Examples.load` does, and if there is no room in memory or on disk.
        """
        try:
            return self._load(part, indices, prep)
        except MemoryError:
            raise DataError(
                f"{self.found.where}: {len(indices):,} examples do not fit in memory; set {VARIABLE} to less than they "
                "take, such as 256M, and they are mapped from a file instead"
            ) from None

    def _load(self, part: Part, indices: Indices, prep: Preprocess) -> Array:
        if not self.found.files:
            return part.examples.load(indices, prep, self._unnamed)
        path = prepared_folder() / f"{self._key(part, indices, prep)}.npy"
        ready = self._open(path)
        if ready is not None:
            return ready
        with _Making(path, self.total) as making:
            try:
                return self._settle(making, part.examples.load(indices, prep, making.new))
            except _MadeMeanwhile:
                ready = self._open(path)
        if ready is None:
            raise DataError(f"cannot read {path}, which another process has just made; remove it, and try again")
        return ready

    def _settle(self, making: _Making, array: Array) -> Array:
        path = making.settle(array)
        if path is None:
            return array
        self.kept.append(path)
        return open_file(path)

    def _open(self, path: Path) -> Array | None:
        """Map a prepared file if it is there; a damaged one is removed."""
        try:
            array = open_file(path)
        except OSError:
            return None
        except (ValueError, EOFError):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # the last to be removed, then
        self.kept.append(path)
        return array

    def _unnamed(self, shape: tuple[int, ...], kind: type[np.generic]) -> Array:
        return scratch(shape, kind) if _too_large(self.total, shape, kind) else in_memory(shape, kind)

    def _key(self, part: Part, indices: Indices, prep: Preprocess) -> str:
        name = next(name for name, each in self.found.parts.items() if each is part)
        chosen = hashlib.sha256(np.ascontiguousarray(indices, "<i8").tobytes()).hexdigest()
        made_by = {"format": _FORMAT, "pillow": PIL.__version__}
        record = [made_by, self._source, asdict(self.found.overrules), name, asdict(prep), chosen]
        return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:32]

    @cached_property
    def _source(self) -> str:
        digest = hashlib.sha256()
        for path in self.found.files:
            try:
                seen = path.stat()
            except OSError as error:
                raise DataError(f"cannot read {path}: {error.strerror or error}; restore it") from None
            name = os.fsencode(os.path.realpath(path))
            digest.update(b"%d:%s;%d;%d;" % (len(name), name, seen.st_size, seen.st_mtime_ns))
        return digest.hexdigest()


@dataclass
class _Making:
    """A prepared file being made: written under a temporary name by one process at a time, then renamed."""

    path: Path
    total: int
    made: list[tuple[Array, Path]] = field(default_factory=list)
    lock: FileLock | None = None

    def __enter__(self) -> _Making:
        return self

    def __exit__(self, *raised: object) -> None:
        for _, temporary in self.made:
            temporary.unlink(missing_ok=True)
        if self.lock is not None:
            self.lock.release()

    def new(self, shape: tuple[int, ...], kind: type[np.generic]) -> Array:
        """Make an array in memory, or in a file where all parts would take more than `memory_limit`; a `New`."""
        if not _too_large(self.total, shape, kind):
            return in_memory(shape, kind)
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(kind).itemsize
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.lock is None:
                self.lock = _lock(self.path)
                self.lock.acquire()
                if self.path.exists():
                    raise _MadeMeanwhile
            temporary = self.path.with_name(f".{self.path.stem}.{len(self.made)}.part")
            for _ in _with_more_and_more_room(self.path.parent, keep=self.path):
                try:
                    array = new_file(temporary, shape, kind)
                    break
                except OSError as error:
                    temporary.unlink(missing_ok=True)
                    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                        raise
                    full = error
            else:
                raise full
        except OSError as error:
            raise no_room(self.path.parent, size, error) from None
        self.made.append((array, temporary))
        return array

    def settle(self, array: Array) -> Path | None:
        """Rename the file of an array that `new` made to its final name and return it; None for any other array."""
        for made, temporary in self.made:
            if made is array:
                made.flush()  # type: ignore[attr-defined]
                os.replace(temporary, self.path)
                return self.path
        return None


def _too_large(total: int, shape: tuple[int, ...], kind: type[np.generic]) -> bool:
    """Tell whether `total` examples exceed the limit, given the shape and type of some of them."""
    return total * int(np.prod(shape[1:], dtype=np.int64)) * np.dtype(kind).itemsize > memory_limit()


def _lock(path: Path) -> FileLock:
    return FileLock(path.with_name(f".{path.stem}.lock"))


def _with_more_and_more_room(folder: Path, keep: Path) -> Iterator[None]:
    """Yield once, then again after each removal of an abandoned file or of the least recently used one."""
    yield None
    left_over = [path for path in folder.glob(".*.part") if not path.name.startswith(f".{keep.stem}.")]
    for path in left_over:
        lock = _lock(folder / path.name.split(".")[1])
        with contextlib.suppress(Timeout, OSError), lock.acquire(blocking=False):
            path.unlink(missing_ok=True)  # of a process that was killed
    if left_over:
        yield None
    for path in sorted((path for path in folder.glob("*.npy") if path != keep), key=_last_used):
        path.unlink(missing_ok=True)  # who has mapped it keeps it
        yield None


def _last_used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def describe(paths: Sequence[Path]) -> str:
    """Return a remark on the files that a data set is mapped from; empty for none."""
    if not paths:
        return ""
    size = sum(path.stat().st_size for path in paths if path.exists())
    return f"mapped from {size / 1e9:.2g} GB prepared in {paths[0].parent}, which may be removed when it is not in use"
