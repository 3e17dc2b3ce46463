"""The objectives of a search: built-in scores of strings, or the user's own.

Example:
    >>> objective = make_objective("expression", target="1/3+x+sin(x*x)")
    >>> objective.minimize, objective.score(["x"]).values[0] > objective.score(["1/3+x+sin(x*x)"]).values[0]
    (True, True)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal, Self

from PIL import Image

from expost.errors import UsageError
from expost.metrics.expressions import ExpressionScore
from expost.metrics.molecule_properties import PenalizedLogP, Rings, properties
from expost.registry import Part, Registry, construct
from expost.search import drawing
from expost.search.functions import FunctionObjective
from expost.search.objective import Objective
from expost.search.result import Found

_ZINC = PenalizedLogP.zinc250k()


class Expression(Objective):
    """Distance of an arithmetic expression of x to a target, log(1 + MSE) with capped errors; lower is better.

    See `expost.metrics.expressions.ExpressionScore`.

    Args:
        target: The expression to find.
        division: "true", or "python2": integer division of whole numbers, by which the published search scored what it
            found. Training strings are scored by true division in both, as published.

    Raises:
        UsageError: if the target is no expression, or not defined everywhere on [-10, 10].
    """

    name = "expression"
    takes = "expressions of x, 1, 2, 3, + * / ( ) sin( exp("

    def __init__(self, target: str = "1/3+x+sin(x*x)", division: Literal["true", "python2"] = "true") -> None:
        self.function = ExpressionScore(target, division=division)

    def for_training(self) -> Self:
        """Return the objective with true division."""
        return type(self)(self.function.target)

    @property
    def minimize(self) -> bool:
        """Lower is better."""
        return True

    @property
    def label(self) -> str:
        """Name and target."""
        division = "" if self.function.division == "true" else f" division={self.function.division}"
        return f"expression target={self.function.target}{division}"

    def picture(self, found: Sequence[Found]) -> Image.Image:
        """Plot the best three over the target."""
        return drawing.curves(self.function, found[:3])

    def _values(self, strings: list[str]) -> Sequence[object]:
        return self.function(strings).tolist()


class Molecules(Objective):
    """A score of molecules, given as SMILES; higher is better."""

    takes = "molecules, as SMILES"

    @property
    def minimize(self) -> bool:
        """Higher is better."""
        return False

    def picture(self, found: Sequence[Found]) -> Image.Image:
        """Draw the molecules."""
        return drawing.molecules(found) or drawing.text(found)


class PenalizedLogPObjective(Molecules):
    """Penalized logP, each term normalized; see `expost.metrics.molecule_properties.PenalizedLogP`.

    Default: the statistics of ZINC 250k, as in `evaluate`, so that scores of different searches, models and data sets
    are on one scale. To normalize by another training set: `make_objective("plogp",
    **asdict(PenalizedLogP.fit(training)))`.

    Args:
        logp_mean: Mean of logP.
        logp_std: Its standard deviation.
        sa_mean: Mean of the negative synthetic accessibility.
        sa_std: Its standard deviation.
        ring_mean: Mean of the negative ring penalty.
        ring_std: Its standard deviation.
        rings: "smallest", or "basis" as in the published code.

    Raises:
        UsageError: for a number that is not finite, a standard deviation that is not positive, or a missing RDKit.

    Example:
        >>> [round(value, 3) for value in make_objective("plogp").score(["CCO", "C1CCCCCCC1"]).values]
        [-0.258, -3.897]
    """

    name = "plogp"

    def __init__(
        self,
        logp_mean: float = _ZINC.logp_mean,
        logp_std: float = _ZINC.logp_std,
        sa_mean: float = _ZINC.sa_mean,
        sa_std: float = _ZINC.sa_std,
        ring_mean: float = _ZINC.ring_mean,
        ring_std: float = _ZINC.ring_std,
        rings: Rings = _ZINC.rings,
    ) -> None:
        self.function = PenalizedLogP(logp_mean, logp_std, sa_mean, sa_std, ring_mean, ring_std, rings)
        self.function(["C"])  # report a missing package now, not for every molecule

    @property
    def label(self) -> str:
        """Name and statistics."""
        return "plogp " + " ".join(f"{name}={value}" for name, value in asdict(self.function).items())

    def _values(self, strings: list[str]) -> Sequence[object]:
        return self.function(strings).tolist()


class DrugLikeness(Molecules):
    """QED, in [0, 1] (Bickerton et al. 2012).

    Raises:
        UsageError: if RDKit is not installed.
    """

    name = "qed"

    def __init__(self) -> None:
        properties(["C"], ["qed"])

    @property
    def label(self) -> str:
        """The name."""
        return "qed"

    def _values(self, strings: list[str]) -> Sequence[object]:
        return properties(strings, ["qed"])["qed"].tolist()


OBJECTIVES: Registry[type[Objective]] = Registry(
    "objective", {kind.name: kind for kind in (Expression, PenalizedLogPObjective, DrugLikeness)}
)


def make_objective(spec: str, **options: Any) -> Objective:
    """Make an objective.

    Args:
        spec: Name in `OBJECTIVES`, or `module:function`, the user's own function; see `FunctionObjective`.
        options: Its keyword arguments.

    Raises:
        UsageError: if there is no such objective, module or function, or an option is unknown or out of range.

    Example:
        >>> [round(value, 4) for value in make_objective("qed").score(["CCO", "c1ccccc1"]).values]
        [0.4068, 0.4426]
        >>> make_objective("expression", target="x+")
        Traceback (most recent call last):
        ...
        expost.errors.UsageError: target 'x+' is no expression of x, 1, 2, 3, + * / ( ) sin( exp(; correct it
    """
    if ":" not in spec:
        return construct(OBJECTIVES, Part(spec, options))
    unknown = [name for name in options if name != "minimize"]
    if unknown:
        raise UsageError(f"objective '{spec}' has no option '{unknown[0]}'; its options: minimize")
    return FunctionObjective(spec, **options)
