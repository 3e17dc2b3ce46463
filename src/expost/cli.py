"""The command line: the functions of `expost.commands`, their options typed and documented by their signatures."""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from expost import startup  # first of all that is not the standard library, since it watches the import of the rest

# isort: split
import tyro
from pydantic_core import to_json as json_bytes
from rich.console import Console
from rich.table import Table

from expost import commands, distributed
from expost.config import to_json
from expost.data import data_catalog
from expost.data.named_strings import STRING_DATASETS
from expost.doctor import doctor, tables
from expost.errors import DataError, UsageError
from expost.experiments import reproduce, sweep
from expost.export import Exported, export
from expost.progress import say
from expost.report import report
from expost.run import Run
from expost.scores import Score
from expost.search import SearchResult
from expost.search import markdown as search_table
from expost.sharing import pull, push
from expost.training import Interrupted
from expost.zoo import ZOO

startup.done()

DESCRIPTION = "Generative modelling with regularized autoencoders: train, fit a density ex post, sample, evaluate."


def zoo() -> list[dict[str, Any]]:
    """List the models: each is one row of choices."""
    return [{"name": name, **to_json(row)} for name, row in ZOO.items()]


def data() -> list[dict[str, Any]]:
    """List the data sets that have names, and what can be read from disk."""
    return [to_json(entry) for entry in data_catalog()]


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], tyro.conf.Positional, tyro.conf.arg(metavar="bash|zsh|fish")],
) -> str:
    """Print the script that makes a shell complete commands and options.

    Args:
        shell: Which shell.

    Returns:
        The script.
    """
    script = io.StringIO()
    with contextlib.redirect_stdout(script), contextlib.suppress(SystemExit):
        main(["--tyro-print-completion", shell])
    return script.getvalue()


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
    console.print()
    strings = Table("name", "what", "strings", box=None, pad_edge=False)
    for name, entry in STRING_DATASETS.items():
        strings.add_row(name, entry.domain, entry.title)
    console.print(strings)
    console.print(
        "\nAlso from disk, by their path: image folders; .npz, .npy, .csv, .tsv, parquet and IDX files; strings in "
        ".smi, .txt and .csv files.",
        highlight=False,
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


def _print_exported(files: list[Exported]) -> None:
    for file in files:
        checked = "not compared" if file.difference is None else f"within {file.difference:.1g} of torch"
        print(f"{file.path} ({checked})\n  {file.input}\n  {file.output}")


def _print_doctor(report: dict[str, Any]) -> None:
    for each in tables(report):
        _console().print(each)


def _print_search(result: SearchResult) -> None:
    print(search_table(result))


def _print_table(folder: Path) -> None:
    print((folder / "table.md").read_text(encoding="utf-8"))
    print(folder)


def _print_run(run: Run) -> None:
    if run.dry:
        found = run.data()
        parts = ", ".join(f"{len(getattr(found, part)):,} {part}" for part in ("train", "validation", "test"))
        say(f"data: {found.name}, {parts}" + (f"; {found.note}" if found.note else ""))
        say(run.note)
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
    "explore": (commands.explore, lambda nothing: None),
    "optimize": (commands.optimize, _print_search),
    "reproduce": (reproduce, _print_table),
    "sweep": (sweep, _print_table),
    "push": (push, print),
    "pull": (pull, _print_run),
    "export": (export, _print_exported),
    "doctor": (doctor, _print_doctor),
    "completion": (completion, print),
}

#: Commands that several launched processes share; any other is run by the first of them alone.
SHARED = ("train", "fit", "evaluate")

#: What a person types: every command's help ends with these.
EXAMPLES: dict[str, tuple[str, ...]] = {
    "zoo": ("expost zoo", "expost zoo --json"),
    "data": ("expost data",),
    "train": (
        "expost train rae-l2 --data mnist-5k --out runs/first",
        "expost train vae --data photos/ --size 64 --out runs/photos --epochs 50",
        "expost train grae --data expressions --out runs/strings",
        "expost train cv-vae --data digits --out runs/cv --set latent.sigma=0.5 --dry-run",
        "expost train rae-l2 --data mnist-5k --out runs/first --resume --epochs 50",
    ),
    "fit": (
        "expost fit runs/first --density gmm --components 10",
        "expost fit runs/first --density gmm --set covariance=diag",
    ),
    "sample": (
        "expost sample runs/first -n 64 --out samples.png",
        "expost sample runs/first -n 10000 --out samples.npy",
    ),
    "reconstruct": ("expost reconstruct runs/first --out reconstructions.png",),
    "interpolate": ("expost interpolate runs/first --out paths.png --method spherical",),
    "evaluate": ("expost evaluate runs/first", "expost evaluate runs/first --densities gmm kde --bootstrap 100"),
    "rank": ("expost rank runs/* --score fid --of gmm",),
    "score": ("expost score samples.npy --reference mnist-5k", "expost score generated/ --reference photos/"),
    "optimize": ("expost optimize runs/strings --rounds 5", "expost optimize runs/molecules --objective qed"),
    "reproduce": ("expost reproduce table1 --help",),
    "sweep": (
        "expost sweep rae-l2 vae --data mnist-5k --set beta=1e-4,1e-3,1e-2 epochs=10 --seeds 3 --out runs/sweep",
        "expost sweep rae-l2 --data mnist --set latent_dim=8,16,32 --out /shared/sweep --engine ray --address auto",
    ),
    "report": ("expost report runs/first",),
    "explore": ("expost explore runs/first", "expost explore runs/first --no-browser --port 8000"),
    "push": (
        "expost push runs/first me/rae-digits --license mit --dry-run --out look",
        "expost push runs/first me/rae-digits --license mit --private",
    ),
    "pull": ("expost pull me/rae-digits --out runs/theirs",),
    "export": ("expost export runs/first --out onnx/",),
    "doctor": ("expost doctor", "expost doctor --json"),
    "completion": (
        "expost completion bash > ~/.local/share/bash-completion/completions/expost",
        "expost completion zsh > ~/.zfunc/_expost",
        "expost completion fish > ~/.config/fish/completions/expost.fish",
    ),
}


