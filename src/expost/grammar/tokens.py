"""The words of a grammar's notation: strings, names, signs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

ARROW = r"-->|->|<-|::=|:=|=>|[→⟶⇒⟹⭢←]|:|="
_TOKEN = re.compile(
    rf"""(?P<space>[ \t\f\v]+) | (?P<line>\r\n|\r|\n)
      | (?P<comment>\#[^\r\n]*|//[^\r\n]*)
      | (?P<quoted>'[^'\r\n]*'|"[^"\r\n]*")
      | (?P<angled><[^<>|\r\n]+>)
      | (?P<chance>\[\s*+(?:\d++(?:\.\d*+)?|\.\d++)(?:[eE][-+]?\d++)?\s*+\])
      | (?P<dots>\.\.\.?) | (?P<arrow>{ARROW}) | (?P<bar>\||∣) | (?P<regular>/[^/\s](?:[^/\r\n]|\\/)*/)
      | (?P<code>%[xdb][0-9A-Fa-f.-]+) | (?P<directive>%\w+) | (?P<name>[^\W\d]\w*(?:-(?![->])\w+)*'*|\w+)
      | (?P<open>[(\[{{]) | (?P<close>[)\]}}]) | (?P<times>[*+?]) | (?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
#: What may begin what `_Closed` finds the end of.
_OPENERS = frozenset("(/[‘“")
_CLASS = re.compile(r"[^\]\s'\"]*")
_CURLY = re.compile(r"[^’”\r\n]*")
CLOSING = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True)
class Token:
    """A word of a grammar.

    Attributes:
        kind: Which group of the pattern it is.
        text: As written.
        line: The line that it is on.
        tight: Whether it follows the word before without a space.
    """

    kind: str
    text: str
    line: int
    tight: bool


def tokens_of(text: str) -> list[Token]:
    """Return the words of a text; signs before names that say how Lark shapes its trees are left out."""
    tokens: list[Token] = []
    line, tight = 1, False
    for kind, word in _words(text.removeprefix("\ufeff")):
        if kind in ("space", "comment", "line"):
            line += len(re.findall(r"\r\n|\r|\n", word))
            tight = False
            continue
        if kind == "chance" and tokens and tokens[-1].kind == "arrow" and "." not in word:
            kind = "range"
        tokens.append(Token(kind, word, line, tight))
        tight = True
    return [
        token
        for index, token in enumerate(tokens)
        if not (token.text in "?!" and (index == 0 or tokens[index - 1].line < token.line))
    ]


def spans_of(inside: str) -> list[tuple[int, int]]:
    """Return the code points that a class of characters stands for, from and to: a-z0-9_."""
    found: list[tuple[int, int]] = []
    index = 0
    while index < len(inside):
        last = index + 2 if inside[index + 1 : index + 2] == "-" and index + 2 < len(inside) else index
        found.append((ord(inside[index]), ord(inside[last])))
        index = last + 1
    return found


def _words(text: str) -> Iterator[tuple[str, str]]:
    """Yield the words of a text, each with its kind, in time linear in the text's length."""
    closed = _Closed(text)
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        assert match is not None  # anything is `other`
        kind, end = str(match.lastgroup), match.end()
        if text[at] in _OPENERS and kind not in ("chance", "comment") and (found := closed.word(at)) is not None:
            kind, end = found
        yield kind, text[at:end]
        at = end


class _Closed:
    """Finds the ends of comments, classes of characters and curly quotes, and looks at no character again and again.

    What has no end after one place has none after a later place, and what ends at some place does so for every
    beginning before it.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._ends = {"(": 0, "/": 0, "[": 0, "‘": 0}
        self._dash = -1

    def word(self, at: int) -> tuple[str, int] | None:
        """Return kind and end of the word that begins with an opening sign; None if it is not closed."""
        sign = self._text[at]
        if sign in "(/":
            if self._text[at + 1 : at + 2] != "*":
                return None
            end = self._find(sign, "*)" if sign == "(" else "*/", at + 2)
            return None if end < 0 else ("comment", end + 2)
        if sign == "[":
            end = self._run(sign, _CLASS, at + 1)
            is_range = self._text[end : end + 1] == "]" and self._dash > at + 1
            return ("range", end + 1) if is_range else None
        end = self._run("‘", _CURLY, at + 1)
        return ("quoted", end + 1) if self._text[end : end + 1] in ("’", "”") else None

    def _find(self, sign: str, close: str, start: int) -> int:
        if 0 <= self._ends[sign] < start:
            self._ends[sign] = self._text.find(close, start)
        return self._ends[sign]

    def _run(self, sign: str, pattern: re.Pattern[str], start: int) -> int:
        if self._ends[sign] < start:
            match = pattern.match(self._text, start)
            self._ends[sign] = start if match is None else match.end()
            if sign == "[":  # the last dash with a character behind it
                self._dash = self._text.rfind("-", start, max(start, self._ends[sign] - 1))
        return self._ends[sign]
