"""Train the bundled classifier of spoken digits: `EXPOST_DATA=... python scripts/train_spoken_digit_features.py`.

It trains on the four training speakers of `fsdd`, mildly deformed in time, frequency and level, with stripes of time
and frequency left out. The validation and test speakers choose nothing; they are only scored at the end. With one
thread and a fixed seed, the same machine and torch version give the same bytes.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from expost.data import load_data
from expost.metrics.spoken_digits import HEARD, WEIGHTS, SpokenDigitNetwork, recognized
from expost.types import Data, Split, to_unit
from expost.utils.store import write_tensors

SEED, EPOCHS, BATCH_SIZE, LEARNING_RATE, WEIGHT_DECAY, SMOOTHING = 0, 80, 64, 3e-3, 3e-2, 0.05
TIME, FREQUENCY, LATER, HIGHER = 0.25, 0.15, 6.0, 4.0  # scales; shifts in frames and bands
FLOOR, STRIPE = 0.3, 12


def deform(x: Tensor, generator: torch.Generator) -> Tensor:
    """Stretch time by up to 25 % and frequency by up to 15 %, shift both, raise the floor, leave stripes out."""
    n, side = len(x), x.shape[-1]
    r = torch.rand(8, n, generator=generator) * 2 - 1
    zero = torch.zeros(n)
    wide, high = (TIME * r[0]).exp(), (FREQUENCY * r[1]).exp()
    # a recording starts at the left, and stays there but for the shift
    across = torch.stack([wide, zero, wide - 1 + 2 * LATER / side * r[2]], dim=1)
    down = torch.stack([zero, high, 2 * HIGHER / side * r[3]], dim=1)
    grid = functional.affine_grid(torch.stack([across, down], dim=1), list(x.shape), align_corners=False)
    x = functional.grid_sample(x, grid, align_corners=False)
    floor = FLOOR * r[4].clamp_min(0)[:, None, None, None]
    x = torch.where(x > 0, (x - floor).clamp_min(0) / (1 - floor), 0.0)
    places = torch.arange(side)
    for axis, start, width in ((2, r[5], r[6]), (3, r[7], r[0])):
        low = ((start + 1) / 2 * side)[:, None]
        left_out = (places >= low) & (places < low + width.abs()[:, None] * STRIPE)
        x = x.masked_fill(left_out[:, None, :, None] if axis == 2 else left_out[:, None, None, :], 0.0)
    return x


class Normalized(nn.Module):
    """The classifier with batch normalisation before its features, so that each has unit scale and none dies."""

    def __init__(self, network: SpokenDigitNetwork) -> None:
        super().__init__()
        self.network = network
        self.norm = nn.BatchNorm1d(network.hidden.out_features, affine=False)
        self.dropout = nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.network.hidden(self.dropout(self.network.convs(x)))
        return self.network.head(functional.relu(self.norm(hidden)))

    @torch.no_grad()
    def folded(self) -> SpokenDigitNetwork:
        """Return the classifier with the normalisation folded into its hidden layer."""
        mean, var = self.norm.running_mean, self.norm.running_var
        assert mean is not None
        assert var is not None
        scale = (var + self.norm.eps).rsqrt()
        self.network.hidden.weight.mul_(scale[:, None])
        self.network.hidden.bias.sub_(mean).mul_(scale)
        return self.network.eval()


def train(split: Split, epochs: int = EPOCHS, seed: int = SEED) -> SpokenDigitNetwork:
    """Return the classifier after `epochs` passes over `split`, by AdamW with one cycle of the learning rate."""
    assert split.y is not None
    torch.manual_seed(seed)  # for the initial weights and dropout; this script owns its process
    generator = torch.Generator().manual_seed(seed)
    network = Normalized(SpokenDigitNetwork())
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    steps = epochs * math.ceil(len(split) / BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=LEARNING_RATE, total_steps=steps)
    x = to_unit(split.x)
    for _ in range(epochs):
        for index in torch.randperm(len(split), generator=generator).split(BATCH_SIZE):
            optimizer.zero_grad()
            logits = network(deform(x[index], generator))
            loss = functional.cross_entropy(logits, split.y[index], label_smoothing=SMOOTHING)
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.folded()


def accuracy(network: SpokenDigitNetwork, split: Split) -> float:
    """Return the share of `split` that is classified correctly."""
    assert split.y is not None
    return float((recognized(split.x, network) == split.y).double().mean())


def record(network: SpokenDigitNetwork, data: Data) -> dict[str, object]:
    """Say what the weights are, where they come from, and how well they do."""
    return {
        "what": "classifier of 64x64 log-mel frames of spoken digits; its features are the 64 activations before the "
        "last layer",
        "data": f"{data.name}, training speakers ({data.note.partition('; ')[2]})",  # without the path
        "made_by": "scripts/train_spoken_digit_features.py",
        "seed": SEED,
        "epochs": EPOCHS,
        "torch": torch.__version__.partition("+")[0],
        "training_accuracy": accuracy(network, data.train),
        "validation_accuracy": accuracy(network, data.validation),
        "test_accuracy": accuracy(network, data.test),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the bundled classifier of spoken digits and write its weights.")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="where to (default: into the package)")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    data = load_data("fsdd")
    assert data.sound == HEARD
    network = train(data.train, arguments.epochs)
    facts = record(network, data)
    write_tensors(arguments.out, network.state_dict(), facts)
    print(
        f"{arguments.out}: {arguments.out.stat().st_size} bytes, accuracy on speakers of training "
        f"{facts['training_accuracy']:.4f}, validation {facts['validation_accuracy']:.4f}, test "
        f"{facts['test_accuracy']:.4f}"
    )


if __name__ == "__main__":
    main()
