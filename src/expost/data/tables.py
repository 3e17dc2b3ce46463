"""Tables on disk: parquet with an image column or numeric columns, and CSV with numeric columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from expost.data.arrays import Vectors, labels_of, rows_of
from expost.data.examples import POOL, Array, Found, Indices, Part
from expost.data.images import EncodedImages, ImageSource
from expost.data.mapped import PIECE, scratch
from expost.data.splits import part_named
from expost.errors import DataError

IMAGE_COLUMNS = ("image", "img", "images", "imgs", "jpg", "png", "webp")
LABEL_COLUMNS = ("label", "labels", "target", "class", "species", "y")
_IMAGES_AT_ONCE = 64
_PROBED, _MOST_ROWS = 64, 65_536
_INDEX_COLUMNS = ("", "__index_level_0__", "unnamed: 0", "index")


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

    def encoded(self, indices: Indices) -> Iterator[tuple[str, Path | bytes]]:
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


def read_tables(folder: Path, files: Sequence[Path], where: str) -> Found:
    """Read parquet or CSV files, whose names (or folders) may say which part they are: `train-00000-of-00003.parquet`.

    A column of images (bytes, or records with a field `bytes`) makes an image data set; otherwise all numeric columns
    make vectors, lists of numbers being spread out. A column called label, target, class, species or y gives the
    labels, unless it holds fractions, or is the y beside an x.

    Raises:
        DataError: if a file is damaged, the files do not fit together, a value is missing, or there is nothing to use.
    """
    grouped: dict[str, list[Path]] = {}
    for path in files:
        name = part_named(path.stem) or part_named(" ".join(path.relative_to(folder).parts[:-1]))
        grouped.setdefault(POOL if name is None or len(files) == 1 else name, []).append(path)
    remarks = []
    if len(grouped) > 1 and POOL in grouped:
        others = grouped.pop(POOL)
        remarks.append(f"ignored {len(others)} files that name no part ({others[0].name})")
    parts = {}
    ignored: set[str] = set()
    named: list[tuple[str, ...]] = []
    for part, paths in grouped.items():
        try:
            parts[part], unused, own = _read_part(paths)
            named.append(own)
        except MemoryError:
            raise DataError(
                f"{paths[0]} does not fit in memory; convert it to .npy or parquet, which are read in pieces"
            ) from None
        except OSError as error:
            raise DataError(f"cannot read {paths[0]}: {error.strerror or _line(error)}; restore it") from None
        except UnicodeDecodeError:
            raise DataError(f"cannot read {paths[0]}: its text is not UTF-8; save it in that encoding") from None
        except pa.ArrowException as error:
            raise DataError(f"cannot read {paths[0]}: {_line(error)}; restore it") from None
        ignored |= set(unused)
    if ignored:
        count = "1 column" if len(ignored) == 1 else f"{len(ignored)} columns"
        remarks.append(f"ignored {count} without numbers ({', '.join(sorted(ignored)[:3])})")
    columns = named[0] if len(set(named)) == 1 else ()  # not where the parts differ
    return Found(parts, where, tuple(remarks), columns=columns)


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
    labels = _label_column(table.schema)
    return Part(EncodedImages(TableImages(blocks)), None if labels is None else _labels(table.column(labels), name))


def _read_part(paths: Sequence[Path]) -> tuple[Part, list[str], tuple[str, ...]]:
    """Read the files of one part; also return the columns that were of no use, and the names of a vector's entries."""
    name = str(paths[0])
    if any(path.suffix.lower() != ".parquet" for path in paths):
        table = pa.concat_tables([_read_csv(path) for path in paths])
        return _vectors(Rows(table.schema, len(table), table.column, partial(_whole, table)), name)
    opened = [pq.ParquetFile(path) for path in paths]
    column = _image_column(opened[0].schema_arrow)
    if column is None:
        schema = pa.concat_tables([file.schema_arrow.empty_table() for file in opened]).schema  # refuses unequal ones
        count = sum(file.metadata.num_rows for file in opened)
        return _vectors(Rows(schema, count, partial(_column, paths), partial(_batches, paths)), name)
    blocks: list[Block] = []
    labels = _label_column(opened[0].schema_arrow)
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
    y = None if labels is None else _labels(pa.concat_tables(tables).column(labels), str(paths[0]))
    images = EncodedImages(TableImages(blocks))
    if y is not None and len(y) != len(images):
        raise DataError(f"{paths[0]} is damaged: {len(images)} images but {len(y)} labels; restore it")
    return Part(images, y), [], ()


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


def _column(paths: Sequence[Path], name: str) -> Any:
    """Read one column of some parquet files."""
    return pa.concat_tables([pq.read_table(path, columns=[name]) for path in paths]).column(name)


