"""Commands that show what a run has learned: samples, reconstructions, paths between examples, all in one panel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from expost.commands.arguments import (
    Count,
    Output,
    RunLike,
)
from expost.commands.groups import takes
from expost.commands.outputs import within
from expost.commands.picture_options import PICTURE, PictureOptions, data_words, look_of
from expost.errors import UsageError
from expost.utils.progress import say

if TYPE_CHECKING:
    from expost.densities import Density


@takes(picture=PICTURE)
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
    **picture: Unpack[PictureOptions],
) -> Path:
    """Draw from a fitted density and decode.

    Args:
        run: The run.
        n: Number of samples.
        out: Images: FILE.png, .jpg, .webp, .svg or .pdf (a grid), FILE.npy (uint8, N x C x H x W), or a folder (one
            file per sample). Sound: a folder (a WAV per sample, and spectrograms.png), FILE.wav (all of them, with
            pauses), a picture, or FILE.npy (log-mel frames). Tables: FILE.csv or .npy. Strings: FILE.txt, .smi or .csv;
            molecules also a picture. In a CSV, the last column is the label, if one is given. Default: samples.png,
            .csv, .txt, or for sound the folder samples, in the run's folder, numbered where it exists.
        density: A fitted density; default: the one under which held-out codes are likeliest.
        label: A class, or a value of the property, that densities were fitted by (`expost fit --by`); default: any.
        temperature: Strings only: 0 takes the most likely symbol at each step, 1 draws from the decoder's distribution.
        code_temperature: Below 1, samples concentrate near the modes of the density (cleaner, less diverse); above
            1 they spread; 1 draws from the density as it was fitted.
        seed: Seed of the draws.
        device: auto, cpu, cuda or mps.
        **picture: How a picture looks (`PictureOptions`).

    Returns:
        Where the samples are.
    """
    from expost.examples import Wish, examples_of
    from expost.examples.kind import counted
    from expost.examples.outputs import check_output
    from expost.run import open_run

    opened = open_run(run)
    examples = examples_of(opened.config)
    if temperature and not examples.symbols:
        raise UsageError(f"temperature is {temperature}, but {opened.folder} is no run of strings; leave it out")
    path = check_output(Path(out) if out is not None else within(opened.folder, examples.usual), examples.samples)
    look = look_of(picture, path, "")
    generator = opened.generator(device)
    labels, of = None, ""
    if label is None:
        named = generator.density_name(_taken(density, generator.densities))
    else:
        named = generator.labelled_name(_taken(density, generator.by_label))
        by_label = generator.labelled(named)
        found = by_label.labels[by_label.class_index(label)]
        labels, of = [found] * n, f" for label {found}"
    if "title" not in PICTURE.of(picture):
        model, data = opened.config.model.name, data_words(opened)
        spread = "" if code_temperature == 1 else f" at code temperature {code_temperature:g}"
        title = f"{counted(n, 'sample')} of {model} through {named}{of}{spread}, trained on {data}"
        look = replace(look, title=title, own=False)
    wish = Wish(n, named, label, seed, temperature, code_temperature)
    examples.write(examples.draw(generator, wish), path, look, labels)
    return path


@takes(picture=PICTURE)
def reconstruct(
    run: RunLike, out: Output | None = None, n: Count = 40, device: str = "auto", **picture: Unpack[PictureOptions]
) -> Path:
    """Show test examples and their reconstructions: images in rows, strings in two columns.

    Args:
        run: The run.
        out: Images: FILE.png, .jpg, .webp, .svg or .pdf. Sound: a folder of WAVs and their picture, FILE.wav, or a
            picture. Strings: FILE.txt, with a tab between the columns, or .csv.
            Tables: FILE.csv, where each row ends with its reconstruction. In a CSV, labels are the last column.
            Default: reconstructions.png, .csv, .txt, or a folder, in the run's folder, numbered where it exists.
        n: Number of test examples, from all over the part in even steps: files are often sorted by class.
        device: auto, cpu, cuda or mps.
        **picture: How a picture looks (`PictureOptions`).

    Returns:
        Where the picture is.
    """
    from expost.examples import examples_of
    from expost.examples.kind import counted
    from expost.examples.outputs import check_output
    from expost.run import open_run

    opened = open_run(run)
    examples = examples_of(opened.config)
    usual = f"reconstructions{examples.pairs[0]}"
    path = check_output(Path(out) if out is not None else within(opened.folder, usual), examples.pairs)
    look_of(picture, path, "")
    data = opened.data()
    if n < 1:
        raise UsageError(f"n is {n}; ask for at least 1 example")
    chosen = data.test.across(n)
    name = "its reconstruction" if len(chosen) == 1 else "their reconstructions"
    title = f"{counted(len(chosen), 'test example')} of {data_words(opened)} and {name} by {opened.config.model.name}"
    labels = data.labels(chosen)
    examples.write_pairs(
        opened.generator(device),
        chosen.x,
        path,
        look_of(picture, path, title),
        None if labels is None else labels.tolist(),
    )
    return path


@takes(picture=PICTURE)
def interpolate(
    run: RunLike,
    out: Output | None = None,
    method: str = "linear",
    n: Count = 8,
    steps: int = 10,
    seed: int = 0,
    device: str = "auto",
    **picture: Unpack[PictureOptions],
) -> Path:
    """Show paths between the codes of random pairs of test examples, a row each.

    Args:
        run: The run.
        out: Images: FILE.png, .jpg, .webp, .svg or .pdf. Sound: a folder of WAVs, one a path, and their picture,
            FILE.wav, or a picture. Strings: FILE.txt, with tabs between the steps. Tables: FILE.csv, one row per step.
            Default: paths.png, .csv, .txt, or a folder, in the run's folder, numbered where it exists.
        method: linear, linear-rescaled or spherical.
        n: Number of pairs.
        steps: Points of a path, both ends included.
        seed: Seed of the choice of pairs.
        device: auto, cpu, cuda or mps.
        **picture: How a picture looks (`PictureOptions`); images in a row are the steps.

    Returns:
        Where the picture is.
    """
    import torch

    from expost.examples import examples_of
    from expost.examples.kind import counted, ends_of
    from expost.examples.outputs import check_output
    from expost.generators.interpolation import INTERPOLATIONS
    from expost.run import open_run

    opened = open_run(run)
    examples = examples_of(opened.config)
    usual = f"paths{examples.paths[0]}"
    path = check_output(Path(out) if out is not None else within(opened.folder, usual), examples.paths)
    look = look_of(picture, path, "")
    _ = INTERPOLATIONS[method]
    if steps < 2:
        raise UsageError(f"steps is {steps}; a path has at least its 2 ends")
    if look.across is not None:
        raise UsageError(f"columns is {look.across}, and a row is one path; give --steps {look.across} instead")
    a, b = ends_of(opened.data().test.x, max(n, 1), seed)
    title = f"{counted(len(a), f'{method} path')} of {opened.config.model.name} between codes of test examples"
    look = look_of(picture, path, f"{title} of {data_words(opened)}")
    examples.write_paths(opened.generator(device), (a, b), torch.linspace(0, 1, steps), method, path, look)
    return path


@takes(picture=PICTURE)
def panel(
    run: RunLike,
    out: Output | None = None,
    densities: tuple[str, ...] | None = None,
    seed: int = 0,
    device: str = "auto",
    **picture: Unpack[PictureOptions],
) -> Path:
    """Show a run in one figure: test examples with reconstructions, paths, and samples of each fitted density.

    Tables are shown by histograms of their columns, strings as text.

    Args:
        run: The run.
        out: FILE.png, .jpg, .webp, .svg or .pdf. Default: panel.png in the run's folder, numbered where it exists.
        densities: Fitted densities to sample from, in this order; default: all, and those by label.
        seed: Seed of pairs and draws.
        device: auto, cpu, cuda or mps.
        **picture: How it looks (`PictureOptions`); rows and columns have labels of their own.

    Returns:
        Where the figure is.
    """
    from expost.examples import PanelWish, examples_of
    from expost.examples.figure_files import PICTURE_SUFFIXES, save_sheet
    from expost.examples.figures import framed, sections, titled
    from expost.examples.lettering import text_size
    from expost.examples.outputs import check_output
    from expost.run import open_run

    opened = open_run(run)
    path = check_output(Path(out) if out is not None else within(opened.folder, "panel.png"), PICTURE_SUFFIXES)
    look = look_of(picture, path, f"{opened.config.model.name}, trained on {data_words(opened)}")
    if look.rows is not None or look.columns is not None:
        raise UsageError("the parts of a panel have row and column labels of their own; leave these options out")
    generator = opened.generator(device)
    for name in densities or ():
        generator.density(name)
    chosen = tuple(generator.densities) if densities is None else densities
    by_label = tuple(generator.by_label) if densities is None else ()
    if not (chosen or by_label):
        say(f"no density is fitted, so there are no samples in the panel; fit one: expost fit {opened.folder}")
    wish = PanelWish(chosen, by_label, seed, look)
    parts = examples_of(opened.config).parts(generator, opened.data(), wish)
    size = text_size(max(sheet.width for _, sheet in parts) / (1 if len(parts) > 1 else 2))
    whole = titled(sections(parts, 2, size), look.title, round(1.4 * size))
    save_sheet(framed(whole, round(1.5 * size)), path)
    return path


def _taken(asked: str | None, fitted: Mapping[str, Density]) -> str | None:
    """Return the density that was asked for, else the best fitted, and say which that is; None if none is fitted."""
    from expost.densities import usual_density

    if asked is not None or (taken := usual_density(fitted)) is None:
        return asked
    say(taken.line)
    return taken.name