def _as_json(result: Any) -> Any:
    if isinstance(result, Run):
        return to_json(result.config) if result.dry else {"run": str(result.folder)}
    if isinstance(result, SearchResult):
        return result.summary()
    if isinstance(result, Path):
        return {"path": str(result)}
    return [_as_json(each) for each in result] if isinstance(result, list) else result


def _command(name: str, words: Sequence[str]) -> Callable[..., None]:
    """Wrap a command so that it prints its result, with the options that all commands share."""
    function, show = COMMANDS[name]

    @functools.wraps(function)
    def run(*args: Any, json: bool = False, debug: bool = False, **options: Any) -> None:
        if name not in SHARED and distributed.launched():
            if not distributed.is_first():
                return
            distributed.leave()
        try:
            result = function(*args, **options)
            if not distributed.is_first():
                return
            (_print_json if json else show)(_as_json(result) if json else result)
            sys.stdout.flush()
        except BrokenPipeError:
            _discard_output()
        except (Interrupted, KeyboardInterrupt) as stop:
            if distributed.is_first():
                print(_stopped(stop, words, options), file=sys.stderr)
            raise SystemExit(130) from None  # as a shell has it for what Ctrl-C ended
        except Exception as error:
            if debug:
                traceback.print_exc()
            if distributed.is_first():
                print(f"error: {_reason(error)}", file=sys.stderr)
            elif not isinstance(error, UsageError | DataError | distributed.OtherProcessError):
                print(f"error in process {os.environ['RANK']}: {_reason(error)}", file=sys.stderr)
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
    run.__doc__ = _document(function.__doc__ or "", EXAMPLES.get(name, ()))
    del run.__wrapped__  # so that the signature and the text above are the ones that are read
    return run


def _discard_output() -> None:
    """Send what is still to be printed nowhere: the reader of our output went away, as `head` does."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _document(doc: str, examples: Sequence[str]) -> str:
    """Add the shared options and the examples to a command's description."""
    shared = "        json: Print the result as JSON.\n        debug: Show the traceback of an error.\n"
    head, args, tail = doc.partition("    Args:\n")
    shown = "".join(f"      {example}\n" for example in examples)
    head = f"{head.rstrip()}\n\n    For example\n{shown}\n" if shown else head
    if not args:
        return f"{head.rstrip()}\n\n    Args:\n{shared}"
    described, returns, rest = tail.partition("\n    Returns:")
    return f"{head}{args}{described.rstrip()}\n{shared}{returns}{rest}"


def _stopped(stop: BaseException, words: Sequence[str], options: dict[str, Any]) -> str:
    if {"engine", "rounds"} & options.keys():  # a grid of runs, or a search: each goes on by itself
        return f"stopped; the same command goes on: {shlex.join(['expost', *words])}"
    if "browser" in options:
        return "stopped"
    out = options.get("out")
    if "resume" not in options or out is None or not (Path(out) / "config.json").is_file():
        return "stopped; what was saved before is kept"
    again = shlex.join(["expost", *words, *(() if "--resume" in words else ("--resume",))])
    return f"{'stopped, and saved' if isinstance(stop, Interrupted) else 'stopped'}; go on with: {again}"


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which says much more, of its allocator
        return f"{text.split('. ')[0]}; free memory on the GPU, or give --device cpu"
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
    words = sys.argv[1:] if args is None else list(args)
    subcommands = {name: _command(name, words) for name in COMMANDS}
    try:
        tyro.extras.subcommand_cli_from_dict(
            subcommands,
            prog="expost",
            description=DESCRIPTION,
            args=args,
            config=(tyro.conf.DisallowNone, tyro.conf.FlagCreatePairsOff),
        )
    except KeyboardInterrupt:  # before the command has begun
        print("stopped", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:  # of a help text
        _discard_output()
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            _discard_output()


if __name__ == "__main__":
    main()