def _batches(paths: Sequence[Path]) -> Iterator[Any]:
    """Read parquet files as tables of a bounded size."""
    for path in paths:
        with pq.ParquetFile(path, memory_map=True, pre_buffer=False) as file:
            first = next(file.iter_batches(_PROBED), None)
            rows = 1 if first is None else int(PIECE / max(1.0, first.nbytes / max(1, len(first))))
            for batch in file.iter_batches(min(max(1, rows), _MOST_ROWS)):
                yield pa.Table.from_batches([batch])


def _read_csv(path: Path) -> Any:
    """Read a CSV or TSV; a first line of nothing but numbers is data, not a header."""
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        cells = file.readline().strip().split(delimiter)
    headless = all(_is_number(cell) for cell in cells)
    return pyarrow.csv.read_csv(
        path,
        read_options=pyarrow.csv.ReadOptions(autogenerate_column_names=headless),
        parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter),
    )


@dataclass(frozen=True)
class Rows:
    """A table, read in pieces.

    Attributes:
        schema: Of its columns.
        count: How many rows.
        column: Reads the whole of one column, by name.
        tables: Reads all columns, a few rows at a time.
    """

    schema: Any
    count: int
    column: Callable[[str], Any]
    tables: Callable[[], Iterator[Any]]


def _vectors(table: Rows, name: str) -> tuple[Part, list[str], tuple[str, ...]]:
    labels = _label_column(table.schema)
    if labels is not None:
        is_coordinate = labels.lower() == "y" and "x" in table.schema.names
        if is_coordinate or not _is_classes(table.column(labels)):
            labels = None  # a measured quantity: one more number of the vector
    used, unused = [], []
    for index, field in enumerate(table.schema):
        if field.name == labels:
            continue
        if field.name.lower() in _INDEX_COLUMNS or not (_is_numeric(field.type) or _is_numeric_list(field.type)):
            unused.append(field.name or "(unnamed)")
            continue
        used.append((index, field.name))
    if not used:
        raise DataError(
            f"{name} has neither images nor numbers, only {', '.join(table.schema.names)}; add such a column"
        )
    if table.count == 0:
        raise DataError(f"{name} has no rows; fill or remove it")
    rows: Array | None = None
    begin = 0
    for part in table.tables():
        _refuse_gaps({column: part.column(index) for index, column in used}, name, begin)
        columns = [_matrix(part.column(index), f"{name}, column '{column}'") for index, column in used]
        numbers = rows_of(np.concatenate(columns, axis=1), name, begin)
        if rows is None:
            rows = numbers if len(part) == table.count else scratch((table.count, numbers.shape[1]), np.float32)
        if numbers.shape[1] != rows.shape[1]:
            raise DataError(
                f"{name}: rows of {rows.shape[1]} and of {numbers.shape[1]} numbers; vectors need one length"
            )
        rows[begin : begin + len(part)] = numbers
        begin += len(part)
    if rows is None or begin != table.count:
        raise DataError(f"{name} is damaged: {begin} rows where it says {table.count}; restore it")
    y = None if labels is None else _labels(table.column(labels), name)
    names = tuple(column for _, column in used) if len(used) == rows.shape[1] else ()  # not where lists are spread out
    return Part(Vectors(rows, name), y), unused, names


def _refuse_gaps(columns: Mapping[str, Any], name: str, begin: int) -> None:
    """Refuse missing values, naming every column that has some; row 0 is called `begin`."""
    gaps = []
    for title, column in columns.items():
        if column.null_count:
            row = begin + int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
            gaps.append(f"{column.null_count} in column '{title}' (the first in row {row}, counted from 0)")
    if gaps:
        raise DataError(f"{name} lacks values: {', '.join(gaps[:5])}; fill them in or drop those rows")


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


def _labels(column: Any, name: str) -> Array:
    if column.null_count:
        raise DataError(f"{name}: {column.null_count} labels are missing; fill them in or drop those rows")
    if _is_numeric(column.type):
        return labels_of(column.to_numpy(), name, len(column))
    return labels_of(np.array([str(label) for label in column.to_pylist()], np.str_), name, len(column))


def _image_column(schema: Any) -> str | None:
    usable = [field.name for field in schema if _is_image(field.type)]
    named = [name for name in IMAGE_COLUMNS if name in usable]
    return next(iter(named or usable), None)


def _label_column(schema: Any) -> str | None:
    lower = {name.lower(): name for name in schema.names}
    return next((lower[name] for name in LABEL_COLUMNS if name in lower), None)


def _is_classes(column: Any) -> bool:
    if not pa.types.is_floating(column.type):
        return True
    values = column.to_numpy()
    return bool((values == np.rint(values)).all())


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


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
