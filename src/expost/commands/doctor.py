"""What this machine has: versions, devices, weights, data, settings, and whether a model trains here; runs' folders.

Nothing here fails: what cannot be found out is reported as such. Nothing secret is shown: of the environment only the
variables in `VARIABLES`, and of a token only that it is set.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import tyro

from expost._version import __version__
from expost.commands.arguments import RunIfAny, RunLike
from expost.commands.groups import takes
from expost.errors import UsageError
from expost.utils.process import cores

if TYPE_CHECKING:
    import torch
    from rich.table import Table
    from rich.text import Text

#: Environment variables that change what expost does: whether they name a path, and what they are for.
VARIABLES: dict[str, tuple[bool, str]] = {
    "EXPOST_DATA": (True, "folder of data sets"),
    "EXPOST_WEIGHTS": (True, "weights of features (Inception's, DINOv2's, CLIP's), a file or a folder"),
    "EXPOST_MEMORY": (False, "memory of data beyond which they are mapped from files"),
    "XDG_CACHE_HOME": (True, "downloads, encoded strings and prepared data"),
    "HF_HOME": (True, "downloads from the Hugging Face Hub"),
    "HF_ENDPOINT": (False, "another Hub than huggingface.co"),
    "HF_HUB_OFFLINE": (False, "no network for the Hub"),
    "CUDA_VISIBLE_DEVICES": (False, "GPUs that may be used"),
    "OMP_NUM_THREADS": (False, "threads of the CPU"),
}
#: Reported only as set or not set.
SECRETS = ("HF_TOKEN",)
#: Extras for working on expost, not for using it.
INTERNAL = frozenset({"dev", "peers"})


@takes()
def doctor(
    run: Annotated[RunIfAny, tyro.conf.arg(help_behavior_hint="(default: this machine)")] = None, self_test: bool = True
) -> dict[str, Any]:
    """Report what this machine has, and train a tiny model for one step; or check a run's folder, file by file.

    Of the machine: versions, devices, weights, data, settings. Of a run: every file's checksum, its format version, and
    whether the files belong together, as `expost.check_run` says; exit status 1 if one is wrong.

    Args:
        run: Check this run instead of the machine.
        self_test: The tiny model is trained, unless --no-self-test is given.

    Returns:
        Records by topic, as JSON can hold them; `problems` has a line for everything that is wrong. Of a run, `files`
        has the findings.
    """
    if run is not None:
        return _run(run)
    report: dict[str, Any] = {}
    checks: dict[str, Callable[[], Any]] = {
        "versions": _versions,
        "extras": _extras,
        "devices": _devices,
        "weights": _weights,
        "inception": _inception,
        "vision": _vision,
        "data": _data,
        "environment": _environment,
        "cache": _cache,
    }
    if self_test:
        checks["self_test"] = _self_test
    problems: list[str] = []
    for topic, check in checks.items():
        try:
            report[topic] = check()
        except Exception as error:  # whatever is wrong with this machine is what this report is for
            report[topic] = None
            problems.append(f"{topic}: {type(error).__name__}: {' '.join(str(error).split())}")
    report["problems"] = problems + list(_problems(report))
    return report


def _run(run: RunLike) -> dict[str, Any]:
    from expost.commands.checking import check_run
    from expost.config import to_json
    from expost.run import Run

    found = check_run(run)
    return {
        "run": str(run.folder if isinstance(run, Run) else run),
        "files": [to_json(each) for each in found],
        "problems": [f"{each.file} {each.what}; {each.remedy}" for each in found if each.state == "wrong"],
    }


def lines(report: dict[str, Any]) -> list[str]:
    """Return the report on a run: a line for each file, and one that sums them up."""
    width = max(len(each["file"]) for each in report["files"])
    wrong = len(report["problems"])
    return [
        *(
            f"{each['state']:<12}{each['file']:<{width}}  {each['what']}{'; ' * bool(each['remedy'])}{each['remedy']}"
            for each in report["files"]
        ),
        f"{report['run']}: {len(report['files'])} files, {f'{wrong} wrong' if wrong else 'none is wrong'}",
    ]


def tables(report: dict[str, Any]) -> list[Table | Text]:
    """Return the report on a machine as tables for people, with the problems, if any, as the last line."""
    from rich.table import Table
    from rich.text import Text

    shown: list[Table | Text] = []
    for topic in ("versions", "extras", "devices", "weights", "inception", "vision", "data", "environment", "cache"):
        rows = report.get(topic)
        if not rows:
            continue
        table = Table(*rows[0], box=None, pad_edge=False, title=topic, title_justify="left", title_style="bold")
        for row in rows:
            table.add_row(*(Text(_word(value)) for value in row.values()))  # plain: brackets are no markup
        shown.append(table)
    test = report.get("self_test")
    if test:
        words = f"a model trains: one step in {test['step_ms']:.0f} ms on {test['device']}, loss {test['loss']}"
        shown.append(Text(words))
    problems = report["problems"]
    shown.append(Text("\n".join(["problems:", *(f"- {line}" for line in problems)] if problems else ["no problems"])))
    return shown


def _word(value: Any) -> str:
    if value in (None, ""):
        return "-"
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def _versions() -> list[dict[str, Any]]:
    rows = [
        {"package": "expost", "version": __version__},
        {"package": "python", "version": f"{platform.python_version()} ({sys.platform}, {platform.machine()})"},
    ]
    names = [name for name, extra in _requirements() if extra is None] or ["torch", "numpy"]
    return rows + [{"package": name, "version": _version(name) or "missing"} for name in names]


def _extras() -> list[dict[str, Any]]:
    rows = []
    for name, extra in _requirements():
        if extra is None or extra in INTERNAL or name == "expost":
            continue
        version = _version(name)
        remedy = "" if version else f"pip install 'expost[{extra}]'"
        rows.append({"package": name, "extra": extra, "version": version, "install with": remedy})
    return rows


def _requirements() -> list[tuple[str, str | None]]:
    """Return the packages that expost requires, each with its extra, from its metadata."""
    try:
        lines = importlib.metadata.requires("expost") or []
    except importlib.metadata.PackageNotFoundError:  # run from its source, not installed
        return []
    found = []
    for line in lines:
        name = re.match(r"[\w.-]+", line)
        extra = re.search(r"extra\s*==\s*['\"]([\w.-]+)['\"]", line)
        if name:
            found.append((name[0], extra[1] if extra else None))
    return found


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices() -> list[dict[str, Any]]:
    import torch

    rows = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        device = torch.cuda.get_device_properties(index)
        rows.append({"device": f"cuda:{index}", "what": f"{device.name}, {device.total_memory / 2**30:.0f} GiB"})
    if torch.backends.mps.is_available():
        rows.append({"device": "mps", "what": "Apple GPU"})
    rows.append({"device": "cpu", "what": f"{cores()} cores, threads of torch: {torch.get_num_threads()}"})
    return [row | _precision(torch.device(row["device"])) for row in rows]


def _precision(device: torch.device) -> dict[str, str]:
    from expost.utils.precision import choose

    chosen = choose("auto", device)
    return {"precision": chosen.arithmetic, "because": chosen.reason}


def _weights() -> list[dict[str, Any]]:
    from expost.metrics import FEATURES

    return [
        {"features": name, "score": each.score_name, "found": _found(each.available), "what": each.summary}
        for name, each in FEATURES.items()
    ]


def _inception() -> list[dict[str, Any]]:
    """Return where the weights of FID are, or where to put them, whence, and what they are checked against."""
    from expost.metrics.weights import PUBLIC, find_weights
    from expost.utils.downloads import cache_folder

    rows: list[tuple[str, Any]] = []
    for score, layer in (("fid-768", "Mixed_6e"), ("fid", "Mixed_7c")):
        try:
            found = find_weights(layer)
        except UsageError:  # as below
            found = None
        rows.append((f"file for {score}", found))
    rows += [
        ("else put", PUBLIC.name),
        ("into", cache_folder()),
        *(("from", url) for url in PUBLIC.urls),
        ("SHA-256", PUBLIC.sha256),
    ]
    return [{"weights of fid and fid-768": key, "where": None if value is None else str(value)} for key, value in rows]


def _vision() -> list[dict[str, Any]]:
    """Return for DINOv2 and CLIP where their weights are, or which file to put into the folder for downloads."""
    from expost.metrics.vision import ENCODERS, find_encoder

    rows = []
    for name, encoder in ENCODERS.items():
        try:
            found = find_encoder(encoder)
        except UsageError:  # as above
            found = None
        public = encoder.public
        wanted = [("put", public.name), *(("from", url) for url in public.urls), ("SHA-256", public.sha256)]
        told = wanted if found is None else [("found", str(found))]
        rows += [{"features": name, "their weights": key, "where": value} for key, value in told]
    return rows


def _found(available: Callable[[], bool]) -> bool:
    try:
        return available()
    except UsageError:  # a variable that names nothing, which the environment's rows report
        return False


def _data() -> list[dict[str, Any]]:
    from expost.data import data_catalog
    from expost.data.named_strings import STRING_DATASETS

    images = [(each.name, each.title, each.found, each.download) for each in data_catalog()]
    strings = [(name, each.title, each.origin.find(name), each.download) for name, each in STRING_DATASETS.items()]
    return [
        {"data set": name, "found": found, "download": "" if found else download, "what": title}
        for name, title, found, download in images + strings
    ]


def _environment() -> list[dict[str, Any]]:
    rows = []
    for name, (is_path, purpose) in VARIABLES.items():
        value = os.environ.get(name)
        exists = Path(value).expanduser().exists() if value and is_path else None
        rows.append({"variable": name, "value": _public(value), "exists": exists, "for": purpose})
    for name in SECRETS:
        rows.append({"variable": name, "value": "set" if os.environ.get(name) else None, "exists": None, "for": "Hub"})
    return rows


def _public(value: str | None) -> str | None:
    """Return a value without the name and password that an address may carry."""
    if value is None or "://" not in value:
        return value
    try:
        parts = urlsplit(value)
    except ValueError:
        return "not a valid address"
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _cache() -> list[dict[str, Any]]:
    from expost.utils.downloads import cache_folder

    folder = cache_folder()
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    writable = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    free = shutil.disk_usage(there).free / 1e9
    return [{"cache": str(folder), "writable": writable, "free": f"{free:.1f} GB"}]


def _self_test() -> dict[str, Any]:
    """Train a small rae on random images for one step, fit a Gaussian on its codes, and sample."""
    import torch

    from expost.generators.generator import Generator
    from expost.models.autoencoder import build
    from expost.models.presets import configure
    from expost.training.devices import pick_device, place
    from expost.utils.seeding import isolated

    device = pick_device("auto")
    with isolated():
        torch.manual_seed(0)
        config, training = configure("rae", (1, 32, 32), "small", {"width": 8, "latent_dim": 4}, {}, {})
        model = build(config)
        x = torch.rand(16, 1, 32, 32)
        place(model, device)
        optimizer = torch.optim.Adam(model.parameters(), lr=training.lr)
        started = time.perf_counter()
        loss = model.train().loss(x.to(device)).total
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        value = loss.item()
        elapsed = time.perf_counter() - started
    if value - value != 0:
        raise ValueError(f"the loss of a tiny model is {value}; the installation of torch computes wrongly")
    generator = Generator.of(model)
    generator.fit("gaussian", x)
    if not bool(generator.sample(4, seed=0).isfinite().all()):
        raise ValueError("samples of a tiny model are not finite; the installation of torch computes wrongly")
    return {"device": str(device), "step_ms": round(1000 * elapsed, 1), "loss": round(value, 3)}


def _problems(report: dict[str, Any]) -> Iterator[str]:
    for row in report.get("versions") or []:
        if row["version"] == "missing":
            yield f"{row['package']} is missing; install it with: pip install -U expost"
    for row in report.get("environment") or []:
        if row["exists"] is False and row["variable"].startswith("EXPOST_"):
            yield f"{row['variable']} is {row['value']}, which does not exist; correct it, or unset it"
    for row in report.get("cache") or []:
        if not row["writable"]:
            yield f"{row['cache']} cannot be written, so nothing is kept; set XDG_CACHE_HOME to a folder of yours"
