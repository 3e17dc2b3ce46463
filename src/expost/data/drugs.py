"""Well-known drugs as SMILES, for tests and for work without a network.

Each was written down with its molecular formula, and the two agree. They are neutral, of one fragment each, without
isotopes, and without stereochemistry: constitutions only, so that stereoisomers such as morphine's are not told apart.
Sulfoxides are written S(=O), nitro groups [N+](=O)[O-], and heteroaromatic rings as one of their tautomers.
"""

from __future__ import annotations

from importlib.resources import files
from typing import NamedTuple


class Drug(NamedTuple):
    """A drug: its name and its constitution.

    Attributes:
        name: International nonproprietary name or common name, lower case, hyphens for spaces.
        smiles: SMILES as RDKit writes it, without stereochemistry.
    """

    name: str
    smiles: str


def _read() -> tuple[tuple[str, str, str], ...]:
    text = files("expost.data").joinpath("drugs.smi").read_text(encoding="ascii")
    return tuple((smiles, name, formula) for smiles, name, formula in map(str.split, text.splitlines()))


_ROWS = _read()

DRUGS: tuple[Drug, ...] = tuple(Drug(name, smiles) for smiles, name, _ in _ROWS)
"""The drugs, by name in alphabetical order: `dict(DRUGS)["aspirin"]` is 'CC(=O)Oc1ccccc1C(=O)O'."""

FORMULAS: dict[str, str] = {name: formula for _, name, formula in _ROWS}
"""Their molecular formulas by name, in Hill's order: `FORMULAS["aspirin"]` is 'C9H8O4'."""
