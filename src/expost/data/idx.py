"""The IDX files of MNIST and its relatives, plain or gzipped, read strictly.

Layout (http://yann.lecun.com/exdb/mnist/): two zero bytes, one byte for the type (8 is unsigned byte, the only one that
these data sets use), one for the number of axes, each axis as a big-endian 32-bit integer, then the values, last axis
fastest.
"""

from __future__ import annotations

import gzip
import io
import math
import re
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from expost.data.arrays import labels_of
from expost.data.examples import POOL, Array, Found, Part
from expost.data.images import ArrayImages
from expost.data.mapped import PIECE, VARIABLE, memory_limit, scratch
from expost.data.packing import check_unpacked
from expost.data.splits import part_named
from expost.errors import DataError

NAME = re.compile(r"(?P<stem>.*)[-.]idx\d-ubyte(\.gz)?", re.IGNORECASE)
"""Names that IDX files have, `train-images-idx3-ubyte.gz` or `train-images.idx3-ubyte`, say."""


def read_idx(path: Path) -> Array:
    """Read one IDX file of unsigned bytes; one that is larger than `memory_limit` is mapped, if need be unpacked.

    Returns:
        uint8, with the axes that the file states: (N, H, W) for images, (N,) for labels.

    Raises:
        DataError: if the file is damaged, of another type, or longer or shorter than its header says.
    """
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            head = file.read(4)
            if len(head) < 4 or head[:2] != b"\0\0":
                raise DataError(f"{path} is no IDX file (it begins {head.hex() or 'nowhere'}); download it again")
            if head[2] != 8:
                raise DataError(f"{path} holds IDX type 0x{head[2]:02x}; only unsigned bytes (0x08) are read")
            if head[3] not in (1, 3):
                raise DataError(f"{path} has {head[3]} axes; give images (3: N, H, W) and labels (1)")
            axes = file.read(4 * head[3])
            if len(axes) != 4 * head[3]:
                raise DataError(f"{path} is truncated inside its header; download it again")
            shape = struct.unpack(f">{head[3]}I", axes)
            size = math.prod(shape)
            if isinstance(file, gzip.GzipFile):
                check_unpacked(path, size, path.stat().st_size)
            else:
                _check_size(path, shape, size, path.stat().st_size - file.tell())
            if size > memory_limit():
                return _large(path, file, shape, size)
            values = file.read(size + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is no complete gzip file ({error}); download it again") from None
    except MemoryError:
        raise DataError(f"{path} holds {size:,} bytes, more than fit in memory; set {VARIABLE} below that") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}; restore it") from None
    _check_size(path, shape, size, len(values))
    return np.frombuffer(values, np.uint8).reshape(shape)


def read_idx_files(_folder: Path, files: Sequence[Path], where: str) -> Found:
    """Read IDX files that belong together: `train-images`, `train-labels`, `t10k-images`, `t10k-labels`.

    Where a file is there both plain and gzipped, the plain one is read.

    Raises:
        DataError: if one is damaged, there are no images, or labels and images differ in number.
    """
    chosen: dict[tuple[str, bool], Path] = {}
    stems: dict[tuple[str, bool], str] = {}
    for path in sorted(files, key=lambda path: path.suffix.lower() != ".gz"):
        match = NAME.fullmatch(path.name)
        stem = match["stem"].lower() if match else path.name
        role = part_named(stem) or POOL, "label" not in stem
        if stems.setdefault(role, stem) != stem:
            raise DataError(
                f"{where}: {chosen[role].name} and {path.name} are of different sets; keep one of them there"
            )
        chosen[role] = path  # plain files come last and win
    if len(files) == 1:
        chosen = {(POOL, True): files[0]}
    parts = {}
    for (part, is_images), path in sorted(chosen.items(), reverse=True):  # training before test
        if not is_images:
            continue
        images = read_idx(path)
        if images.ndim != 3:
            raise DataError(f"{path} holds labels; give the file of the images")
        if images.size == 0:
            raise DataError(f"{path} holds no images: its shape is {images.shape}; download it again")
        examples = ArrayImages(images[:, None], str(path))
        labels = chosen.get((part, False))
        y = None if labels is None else labels_of(read_idx(labels), str(labels), len(examples))
        parts[part] = Part(examples, y)
    if not parts:
        raise DataError(f"{where} has labels but no images; add the files named ...-images-idx3-ubyte")
    return Found(parts, where)


def _large(path: Path, file: io.BufferedIOBase, shape: tuple[int, ...], size: int) -> Array:
    begin = file.tell()
    if not isinstance(file, gzip.GzipFile):
        return np.memmap(path, np.uint8, "r", begin, shape)
    flat = scratch((size,), np.uint8)
    done = 0
    while done <= size and (part := file.read(PIECE)):
        flat[done : done + len(part)] = np.frombuffer(part, np.uint8)[: max(0, size - done)]
        done += len(part)
    _check_size(path, shape, size, done)
    return flat.reshape(shape)


def _check_size(path: Path, shape: tuple[int, ...], size: int, found: int) -> None:
    if found != size:
        text = f"{found:,}" if found < size else "more"
        axes = " x ".join(map(str, shape))
        raise DataError(f"{path} should hold {axes} = {size:,} bytes but has {text}; download it again")
