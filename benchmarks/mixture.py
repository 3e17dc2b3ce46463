"""Mixture EM against scikit-learn: same data, same start, same number of iterations, same likelihood.

python benchmarks/mixture.py [--codes 50000] [--dim 64] [--components 10] [--iterations 30] [--json]
SCIPY_ARRAY_API=1 python benchmarks/mixture.py --array-api [--device cuda]

With --array-api scikit-learn computes on torch tensors, on the same device as ours (scikit-learn 1.8 or newer).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import sklearn
import torch
from harness import Contest, compete, parser
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as Peer

from expost.densities import GaussianMixture, MixtureStart

#: Codes on which the fits are compared.
COMPARED = 5_000


@dataclass(frozen=True)
class Problem:
    """Codes, shape (n, d), and where EM begins."""

    z: torch.Tensor
    start: MixtureStart


def problem(codes: int, dim: int, components: int) -> Problem:
    """Draw codes from a mixture, and a start."""
    source = torch.Generator().manual_seed(0)
    centers = 3 * torch.randn(components, dim, generator=source, dtype=torch.float64)
    mixing = torch.randn(components, dim, dim, generator=source, dtype=torch.float64) / dim**0.5
    labels = torch.arange(codes) % components
    noise = torch.randn(codes, dim, 1, generator=source, dtype=torch.float64)
    z = centers[labels] + (mixing[labels] @ noise).squeeze(2)
    means = z[torch.randperm(codes, generator=source)[:components]]
    weights = torch.full((components,), 1 / components, dtype=torch.float64)
    return Problem(z, MixtureStart(weights, means, torch.cov(z.T).expand(components, dim, dim).clone()))


def ours(given: Problem, z: torch.Tensor, iterations: int) -> float:
    """Fit ours to `z`, the codes on some device; return the mean log-likelihood of some codes."""
    density = GaussianMixture(components=len(given.start.weights), max_iter=iterations, tol=0.0)
    return float(density.fit_from(z, given.start).log_prob(given.z[:COMPARED]).mean())


def theirs(given: Problem, iterations: int, device: torch.device | None = None) -> float:
    """Fit scikit-learn's: on NumPy arrays, or on torch tensors on a device."""
    precisions = torch.linalg.inv(given.start.covariances)
    arrays = (given.z, given.start.weights, given.start.means, precisions)
    z, weights, means, precisions = (a.numpy() if device is None else a.to(device) for a in arrays)
    with sklearn.config_context(array_api_dispatch=device is not None), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        # the start is given: `init_params` is not used, but its default is refused for torch tensors
        peer = Peer(
            len(weights), max_iter=iterations, tol=0.0, init_params="random", random_state=0, weights_init=weights,
            means_init=means, precisions_init=precisions, reg_covar=1e-6 * float(given.z.var(0, correction=0).mean()),
        ).fit(z)  # fmt: skip
        return float(peer.score(z[:COMPARED]))


def main() -> None:
    """Measure and print."""
    options = parser(__doc__)
    for name, value in (("codes", 50_000), ("dim", 64), ("components", 10), ("iterations", 30)):
        options.add_argument(f"--{name}", type=int, default=value)
    options.add_argument("--array-api", action="store_true", help="scikit-learn on torch tensors, on the same device")
    arguments = options.parse_args()
    given = problem(arguments.codes, arguments.dim, arguments.components)
    z, iterations = given.z.to(arguments.device), arguments.iterations
    device = torch.device(arguments.device) if arguments.array_api else None
    a, b = ours(given, z, iterations), theirs(given, iterations, device)
    print(f"log-likelihood of {COMPARED:,} codes: ours {a:.6f}, scikit-learn {b:.6f}")
    assert a >= b - 1e-6, "the fits differ"
    contest = Contest("mixture", lambda: ours(given, z, iterations), lambda: theirs(given, iterations, device))
    compete([contest], arguments.repeats, arguments.json)


if __name__ == "__main__":
    main()
