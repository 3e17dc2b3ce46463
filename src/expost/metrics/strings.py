"""Scores of strings that hold for any language: reconstruction accuracy, validity three ways, uniqueness, novelty.

What is valid, and which strings mean the same, is a domain's business. It comes as a function `canonical` that brings a
string to one standard form and returns None if it is invalid: `expost.metrics.molecules.canonical_smiles`,
`expost.metrics.expressions.canonical_expression`, or a person's own. All fractions lie in [0, 1].
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from expost.errors import DataError, UsageError
from expost.utils.progress import progress

Canonical = Callable[[str], str | None]
"""Brings a string to standard form; None for an invalid one."""


@dataclass(frozen=True)
class Validity:
    """How many of N codes decode to a valid string, by three protocols that must not be compared with each other.

    Attributes:
        greedy: Fraction of codes whose most likely decode is valid.
        sampled: Fraction of all N k sampled decodes that are valid; its expectation does not depend on k.
        best_of_k: Fraction of codes with at least one valid decode among k samples; it grows with k. This is what
            Kusner et al. 2017 (k = 500 for molecules, 25 for expressions) and after them Ghosh et al. 2020, Table 2,
            call "valid". (The former's code also drops expressions of the character model that fail at the integer
            x = 0, such as '1/x'; here these are valid.)
        n: Number N of codes.
        k: Number of samples a code.
    """

    greedy: float
    sampled: float
    best_of_k: float
    n: int
    k: int


def reconstruction_accuracy(originals: Sequence[str], reconstructions: Sequence[str | None]) -> float:
    """Return the fraction of strings that come back exactly, character by character.

    Args:
        originals: The strings that were encoded.
        reconstructions: What they were decoded to, in the same order; None where decoding gave no string.

    Raises:
        UsageError: if there are not as many reconstructions as originals.
        DataError: if there are none.

    Example:
        >>> reconstruction_accuracy(["CCO", "OCC"], ["CCO", "CCO"])  # the same molecule, but not the same string
        0.5
    """
    if len(originals) != len(reconstructions):
        raise UsageError(f"{len(originals)} originals but {len(reconstructions)} reconstructions; give one for each")
    _some(originals, "strings to compare")
    return sum(a == b for a, b in zip(originals, reconstructions, strict=True)) / len(originals)


def canonicalize(strings: Sequence[str | None], canonical: Canonical) -> list[str | None]:
    """Return the standard form of each string, None for what is invalid or None; equal strings are treated once.

    Example:
        >>> canonicalize(["a", None, "?"], lambda text: text.upper() if text.isalpha() else None)
        ['A', None, None]
    """
    texts = [text for text in dict.fromkeys(strings) if isinstance(text, str)]
    forms = {}
    with progress("bringing strings to standard form", len(texts)) as bar:
        for text in texts:
            forms[text] = canonical(text)
            bar.advance()
    return [None if text is None else forms.get(text) for text in strings]


def validity(greedy: Sequence[str | None], sampled: Sequence[Sequence[str | None]], canonical: Canonical) -> Validity:
    """Return validity of greedy decodes, of sampled ones, and of the best of k samples, side by side.

    Args:
        greedy: The most likely decode of each of N codes; None where decoding gave no string.
        sampled: k rounds of sampled decodes, each with one string for each of the same codes, in the same order.
        canonical: Tells valid from invalid strings.

    Raises:
        UsageError: if a round has another number of strings than `greedy`.
        DataError: if there are no codes or no rounds.

    Example:
        >>> validity(["a", "?"], [["a", "?"], ["?", "b"]], lambda text: text if text.isalpha() else None)
        Validity(greedy=0.5, sampled=0.5, best_of_k=1.0, n=2, k=2)
    """
    n, k = len(greedy), len(sampled)
    _some(greedy, "decoded strings")
    chosen = most_frequent_valid(sampled, canonical, n)
    good = sum(form is not None for round_ in sampled for form in canonicalize(round_, canonical))
    return Validity(
        greedy=_fraction(canonicalize(greedy, canonical)), sampled=good / (n * k), best_of_k=_fraction(chosen), n=n, k=k
    )


def most_frequent_valid(
    sampled: Sequence[Sequence[str | None]], canonical: Canonical, n: int | None = None
) -> list[str | None]:
    """Return, for each code, the standard form that most of its valid samples have; None if none is valid.

    Kusner et al. 2017 count spellings; here different spellings of the same object are counted together. Of equally
    frequent ones the one drawn first is taken, so the result depends on nothing but the samples.

    Args:
        sampled: k rounds of decodes, each with one string for each of N codes.
        canonical: Brings a string to standard form.
        n: The number N that is expected; by default that of the first round.

    Raises:
        UsageError: if the rounds differ in length.
        DataError: if there are no rounds.

    Example:
        >>> lower = lambda text: text.lower() if text.isalpha() else None
        >>> most_frequent_valid([["a", "?"], ["b", "?"], ["A", "?"]], lower)
        ['a', None]
    """
    _some(sampled, "rounds of samples")
    expected = len(sampled[0]) if n is None else n
    for index, round_ in enumerate(sampled):
        if len(round_) != expected:
            raise UsageError(f"round {index} of the samples has {len(round_)} strings, not {expected}; give one a code")
    counts: list[Counter[str]] = [Counter() for _ in range(expected)]
    for round_ in sampled:
        for count, form in zip(counts, canonicalize(round_, canonical), strict=True):
            if form is not None:
                count[form] += 1
    return [max(count, key=count.__getitem__) if count else None for count in counts]


def uniqueness(forms: Sequence[str | None]) -> float:
    """Return how many of the valid strings are distinct, |set(valid)| / |valid|; 0 if none is valid.

    It falls with the number of strings: compare only at equal numbers (MOSES, Polykovskiy et al. 2020, has unique@1000
    and unique@10000).

    Args:
        forms: Standard forms, None for invalid strings: what `canonicalize` returns.

    Raises:
        DataError: if there are no strings.

    Example:
        >>> uniqueness(["CCO", "CCO", "CC", None])
        0.6666666666666666
    """
    _some(forms, "strings")
    valid = [form for form in forms if form is not None]
    return len(set(valid)) / len(valid) if valid else 0.0


def unique_valid(forms: Sequence[str | None]) -> float:
    """Return how many distinct valid strings there are, in proportion to all strings: validity times uniqueness.

    Neither a model that makes one valid string over and over, nor one that makes a single one, comes far by it.

    Args:
        forms: Standard forms, None for invalid strings: what `canonicalize` returns.

    Raises:
        DataError: if there are no strings.

    Example:
        >>> unique_valid(["CCO", "CCO", "CC", None])
        0.5
    """
    _some(forms, "strings")
    return len({form for form in forms if form is not None}) / len(forms)


def novelty(forms: Sequence[str | None], training: Collection[str | None]) -> float:
    """Return how many of the distinct valid strings are not in the training set; 0 if none is valid.

    Args:
        forms: Standard forms of the generated strings, None for invalid ones.
        training: Standard forms of the training set, by the same `canonical`; Nones are ignored.

    Raises:
        DataError: if there are no generated strings.

    Example:
        >>> novelty(["CCO", "CCO", "CC", None], ["CC"])
        0.5
    """
    _some(forms, "strings")
    valid = {form for form in forms if form is not None}
    return len(valid.difference(training)) / len(valid) if valid else 0.0


def _fraction(forms: Sequence[str | None]) -> float:
    return sum(form is not None for form in forms) / len(forms)


def _some(items: Collection[object], what: str) -> None:
    if len(items) == 0:
        raise DataError(f"no {what}; give at least one")
