"""Parquet files, and Arrow tables in memory: image columns, and numeric columns as vectors. Needs the extra `hub`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from expost.data.decoding import Source
from expost.data.examples import Array, Indices, Part
from expost.data.images import EncodedImages, ImageSource
from expost.data.mapped import PIECE
from expost.data.table_cells import Cells, Field, Piece, Rows
from expost.data.table_labels import label_column, labels_in
from expost.data.tables import places
from expost.errors import DataError

IMAGE_COLUMNS = ("image", "img", "images", "imgs", "jpg", "png", "webp")
_IMAGES_AT_ONCE = 64
_PROBED, _MOST_ROWS = 64, 65_536


@dataclass(frozen=True)
class Block:
    """Consecutive rows of an image column that are read together (a row group of a parquet file).

    Attributes:
        rows: How many.
        name: What errors call the table they belong to.
        first: The row of that table that is row 0 here.
        read: Reads them, a few at a time: encoded bytes, or records with a field `bytes`, as `datasets` stores images.
    """

    rows: int
    name: str
    first: int
    read: Callable[[], Iterator[Any]]


class TableImages(ImageSource):
    """Encoded images in the rows of tables; a few rows are in memory at a time."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self.blocks = list(blocks)
        self.ends = np.cumsum([block.rows for block in blocks], dtype=np.int64)

    def __len__(self) -> int:
        """Return the number of rows."""
        return int(self.ends[-1]) if len(self.ends) else 0

    def encoded(self, indices: Indices) -> Iterator[tuple[str, Source]]:
        """Yield the name and the bytes of each of `indices`, reading every block that they touch once."""
        for block, end in zip(self.blocks, self.ends, strict=True):
            inside = indices[(indices >= end - block.rows) & (indices < end)] - (end - block.rows)
            if len(inside):
                yield from _rows(block, inside)


def _rows(block: Block, indices: Indices) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the bytes of some rows of a block, by ascending index."""
    begin = 0
    for column in block.read():
        if pa.types.is_struct(column.type):
            column = pc.struct_field(column, "bytes")
        for row in indices[np.searchsorted(indices, begin) : np.searchsorted(indices, begin + len(column))]:
            where = f"row {block.first + row} of {block.name}"
            content = column[int(row) - begin].as_py()
            if content is None:
                raise DataError(f"{where} has no image bytes; drop that row, or embed the image in the file")
            yield where, content
        begin += len(column)
    if begin != block.rows:
        raise DataError(f"{block.name} is damaged: {begin} rows where it says {block.rows}; restore it")


def image_part(table: Any, name: str) -> Part:
    """Take the images and labels of an Arrow table in memory (a split that `datasets` loaded).

    Raises:
        DataError: if it has no image column.
    """
    column = _image_column(table.schema)
    if column is None:
        raise DataError(f"{name} has no image column, only {', '.join(table.column_names)}; choose another source")
    blocks, first = [], 0
    for chunk in table.column(column).chunks:
        blocks.append(Block(len(chunk), name, first, partial(_whole, chunk)))
        first += len(chunk)
    labels = label_column(table.column_names)
    return Part(
        EncodedImages(TableImages(blocks)),
        None if labels is None else labels_in(ArrowCells(table.column(labels)), name),
    )


def read_parquet(paths: Sequence[Path]) -> Part | Rows:
    """Read the files of one part: images and their labels, or a table of numbers.

    Raises:
        DataError: if a file is damaged, or the files do not fit together.
    """
    with _readable(paths[0]):
        return _read(paths)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn Arrow's errors into one line each."""
    try:
        yield
    except MemoryError:  # which Arrow's is, too
        raise
    except pa.ArrowException as error:
        raise DataError(f"cannot read {path}: {_line(error)}; restore it") from None


