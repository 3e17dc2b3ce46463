"""Completion: what could stand in the place of a word, asked as a shell asks it, and in the shells themselves."""

import contextlib
import json
import os
import pty
import re
import resource
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import expost
from expost.cli import main
from expost.cli.catalog import COMMANDS
from expost.cli.completing import specification
from expost.cli.words import complete
from expost.densities import DENSITIES
from expost.models.zoo import ZOO


@pytest.fixture(scope="module")
def words_of_commands():
    return specification()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with runs in `runs/`, one beside it, and other files; one run has densities, also by label."""
    folder = tmp_path_factory.mktemp("place")
    run = expost.train(
        "rae", "digits", folder / "runs" / "first", epochs=1, width=8, latent_dim=4, limit=200, tensorboard=False
    )
    expost.fit(run, "gaussian")
    expost.fit(run, "gaussian", by="label")
    for name in ("runs/group/second", "runs/second run", "alone"):
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").touch()
    (folder / "photos").mkdir()
    (folder / "table.csv").touch()
    return folder


@pytest.fixture(autouse=True)
def _there(place, monkeypatch):
    monkeypatch.chdir(place)


def found(words, specified):
    added, candidates = complete(specified, len(words) - 1, words)
    return added, list(candidates)


@pytest.mark.parametrize(
    ("line", "added", "expected"),
    [
        (["expost", "do"], "nothing", ["doctor"]),
        (["expost", "push", "--pri"], "nothing", ["--private"]),
        (["expost", "train", "rae-"], "nothing", [name for name in ZOO if name.startswith("rae-")]),
        (["expost", "train", "rae", "--data", "mnist-"], "files", ["mnist-5k"]),
        (["expost", "train", "rae", "--data=mnist-"], "files", ["--data=mnist-5k"]),
        (["expost", "train", "rae", "--data", "=", "mnist-"], "files", ["mnist-5k"]),  # as bash splits it
        (["expost", "train", "rae", "--precision", ""], "nothing", ["auto", "float32", "bf16"]),
        (["expost", "fit", ""], "nothing", ["alone", "runs/first", "runs/group/second", "runs/second run"]),
        (["expost", "fit", "runs/f"], "nothing", ["runs/first"]),
        (["expost", "fit", "./runs/f"], "nothing", ["./runs/first"]),
        (["expost", "fit", "photos"], "folders", []),
        (["expost", "fit", "alone", "--density", "k"], "nothing", [name for name in DENSITIES if name[0] == "k"]),
        (["expost", "sample", "runs/first", "--density", ""], "nothing", ["gaussian"]),
        (["expost", "sample", "runs/first", "--label", ""], "nothing", [str(digit) for digit in range(10)]),
        (["expost", "sample", "alone", "--label", ""], "nothing", []),
        (["expost", "sample", "runs/first", "--out", "t"], "files", []),
        (["expost", "rank", "alone", "runs/g"], "nothing", ["runs/group/second"]),
        (["expost", "evaluate", "alone", "--measures", "frechet", "ki"], "nothing", ["kid"]),
        (["expost", "explore", "alone", "--no-"], "nothing", ["--no-browser"]),
        (["expost", "nonsense", ""], "nothing", []),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_could_stand_there(line, added, expected, words_of_commands):
    assert found(line, words_of_commands) == (added, expected)


def test_every_option_of_the_help_is_completed(words_of_commands, capsys):
    for name in COMMANDS:
        with contextlib.suppress(SystemExit):
            main([name, "--help"])
        shown = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*(?=[ ,]|$)", options_of(capsys.readouterr().out)))
        assert shown <= set(words_of_commands[name]["options"]), name


def options_of(text):
    """Return the beginnings of the rows of a help text's tables, where the options stand."""
    rows = [line[2:-1] for line in text.splitlines() if line.startswith("│ -")]
    return "\n".join(re.split(r" {2,}", row)[0] for row in rows)


def script(shell, tmp_path, capsys):
    main(["completion", shell])
    path = tmp_path / f"expost.{shell}"
    path.write_text(capsys.readouterr().out)
    return path


def need(shell):
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"no {shell} on this machine")
    return path


