"""The command line: the functions of `expost.commands`, their options typed and documented by their signatures.

Only the command that is asked for is imported; the help of the whole needs none.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import os
import re
import shlex
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, TypedDict, get_args, get_origin, get_type_hints

from expost.cli import startup  # first of all that is not the standard library, since it watches the import of the rest

# isort: split
import tyro

from expost.cli.catalog import COMMANDS, DESCRIPTION
from expost.cli.encoding import fall_back
from expost.cli.usage import refused
from expost.commands.groups import Group, as_typed, groups_of, worded
from expost.errors import DataError, Interrupted, OtherProcessError, Symptom, Terminated, UsageError

startup.done()


#: A flag has one name, for the opposite of its default; an optional one (None) has two, --x and --no-x.
_Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]


def load(name: str) -> tuple[Callable[..., Any], Callable[[Any], None]]:
    """Import a command: return its function, and the one that prints its result for a person."""
    module, _, function = COMMANDS[name].home.partition(":")
    with startup.watched():
        show = getattr(import_module("expost.cli.printing"), f"show_{COMMANDS[name].shown}")
        return getattr(import_module(f"expost.{module}"), function), show


def _command(name: str, words: Sequence[str]) -> Callable[..., Callable[[], None]]:
    """Wrap a command for tyro: a function that takes its options and the shared ones, and returns the call to run."""
    function, show = load(name)
    groups = {f"{heading}_options": (heading, group) for heading, group in groups_of(function).items()}

    def read(*args: Any, json: bool = False, debug: bool = False, **options: Any) -> Callable[[], None]:
        for group in groups:
            options |= options.pop(group)
        call = functools.partial(worded(function), *args, **options)
        return functools.partial(_run, name, call, show, words, options, json, debug)

    kinds = hints(function)
    parameters = [
        each.replace(annotation=kinds[each.name])
        for each in inspect.signature(function).parameters.values()
        if each.kind is not inspect.Parameter.VAR_KEYWORD  # the groups are its names
    ]
    parameters += [_keyword(shared, bool, False) for shared in ("json", "debug")]
    for key, (heading, group) in groups.items():
        kind: Any = Annotated[(_record(group), tyro.conf.OmitArgPrefixes, tyro.conf.arg(name=heading))]
        parameters.append(_keyword(key, kind, group.unset))
    read.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    read.__annotations__ = {
        each.name: _hinted(_Flag if each.annotation is bool else each.annotation) for each in parameters
    }
    read.__doc__ = _document(function.__doc__ or "", COMMANDS[name].examples)
    return read


def hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the types of a command's parameters; those of its result would import what makes it."""
    inner = inspect.unwrap(function)
    taken = {name: kind for name, kind in inner.__annotations__.items() if name != "return"}
    return get_type_hints(SimpleNamespace(__annotations__=taken), inner.__globals__, include_extras=True)


def _hinted(kind: Any) -> Any:
    """Return a type whose help names the default where there is one: None and nothing at all say nothing."""
    return Annotated[kind, tyro.conf.arg(help_behavior_hint=_default)]


def _default(label: str) -> str:
    return "" if label in ("", "None", "[]") else f"(default: {label})"


def _record(group: Group) -> Any:
    """Return a group's record with hinted types."""
    kinds = {name: _hinted(kind) for name, kind in get_type_hints(group.record, include_extras=True).items()}
    hinted: Any = TypedDict(group.record.__name__, kinds, total=False)  # type: ignore[misc]
    hinted.__doc__ = group.record.__doc__
    return hinted


def _keyword(name: str, kind: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)


