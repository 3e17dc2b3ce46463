"""The completion scripts of bash, zsh and fish: thin, since all of them ask `expost.cli.words`."""

from __future__ import annotations

import inspect
import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import docstring_parser
import tyro

from expost.cli.catalog import COMMANDS

Shell = Literal["bash", "zsh", "fish"]

#: Longest description of an option.
LONGEST = 60
#: Values of options by their names, or by command and name: a kind, or names to choose from.
KINDS: dict[str, str] = {
    "run": "run",
    "runs": "run",
    "label": "label",
    "sample density": "fitted",
    "push densities": "fitted",
    "of": "fitted",
}

_BASH = """\
# Completion of expost for bash. Written by: expost completion bash
_expost_words={words}
_expost() {{
  local IFS=$'\\n' added value line current=${{COMP_WORDS[COMP_CWORD]}}
  [[ $current == "=" ]] && current=
  local -a lines
  COMPREPLY=()
  mapfile -t lines < <(printf '%s' "$_expost_words" |
    {python} -P -m expost.cli.words "$COMP_CWORD" "${{COMP_WORDS[@]}}" 2>/dev/null)
  added=${{lines[0]}}
  for line in "${{lines[@]:1}}"; do
    printf -v value %q "${{line%%$'\\t'*}}"
    COMPREPLY+=("$value")
  done
  if [[ $added == files ]]; then
    compopt -o filenames 2>/dev/null
    COMPREPLY+=($(compgen -f -- "$current"))
  elif [[ $added == folders ]]; then
    compopt -o filenames 2>/dev/null
    COMPREPLY+=($(compgen -d -- "$current"))
  fi
}}
complete -F _expost expost
"""

_ZSH = """\
#compdef expost
# Completion of expost for zsh. Written by: expost completion zsh
_expost_words={words}
_expost() {{
  local added line name
  local -a lines described
  lines=("${{(@f)$(printf '%s' "$_expost_words" |
    {python} -P -m expost.cli.words $((CURRENT - 1)) "${{(@Q)words}}" 2>/dev/null)}}")
  added=$lines[1]
  for line in "${{(@)lines[2,-1]}}"; do
    name=${{line%%$'\\t'*}}
    described+=("${{name//:/\\\\:}}:${{line#*$'\\t'}}")
  done
  (( $#described )) && _describe -t values value described
  [[ $added == files ]] && _files
  [[ $added == folders ]] && _files -/
  return 0
}}
if [[ $funcstack[1] == _expost ]]; then _expost "$@"; else compdef _expost expost; fi
"""

_FISH = """\
# Completion of expost for fish. Written by: expost completion fish
set -g __expost_words {words}
function __expost_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l lines (printf '%s' $__expost_words |
        {python} -P -m expost.cli.words (math (count $words) - 1) $words 2>/dev/null)
    printf '%s\\n' $lines[2..-1]
    switch "$lines[1]"
        case files
            __fish_complete_path (commandline -ct)
        case folders
            __fish_complete_directories (commandline -ct)
    end
end
complete -c expost -f -a '(__expost_complete)'
"""

_SCRIPTS: dict[str, str] = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def completion(
    shell: Annotated[Shell, tyro.conf.Positional, tyro.conf.arg(metavar="bash|zsh|fish")],
) -> str:
    """Print a shell's script for completing commands, options, files, runs, models, densities and labels.

    Args:
        shell: Which shell.

    Returns:
        The script.
    """
    words, python = json.dumps(specification(), separators=(",", ":")), shlex.quote(sys.executable)
    quoted = _in_fish(words) if shell == "fish" else shlex.quote(words)
    return _SCRIPTS[shell].format(words=quoted, python=_in_fish(sys.executable) if shell == "fish" else python)


