"""Habits: help with examples, progress, and what Ctrl-C leaves behind."""

import contextlib
import re
import shlex
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from rich.console import Console

from expost.cli import parsing as cli
from expost.cli.catalog import COMMANDS
from expost.errors import Interrupted
from expost.utils import progress as module
from expost.utils.progress import progress

PROGRAM = [sys.executable, "-m", "expost"]


def printed(words, capsys):
    with contextlib.suppress(SystemExit):
        cli.main(words)
    return capsys.readouterr().out


def test_every_command_has_examples():
    for name, command in COMMANDS.items():
        assert command.examples
        assert all(line.split()[:2] == ["expost", name] for line in command.examples)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_summary_of_a_command_is_its_docstrings_first_line(name):
    function, show = cli.load(name)
    assert function.__name__ == name
    assert COMMANDS[name].summary == (function.__doc__ or "").partition("\n")[0]
    assert callable(show)


def test_the_help_of_the_whole_lists_every_command_with_its_summary(capsys):
    shown = " ".join(re.sub("[│•]", " ", printed(["--help"], capsys)).split())
    assert all(f"{name} {command.summary}" in shown for name, command in COMMANDS.items())


def imported(code, *names):
    """Run Python in a process of its own; return which of the modules it has imported."""
    code += f"\nimport sys; print(*[name for name in {names} if sys.modules.get(name) is not None], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stderr.splitlines()[-1].split()


HEAVY = (
    "torch", "scipy", "sklearn", "numba", "matplotlib", "contourpy", "pyarrow", "datasets", "pandas", "tensorboard",
    "rdkit", "huggingface_hub", "numpy",
)  # fmt: skip


@pytest.mark.parametrize("words", [["--help"], ["trane"], ["zoo"], ["zoo", "--json"], ["data"]], ids=" ".join)
def test_what_needs_no_model_imports_nothing_heavy(words):
    call = (
        f"try:\n    with contextlib.redirect_stderr(io.StringIO()):\n        cli.main({words})\nexcept SystemExit: pass"
    )
    heavy = [name for name in HEAVY if words != ["data"] or name != "numpy"]  # which all readers of data use
    assert imported(f"import contextlib, io\nfrom expost import cli\n{call}", *heavy, "expost.cli") == ["expost.cli"]
    assert imported("import expost", *HEAVY, "tyro", "expost") == ["expost"]


#: Of the extras, and what of the core the report alone needs.
UNUSED = (
    "datasets", "pyarrow", "matplotlib", "contourpy", "huggingface_hub", "tensorboard", "rdkit", "botorch", "onnx",
    "gradio", "ray", "numba", "mlxtend",
)  # fmt: skip


