"""Strings, encoded by a codec as rows of symbols."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from expost.config import DataConfig
from expost.errors import DataError, Symptom, UsageError
from expost.examples import pictures
from expost.examples.domains import DOMAINS
from expost.examples.domains import Strings as Texts
from expost.examples.figure_files import PICTURE_SUFFIXES
from expost.examples.figures import PLAIN, Look, Sheet, lines_of_text
from expost.examples.kind import Examples, Labels, Pair, PanelWish, Wish, counted, ends_of
from expost.examples.outputs import LINE_SUFFIXES, TEXT_SUFFIXES, write_strings, write_table
from expost.generators.generator import Generator
from expost.generators.strings import StringGenerator
from expost.grammar.codec import CODECS
from expost.registry import construct
from expost.types import Data
from expost.utils.progress import say

#: Strings in a part of a panel; steps of its paths; size of its text, and its width, in pixels.
LINES, STEPS, TEXT_SIZE, COLUMN = 16, 5, 14, 560
#: With a smaller share of different strings among samples, the model makes the same few over and over.
ALIKE = 0.3


@final
class Strings(Examples):
    """Written one a line; what can be drawn, also as a picture."""

    name: ClassVar[str] = "strings"
    like: ClassVar[str] = "strings"
    symbols: ClassVar[bool] = True
    usual: ClassVar[str] = "samples.txt"
    pairs = TEXT_SUFFIXES
    paths = LINE_SUFFIXES

    def __init__(self, data: DataConfig) -> None:
        super().__init__(data)
        self.domain = DOMAINS[data.domain or "text"]  # of a run without a domain nothing is known but that
        self.samples = (*TEXT_SUFFIXES, *(PICTURE_SUFFIXES if self.domain.picture else ()))

    @staticmethod
    def holds(shape: Sequence[int], coded: bool, sound: bool) -> bool:
        """Return whether a codec made them."""
        return coded

    @classmethod
    def slots(cls, data: Data) -> dict[str, Any]:
        """Return the groups of symbols among which the loss normalizes."""
        assert data.codec is not None
        return {"reconstruction.groups": data.codec.groups().tolist()}

    @classmethod
    def values(cls, data: Data, x: Tensor, name: str) -> Tensor | None:
        """Return a property of the strings that the domain has properties of."""
        assert data.codec is not None
        properties = DOMAINS[data.domain].properties
        return None if properties is None else torch.from_numpy(properties(data.codec.decode(x), name))

    def string_generator(self, generator: Generator) -> StringGenerator:
        """Return the generator with the codec of the data."""
        assert self.data.codec is not None
        return StringGenerator(generator, construct(CODECS, self.data.codec))

    def draw(self, generator: Generator, wish: Wish) -> list[str | None]:
        """Return strings; None where a derivation did not end."""
        return self.string_generator(generator).sample(
            wish.count, wish.density, wish.seed, wish.temperature, wish.label, wish.code_temperature
        )

    def write(self, drawn: list[str | None], path: Path, look: Look = PLAIN, labels: Labels = None) -> None:
        """Write a line a string, a table, or a picture of those that can be drawn.

        Raises:
            DataError: if a picture is asked for and none of them can be drawn.
        """
        remark_on_alike(drawn, "samples")
        if path.suffix.lower() in PICTURE_SUFFIXES:
            self._draw(drawn, path, look)
            return
        kept = [index for index, string in enumerate(drawn) if string is not None]
        strings = [drawn[index] or "" for index in kept]
        lost = f"{len(drawn) - len(kept)} of {len(drawn)} derivations did not end within the model's length"
        if not any(strings):
            reason = lost if not strings else f"all {len(strings)} strings are empty"
            say(f"warning: {path.name} holds no string: {reason}; train longer, or on more strings")
        elif len(kept) < len(drawn):
            say(f"{lost}, and are left out")
        if path.suffix.lower() == ".csv":
            kept_labels = None if labels is None else [labels[index] for index in kept]
            write_table([[string] for string in strings], [self.domain.column], path, kept_labels)
        else:
            write_strings(strings, path)
        self.domain.remark(drawn)

    def _draw(self, drawn: list[str | None], path: Path, look: Look) -> None:
        """Write a picture; molecules have a size of their own."""
        assert self.domain.picture is not None
        if look.scale is not None or look.rows or look.columns:
            raise UsageError("scale and labels of rows and columns are of images; leave them out for molecules")
        found = self.domain.picture(drawn, look.across)
        if found is None:
            raise DataError(f"none of the {len(drawn)} samples can be drawn; train longer, or on more strings")
        picture, count = found
        add = count < len(drawn) and look.title and not look.own
        title = f"{look.title}: {count} that can be drawn" if add else look.title
        pictures.save_picture(pictures.labelled(picture, Look(title)), path)

    def write_pairs(
        self, generator: Generator, x: Tensor, path: Path, look: Look = PLAIN, labels: Labels = None
    ) -> None:
        """Write originals and reconstructions with a tab between them, or as a table."""
        strings = self.string_generator(generator)
        both = list(zip(strings.codec.decode(x), strings.reconstruct(x), strict=True))
        if path.suffix.lower() == ".csv":
            rows = [[original or "", back or ""] for original, back in both]
            write_table(rows, [self.domain.column, f"{self.domain.column}, reconstructed"], path, labels)
        else:
            write_strings([f"{original}\t{back or ''}" for original, back in both], path)

    def write_paths(
        self, generator: Generator, ends: Pair, t: Tensor, method: str, path: Path, look: Look = PLAIN
    ) -> None:
        """Write a line a pair, with tabs between the steps."""
        write_strings(
            ["\t".join(string or "" for string in row) for row in self._paths(generator, ends, t, method)], path
        )

    def _paths(self, generator: Generator, ends: Pair, t: Tensor, method: str) -> list[list[str | None]]:
        strings = self.string_generator(generator)
        decoded = strings.decode(generator.path(*ends, t, method).flatten(0, 1))
        return [decoded[start : start + len(t)] for start in range(0, len(decoded), len(t))]

    def parts(self, generator: Generator, data: Data, wish: PanelWish) -> list[tuple[str, Sheet]]:
        """Return columns of text; a derivation that did not end says so."""
        if wish.look.scale is not None or wish.look.across is not None:
            raise UsageError("scale and columns are of images; leave them out for strings")
        strings = self.string_generator(generator)
        x = data.test.across(LINES).x
        both = list(zip(strings.codec.decode(x), strings.reconstruct(x), strict=True))
        same = sum(original == back for original, back in both)
        title = f"{counted(len(both), 'test string')}, {same} reconstructed exactly"
        parts = [(title, _text([list(pair) for pair in both], ["test string", "reconstruction"], 2))]
        a, b = ends_of(data.test.x, LINES // STEPS, wish.seed)
        if len(a):
            t = torch.linspace(0, 1, STEPS)
            rows = [[step] for path in self._paths(generator, (a, b), t, "linear") for step in [*path, ""]][:-1]
            parts.append((f"{counted(len(a), 'path')} between two codes, in {STEPS} steps", _text(rows, [], 1)))
        for name in wish.densities:
            drawn = strings.sample(LINES, name, wish.seed)
            remark_on_alike(drawn, f"samples of {name}")
            parts.append((f"{counted(len(drawn), 'sample')}: {name}", _text([[each] for each in drawn], [], 1)))
        for name in wish.by_label:
            labels = generator.labelled(name).labels[:LINES]
            rows = [[str(label), strings.sample(1, name, wish.seed, label=label)[0]] for label in labels]
            parts.append((f"a sample of each label: {name} by label", _text(rows, ["label", "sample"], 2)))
        return parts


def _text(rows: Sequence[Sequence[str | None]], heads: Sequence[str], columns: int) -> Sheet:
    cells = [["(no end)" if cell is None else cell for cell in row] for row in rows]
    return lines_of_text(cells, heads, TEXT_SIZE, COLUMN // columns)


def remark_on_alike(strings: Texts, what: str) -> None:
    """Warn if few strings are different, valid or not; None, an unfinished derivation, does not count."""
    different = len(set(strings) - {None})
    if different < ALIKE * len(strings):
        say(
            f"{what}: {different} different strings among {len(strings)}; train longer, or on more strings "
            f"(see {Symptom.ALIKE.address})"
        )
