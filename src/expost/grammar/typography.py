"""Grammars as they are typeset: TeX's arrows and letters, typographic quotes and primes, in plain characters."""

from __future__ import annotations

import re

from expost.errors import DataError

# An opening quote ends the search for the end of the one before it, so that a text of them takes linear time.
_TYPESET = re.compile(
    r"""(?P<quoted>'[^'\r\n]*'|"[^"\r\n]*") | (?P<curly>‘[^‘’\r\n]*’|“[^“”\r\n]*”|„[^„“”"\r\n]*[“”"]|«[^«»\r\n]*»)
      | (?<=\w)(?P<prime>[′’]+)(?!\w)
      | (?P<comment>^[ \t]*//[^\r\n]*) | \\(?P<tex>to|rightarrow|longrightarrow|Rightarrow|mid|epsilon|varepsilon
      | emptyset|varnothing|lambda)(?![A-Za-z]) | (?P<empty>∅) | (?<=[\w'")\]])(?P<count>\{\d+(?:,\d*)?\})""",
    re.VERBOSE | re.MULTILINE,
)
_TEX = {"to": "->", "rightarrow": "->", "longrightarrow": "->", "Rightarrow": "->", "mid": "|"}


def untypeset(text: str, name: str) -> str:
    r"""Return a grammar with the plain characters for typeset ones; what stands in quotes stays as it is.

    Args:
        text: The grammar.
        name: What errors call it.

    Raises:
        DataError: for a count of repetitions, as `{3}`, which is no group.

    Example:
        >>> untypeset(r"E′ \to „a“ E′ \mid \epsilon", "g.txt")
        "E' -> 'a' E' | ε"
    """

    def plain(match: re.Match[str]) -> str:
        kind = match.lastgroup
        if kind == "count":
            line = text.count("\n", 0, match.start()) + 1
            raise DataError(f"{name}, line {line}: {match[0]} counts repetitions; write them out")
        if kind == "curly":
            quote = '"' if "'" in match[0] else "'"
            return f"{quote}{match[0][1:-1]}{quote}"
        if kind == "tex":
            return _TEX.get(match["tex"], "ε")
        return {"quoted": match[0], "prime": "'" * len(match[0]), "comment": "", "empty": "ε"}[str(kind)]

    return _TYPESET.sub(plain, text)
