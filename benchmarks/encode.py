"""Encode a data set for density fitting, against Pythae's samplers.

    python benchmarks/encode.py [--images 1000] [--width 128] [--json]

Ours is `Generator.encode`. Theirs is the loop of `GaussianMixtureSampler.fit` up to the codes: a loader with batches of
100, and a run of the whole model for its z.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from harness import Contest, compete, parser
from peer import MNIST, ours, theirs

from expost.generators.generator import Generator
from expost.training.devices import place

Route = Callable[[], torch.Tensor]


def routes(images: int, width: int, device: torch.device) -> tuple[Route, Callable[[], Route]]:
    """Return our route from images to codes, and what makes Pythae's (it needs Pythae)."""
    x = torch.randint(0, 256, (images, *MNIST), dtype=torch.uint8)
    model = ours("rae-l2", width)
    place(model, device)
    generator = Generator.of(model)

    def make_theirs() -> Route:
        peer = theirs("rae-l2", width).eval().to(device)
        from pythae.data.preprocessors import DataProcessor
        from pythae.trainers.base_trainer.base_trainer import collate_dataset_output
        from torch.utils.data import DataLoader

        def pythae() -> torch.Tensor:
            processor = DataProcessor()
            data = processor.to_dataset(processor.process_data(x.float() / 255).to(device))
            loader = DataLoader(data, batch_size=100, shuffle=False, collate_fn=collate_dataset_output)
            with torch.no_grad():
                return torch.cat([peer(inputs).z for inputs in loader])

        return pythae

    return lambda: generator.encode(x), make_theirs


def main() -> None:
    """Measure and print."""
    options = parser(__doc__)
    options.add_argument("--images", type=int, default=1000)
    options.add_argument("--width", type=int, default=128)
    arguments = options.parse_args()
    encode, make_theirs = routes(arguments.images, arguments.width, torch.device(arguments.device))
    pythae = make_theirs()
    gap = (pythae().cpu() - encode()).abs().max()
    assert gap < 1e-3, f"the codes differ by {gap}"
    contest = Contest("encode", encode, pythae, "images", arguments.images)
    compete([contest], arguments.repeats, arguments.json)


if __name__ == "__main__":
    main()
