"""Whether spoken digits are heard as intended: reconstructions as what was spoken, samples by label as their label."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from expost._version import __version__
from expost.evaluation.catalog import INTENDED, KEPT
from expost.evaluation.protocol import RECONSTRUCTION, Protocol, chosen_places
from expost.evaluation.scores import Card, Score
from expost.generators.generator import Generator
from expost.metrics.influence import Influence
from expost.metrics.spoken_digits import load_spoken_digit_network, recognized
from expost.types import Data
from expost.utils.hashing import hash_tensors
from expost.utils.seeding import SAMPLES, stream_seed

#: The features whose classifier listens, and the labels that it tells apart.
SPOKEN = "spoken-digits"
DIGITS = frozenset("0123456789")


def kept_digits(generator: Generator, data: Data, protocol: Protocol, model: str, split: str) -> list[Score]:
    """Return the share of reconstructed test recordings that the bundled classifier hears as the digit that is spoken.

    Args:
        generator: The model.
        data: The run's data.
        protocol: Number and seed of the recordings.
        model: Hash of the weights.
        split: Name of the test split.

    Returns:
        One score; none where the labels are not digits.
    """
    spoken = _spoken(data)
    if spoken is None:
        return []
    chosen = chosen_places(len(data.test), protocol)
    heard = recognized(generator.reconstruct(data.test.x[chosen]))
    hits = (heard == spoken[chosen]).double()
    card = _card(data, len(hits), model, protocol, split, {}, {})
    return [Score.measured(KEPT, RECONSTRUCTION, float(hits.mean()), card, Influence(hits))]


def intended_digits(
    generator: Generator, name: str, data: Data, protocol: Protocol, model: str, split: str
) -> list[Score]:
    """Return the share of samples by label that the bundled classifier hears as the digit of their label.

    As many of each digit are drawn, together about as many as there are test recordings.

    Args:
        generator: With densities by label of that name.
        name: The kind of density.
        data: The run's data.
        protocol: Number and seed of samples.
        model: Hash of the weights.
        split: Name of the test split.

    Returns:
        One score; none where the labels are not digits.
    """
    labels = generator.by_label[name].labels
    if not DIGITS.issuperset(map(str, labels)):
        return []
    each = max(1, protocol.count(len(data.test)) // len(labels))
    right = []
    for number, label in enumerate(labels):  # each with noise of its own, so that samples are independent
        drawn = generator.sample(each, name, stream_seed(protocol.seed, SAMPLES, number), label)
        right.append((recognized(drawn) == int(label)).double())
    hits = torch.cat(right)
    density = {"name": name, "by label": True}
    card = _card(data, len(hits), model, protocol, split, density, {"samples of each digit": each})
    return [Score.measured(INTENDED, f"{name} by label", float(hits.mean()), card, Influence(hits))]


def _spoken(data: Data) -> Tensor | None:
    """Return the digits of the test recordings; None where their labels are not digits."""
    labels = data.labels(data.test)
    if labels is None or not DIGITS.issuperset(map(str, labels.tolist())):
        return None
    return torch.tensor([int(label) for label in labels.tolist()])


def _card(
    data: Data,
    count: int,
    model: str,
    protocol: Protocol,
    split: str,
    density: dict[str, Any],
    settings: dict[str, Any],
) -> Card:
    """Return the card, on which stands how often the classifier is right about the test recordings themselves."""
    network, _ = load_spoken_digit_network()
    spoken = _spoken(data)
    if spoken is not None:
        right = (recognized(data.test.x) == spoken).double().mean()
        settings = settings | {"right about the test recordings": round(float(right), 4)}
    return Card(
        model=model,
        features=SPOKEN,
        weights=hash_tensors(network.state_dict()),
        reference=f"{data.name} {split}",
        reference_hash=hash_tensors({"x": data.test.x}),
        reference_count=len(data.test),
        count=count,
        preprocessing={"precision": "float32"},
        density=density,
        seed=protocol.seed,
        version=__version__,
        settings=settings,
    )
