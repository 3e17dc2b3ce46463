"""Commands that share runs: to and from the Hub, and as ONNX files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from expost.commands.arguments import Output, RunLike
from expost.commands.groups import takes
from expost.commands.outputs import label_of, new_run, within
from expost.errors import UsageError

if TYPE_CHECKING:
    from expost.run import Run
    from expost.sharing.onnx import Exported


@takes()
def push(
    run: RunLike,
    repository: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="USER/NAME")],
    private: bool = False,
    license: str | None = None,
    show_data: bool = False,
    densities: tuple[str, ...] = (),
    dry_run: bool = False,
    out: Output | None = None,
) -> str:
    """Publish a run on the Hugging Face Hub: weights, densities, scores and a model card with pictures.

    Neither the data nor their path are uploaded. Log in first: hf auth login.

    Args:
        run: The run.
        repository: user/name; created if it does not exist.
        private: Make a new repository private.
        license: Licence of the weights as the Hub writes it, for example apache-2.0.
        show_data: Show test examples beside their reconstructions; only where the data's licence allows it.
        densities: Which fitted densities to publish; default: all but those by label. A kde contains the
            codes of the training examples.
        dry_run: Write what would be uploaded to --out, and stop.
        out: With --dry-run: a folder, new or empty; default: upload in the run's folder, numbered where it exists.

    Returns:
        The address of the upload, or the folder of a dry run.
    """
    if out is not None and not dry_run:
        raise UsageError("--out is where --dry-run writes; give --dry-run too, or drop --out")
    from expost.run import open_run
    from expost.sharing.card import CardOptions
    from expost.sharing.publishing import publish

    opened = open_run(run)
    if dry_run and out is None:
        out = within(opened.folder, "upload")
    return publish(opened, repository, private, CardOptions(license, show_data, densities), out)


@takes()
def pull(
    source: Annotated[str | Path, tyro.conf.Positional, tyro.conf.arg(constructor=str, metavar="REPO|FOLDER")],
    out: Output | None = None,
    revision: str | None = None,
    offline: bool = False,
) -> Run:
    """Fetch a published run into a folder, which all commands take as a run.

    Commands that use its data expect them on this machine, under the same name.

    Args:
        source: A repository of the Hugging Face Hub, user/name or user/name@REVISION, or a folder that push --dry-run
            wrote.
        out: The run's folder, new or empty; default: runs/NAME-N, with N the first number that is free.
        revision: Branch, tag or commit of the repository; default: its main branch.
        offline: Take the run from the local cache, without asking the Hub.

    Returns:
        The run.
    """
    from expost.sharing.loading import fetch

    folder = Path(out) if out is not None else new_run(label_of(source))
    return fetch(source, folder, revision, offline)


@takes()
def export(run: RunLike, out: Output | None = None, format: Literal["onnx"] = "onnx") -> list[Exported]:
    """Write the run's encoder and decoder as ONNX files, and compare their outputs with torch's.

    A decoder that reads its own output is written as start.onnx and step.onnx.

    Args:
        run: The run.
        out: Folder for the files; files of the same names are replaced. Default: onnx in the run's folder, numbered
            where it exists.
        format: Format of the files: onnx.

    Returns:
        The files, with the largest difference found.
    """
    if format != "onnx":
        raise UsageError(f"unknown format '{format}'; choose one of: onnx")
    from expost.run import open_run
    from expost.sharing.onnx import export_onnx

    opened = open_run(run)
    return export_onnx(opened, Path(out) if out is not None else within(opened.folder, "onnx"))
