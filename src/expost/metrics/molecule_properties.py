"""Properties of molecules: logP, QED, synthetic accessibility, rings, weight, and penalized logP."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from expost.errors import DataError, UsageError
from expost.metrics.molecules import parse_molecule, quiet_rdkit
from expost.registry import Registry

Array = NDArray[np.float64]
Rings = Literal["smallest", "basis"]


def logp(molecule: Any) -> float:
    """Return the octanol-water partition coefficient log10 P by atom contributions (Wildman & Crippen 1999)."""
    from rdkit.Chem import rdMolDescriptors

    return float(rdMolDescriptors.CalcCrippenDescriptors(molecule)[0])


def qed(molecule: Any) -> float:
    """Return the quantitative estimate of drug-likeness, in [0, 1] (Bickerton et al. 2012, average weights)."""
    from rdkit.Chem import QED

    function: Any = QED.qed  # RDKit's stubs leave it untyped
    return float(function(molecule))


def sa_score(molecule: Any) -> float:
    """Return the synthetic accessibility score, from 1 (easy) to 10 (Ertl & Schuffenhauer 2009), by RDKit's Contrib.

    Raises:
        UsageError: if this RDKit was installed without its Contrib folder.
    """
    return float(_sascorer().calculateScore(molecule))


def weight(molecule: Any) -> float:
    """Return the average molecular weight, in g/mol."""
    from rdkit.Chem import GetPeriodicTable

    table = GetPeriodicTable()
    hydrogens = sum(atom.GetTotalNumHs() for atom in molecule.GetAtoms())
    return float(sum(atom.GetMass() for atom in molecule.GetAtoms()) + hydrogens * table.GetAtomicWeight(1))


def largest_ring(molecule: Any, rings: Rings = "smallest") -> int:
    """Return the number of atoms in the largest ring, 0 without rings.

    The rings of a fused system are a matter of convention:

    - "smallest": a smallest set of smallest rings, RDKit's. The largest size does not depend on the set chosen, nor on
      the order of the atoms.
    - "basis": the cycles that `networkx.cycle_basis` finds, as in the code of Kusner et al. 2017 and most after them.
      They depend on how the SMILES is written, and a bridged system may get a ring of 8 where all are of 6
      (adamantane). In ZINC 250k one molecule in 200 differs.

    Raises:
        UsageError: for another name of a convention.

    Example:
        >>> adamantane = parse_molecule("C1C2CC3CC1CC(C2)C3")
        >>> largest_ring(adamantane), largest_ring(adamantane, "basis")
        (6, 8)
    """
    if rings == "smallest":
        return max((len(ring) for ring in molecule.GetRingInfo().AtomRings()), default=0)
    if rings != "basis":
        raise UsageError(f"rings='{rings}'; choose 'smallest' or 'basis'")
    import networkx

    graph = networkx.Graph()
    graph.add_nodes_from(range(molecule.GetNumAtoms()))
    # in the order of the adjacency matrix, which the published code hands over: the cycles found depend on it
    pairs = (sorted((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx())) for bond in molecule.GetBonds())
    graph.add_edges_from(sorted(map(tuple, pairs)))
    return max(map(len, networkx.cycle_basis(graph)), default=0)


def ring_penalty(molecule: Any, rings: Rings = "smallest") -> int:
    """Return max(0, largest ring - 6): how far the largest ring is beyond six atoms.

    Example:
        >>> ring_penalty(parse_molecule("C1CCCCCCC1")), ring_penalty(parse_molecule("c1ccccc1"))
        (2, 0)
    """
    return max(0, largest_ring(molecule, rings) - 6)


PROPERTIES: Registry[Callable[[Any], float]] = Registry(
    "property", {"logp": logp, "qed": qed, "sa": sa_score, "ring-penalty": ring_penalty, "weight": weight}
)
"""Properties of one RDKit molecule, by name."""


def properties(
    molecules: Sequence[object], names: Sequence[str] = ("logp", "qed", "sa", "ring-penalty"), workers: int = 1
) -> dict[str, Array]:
    """Return properties of many molecules.

    QED takes two thirds of the time: leave it out where it is not needed.

    Args:
        molecules: SMILES or RDKit molecules, N of them; with more than one worker SMILES only.
        names: Which, of `PROPERTIES`.
        workers: Processes. More than one pays above some thousands of molecules.

    Returns:
        By name, float64, shape (N,); NaN for invalid molecules.

    Raises:
        UsageError: for an unknown property, `workers` below 1, one string instead of a list, or a missing RDKit.

    Example:
        >>> properties(["c1ccccc1", "c1cccc"], ["logp", "weight"])
        {'logp': array([1.6866,    nan]), 'weight': array([78.114,    nan])}
    """
    if isinstance(molecules, str):
        raise UsageError(f"one string, '{molecules[:40]}', instead of a list of SMILES; put it into a list")
    if workers < 1:
        raise UsageError(f"workers={workers}; give at least 1")
    for name in names:
        PROPERTIES[name]
    rows = _spread(_measure, molecules, tuple(names), workers)
    return {name: rows[:, index] for index, name in enumerate(names)}


@dataclass(frozen=True)
class PenalizedLogP:
    r"""Penalized logP: the sum of three terms, each normalized over a training set; higher is better.

        score(m) = (logP(m) - mu_1) / sigma_1 + (-SA(m) - mu_2) / sigma_2 + (-ring(m) - mu_3) / sigma_3,

    ring(m) = max(0, largest ring - 6) (Kusner et al. 2017, section 4.2; Ghosh et al. 2020, section 6). The sigmas are
    population standard deviations; one that is zero is replaced by 1, as for a training set without a large ring.
    The plain sum logP - SA - ring, which some papers report under the same name, is on another scale.

    Attributes:
        logp_mean: mu_1.
        logp_std: sigma_1.
        sa_mean: mu_2, the mean of -SA: negative.
        sa_std: sigma_2.
        ring_mean: mu_3, the mean of -ring: not positive.
        ring_std: sigma_3.
        rings: What counts as a ring, see `largest_ring`.

    Raises:
        UsageError: on construction, for a number that is not finite or a standard deviation that is not positive.
    """

    logp_mean: float
    logp_std: float
    sa_mean: float
    sa_std: float
    ring_mean: float
    ring_std: float
    rings: Rings = "smallest"

    def __post_init__(self) -> None:
        numbers = (self.logp_mean, self.logp_std, self.sa_mean, self.sa_std, self.ring_mean, self.ring_std)
        if not np.isfinite(numbers).all():
            raise UsageError(f"the statistics {numbers} are not all finite; fit them to a training set")
        if min(numbers[1::2]) <= 0:
            raise UsageError(f"standard deviations {numbers[1::2]}; give positive ones")
        if self.rings not in ("smallest", "basis"):
            raise UsageError(f"rings='{self.rings}'; choose 'smallest' or 'basis'")

    @classmethod
    def fit(cls, training: Sequence[object], rings: Rings = "smallest", workers: int = 1) -> PenalizedLogP:
        """Take means and standard deviations from a training set; invalid molecules are left out.

        Args:
            training: SMILES or RDKit molecules.
            rings: What counts as a ring, see `largest_ring`.
            workers: Processes, see `properties`.

        Raises:
            DataError: if fewer than 2 molecules are valid.
        """
        terms = _spread(_terms, training, rings, workers)
        terms = terms[~np.isnan(terms).any(axis=1)]
        if len(terms) < 2:
            raise DataError(f"{len(terms)} of {len(training)} molecules are valid; give at least 2")
        mean, std = terms.mean(axis=0), terms.std(axis=0)
        std[std < 1e-12] = 1.0
        return cls(
            logp_mean=float(mean[0]),
            logp_std=float(std[0]),
            sa_mean=float(mean[1]),
            sa_std=float(std[1]),
            ring_mean=float(mean[2]),
            ring_std=float(std[2]),
            rings=rings,
        )

    @classmethod
    def zinc250k(cls) -> PenalizedLogP:
        """Return the score with the statistics of all 249,456 molecules of ZINC 250k, as later papers' code has them.

        They count rings by "basis". The code of You et al. 2018 ("Graph convolutional policy network") has them.
        """
        return cls(
            logp_mean=2.4570953396190123,
            logp_std=1.434324401111988,
            sa_mean=-3.0525811293166134,
            sa_std=0.8335207024513095,
            ring_mean=-0.0485696876403053,
            ring_std=0.2860212110245455,
            rings="basis",
        )

    def __call__(self, molecules: Sequence[object], workers: int = 1) -> Array:
        """Return the score of each molecule, float64, shape (N,); NaN for invalid ones."""
        terms = _spread(_terms, molecules, self.rings, workers)
        mean = np.array([self.logp_mean, self.sa_mean, self.ring_mean])
        std = np.array([self.logp_std, self.sa_std, self.ring_std])
        return ((terms - mean) / std).sum(axis=1)


@lru_cache(maxsize=1)
def _sascorer() -> Any:
    """RDKit's own module, from the folder where this RDKit keeps it: it is in the wheel, but not importable by name.

    It reads its table of fragments with pickle, from RDKit's installation, as RDKit's code does everywhere.
    """
    from rdkit.Chem import RDConfig

    path = Path(RDConfig.RDContribDir) / "SA_Score" / "sascorer.py"
    spec = importlib.util.spec_from_file_location("expost_rdkit_sascorer", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UsageError(f"this RDKit has no {path}; install RDKit with: pip install 'expost[molecules]'")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _measure(molecules: Sequence[object], names: tuple[str, ...]) -> Array:
    return _table(molecules, [PROPERTIES[name] for name in names])


def _terms(molecules: Sequence[object], rings: Rings) -> Array:
    return _table(molecules, [logp, lambda m: -sa_score(m), lambda m: -float(ring_penalty(m, rings))])


def _table(molecules: Sequence[object], functions: Sequence[Callable[[Any], float]]) -> Array:
    table = np.full((len(molecules), len(functions)), np.nan)
    with quiet_rdkit():
        for row, item in zip(table, molecules, strict=True):
            molecule = parse_molecule(item)
            if molecule is not None:
                row[:] = [_guarded(function, molecule) for function in functions]
    return table


def _guarded(function: Callable[[Any], float], molecule: Any) -> float:
    try:
        return function(molecule)
    except (ValueError, RuntimeError, ZeroDivisionError):  # RDKit refuses some molecules that it has parsed
        return float("nan")


def _spread(function: Callable[..., Array], molecules: Sequence[object], argument: object, workers: int) -> Array:
    """Return `function(molecules, argument)`, the molecules in chunks over `workers` processes."""
    if workers == 1 or len(molecules) < 2:
        return function(molecules, argument)
    from joblib import Parallel, delayed

    size = max(1, min(2000, -(-len(molecules) // workers)))
    chunks = [molecules[start : start + size] for start in range(0, len(molecules), size)]
    return np.concatenate(Parallel(n_jobs=workers)(delayed(function)(chunk, argument) for chunk in chunks))
