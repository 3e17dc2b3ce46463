"""Strings on disk: one a line (.smi, .txt, FASTA), or a column of a table (.csv, .parquet), plain or gzipped."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from expost.data.examples import POOL, Found
from expost.data.files import arrow_files
from expost.data.notations import Domain, guess_domain, looks_like_smiles
from expost.data.sheets import PEEK, is_sheet
from expost.data.splits import PART_WORDS, part_named
from expost.data.string_lines import cleaned
from expost.data.string_tables import TABLES, has_strings, is_smiles_name, read_column, share_of_smiles
from expost.data.tables import by_part
from expost.data.text import kind_of, lines_of, stem_of
from expost.errors import DataError, UsageError
from expost.utils.extras import installed, require

MOLECULES = (".smi", ".smiles", ".ism", ".can", ".cxsmiles")
"""Suffixes of files of SMILES."""

_FASTA = (".fasta", ".fa", ".faa", ".fna")

SUFFIXES = (*MOLECULES, *_FASTA, ".txt", *TABLES)
"""Suffixes of files of strings; each may be followed by .gz."""

_KNOWN = ".smi .txt .csv .tsv, plain or .gz"
_ABOUT = ("readme", "license", "licence")
#: More than this share of the lines of a file of molecules must look like SMILES; of a file of any strings.
_AGREE, _SURE = 0.5, 0.9
_LIBSVM = re.compile(r"[-+\d.]+( +\d+:[-+\d.eE]+)+")


def read_string_path(path: Path, column: str | None = None) -> Found:
    """Read a file of strings, or a folder of such files, each named after the part that it holds.

    Text is UTF-8, with or without a byte order mark, lines ending as on any system; gzip is recognized by content.
    Blank lines are skipped, and white space around strings is cut off. Spaces within expressions are taken out.

    - `.txt`: a line is a string, unless most lines have a SMILES and more: then it is read as `.smi`, or as FASTA if
      it begins with ">".
    - `.smi` and the like: molecules, one a line. The rest of the line is ignored, as are comments, which begin with #,
      and a first line with "smiles" in it. A SMILES stands before the first white space, or, where a name comes first,
      in the column that looks like SMILES.
    - `.fasta`, `.fa`: sequences, each below its name.
    - `.csv`, `.tsv`: one column is read, see `choose`; a column "split" may divide the rows.
    - `.parquet`, `.arrow`, `.feather`, and folders of them as `datasets` saves them: likewise.

    Args:
        path: A file or folder that exists.
        column: Name of the column to read from tables, in any case; None to find it.

    Raises:
        UsageError: if there is no such column, or the file is no table.
        DataError: for what is no text, empty or damaged, for lines of more than 100,000 characters, and where it is
            unclear which column or file to read.
    """
    try:
        if tables := arrow_files(path):
            return _read_arrow(path, tables, column)
        return _read_folder(path, column) if path.is_dir() else _read_file(path, column)
    except OSError as error:
        raise DataError(f"cannot read {error.filename or path}: {error.strerror or error}; make it readable") from None


def read_string_parts(files: Mapping[str, Path], column: str | None = None) -> Found:
    """Read files that hold a part each.

    Args:
        files: By part: "train", and "validation" or "test" or both.
        column: See `read_string_path`.

    Raises:
        UsageError, DataError: see `read_string_path`.
    """
    found = {part: _read_file(file, column, divide=False) for part, file in files.items()}
    parts = {part: one.parts[POOL] for part, one in found.items()}
    remarks = [remark for one in found.values() for remark in one.remarks]
    where = " and ".join(str(file) for file in files.values())
    return Found(parts, where, tuple(dict.fromkeys(remarks)), domain=next(iter(found.values())).domain)


def holds_strings(path: Path, column: str | None = None, asked: bool = False) -> bool:
    """Tell whether a file or folder is for `read_string_path` rather than a table of numbers or images; never raises.

    Files are that end in .smi or .txt, and tables with a column of strings: that was asked for, or is called so, or
    looks like SMILES, or is the only one and of text. A .txt with rows mostly of numbers is a table, unless strings are
    `asked` for. Folders are that have such files and, a README or a licence aside, nothing else; or parquet or Arrow
    files of that kind.
    """
    try:
        if tables := arrow_files(path):
            return installed("pyarrow") and (column is not None or _arrow_holds_strings(tables[0]))
        if path.is_dir():
            entries = [entry for entry in path.iterdir() if entry.name[0] != "." and stem_of(entry) not in _ABOUT]
            return bool(entries) and all(entry.is_file() and holds_strings(entry, column, asked) for entry in entries)
        if not path.is_file():
            return False
        kind = kind_of(path)
        if kind in TABLES and column is not None:
            return True
        if kind == ".txt":
            return asked or _is_of_lines(path)
        return has_strings(path) if kind in TABLES else kind in SUFFIXES
    except (DataError, OSError):
        return False


def _is_of_lines(path: Path) -> bool:
    """Tell whether a .txt holds a string a line rather than a table of numbers: molecules and expressions are none."""
    sample = [line.strip() for line in islice(lines_of(path), PEEK) if not line.isspace()]
    return not is_sheet(path) or _has_molecules(sample) or guess_domain(sample) != "text"


def _arrow_holds_strings(path: Path) -> bool:
    from expost.data.arrow_strings import is_source_of_strings
    from expost.data.parquet import source_of

    return is_source_of_strings(source_of(path))


def _read_arrow(path: Path, tables: Sequence[Path], column: str | None) -> Found:
    """Read parquet or Arrow files, whose names or folders may say which part they are."""
    require("pyarrow", "hub", f"reading {tables[0]} needs PyArrow")
    from expost.data.arrow_strings import read_sources
    from expost.data.parquet import source_of

    grouped, ignored = by_part(path if path.is_dir() else path.parent, tables)
    parts = {part: [source_of(file) for file in files] for part, files in grouped.items()}
    found = read_sources(parts, f"tables in {path}" if path.is_dir() else str(path), column)
    return replace(found, remarks=(*found.remarks, *ignored))


def _read_folder(folder: Path, column: str | None) -> Found:
    """Read the files of a folder, each a part by its name; one called exactly like a part goes before others."""
    files = [file for file in sorted(folder.iterdir()) if kind_of(file) in SUFFIXES and file.is_file()]
    files = [file for file in files if file.name[0] != "." and stem_of(file) not in _ABOUT]
    if len(files) == 1:
        return _read_file(files[0], column)
    chosen: dict[str, Path] = {}
    ignored = []
    for file in sorted(files, key=lambda file: stem_of(file) not in PART_WORDS):
        part = part_named(stem_of(file))
        if part is None or (part in chosen and stem_of(file) not in PART_WORDS and stem_of(chosen[part]) in PART_WORDS):
            ignored.append(file.name)
        elif part in chosen:
            raise DataError(f"folder {folder}: {chosen[part].name} and {file.name} are both '{part}'; keep one of them")
        else:
            chosen[part] = file
    if not chosen:
        names = ", ".join(file.name for file in files[:4])
        said = f"none of its files of strings ({names}) is named train" if files else f"no files of strings ({_KNOWN})"
        raise DataError(f"folder {folder}: {said}; pass the path of a file")
    found = read_string_parts(chosen, column)
    found = replace(found, where=f"{', '.join(sorted(file.name for file in chosen.values()))} in {folder}")
    if not ignored:
        return found
    remark = f"ignored {len(ignored)} other file{'s' * (len(ignored) > 1)} ({', '.join(ignored[:3])})"
    return replace(found, remarks=(*found.remarks, remark))


def _read_file(path: Path, column: str | None, *, divide: bool = True) -> Found:
    """Read one file; a table's column of parts is used only if it may `divide`."""
    kind = kind_of(path)
    if kind not in SUFFIXES:
        raise DataError(f"{path} is in no known format of strings ({_KNOWN}); convert or rename it")
    if not path.is_file():
        raise DataError(f"{path} is no regular file; save its contents to one")
    remarks: list[str] = []
    domain: Domain | None = None
    if kind in TABLES:
        parts, remarks, domain = read_column(path, column, divide=divide)
    elif column is not None:
        raise UsageError(f"column is {column!r}, but {path} is no table; leave it out")
    else:
        strings, remarks, domain = _read_lines(path, kind)
        parts = {POOL: strings}
    kept, said = cleaned(parts, str(path), domain, "rows" if kind in TABLES else "")
    return Found(kept, str(path), tuple(dict.fromkeys([*remarks, *said])), domain=domain)


