"""Parquet and Arrow files, and Arrow tables: image columns, and numeric columns as vectors. Needs the extra `hub`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from expost.data.arrow_values import ArrowCells, class_names, image_column, kind_of
from expost.data.columns import Column, Numbers, settled
from expost.data.decoding import Source
from expost.data.description import listing
from expost.data.examples import Array, Indices, Part
from expost.data.images import EncodedImages, ImageSource
from expost.data.mapped import PIECE
from expost.data.packing import check_unpacked
from expost.data.table_cells import Cells, Field, Images, Piece, Rows
from expost.data.table_labels import NO_LABELS, label_column, label_names, labels_in, named
from expost.data.tables import differences, places
from expost.errors import DataError

_IMAGES_AT_ONCE = 64
_PROBED, _MOST_ROWS = 64, 65_536


#: Reads some columns of a file (None: all), a few rows at a time.
_Batches = Callable[[Sequence[str] | None], Iterator[Any]]


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


def read_table(table: Any, name: str, asked: str | None) -> Images | Rows:
    """Take the images and labels, or the numbers, of an Arrow table in memory (a split that `datasets` loaded).

    Args:
        table: The table.
        name: What errors call it.
        asked: The column of labels that was asked for, or "none"; None to find it.
    """
    return _from_tables({name: table}, asked)


def read_arrow(paths: Sequence[Path], asked: str | None) -> Images | Rows:
    """Read the Arrow files of one part, as `datasets` saves them to disk; arguments as of `read_parquet`."""
    with _readable(paths[0]):
        return _from_tables({str(path): _mapped(path) for path in paths}, asked)


def _mapped(path: Path) -> Any:
    """Map the table of an Arrow file, written as a stream (so does `datasets`) or as a file."""
    with _readable(path):
        source = pa.memory_map(str(path))
        try:
            return pa.ipc.open_stream(source).read_all()
        except pa.ArrowInvalid:
            return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def _from_tables(tables: Mapping[str, Any], asked: str | None) -> Images | Rows:
    first = next(iter(tables))
    column = image_column(tables[first].schema)
    if column is None:
        files = {name: partial(_chunks, table, name) for name, table in tables.items()}
        schemas = {name: table.schema for name, table in tables.items()}
        return table_rows(files, schemas, sum(map(len, tables.values())), asked)
    title = _title(tables[first].schema, column, asked, first)
    blocks = []
    for name, table in tables.items():
        _refuse_lacking({column, title.label}, table.column_names, name, first)
        start = 0
        for chunk in table.column(column).chunks:
            blocks.append(Block(len(chunk), name, start, partial(_whole, chunk, name)))
            start += len(chunk)
    y = None
    if (label := title.label) is not None:
        joined = pa.concat_tables([table.select([label]) for table in tables.values()], promote_options="permissive")
        y = labels_in(ArrowCells(_sound(joined.column(0), first)), first)
    return title.images(blocks, y)


@dataclass(frozen=True)
class _Title:
    """What the columns of a table of images are.

    Attributes:
        label: The column of the labels; None if there is none.
        names: The names of these labels 0, 1, ...; empty if there are none.
        remarks: What to say of the columns.
    """

    label: str | None
    names: tuple[str, ...]
    remarks: tuple[str, ...]

    def images(self, blocks: Sequence[Block], labels: Array | None) -> Images:
        """Return the images of some blocks, with their labels."""
        return Images(Part(EncodedImages(TableImages(blocks)), labels, self.names), self.remarks)


def _title(schema: Any, column: str, asked: str | None, where: str) -> _Title:
    """Tell which column of a table of images holds the labels: the one asked for, or called so, or the only classes.

    Raises:
        UsageError: if no column has the name that was asked for.
    """
    classes = class_names(schema)
    label = label_column(schema.names) or (next(iter(classes)) if len(classes) == 1 else None)
    if asked is not None:
        label = None if asked.strip().lower() == NO_LABELS else named(asked, schema.names, where)
    others = [name for name in schema.names if name not in (column, label)]
    remarks = [f"images of column '{column}'"] if len(schema.names) > 1 else []
    remarks += [f"labels: column '{label}'"] if label is not None else []
    if label is None and asked is None and len(classes) > 1:
        remarks.append(f"no labels: {' and '.join(classes)} hold classes (--label-column takes one)")
    remarks += [f"left out {listing(others, 'column')}"] if others else []
    return _Title(label, classes.get(label or "", ()), tuple(remarks))


def _chunks(table: Any, name: str, columns: Sequence[str] | None) -> Iterator[Any]:
    """Read some columns of a table as batches of a bounded size."""
    chosen = table if columns is None else table.select(columns)
    rows = int(PIECE / max(1.0, chosen.nbytes / max(1, len(chosen))))
    for batch in chosen.to_batches(max_chunksize=min(max(1, rows), _MOST_ROWS)):
        yield _sound(batch, name)


def _refuse_lacking(needed: set[str | None], given: Sequence[str], name: str, first: str) -> None:
    missing = needed - {None, *given}
    if missing:
        raise DataError(f"{name} lacks the column {missing.pop()} that {first} has; give files of one kind")


def read_parquet(paths: Sequence[Path], asked: str | None) -> Images | Rows:
    """Read the files of one part: images and their labels, or a table of numbers.

    Args:
        paths: The files.
        asked: The column of labels that was asked for, or "none"; None to find it.

    Raises:
        DataError: if a file is damaged, or the files do not fit together.
    """
    with _readable(paths[0]):
        return _read(paths, asked)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn Arrow's errors into one line each."""
    try:
        yield
    except MemoryError:  # which Arrow's is, too
        raise
    except (pa.ArrowException, UnicodeDecodeError) as error:  # the latter for names that are no text
        raise DataError(f"cannot read {path}: {_line(error)}; restore it") from None


