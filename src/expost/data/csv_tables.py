"""CSV and other delimited text with numeric columns, read a few thousand rows at a time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path

from expost.data.columns import Column, settled
from expost.data.sheets import Sheet, header_of, open_sheet, refuse_ragged
from expost.data.table_cells import Piece, Rows
from expost.data.table_labels import label_names
from expost.data.tables import differences, places
from expost.errors import DataError

_AT_ONCE = 8_192


def read_csv(paths: Sequence[Path], asked: str | None) -> Rows:
    """Read the files of one part.

    Args:
        paths: The files.
        asked: The column of labels that was asked for; what is written in those that may hold them is kept.

    Raises:
        DataError: if a file is damaged or empty, or the files have different columns.
    """
    columns: list[Column] = []
    labels = label_names(asked)
    titled, count, delimiter = True, 0, ","
    remarks: list[str] = []
    classes: tuple[str, ...] = ()
    for path in paths:
        sheet = open_sheet(path)
        header = header_of(sheet)
        titled, classes, delimiter = header.titled, header.classes, sheet.delimiter
        if not columns:
            last = header.names[-1] if classes else None
            columns = [Column(name, name.lower() in labels or name == last) for name in header.names]
        names = [column.name for column in columns]
        order = places(names, header.names)
        if order is None:
            what = differences(names, header.names)
            raise DataError(f"{path} has other columns than {paths[0]}: it {what}; give files of one kind")
        count += _fill(columns, order, sheet, header.skip)
        remarks += [*sheet.remarks, *header.remarks]
        if below := sheet.comments.skipped:
            remarks.append(f"skipped {below} comment line{'s' * (below > 1)} among the rows")
    comma = settled(columns, delimiter)
    fields, cells = [], []
    for column in columns:
        found, content, remark = column.read(comma)
        fields.append(found)
        cells.append(content)
        remarks += [remark] * bool(remark)
    by_name = dict(zip([column.name for column in columns], cells, strict=True)) if columns else {}
    pieces = partial(iter, [Piece(count, cells)])
    said = tuple(dict.fromkeys(remarks))
    return Rows(str(paths[0]), fields, count, by_name.__getitem__, pieces, titled, said, classes)


def _fill(columns: Sequence[Column], order: Sequence[int], sheet: Sheet, skip: int) -> int:
    """Add a sheet's rows to columns, in the order of the latter; return how many there were."""
    rows = islice(sheet.rows(), skip, None)
    width, count = len(columns), 0
    while chunk := list(islice(rows, _AT_ONCE)):
        refuse_ragged(sheet, chunk, width)
        count += len(chunk)
        texts = list(zip(*(row for _, row in chunk), strict=True))
        for column, index in zip(columns, order, strict=True):
            column.add(texts[index])
    return count