def _read_lines(path: Path, kind: str) -> tuple[list[str], list[str], Domain | None]:
    """Read a file that is no table; also return remarks, and what the strings are, if the file says it.

    Raises:
        DataError: if it is in a format that is none of strings.
    """
    lines = [line.strip() for line in lines_of(path)]
    if kind in MOLECULES:
        return *_molecules(path, lines), "molecules"
    first = next(filter(None, lines), "")
    if kind in _FASTA or first.startswith(">"):
        return *_sequences(path, lines), None
    sample = [line for line in lines if line][:PEEK]
    if sample and all(map(_LIBSVM.fullmatch, sample)):
        raise DataError(f"{path} is in the format of LIBSVM ({first[:40]}); convert it to a table of numbers")
    if sample and guess_domain(sample) == "text" and _has_molecules(sample):
        strings, remarks = _molecules(path, lines)
        return strings, [*remarks, "read as a file of molecules, what stands beside them left out"], "molecules"
    return lines, [], None


def _sequences(path: Path, lines: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the sequences of a FASTA file, each below a line that begins with > and names it.

    Raises:
        DataError: if it begins otherwise.
    """
    sequences: list[str] = []
    for line in lines:
        if line.startswith(">"):
            sequences.append("")
        elif line and not line.startswith(";"):
            if not sequences:
                raise DataError(f"{path} is no FASTA: it begins with {line[:40]!r}, not with > and a name; correct it")
            sequences[-1] += line
    return sequences, [f"read as FASTA: {len(sequences):,} sequences, their names left out"]


def _delimiter(lines: Sequence[str]) -> str | None:
    """Return what separates the columns of most lines; None for white space."""
    several = ("\t", None, ",", ";")
    return next((each for each in several if sum(len(line.split(each)) > 1 for line in lines) > 0.5 * len(lines)), None)


def _has_molecules(lines: Sequence[str]) -> bool:
    """Tell whether most lines have several columns, and one of these holds SMILES."""
    rows = [line.split(_delimiter(lines)) for line in lines]
    width = Counter(map(len, rows)).most_common(1)[0][0]
    columns = [[row[index] for row in rows if len(row) > index] for index in range(width)]
    return width > 1 and any(share_of_smiles(column) > _SURE for column in columns)


def _molecules(path: Path, stripped: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the SMILES of lines with a molecule each, which may have other columns, and remarks.

    Raises:
        DataError: if no column looks like SMILES.
    """
    filled = [line for line in stripped if line]
    named_above = [line for line in filled[:1] if any(is_smiles_name(word.strip('#",; ')) for word in line.split())]
    lines = named_above + [line for line in filled[len(named_above) :] if not line.startswith("#")]
    comments = len(filled) - len(lines)
    delimiter = _delimiter(lines)
    rows = [[cell.strip() for cell in line.split(delimiter)] for line in lines]
    if (
        rows
        and (title := next((cell for cell in rows[0] if is_smiles_name(cell.lstrip("#").strip('"'))), None)) is not None
    ):
        rows, called = rows[1:], rows[0].index(title)
    else:
        called = 0
    if not rows:
        raise DataError(f"{path} holds no strings; fill it")
    width = Counter(map(len, rows)).most_common(1)[0][0]
    columns = [[_first_word(row[index]) for row in rows if len(row) > index] for index in range(max(width, called + 1))]
    looks = [sum(map(looks_like_smiles, column)) / len(rows) for column in columns]
    best = called
    shares = [share_of_smiles(column) * len(column) / len(rows) for column in columns]
    better = max(range(len(shares)), key=shares.__getitem__)
    if shares[better] > _AGREE >= shares[called] or (looks[called] <= _AGREE and shares[better] > looks[called]):
        best = better
    if looks[best] <= _AGREE:
        raise DataError(
            f"{path}: {1 - looks[best]:.0%} of its lines are no SMILES, the first {lines[0][:60]!r}; give a molecule a "
            "line, or rename it .txt for other strings"
        )
    remarks = [f"SMILES in column {best + 1}"] if best else []
    remarks += [f"skipped {comments:,} line{'s' * (comments > 1)} of comments"] if comments else []
    short = sum(len(row) <= best for row in rows)
    remarks += [f"left out {short:,} of {len(rows):,} lines, without a SMILES"] if short else []
    return [_first_word(row[best]) for row in rows if len(row) > best], remarks


def _first_word(cell: str) -> str:
    return cell.split(None, 1)[0] if cell else ""
