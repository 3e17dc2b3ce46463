"""Training steps of RAE-L2, RAE-GP, VAE and WAE-MMD against Pythae: same networks, same batch.

    python benchmarks/train_step.py --precision float32 [--width 32] [--batch 50] [--threads 1] [--steps 2] [--json]
    python benchmarks/train_step.py --profile

Ours is the step of `expost train`: channels last, fused Adam, freed memory kept, in the requested precision. Theirs is
the model's forward, backward and Adam in float32, without the rest of Pythae's trainer; with --precision float32 both
sides use the same arithmetic. Its networks are torch's own layers, in torch's default layout, or with --channels-last
in ours. rae-gp computes the penalty on the whole batch, rae-gp-quarter on a quarter of it. To emulate an older CPU:
ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from harness import Contest, compete, hardware, instructions, parser
from peer import MNIST, ours, theirs
from torch import nn
from torch.profiler import ProfilerActivity, profile

from expost.training.devices import place
from expost.utils.precision import choose
from expost.utils.process import freed_memory_kept


def our_steps(model: str, width: int, x: torch.Tensor, steps: int, device: torch.device, bf16: bool, **options: object):
    """Return what takes some steps of ours."""
    network = ours(model, width, **options).train()
    place(network, device)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    batch = x.to(device)

    @freed_memory_kept()
    def work() -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                loss = network.loss(batch).total
            loss.backward()
            optimizer.step()

    return work


def their_steps(model: str, width: int, x: torch.Tensor, steps: int, device: torch.device, channels_last: bool = False):
    """Return what takes as many steps of Pythae's."""
    network: nn.Module = theirs(model, width, channels_last).train().to(device)
    network.device = device
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    batch = x.to(device)

    def work() -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            network({"data": batch}).loss.backward()
            optimizer.step()

    return work


def matrix_rate(device: torch.device, bf16: bool, side: int = 2048) -> float:
    """Return the best rate of a matrix product in FLOP/s: what a step could reach at most."""
    matrix, best = torch.randn(side, side, device=device), float("inf")
    matrix = matrix.bfloat16() if bf16 else matrix
    for _ in range(5):
        started = time.perf_counter()
        _ = (matrix @ matrix)[0, 0].item()  # waits for the device
        best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best


def show_profile(work: Callable[[], object], device: torch.device, bf16: bool) -> None:
    """Print the operators of one step by the time they take themselves."""
    work()
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    started = time.perf_counter()
    with profile(activities=kinds) as recorded:
        work()
    print(f"{hardware()}; one step {time.perf_counter() - started:.2f} s")
    print(f"matrix product: {matrix_rate(device, bf16) / 1e12:.2f} TFLOP/s")
    print(recorded.key_averages().table(sort_by=f"self_{device.type}_time_total", row_limit=15))


def main() -> None:
    """Measure and print."""
    options = parser(__doc__)
    options.add_argument("--width", type=int, default=128, help="channels of the first convolution")
    options.add_argument("--batch", type=int, default=100)
    options.add_argument("--steps", type=int, default=2)
    options.add_argument("--precision", choices=("auto", "float32", "bf16"), default="auto", help="precision of ours")
    options.add_argument("--threads", type=int, default=0, help="threads of torch; 0 keeps its default")
    options.add_argument("--channels-last", action="store_true", help="give the peer's decoder our layout")
    options.add_argument("--profile", action="store_true", help="profile a rae-l2 step")
    arguments = options.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    x = torch.rand(arguments.batch, *MNIST, generator=torch.Generator().manual_seed(0))
    device = torch.device(arguments.device)
    chosen = choose(arguments.precision, device)
    bf16 = chosen.arithmetic == "bf16"
    sizes = (arguments.width, x, arguments.steps, device)
    if arguments.profile:
        show_profile(our_steps("rae-l2", arguments.width, x, 1, device, bf16), device, bf16)
        return
    print(f"ours {chosen}, theirs float32; width {arguments.width}, batch {arguments.batch}, {instructions()}")
    count = arguments.batch * arguments.steps
    rows = [("rae-l2", "rae-l2", {}), ("vae", "vae", {}), ("wae-mmd", "wae-mmd", {}), ("rae-gp", "rae-gp", {})]
    rows.append(("rae-gp-quarter", "rae-gp", {"regularizer.fraction": 0.25}))
    contests = [
        Contest(
            f"train_{name}_{chosen.arithmetic}",
            our_steps(model, *sizes, bf16, **given),
            their_steps(model, *sizes, arguments.channels_last),
            "images",
            count,
        )
        for name, model, given in rows
    ]
    compete(contests, arguments.repeats, arguments.json)


if __name__ == "__main__":
    main()
