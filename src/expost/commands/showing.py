"""Commands that show what a run has learned: samples, reconstructions, paths between examples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from expost.commands.arguments import (
    Count,
    Output,
    RunLike,
)
from expost.commands.groups import takes
from expost.commands.outputs import within
from expost.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from expost.types import Split


@takes()
def sample(
    run: RunLike,
    n: Count = 64,
    out: Output | None = None,
    density: str | None = None,
    label: str | None = None,
    temperature: float = 0.0,
    code_temperature: float = 1.0,
    seed: int = 0,
    device: str = "auto",
) -> Path:
    """Draw from a fitted density and decode.

    Args:
        run: The run.
        n: Number of samples.
        out: Images: FILE.png, .jpg or .webp (a grid), FILE.npy (uint8, N x C x H x W), or a folder (one file per
            sample). Tables: FILE.csv or .npy. Strings: FILE.txt or .smi; molecules also FILE.png. Default: samples.png,
            .csv or .txt in the run's folder, numbered where it exists.
        density: A fitted density; default: gmm if it is fitted, else the last one.
        label: A class, or a value of the property, that densities were fitted by (`expost fit --by`); default: any.
        temperature: Strings only: 0 takes the most likely symbol at each step, 1 draws from the decoder's distribution.
        code_temperature: Below 1, samples concentrate near the modes of the density (cleaner, less diverse); above
            1 they spread; 1 draws from the density as it was fitted.
        seed: Seed of the draws.
        device: auto, cpu, cuda or mps.

    Returns:
        Where the samples are.
    """
    from expost.examples import Wish, examples_of
    from expost.examples.outputs import check_output
    from expost.run import open_run

    opened = open_run(run)
    examples = examples_of(opened.config)
    if temperature and not examples.symbols:
        raise UsageError(f"temperature is {temperature}, but {opened.folder} is no run of strings; leave it out")
    path = check_output(Path(out) if out is not None else within(opened.folder, examples.usual), examples.samples)
    wish = Wish(n, density, label, seed, temperature, code_temperature)
    examples.write(examples.draw(opened.generator(device), wish), path)
    return path


@takes()
def reconstruct(run: RunLike, out: Output | None = None, n: Count = 40, device: str = "auto") -> Path:
    """Show test examples and their reconstructions: images in rows, strings in two columns.

    Args:
        run: The run.
        out: Images: FILE.png. Strings: FILE.txt, with a tab between the columns. Tables: FILE.csv, where each row ends
            with its reconstruction. Default: reconstructions.png, .csv or .txt in the run's folder, numbered where it
            exists.
        n: Number of test examples.
        device: auto, cpu, cuda or mps.

    Returns:
        Where the picture is.
    """
    from expost.examples import examples_of
    from expost.examples.outputs import check_output
    from expost.run import open_run

    opened = open_run(run)
    examples = examples_of(opened.config)
    usual = f"reconstructions{examples.pairs[0]}"
    path = check_output(Path(out) if out is not None else within(opened.folder, usual), examples.pairs)
    examples.write_pairs(opened.generator(device), _first(opened.data().test, n), path)
    return path


@takes()
def interpolate(
    run: RunLike,
    out: Output | None = None,
    method: str = "linear",
    n: Count = 8,
    steps: int = 10,
    seed: int = 0,
    device: str = "auto",
) -> Path:
    """Show paths between the codes of random pairs of test examples, a row each.

    Args:
        run: The run.
        out: Images: FILE.png. Strings: FILE.txt, with tabs between the steps. Tables: FILE.csv, one row per step.
            Default: paths.png, .csv or .txt in the run's folder, numbered where it exists.
        method: linear, linear-rescaled or spherical.
        n: Number of pairs.
        steps: Points of a path, both ends included.
        seed: Seed of the choice of pairs.
        device: auto, cpu, cuda or mps.

    Returns:
        Where the picture is.
    """
    import torch

    from expost.examples import examples_of
    from expost.examples.outputs import check_output
    from expost.generators.interpolation import INTERPOLATIONS
    from expost.run import open_run

    opened = open_run(run)
    examples = examples_of(opened.config)
    usual = f"paths{examples.paths[0]}"
    path = check_output(Path(out) if out is not None else within(opened.folder, usual), examples.paths)
    _ = INTERPOLATIONS[method]
    if steps < 2:
        raise UsageError(f"steps is {steps}; a path has at least its 2 ends")
    x = opened.data().test.x
    chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    half = min(max(n, 1), len(x) // 2)
    a, b = x[chosen[:half]], x[chosen[half : 2 * half]]
    examples.write_paths(opened.generator(device), (a, b), torch.linspace(0, 1, steps), method, path)
    return path


def _first(split: Split, n: int) -> Tensor:
    if n < 1:
        raise UsageError(f"n is {n}; ask for at least 1 example")
    return split.x[:n]
