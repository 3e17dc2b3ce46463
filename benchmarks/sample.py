"""Sampling a mixture and decoding against Pythae's GaussianMixtureSampler: same networks, same mixture.

python benchmarks/sample.py [--images 500] [--width 128] [--json]
"""

from __future__ import annotations

import numpy as np
import torch
from harness import Contest, compete, parser
from peer import ours, theirs
from sklearn.mixture import GaussianMixture as Sklearn

from expost.generators.generator import Generator
from expost.training.devices import place


def main() -> None:
    """Measure and print."""
    options = parser(__doc__)
    options.add_argument("--images", type=int, default=500)
    options.add_argument("--width", type=int, default=128)
    arguments = options.parse_args()
    device = torch.device(arguments.device)
    codes = torch.randn(5_000, 16, generator=torch.Generator().manual_seed(0))
    model = ours("rae-l2", arguments.width)
    place(model, device)
    generator = Generator.of(model)
    generator.fit("gmm", codes=codes)
    from pythae.samplers import GaussianMixtureSampler, GaussianMixtureSamplerConfig

    peer = theirs("rae-l2", arguments.width).eval().to(device)
    sampler = GaussianMixtureSampler(peer, GaussianMixtureSamplerConfig(n_components=10))
    sampler.gmm = Sklearn(10, random_state=0).fit(codes.numpy().astype(np.float32))
    sampler.is_fitted = True
    count = arguments.images

    def pythae() -> torch.Tensor:
        return sampler.sample(num_samples=count, batch_size=500)

    contest = Contest("sample", lambda: generator.sample(count, "gmm"), pythae, "images", count)
    compete([contest], arguments.repeats, arguments.json)


if __name__ == "__main__":
    main()
