"""How often digits that are sampled by label are heard as the digit that they were to be."""

from __future__ import annotations

import torch

from expost._version import __version__
from expost.evaluation.catalog import INTENDED
from expost.evaluation.protocol import Protocol
from expost.evaluation.scores import Card, Score
from expost.generators.generator import Generator
from expost.metrics.influence import Influence
from expost.metrics.spoken_digits import load_spoken_digit_network, recognized
from expost.types import Data
from expost.utils.hashing import hash_tensors
from expost.utils.seeding import SAMPLES, stream_seed

#: The features whose classifier listens.
SPOKEN = "spoken-digits"


def intended_digits(
    generator: Generator, name: str, data: Data, protocol: Protocol, model: str, split: str
) -> list[Score]:
    """Return the share of samples by label that the bundled classifier hears as the digit of their label.

    As many of each digit are drawn, together about as many as there are test recordings. Beside it, on the card,
    stands how often the classifier is right about the test recordings themselves.

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
    by_label = generator.by_label[name]
    digits = {label: int(label) for label in by_label.labels if str(label) in set("0123456789")}
    if len(digits) < len(by_label.labels):
        return []
    network, _ = load_spoken_digit_network()
    each = max(1, protocol.count(len(data.test)) // len(digits))
    right = []
    for label, digit in digits.items():
        drawn = generator.sample(each, name, stream_seed(protocol.seed, SAMPLES), label)
        right.append((recognized(drawn, network) == digit).double())
    hits = torch.cat(right)
    heard = recognized(data.test.x, network)
    truth = data.labels(data.test)
    known = truth is not None and {str(label) for label in truth} <= set("0123456789")
    ceiling = {}
    if known:
        assert truth is not None
        ceiling["right about the test recordings"] = round(
            float((heard == torch.tensor([int(label) for label in truth])).double().mean()), 4
        )
    card = Card(
        model=model,
        features=SPOKEN,
        weights=hash_tensors(network.state_dict()),
        reference=f"{data.name} {split}",
        reference_hash=hash_tensors({"x": data.test.x}),
        reference_count=len(data.test),
        count=len(hits),
        preprocessing={"precision": "float32"},
        density={"name": name, "by label": True},
        seed=protocol.seed,
        version=__version__,
        settings={"samples of each digit": each, **ceiling},
    )
    return [Score.measured(INTENDED, f"{name} by label", float(hits.mean()), card, Influence(hits))]
