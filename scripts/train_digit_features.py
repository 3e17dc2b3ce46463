"""Train the bundled digit classifier and write its weights: `python scripts/train_digit_features.py`.

It trains on the 4,000 training digits of `mnist-5k`, mildly deformed. The validation and test digits choose nothing;
they are only scored at the end. With one thread and a fixed seed, the same machine and torch version give the same
bytes.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from expost.data import load_data
from expost.metrics.digits import WEIGHTS, DigitNetwork
from expost.types import Data, Split, to_unit
from expost.utils.store import write_tensors

SEED, EPOCHS, BATCH_SIZE, LEARNING_RATE, WEIGHT_DECAY = 0, 100, 64, 3e-3, 1e-2
DEGREES, SCALE, SHEAR, SHIFT = 12.0, 0.12, 0.15, 2.0


def deform(x: Tensor, generator: torch.Generator) -> Tensor:
    """Rotate by up to 12 degrees, scale by up to 12 %, shear by up to 0.15, shift by up to 2 pixels, each uniform."""
    n, side = len(x), x.shape[-1]
    r = torch.rand(6, n, generator=generator) * 2 - 1
    angle = r[0] * math.radians(DEGREES)
    wide, high = 1 + SCALE * r[1], 1 + SCALE * r[2]
    cos, sin = angle.cos(), angle.sin()
    shift = 2 * SHIFT / side
    top = torch.stack([cos * wide, -sin * high + SHEAR * r[3], shift * r[4]], dim=1)
    bottom = torch.stack([sin * wide, cos * high, shift * r[5]], dim=1)
    grid = functional.affine_grid(torch.stack([top, bottom], dim=1), list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, align_corners=False)


class Normalized(nn.Module):
    """The classifier with batch normalisation before its features, so that each has unit scale and none dies."""

    def __init__(self, network: DigitNetwork) -> None:
        super().__init__()
        self.network = network
        self.norm = nn.BatchNorm1d(network.hidden.out_features, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.network.hidden(self.network.convs(x))
        return self.network.head(functional.relu(self.norm(hidden)))

    @torch.no_grad()
    def folded(self) -> DigitNetwork:
        """Return the classifier with the normalisation folded into its hidden layer."""
        mean, var = self.norm.running_mean, self.norm.running_var
        assert mean is not None
        assert var is not None
        scale = (var + self.norm.eps).rsqrt()
        self.network.hidden.weight.mul_(scale[:, None])
        self.network.hidden.bias.sub_(mean).mul_(scale)
        return self.network.eval()


def train(split: Split, epochs: int = EPOCHS, seed: int = SEED) -> DigitNetwork:
    """Return the classifier after `epochs` passes over `split`, by AdamW with one cycle of the learning rate."""
    assert split.y is not None
    torch.manual_seed(seed)  # for the initial weights; this script owns its process
    generator = torch.Generator().manual_seed(seed)
    network = Normalized(DigitNetwork())
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    steps = epochs * math.ceil(len(split) / BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=LEARNING_RATE, total_steps=steps)
    x = to_unit(split.x)
    for _ in range(epochs):
        for index in torch.randperm(len(split), generator=generator).split(BATCH_SIZE):
            optimizer.zero_grad()
            loss = functional.cross_entropy(network(deform(x[index], generator)), split.y[index])
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.folded()


@torch.inference_mode()
def accuracy(network: DigitNetwork, split: Split) -> float:
    """Return the share of `split` that is classified correctly."""
    assert split.y is not None
    return float((network(to_unit(split.x)).argmax(1) == split.y).double().mean())


def record(network: DigitNetwork, data: Data) -> dict[str, object]:
    """Say what the weights are, where they come from, and how well they do."""
    return {
        "what": "classifier of gray 32x32 digits; its features are the 64 activations before the last layer",
        "data": f"{data.name}, training split of {len(data.train)} ({data.note})",
        "made_by": "scripts/train_digit_features.py",
        "seed": SEED,
        "epochs": EPOCHS,
        "torch": torch.__version__.partition("+")[0],
        "validation_accuracy": accuracy(network, data.validation),
        "test_accuracy": accuracy(network, data.test),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the bundled digit classifier and write its weights.")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="where to (default: into the package)")
    out = parser.parse_args().out
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    data = load_data("mnist-5k")
    network = train(data.train)
    facts = record(network, data)
    write_tensors(out, network.state_dict(), facts)
    print(f"{out}: {out.stat().st_size} bytes, test accuracy {facts['test_accuracy']:.4f}")


if __name__ == "__main__":
    main()
