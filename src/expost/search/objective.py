"""The slot of objectives: scores of strings. A search continues whatever the scoring raises or returns."""

from __future__ import annotations

import contextlib
import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import ClassVar, Self, final

from PIL import Image

from expost.search.result import Found


@dataclass(frozen=True)
class Scored:
    """Scores of a list of strings.

    Attributes:
        values: One per string; None where the objective failed or gave no finite number.
        message: What went wrong the first time, one line; None if nothing did.
    """

    values: list[float | None]
    message: str | None = None

    @property
    def skipped(self) -> int:
        """How many strings have no score."""
        return sum(value is None for value in self.values)


class Objective(ABC):
    """A score of strings. A built-in one is a class with a `name` and options, and one line in `OBJECTIVES`."""

    name: ClassVar[str]
    #: The strings that it can score, in words, for messages; empty if unknown.
    takes: ClassVar[str] = ""

    @property
    @abstractmethod
    def minimize(self) -> bool:
        """Whether lower is better."""

    @property
    @abstractmethod
    def label(self) -> str:
        """Name and options in one line; a resumed search must have the same."""

    def for_training(self) -> Self:
        """Return the objective that scores the training strings: itself, unless the published code has another."""
        return self

    @abstractmethod
    def picture(self, found: Sequence[Found]) -> Image.Image:
        """Draw strings and their scores, best first, at least one."""

    @abstractmethod
    def _values(self, strings: list[str]) -> Sequence[object]:
        """Return a number for every string; `score` handles anything else, and any exception."""

    @final
    def score(self, strings: Sequence[str]) -> Scored:
        """Score strings; a string whose scoring fails, or gives no finite number, is skipped and counted.

        If scoring the list fails as a whole, the strings are scored one at a time, so that one bad string costs no
        other. What the objective prints goes to stderr. It raises nothing but KeyboardInterrupt.
        """
        if not strings:
            return Scored([])
        values, message = self._attempt(list(strings))
        if values is None:
            values, messages = [], []
            for string in strings:
                single, reason = self._attempt([string])
                values.append(None if single is None else single[0])
                messages.append(f"{string!r}: {reason}" if single is None else None)
            message = next((text for text in messages if text), None)
        scores = [finite(value) for value in values]
        if message is None and None in scores:
            index = scores.index(None)
            message = f"{strings[index]!r}: the score is {short(values[index])}, not a finite number"
            message += f"; {self.name} scores {self.takes}" if self.takes else ""
        return Scored(scores, message)

    def _attempt(self, strings: list[str]) -> tuple[list[object] | None, str | None]:
        """Return the values, or None and the reason why there are none."""
        try:
            with contextlib.redirect_stdout(sys.stderr):
                values = list(self._values(strings))
        except (Exception, SystemExit) as error:
            return None, f"{type(error).__name__}: {error}".splitlines()[0]
        if len(values) != len(strings):
            return None, f"{len(values)} scores for {len(strings)} strings"
        return values, None


def finite(value: object) -> float | None:
    """Return a score as a float; None if it is not a finite real number."""
    item = getattr(value, "item", None)  # NumPy's and PyTorch's scalars
    try:
        plain = item() if callable(item) else value
        number = float(plain) if isinstance(plain, Real) else math.nan
    except Exception:  # a foreign object's own conversion
        return None
    return number if math.isfinite(number) else None


def short(value: object) -> str:
    """Return what an objective gave, in at most 60 characters, for a message."""
    try:
        text = repr(value)
    except Exception:
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."