def _read(paths: Sequence[Path]) -> Part | Rows:
    opened = [pq.ParquetFile(path) for path in paths]
    column = _image_column(opened[0].schema_arrow)
    if column is None:
        names = opened[0].schema_arrow.names
        tables = [_ordered(file.schema_arrow.empty_table(), names) for file in opened]
        schema = pa.concat_tables(tables).schema  # refuses unequal ones
        count = sum(file.metadata.num_rows for file in opened)
        fields = [Field(field.name, _is_numeric(field.type) or _is_numeric_list(field.type)) for field in schema]
        return Rows(str(paths[0]), fields, count, partial(_column, paths), partial(_batches, paths, names))
    blocks: list[Block] = []
    labels = label_column(opened[0].schema_arrow.names)
    tables = []
    for path, file in zip(paths, opened, strict=True):
        missing = {column, labels} - {None, *file.schema_arrow.names}
        if missing:
            raise DataError(f"{path} lacks the column {missing.pop()} that {paths[0]} has; give files of one kind")
        first = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            blocks.append(Block(rows, str(path), first, partial(_row_group, path, group, column)))
            first += rows
        tables += [] if labels is None else [file.read(columns=[labels])]
    y = None if labels is None else labels_in(ArrowCells(pa.concat_tables(tables).column(labels)), str(paths[0]))
    images = EncodedImages(TableImages(blocks))
    if y is not None and len(y) != len(images):
        raise DataError(f"{paths[0]} is damaged: {len(images)} images but {len(y)} labels; restore it")
    return Part(images, y)


def _whole(content: Any) -> Iterator[Any]:
    yield content


def _row_group(path: Path, group: int, column: str) -> Iterator[Any]:
    try:
        # without these options all of a row group is read at once, and writers may have made but one
        with pq.ParquetFile(path, memory_map=True, pre_buffer=False) as file:
            for batch in file.iter_batches(_IMAGES_AT_ONCE, row_groups=[group], columns=[column], use_threads=False):
                yield batch.column(column)
    except MemoryError:  # which Arrow's is, too
        raise
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} is damaged ({_line(error)}); download or save it again") from None


def _column(paths: Sequence[Path], name: str) -> Cells:
    """Read one column of some parquet files."""
    with _readable(paths[0]):
        return ArrowCells(pa.concat_tables([pq.read_table(path, columns=[name]) for path in paths]).column(name))


def _ordered(table: Any, names: Sequence[str]) -> Any:
    """Return a table with its columns in another order, or as it is if it has others."""
    order = places(names, table.column_names)
    return table if order is None else table.select(order)


def _batches(paths: Sequence[Path], names: Sequence[str]) -> Iterator[Piece]:
    """Read parquet files as tables of a bounded size, with their columns in one order."""
    for path in paths:
        with _readable(path), pq.ParquetFile(path, memory_map=True, pre_buffer=False) as file:
            first = next(file.iter_batches(_PROBED), None)
            rows = 1 if first is None else int(PIECE / max(1.0, first.nbytes / max(1, len(first))))
            for batch in file.iter_batches(min(max(1, rows), _MOST_ROWS)):
                table = _ordered(pa.Table.from_batches([batch]), names)
                yield Piece(len(batch), [ArrowCells(column) for column in table.columns])


@dataclass(frozen=True)
class ArrowCells(Cells):
    """A column of an Arrow table.

    Attributes:
        column: The column.
    """

    column: Any

    def missing(self) -> Indices:
        """Return the rows that have no value."""
        if not self.column.null_count:
            return np.zeros(0, np.int64)
        return np.flatnonzero(self.column.is_null().to_numpy(zero_copy_only=False))

    def matrix(self, name: str) -> Array:
        """Return the numbers, or equally long lists of numbers."""
        return _matrix(self.column, name)

    def values(self) -> Array:
        """Return numbers or texts."""
        if _is_numeric(self.column.type):
            return self.column.to_numpy()
        return np.array([str(each) for each in self.column.to_pylist()], np.str_)


def _matrix(column: Any, name: str) -> Array:
    """Turn a column of numbers, or of equally long lists of numbers, into a matrix (N, d)."""
    if column.null_count:  # inside of lists
        raise DataError(f"{name}: {column.null_count} values are missing; fill them in or drop those rows")
    if _is_numeric(column.type):
        return column.to_numpy().reshape(-1, 1).astype(np.float64)
    lengths = pc.unique(pc.list_value_length(column)).to_pylist()
    if len(lengths) != 1:
        raise DataError(f"{name}: lists of {min(lengths)} to {max(lengths)} numbers; vectors need one length")
    return _matrix(pc.list_flatten(column), name).reshape(len(column), -1)


def _image_column(schema: Any) -> str | None:
    usable = [field.name for field in schema if _is_image(field.type)]
    named = [name for name in IMAGE_COLUMNS if name in usable]
    return next(iter(named or usable), None)


def _is_image(kind: Any) -> bool:
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _is_image(kind.field(index).type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_numeric(kind: Any) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def _is_numeric_list(kind: Any) -> bool:
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return is_list and _is_numeric(kind.value_type)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
