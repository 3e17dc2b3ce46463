"""Compare scores with those of torch-fidelity and vendi-score on the same features: relative differences, and times.

    python benchmarks/scores.py --count 5000 --dim 768

Both get the same features, rectified Gaussians of rank 20, the samples' 1.2 times as wide. torch-fidelity computes
precision and recall in float32, and kernel distances in the type of the features, here float64. A package that is not
installed is left out, and named.
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from expost.metrics import Statistics, frechet_distance
from expost.metrics.gaussian import gaussian_discrepancy
from expost.metrics.kernel import kernel_distance
from expost.metrics.neighbours import neighbour_scores
from expost.metrics.sliced import monge_distance
from expost.metrics.vendi import vendi_scores

Values = dict[str, float]


def features(count: int, dim: int, seed: int, scale: float = 1.0) -> Tensor:
    """Return rectified Gaussian features of rank 20, float64."""
    drawn, mixing = (
        torch.randn(*shape, generator=torch.Generator().manual_seed(place), dtype=torch.float64)
        for shape, place in (((count, 20), seed), ((20, dim), 99))
    )
    return (scale * drawn @ mixing / 20**0.5).relu()


def peers() -> dict[str, Callable[[Tensor, Tensor], Values]]:
    """Return what is computed by each peer that is installed, by its module."""

    def fid(module: Any, x: Tensor, y: Tensor) -> Values:
        statistics = [module.fid_features_to_statistics(each) for each in (y, x)]
        return {"fid": module.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]}

    def kid(module: Any, x: Tensor, y: Tensor) -> Values:
        options = {"kid_subsets": 100, "kid_subset_size": min(1000, len(x)), "rng_seed": 0, "verbose": False}
        return {"kid": module.kid_features_to_metric(y, x, **options)["kernel_inception_distance_mean"]}

    def prc(module: Any, x: Tensor, y: Tensor) -> Values:
        found = module.prc_features_to_metric(y, x, prc_neighborhood=5, save_cpu_ram=True, verbose=False)
        return {name: found[name] for name in ("precision", "recall")}

    def mind(module: Any, x: Tensor, y: Tensor) -> Values:
        options = {"mind_num_projections": 1000, "cuda": False, "rng_seed": 0, "verbose": False}
        return {"mind": module.mind_features_to_metric(y, x, **options)["monge_inception_distance"]}

    def vendi(module: Any, x: Tensor, y: Tensor) -> Values:
        return {"vendi": float(module.score_dual(y.numpy()))}

    computed = {
        "torch_fidelity.metric_fid": fid,
        "torch_fidelity.metric_kid": kid,
        "torch_fidelity.metric_prc": prc,
        "torch_fidelity.metric_mind": mind,
        "vendi_score.vendi": vendi,
    }
    found: dict[str, Callable[[Tensor, Tensor], Values]] = {}
    for name, compute in computed.items():
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            print(f"left out: {name} ({error})")
            continue
        found[name] = lambda x, y, compute=compute, module=module: compute(module, x, y)  # type: ignore[misc]
    return found


def ours(x: Tensor, y: Tensor) -> dict[str, tuple[Values, float]]:
    """Return our scores with the seconds they took, by the module of the peer."""

    def neighbours() -> Values:
        found = neighbour_scores(x, y, k=5)
        return {"precision": found.precision, "recall": found.recall}

    computed: dict[str, Callable[[], Values]] = {
        "torch_fidelity.metric_fid": lambda: {"fid": frechet_distance(Statistics.of(x), Statistics.of(y))},
        "torch_fidelity.metric_kid": lambda: {
            "kid": kernel_distance(x, y, subset_size=min(1000, len(x)), seed=0).value
        },
        "torch_fidelity.metric_prc": neighbours,
        "torch_fidelity.metric_mind": lambda: {"mind": monge_distance(x, y, seed=0).value},
        "vendi_score.vendi": lambda: {"vendi": vendi_scores(y)[0].value},
        "": lambda: {"gaussian-mmd": gaussian_discrepancy(x, y).value},
    }
    return {name: timed(compute) for name, compute in computed.items()}


def timed(compute: Callable[[], Values]) -> tuple[Values, float]:
    """Return what is computed, and the seconds it took."""
    begun = time.perf_counter()
    return compute(), time.perf_counter() - begun


def main() -> None:
    """Print a row for each score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help="examples of each set")
    parser.add_argument("--dim", type=int, default=768, help="features")
    given = parser.parse_args()
    x, y = features(given.count, given.dim, 0), features(given.count, given.dim, 1, 1.2)
    theirs = {name: timed(lambda compute=compute: compute(x, y)) for name, compute in peers().items()}
    print(f"{'score':<14}{'ours':>16}{'peer':>16}{'difference':>12}{'seconds':>10}{'peer':>8}")
    for name, (mine, seconds) in ours(x, y).items():
        for score, value in mine.items():
            other, took = theirs.get(name, ({}, 0.0))
            if score in other:
                difference = abs(value - other[score]) / max(abs(other[score]), 1e-12)
                print(f"{score:<14}{value:>16.9g}{other[score]:>16.9g}{difference:>12.1e}{seconds:>10.2f}{took:>8.2f}")
            else:
                print(f"{score:<14}{value:>16.9g}{'-':>16}{'-':>12}{seconds:>10.2f}{'-':>8}")


if __name__ == "__main__":
    main()
