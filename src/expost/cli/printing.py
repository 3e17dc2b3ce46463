"""What the command line prints of each command's result: for a person, or as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_core import PydanticSerializationError, to_jsonable_python
from pydantic_core import to_json as json_bytes
from rich.console import Console
from rich.table import Table
from rich.text import Text

from expost.cli.encoding import encodes, shown
from expost.config import to_json

if TYPE_CHECKING:
    from expost.commands.fitting import Fitted
    from expost.commands.listing import DataShown
    from expost.evaluation.ranking import Ranked
    from expost.evaluation.scores import Score
    from expost.run import Run
    from expost.search import SearchResult
    from expost.sharing.onnx import Exported


_COLUMNS = 12
"""Most columns of a table of data that are printed."""


def show_zoo(rows: list[dict[str, Any]]) -> None:
    """Print the table of models."""
    columns = ("latent", "penalty", "regularizer", "prior")
    table = Table(
        "model", *(c if c != "prior" else "samples from" for c in columns), "summary", box=None, pad_edge=False
    )
    for row in rows:
        table.add_row(row["name"], *(row[c]["name"] if row[c] else "-" for c in columns), row["summary"])
    _console().print(table)


def show_data(found: list[dict[str, Any]] | DataShown) -> None:
    """Print the tables of data sets, or what one of them is."""
    if isinstance(found, list):
        _show_catalog(found)
        return
    print(f"data: {found.description}")
    if found.columns:
        _show_rows(found.columns, found.examples)
    else:
        for string in found.examples:
            print(string)
    if found.file:
        print(found.file + (f", row by row: {', '.join(found.classes)}" if found.classes else ""))


def _show_rows(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print rows of a table under their names; of many columns the first ones and the last."""
    kept = list(range(len(columns)))
    if len(kept) > _COLUMNS:
        kept = [*kept[: _COLUMNS - 2], kept[-1]]
    table = Table(*(columns[index] for index in kept), box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(row[index] if isinstance(row[index], str) else f"{row[index]:.6g}" for index in kept))
    _console().print(table)
    if len(kept) < len(columns):
        print(f"({len(kept)} of {len(columns)} columns)")


def _show_catalog(rows: list[dict[str, Any]]) -> None:
    from expost.data.named_strings import STRING_DATASETS

    table = Table("name", "shape", "train", "validation", "test", "source", "found", "what", box=None, pad_edge=False)
    for row in rows:
        counts = (f"{row[split]:,}" for split in ("train", "validation", "test"))
        shape = "x".join(map(str, row["shape"]))
        table.add_row(row["name"], shape, *counts, row["source"], row["found"] or "-", row["title"])
    console = _console()
    console.print(table)
    console.print()
    strings = Table("name", "what", "strings", box=None, pad_edge=False)
    for name, entry in STRING_DATASETS.items():
        strings.add_row(name, entry.domain, entry.title)
    console.print(strings)
    console.print(
        "\nAlso from disk, by their path: image folders, and archives of them (.zip, .tar); .npz, .npy, .csv, .tsv, "
        "parquet and IDX files; strings in .smi, .txt and .csv files. expost data PATH shows what would be read.",
        highlight=False,
    )


def show_scores(scores: list[Score]) -> None:
    """Print how scores were computed, and the scores: one column per subject, arrows towards the better end."""
    from expost.evaluation.scores import headline

    console = _console()
    console.print(shown(headline(scores)), markup=False, highlight=False, soft_wrap=True)
    subjects = list(dict.fromkeys(score.of for score in scores))
    table = Table("score", *subjects, box=None, pad_edge=False)
    for name in dict.fromkeys(score.name for score in scores):
        values = {score.of: _shown(score) for score in scores if score.name == name}
        table.add_row(_with_arrow(name), *(values.get(subject, "") for subject in subjects))
    console.print(table)


def _with_arrow(name: str) -> str:
    from expost.evaluation.catalog import direction_of

    return shown(f"{name} {'↓ ↑'[direction_of(name).sign + 1]}".rstrip())


