"""Evaluation: the paper's four columns by every measure, each score with its protocol.

| subject | what is compared with the test examples |
|---|---|
| reconstruction (Rec) | their reconstructions; also pixel by pixel |
| the model's own density (N) | decoded samples: N(0, I) for a VAE, one Gaussian for a regularized autoencoder |
| gmm (GMM) | decoded samples of the ex-post mixture |
| interpolation (Interp) | decoded mid-points between the codes of random pairs of test examples |
| codes | the codes themselves: effective dimensions, distance from N(0, I) |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from expost._version import __version__
from expost.densities.staged import StagedDensity
from expost.densities.tractable import TractableDensity
from expost.errors import DataError, UsageError
from expost.evaluation.catalog import ALL_MEASURES, LATENT, MEMORIZATION
from expost.evaluation.protocol import (
    CODES,
    INTERPOLATION,
    RECONSTRUCTION,
    Omissions,
    Protocol,
    chosen_examples,
    pairs,
)
from expost.evaluation.scores import Card, Score
from expost.examples import kind_of_data
from expost.generators.generator import Generator
from expost.generators.interpolation import INTERPOLATIONS
from expost.metrics import Space
from expost.metrics.image import PIXEL_SCORES
from expost.metrics.influence import Influence
from expost.metrics.latent import dimensions, held_out_log_likelihood, prior_gap, symbol_use
from expost.metrics.measures import MEASURES, Cloud
from expost.metrics.memorization import authenticity, copying_test
from expost.metrics.pool import Pool
from expost.metrics.reference import reference_features
from expost.types import Data, to_unit
from expost.utils.hashing import hash_tensors
from expost.utils.progress import say
from expost.utils.seeding import SAMPLES, stream_seed

#: Pixels whose errors are computed at once; SSIM needs some 100 bytes for each.
_ERROR_ELEMENTS = 2**20


def score_examples(
    samples: Tensor, reference: Tensor, space: Space, protocol: Protocol | None = None, name: str = "reference"
) -> list[Score]:
    """Score one set of examples against another, from any source.

    Args:
        samples: Shape (N, ...); images uint8, or floats in [0, 1].
        reference: Shape (M, ...).
        space: From `FEATURES[...].load(device)`, or `StandardizedValues`.
        protocol: What to compute; measures that need a model are left out.
        name: Name of the reference on the cards.

    Raises:
        UsageError: for fewer than two examples, unequal shapes, or too few examples for the features.
    """
    protocol = protocol or Protocol()
    for what, x in (("samples", samples), ("reference", reference)):
        if len(x) < 2:
            raise UsageError(f"the {what} hold {len(x)} example(s); a distance between distributions needs at least 2")
    if samples.dim() != reference.dim():
        raise UsageError(f"samples have shape {tuple(samples.shape[1:])}, the reference {tuple(reference.shape[1:])}")
    if samples.dim() == 2 and samples.shape[1] != reference.shape[1]:
        raise UsageError(
            f"samples have {samples.shape[1]} numbers, the reference has {reference.shape[1]}; "
            "give both the same columns"
        )
    protocol.chosen(tuple(MEASURES))
    compare = _Comparison.to(reference, name, space, protocol)
    scores = compare.scores("samples", samples, "", {})
    compare.omissions.tell()
    if not scores:
        raise UsageError(f"{len(samples)} samples and {len(reference)} examples of the reference allow no score")
    return scores


def evaluate_generator(
    generator_: Generator,
    data: Data,
    space: Space,
    subjects: Sequence[str],
    protocol: Protocol | None = None,
    model: str = "",
    split: str = "test",
    through: StagedDensity | None = None,
) -> list[Score]:
    """Score a generator against the test split.

    Args:
        generator_: The generator; densities among the subjects must be fitted.
        data: Its test split is the reference; the training split serves for finding copies, and scales vectors.
        space: From `pick_space`.
        subjects: "reconstruction", "interpolation", "codes" and names of fitted densities.
        protocol: What to compute, and how.
        model: Hash of the weights, for the cards.
        split: Name of the test split on the cards, for callers who substitute another one.
        through: The second stage of a two-stage model, through which reconstructions and mid-points go, as in the
            paper's table; their cards name it.

    Raises:
        UsageError: if there are fewer than two test examples, or too few for the features.
    """
    protocol = protocol or Protocol()
    measures = protocol.chosen(ALL_MEASURES)
    if len(data.test) < 2:
        raise UsageError(f"data set '{data.name}' has {len(data.test)} test examples; a distance needs at least 2")
    compare = _Comparison.to(data.test.x, f"{data.name} {split}", space, protocol)
    count = protocol.count(len(data.test))
    x = chosen_examples(data.test.x, protocol)
    scores: list[Score] = []
    for subject, examples, details, settings in _subjects(generator_, x, subjects, count, protocol, through):
        scores += compare.scores(subject, examples, model, details, settings)
        card = compare.card(len(examples), model, details)
        if subject == RECONSTRUCTION:
            scale = {"range": "[0, 1]" if kind_of_data(data).pixels else "as given"}
            pixels = replace(card, features="none", weights="", preprocessing=scale)
            for key, values in _errors(x, examples, data):
                scores.append(Score.measured(key, subject, values.mean().item(), pixels, Influence(values)))
        elif subject != INTERPOLATION and MEMORIZATION in measures:
            raw = replace(
                card,
                features="values",
                weights="",
                reference=f"{data.name} train",
                reference_hash=hash_tensors({"x": data.train.x}),
                reference_count=len(data.train),
                preprocessing={"distance": "Euclidean, raw values"},
                settings={"held out": f"{len(x)} of {split}", "held-out hash": hash_tensors({"x": x})},
            )
            train = Pool(data.train.x, "training examples")
            for key, compute in _COPIES.items():
                try:
                    scores.append(Score(key, subject, compute(train, x, examples, protocol.seed), raw))
                except (UsageError, DataError) as error:
                    compare.omissions.add(MEMORIZATION, subject, error, key)
    compare.omissions.tell()
    if LATENT in measures:
        scores += latent_scores(generator_, data, subjects, compare.card(len(data.test), model, {}), split)
    return scores


@dataclass(frozen=True, eq=False)
class _Comparison:
    """A reference set, and the scores against it."""

    reference: Cloud
    name: str
    digest: str
    space: Space
    protocol: Protocol
    omissions: Omissions

    @classmethod
    def to(cls, x: Tensor, name: str, space: Space, protocol: Protocol) -> _Comparison:
        if any(measure in MEASURES for measure in protocol.chosen(ALL_MEASURES)):
            features, digest = reference_features(space, x)
        else:
            features, digest = torch.empty(len(x), 0), hash_tensors({"x": x})
        return cls(Cloud(features), name, digest, space, protocol, Omissions(protocol))

    def card(self, count: int, model: str, density: dict[str, Any]) -> Card:
        return Card(
            model=model,
            features=self.space.name,
            weights=self.space.weights_hash,
            reference=self.name,
            reference_hash=self.digest,
            reference_count=len(self.reference),
            count=count,
            preprocessing=self.space.protocol(),
            density=density,
            seed=self.protocol.seed,
            version=__version__,
        )

    def scores(
        self,
        subject: str,
        examples: Tensor,
        model: str,
        density: dict[str, Any],
        settings: dict[str, Any] | None = None,
    ) -> list[Score]:
        measures = [name for name in self.protocol.chosen(ALL_MEASURES) if name in MEASURES]
        if not measures:
            return []
        samples = Cloud(self.space(examples))
        card, context = self.card(len(examples), model, density), self.protocol.context(self.space)
        found = []
        for measure in measures:
            try:
                values = MEASURES[measure](self.reference, samples, context)
            except (UsageError, DataError) as error:
                self.omissions.add(measure, subject, error)
                continue
            for name, value in values.items():
                full = replace(card, settings={**(settings or {}), **value.settings})
                influence, known = value.influence, value.error
                if subject == RECONSTRUCTION and len(examples) == self.card(0, "", {}).reference_count:
                    influence, known = influence.matched(), None  # of all test examples, in their order
                found.append(Score.measured(name, subject, value.value, full, influence, known, value.interval))
        return found


def _subjects(
    generator_: Generator,
    x: Tensor,
    subjects: Sequence[str],
    count: int,
    protocol: Protocol,
    through: StagedDensity | None,
) -> Iterator[tuple[str, Tensor, dict[str, Any], dict[str, Any]]]:
    """Yield each subject's name, its examples, its density with options, and its settings."""
    for subject in subjects:
        stage = {} if through is None else {"name": through.name, "through": True, **through.options}
        if subject == RECONSTRUCTION:
            if through is None:
                yield subject, generator_.reconstruct(x), {}, {}
            else:
                yield subject, generator_.decode(through.decode(through.encode(generator_.encode(x)))), stage, {}
        elif subject == INTERPOLATION:
            codes = generator_.points(generator_.encode(x))
            first, second = pairs(codes if through is None else through.encode(codes), protocol.seed)
            middle = INTERPOLATIONS[protocol.method](first, second, torch.tensor(0.5))
            decoded = generator_.decode(middle if through is None else through.decode(middle))
            yield subject, decoded, stage, {"path": protocol.method, "position": 0.5}
        elif subject != CODES:
            details = {"name": subject, **generator_.density(subject).options}
            yield subject, generator_.sample(count, subject, stream_seed(protocol.seed, SAMPLES)), details, {}


