"""Commands that show what a run has learned: samples, reconstructions, paths between examples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from expost.commands.arguments import (
    Count,
    Output,
    RunLike,
    open_run,
)
from expost.errors import DataError, UsageError
from expost.evaluation.strings import remark_on_alike
from expost.examples import pictures
from expost.examples.outputs import (
    PICTURE_SUFFIXES,
    TEXT_SUFFIXES,
    VECTOR_SUFFIXES,
    check_output,
    write_examples,
    write_strings,
    write_vectors,
)
from expost.generators.interpolation import INTERPOLATIONS
from expost.metrics.molecules import parse_molecule
from expost.search.drawing import structures
from expost.types import Split
from expost.utils.extras import installed
from expost.utils.progress import say

#: Molecules in a picture.
MOST_DRAWN = 64


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
        n: How many samples.
        out: FILE.png (or .jpg, .webp: a grid), FILE.npy (uint8 images N x C x H x W), or a folder (an image a sample);
            of tables FILE.csv or .npy; of strings FILE.txt or .smi, of molecules FILE.png too. Unless given,
            samples.png, .csv or .txt.
        density: A fitted density; gmm if it is fitted, else the other one.
        label: A class, or a value of a property, that a density was fitted by (`expost fit --by`); any unless given.
        temperature: Of strings: 0 takes the most likely symbol at each step, 1 draws from the decoder's distribution.
        code_temperature: Of the density: below 1 codes keep to where it is high (cleaner, less various samples), above
            1 they spread; 1 draws from it as it was fitted.
        seed: Seeds the draws.
        device: auto, cpu, cuda or mps.

    Returns:
        Where the samples are.
    """
    opened = open_run(run)
    strings = opened.config.data.codec is not None
    if temperature and not strings:
        raise UsageError(f"temperature is {temperature}, but {opened.folder} is no run of strings; leave it out")
    if strings:
        suffixes = (*TEXT_SUFFIXES, *PICTURE_SUFFIXES) if opened.config.data.domain == "molecules" else TEXT_SUFFIXES
        path = check_output(Path(out or "samples.txt"), suffixes)
        drawn = opened.string_generator(device).sample(n, density, seed, temperature, label, code_temperature)
        remark_on_alike(drawn, "samples")
        if path.suffix.lower() in PICTURE_SUFFIXES:
            _draw(drawn, path)
            return path
        lost = write_strings(drawn, path)
        if lost:
            say(f"{lost} of {n} derivations did not end within the model's length, and are left out")
        # the molecules extra is not needed to write strings
        if opened.config.data.domain == "molecules" and installed("rdkit"):
            _molecules(drawn)
        return path
    if len(opened.config.model.shape) == 1:
        path = check_output(Path(out or "samples.csv"), VECTOR_SUFFIXES)
        vectors = opened.generator(device).sample(n, density, seed, label, code_temperature)
        write_vectors(vectors, path, opened.config.data.columns)
        return path
    path = check_output(Path(out or "samples.png"))
    write_examples(opened.generator(device).sample(n, density, seed, label, code_temperature), path)
    return path


def _molecules(smiles: Sequence[str | None]) -> list[str]:
    """Return the molecules among strings, and say how many there are, and how many are different."""
    valid = [each for each in smiles if each is not None and parse_molecule(each) is not None]
    say(f"{len(valid)} of {len(smiles)} samples are molecules, {len(set(valid))} different")
    return valid


def _draw(smiles: Sequence[str | None], path: Path) -> None:
    """Draw the molecules among strings."""
    valid = _molecules(smiles)
    if not valid:
        raise DataError(f"none of the {len(smiles)} samples is a molecule; train longer, or on more strings")
    shown = valid[:MOST_DRAWN]
    picture = structures(shown, [""] * len(shown), columns=8 if len(shown) > 16 else 4)
    assert picture is not None  # all of them are molecules
    pictures.save_picture(picture, path)
    if len(shown) < len(valid):
        say(f"the first {len(shown)} are drawn")


def reconstruct(run: RunLike, out: Output, n: Count = 40, device: str = "auto") -> Path:
    """Show test examples and their reconstructions: images in rows, strings in two columns.

    Args:
        run: The run.
        out: FILE.png; of strings FILE.txt, with a tab between the columns; of tables FILE.csv, in which a row's
            reconstruction stands behind it.
        n: How many test examples.
        device: auto, cpu, cuda or mps.

    Returns:
        Where the picture is.
    """
    opened = open_run(run)
    if opened.config.data.codec is not None:
        path = check_output(Path(out), TEXT_SUFFIXES)
        strings = opened.string_generator(device)
        rows = _first(opened.data().test, n)
        pairs = zip(strings.codec.decode(rows), strings.reconstruct(rows), strict=True)
        write_strings([f"{original}\t{back or ''}" for original, back in pairs], path)
        return path
    if len(opened.config.model.shape) == 1:
        path = check_output(Path(out), VECTOR_SUFFIXES)
        x = _first(opened.data().test, n)
        names = opened.config.data.columns or tuple(f"x{index}" for index in range(x.shape[1]))
        both = torch.cat([x, opened.generator(device).reconstruct(x)], dim=1)
        write_vectors(both, path, [*names, *(f"{name}, reconstructed" for name in names)])
        return path
    path = check_output(Path(out), PICTURE_SUFFIXES)
    x = _first(opened.data().test, n)
    pictures.save_picture(pictures.pairs(x, pictures.to_bytes(opened.generator(device).reconstruct(x)), 10), path)
    return path


def interpolate(
    run: RunLike,
    out: Output,
    method: str = "linear",
    n: Count = 8,
    steps: int = 10,
    seed: int = 0,
    device: str = "auto",
) -> Path:
    """Show paths between the codes of random pairs of test examples, a row each.

    Args:
        run: The run.
        out: FILE.png; of strings FILE.txt, with tabs between the steps.
        method: linear, linear-rescaled or spherical.
        n: How many pairs.
        steps: Steps of a path, both ends included.
        seed: Seeds the choice of pairs.
        device: auto, cpu, cuda or mps.

    Returns:
        Where the picture is.
    """
    opened = open_run(run)
    strings = opened.config.data.codec is not None
    path = check_output(Path(out), TEXT_SUFFIXES if strings else PICTURE_SUFFIXES)
    _ = INTERPOLATIONS[method]
    if steps < 2:
        raise UsageError(f"steps is {steps}; a path has at least its 2 ends")
    x = opened.data().test.x
    chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    half = min(max(n, 1), len(x) // 2)
    a, b = x[chosen[:half]], x[chosen[half : 2 * half]]
    positions = torch.linspace(0, 1, steps)
    if strings:
        generator = opened.string_generator(device)
        decoded = generator.decode(generator.generator.path(a, b, positions, method).flatten(0, 1))
        rows = [decoded[start : start + steps] for start in range(0, len(decoded), steps)]
        write_strings(["\t".join(string or "" for string in row) for row in rows], path)
        return path
    images = opened.generator(device).interpolate(a, b, positions, method)
    pictures.save_picture(pictures.grid(images.flatten(0, 1), steps), path)
    return path


def _first(split: Split, n: int) -> Tensor:
    if n < 1:
        raise UsageError(f"n is {n}; ask for at least 1 image")
    return split.x[:n]
