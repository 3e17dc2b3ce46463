"""Search in latent space: Bayesian optimization of decoded strings (Kusner et al. 2017; Ghosh et al. 2020).

`optimize` fits a sparse Gaussian process to codes and scores, chooses codes by batch expected improvement, decodes and
scores them, and repeats. The paper searches the box of the training codes; region "density" stays where the density
fitted ex post has mass, that is, near codes that the decoder was trained on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from expost.utils.lazy import lazy

if TYPE_CHECKING:
    from expost.search.aggregate import Aggregate, Estimate, aggregate_corrected, aggregate_original
    from expost.search.config import SearchConfig
    from expost.search.functions import FunctionObjective
    from expost.search.loop import Decode, optimize
    from expost.search.objective import Objective, Scored
    from expost.search.objectives import OBJECTIVES, make_objective
    from expost.search.records import read_search
    from expost.search.report import draw, markdown
    from expost.search.result import Found, Round, SearchResult

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

__getattr__, __dir__ = lazy(
    __name__,
    {
        "aggregate": ["Aggregate", "Estimate", "aggregate_corrected", "aggregate_original"],
        "config": ["SearchConfig"],
        "functions": ["FunctionObjective"],
        "loop": ["Decode", "optimize"],
        "objective": ["Objective", "Scored"],
        "objectives": ["OBJECTIVES", "make_objective"],
        "records": ["read_search"],
        "report": ["draw", "markdown"],
        "result": ["Found", "Round", "SearchResult"],
    },
)