#: What is typed, and what a shell offers.
TYPED = [
    ("expost do", {"doctor"}),
    ("expost push --pri", {"--private"}),
    ("expost fit runs/f", {"runs/first"}),
    ("expost fit alone --density k", {"kde"}),
    ("expost sample runs/first --label 7", {"7"}),
    ("expost train rae --data tab", {"table.csv"}),
]


def test_bash(tmp_path, capsys):
    bash, path = need("bash"), script("bash", tmp_path, capsys)
    ask = (
        "source {path}; f=$(complete -p expost | sed 's/.*-F \\([^ ]*\\) .*/\\1/');"
        "COMP_WORDS=({words}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ));"
        '$f expost "${{COMP_WORDS[-1]}}" "${{COMP_WORDS[-2]}}"; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    for words, expected in [*TYPED, ("expost fit runs/second", {"runs/second\\ run"})]:
        command = ask.format(path=path, words=words)
        done = subprocess.run([bash, "-c", command], capture_output=True, text=True, check=True)
        assert set(done.stdout.splitlines()) == expected, done.stderr


def test_fish(tmp_path, capsys):
    fish, path = need("fish"), script("fish", tmp_path, capsys)
    for words, expected in [*TYPED, ("expost fit runs/second", {"runs/second run"})]:
        command = f"source {path}; complete -C '{words}'"
        done = subprocess.run(
            [fish, "--no-config", "-c", command], capture_output=True, text=True, check=True, env=_home(tmp_path)
        )
        assert {line.partition("\t")[0] for line in done.stdout.splitlines()} == expected, done.stderr


def _home(folder):
    return {**os.environ, "HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "XDG_DATA_HOME": str(folder)}


def test_zsh(tmp_path, capsys):
    """A shell at a terminal, in which Tab is pressed: zsh completes nowhere else."""
    zsh, path = need("zsh"), script("zsh", tmp_path, capsys)
    (tmp_path / "functions").mkdir()
    shutil.copy(path, tmp_path / "functions" / "_expost")
    setup = f"fpath=({tmp_path / 'functions'} $fpath); autoload -Uz compinit; compinit -u -D; PROMPT='rea''dy> '\n"
    for words, expected in [*TYPED, ("expost fit runs/second", {"runs/second\\ run"})]:
        child, terminal = pty.fork()
        if child == 0:
            os.execve(zsh, [zsh, "-f", "-i"], {**_home(tmp_path), "TERM": "dumb"})
        try:
            os.write(terminal, setup.encode())
            read(terminal, "ready> ")
            os.write(terminal, f"{words}\t".encode())
            (completed,) = expected
            whole = " ".join([*words.split()[:-1], completed])
            assert whole in read(terminal, whole)
        finally:
            os.close(terminal)
            os.waitpid(child, 0)


def read(terminal, until, seconds=60):
    """Read from a terminal until some text has come, or the time is over."""
    text, ends = "", time.monotonic() + seconds
    while until not in text and time.monotonic() < ends:
        if select.select([terminal], [], [], 1)[0]:
            text += os.read(terminal, 65536).decode(errors="replace")
    return text


def test_a_press_is_quick_and_needs_no_torch(tmp_path, capsys, words_of_commands):
    taken = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        words = ["expost", "fit", "runs/f"]
        done = subprocess.run(
            [sys.executable, "-P", "-X", "importtime", "-m", "expost.cli.words", "2", *words],
            input=json.dumps(words_of_commands),
            capture_output=True,
            text=True,
            check=True,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert done.stdout.splitlines() == ["nothing", "runs/first\trun"]
        assert not re.search(r"\| +(torch|numpy|tyro|pydantic)$", done.stderr, re.MULTILINE)
    assert min(taken) < 0.5


def test_a_damaged_density_has_no_labels(tmp_path, words_of_commands, monkeypatch):
    folder = tmp_path / "run" / "densities" / "by_label"
    folder.mkdir(parents=True)
    (tmp_path / "run" / "config.json").touch()
    for name, content in (("a", b""), ("b", b"\x05" + bytes(7) + b"{nono"), ("c", b"\x02" + bytes(7) + b"{}")):
        Path(folder / f"{name}.safetensors").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    assert found(["expost", "sample", "run", "--label", ""], words_of_commands) == ("nothing", [])
