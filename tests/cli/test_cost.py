"""What a word on the command line costs: help, lists and refusals import no torch, and take little time."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import expost
from expost.cli.catalog import COMMANDS

#: What no signature needs.
HEAVY = ("torch", "scipy", "sklearn", "numba", "PIL", "pandas", "matplotlib", "contourpy", "rdkit", "gradio", "ray")

QUICK = [
    ["--version"],
    ["--help"],
    ["zoo"],
    ["trane"],
    ["train", "rae-l2", "--dta", "digits"],
    ["fit", "a-run", "--latent-dim", "3"],
    *([name, "--help"] for name in COMMANDS),
]


def imported(words):
    """Run the command line in a process of its own; return which heavy modules it has imported."""
    code = (
        "import contextlib, io, json, sys\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):\n"
        "    from expost import cli\n"
        f"    try: cli.main({words})\n"
        "    except SystemExit: pass\n"
        f"print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("words", QUICK, ids=" ".join)
def test_help_lists_and_refusals_import_nothing_heavy(words):
    assert imported(words) == []


def cpu_seconds(*words):
    """Return the least CPU time, user and system, of three runs of Python with these words."""
    taken = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *words], capture_output=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(taken)


def test_help_lists_and_refusals_take_little_time():
    """Twelve imports of NumPy are about a second; torch alone takes as many as twenty."""
    unit = cpu_seconds("-c", "import numpy")
    for words in (["--version"], ["--help"], ["zoo"], ["trane"], ["train", "rae-l2", "--dta", "digits"]):
        taken = cpu_seconds("-m", "expost", *words)
        assert taken < 12 * unit, f"{' '.join(words)}: {taken:.2f} s, where importing NumPy takes {unit:.2f} s"


def test_the_package_imports_its_names_when_they_are_used():
    assert set(expost.__all__) <= set(dir(expost))
    code = (
        "import sys, expost\n"
        f"assert not [name for name in {HEAVY} if name in sys.modules], 'imported with the package'\n"
        "assert 'train' in dir(expost)\n"
        "assert 'torch' not in sys.modules\n"
        "missing = [name for name in expost.__all__ if not hasattr(expost, name)]\n"
        "assert not missing, missing\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_type_checker_sees_what_is_imported_late():
    """Names behind `__getattr__` are `Any` to a type checker unless the module declares them."""
    text = Path(expost.__file__).read_text(encoding="utf-8")
    declared = text.partition("if TYPE_CHECKING:")[2].partition("__all__")[0]
    assert all(name in declared for name in expost.__all__ if name != "__version__")