def _run(
    name: str,
    call: Callable[[], Any],
    show: Callable[[Any], None],
    words: Sequence[str],
    options: dict[str, Any],
    json: bool,
    debug: bool,
) -> None:
    """Run a command and print its result; turn an error into one line and an exit status."""
    first, launched = True, False
    if "RANK" in os.environ:  # else there is no need of torch to know
        from expost import distributed

        first, launched = distributed.is_first(), distributed.launched()
        if launched and not COMMANDS[name].shared:
            if not first:
                return
            distributed.leave()
    try:
        if COMMANDS[name].torch:  # now, so that Ctrl-C does not end its import with a traceback
            with startup.watched():
                import_module("torch")
        result = call()
        if not first:
            return
        if json:
            from expost.cli.printing import as_json, show_as_json

            show_as_json(as_json(result))
        else:
            show(result)
        sys.stdout.flush()
        if COMMANDS[name].failed and getattr(import_module("expost.cli.printing"), f"failed_{COMMANDS[name].failed}")(
            result
        ):
            raise SystemExit(1)
    except BrokenPipeError as error:
        _unwritten(error)
    except (Interrupted, KeyboardInterrupt) as stop:
        if first:
            print(_stopped(name, stop, words, options), file=sys.stderr)
        raise SystemExit(_status(stop)) from None
    except Exception as error:
        if debug:
            traceback.print_exc()
        if first:
            print(f"error: {as_typed(_reason(error), options)}", file=sys.stderr)
        elif not isinstance(error, UsageError | DataError | OtherProcessError):
            print(f"error in process {os.environ['RANK']}: {_reason(error)}", file=sys.stderr)
        raise SystemExit(2 if isinstance(error, UsageError) else 1) from None


def _listed(name: str) -> Callable[[], None]:
    """Return a stand-in with the name and summary of a command that was not asked for, so as not to import it."""

    def listed() -> None: ...

    listed.__doc__ = COMMANDS[name].summary
    return listed


def _open_closed() -> None:
    """Open the standard streams that the caller closed (`>&-`), to discard what is written to them.

    Otherwise the next file that is opened would have the number of one of them, and get what is printed.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if sys.__dict__[name] is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 (for as long as the process runs)


def _unwritten(error: OSError) -> None:
    """Discard further output: its reader has gone away, as `head` does, or the disk is full, which is said.

    Raises:
        SystemExit: with status 1, unless a reader has gone away.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if not isinstance(error, BrokenPipeError):
        print(f"error: cannot write the output: {error.strerror or error}", file=sys.stderr)
        raise SystemExit(1) from None


def _document(doc: str, examples: Sequence[str]) -> str:
    """Add the shared options and the examples to a command's description."""
    head, _, tail = re.split(r"\n    (?:Returns|Raises):", doc)[0].partition("    Args:\n")
    options = re.sub(r"\n {12}", " ", tail).rstrip()  # a line each: tyro keeps line breaks
    shown = "".join(f"      {example}\n" for example in examples)
    shared = "        json: Print the result as JSON.\n        debug: Show the traceback of an error.\n"
    return f"{head.rstrip()}\n\n    For example\n{shown}\n    Args:\n{options}\n{shared}"


def _stopped(name: str, stop: BaseException, words: Sequence[str], options: dict[str, Any]) -> str:
    """Return a line that says that a command was stopped, and how to go on."""
    after = COMMANDS[name].after_stop
    if after == "nothing":
        return "stopped"
    if after == "again":
        return f"stopped; the same command goes on: {shlex.join(['expost', *words])}"
    out = stop.folder if isinstance(stop, Interrupted) else options.get("out")
    if after == "saved" or out is None or not (Path(out) / "config.json").is_file():
        return "stopped; what was saved before is kept"
    named = [] if options["out"] is not None else ["--out", str(out)]
    again = shlex.join(["expost", *words, *named, *(() if "--resume" in words else ("--resume",))])
    return f"{'stopped, and saved' if isinstance(stop, Interrupted) else 'stopped'}; go on with: {again}"


def _status(stop: BaseException) -> int:
    """Return the exit status of what a signal has ended, as a shell has it."""
    if isinstance(stop, Interrupted):
        return 128 + stop.number
    return 128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which says much more, of its allocator
        return f"{text.split('. ')[0]}; free memory on the GPU, or give --device cpu (see {Symptom.MEMORY.address})"
    if isinstance(error, OSError) and error.strerror:  # without the number that str() puts in front
        text = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return text if isinstance(error, ValueError | OSError) and text else f"{type(error).__name__}: {text}"


