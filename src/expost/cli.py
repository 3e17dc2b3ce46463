"""The command line: the functions of `expost.commands`, their options typed and documented by their signatures."""

from __future__ import annotations

import functools
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import tyro
from pydantic_core import to_json as json_bytes
from rich.console import Console
from rich.table import Table

from expost import commands
from expost.config import to_json
from expost.data import data_catalog
from expost.errors import UsageError
from expost.experiments import reproduce
from expost.report import report
from expost.run import Run
from expost.scores import Score
from expost.search import SearchResult
from expost.search import markdown as search_table
from expost.training import Interrupted
from expost.zoo import ZOO

DESCRIPTION = "Generative modelling with regularized autoencoders: train, fit a density ex post, sample, evaluate."


def zoo() -> list[dict[str, Any]]:
    """List the models: each is one row of choices."""
    return [{"name": name, **to_json(row)} for name, row in ZOO.items()]


def data() -> list[dict[str, Any]]:
    """List the data sets that have names, and what can be read from disk."""
    return [to_json(entry) for entry in data_catalog()]


def _print_zoo(rows: list[dict[str, Any]]) -> None:
    columns = ("latent", "penalty", "regularizer", "prior")
    table = Table(
        "model", *(c if c != "prior" else "samples from" for c in columns), "summary", box=None, pad_edge=False
    )
    for row in rows:
        table.add_row(row["name"], *(row[c]["name"] if row[c] else "-" for c in columns), row["summary"])
    _console().print(table)


def _print_data(rows: list[dict[str, Any]]) -> None:
    table = Table("name", "shape", "train", "validation", "test", "source", "found", "what", box=None, pad_edge=False)
    for row in rows:
        counts = (f"{row[split]:,}" for split in ("train", "validation", "test"))
        shape = "x".join(map(str, row["shape"]))
        table.add_row(row["name"], shape, *counts, row["source"], row["found"] or "-", row["title"])
    console = _console()
    console.print(table)
    console.print(
        "\nAlso from disk: image folders, .npz, .npy, .csv, parquet and IDX files, by their path.", highlight=False
    )


def _print_scores(scores: list[Score]) -> None:
    subjects = list(dict.fromkeys(score.of for score in scores))
    table = Table("score", *subjects, box=None, pad_edge=False)
    for name in dict.fromkeys(score.name for score in scores):
        values = {score.of: _shown(score) for score in scores if score.name == name}
        table.add_row(name, *(values.get(subject, "") for subject in subjects))
    console = _console()
    console.print(table)
    card = scores[0].card
    console.print(
        f"{card.count:,} examples on {card.features} against {card.reference} ({card.reference_count:,}), "
        f"seed {card.seed}",
        highlight=False,
    )


def _shown(score: Score) -> str:
    spread = f" ± {score.error:.2g}" if score.error is not None else ""
    interval = f" [{score.interval[0]:.4g}, {score.interval[1]:.4g}]" if score.interval is not None else ""
    return f"{score.value:.4g}{spread}{interval}"


def _print_ranking(ranking: list[tuple[str, Score]]) -> None:
    first = ranking[0][1]
    table = Table("", "run", f"{first.name} of {first.of}", box=None, pad_edge=False)
    for place, (label, score) in enumerate(ranking, 1):
        table.add_row(str(place), label, _shown(score))
    _console().print(table)


def _print_search(result: SearchResult) -> None:
    print(search_table(result))


def _print_table(folder: Path) -> None:
    print((folder / "table.md").read_text(encoding="utf-8"))
    print(folder)


def _print_run(run: Run) -> None:
    if run.dry:
        _print_json(to_json(run.config))
    else:
        print(run.folder)


def _print_json(value: Any) -> None:
    print(json_bytes(value, indent=2, fallback=str).decode())


def _console() -> Console:
    # a table that is piped into a file keeps its columns
    return Console() if sys.stdout.isatty() else Console(width=160)


#: The commands: what runs, and what prints its result for a person.
COMMANDS: dict[str, tuple[Callable[..., Any], Callable[[Any], None]]] = {
    "zoo": (zoo, _print_zoo),
    "data": (data, _print_data),
    "train": (commands.train, _print_run),
    "fit": (commands.fit, print),
    "sample": (commands.sample, print),
    "reconstruct": (commands.reconstruct, print),
    "interpolate": (commands.interpolate, print),
    "evaluate": (commands.evaluate, _print_scores),
    "rank": (commands.rank, _print_ranking),
    "score": (commands.score, _print_scores),
    "report": (report, print),
    "optimize": (commands.optimize, _print_search),
    "reproduce": (reproduce, _print_table),
}


def _as_json(result: Any) -> Any:
    if isinstance(result, Run):
        return to_json(result.config) if result.dry else {"run": str(result.folder)}
    if isinstance(result, SearchResult):
        return result.summary()
    if isinstance(result, Path):
        return {"path": str(result)}
    return [_as_json(each) for each in result] if isinstance(result, list) else result


def _command(function: Callable[..., Any], show: Callable[[Any], None]) -> Callable[..., None]:
    """Wrap a command so that it prints its result, with the options that all commands share."""

    @functools.wraps(function)
    def run(*args: Any, json: bool = False, debug: bool = False, **options: Any) -> None:
        try:
            result = function(*args, **options)
            (_print_json if json else show)(_as_json(result) if json else result)
            sys.stdout.flush()
        except BrokenPipeError:  # the reader of our output went away, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except (Exception, KeyboardInterrupt) as error:
            if debug:
                traceback.print_exc()
            print(f"error: {_reason(error, options)}", file=sys.stderr)
            raise SystemExit(2 if isinstance(error, UsageError) else 1) from None

    shared = {
        name: inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False) for name in ("json", "debug")
    }
    signature = inspect.signature(function)
    hints = get_type_hints(function, include_extras=True)
    run.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), *shared.values()], return_annotation=None
    )
    run.__annotations__ = hints | {"json": bool, "debug": bool, "return": None}
    run.__doc__ = _document(function.__doc__ or "")
    del run.__wrapped__  # so that the signature and the text above are the ones that are read
    return run


def _document(doc: str) -> str:
    shared = "        json: Print the result as JSON.\n        debug: Show the traceback of an error.\n"
    head, args, tail = doc.partition("    Args:\n")
    if not args:
        return f"{doc}\n\n    Args:\n{shared}"
    described, returns, rest = tail.partition("\n    Returns:")
    return f"{head}{args}{described.rstrip()}\n{shared}{returns}{rest}"


def _reason(error: BaseException, options: dict[str, Any]) -> str:
    if isinstance(error, Interrupted):
        return f"stopped, and saved; go on with the same command and --resume (the run is in {options.get('out')})"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; nothing was lost that was saved before"
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror:  # without the number that str() puts in front
        text = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return text if isinstance(error, ValueError | OSError) and text else f"{type(error).__name__}: {text}"


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line.

    Args:
        args: The words behind `expost`; None takes the process's.

    Raises:
        SystemExit: with status 2 for wrong usage, 1 for any other failure.
    """
    subcommands = {name: _command(function, show) for name, (function, show) in COMMANDS.items()}
    tyro.extras.subcommand_cli_from_dict(
        subcommands,
        prog="expost",
        description=DESCRIPTION,
        args=args,
        config=(tyro.conf.DisallowNone, tyro.conf.FlagCreatePairsOff),
    )


if __name__ == "__main__":
    main()