def _in_fish(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def specification() -> dict[str, Any]:
    """Return every command with its help, its positional values and its options, as `expost.cli.words` takes them."""
    names = choices()
    return {name: _command(name, names) for name in COMMANDS}


def choices() -> dict[str, tuple[Sequence[str], str]]:
    """Return the names to choose from by the option, or by command and option, and what else completes it."""
    from expost.data import DATASETS
    from expost.data.named_strings import STRING_DATASETS
    from expost.densities import DENSITIES
    from expost.evaluation.catalog import ALL_MEASURES, STRING_MEASURES
    from expost.experiments.engines import ENGINES
    from expost.experiments.published import COLUMNS
    from expost.generators.interpolation import INTERPOLATIONS
    from expost.generators.selection import AUTO
    from expost.grammar.grammars import GRAMMARS
    from expost.metrics import FEATURES
    from expost.metrics.measures import MEASURES
    from expost.metrics.molecule_properties import PROPERTIES
    from expost.models.presets import PRESETS
    from expost.models.reconstructions import RECONSTRUCTIONS
    from expost.models.zoo import ZOO
    from expost.networks import NETWORKS
    from expost.search.objectives import OBJECTIVES

    data = ([*DATASETS, *STRING_DATASETS], "files")
    listed: dict[str, Sequence[str]] = {
        "model": tuple(ZOO),
        "models": tuple(ZOO),
        "density": tuple(DENSITIES),
        "fit density": (*DENSITIES, AUTO),
        "densities": tuple(DENSITIES),
        "preset": tuple(PRESETS),
        "network": tuple(NETWORKS),
        "reconstruction": tuple(RECONSTRUCTIONS),
        "method": tuple(INTERPOLATIONS),
        "features": tuple(FEATURES),
        "measures": (*ALL_MEASURES, *STRING_MEASURES),
        "score measures": tuple(MEASURES),
        "fit by": ("label", *PROPERTIES),
        "objective": tuple(OBJECTIVES),
        "engine": tuple(ENGINES),
        "columns": tuple(COLUMNS),
        "device": ("auto", "cpu", "cuda", "mps"),
        "of": ("reconstruction", "interpolation"),
    }
    files = {
        "data": data,
        "reference": data,
        "score samples": data,
        "dataset": data,
        "grammar": (list(GRAMMARS), "files"),
    }
    return {**{name: (values, "") for name, values in listed.items()}, **files}


def _command(name: str, names: Mapping[str, tuple[Sequence[str], str]]) -> dict[str, Any]:
    from expost.cli.parsing import hints, load
    from expost.commands.groups import groups_of

    function, _ = load(name)
    groups = groups_of(function).values()
    kinds = hints(function)
    found: list[tuple[str, Any, Any]] = [
        (each.name, kinds[each.name], each.default)
        for each in inspect.signature(function).parameters.values()
        if each.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    for group in groups:
        of_group = get_type_hints(group.record, include_extras=True)
        found += [(key, of_group[key], default) for key, default in group.unset.items()]
    found += [("json", bool, False), ("debug", bool, False)]
    texts = [inspect.getdoc(function) or "", *(inspect.getdoc(group.record) or "" for group in groups)]
    said = {each.arg_name: each.description or "" for text in texts for each in docstring_parser.parse(text).params}
    said |= {"json": "Print the result as JSON.", "debug": "Show the traceback of an error."}
    positional, options = [], dict[str, Any]()
    for key, kind, default in found:
        bare, marks = _bare(kind)
        if tyro.conf.Suppress in marks:
            continue
        value = _value(name, key, bare, names) | {"help": _first_sentence(said.get(key, ""))}
        if tyro.conf.Positional in marks:
            positional.append(value)
            continue
        configured: list[Any] = [each for each in marks if isinstance(each, type(tyro.conf.arg()))]
        written = next((each.name for each in configured if each.name), key.replace("_", "-"))
        flags = [f"--{written}", *(alias for each in configured for alias in each.aliases or ())]
        if value["kind"] == "flag" and default is True:
            flags = [f"--no-{written}"]
        elif value["kind"] == "flag" and default is None:
            flags.append(f"--no-{written}")
        options |= dict.fromkeys(flags, value)
    options["--help"] = {"kind": "flag", "choices": [], "many": False, "help": "Show the help."}
    return {"help": COMMANDS[name].summary, "positional": positional, "options": options}


def _bare(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return a type without what it is annotated with, and that."""
    if get_origin(kind) is Annotated:
        inner, *marks = get_args(kind)
        return inner, tuple(marks)
    return kind, ()


def _value(command: str, key: str, kind: Any, names: Mapping[str, tuple[Sequence[str], str]]) -> dict[str, Any]:
    """Return how a value of an option is completed."""
    parts = [_bare(each)[0] for each in get_args(kind)] if get_origin(kind) in (Union, UnionType) else [kind]
    parts = [each for each in parts if each is not NoneType]
    many = any(get_origin(each) is tuple or each is tuple for each in parts)
    if parts == [bool]:
        return {"kind": "flag", "choices": [], "many": False}
    of_command = f"{command} {key}"
    own = KINDS.get(of_command, KINDS.get(key, ""))
    listed, added = names.get(of_command, names.get(key, ((), "")))
    if own == "fitted" and key != "of":
        listed = ()
    written = [value for each in parts if get_origin(each) is Literal for value in get_args(each)]
    is_path = key == "out" or any(each is Path for each in parts)
    return {"kind": own or added or ("files" if is_path else ""), "choices": [*written, *listed], "many": many}


def _first_sentence(text: str) -> str:
    first = re.split(r"(?<=[.;:])\s", " ".join(text.split()))[0].rstrip(".;:")
    return first if len(first) <= LONGEST else first[: LONGEST - 3].rsplit(" ", 1)[0] + "..."