def _read(paths: Sequence[Path], asked: str | None) -> Images | Rows:
    opened = [pq.ParquetFile(path) for path in paths]
    for path, file in zip(paths, opened, strict=True):
        _refuse_bomb(path, file.metadata)
    column = image_column(opened[0].schema_arrow)
    if column is None:
        files = {str(path): partial(_read_file, path) for path in paths}
        count = sum(file.metadata.num_rows for file in opened)
        return table_rows(
            files, {str(path): file.schema_arrow for path, file in zip(paths, opened, strict=True)}, count, asked
        )
    return _images(paths, opened, column, asked)


def _refuse_bomb(path: Path, metadata: Any) -> None:
    """Refuse a file by the sizes that it states; a column of one value takes a few bytes, whatever the rows."""
    pages = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    values = 4 * metadata.num_rows * metadata.num_columns
    check_unpacked(path, max(pages, values), path.stat().st_size)


@dataclass(frozen=True)
class TableSource:
    """A table that is read a few rows at a time.

    Attributes:
        name: What errors call it.
        schema: Its Arrow schema.
        read: Reads some columns (None: all) as batches.
    """

    name: str
    schema: Any
    read: _Batches

    @property
    def has_images(self) -> bool:
        """Whether a column can hold encoded images."""
        return image_column(self.schema) is not None


def source_of(path: Path) -> TableSource:
    """Open a parquet file, or one in Arrow's own format, which Feather is too.

    Raises:
        DataError: if it is damaged.
    """
    with _readable(path):
        if path.suffix.lower() not in (".arrow", ".feather"):
            with pq.ParquetFile(path) as file:
                _refuse_bomb(path, file.metadata)
                return TableSource(str(path), file.schema_arrow, partial(_read_file, path))
    return source_in_memory(_mapped(path), str(path))


def source_in_memory(table: Any, name: str) -> TableSource:
    """Return an Arrow table as a source."""
    return TableSource(name, table.schema, partial(_chunks, table, name))


