"""Scores of strings in any language: reconstruction accuracy, uniqueness, novelty.

The domain decides which strings are valid, and which mean the same, by a function `canonical`: it returns the standard
form of a string, None for an invalid one. Examples are `expost.metrics.molecules.canonical_smiles` and
`expost.metrics.expressions.canonical_expression`. All fractions lie in [0, 1].
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from expost.errors import DataError, UsageError
from expost.metrics.direction import HIGHER, LOWER, Direction
from expost.metrics.influence import Influence
from expost.utils.progress import progress

Canonical = Callable[[str], str | None]
"""Maps a string to its standard form, an invalid one to None."""

_GAMEABLE_HIGHER, _GAMEABLE_LOWER = replace(HIGHER, gameable=True), replace(LOWER, gameable=True)
#: The direction of each score. A model that repeats one string, or makes hardly any, wins by the gameable ones.
STRING_SCORES: dict[str, Direction] = {
    "accuracy": HIGHER,
    "validity-greedy": _GAMEABLE_HIGHER,
    "validity-sampled": _GAMEABLE_HIGHER,
    "validity-best-of-k": _GAMEABLE_HIGHER,
    "truncated": _GAMEABLE_LOWER,
    "unique-valid": HIGHER,
    "uniqueness": _GAMEABLE_HIGHER,
    "novelty": _GAMEABLE_HIGHER,
}


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

    A model that repeats one valid string, or makes only one, scores near 0.

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


def singletons(forms: Sequence[str | None]) -> Tensor:
    """Return how many different strings are lost with each: 1 if it occurs once, else 0, and 0 for None; float64.

    Example:
        >>> singletons(["CCO", "CCO", "CC", None])
        tensor([0., 0., 1., 0.], dtype=torch.float64)
    """
    counts = Counter(forms)
    return torch.tensor([form is not None and counts[form] == 1 for form in forms], dtype=torch.float64)


def string_influences(forms: Sequence[str | None], training: Collection[str | None]) -> dict[str, Influence]:
    """Return how much each sample moves validity, `unique_valid`, `uniqueness` and `novelty`, as the jackknife has it.

    Args:
        forms: Standard forms of the generated strings, None for invalid ones.
        training: Standard forms of the training set.
    """
    valid = torch.tensor([form is not None for form in forms], dtype=torch.float64)
    alone = singletons(forms)
    known = set(training)
    new = alone * torch.tensor([form not in known for form in forms], dtype=torch.float64)
    different = max(len({form for form in forms if form is not None}), 1)
    share = max(float(valid.mean()), 1 / len(forms))
    return {
        "validity-greedy": Influence(valid),
        "unique-valid": Influence(alone),
        "uniqueness": Influence((alone - uniqueness(forms) * valid) / share),
        "novelty": Influence((new - novelty(forms, known) * alone) * (len(forms) / different)),
    }


def _some(items: Collection[object], what: str) -> None:
    if len(items) == 0:
        raise DataError(f"no {what}; give at least one")
