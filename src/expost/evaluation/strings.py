"""Scores of a generator of strings, each with its protocol.

| subject | scores |
|---|---|
| reconstruction | accuracy: exact strings that come back |
| a density | validity greedy, sampled, best of k; truncated; unique-valid, uniqueness, novelty; what the domain adds |
| interpolation | validity of mid-points between the codes of random pairs |
| codes | effective dimensions, distance from N(0, I); how well a Gaussian process predicts the domain's property |
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from expost._version import __version__
from expost.config import to_json
from expost.evaluation.catalog import DISTANCE, LATENT, PROPERTIES, REGRESSION, STRING_MEASURES
from expost.evaluation.evaluate import latent_scores
from expost.evaluation.protocol import CODES, INTERPOLATION, RECONSTRUCTION, Protocol, chosen_examples, pairs
from expost.evaluation.scores import Card, Score
from expost.examples.domains import DOMAINS, Measured, StringDomain, Strings
from expost.examples.strings import remark_on_alike
from expost.generators.interpolation import INTERPOLATIONS
from expost.generators.strings import StringGenerator
from expost.metrics.influence import Influence
from expost.metrics.latent_regression import latent_regression
from expost.metrics.strings import (
    canonicalize,
    novelty,
    reconstruction_accuracy,
    string_influences,
    unique_valid,
    uniqueness,
)
from expost.registry import Part
from expost.types import Data
from expost.utils.hashing import hash_tensors
from expost.utils.seeding import SAMPLES, generator

#: Decodes of each code for the validity of sampled and best-of-k decodes, and the codes that get them.
DECODES, DECODED = 10, 1_000
#: Codes for the regression: training a Gaussian process takes a minute for each 10,000.
REGRESSED = 10_000


def evaluate_strings(
    strings: StringGenerator,
    data: Data,
    codec: Part,
    subjects: Sequence[str],
    protocol: Protocol,
    model: str = "",
    split: str = "test",
) -> list[Score]:
    """Score a generator of strings against the test split.

    Args:
        strings: The generator; densities among the subjects must be fitted.
        data: From `encode_strings`; the test split is reconstructed, and novel samples are not in the training split.
        codec: What encoded them, for the cards.
        subjects: "reconstruction", "interpolation", "codes" and names of fitted densities.
        protocol: What to compute, and how.
        model: Hash of the weights, for the cards.
        split: Name of the test split on the cards, for callers who substitute another one.
    """
    domain = DOMAINS[data.domain]
    measures = protocol.chosen(STRING_MEASURES)
    count = protocol.count(len(data.test))
    x = chosen_examples(data.test.x, protocol)
    card = Card(
        model=model,
        features="strings",
        weights="",
        reference=f"{data.name} {split}",
        reference_hash=hash_tensors({"x": data.test.x}),
        reference_count=len(data.test),
        count=count,
        preprocessing={"codec": to_json(codec), "domain": data.domain},
        density={},
        seed=protocol.seed,
        version=__version__,
        settings={"decoding": "greedy"},
    )
    scores = []
    for subject in subjects:
        if subject == RECONSTRUCTION:
            originals, found = _strings(strings, x), strings.reconstruct(x)
            accuracy = reconstruction_accuracy(originals, found)
            same = Influence(_flags(a == b for a, b in zip(originals, found, strict=True)))
            scores.append(Score.measured("accuracy", subject, accuracy, replace(card, count=len(x)), same))
        elif subject == INTERPOLATION:
            first, second = pairs(strings.generator.encode(x), protocol.seed)
            middle = INTERPOLATIONS[protocol.method](first, second, torch.tensor(0.5))
            valid = _flags(form is not None for form in canonicalize(strings.decode(middle), domain.canonical))
            owned = replace(
                card, count=len(x), settings={"decoding": "greedy", "path": protocol.method, "position": 0.5}
            )
            scores.append(Score.measured("validity-greedy", subject, float(valid.mean()), owned, Influence(valid)))
        elif subject != CODES:
            details = {"name": subject, **strings.generator.density(subject).options}
            owned = replace(card, count=count, density=details)
            scores += _of_density(strings, data, x, domain, subject, owned, measures, protocol.allow_few)
    if LATENT in measures:
        scores += latent_scores(strings.generator, data, subjects, replace(card, settings={}), split)
    if REGRESSION in measures and CODES in subjects and domain.prop is not None:
        scores += list(_regression(strings, data, domain, card))
    return scores


def _of_density(
    strings: StringGenerator,
    data: Data,
    held_out: torch.Tensor,
    domain: StringDomain,
    name: str,
    card: Card,
    measures: Sequence[str],
    allow_few: bool,
) -> Iterator[Score]:
    z = strings.codes(card.count, name, card.seed)
    samples = strings.decode(z)
    forms = canonicalize(samples, domain.canonical)
    remark_on_alike(samples, f"samples of {name}")
    training = _strings(strings, data.train.x)
    known = {"training": hash_tensors({"x": data.train.x})}
    seen = {form for form in training_forms(training, forms, domain) if form is not None}
    moves = string_influences(forms, seen)
    truncated = Influence(_flags(sample is None for sample in samples))
    values = {
        "validity-greedy": Measured(_share(forms), {}, influence=moves["validity-greedy"]),
        "truncated": Measured(1 - _share(samples), {}, influence=truncated),
        "unique-valid": Measured(unique_valid(forms), {}, influence=moves["unique-valid"]),
        "uniqueness": Measured(uniqueness(forms), {}, influence=moves["uniqueness"]),
        "novelty": Measured(novelty(forms, seen), known, influence=moves["novelty"]),
    }
    if PROPERTIES in measures:
        values |= domain.scores(forms, training)
    if DISTANCE in measures:
        compared = domain.distance(forms, _strings(strings, held_out), allow_few)
        those = {"held-out hash": hash_tensors({"x": held_out})}  # a seeded draw if there are more of them than samples
        values |= {key: replace(each, settings=each.settings | those) for key, each in compared.items()}
    for key, found in values.items():
        full = replace(card, features=found.features, settings={**card.settings, **found.settings})
        if found.influence is None:
            yield Score(key, name, found.value, full, found.error)
        else:
            yield Score.measured(key, name, found.value, full, found.influence)
    best, shares = strings.best_of(z[:DECODED], DECODES, domain.valid, source=generator(card.seed, SAMPLES, 2))
    settings = {"decoding": "sampled", "temperature": 1.0, "k": DECODES}
    drawn = replace(card, count=min(DECODED, len(z)), settings=settings)
    yield Score.measured("validity-sampled", name, float(shares.mean()), drawn, Influence(shares))
    any_valid = Influence(_flags(each is not None for each in best))
    yield Score.measured("validity-best-of-k", name, _share(best), drawn, any_valid)


def training_forms(training: Strings, wanted: Strings, domain: StringDomain) -> Strings:
    """Return the standard forms of the training strings that could equal a wanted string.

    RDKit canonicalizes 2,000 molecules a second. Equal molecules have the same heavy atoms, hence the same letters in
    their SMILES, so strings with other letters are skipped.
    """
    atoms = {letters(each) for each in wanted if each is not None}
    return canonicalize([each for each in training if each is not None and letters(each) in atoms], domain.canonical)


def letters(string: str) -> str:
    """Return the letters of a SMILES without H, sorted: its heavy atoms."""
    return "".join(sorted(char for char in string.upper() if char.isalpha() and char != "H"))


def _regression(strings: StringGenerator, data: Data, domain: StringDomain, card: Card) -> Iterator[Score]:
    """Yield how well a Gaussian process predicts a property from codes.

    A random part of the training split is used, as in Kusner et al. 2017: nine tenths to fit, one tenth to score.
    """
    assert domain.prop is not None
    train = data.train.x
    x = train[torch.randperm(len(train), generator=generator(card.seed, SAMPLES, 4))[:REGRESSED]]
    texts = _strings(strings, x)
    values = torch.from_numpy(domain.prop(texts)(texts))
    found = latent_regression(strings.generator.encode(x), values, generator(card.seed, SAMPLES, 3))
    settings: dict[str, Any] = {"property": domain.prop_name, "fitted on": found.n_train, "inducing": found.inducing}
    owned = replace(
        card,
        features="codes",
        reference=f"{data.name} train",
        reference_hash=hash_tensors({"x": train}),
        reference_count=len(train),
        count=found.n_test,
        settings=settings,
    )
    yield Score.measured("regression-rmse", CODES, found.rmse, owned, found.rmse_influence)
    likelihood, moves = found.log_likelihood, found.log_likelihood_influence
    yield Score.measured("regression-log-likelihood", CODES, likelihood, owned, moves)


def _strings(strings: StringGenerator, x: torch.Tensor) -> list[str]:
    return [each or "" for each in strings.codec.decode(x)]


def _flags(each: Iterable[bool]) -> torch.Tensor:
    return torch.tensor(list(each), dtype=torch.float64)


def _share(strings: Strings) -> float:
    return sum(each is not None for each in strings) / len(strings)
