"""Where results go if no --out is given. One rule: nothing that exists is written over.

- A new run is `runs/DATA-MODEL-N`, with N the first number that is free.
- What belongs to a run goes into its folder: `samples.png`, then `samples-2.png`, and so on; what belongs to several
  runs, beside the first of them.
- What the same command goes on with has one name: `runs/sweep-DATA-MODELS`, `runs/TABLE-DATASET-SCALE`,
  `RUN/search/OBJECTIVE-REGION-SEED`.

A path that is given is taken as it is; a file of that name is replaced.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

#: Where runs go.
RUNS = Path("runs")


def label_of(data: str | Path) -> str:
    """Return a data set's name, or that of a file or folder without its suffixes, as part of a folder's name.

    Example:
        >>> label_of("mnist-5k"), label_of("tables/my wines.csv.gz"), label_of("photos/"), label_of("owner/name")
        ('mnist-5k', 'my-wines', 'photos', 'name')
    """
    name = Path(data).name or Path(data).resolve().name
    return re.sub(r"[^\w.-]+", "-", name.partition(".")[0] or name.lstrip(".")).strip("-") or "data"


def new_run(name: str, begun: Callable[[Path], bool] = lambda folder: False) -> Path:
    """Return `runs/NAME-N`, with N the first number that is free.

    Args:
        name: For example DATA-MODEL.
        begun: Whether a folder that exists is this one's own, begun before a restart.
    """
    folders = (RUNS / f"{name}-{number}" for number in itertools.count(1))
    return next(folder for folder in folders if begun(folder) or not _taken(folder))


def within(folder: Path, name: str) -> Path:
    """Return a path in a folder that nothing has: `samples.png`, then `samples-2.png`, and so on.

    Args:
        folder: A run's.
        name: A file's name with its suffix, or a folder's without.
    """
    return next(path for path in _numbered(folder, Path(name)) if not _taken(path))


def _numbered(folder: Path, name: Path) -> Iterator[Path]:
    yield folder / name
    for number in itertools.count(2):
        yield folder / f"{name.stem}-{number}{name.suffix}"


def _taken(path: Path) -> bool:
    from expost.utils.store import leftovers  # which imports torch, and completing words needs none

    # what a killed command left of its first file counts as nothing
    return path.exists() and not (path.is_dir() and not set(path.iterdir()) - set(leftovers(path)))
