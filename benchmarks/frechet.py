"""Statistics and Frechet distance against pytorch-fid's route: numpy's mean and covariance, scipy's matrix root.

python benchmarks/frechet.py [--images 10000] [--dim 2048] [--json]
"""

from __future__ import annotations

import numpy as np
import scipy.linalg
import torch
from harness import Contest, compete, parser

from expost.metrics import Statistics, frechet_distance


def features(images: int, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw two sets of features with variances that decay like those of Inception's features."""
    source = torch.Generator().manual_seed(0)
    scale = torch.logspace(0, -2, dim)
    a, b = (torch.randn(images, dim, generator=source) * scale + shift for shift in (0.0, 0.01))
    return a, b


def numpy_statistics(x: torch.Tensor) -> object:
    """Return mean and covariance by numpy."""
    return np.mean(x.numpy(), axis=0), np.cov(x.numpy(), rowvar=False)


def main() -> None:
    """Measure and print."""
    options = parser(__doc__)
    options.add_argument("--images", type=int, default=10_000)
    options.add_argument("--dim", type=int, default=2048)
    arguments = options.parse_args()
    a, b = features(arguments.images, arguments.dim)
    first, second = Statistics.of(a), Statistics.of(b)
    moments = [(s.mean.numpy(), s.cov.numpy()) for s in (first, second)]

    def scipy_distance() -> float:
        (mean_a, cov_a), (mean_b, cov_b) = moments
        root = np.real(scipy.linalg.sqrtm(cov_a @ cov_b))
        return float(np.square(mean_a - mean_b).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * np.trace(root))

    ours, theirs = frechet_distance(first, second), scipy_distance()
    print(f"distance: ours {ours:.6f}, scipy {theirs:.6f}")
    assert abs(ours - theirs) < 1e-4 * abs(theirs)
    contests = [
        Contest("frechet_statistics", lambda: Statistics.of(a), lambda: numpy_statistics(a)),
        Contest("frechet_distance", lambda: frechet_distance(first, second), scipy_distance),
    ]
    compete(contests, arguments.repeats, arguments.json)


if __name__ == "__main__":
    main()
