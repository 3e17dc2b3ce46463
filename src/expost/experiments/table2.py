"""Table 2 of Ghosh et al. 2020: Bayesian optimisation in the latent spaces of grammar and character models.

The paper's four rows, searched as it does in the box of the training codes, and ours: the same regularised autoencoder
with our decoder (preset `small`), searched where the fitted density has mass. A run is a folder, a search is a folder;
finished ones are kept, interrupted ones resume. Rows of one model and one preset share a run.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from expost._version import __version__
from expost.commands import optimize
from expost.config import to_json
from expost.errors import DataError
from expost.experiments.cells import defining_settings, refuse_another, saved, train_or_go_on
from expost.experiments.code_use import code_use
from expost.experiments.engines import Resources, open_engine
from expost.experiments.hardware import note_hardware, noted_hardware, summary, training_seconds
from expost.experiments.table2_report import as_csv, markdown
from expost.registry import Registry
from expost.search import SearchResult, aggregate_corrected, aggregate_original
from expost.search.surrogate import libraries
from expost.utils.progress import say
from expost.utils.store import read_json, write_json, write_text

Domain = Literal["expressions", "molecules"]


@dataclass(frozen=True)
class Published:
    """The paper's settings of the search in one domain.

    Attributes:
        data: Name of the data set.
        cutoff: Whose worst score the published script leaves out of its average: see `aggregate_original`.
        objective: The objective of the search.
        options: Its options in the rows that repeat the published search.
    """

    data: str
    cutoff: Literal["last", "own"]
    objective: str
    options: Mapping[str, str]


PUBLISHED: Registry[Published] = Registry(
    "domain",
    {
        "expressions": Published("expressions-published", "last", "expression", {"division": "python2"}),
        "molecules": Published("zinc250k", "own", "plogp", {}),
    },
)


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        model: Row of the zoo.
        region: Region that is searched.
        preset: Preset of the networks and of the training objective.
        published: Whether found strings are scored as in the published search.
    """

    model: str
    region: Literal["box", "density"]
    preset: str
    published: bool


#: The paper's rows in its order, by the objective of the published code and by the cross-entropy; and ours.
TABLE: Registry[Row] = Registry(
    "row",
    {
        **{name: Row(name, "box", "published", True) for name in ("grae", "gcvvae", "gvae", "character-vae")},
        **{
            f"{name}, cross-entropy": Row(name, "box", "paper", True)
            for name in ("grae", "gcvvae", "gvae", "character-vae")
        },
        "grae, our decoder": Row("grae", "box", "small", False),
        "grae, ours": Row("grae", "density", "small", False),
    },
)


@dataclass(frozen=True)
class Scale:
    """The size of an experiment.

    Attributes:
        epochs: Passes over the training set; None takes the preset's.
        limit: Largest number of strings of each split; None takes all.
        codes: Codes that a search begins with; None takes 90 % of the training set, as the paper does.
        repetitions: Searches of each row, with different seeds.
        rounds: Batches of a search.
        batch: Codes of a batch.
        decodes: Decodes of each code; None takes the paper's 25 or 500.
        inducing: Inducing points.
    """

    epochs: int | None
    limit: int | None
    codes: int | None
    repetitions: int
    rounds: int = 5
    batch: int = 50
    decodes: int | None = None
    inducing: int = 500


_SMOKE = Scale(2, 2_000, 500, repetitions=1, rounds=1, batch=10, decodes=5, inducing=50)
_PAPER = Scale(None, None, None, repetitions=10)
#: By domain, since an epoch of molecules costs ten times one of expressions.
SCALES: Registry[Mapping[Domain, Scale]] = Registry(
    "scale",
    {
        "smoke": {"expressions": _SMOKE, "molecules": _SMOKE},
        "small": {
            "expressions": Scale(20, None, 10_000, repetitions=3),
            "molecules": Scale(3, None, 10_000, repetitions=1),
        },
        "paper": {"expressions": _PAPER, "molecules": _PAPER},
    },
)


