"""Errors of the command line in one line, made from tyro's boxes of several lines."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Sequence

#: Names of kinds of values.
_KINDS = {"INT": "a whole number", "FLOAT": "a number"}
_MOST = 3
#: What tyro draws instead of a frame on a terminal without these characters.
_FRAME = {**dict.fromkeys(map(ord, "╭╮╰╯│"), " "), ord("─"): "-"}


def refused(box: str, words: Sequence[str], commands: Collection[str]) -> str:
    """Return one line that says what is wrong with the words, and what to do.

    Args:
        box: What tyro prints.
        words: Behind `expost`.
        commands: All that there are.
    """
    asked = next((word for word in words if not word.startswith("-")), None)
    if asked is None:
        return "a command is missing; expost --help lists them"
    if asked not in commands:
        near = difflib.get_close_matches(asked, commands, 1)
        meant = f"did you mean {near[0]}? " if near else ""
        return f"unknown command '{asked}'; {meant}expost --help lists them"
    title, sections = _unframe(box)
    text = " ".join(" ".join(sections[0]).split()) if sections else title
    said = text.rstrip(".")
    if title == "Required options":
        needed = [line.strip() for line in sections[0] if re.match(r" {4}\S", line)]
        said = f"{asked} needs {', '.join(needed)}"
        others = [line.strip() for section in sections[1:] if section[0].startswith("Unrecog") for line in section[1:]]
        said += f"; unknown: {' '.join(others)}" if others else ""
    elif title == "Unrecognized options":
        said = _unknown(sections, asked)
    elif found := re.match(r"invalid choice (.+) for argument '(.+)'\. Expected one of \((.+)\)", said):
        value, option, choices = found.groups()
        listed = [each for each in re.findall(r"'([^']*)'", choices) if each != "None"]
        said = f"{option} is {value}; choose of {', '.join(listed)}"
    elif found := re.match(r"Error parsing (\S+): .*?no type matching (\S+) could be .* from \[(.*?)\]", said):
        option, kind, value = found.groups()
        said = f"{option} is {value.replace(chr(39), '')}; give {_KINDS.get(kind, kind)}"
    elif found := re.match(r"Error parsing (\S+): .*(int|float)\b.*: '(.*)'", said):
        option, kind, value = found.groups()
        said = f"{option} is {value}; give {_KINDS[kind.upper()]}"
    elif found := re.match(r"Missing value for argument '(.+)'", said):
        said = f"{found[1]} needs a value"
    return f"{said}; expost {asked} --help says more"


def _unframe(box: str) -> tuple[str, list[list[str]]]:
    """Return the title of a box, and its lines by section."""
    first, *lines = box.translate(_FRAME).splitlines() or [""]
    sections = [list[str]()]
    for line in lines:
        inside = line[2:].rstrip()
        if set(inside) == {"-"}:
            sections.append([])
        elif inside:
            sections[-1].append(inside)
    return first.strip(" -"), [each for each in sections if each]


def _unknown(sections: Sequence[Sequence[str]], asked: str) -> str:
    """Return which words are unknown, and which options are spelt like them."""
    first = " ".join(sections[0])
    inside = re.findall(r"(\S+) \(applied to", first)
    unknown = " ".join(inside) if inside else first.partition(":")[2].strip().replace(", ", " ")
    said = f"{asked} has no {'option' if unknown.startswith('-') else 'use for'} {unknown}"
    for section in sections[1:]:
        if not section[0].startswith("Perhaps"):
            continue
        options = [line.split()[0].rstrip(",") for line in section if re.match(r" {4}-", line)][:_MOST]
        where = {found[1] for line in section if (found := re.search(r"in expost (\S+) --help", line))}
        elsewhere = f" of expost {', '.join(sorted(where))}" if where and asked not in where else ""
        said += f" (did you mean {' or '.join(options)}{elsewhere}?)" if options else ""
    return said
