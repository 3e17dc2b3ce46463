"""Training steps of RAE-L2, RAE-GP, VAE and WAE-MMD against Pythae: same networks, same batch.

    python benchmarks/train_step.py [--width 128] [--batch 100] [--steps 3] [--json]

Ours is the step of `expost train`: bf16 networks, channels last, fused Adam. Theirs is the model's forward, backward
and Adam, without the rest of Pythae's trainer. rae-gp takes the penalty on the whole batch, rae-gp-quarter on a quarter
of it, as preset small does.
"""

from __future__ import annotations

import torch
from harness import Contest, compete, parser
from peer import MNIST, ours, theirs
from torch import nn

from expost.training import place


def our_steps(model: str, width: int, x: torch.Tensor, steps: int, device: torch.device, **options: object):
    """Return what takes some steps of ours."""
    network = ours(model, width, **options).train()
    place(network, device, image=True)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    batch = x.to(device)

    def work() -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            with torch.autocast(device.type, torch.bfloat16):
                loss = network.loss(batch).total
            loss.backward()
            optimizer.step()

    return work


def their_steps(model: str, width: int, x: torch.Tensor, steps: int, device: torch.device):
    """Return what takes as many steps of Pythae's."""
    network: nn.Module = theirs(model, width).train().to(device)
    network.device = device
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    batch = x.to(device)

    def work() -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            network({"data": batch}).loss.backward()
            optimizer.step()

    return work


def main() -> None:
    """Measure and print."""
    options = parser(__doc__)
    options.add_argument("--width", type=int, default=128, help="channels of the first convolution")
    options.add_argument("--batch", type=int, default=100)
    options.add_argument("--steps", type=int, default=2)
    arguments = options.parse_args()
    x = torch.rand(arguments.batch, *MNIST, generator=torch.Generator().manual_seed(0))
    device = torch.device(arguments.device)
    sizes = (arguments.width, x, arguments.steps, device)
    count = arguments.batch * arguments.steps
    rows = [("rae-l2", "rae-l2", {}), ("vae", "vae", {}), ("wae-mmd", "wae-mmd", {}), ("rae-gp", "rae-gp", {})]
    rows.append(("rae-gp-quarter", "rae-gp", {"regularizer.fraction": 0.25}))
    contests = [
        Contest(f"train_{name}", our_steps(model, *sizes, **given), their_steps(model, *sizes), "images", count)
        for name, model, given in rows
    ]
    compete(contests, arguments.repeats, arguments.json)


if __name__ == "__main__":
    main()