@dataclass(frozen=True)
class Job:
    """A model to train (no repetition), or one repetition of its search."""

    out: Path
    name: str
    domain: Domain
    size: Scale
    repetition: int | None = None

    @property
    def run(self) -> Path:
        """The folder of its run."""
        return self.out / "runs" / f"{TABLE[self.name].model}-{TABLE[self.name].preset}"

    @property
    def search(self) -> Path:
        """The folder of its search."""
        return self.out / "searches" / f"{self.name.replace(', ', '-')}-{TABLE[self.name].preset}-{self.repetition}"

    @property
    def codes(self) -> Path:
        """The file of what the codes of its run say."""
        return self.out / "codes" / f"{self.run.name}.json"

    @property
    def part(self) -> str:
        """Name of the training, or of this search."""
        return self.run.name if self.repetition is None else f"{self.search.name}-search"

    @property
    def log(self) -> Path:
        """Where its progress is written when there are several workers."""
        return self.out / "logs" / f"{self.part}.log"

    @property
    def hardware(self) -> Path:
        """The file that notes the hardware it ran on."""
        return self.out / "hardware" / f"{self.part}.json"

    @property
    def options(self) -> dict[str, Any]:
        """Options of `train`."""
        return {"epochs": self.size.epochs, "limit": self.size.limit, "preset": TABLE[self.name].preset}


def reproduce_table2(
    domain: Domain, scale: str, models: Sequence[str], out: Path, where: Resources | None = None
) -> Path:
    """Train and search every row; write `table.json`, `table.md` and `table.csv` to `out`.

    The table is there from the first repetition of all rows, and is written anew after each.

    Args:
        domain: "expressions" or "molecules".
        scale: Entry of `SCALES`.
        models: Rows of `TABLE`; none for all.
        out: The folder; a table in it is continued.
        where: Resources to train and search; default: on this machine.

    Returns:
        `out`.
    """
    given, out = out, out.resolve()  # workers have working directories of their own
    data = PUBLISHED[domain].data
    size = SCALES[scale][domain]
    names = tuple(dict.fromkeys(models)) or tuple(TABLE)
    rows = [Job(out, name, domain, size) for name in names]
    jobs = list({job.run: job for job in rows}.values())
    repetitions = [[replace(row, repetition=seed) for row in rows] for seed in range(size.repetitions)]
    searches = [job for repetition in repetitions for job in repetition]
    for job in jobs:
        refuse_another(TABLE[job.name].model, data, job.run, job.options)
    started = time.perf_counter()
    command = f"expost reproduce table2 --domain {domain} --scale {scale}"
    if models:
        command += f" --models {' '.join(repr(name) for name in models)}"
    # when continued, finished results are read first, so that the table does not shrink meanwhile
    standing = sum(all(_finished(job.search, size.rounds) for job in repetition) for repetition in repetitions)
    if standing < len(repetitions):
        libraries()  # report missing packages before anything is trained
    hardware = _hardware_before(out / "table.json")
    found: dict[Job, SearchResult] = {}
    with open_engine(where or Resources(), out) as engine:
        for trained in engine.run(learn, jobs, engine.devices(len(jobs)), lambda job: job.log):
            say(f"{trained.task.run.name}: trained, after {time.perf_counter() - started:.0f} s")
        for done in engine.run(seek, searches, engine.devices(len(searches)), lambda job: job.log):
            say(f"{done.task.name}, search {done.task.repetition}: done, after {time.perf_counter() - started:.0f} s")
            found[done.task] = done.result
            whole = [repetition for repetition in repetitions if all(job in found for job in repetition)]
            if done.task in (job for repetition in whole for job in repetition) and len(whole) >= standing:
                record = _record(rows, whole, found, hardware)
                record |= {"command": command, "scale": {"name": scale, **to_json(size)}}
                write_json(out / "table.json", record)
                write_text(out / "table.md", markdown(record))
                write_text(out / "table.csv", as_csv(record))
    return given


