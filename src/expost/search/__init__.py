"""Search in latent space: Bayesian optimization of decoded strings (Kusner et al. 2017; Ghosh et al. 2020).

`optimize` fits a sparse Gaussian process to codes and scores, chooses codes by batch expected improvement, decodes and
scores them, and goes round. Where the paper searches the box of the training codes, region "density" keeps to where the
density fitted ex post has mass, and so to what the decoder has learned.
"""

from __future__ import annotations

from expost.search.functions import FunctionObjective
from expost.search.loop import Decode, SearchConfig, optimize
from expost.search.objective import Objective, Scored
from expost.search.objectives import OBJECTIVES, make_objective
from expost.search.records import read_search
from expost.search.report import draw, markdown
from expost.search.result import (
    Aggregate,
    Estimate,
    Found,
    Round,
    SearchResult,
    aggregate_corrected,
    aggregate_original,
)

__all__ = [
    "OBJECTIVES",
    "Aggregate",
    "Decode",
    "Estimate",
    "Found",
    "FunctionObjective",
    "Objective",
    "Round",
    "Scored",
    "SearchConfig",
    "SearchResult",
    "aggregate_corrected",
    "aggregate_original",
    "draw",
    "make_objective",
    "markdown",
    "optimize",
    "read_search",
]
