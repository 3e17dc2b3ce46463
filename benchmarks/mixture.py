"""Mixture EM against scikit-learn: same data, same start, same number of iterations, same likelihood.

python benchmarks/mixture.py [--codes 50000] [--dim 64] [--components 10] [--iterations 30] [--json]
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from harness import Contest, compete, parser
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as Peer

from expost.densities import GaussianMixture, MixtureStart


def main() -> None:
    """Measure and print."""
    options = parser(__doc__)
    for name, value in (("codes", 50_000), ("dim", 64), ("components", 10), ("iterations", 30)):
        options.add_argument(f"--{name}", type=int, default=value)
    arguments = options.parse_args()
    n, d, k = arguments.codes, arguments.dim, arguments.components
    source = torch.Generator().manual_seed(0)
    centers = 3 * torch.randn(k, d, generator=source, dtype=torch.float64)
    mixing = torch.randn(k, d, d, generator=source, dtype=torch.float64) / d**0.5
    labels = torch.arange(n) % k
    z = centers[labels] + (mixing[labels] @ torch.randn(n, d, 1, generator=source, dtype=torch.float64)).squeeze(2)
    means = z[torch.randperm(n, generator=source)[:k]]
    covariance = torch.cov(z.T)
    start = MixtureStart(torch.full((k,), 1 / k, dtype=torch.float64), means, covariance.expand(k, d, d).clone())
    precisions = np.broadcast_to(np.linalg.inv(covariance.numpy()), (k, d, d)).copy()
    on_device = z.to(arguments.device)

    def ours() -> float:
        density = GaussianMixture(components=k, max_iter=arguments.iterations, tol=0.0).fit_from(on_device, start)
        return float(density.log_prob(z[:5000]).mean())

    def theirs() -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            peer = Peer(
                k, max_iter=arguments.iterations, tol=0.0, weights_init=np.full(k, 1 / k), means_init=means.numpy(),
                precisions_init=precisions,
            ).fit(z.numpy())  # fmt: skip
        return float(peer.score(z[:5000].numpy()))

    a, b = ours(), theirs()
    print(f"log-likelihood of 5,000 codes: ours {a:.6f}, scikit-learn {b:.6f}")
    assert a >= b - 1e-6, "the fits differ"
    compete([Contest("mixture", ours, theirs)], arguments.repeats, arguments.json)


if __name__ == "__main__":
    main()
