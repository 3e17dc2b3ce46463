"""The table of wrong versions in scripts/mutate.py goes with the sources; running it proves the contracts (minutes)."""

import importlib.util
import shlex
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def mutate():
    spec = importlib.util.spec_from_file_location("mutate", ROOT / "scripts" / "mutate.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["mutate"] = module  # where dataclasses look for their annotations
    spec.loader.exec_module(module)
    yield module
    del sys.modules["mutate"]


def test_every_mutant_applies_to_the_sources_and_names_tests_that_are_there(mutate):
    for mutant in mutate.MUTANTS:
        source = (ROOT / mutant.path).read_text()
        assert mutant.apply(source) != source
        compile(mutant.apply(source), str(mutant.path), "exec")
        assert (ROOT / shlex.split(mutant.tests)[0]).is_file()
    names = [(mutant.file, mutant.name) for mutant in mutate.MUTANTS]
    assert len(set(names)) == len(names) > 100


def test_a_mutant_whose_source_text_is_gone_is_an_error_that_says_so(mutate, monkeypatch, capsys):
    gone = mutate.Mutant("a missing 1/2", "models/penalties.py", "not there", "", mutate.SLOTS)
    monkeypatch.setattr(mutate, "MUTANTS", (gone,))
    monkeypatch.setattr(sys, "argv", ["mutate.py"])
    assert mutate.main() == 2
    said = "mutant 'a missing 1/2': its source text is no longer there in src/expost/models/penalties.py; "
    assert capsys.readouterr().err == f"{said}mend scripts/mutate.py\n"


def test_a_survivor_fails_and_what_is_caught_does_not(mutate, monkeypatch, capsys):
    square = "return 0.5 * code.mean.flatten(1)"
    tests = f"{mutate.SLOTS} -k 'is_its_formula and half-norm'"
    caught = mutate.Mutant("a missing 1/2", "models/penalties.py", square, "return code.mean.flatten(1)", tests)
    survivor = mutate.Mutant("nothing", "models/penalties.py", square, f"{square}.clone()", tests)
    for mutant, status, word in ((caught, 0, "caught"), (survivor, 1, "survived")):
        monkeypatch.setattr(mutate, "MUTANTS", (mutant,))
        monkeypatch.setattr(mutate, "unbroken", lambda chosen: "")
        monkeypatch.setattr(sys, "argv", ["mutate.py", "--jobs", "1"])
        assert mutate.main() == status
        first, last = capsys.readouterr().out.splitlines()
        assert first.startswith(word)
        assert f"1 {word}" in last