def _errors(x: Tensor, reconstructions: Tensor, data: Data) -> list[tuple[str, Tensor]]:
    """Return the error of each example, by the name of the score."""
    if not kind_of_data(data).pixels:
        return [("mse", (x.double() - reconstructions.double()).square().flatten(1).mean(1))]
    scores = {key: score for key, score in PIXEL_SCORES.items() if min(data.shape[1:]) >= score.side}
    errors: dict[str, list[Tensor]] = {key: [] for key in scores}
    size = max(1, min(500, _ERROR_ELEMENTS // x[:1].numel()))
    for batch, output in zip(x.split(size), reconstructions.split(size), strict=True):  # type: ignore[no-untyped-call]
        for key, score in scores.items():
            errors[key].append(score.compute(to_unit(batch), output))
    return [(key, torch.cat(parts)) for key, parts in errors.items()]


#: The scores of copying: each gets training examples, held-out ones, samples and a seed.
_COPIES: dict[str, Callable[[Pool, Tensor, Tensor, int], float]] = {
    "copying": lambda train, held_out, samples, seed: copying_test(train, held_out, samples, seed=seed).c_t,
    "authenticity": lambda train, held_out, samples, seed: authenticity(train, samples),
}


def latent_scores(
    generator_: Generator, data: Data, subjects: Sequence[str], card: Card, split: str = "test"
) -> list[Score]:
    """Return the held-out log-likelihood of each density among the subjects, and the scores of codes that are vectors.

    Codes are noiseless. A VAE's are posterior means, narrower than the aggregate posterior: even if that is N(0, I),
    the means are not.
    """
    codes = generator_.encode(data.test.x)
    # a likelihood depends on the scale of the codes: only densities of the same codes can be compared by it
    card = replace(
        card,
        features="codes",
        weights="",
        count=len(codes),
        preprocessing={"codes": f"noiseless, of the {split} split"},
    )
    found = []
    for name in subjects:
        density = generator_.densities.get(name)
        if isinstance(density, TractableDensity):
            likelihood = held_out_log_likelihood(density, codes)
            same_codes = hash_tensors({"codes": codes})
            owned = replace(card, density={"name": name, **density.options}, reference_hash=same_codes)
            found.append(Score("log-likelihood", name, likelihood.mean, owned, likelihood.standard_error))
    quantizer = generator_.quantizer
    if CODES in subjects and quantizer is not None:
        used = symbol_use(codes.long().flatten().bincount(minlength=quantizer.symbols))
        found += [
            Score("symbol-perplexity", CODES, used.perplexity, card),
            Score("symbol-usage", CODES, used.usage, card),
        ]
    elif CODES in subjects and codes.dim() == 2:
        spread, gap = dimensions(codes), prior_gap(codes)
        found += [
            Score("participation-ratio", CODES, spread.participation_ratio, card),
            Score("active-units", CODES, float(spread.active_units), card),
            Score.measured("kl-from-normal", CODES, gap.kl, card, gap.kl_influence),
            Score.measured("frechet-from-normal", CODES, gap.frechet, card, gap.frechet_influence),
            Score("mmd-z-from-normal", CODES, gap.mmd_z, card),
        ]
    for score in found:
        if not math.isfinite(score.value):
            say(f"{score.name} of {score.of} is infinite, and is left out: {_why_infinite(score, codes)}")
    return [score for score in found if math.isfinite(score.value)]


def _why_infinite(score: Score, codes: Tensor) -> str:
    """Say why a score of the codes has no finite value, and what to do."""
    if score.of != CODES:
        return "a held-out code is impossible under the density; fit one with more noise, or another density"
    n, d = codes.shape
    if n <= d:
        return (
            f"{n} codes span at most {n - 1} of their {d} dimensions, so their covariance has no inverse; score more "
            f"than {d} examples"
        )
    rank = int(torch.linalg.matrix_rank(codes.double().T.cov(), hermitian=True))
    return (
        f"the codes use {rank} of {d} dimensions and are constant in the others, which no noise of N(0, I) is; train "
        f"again with --latent-dim {max(1, rank)}, or look at frechet-from-normal instead, which is finite"
    )
