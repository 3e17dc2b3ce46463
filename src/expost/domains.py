"""What strings can be: molecules, expressions or any text, and what follows from it for scores and search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from expost.errors import DataError
from expost.metrics.chemnet import frechet_chemnet_distance
from expost.metrics.expressions import ExpressionScore, canonical_expression
from expost.metrics.molecule_properties import PenalizedLogP, properties
from expost.metrics.molecules import canonical_smiles, internal_diversity, parse_molecules, scaffold_diversity
from expost.metrics.strings import Canonical, canonicalize
from expost.registry import Registry

Values = np.ndarray[Any, np.dtype[np.float64]]
Strings = Sequence[str | None]

#: Training molecules that normalise the penalised logP when scoring samples; a search uses all of them.
REFERENCE_MOLECULES = 5_000


@dataclass(frozen=True)
class StringDomain:
    """A kind of strings.

    Attributes:
        canonical: Brings a string to standard form, None for an invalid one.
        decodes: Decodes of a code in the published search, of which the most frequent valid one counts.
        prop: Gets training strings; returns a property of strings, NaN for invalid ones. It is what a Gaussian process
            on the codes predicts.
        prop_name: What that property is called.
        scores: Gets samples and training strings; returns scores of the valid samples by name.
        distance: Gets samples and test strings; returns distances between their distributions by name.
    """

    canonical: Canonical
    decodes: int
    prop: Callable[[Strings], Callable[[Strings], Values]] | None
    prop_name: str
    scores: Callable[[Strings, Strings], dict[str, float]]
    distance: Callable[[Strings, Strings], dict[str, float]]

    def valid(self, string: str) -> bool:
        """Tell whether a string is valid."""
        return self.canonical(string) is not None


def _expression_scores(samples: Strings, training: Strings) -> dict[str, float]:
    values = ExpressionScore()(samples)
    values = values[~np.isnan(values)]
    return (
        {"expression-score": float(values.mean()), "best-expression-score": float(values.min())} if len(values) else {}
    )


def _molecule_scores(samples: Strings, training: Strings) -> dict[str, float]:
    molecules = parse_molecules(canonicalize(samples, canonical_smiles))
    if not molecules:
        return {}
    found = properties(molecules, ("logp", "qed", "sa"))
    scores = {f"mean-{name}": float(np.nanmean(values)) for name, values in found.items()}
    scores["mean-plogp"] = float(np.nanmean(PenalizedLogP.fit(training[:REFERENCE_MOLECULES])(molecules)))
    scores["internal-diversity"] = internal_diversity(molecules)
    return scores | {"scaffold-diversity": scaffold_diversity(molecules)}


def _chemnet(samples: Strings, reference: Strings) -> dict[str, float]:
    try:
        return {"fcd": frechet_chemnet_distance(samples, reference[: len(samples)])}
    except DataError:  # fewer than two valid samples have no distance
        return {}


def _nothing(first: Strings, second: Strings) -> dict[str, float]:
    return {}


DOMAINS: Registry[StringDomain] = Registry(
    "domain",
    {
        "expressions": StringDomain(
            canonical_expression,
            25,
            lambda training: ExpressionScore(),
            "expression-score",
            _expression_scores,
            _nothing,
        ),
        "molecules": StringDomain(
            canonical_smiles,
            500,
            lambda training: PenalizedLogP.fit(training[:REFERENCE_MOLECULES]),
            "plogp",
            _molecule_scores,
            _chemnet,
        ),
        "text": StringDomain(lambda string: string, 25, None, "", _nothing, _nothing),
    },
)
