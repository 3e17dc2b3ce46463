"""Notations of strings, by domain: how they are recognized, and their published grammar and length."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from expost.data.expressions import count_productions
from expost.registry import Registry

Domain: TypeAlias = Literal["molecules", "expressions", "text"]

#: How many strings `guess_domain` looks at, and the share of them that must agree.
_SAMPLE, _AGREE = 500, 0.9

_SMILES = re.compile(
    r"(?=[\[*A-Za-z])"  # an atom comes first
    r"(?:\[\d*(?:[A-Z][a-z]?|[a-z][a-z]?|\*)(?:@@?|@[A-Z]{2}\d+)?(?:H\d*)?(?:\++\d*|-+\d*)?(?::\d+)?\]|Cl|Br|[BCNOPSFIbcnops*]|->|<-|[-=#$:/\\~.()]|%\d\d|%\(\d+\)|\d)+"
)


@dataclass(frozen=True)
class Notation:
    """How the strings of a domain are written.

    Attributes:
        domain: The domain.
        matches: Whether a string is in this notation; None for "text", which takes any string.
        spaced: Whether spaces may stand between tokens; they carry no meaning and are removed.
        grammar: The grammar's name in `expost.grammar.grammars`; None if there is none.
        published: The name of the published one there, where it is another.
        length: The published number of productions of a derivation (Kusner et al. 2017); None if there is none.
    """

    domain: Domain
    matches: Callable[[str], bool] | None = None
    spaced: bool = False
    grammar: str | None = None
    length: int | None = None
    published: str | None = None


def looks_like_smiles(string: str) -> bool:
    """Tell whether a string has only tokens of SMILES, an atom first, and as many parentheses opened as closed."""
    return _SMILES.fullmatch(string) is not None and string.count("(") == string.count(")")


def _is_expression(string: str) -> bool:
    return count_productions("".join(string.split())) is not None


#: The notations, tried in this order.
NOTATIONS: Registry[Notation] = Registry(
    "domain",
    {
        each.domain: each
        for each in (
            Notation("expressions", _is_expression, spaced=True, grammar="expressions", length=15),
            Notation("molecules", looks_like_smiles, grammar="smiles", length=277, published="smiles-published"),
            Notation("text"),
        )
    },
)


def guess_domain(strings: Sequence[str]) -> Domain:
    """Guess the domain of strings from a sample: 500 of them, evenly spread, nine tenths of which must agree.

    Expressions are what the grammar of `expost.data.expressions` derives, spaces between tokens allowed. Molecules look
    like SMILES: only its tokens, an atom first, parentheses in pairs; whether chemistry allows them is not asked.

    Returns:
        "expressions", "molecules", or else "text".

    Example:
        >>> [guess_domain([text]) for text in ("sin(x) + 1", "CC(=O)Oc1ccccc1C(=O)O", "Call me Ishmael.")]
        ['expressions', 'molecules', 'text']
    """
    sample = strings[:: max(1, len(strings) // _SAMPLE)]
    for notation in NOTATIONS.values():
        if sample and notation.matches and sum(map(notation.matches, sample)) >= _AGREE * len(sample):
            return notation.domain
    return "text"