def _shown(score: Score) -> str:
    spread = f" ± {score.error:.2g}" if score.error is not None else ""
    interval = f" [{score.interval[0]:.4g}, {score.interval[1]:.4g}]" if score.interval is not None else ""
    return shown(f"{score.value:.4g}{spread}{interval}")


def show_ranking(ranking: list[Ranked]) -> None:
    """Print runs by their scores, with their places."""
    from expost.evaluation.scores import headline

    console, first = _console(), ranking[0].score
    console.print(shown(headline([first])), markup=False, highlight=False, soft_wrap=True)
    one = all(each.score.of == first.of for each in ranking)
    columns = [f"{_with_arrow(first.name)} of {first.of}"] if one else [_with_arrow(first.name), "of"]
    table = Table("", "run", *columns, box=None, pad_edge=False)
    for each in ranking:
        table.add_row(each.shown, Text(shown(each.label)), _shown(each.score), *([] if one else [shown(each.score.of)]))
    console.print(table)
    if any(each.tied for each in ranking):
        console.print("= : a tie, as the difference is within its 95 % interval", markup=False, highlight=False)


def show_exported(files: list[Exported]) -> None:
    """Print the files of an export, with their inputs and outputs."""
    for file in files:
        checked = "not compared" if file.difference is None else f"within {file.difference:.1g} of torch"
        print(f"{file.path} ({checked})\n  {file.input}\n  {file.output}")


def show_doctor(report: dict[str, Any]) -> None:
    """Print the tables of a doctor's report on the machine, or its lines on a run."""
    from expost.commands.doctor import lines, tables

    if "files" in report:
        for line in lines(report):
            print(shown(line))
        return
    for each in tables(report):
        _console().print(each)


def failed_doctor(report: dict[str, Any]) -> bool:
    """Return whether a file of a run is wrong; what a machine lacks, others may do without."""
    return "files" in report and bool(report["problems"])


def show_search(result: SearchResult) -> None:
    """Print what a search has found."""
    from expost.search import markdown

    print(markdown(result))


def show_table(folder: Path) -> None:
    """Print a table of runs, and its folder."""
    print((folder / "table.md").read_text(encoding="utf-8"))
    print(folder)


def show_run(run: Run) -> None:
    """Print a run's folder; for a dry run, its configuration."""
    from expost.utils.progress import say

    if run.dry:
        found = run.data()
        say(f"data: {found.note}")
        say(run.note)
        say(run.pace(found))
        show_as_json(to_json(run.config))
    else:
        print(run.folder)


def show_as_json(value: Any) -> None:
    """Print plain values as JSON."""
    try:
        text = json_bytes(value, indent=2, fallback=str).decode()
    except PydanticSerializationError:  # a file name that is not in the file system's encoding
        text = json.dumps(to_jsonable_python(value, fallback=str), indent=2)
    # escapes, which any JSON reader takes, where the output cannot say a character
    print(text if encodes(text) else json.dumps(json.loads(text), indent=2))


def as_json(result: Any) -> Any:
    """Return a command's result as plain values."""
    if isinstance(result, list):
        return [as_json(each) for each in result]
    if isinstance(result, Path):
        return {"path": str(result)}
    if isinstance(result, dict | str):
        return result
    from expost.run import Run  # whose results these are has imported them
    from expost.search import SearchResult

    if isinstance(result, Run):
        return to_json(result.config) if result.dry else {"run": str(result.folder)}
    return result.summary() if isinstance(result, SearchResult) else result


def show_fitted(fitted: Fitted) -> None:
    """Print where a density is saved; what it has learned was said."""
    print(fitted.path)


def show_path(result: Any) -> None:
    """Print a path or a text as it is."""
    print(result)


def show_nothing(result: Any) -> None:
    """Print nothing."""


class _Console(Console):
    """A console that leaves it to its caller what becomes of a broken pipe."""

    def on_broken_pipe(self) -> None:
        """Raise again what was caught."""
        raise


def _console() -> Console:
    # a table that is piped into a file keeps its columns
    return _Console() if sys.stdout.isatty() else _Console(width=160)
