"""Table 2 of Ghosh et al. 2020: Bayesian optimisation in the latent spaces of grammar and character models.

The paper's four rows, searched as it does in the box of the training codes, and ours: the same regularised autoencoder
with a decoder that works on all positions at once, searched where the fitted density has mass. A run is a folder, a
search is a folder; what is finished is not done again, what was interrupted goes on.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from expost import __version__
from expost.commands import optimize, train
from expost.config import to_json
from expost.errors import UsageError
from expost.experiments.cells import what_decides
from expost.experiments.hardware import hardware, training_seconds
from expost.experiments.table2_report import markdown
from expost.metrics.molecule_properties import PenalizedLogP
from expost.parallel import pick_workers, run_all
from expost.progress import say
from expost.registry import Registry
from expost.run import Run
from expost.search import SearchResult, aggregate_corrected, aggregate_original
from expost.store import write_json, write_text

Domain = Literal["expressions", "molecules"]

#: The published data of each domain.
DATA = {"expressions": "expressions-published", "molecules": "zinc250k"}


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        model: Row of the zoo.
        region: Where is searched.
        preset: Whose networks.
    """

    model: str
    region: Literal["box", "density"]
    preset: str


#: The paper's rows in its order, and ours.
TABLE: Registry[Row] = Registry(
    "row",
    {
        "grae": Row("grae", "box", "paper"),
        "gcvvae": Row("gcvvae", "box", "paper"),
        "gvae": Row("gvae", "box", "paper"),
        "character-vae": Row("character-vae", "box", "paper"),
        "grae, our decoder": Row("grae", "box", "small"),
        "grae, ours": Row("grae", "density", "small"),
    },
)


@dataclass(frozen=True)
class Scale:
    """How much of everything.

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


SCALES: Registry[Scale] = Registry(
    "scale",
    {
        "smoke": Scale(2, 2_000, 500, repetitions=1, rounds=1, batch=10, decodes=5, inducing=50),
        "small": Scale(20, None, 10_000, repetitions=3),
        "paper": Scale(None, None, None, repetitions=10),
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
    def label(self) -> str:
        """Name of its folder."""
        return self.name.replace(", ", "-")

    @property
    def run(self) -> Path:
        """Its run's folder."""
        return self.out / "runs" / self.label

    @property
    def log(self) -> Path:
        """Where its progress is written when there are several workers."""
        suffix = "" if self.repetition is None else f"-search-{self.repetition}"
        return self.out / "logs" / f"{self.label}{suffix}.log"


def reproduce_table2(
    domain: Domain, scale: str, models: Sequence[str], out: Path, device: str, workers: int | None = None
) -> Path:
    """Train and search every row; write `table.json` and `table.md` to `out`.

    Args:
        domain: "expressions" or "molecules".
        scale: Entry of `SCALES`.
        models: Rows of `TABLE`; none for all.
        out: The folder; what it holds is gone on with.
        device: Where to train and decode.
        workers: Rows side by side; see `pick_workers`.

    Returns:
        `out`.
    """
    if domain not in DATA:
        raise UsageError(f"unknown domain '{domain}'; choose one of: {', '.join(DATA)}")
    size = SCALES[scale]
    names = tuple(dict.fromkeys(models)) or tuple(TABLE)
    jobs = [Job(out, name, domain, size) for name in names if TABLE[name]]
    searches = [Job(out, name, domain, size, seed) for seed in range(size.repetitions) for name in names]
    for job in jobs:
        _refuse_another_table(job)
    started = time.perf_counter()
    for trained in run_all(learn, jobs, pick_workers(workers, device, len(jobs)), lambda job: job.log):
        say(f"{trained.task.name}: trained, after {time.perf_counter() - started:.0f} s")
    results: dict[str, list[SearchResult]] = {name: [] for name in names}
    for done in run_all(seek, searches, pick_workers(workers, device, len(searches)), lambda job: job.log):
        say(f"{done.task.name}, search {done.task.repetition}: done, after {time.perf_counter() - started:.0f} s")
        results[done.task.name].append(done.result)
    rows = {job.name: _row(job, results[job.name]) for job in jobs}
    record = {
        "format": 1,
        "version": __version__,
        "command": f"expost reproduce table2 --domain {domain} --scale {scale}"
        + (f" --models {' '.join(repr(name) for name in models)}" if models else ""),
        "hardware": hardware(device),
        "seconds": round(sum(row["training seconds"] + row["search seconds"] for row in rows.values())),
        "domain": domain,
        "data": DATA[domain],
        "scale": {"name": scale, **to_json(size)},
        "rows": rows,
    }
    write_json(out / "table.json", record)
    write_text(out / "table.md", markdown(record))
    return out


def learn(job: Job, device: str) -> None:
    """Train a row's model, or go on with it."""
    row = TABLE[job.name]
    data = DATA[job.domain]
    options: dict[str, Any] = {
        "epochs": job.size.epochs,
        "limit": job.size.limit,
        "preset": row.preset,
        "device": device,
    }
    resume = (job.run / "config.json").exists()
    train(row.model, data, job.run, resume=resume, **({} if resume else options))


def _refuse_another_table(job: Job) -> None:
    if (job.run / "config.json").exists():
        row = TABLE[job.name]
        options: dict[str, Any] = {"epochs": job.size.epochs, "limit": job.size.limit, "preset": row.preset}
        planned = train(row.model, DATA[job.domain], job.run, dry_run=True, **options)
        if what_decides(Run.open(job.run)) != what_decides(planned):
            raise UsageError(f"{job.run} holds a run with other settings than this table's; choose another --out")


def seek(job: Job, device: str) -> SearchResult:
    """Search once, or go on."""
    row, size = TABLE[job.name], job.size
    constants = PenalizedLogP.zinc250k() if job.domain == "molecules" else None
    return optimize(
        job.run,
        region=row.region,
        rounds=size.rounds,
        batch=size.batch,
        decodes=size.decodes,
        inducing=size.inducing,
        codes=size.codes,
        out=job.out / "searches" / f"{job.label}-{job.repetition}",
        options=asdict(constants) if constants else {},  # type: ignore[arg-type]
        seed=job.repetition or 0,
        device=device,
    )


def _row(job: Job, results: Sequence[SearchResult]) -> dict[str, Any]:
    best = [found for result in results for found in result.best(1)]
    best.sort(key=lambda found: found.score if results[0].minimize else -found.score)
    # the published scripts cut off in different ways; see aggregate_original
    original = aggregate_original(results, "last" if job.domain == "expressions" else "own")
    return {
        "model": asdict(TABLE[job.name]),
        "corrected": asdict(aggregate_corrected(results)),
        "original": asdict(original),
        "start": results[0].start,
        "best": asdict(best[0]) if best else None,
        "training seconds": training_seconds(job.run),
        "search seconds": round(sum(sum(each.seconds.values()) for result in results for each in result.rounds), 1),
        "repetitions": [result.summary() for result in results],
    }