def table_rows(files: Mapping[str, _Batches], schemas: Mapping[str, Any], count: int, asked: str | None) -> Rows:
    """Return the rows of some files with one set of columns as one table.

    Args:
        files: By name: reads a file's columns.
        schemas: By name: the file's Arrow schema.
        count: How many rows there are together.
        asked: The column of labels that was asked for, or "none"; None to find it.

    Raises:
        DataError: if the files have different columns, or columns of different kinds.
    """
    first = next(iter(files))
    names = schemas[first].names
    for name, schema in schemas.items():
        if places(names, schema.names) is None:
            raise DataError(
                f"{name} has other columns than {first}: it {differences(names, schema.names)}; give files of one kind"
            )
        for index, title in enumerate(names):  # by place: Arrow does not find every name that it gives
            ours = kind_of(schemas[first].field(index).type)
            theirs = kind_of(schema.field(schema.names.index(title)).type)
            if names.count(title) == 1 and ours != theirs and "empty" not in (ours, theirs):
                raise DataError(f"{name} has {theirs} in column '{title}', {first} has {ours}; give files of one kind")
    kinds = [kind_of(schemas[first].field(index).type) for index in range(len(names))]
    labels = label_names(asked)
    texts = {}
    for name, kind in zip(names, kinds, strict=True):
        if kind == "text" and names.count(name) == 1:
            texts[name] = Column(name, name.lower() in labels)
            for read in files.values():
                for batch in read([name]):
                    texts[name].add(["" if each is None else str(each) for each in batch.column(0).to_pylist()])
    comma = settled(list(texts.values()), ",")
    read_texts = {name: column.read(comma) for name, column in texts.items()}
    fields, remarks = [], []
    for name, kind in zip(names, kinds, strict=True):
        if name in read_texts:
            found, _, remark = read_texts[name]
            fields.append(found)
            remarks += [remark or f"text of '{name}' read as numbers"] if found.numeric else []
        else:
            numeric = kind in ("numbers", "lists of numbers")
            fields.append(Field(name, numeric, "" if numeric else kind))
    numbers = {name: cells for name, (found, cells, _) in read_texts.items() if isinstance(cells, Numbers)}

    def column(name: str) -> Cells:
        if name in read_texts:
            return read_texts[name][1]
        if names.count(name) > 1:
            raise DataError(f"{first} has {names.count(name)} columns called '{name}'; rename them")
        tables = [
            pa.Table.from_batches(list(read([name])), pa.schema([schemas[file].field(name)]))
            for file, read in files.items()
        ]
        return ArrowCells(pa.concat_tables(tables, promote_options="permissive").column(0))

    known = class_names(schemas[first])
    return Rows(first, fields, count, column, partial(_pieces, files, names, numbers), True, tuple(remarks), (), known)


def _pieces(files: Mapping[str, _Batches], names: Sequence[str], numbers: Mapping[str, Numbers]) -> Iterator[Piece]:
    """Read files as tables of a bounded size, with their columns in one order, and text that is numbers as such."""
    begin = 0
    for read in files.values():
        for batch in read(None):
            end = begin + len(batch)
            order = places(names, batch.schema.names) or range(len(names))
            cells = [
                numbers[name].between(begin, end) if name in numbers else ArrowCells(batch.column(index))
                for name, index in zip(names, order, strict=True)
            ]
            yield Piece(len(batch), cells)
            begin = end


def _read_file(path: Path, columns: Sequence[str] | None) -> Iterator[Any]:
    """Read some columns of a parquet file as batches of a bounded size."""
    with _readable(path), pq.ParquetFile(path, memory_map=True, pre_buffer=False) as file:
        first = next(file.iter_batches(_PROBED, columns=columns), None)
        rows = 1 if first is None else int(PIECE / max(1.0, first.nbytes / max(1, len(first))))
        for batch in file.iter_batches(min(max(1, rows), _MOST_ROWS), columns=columns):
            yield _sound(batch, path)


def _images(paths: Sequence[Path], opened: Sequence[Any], column: str, asked: str | None) -> Images:
    """Return the images of some files, and their labels."""
    blocks: list[Block] = []
    title = _title(opened[0].schema_arrow, column, asked, str(paths[0]))
    tables = []
    for path, file in zip(paths, opened, strict=True):
        _refuse_lacking({column, title.label}, file.schema_arrow.names, str(path), str(paths[0]))
        first = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            blocks.append(Block(rows, str(path), first, partial(_row_group, path, group, column)))
            first += rows
        tables += [] if title.label is None else [file.read(columns=[title.label])]
    y = None
    if title.label is not None:
        y = labels_in(ArrowCells(_sound(pa.concat_tables(tables).column(0), paths[0])), str(paths[0]))
    found = title.images(blocks, y)
    if y is not None and len(y) != len(found.part.examples):
        raise DataError(f"{paths[0]} is damaged: {len(found.part.examples)} images but {len(y)} labels; restore it")
    return found


def _whole(content: Any, name: str) -> Iterator[Any]:
    yield _sound(content, name)


def _sound(content: Any, name: Path | str) -> Any:
    """Return what was read of a file, which may say that its values lie anywhere in memory, or are text that is none.

    Raises:
        DataError: if it does.
    """
    try:
        content.validate(full=True)
    except pa.ArrowInvalid as error:
        raise DataError(f"{name} is damaged ({_line(error)}); restore it") from None
    return content


def _row_group(path: Path, group: int, column: str) -> Iterator[Any]:
    try:
        # without these options all of a row group is read at once, and writers may have made but one
        with pq.ParquetFile(path, memory_map=True, pre_buffer=False) as file:
            for batch in file.iter_batches(_IMAGES_AT_ONCE, row_groups=[group], columns=[column], use_threads=False):
                yield _sound(batch.column(column), path)
    except (MemoryError, DataError):  # Arrow's error is a MemoryError, too
        raise
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} is damaged ({_line(error)}); download or save it again") from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