def _read(words: Sequence[str]) -> Callable[[], None]:
    """Parse the words; return the call that they ask for.

    Raises:
        SystemExit: after a help text, or with status 2 if the words are refused, which is said.
    """
    asked = [word for word in words[:1] if word in COMMANDS]
    # an option that is refused may be another command's, which is then said
    loaded: list[Collection[str]] = [asked]
    if asked and any(word.startswith("-") for word in words):
        loaded.append(COMMANDS)
    said = io.StringIO()
    for each in loaded:
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                return _parse(words, each)
        except SystemExit as end:
            if not end.code:
                raise
    print(f"error: {refused(said.getvalue(), words, COMMANDS)}", file=sys.stderr)
    raise SystemExit(2)


def _several(command: str) -> frozenset[str]:
    """Return the flags of a command that take several values, as `--set`."""
    function, _ = load(command)
    kinds = hints(function)
    for group in groups_of(function).values():
        kinds |= get_type_hints(group.record, include_extras=True)
    flags: set[str] = set()
    for name, kind in kinds.items():
        inner = get_args(kind)[0] if get_origin(kind) is Annotated else kind
        many = any(get_origin(each) is tuple and get_args(each)[-1] is ... for each in (inner, *get_args(inner)))
        if name == "options":  # of slots, densities, objectives
            flags.add("--set")
        elif many:
            flags.add(f"--{name.replace('_', '-')}")
    return frozenset(flags)


def joined(words: Sequence[str], several: Collection[str]) -> list[str]:
    """Join the values of a flag that is given several times, at the end: else the last one would win unnoticed.

    Args:
        words: The words of a command line.
        several: Flags that take several values; of others the last one counts.

    Example:
        >>> joined(["fit", "RUN", "--set", "a=1", "--device", "cpu", "--set", "b=2"], {"--set"})
        ['fit', 'RUN', '--device', 'cpu', '--set', 'a=1', 'b=2']
    """
    rest: list[str] = []
    values: dict[str, list[str]] = {}
    times: Counter[str] = Counter()
    current = rest
    for word in words:
        flag, sign, value = word.partition("=")
        if flag in several:
            times[flag] += 1
            current = values.setdefault(flag, [])
            if sign:  # --set=a=1 takes no other word
                current.append(value)
                current = rest
            continue
        if re.fullmatch(r"--.*|-[A-Za-z]", word):
            current = rest
        current.append(word)
    if not any(count > 1 for count in times.values()):
        return list(words)
    return [*rest, *(word for flag, given in values.items() for word in (flag, *given))]


def _parse(words: Sequence[str], loaded: Collection[str]) -> Callable[[], None]:
    """Parse the words with the options of the loaded commands; of the others only the names are known."""
    made: Callable[[], None] = tyro.extras.subcommand_cli_from_dict(
        {name: _command(name, words) if name in loaded else _listed(name) for name in COMMANDS},
        prog="expost",
        description=DESCRIPTION,
        args=joined(words, _several(words[0])) if words[0] in loaded else words,
        config=(tyro.conf.DisallowNone,),
    )
    return made


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line.

    Args:
        args: The words behind `expost`; None takes the process's.

    Raises:
        SystemExit: with status 2 for wrong usage, 130 or 143 after Ctrl-C or SIGTERM, 1 for any other failure.
    """
    _open_closed()
    fall_back()
    words = sys.argv[1:] if args is None else list(args)
    try:
        if words in (["--version"], ["-V"]):
            from expost._version import __version__

            print(f"expost {__version__}")
        elif words:
            with startup.terminable():
                _read(words)()
        else:
            with contextlib.suppress(SystemExit), contextlib.redirect_stdout(sys.stderr):
                _read(["--help"])()
            raise SystemExit(2)
    except KeyboardInterrupt as stop:  # before the command has begun
        print("stopped", file=sys.stderr)
        raise SystemExit(_status(stop)) from None
    except OSError as error:  # of a help text
        _unwritten(error)
    finally:
        try:
            sys.stdout.flush()
        except OSError as error:
            _unwritten(error)


if __name__ == "__main__":
    main()