def _hardware_before(path: Path) -> str | None:
    """Return the hardware that an earlier table names."""
    before = read_json(path) if path.exists() else {}
    if not isinstance(before, dict):
        raise DataError(f"{path} is no table, or damaged; move it away")
    return before.get("hardware")


def _record(
    rows: Sequence[Job], repetitions: Sequence[Sequence[Job]], found: Mapping[Job, SearchResult], before: str | None
) -> dict[str, Any]:
    """Return the table of complete repetitions: those in which every row has been searched."""
    runs = {row.run: row for row in rows}.values()
    parts = [noted_hardware(job.hardware) for job in (*runs, *(job for each in repetitions for job in each))]
    columns = zip(rows, zip(*repetitions, strict=True), strict=True)
    results = {row.name: _row(row, {job: found[job] for job in searches}) for row, searches in columns}
    return {
        "format": 1,
        "version": __version__,
        "hardware": summary(parts, before),
        "seconds": round(
            sum(training_seconds(job.run) for job in runs) + sum(row["search seconds"] for row in results.values())
        ),
        "domain": rows[0].domain,
        "data": PUBLISHED[rows[0].domain].data,
        "searches": len(repetitions),
        "rows": results,
    }


def learn(job: Job, device: str) -> None:
    """Train a row's model, or resume its training, and measure what its codes say."""
    published = PUBLISHED[job.domain]
    run = train_or_go_on(TABLE[job.name].model, published.data, job.run, job.options, device, job.hardware)
    asked = {"settings": defining_settings(run), "model": run.weights_hash(), "version": __version__}
    if saved(job.codes, asked) is None:
        use = code_use(run, published.objective, job.size.inducing, device)
        write_json(job.codes, {"asked": asked, "codes": asdict(use)})


def _finished(search: Path, rounds: int) -> bool:
    path = search / "search.json"
    record = read_json(path) if path.exists() else {}
    return isinstance(record, dict) and len(record.get("rounds", ())) >= rounds


def seek(job: Job, device: str) -> SearchResult:
    """Search once, or resume the search."""
    row, size = TABLE[job.name], job.size
    if not _finished(job.search, size.rounds):
        note_hardware(job.hardware, device)
    return optimize(
        job.run,
        options=_scoring(job),
        region=row.region,
        rounds=size.rounds,
        batch=size.batch,
        decodes=size.decodes,
        inducing=size.inducing,
        codes=size.codes,
        out=job.search,
        seed=job.repetition or 0,
        device=device,
    )


def _scoring(job: Job) -> Mapping[str, str]:
    """Return the objective's options in a row."""
    return PUBLISHED[job.domain].options if TABLE[job.name].published else {}


def _row(job: Job, found: Mapping[Job, SearchResult]) -> dict[str, Any]:
    searches, results = list(found), list(found.values())
    best = [found for result in results for found in result.best(1)]
    best.sort(key=lambda found: results[0].sign * found.score)
    original = aggregate_original(results, PUBLISHED[job.domain].cutoff)
    return {
        "model": asdict(TABLE[job.name]) | {"scoring": _scoring(job)},
        "corrected": asdict(aggregate_corrected(results)),
        "original": asdict(original),
        "different": _mean([len(result.strings) for result in results]),
        "new": _mean([result.new for result in results]),
        "starts": [result.start for result in results],
        "improved": sum(result.improved for result in results),
        "best": asdict(best[0]) if best else None,
        "codes": read_json(job.codes)["codes"],
        "training seconds": training_seconds(job.run),
        "search seconds": round(sum(sum(each.seconds.values()) for result in results for each in result.rounds), 1),
        "hardware": {
            "training": noted_hardware(job.hardware),
            "search": list(dict.fromkeys(name for each in searches for name in noted_hardware(each.hardware))),
        },
        "repetitions": [result.summary() for result in results],
    }


def _mean(counts: Sequence[int | None]) -> float | None:
    known = [count for count in counts if count is not None]
    return sum(known) / len(known) if len(known) == len(counts) else None
