"""Data sets of strings: molecules as SMILES, arithmetic expressions, any text, in three disjoint parts."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from expost.data import description
from expost.data.examples import POOL, Found, Indices, Part, Preprocess, existing
from expost.data.hub import on_hub
from expost.data.named_strings import STRING_DATASETS, NamedStrings
from expost.data.notations import Domain, guess_domain
from expost.data.splits import plan_split, subset
from expost.data.string_files import holds_strings, read_string_path
from expost.data.string_lines import Lines
from expost.errors import DataError, UsageError


@dataclass(frozen=True)
class Strings:
    """A data set of strings in three parts, none of which holds a string of another.

    Attributes:
        name: The name or path it was asked for by.
        train: For fitting weights and densities; repeated strings stay repeated.
        validation: For choosing; every string once.
        test: For scores only; every string once.
        note: One line on where it came from and how it was prepared.
        domain: "molecules" (SMILES), "expressions" (of the grammar of `expost.data.expressions`) or "text".
    """

    name: str
    train: list[str]
    validation: list[str]
    test: list[str]
    note: str
    domain: Domain


def read_strings(
    name_or_path: str | Path, limit: int | None = None, seed: int = 0, column: str | None = None
) -> Strings:
    """Read a data set of strings by its name in `STRING_DATASETS`, or from a file or folder.

    Names and paths are told apart as `load_data` does it, with data sets on the Hugging Face Hub,
    `owner/name`. The splits of named sets are fixed. Files and folders have
    the parts that their names or columns give; what is missing is drawn: undivided strings become 80/10/10, a missing
    validation or test part is a tenth of the training part. The draw depends on the strings and the seed alone.

    No string is in two parts; two spellings of one molecule are two strings, and may be. Undivided, all copies of a
    string go one way, and only the training part keeps them; of given parts, validation loses what is in test, and both
    lose what is in training. `Strings.note` counts both.

    Args:
        name_or_path: The name or the path.
        limit: At most this many strings in each part, drawn at random: smaller limits give subsets of larger ones.
        seed: Of the split of strings that come without one, and of the draw that `limit` makes; 0..2^32 - 1.
        column: Which column of a table holds the strings; None to find it.

    Raises:
        UsageError: for a name that is neither a set nor a path, or an option out of range.
        DataError: for data that cannot be used; the message names the file, the value and the remedy.

    Example:
        >>> data = read_strings("expressions", limit=1000)
        >>> len(data.train), len(data.test), data.domain, data.test[0]
        (1000, 1000, 'expressions', '2+x+exp(1)/(x/3)')
    """
    _check(limit, seed)
    if not isinstance(name_or_path, str | Path) or not str(name_or_path).strip():
        raise UsageError(f"data set {name_or_path!r}; give a name ({', '.join(STRING_DATASETS)}), a file or a folder")
    if isinstance(name_or_path, str) and name_or_path in STRING_DATASETS:
        if column is not None:
            raise UsageError(f"column is {column!r}, but '{name_or_path}' is no table; leave it out")
        return read_named_strings(name_or_path, STRING_DATASETS[name_or_path], limit, seed)
    place = existing(name_or_path)
    repository = on_hub(name_or_path) if place is None else None
    if place is not None:
        found = read_string_path(place, column)
    elif repository is not None:
        found = repository.read_strings(str(name_or_path), column)
    else:
        raise _unknown(name_or_path)
    return _assemble(str(name_or_path), found, None, seed, limit, seed)


def is_strings(name_or_path: str | Path, column: str | None = None, asked: bool = False) -> bool:
    """Tell whether a name or a path is for `read_strings` rather than `load_data`; never raises.

    Args:
        name_or_path: The name or the path.
        column: The column of strings that was asked for, which makes any table one of strings.
        asked: Whether strings are asked for otherwise, by a grammar or a model of strings: a .txt is then one of them.
    """
    if isinstance(name_or_path, str) and name_or_path in STRING_DATASETS:
        return True
    try:
        place = existing(name_or_path)
        repository = on_hub(name_or_path) if place is None else None
        if repository is not None:
            return repository.holds_strings(str(name_or_path), column)
    except (DataError, UsageError):  # which reading it will say
        return False
    return place is not None and holds_strings(place, column, asked)


def read_named_strings(name: str, named: NamedStrings, limit: int | None = None, seed: int = 0) -> Strings:
    """Read a set that an entry of `STRING_DATASETS` describes; the entry need not be registered.

    Args:
        name: Its name, which is also that of its folder in `$EXPOST_DATA`.
        named: The entry.
        limit: At most this many strings in each part; see `read_strings`.
        seed: Of the draw that `limit` makes; the splits are fixed.

    Raises:
        UsageError, DataError: see `read_strings`.
    """
    _check(limit, seed)
    return _assemble(name, named.origin.read(name), named.domain, 0, limit, seed)


def fingerprint(strings: Strings) -> str:
    """Return the SHA-256, in hex, of the three parts: of their strings and their order, not of name and note.

    Example:
        >>> fingerprint(Strings("a", ["C"], ["N"], ["O"], "", "molecules"))[:16]
        '4fbe5b6cee41c1fd'
    """
    digest = hashlib.sha256()
    for part in (strings.train, strings.validation, strings.test):
        # With lengths, since no separator is safe in any text.
        digest.update(f"{len(part)};".encode())
        digest.update("".join(f"{len(string)}:{string}" for string in part).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _assemble(name: str, found: Found, domain: Domain | None, split_seed: int, limit: int | None, seed: int) -> Strings:
    """Divide what was found into parts without common strings, and keep what `limit` allows."""
    lines = {part: _take(one, np.arange(len(one))) for part, one in found.parts.items()}
    once = {part: list(dict.fromkeys(strings)) for part, strings in lines.items()}
    copies = sum(map(len, lines.values())) - sum(map(len, once.values()))
    where = f"{found.where}, repeated strings taken once" if copies else found.where
    plan = plan_split(Found({part: Part(Lines(strings, where)) for part, strings in once.items()}, where), split_seed)
    train, validation, test = (
        _take(one, np.sort(indices)) for one, indices in (plan.train, plan.validation, plan.test)
    )
    in_train, in_test = set(train), set(test)
    if copies:
        train = [string for string in lines.get("train", lines.get(POOL, [])) if string in in_train]
    sizes = len(validation), len(test)
    validation = [string for string in validation if string not in in_train and string not in in_test]
    test = [string for string in test if string not in in_train]
    removed = sizes[0] - len(validation), sizes[1] - len(test)
    if not validation or not test:
        empty, other = ("test", "training") if not test else ("validation", "training or test")
        raise DataError(f"{found.where}: every {empty} string is in {other} too; give others")
    train, validation, test = (
        [part[i] for i in subset(np.arange(len(part)), limit, seed).tolist()] for part in (train, validation, test)
    )
    kind = domain or found.domain or guess_domain(train)
    remarks = [
        f"{copies:,} repeated strings, of which training keeps its own" if copies else "",
        f"left out {removed[0]:,} of validation and {removed[1]:,} of test that are in other parts"
        if any(removed)
        else "",
        *found.remarks,
    ]
    note = description.note(
        found.where,
        [len(part) for part in (train, validation, test)],
        plan.how,
        examples=description.of_strings([*train, *validation, *test], kind),
        limit=limit,
        seed=seed,
        remarks=remarks,
    )
    return Strings(name, train, validation, test, note, kind)


def _take(part: Part, indices: Indices) -> list[str]:
    return part.examples.load(indices, Preprocess()).tolist()


def _unknown(path: str | Path) -> UsageError:
    text = str(path)
    if isinstance(path, str) and "/" not in text and os.sep not in text and text[0] not in ".~":
        try:
            STRING_DATASETS[text]
        except UsageError as error:
            return UsageError(f"{error}; nor is there a file or folder of that name")
    return UsageError(f"no file or folder {text}; check the path, or choose a named set: {', '.join(STRING_DATASETS)}")


def _check(limit: int | None, seed: int) -> None:
    if limit is not None and (type(limit) is not int or limit < 1):
        raise UsageError(f"limit is {limit!r}; give a whole number of strings, at least 1")
    if type(seed) is not int or not 0 <= seed < 2**32:
        raise UsageError(f"seed is {seed!r}; give a whole number from 0 to {2**32 - 1}")
