"""Molecules: validity, canonical form, and the diversity of a set of them, with RDKit.

Everywhere a molecule may be given as a SMILES string, as an RDKit molecule, or as None; what does not parse counts as
invalid and raises nothing. RDKit's messages are silenced while it runs, and only then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from expost.errors import DataError, UsageError
from expost.utils.extras import require

MAX_LENGTH = 500
"""SMILES with more characters count as invalid. RDKit's time is cubic in a chain's length in places (0.3 s at 500
characters, 2 s at 1,000), and its recursion ends the process at some tens of thousands; ZINC 250k has at most 120."""


@contextmanager
def quiet_rdkit() -> Iterator[None]:
    """Silence RDKit's messages inside the block; what was logged before is logged again after it.

    Raises:
        UsageError: if RDKit is not installed.
    """
    rdBase = require("rdkit.rdBase", "molecules", "molecules need RDKit")
    with rdBase.BlockLogs():
        yield


def parse_molecule(smiles: object) -> Any | None:
    """Return an RDKit molecule, None if `smiles` is not the SMILES of one.

    Stricter than RDKit in what is no molecule: an empty string, white space inside (after it, RDKit reads a name or an
    extension), characters outside printable ASCII, more than `MAX_LENGTH` characters. An RDKit molecule is returned as
    it is.

    Example:
        >>> parse_molecule("c1ccccc1").GetNumAtoms(), parse_molecule("c1ccccc"), parse_molecule("CC ethane")
        (6, None, None)
    """
    with quiet_rdkit():
        from rdkit import Chem

        if isinstance(smiles, Chem.Mol):
            return smiles
        if not isinstance(smiles, str) or not 0 < len(smiles) <= MAX_LENGTH:
            return None
        if not (smiles.isascii() and smiles.isprintable()) or " " in smiles:
            return None
        molecule = Chem.MolFromSmiles(smiles)
        return molecule if molecule is not None and molecule.GetNumAtoms() > 0 else None


def canonical_smiles(smiles: object) -> str | None:
    """Return RDKit's canonical isomeric SMILES, None for an invalid molecule: the `Canonical` of molecules.

    Example:
        >>> canonical_smiles("OCC"), canonical_smiles("C(C"), canonical_smiles(None)
        ('CCO', None, None)
    """
    molecule = parse_molecule(smiles)
    if molecule is None:
        return None
    with quiet_rdkit():
        from rdkit import Chem

        return Chem.MolToSmiles(molecule)


def parse_molecules(molecules: Sequence[object]) -> list[Any]:
    """Return the valid ones as RDKit molecules, in order.

    Raises:
        UsageError: for one string instead of a sequence of them.
    """
    if isinstance(molecules, str):
        raise UsageError(f"one string, '{molecules[:40]}', instead of a list of SMILES; put it into a list")
    parsed = map(parse_molecule, molecules)
    return [molecule for molecule in parsed if molecule is not None]


def fingerprints(molecules: Sequence[object], bits: int = 1024) -> NDArray[np.uint8]:
    """Return Morgan fingerprints of radius 2 of the valid molecules, 0 or 1, shape (N, bits)."""
    if bits < 1:
        raise UsageError(f"bits={bits}; give at least 1")
    parsed = parse_molecules(molecules)
    with quiet_rdkit():
        from rdkit.Chem import rdFingerprintGenerator

        generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=bits)
        rows = [generator.GetFingerprintAsNumPy(molecule) for molecule in parsed]
    return np.stack(rows).astype(np.uint8) if rows else np.zeros((0, bits), dtype=np.uint8)


def internal_diversity(molecules: Sequence[object], power: int = 1, bits: int = 1024) -> float:
    r"""Return how unlike each other the valid molecules of a set G are, in [0, 1].

        IntDiv_p(G) = 1 - (1/|G|^2 sum_{a, b in G} T(a, b)^p)^{1/p},

    with T Tanimoto's similarity of Morgan fingerprints (radius 2); pairs of a molecule with itself are in the sum
    (Polykovskiy et al. 2020, "Molecular Sets (MOSES)", section 2; its code takes the root per molecule, which for p = 1
    makes no difference). Repeated molecules count as often as they occur. Time is quadratic: half a minute for 30,000.

    Args:
        molecules: SMILES or RDKit molecules.
        power: p, 1 or more.
        bits: Length of the fingerprints; MOSES has 1024.

    Raises:
        UsageError: for a power below 1 or bits below 1.
        DataError: if no molecule is valid.

    Example:
        >>> internal_diversity(["CCO", "CCO"]), internal_diversity(["CCO", "c1ccccc1"])
        (0.0, 0.5)
    """
    if power < 1:
        raise UsageError(f"power={power}; give 1 or more")
    return 1 - float(mean_similarities(molecules, power, bits).mean()) ** (1 / power)


def mean_similarities(molecules: Sequence[object], power: int = 1, bits: int = 1024) -> NDArray[np.float64]:
    """Return the mean of T(a, b)^p over b, for every valid molecule a: what `internal_diversity` averages, shape (N,).

    Raises:
        DataError: if no molecule is valid.
    """
    x = fingerprints(molecules, bits).astype(np.float32)
    if len(x) == 0:
        raise DataError("no valid molecule; internal diversity needs at least one")
    sizes = x.sum(axis=1, dtype=np.float64)
    means, rows = np.empty(len(x)), max(1, 2**22 // len(x))
    for start in range(0, len(x), rows):
        common = (x[start : start + rows] @ x.T).astype(np.float64)  # counts: exact in float32
        union = sizes[start : start + rows, None] + sizes - common
        similar = np.divide(common, union, out=np.ones_like(common), where=union > 0) ** power
        means[start : start + rows] = similar.mean(axis=1)
    return means


def scaffolds(molecules: Sequence[object]) -> Counter[str]:
    """Return the Bemis-Murcko scaffolds of the valid molecules, as canonical SMILES, and how often each occurs.

    A scaffold consists of the rings and the chains between them (Bemis & Murcko 1996); acyclic molecules have none.

    Example:
        >>> scaffolds(["Cc1ccccc1", "Oc1ccccc1", "CCO"])
        Counter({'c1ccccc1': 2})
    """
    return Counter(each for each in scaffold_of_each(molecules) if each is not None)


def scaffold_of_each(molecules: Sequence[object]) -> list[str | None]:
    """Return the Bemis-Murcko scaffold of each valid molecule, None for an acyclic one."""
    found: list[str | None] = []
    parsed = parse_molecules(molecules)
    with quiet_rdkit():
        from rdkit import Chem
        from rdkit.Chem.Scaffolds import MurckoScaffold

        for molecule in parsed:
            scaffold = _attempt(MurckoScaffold.GetScaffoldForMol, molecule)
            cyclic = scaffold is not None and scaffold.GetNumAtoms() and scaffold.GetRingInfo().NumRings()
            found.append(Chem.MolToSmiles(scaffold) if cyclic else None)
    return found


def scaffold_diversity(molecules: Sequence[object]) -> float:
    """Return the number of distinct Bemis-Murcko scaffolds over the number of valid molecules, in [0, 1].

    Acyclic molecules have no scaffold; they are in the denominator only. Like uniqueness it falls with the size of the
    set: compare only at equal sizes.

    Raises:
        DataError: if no molecule is valid.

    Example:
        >>> scaffold_diversity(["Cc1ccccc1", "Oc1ccccc1", "CC1CCC1", "CCO"])
        0.5
    """
    parsed = parse_molecules(molecules)
    if not parsed:
        raise DataError("no valid molecule; scaffold diversity needs at least one")
    return len(scaffolds(parsed)) / len(parsed)


def _attempt(function: Callable[[Any], Any], molecule: Any) -> Any | None:
    """Return what RDKit's function gives, None where it refuses the molecule."""
    try:
        return function(molecule)
    except (ValueError, RuntimeError):
        return None