def test_training_and_scoring_import_what_they_use(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (60, 1, 32, 32), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", x=images)
    run = tmp_path / "run"
    train = ["train", "rae-l2", "--data", str(tmp_path / "images.npz"), "--out", str(run), "--epochs", "1"]
    lines = [
        "import sys; sys.modules['pandas'] = None",  # which scikit-learn imports where it is, and with it PyArrow
        "from expost import cli",
        f"cli.main({[*train, '--width', '2', '--precision', 'float32', '--no-tensorboard']})",
        f"cli.main({['fit', str(run), '--density', 'gmm', '--components', '2']})",
        f"cli.main({['sample', str(run), '-n', '4', '--out', str(tmp_path / 's.png')]})",
    ]
    assert imported("\n".join(lines), *UNUSED, "scipy", "sklearn", "expost.training.trainer") == [
        "expost.training.trainer"
    ]
    lines[2:] = [f"cli.main({['evaluate', str(run), '--allow-few', '--json']})"]
    assert imported("\n".join(lines), *UNUSED, "expost.evaluation.evaluate") == ["expost.evaluation.evaluate"]


def test_an_option_of_another_command_is_said_to_be_that(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["fit", "a-run", "--density", "gmm", "--latent-dim", "3"])
    assert stopped.value.code == 2
    assert "(did you mean --latent-dim of expost train?)" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_a_help_text_has_the_examples_and_the_shared_options(name, capsys):
    shown = printed([name, "--help"], capsys)
    assert "Print the result as JSON." in shown
    assert not re.search(r"\(default: *(None|none|\[\])? *\)", " ".join(re.sub("[│•]", " ", shown).split()))
    for line in COMMANDS[name].examples:
        assert any(each.strip() == line for each in shown.splitlines())


def lines_of(folder):
    path = folder / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_training_says_how_to_go_on_and_that_works(tmp_path, number):
    folder = tmp_path / "a run"
    words = ["train", "ae", "--data", "digits", "--out", str(folder), "--epochs", "100000", "--no-tensorboard"]
    process = subprocess.Popen([*PROGRAM, *words], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    begun = time.monotonic()
    while lines_of(folder) < 2 and process.poll() is None and time.monotonic() - begun < 600:
        time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 128 + number, err
    assert out == ""
    last = err.strip().splitlines()[-1]
    assert last == f"stopped, and saved; go on with: {shlex.join(['expost', *words, '--resume'])}"
    done = lines_of(folder)
    again = shlex.split(last.partition("go on with: ")[2])[1:]
    process = subprocess.Popen([*PROGRAM, *again], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    begun = time.monotonic()
    while lines_of(folder) < done + 2 and process.poll() is None and time.monotonic() - begun < 600:
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=600)
    assert f"epoch {done + 1}/100000" in err  # not from the beginning
    assert err.strip().splitlines()[-1] == last  # --resume is not written twice


def test_a_stop_of_another_command_is_no_error(monkeypatch, capsys):
    def stop():
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "load", lambda name: (stop, print))
    with pytest.raises(SystemExit) as stopped:
        cli.main(["zoo"])
    assert stopped.value.code == 130
    assert capsys.readouterr().err == "stopped; what was saved before is kept\n"

    def search(run: str, rounds: int = 5):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "load", lambda name: (search, print))
    with pytest.raises(SystemExit):
        cli.main(["optimize", "--run", "a run"])
    assert capsys.readouterr().err == "stopped; the same command goes on: expost optimize --run 'a run'\n"


def test_a_stopped_training_names_the_folder_that_was_chosen_for_it(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "data-model-1"
    folder.mkdir()
    (folder / "config.json").touch()

    def begin(data: str, out: str | None = None):
        raise Interrupted(folder)

    monkeypatch.setattr(cli, "load", lambda name: (begin, print))
    with pytest.raises(SystemExit):
        cli.main(["train", "--data", "x"])
    again = f"expost train --data x --out {shlex.quote(str(folder))} --resume"
    assert capsys.readouterr().err == f"stopped, and saved; go on with: {again}\n"


class Terminal(Console):
    """A console that takes a file for a terminal."""

    def __init__(self, **options):
        super().__init__(**options, force_terminal=True, width=100)


def test_a_bar_appears_when_work_takes_long_and_one_at_a_time(monkeypatch, capsys):
    monkeypatch.setattr(module, "Console", Terminal)
    with progress("quick", 2) as bar:
        bar.advance()
    assert "quick" not in capsys.readouterr().err
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    with progress("outer", 2) as bar:
        time.sleep(0.01)
        bar.advance()
        with progress("inner", 2) as nested:
            time.sleep(0.01)
            nested.advance()
            assert not nested.visible
        time.sleep(0.2)
    shown = capsys.readouterr().err
    assert "outer" in shown
    assert "inner" not in shown
    assert "1/2" in shown
    with progress("after", 1) as bar:  # the place on stderr is free again
        time.sleep(0.01)
        bar.advance()
        assert bar.visible


def test_where_there_is_no_terminal_a_line_every_so_often_says_how_far_and_how_long(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with progress("training", 1000, done=200) as bar:
        for _ in range(25):
            now[0] += 1
            bar.advance(4, "total 3.5")
            with progress("inner", 2) as nested:  # the place on stderr is taken
                nested.advance()
        assert not bar.visible
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "training: 240 of 1,000, 3.17 min left, total 3.5",
        "training: 280 of 1,000, 3 min left, total 3.5",
    ]


def test_lines_said_meanwhile_count_and_quick_work_says_nothing(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with progress("reading", 10) as bar:
        assert bar.left() == ""
        for step in range(10):
            now[0] += 2
            bar.advance()
            if step == 3:
                bar.say(f"halfway, {bar.left()}")
    assert capsys.readouterr().err.splitlines() == ["halfway, 12 s left", "reading: 9 of 10, 2 s left"]
