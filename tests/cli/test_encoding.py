"""Output where the terminal lacks a character: nothing fails, signs fall back, JSON stays JSON."""

import io
import json
import os
import subprocess
import sys

import pytest

import expost
from expost.cli.encoding import FALLBACKS, fall_back, shown


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("läufe")  # in a path, too
    made = []
    for name in ("a", "b"):
        run = expost.train("ae", "digits", folder / name, epochs=1, limit=60, latent_dim=2, tensorboard=False)
        expost.evaluate(run, features="pixels", allow_few=True, measures=("frechet",))
        made.append(run.folder)
    return made


def ask(*words, **environment):
    plain = {key: value for key, value in os.environ.items() if key not in ("LC_ALL", "LC_CTYPE", "PYTHONUTF8")}
    command = [sys.executable, "-m", "expost", *map(str, words)]
    return subprocess.run(command, capture_output=True, env={**plain, **environment}, timeout=600, check=False)


ASCII = (
    {"PYTHONIOENCODING": "ascii"},
    {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
)


@pytest.mark.parametrize("environment", ASCII, ids=["ascii", "C"])
def test_scores_are_printed_in_ascii(runs, environment):
    done = ask("evaluate", runs[0], "--features", "pixels", "--allow-few", "--measures", "frechet", **environment)
    text = done.stdout.decode("ascii")
    assert done.returncode == 0, done.stderr
    assert "+-" in text
    assert "frechet-pixels (lower)" in text
    header, *rows = text.splitlines()[1:]
    column = header.index("gmm")
    assert all(row[column - 1] == " " for row in rows if row.strip())  # the columns still stand
    done = ask("rank", *runs, **environment)
    assert done.returncode == 0, done.stderr
    assert b"frechet-pixels (lower) of " in done.stdout


@pytest.mark.parametrize(
    "words",
    [("--help",), ("zoo",), ("data",), ("score", "--help"), ("train", "--help"), ("doctor", "--no-self-test")],
    ids=" ".join,
)
def test_no_command_fails_for_want_of_a_character(words):
    done = ask(*words, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    done.stdout.decode("ascii")
    done.stderr.decode("ascii")


def test_json_is_the_same_in_ascii(runs):
    found = [json.loads(ask("rank", *runs, "--json", PYTHONIOENCODING=kind).stdout) for kind in ("ascii", "utf-8")]
    assert found[0] == found[1]
    assert "läufe" in json.dumps(found, ensure_ascii=False)
    done = ask("rank", *runs, "--json", **ASCII[1])
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) == 2


def test_signs_fall_back_and_anything_else_is_escaped(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    fall_back()
    text = "".join(FALLBACKS) + "é\udcff"
    print(text, flush=True)
    assert raw.getvalue() == "".join(FALLBACKS.values()).encode() + b"\\xe9\xff\n"
    assert shown("1 ± 2") == "1 +- 2"
    assert all(value.isascii() for value in FALLBACKS.values())
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    assert shown("1 ± 2 ↑") == "1 ± 2 ↑"
    latin = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    assert shown("1 ± 2 ↑", latin) == "1 ± 2 (higher)"  # only what it lacks
