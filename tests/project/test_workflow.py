"""Continuous integration, hooks, citation and release agree with the package: versions, targets, commands."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

import expost
from expost.cli import parsing as cli

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([\w-]+):", MAKEFILE, re.MULTILINE))
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
JOBS = WORKFLOW["jobs"]
#: Programs that a step may call beside `make` and `expost`: runners have them.
OTHERS = {"python", "sed"}


def commands(job):
    """Return every command of a job, as words."""
    lines = [line for step in job["steps"] for line in step.get("run", "").splitlines()]
    return [shlex.split(line) for line in lines]


def pythons(job):
    """Return the Pythons that a job runs on."""
    (given,) = [step["with"]["python-version"] for step in job["steps"] if "setup-python" in step.get("uses", "")]
    return job["strategy"]["matrix"]["python"] if given == "${{ matrix.python }}" else [given]


def test_the_pythons_are_those_that_the_package_names():
    tested = JOBS["test"]["strategy"]["matrix"]["python"]
    named = [each.rpartition(" :: ")[2] for each in PROJECT["classifiers"] if " :: Python :: 3." in each]
    assert tested == named
    allowed = SpecifierSet(PROJECT["requires-python"])
    assert all(version in allowed for version in tested)
    oldest = Version(tested[0])
    assert f"{oldest.major}.{oldest.minor - 1}" not in allowed
    assert all(version in tested for job in JOBS.values() for version in pythons(job))
    assert all(isinstance(version, str) for version in tested)  # 3.10 as a number is 3.1


def test_the_torches_are_the_oldest_allowed_and_the_newest_tested():
    (torch,) = [each for each in map(Requirement, PROJECT["dependencies"]) if each.name == "torch"]
    (lower,) = torch.specifier
    (pinned,) = re.findall(r"^torch==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    oldest, newest = JOBS["test"]["strategy"]["matrix"]["torch"]
    assert (lower.operator, Version(lower.version)) == (">=", Version(oldest))
    assert newest == pinned


@pytest.mark.parametrize("name", JOBS)
def test_every_command_of_a_job_exists(name, monkeypatch):
    called = commands(JOBS[name])
    assert called
    for words in called:
        if words[0] == "make":
            assert words[1] in TARGETS
        elif words[0] == "expost":
            monkeypatch.setattr(cli, "load", lambda name: (command_of(name), lambda result: None))
            cli.main(words[1:])
        else:
            assert words[0] in OTHERS, shlex.join(words)


def command_of(name, load=cli.load):
    """Return a command that has its own's signature, and does nothing."""
    import functools

    function, _ = load(name)
    return functools.wraps(function)(lambda *args, **options: {})


def test_jobs_end_older_ones_are_cancelled_and_downloads_are_kept():
    assert WORKFLOW["concurrency"]["cancel-in-progress"] is True
    assert WORKFLOW["permissions"] == {"contents": "read"}
    for job in JOBS.values():
        assert job["timeout-minutes"] <= 120
        (setup,) = [step["with"] for step in job["steps"] if "setup-python" in step.get("uses", "")]
        assert setup["cache"] == "pip"
        assert all((ROOT / path).exists() for path in setup["cache-dependency-path"].split())
    assert {"lint", "test", "macos", "windows"} == set(JOBS)


def test_hooks_run_the_linters_of_the_makefile():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert [each["repo"] for each in hooks] == ["local"]
    for hook in hooks[0]["hooks"]:
        words = hook["entry"].split()
        if words[0] == "make":
            assert words[1] in TARGETS
        else:
            assert words[0].startswith(".venv/bin/")
            assert " ".join([words[0].replace(".venv/bin", "$(BIN)"), *words[1:]]).removesuffix(
                " --force-exclude"
            ) in MAKEFILE.replace(" .\n", "\n")


def test_every_target_is_in_the_help_and_the_default_is_the_demo():
    done = subprocess.run(["make", "--silent", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    listed = re.findall(r"^  make ([\w-]+) +\S", done.stdout, re.MULTILINE)
    assert set(listed) == TARGETS
    assert listed[0] == "demo"
    (phony,) = re.findall(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)
    assert set(phony.split()) == TARGETS


def test_version_change_log_and_citation_agree():
    script = ROOT / "scripts" / "release_check.py"
    done = subprocess.run([sys.executable, str(script), "--no-wheel"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["cff-version"] == "1.2.0"
    assert cited["version"] == expost.__version__
    assert cited["type"] == "software"
    assert cited["license"] == PROJECT["license"]
    assert cited["authors"] == [{"name": "expost contributors"}]
    assert cited["references"][0]["title"] == "From Variational to Deterministic Autoencoders"
    assert PROJECT["urls"]["Repository"] == cited["repository-code"]


def test_a_version_that_is_not_the_change_log_s_is_told(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    import release_check

    (tmp_path / "src" / "expost").mkdir(parents=True)
    (tmp_path / "src" / "expost" / "_version.py").write_text('__version__ = "0.3.0"\n')
    (tmp_path / "CHANGELOG.md").write_text("## Unreleased\n\n## 0.2.0 - 2026-11-27\n")
    (tmp_path / "CITATION.cff").write_text("version: 0.3.0\ndate-released: 2026-11-27\n")
    monkeypatch.setattr(release_check, "ROOT", tmp_path)
    assert release_check.disagreements() == [
        "CHANGELOG.md: the newest version is 0.2.0, _version.py has 0.3.0",
    ]
    (tmp_path / "CHANGELOG.md").write_text("## 0.3.0 - soon\n")
    assert release_check.disagreements()[0] == "CHANGELOG.md: '## 0.3.0 - soon' is not 'VERSION - YYYY-MM-DD'"


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.stem
)
def test_forms_of_issues_are_whole(path):
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    if path.stem == "config":
        assert set(form) == {"blank_issues_enabled"}
        return
    assert {"name", "description", "body"} <= set(form)
    names = [part["id"] for part in form["body"]]
    assert len(names) == len(set(names))
    assert all(part["attributes"]["label"] for part in form["body"])
    assert path.stem != "bug" or "expost doctor --json" in str(form)
