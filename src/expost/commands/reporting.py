"""The command that reports on runs in one self-contained page."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from expost._version import __version__
from expost.commands.arguments import Output
from expost.commands.groups import takes
from expost.commands.outputs import within
from expost.config import DataConfig, run_config_from_json
from expost.errors import UsageError
from expost.utils.progress import say

if TYPE_CHECKING:
    from expost.report.blocks import Section
    from expost.run import Run
    from expost.types import Data


#: Most pixels of the page for each pixel of an image.
LARGEST_SCALE = 32


@takes()
def report(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN")],
    out: Output | None = None,
    device: str = "auto",
    seed: int = 0,
    title: str | None = None,
    scale: int | None = None,
) -> Path:
    """Report on runs in one page: choices, losses, pictures, codes, scores with their protocols, a ranking.

    Nothing is trained, fitted or scored: the page says what is missing, and which command makes it.

    Args:
        runs: Runs, finished or not. Several are also ranked, by the scores whose protocols agree.
        out: FILE.html, self-contained (it loads nothing); an older one is replaced. Default: report.html in the
            run's folder, or beside the first of several, numbered where it exists.
        device: auto, cpu, cuda or mps.
        seed: Seed of samples and pairs.
        title: Heading of the page; default: the run's name, or how many runs there are.
        scale: Images: pixels of the page for each pixel of an image, a side; default: what fits the page.

    Returns:
        Where the page is.
    """
    from expost.examples.figure_files import PICTURE_SUFFIXES
    from expost.report.blocks import Page, Verdicts
    from expost.report.glance import side_by_side
    from expost.report.page import render
    from expost.report.scoring import ranking
    from expost.report.sections import Source, anchors, run_page
    from expost.training.devices import pick_device
    from expost.utils.store import require_writable, write_text

    if not runs:
        raise UsageError("no run is given; give the folder of at least one")
    first = _folder(runs[0])
    path = Path(out) if out is not None else within(first if len(runs) == 1 else first.parent, "report.html")
    if path.suffix.lower() not in (".html", ".htm"):
        panel = path.suffix.lower() in PICTURE_SUFFIXES
        remedy = f"; for a picture: expost panel RUN --out {path.name}" if panel else ""
        raise UsageError(f"cannot write a page as '{path.name}'; give a name ending in .html{remedy}")
    if path.is_dir():
        raise UsageError(f"{path} is a folder; give a file's name")
    if seed < 0:
        raise UsageError(f"seed is {seed}; give a number of at least 0")
    if scale is not None and not 1 <= scale <= LARGEST_SCALE:
        raise UsageError(f"scale is {scale}; give a whole number from 1 to {LARGEST_SCALE}")
    pick_device(device)
    require_writable(path)
    opened = [_open(run) for run in runs]
    folders = [run.folder.resolve() for run in opened]
    if len(set(folders)) < len(folders):
        raise UsageError("a run is given twice; give each once")
    labels = _labels(opened)
    loader = _Loader()
    pages, scores, glances = [], {}, {}
    for run, label, anchor in zip(opened, labels, anchors(labels), strict=True):
        if len(opened) > 1:
            say(f"reporting on {label}")
        found = run_page(Source(run, label, anchor, loader, device, seed, scale))
        pages.append(found.page)
        scores[label] = found.scores
        if found.glance is not None:
            glances[label] = (run.config.data.fingerprint, found.glance)
    comparison: tuple[Section, ...] = ()
    if len(pages) > 1:
        priors = (run.config.model.prior for run in opened)
        own = {label: prior.name if prior else None for label, prior in zip(labels, priors, strict=True)}
        said = tuple((page.title, page.verdict.text) for page in pages if page.verdict is not None)
        beside = [*([Verdicts(said)] if said else []), *side_by_side(glances)]
        taken = [glance.density for _, glance in glances.values() if glance.density is not None]
        comparison = (ranking(scores, own, beside, taken),)
    title = title or (labels[0] if len(labels) == 1 else f"{len(labels)} runs")
    if len(pages) == 1:
        pages = [replace(pages[0], title=title)]
    made = f"{datetime.now():%Y-%m-%d %H:%M}"
    write_text(path, render(Page(title, tuple(pages), __version__, made, comparison, _shortened(opened))))
    return path


class _Loader:
    """Loads data; runs of the same data share them."""

    def __init__(self) -> None:
        self._last: tuple[DataConfig, Data] | None = None

    def __call__(self, config: DataConfig) -> Data:
        from expost.run import load

        if self._last is None or self._last[0] != config:
            self._last = (config, load(config)[0])
        return self._last[1]


def _shortened(runs: list[Run]) -> dict[str, str]:
    """Return the paths that lead elsewhere, of which the page tells only the last part."""
    named = [run.config.data.name for run in runs]
    named += [part.partition("=")[2] for run in runs for part in run.config.data.parts]
    places = {name: Path(name) for name in named}
    folders = [path for run in runs for path in (run.folder, run.folder.absolute(), run.folder.resolve())]
    places |= {str(path): path for path in folders}
    shown = {
        name: path.name or name
        for name, path in places.items()
        if path.is_absolute() or name.startswith("~") or ".." in path.parts
    }
    around = {
        f"{path.parent}{os.sep}": "" for path in folders if path.is_absolute() and path.parent != path.parent.parent
    }
    return around | shown


def _folder(run: Run | Path | str) -> Path:
    from expost.run import Run

    return run.folder if isinstance(run, Run) else Path(run)


def _open(run: Run | Path | str) -> Run:
    """Open a run; one with networks of your own is opened without them, to report what needs no model."""
    from expost.run import Run
    from expost.utils.store import read_json

    if isinstance(run, Run):
        return run
    path = Path(run)
    try:
        return Run.open(path)
    except UsageError:
        return Run(path, run_config_from_json(read_json(path / "config.json"), path / "config.json"))


def _labels(runs: list[Run]) -> list[str]:
    """Return the folders' names, or where some agree, as many folders above as tell them apart."""
    paths = [run.folder.resolve() for run in runs]
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-depth:]) or str(path) for path in paths]
        if len(set(names)) == len(names):
            break
    return names
