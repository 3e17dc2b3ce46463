"""Commands that share runs: to and from the Hub, and as ONNX files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from expost.commands.arguments import Output, RunLike
from expost.commands.groups import takes
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
        out: With --dry-run: a folder, new or empty.

    Returns:
        The address of the upload, or the folder of a dry run.
    """
    if dry_run != (out is not None):
        raise UsageError("--dry-run writes to a folder; give both --dry-run and --out FOLDER, or neither")
    from expost.run import open_run
    from expost.sharing.card import CardOptions
    from expost.sharing.publishing import publish

    return publish(open_run(run), repository, private, CardOptions(license, show_data, densities), out)


@takes()
def pull(
    source: Annotated[str | Path, tyro.conf.Positional, tyro.conf.arg(constructor=str, metavar="REPO|FOLDER")],
    out: Output,
    revision: str | None = None,
    offline: bool = False,
) -> Run:
    """Fetch a published run into a folder, which all commands take as a run.

    Commands that use its data expect them on this machine, under the same name.

    Args:
        source: A repository of the Hugging Face Hub, user/name, or a folder that push --dry-run wrote.
        out: The run's folder, new or empty.
        revision: Branch, tag or commit of the repository; default: its main branch.
        offline: Take the run from the local cache, without asking the Hub.

    Returns:
        The run.
    """
    from expost.sharing.loading import fetch

    return fetch(source, Path(out), revision, offline)


@takes()
def export(run: RunLike, out: Output, format: Literal["onnx"] = "onnx") -> list[Exported]:
    """Write the run's encoder and decoder as ONNX files, and compare their outputs with torch's.

    A decoder that reads its own output is written as start.onnx and step.onnx.

    Args:
        run: The run.
        out: Folder for the files; files of the same names are replaced.
        format: Format of the files: onnx.

    Returns:
        The files, with the largest difference found.
    """
    if format != "onnx":
        raise UsageError(f"unknown format '{format}'; choose one of: onnx")
    from expost.run import open_run
    from expost.sharing.onnx import export_onnx

    return export_onnx(open_run(run), Path(out))
