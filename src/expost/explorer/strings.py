"""Strings, to be explored: molecules, expressions, any text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from torch import Tensor

from expost.errors import DataError
from expost.examples.domains import DOMAINS
from expost.explorer.kinds import File, Given, Kind, Neighbours
from expost.explorer.markup import facts, join, note, number
from expost.generators.strings import StringGenerator
from expost.report.strings import edit_distances
from expost.report.structures import STRUCTURES, available

Strings = list[str | None]
#: Most letters of a typed string.
LONGEST = 2_000
#: Most training strings that are compared letter by letter: some 10 ms for a thousand.
COMPARED = 4_000
UNFINISHED = Markup('<span class="missing">unfinished</span>')
EMPTY = Markup('<span class="missing">empty</span>')


class Texts(Kind[Strings]):
    """Strings; None where a derivation did not end.

    Args:
        strings: The generator.
        domain: What they are: "molecules", "expressions" or "text".
        train: Rows of symbols of the training strings that others are compared with.
    """

    noun = "string"
    symbols = True

    def __init__(self, strings: StringGenerator, domain: str, train: Tensor) -> None:
        self.strings = strings
        self.structure = STRUCTURES[domain]
        self.problem = available(self.structure)
        self.noun = {"molecules": "molecule", "expressions": "expression"}.get(domain, "string")
        property_ = DOMAINS[domain].prop
        self._property_name = DOMAINS[domain].prop_name
        self._train = [text or "" for text in strings.codec.decode(train)]
        self._property = None if property_ is None or self.problem else property_(self._train)
        self.typed = next((text for text in self._train if text), "")

    def of_rows(self, x: Tensor) -> Strings:
        """Return rows of symbols as strings."""
        return self.strings.codec.decode(x)

    def encode(self, items: Strings) -> Tensor:
        """Return codes.

        Raises:
            DataError: if a string is unfinished, or the model cannot read it; the message says where and why.
        """
        if any(each is None for each in items):
            raise DataError(f"an unfinished {self.noun} has no code; choose another")
        return self.strings.encode([each or "" for each in items])

    def decode(self, z: Tensor, temperature: float = 0.0, seed: int = 0) -> Strings:
        """Return a string per code: the most likely symbols, or drawn ones."""
        return self.strings.decode(z, temperature, seed)

    def read(self, body: bytes, name: str) -> Given[Strings]:
        """Refuse: strings are typed."""
        raise DataError(f"a {self.noun} is not uploaded; type it")

    def parse(self, text: str) -> Strings:
        """Read a string, without the white space around it.

        Raises:
            DataError: if there is none, it is too long, or the model cannot read it.
        """
        found = text.strip()
        if not found:
            raise DataError(f"no {self.noun} is given; type one")
        if len(found) > LONGEST:
            raise DataError(f"that {self.noun} has {len(found):,} letters; give at most {LONGEST:,}")
        encoded = self.strings.codec.encode([found])
        if encoded.rejected:
            reason = str(encoded.rejected[0]).removeprefix("string 0, ")
            raise DataError(f"the model cannot read {reason}")
        return [found]

    def text(self, items: Strings) -> str:
        """Return the first string."""
        return items[0] or ""

    def size(self, items: Strings) -> int:
        """Return about the bytes of the letters."""
        return sum(64 + len(each or "") for each in items)

    def one(self, items: Strings) -> Markup:
        """Show a string with its drawing and scores."""
        text = items[0]
        if text is None:
            return Markup('<div class="text">{}</div>{}').format(
                UNFINISHED, note("The derivation did not end within the model's length.")
            )
        return join([self._drawn(text), Markup('<p class="text">{}</p>').format(_written(text)), self._scores(text)])

    def small(self, items: Strings) -> Markup:
        """Show a string with its drawing."""
        text = items[0]
        drawn = Markup("") if text is None else self._drawn(text)
        return Markup('{}<p class="text">{}</p>').format(drawn, _written(text))

    def sheet(self, items: Strings) -> Markup:
        """Show strings with drawings and scores."""
        scores = self._columns(items)
        cells = (
            Markup('<button type="button" data-index="{}">{}<code>{}</code><small>{}</small></button>').format(
                index,
                self._drawn(text) if text else "",
                _written(text),
                ", ".join(f"{name}\N{NO-BREAK SPACE}{number(float(column[index]))}" for name, column in scores.items())
                if text is not None
                else "",
            )
            for index, text in enumerate(items)
        )
        finished = [text for text in items if text is not None]
        valid = sum(self._standard(text) is not None for text in finished)
        words = f"{len(finished)} of {len(items)} are finished"
        if not self.problem:
            words += f", {valid} valid, {len({self._standard(text) for text in finished} - {None})} different"
        about = join([note(words + "."), note(self.structure.explained) if self.structure.explained else Markup("")])
        return Markup('<div class="sheet texts {}">{}</div>{}').format(self.structure.size, join(cells), about)

    def pair(self, item: Strings, back: Strings) -> Markup:
        """Show a string and its reconstruction, and how many edits apart they are."""
        sides = join(
            Markup("<figure><figcaption>{}</figcaption>{}</figure>").format(caption, self.one(each))
            for each, caption in ((item, self.noun), (back, "reconstruction"))
        )
        first, second = item[0] or "", back[0]
        if second is None:
            words = "the reconstruction is unfinished"
        else:
            edits = int(edit_distances(first, [second])[0])
            words = "the reconstruction is exact" if first == second else f"{edits} edit{'s' * (edits != 1)} apart"
        return Markup('<div class="sides">{}</div><p class="verdict">{}.</p>').format(
            sides, words[0].upper() + words[1:]
        )

    def path(self, items: Strings) -> Markup:
        """Show the steps below each other; one that repeats the last is faint."""
        scores = self._columns(items)
        steps = []
        for index, text in enumerate(items):
            same = index > 0 and text == items[index - 1]
            values = ", ".join(f"{name} {number(float(column[index]))}" for name, column in scores.items())
            shown = Markup("{}<code>{}</code>").format("" if same else self._drawn(text), text) if text else UNFINISHED
            steps.append(
                Markup('<li class="{}">{}<small>{}</small></li>').format(
                    "same" if same else "new", shown, values if text and not same else ""
                )
            )
        return Markup('<ol class="steps {}">{}</ol>').format(self.structure.size, join(steps))

    def row(self, items: Strings, captions: Sequence[str]) -> Markup:
        """Show a few strings with captions."""
        cells = join(
            Markup("<li><code>{}</code> <small>{}</small></li>").format(_written(text), caption)
            for text, caption in zip(items, captions, strict=True)
        )
        return Markup('<ol class="lines">{}</ol>').format(cells)

    def take(self, items: Strings, index: int) -> Strings:
        """Return one string of several."""
        return items[index : index + 1]

    def nearest(self, item: Strings, n: int) -> Neighbours:
        """Return the nearest training strings by edit distance."""
        pool = self._train[:COMPARED]
        distances = edit_distances(item[0] or "", pool)
        order = np.argsort(distances, kind="stable")[:n]
        return Neighbours("number of edits", order.tolist(), distances[order].astype(float).tolist())

    def files(self, items: Strings, stem: str) -> list[File]:
        """Return the finished strings, one a line."""
        text = "".join(f"{each}\n" for each in items if each is not None)
        return [File(f"{stem}.txt", "text/plain; charset=utf-8", text.encode)]

    def _standard(self, text: str) -> str | None:
        return None if self.problem else self.structure.standard(text)

    def _drawn(self, text: str) -> Markup:
        drawing = None if self._standard(text) is None else self.structure.draw(text)
        return Markup('<div class="drawn">{}</div>').format(drawing) if drawing is not None else Markup("")

    def _columns(self, items: Strings) -> dict[str, np.ndarray]:
        """Return scores by name, NaN for strings that are invalid or unfinished."""
        if self.problem or not items:
            return {}
        columns = {name: np.asarray(column) for name, column in self.structure.scores(items).items()}
        if self._property is not None and len(columns) > 1:  # for expressions it is the only score
            columns[self._property_name] = self._property(items)
        return columns

    def _scores(self, text: str) -> Markup:
        if self.problem:
            return note(f"Neither drawn nor scored: {self.problem}.")
        if self._standard(text) is None:
            return Markup('<p class="missing">not a valid {}</p>').format(self.noun)
        return facts((name, number(float(column[0]))) for name, column in self._columns([text]).items())


def _written(text: str | None) -> str | Markup:
    return UNFINISHED if text is None else text or EMPTY
