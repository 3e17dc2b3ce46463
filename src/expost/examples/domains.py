"""Domains of strings (molecules, expressions, text): what is valid, which scores and properties they have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from expost.examples.molecules import structures
from expost.metrics.chemnet import frechet_chemnet_influence
from expost.metrics.direction import HIGHER, LOWER, NEITHER, Direction
from expost.metrics.expressions import ExpressionScore, canonical_expression
from expost.metrics.influence import Influence, error_of_minimum, of_pairs
from expost.metrics.molecule_properties import PenalizedLogP, properties
from expost.metrics.molecules import (
    canonical_smiles,
    mean_similarities,
    parse_molecule,
    parse_molecules,
    scaffold_diversity,
    scaffold_of_each,
)
from expost.metrics.strings import Canonical, canonicalize, singletons
from expost.registry import Registry
from expost.utils.extras import installed
from expost.utils.progress import say

Values = np.ndarray[Any, np.dtype[np.float64]]
Strings = Sequence[str | None]

#: Molecules in a picture.
MOST_DRAWN = 64
#: Features of ChemNet.
CHEMNET_DIM = 512


@dataclass(frozen=True)
class Measured:
    """A score of samples, with entries for its card.

    Attributes:
        value: The score.
        settings: Settings that decide it.
        features: The features that make strings vectors; "strings" if there are none.
        influence: How much each sample, or each string compared with, moves it; None where that means nothing.
        error: The standard error, where there is one but no influence.
    """

    value: float
    settings: dict[str, Any]
    features: str = "strings"
    influence: Influence | None = None
    error: float | None = None


@dataclass(frozen=True)
class StringDomain:
    """A kind of strings.

    Attributes:
        canonical: Returns the standard form of a string, None for an invalid one.
        decodes: Decodes of each code in the published search, which keeps the most frequent valid one.
        prop: Gets training strings; returns a function from strings to the property that a Gaussian process on the
            codes predicts, NaN for invalid strings.
        prop_name: Name of that property.
        scores: Gets samples and training strings; returns scores of the valid samples by name.
        distance: Gets samples, test strings, and whether few are allowed; returns distances between them by name.
        directions: The direction of each score and distance, by name.
        column: Name of the column of strings in a table, by which it is read again.
        picture: Draws the strings that are valid, in so many columns or as many as fit; returns the picture and how
            many are in it, None if none is. None where strings have no picture.
        remark: Says how many samples are valid and different, where that is cheap to tell.
        objective: What a search looks for unless something else is asked for; None if there is nothing usual.
        properties: Gets strings and a property's name; returns its values, NaN for invalid strings. None where strings
            have no named properties.
    """

    canonical: Canonical
    decodes: int
    prop: Callable[[Strings], Callable[[Strings], Values]] | None
    prop_name: str
    scores: Callable[[Strings, Strings], dict[str, Measured]]
    distance: Callable[[Strings, Strings, bool], dict[str, Measured]]
    directions: Mapping[str, Direction]
    column: str
    picture: Callable[[Strings, int | None], tuple[Image.Image, int] | None] | None = None
    remark: Callable[[Strings], None] = lambda strings: None
    objective: str | None = None
    properties: Callable[[Strings, str], Values] | None = None

    def valid(self, string: str) -> bool:
        """Tell whether a string is valid."""
        return self.canonical(string) is not None


_VALID = {"over": "valid samples"}


def _expression_scores(samples: Strings, training: Strings) -> dict[str, Measured]:
    score = ExpressionScore()
    values = score(samples)
    values = values[~np.isnan(values)]
    if not len(values):
        return {}
    settings = {**_VALID, "target": score.target}
    return {
        "expression-score": _mean(values, settings),
        "best-expression-score": Measured(float(values.min()), settings, error=error_of_minimum(values)),
    }


def _mean(values: Values, settings: dict[str, Any]) -> Measured:
    known = values[~np.isnan(values)]
    return Measured(float(known.mean()), settings, influence=Influence(torch.from_numpy(known)))


def _molecule_scores(samples: Strings, training: Strings) -> dict[str, Measured]:
    molecules = parse_molecules(canonicalize(samples, canonical_smiles))
    if not molecules:
        return {}
    found = properties(molecules, ("logp", "qed", "sa"))
    scores = {f"mean-{name}": _mean(values, _VALID) for name, values in found.items()}
    likeness = mean_similarities(molecules)
    scores["internal-diversity"] = Measured(1 - float(likeness.mean()), _VALID, influence=of_pairs(likeness))
    alone = singletons(scaffold_of_each(molecules))
    scores["scaffold-diversity"] = Measured(scaffold_diversity(molecules), _VALID, influence=Influence(alone))
    penalized = PenalizedLogP.zinc250k()
    settings = {**_VALID, "normalization": asdict(penalized)}
    return scores | {"mean-plogp": _mean(penalized(molecules), settings)}


def _chemnet(samples: Strings, reference: Strings, allow_few: bool) -> dict[str, Measured]:
    valid = [sample for sample in samples if sample is not None]
    if min(len(valid), len(reference)) <= CHEMNET_DIM and not allow_few:
        say(
            f"fcd is left out: {len(valid)} valid samples and {len(reference)} test molecules, and it needs over "
            f"{CHEMNET_DIM} of each; --allow-few takes fewer"
        )
        return {}
    if min(len(valid), len(reference)) < 2:
        say(f"fcd is left out: {len(valid)} valid samples and {len(reference)} test molecules; it needs 2 of each")
        return {}
    # it falls with the number of molecules: of equally many samples those with fewer valid ones are not flattered
    settings = {**_VALID, "test molecules": len(reference)}
    distance, influence = frechet_chemnet_influence(valid, reference)
    return {"fcd": Measured(distance, settings, "chemnet", influence)}


def _no_scores(samples: Strings, training: Strings) -> dict[str, Measured]:
    return {}


def _no_distance(samples: Strings, reference: Strings, allow_few: bool) -> dict[str, Measured]:
    return {}


def _remark_on_molecules(samples: Strings) -> None:
    if installed("rdkit"):  # which is not needed to write strings
        _valid_molecules(samples)


def _valid_molecules(samples: Strings) -> list[str]:
    """Return the molecules among strings, and say how many there are, and how many are different."""
    valid = [each for each in samples if each is not None and parse_molecule(each) is not None]
    say(f"{len(valid)} of {len(samples)} samples are molecules, {len(set(valid))} different")
    return valid


def _draw_molecules(samples: Strings, columns: int | None) -> tuple[Image.Image, int] | None:
    valid = _valid_molecules(samples)
    shown = valid[:MOST_DRAWN]
    if not shown:
        return None
    if len(shown) < len(valid):
        say(f"the first {len(shown)} are drawn")
    picture = structures(shown, [""] * len(shown), columns or (8 if len(shown) > 16 else 4))
    return None if picture is None else (picture, len(shown))


DOMAINS: Registry[StringDomain] = Registry(
    "domain",
    {
        "expressions": StringDomain(
            canonical_expression,
            25,
            lambda training: ExpressionScore(),
            "expression-score",
            _expression_scores,
            _no_distance,
            {"expression-score": LOWER, "best-expression-score": LOWER},
            "expression",
            objective="expression",
        ),
        "molecules": StringDomain(
            canonical_smiles,
            500,
            lambda training: PenalizedLogP.zinc250k(),
            "plogp",
            _molecule_scores,
            _chemnet,
            {
                "mean-logp": NEITHER,
                "mean-qed": HIGHER,
                "mean-sa": LOWER,
                "mean-plogp": HIGHER,
                "internal-diversity": HIGHER,
                "scaffold-diversity": HIGHER,
                "fcd": LOWER,
            },
            "smiles",
            _draw_molecules,
            _remark_on_molecules,
            objective="plogp",
            properties=lambda strings, name: properties(strings, (name,))[name],
        ),
        "text": StringDomain(lambda string: string, 25, None, "", _no_scores, _no_distance, {}, "text"),
    },
)
