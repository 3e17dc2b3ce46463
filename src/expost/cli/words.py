"""Completion of one word: what could stand there. The scripts of all shells call this, once for every press of Tab.

    python -P -m expost.cli.words INDEX WORD... < SPECIFICATION

INDEX is the place of the word that is completed; the words begin with `expost`. The specification is JSON, made by
`expost.cli.completing`. The first line that is printed says what the shell adds: `files`, `folders` or `nothing`. Then
come the candidates, each with its description behind a tab. It imports the standard library alone, for speed.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

#: How many folders below a prefix runs are looked for.
DEPTH = 2
#: Most bytes of a density's header that are read.
LARGEST_HEADER = 10_000_000


def complete(specification: Mapping[str, Any], index: int, words: Sequence[str]) -> tuple[str, dict[str, str]]:
    """Return what the shell adds, and the candidates with their descriptions.

    Args:
        specification: By command its `help`, its `positional` values in order, and its `options`, each with `kind`,
            `choices`, `many` and `help`.
        index: Place of the word that is completed.
        words: The command line; `--option=value` may be split at the equals sign, as bash does.
    """
    before, word = [each for each in words[1:index] if each != "="], words[index] if index < len(words) else ""
    word = "" if word == "=" else word
    if not before:
        return "nothing", _that_begin(word, {name: each["help"] for name, each in specification.items()})
    command = specification.get(before[0])
    if command is None:
        return "nothing", {}
    option, equals, value = word.partition("=")
    if equals and option in command["options"]:
        added, found = _values(command["options"][option], value, before)
        return added, {f"{option}={each}": said for each, said in found.items()}
    wanted, free = None, 0
    for each in before[1:]:
        if each in command["options"]:
            taken = command["options"][each]
            wanted = taken if taken["kind"] != "flag" else None
        elif wanted is None:
            free += 1
        elif not wanted["many"]:
            wanted = None
    options = {name: each["help"] for name, each in command["options"].items()}
    if wanted is not None and not word.startswith("-"):
        return _values(wanted, word, before)
    positional = command["positional"]
    if word.startswith("-") or not positional:
        return "nothing", _that_begin(word, options)
    if free < len(positional) or positional[-1]["many"]:
        return _values(positional[min(free, len(positional) - 1)], word, before)
    return "nothing", _that_begin(word, options)


def _values(wanted: Mapping[str, Any], word: str, before: Sequence[str]) -> tuple[str, dict[str, str]]:
    """Return what the shell adds, and candidates for a value of some kind."""
    found = _that_begin(word, dict.fromkeys(wanted["choices"], ""))
    kind = wanted["kind"]
    if kind == "run":
        runs = dict.fromkeys(_runs(word), "run")
        return ("nothing" if runs else "folders"), runs
    if kind in ("fitted", "label"):
        named = [Path(each).expanduser() for each in before[1:] if (Path(each).expanduser() / "config.json").is_file()]
        for run in named[:1]:
            found |= _that_begin(word, dict.fromkeys(_fitted(run) if kind == "fitted" else _labels(run), ""))
    return ("files" if kind == "files" else "nothing"), found


def _that_begin(word: str, candidates: Mapping[str, str]) -> dict[str, str]:
    return {name: said for name, said in candidates.items() if name.startswith(word)}


def _runs(word: str) -> Iterator[str]:
    """Yield runs whose path begins with a word; without one, those below `runs/` and in the working directory."""
    typed, _, name = word.rpartition("/")
    folders = [f"{typed}/"] if "/" in word else ["", *(["runs/"] if "runs".startswith(name) else [])]
    for folder in folders:
        for path in _below(Path(os.path.expanduser(folder or ".")), DEPTH if folder else 1):
            shown = folder + path
            if shown.startswith(word):
                yield shown


def _below(folder: Path, depth: int) -> Iterator[str]:
    """Yield the runs below a folder, relative to it; a run's own folders are not searched."""
    try:
        entries = sorted(each.name for each in os.scandir(folder) if each.is_dir() and not each.name.startswith("."))
    except OSError:
        return
    for entry in entries:
        if (folder / entry / "config.json").is_file():
            yield entry
        elif depth > 1:
            yield from (f"{entry}/{each}" for each in _below(folder / entry, depth - 1))


def _fitted(run: Path) -> list[str]:
    return sorted(path.stem for path in (run / "densities").glob("[!.]*.safetensors"))


def _labels(run: Path) -> list[str]:
    """Return the labels that densities were fitted by, from the headers of their files."""
    labels: dict[str, None] = {}
    for path in sorted((run / "densities" / "by_label").glob("[!.]*.safetensors")):
        try:
            with path.open("rb") as file:
                (size,) = struct.unpack("<Q", file.read(8))
                header = json.loads(file.read(min(size, LARGEST_HEADER)))
            fit = json.loads("{" + header["__metadata__"]["expost"].partition("{")[2])["fit"]
            labels |= dict.fromkeys(map(str, fit["labels"]))
        except (OSError, ValueError, KeyError, TypeError, struct.error):  # damaged: the command says so
            continue
    return list(labels)


def main() -> None:
    """Print what could stand in the place of a word."""
    added, found = complete(json.load(sys.stdin), int(sys.argv[1]), sys.argv[2:])
    print(added, *(f"{name}\t{said}" for name, said in found.items()), sep="\n")


if __name__ == "__main__":
    main()
