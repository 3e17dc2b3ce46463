"""Loading published runs, from a folder or from the Hub."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from expost.densities import SymbolDensity
from expost.errors import DataError, UsageError
from expost.generators.generator import Generator, mismatch
from expost.generators.strings import StringGenerator
from expost.run import Run
from expost.sharing.kinds import sharing_of
from expost.sharing.layout import CARD, SOURCE, WEIGHTS, density_file, known_files, open_untrusted
from expost.utils.extras import require
from expost.utils.store import replacing, write_json


def from_pretrained(
    source: str | Path, revision: str | None = None, device: str = "auto", offline: bool = False
) -> Generator | StringGenerator:
    """Load a published model, ready to encode, decode and sample.

        generator = expost.from_pretrained("user/repo")
        images = generator.sample(64)

    The data it was trained on are not needed. A folder is read without any network. What is loaded cannot run code.

    Args:
        source: A folder (a run's folder, or what `save_pretrained` wrote), or else a repository of the Hub, user/name,
            or user/name@REVISION.
        revision: Branch, tag or commit of the repository; default: its main branch.
        device: auto, cpu, cuda or mps.
        offline: Take the repository from the local cache, without asking the Hub.

    Returns:
        A `Generator` with its densities; a `StringGenerator` for runs of strings.

    Raises:
        DataError: if it is not there, damaged, of a newer format, or inconsistent.
        UsageError: for a revision of a folder, or what is neither a folder nor a repository's name.
    """
    return load(open_untrusted(_locate(source, revision, offline)), device)


def fetch(source: str | Path, folder: Path, revision: str | None = None, offline: bool = False) -> Run:
    """Fetch a published run into a folder, new or empty, after checking that it loads.

    Of a repository, `source.json` records the name and the commit.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists already; choose another --out")
    found = _locate(source, revision, offline)
    load(open_untrusted(found), "cpu")  # what cannot be used is refused before anything is written
    for name in (*known_files(), CARD):
        if (found / name).is_file():
            with replacing(folder / name) as temporary:
                shutil.copyfile(found / name, temporary)
    if not Path(os.path.expanduser(source)).is_dir():  # the cache's folder is named after the commit
        write_json(folder / SOURCE, {"repository": str(source).partition("@")[0], "commit": found.name})
    return Run.open(folder)


def _locate(source: str | Path, revision: str | None, offline: bool) -> Path:
    """Return the folder that holds the run, after fetching it if it is a repository."""
    path = Path(os.path.expanduser(source))  # Path.expanduser fails for an unknown user
    if str(source) and path.is_dir():
        if revision is not None:
            raise UsageError(f"{path} is a folder, which has no revision '{revision}'; leave it out")
        return path
    if isinstance(source, Path) or path.is_absolute() or path.exists() or str(source).startswith((".", "~")):
        raise UsageError(f"{source} is no folder; give a run's folder, or a repository's name: user/name")
    require("huggingface_hub", "hub", f"fetching '{source}' needs huggingface_hub")
    repository, _, pinned = str(source).partition("@")
    if pinned and revision not in (None, pinned):
        raise UsageError(f"'{source}' names revision '{pinned}', and revision is '{revision}'; give one of them")
    from expost.sharing.hub import download  # huggingface_hub takes a while to import, and a folder needs none of it

    return download(repository, revision if revision is not None else pinned or None, offline)


def load(run: Run, device: str) -> Generator | StringGenerator:
    """Load the model and the densities of a run that `open_untrusted` has opened.

    Raises:
        DataError: if weights are not finite, or a density is of another model, or the codec does not fit.
    """
    config = run.config
    loaded = sharing_of(config).load(run, device)
    generator = loaded.generator if isinstance(loaded, StringGenerator) else loaded
    assert generator.module is not None
    for name, tensor in generator.module.state_dict().items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise DataError(f"{run.folder / WEIGHTS}: tensor '{name}' is not finite; the file is damaged")
    for name, density in generator.densities.items():
        what = mismatch(density, config.model)
        symbols = None if generator.quantizer is None else generator.quantizer.symbols
        if what is None and isinstance(density, SymbolDensity) and density.known != symbols:
            what = f"{density.known} symbols, the model has {symbols}"
        if what is not None:
            raise DataError(f"{run.folder / density_file(name)} is of {what}; fit it again")
    return loaded
