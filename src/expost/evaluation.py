"""Evaluation: the paper's four columns, and pixel errors, each with its protocol.

| column | what is compared with the test images |
|---|---|
| reconstruction (Rec) | their reconstructions |
| the model's own density (N) | decoded samples: N(0, I) for a VAE, one Gaussian for a regularized autoencoder |
| gmm (GMM) | decoded samples of the ex-post mixture |
| interpolation (Interp) | decoded mid-points between the codes of random pairs of test images |
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from expost import __version__
from expost.data import DATASETS
from expost.errors import UsageError
from expost.generator import Generator
from expost.interpolation import INTERPOLATIONS
from expost.metrics import FEATURES, Features, Statistics, frechet_distance, mse, psnr, ssim
from expost.metrics.image import WINDOW
from expost.scores import Card, Score
from expost.seeding import PAIRS, SAMPLES, generator, stream_seed
from expost.training import pick_device
from expost.types import Data, to_unit

#: The paper's number of samples, and of reconstructions and interpolations, where there are as many test images.
PAPER_COUNT = 10_000


def pick_features(name: str, data: Data, device: str = "auto") -> Features | None:
    """Return the features to score images with.

    Args:
        name: Entry of `FEATURES`, or "auto": Inception's if its weights are on this machine, else what suits the data
            without a download.
        data: What is scored.
        device: Where they compute.

    Returns:
        The features; None for vectors, which are compared as they are.

    Raises:
        UsageError: for an unknown name, features asked for vectors, or images that the features do not take.
    """
    if not data.is_image:
        if name != "auto":
            _ = FEATURES[name]
            raise UsageError(
                f"features '{name}' are of images, data set '{data.name}' has vectors; leave --features out"
            )
        return None
    features = FEATURES[resolve_features(name, data)].load(pick_device(device))
    channels, height, width = data.shape
    features.check((channels, height, width))
    return features


def resolve_features(name: str, data: Data) -> str:
    """Return the name that "auto" stands for here: Inception's if its weights are at hand, else bundled features."""
    if name != "auto" or not data.is_image:
        return name
    bundled = DATASETS[data.name].features if data.name in DATASETS else "pixels"
    return next((key for key in ("inception-2048", "inception-768") if FEATURES[key].available()), bundled)


def evaluate_generator(
    generator_: Generator,
    data: Data,
    features: Features | None,
    densities: Sequence[str],
    samples: int | None = None,
    method: str = "linear",
    seed: int = 0,
    model: str = "",
) -> list[Score]:
    """Score a generator against the test split.

    Args:
        generator_: The generator; `densities` must be fitted.
        data: Only its test split is used (and, for vectors, the scale of its training split).
        features: From `pick_features`.
        densities: Names of fitted densities.
        samples: Samples of each density, at least 2, and at most so many reconstructions and mid-points, since a
            distance between few examples is biased upwards; None takes as many as there are test examples, at most
            10,000.
        method: Interpolation between codes.
        seed: Seeds samples and pairs.
        model: Hash of the weights, for the cards.

    Returns:
        A Frechet distance for reconstructions, each density and interpolations; then reconstructions' pixel errors.

    Raises:
        UsageError: if there are fewer than two test examples.
    """
    if len(data.test) < 2:
        raise UsageError(f"data set '{data.name}' has {len(data.test)} test examples; a distance needs at least 2")
    count = min(len(data.test), PAPER_COUNT) if samples is None else samples
    x = data.test.x[:count]
    card = Card(
        model=model,
        features="none" if features is None else features.name,
        weights="" if features is None else features.weights_hash,
        reference=f"{data.name} test",
        reference_count=len(data.test),
        count=len(x),
        preprocessing={"values": "standardized by the training split"} if features is None else features.protocol(),
        density={},
        seed=seed,
        version=__version__,
    )
    statistics = _standardized(data) if features is None else features.statistics
    name = "frechet-values" if features is None else features.score_name
    reference = statistics(data.test.x)
    reconstructions = generator_.reconstruct(x)
    scores = []
    for subject, examples, details in _subjects(generator_, x, reconstructions, densities, count, method, seed):
        value = frechet_distance(statistics(examples), reference)
        scores.append(Score(name, subject, value, replace(card, count=len(examples), density=details)))
    pixels = replace(
        card, features="none", weights="", preprocessing={"range": "[0, 1]" if data.is_image else "as given"}
    )
    return scores + [Score(key, "reconstruction", value, pixels) for key, value in _errors(x, reconstructions, data)]


def _subjects(
    generator_: Generator,
    x: Tensor,
    reconstructions: Tensor,
    densities: Sequence[str],
    count: int,
    method: str,
    seed: int,
) -> Iterator[tuple[str, Tensor, dict[str, Any]]]:
    yield "reconstruction", reconstructions, {}
    for name in densities:
        details = {"name": name, **generator_.density(name).options}
        yield name, generator_.sample(count, name, stream_seed(seed, SAMPLES)), details
    # a cycle through a random order: every example is in two pairs, and none is paired with itself
    codes = generator_.encode(x)[torch.randperm(len(x), generator=generator(seed, PAIRS))]
    middle = INTERPOLATIONS[method](codes, codes.roll(1, 0), torch.tensor(0.5))
    yield "interpolation", generator_.decode(middle), {"path": method, "position": 0.5}


def _standardized(data: Data) -> Callable[[Tensor], Statistics]:
    train = data.train.x.double()
    mean, scale = train.mean(0), train.std(0).clamp_min(1e-12)
    return lambda x: Statistics.of((x.double() - mean) / scale)


def _errors(x: Tensor, reconstructions: Tensor, data: Data) -> list[tuple[str, float]]:
    if not data.is_image:
        return [("mse", (x.double() - reconstructions.double()).square().mean().item())]
    scores = [("mse", mse), ("psnr", psnr), *([("ssim", ssim)] if min(data.shape[1:]) >= WINDOW else [])]
    sums = dict.fromkeys((key for key, _ in scores), 0.0)
    for batch, output in zip(x.split(500), reconstructions.split(500), strict=True):  # type: ignore[no-untyped-call]
        for key, score in scores:
            sums[key] += score(to_unit(batch), output).sum().item()
    return [(key, value / len(x)) for key, value in sums.items()]
