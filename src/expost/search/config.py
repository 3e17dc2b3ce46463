"""The settings of a search, which the command line reads without importing torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from expost.errors import UsageError


@dataclass(frozen=True)
class SearchConfig:
    """How to search. The defaults are the paper's where it gives them (decodes: 25 for expressions, 500 for molecules).

    Attributes:
        rounds: Batches, at least 1. A search can be continued to more rounds than it was started with.
        batch: Points per round, at least 1.
        decodes: Decodes of each point, of which the most frequent valid one is taken, at least 1.
        region: "box", where the paper searches, or "density": where the fitted density has mass.
        quantile: Region "density": share of training codes, those of lowest log q, that are left outside; in [0, 1).
        seed: Seeds everything.
        minimize: Whether lower scores are better; None takes the objective's own direction.
        incumbent: The value to improve on: the best "observed" score, or the best posterior "mean" at the observed
            codes, the steadier one where a code does not determine the score alone. None takes "observed" in the box
            and "mean" in the density's region. (The code of Kusner et al. 2017 takes the optimum of the posterior mean
            over the whole box, a value that the surrogate predicts but no point need have reached.)
        inducing: Inducing points of the surrogate, at least 1.
        steps: Adam's steps for the surrogate's kernel, noise and inducing points, at least 0.
        minibatch: Codes per step, at least 1.
        lr: Adam's learning rate, positive.
        fantasies: Draws of the batch's unknown scores, at least 1.
        candidates: Random candidates per point, at least 2.
        restarts: How many of these are refined, at least 1.
        refinements: Steps of refinement, at least 0.
    """

    rounds: int = 5
    batch: int = 50
    decodes: int = 25
    region: Literal["box", "density"] = "density"
    quantile: float = 0.1
    seed: int = 0
    minimize: bool | None = None
    incumbent: Literal["observed", "mean"] | None = None
    inducing: int = 500
    steps: int = 300
    minibatch: int = 1000
    lr: float = 0.03
    fantasies: int = 16
    candidates: int = 1000
    restarts: int = 5
    refinements: int = 20

    def __post_init__(self) -> None:
        """Check the ranges."""
        from expost.densities.checks import check_choice, check_float, check_int, check_seed

        for name in ("rounds", "batch", "decodes", "inducing", "minibatch", "fantasies", "restarts"):
            check_int(name, getattr(self, name), minimum=1)
        check_int("candidates", self.candidates, minimum=2)
        check_int("steps", self.steps, minimum=0)
        check_int("refinements", self.refinements, minimum=0)
        check_float("lr", self.lr, minimum=0, above=True)
        check_float("quantile", self.quantile, minimum=0, below=1)
        check_seed(self.seed)
        check_choice("region", self.region, ("box", "density"))
        if self.incumbent is not None:
            check_choice("incumbent", self.incumbent, ("observed", "mean"))
        if self.minimize not in (None, True, False):
            raise UsageError(
                f"minimize={self.minimize!r} must be True, False, or None for the objective's own direction"
            )
