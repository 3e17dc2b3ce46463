"""The documentation: every block of code runs, the site builds, links lead somewhere, notebooks run.

A page's front matter may say what its blocks need:

    ---
    test:
      setup: Python that runs before the first block
      tiny:  pairs [shown, run]: what is shown is replaced by what runs in seconds
    ---

A block whose title begins with "Not run" is parsed only: Python is compiled, commands are read by the command line's
own parser. A command's comment may say `exit status 2`, where it is meant to fail.
"""

import ast
import functools
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from expost.cli import parsing as cli
from expost.commands.doctor import VARIABLES
from expost.densities import DENSITIES
from expost.evaluation.catalog import DIRECTIONS
from expost.models.zoo import ZOO

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"^( *)```(python|bash)(?: +title=\"([^\"]*)\")?\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
FENCE = re.compile(r"^ *```+ *(\{[^}]*\}|\S+)", re.MULTILINE)
LANGUAGES = {"python", "bash", "text"}
LARGEST = 300_000


@dataclass(frozen=True)
class Page:
    """A page's blocks, and what they need."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path.relative_to(DOCS))

    @functools.cached_property
    def parts(self) -> tuple[dict, str]:
        text = self.path.read_text(encoding="utf-8")
        if not text.startswith("---\n"):
            return {}, text
        head, _, body = text[4:].partition("\n---\n")
        return yaml.safe_load(head).get("test", {}), body

    @property
    def blocks(self) -> list[tuple[str, str, str]]:
        """Language, title and code."""
        return [(found[2], found[3] or "", textwrap.dedent(found[4])) for found in BLOCK.finditer(self.parts[1])]


PAGES = [page for page in map(Page, sorted(DOCS.rglob("*.md"))) if page.blocks]
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_blocks_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    needs, _ = page.parts
    unused = {shown for shown, _ in needs.get("tiny", [])}
    names: dict[str, object] = {"__name__": "__docs__"}
    exec(compile(needs.get("setup", ""), f"{page.name}, setup", "exec"), names)
    for number, (language, title, code) in enumerate(page.blocks, 1):
        for shown, run in needs.get("tiny", []):
            if shown in code:
                unused.discard(shown)
                code = code.replace(shown, run)
        where = f"{page.name}, block {number}"
        if language == "python":
            compiled = compile(code, where, "exec")
            if not title.startswith("Not run"):
                exec(compiled, names)
        else:
            for line in lines_of(code):
                run_line(line, monkeypatch, parse_only=title.startswith("Not run"))
    assert not unused, f"no block of {page.name} has {unused}"


def lines_of(code):
    """Split a block of shell into commands, each with the exit status that its comment announces."""
    for line in code.replace("\\\n", " ").splitlines():
        status = re.search(r"#.*exit status (\d+)", line)
        words = shlex.split(line, comments=True)
        if words:
            yield words, int(status[1]) if status else 0


def run_line(line, monkeypatch, parse_only=False):
    """Run a command of expost in this process; of others, check what can be checked."""
    words, status = line
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        parse_only or monkeypatch.setenv(*words.pop(0).split("=", 1))
        words = words[1:] if parse_only else words
    if not words:
        return
    if words[0] == "export":
        parse_only or [monkeypatch.setenv(*each.split("=", 1)) for each in words[1:]]
    elif words[0] == "expost":
        words, target = (words[:-2], words[-1]) if len(words) > 2 and words[-2] == ">" else (words, None)
        arguments = [each for word in words[1:] for each in expanded(word)]
        (parse if parse_only else run)(arguments, status, target)
    elif words[:2] == ["pip", "install"]:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        for wanted in re.findall(r"\[([\w,]+)\]", " ".join(words)):
            assert set(wanted.split(",")) <= set(extras), f"{wanted}: pyproject.toml has {sorted(extras)}"
    elif words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert words[1] in targets, f"the Makefile has {targets}"
    else:
        assert parse_only, f"the documentation's test cannot run '{' '.join(words)}'"
        if "expost" in words:  # behind a launcher: torchrun ... -m expost train ...
            parse(words[words.index("expost") + 1 :])


def expanded(word):
    """Expand stars as a shell does."""
    return sorted(map(str, Path().glob(word))) or [word] if "*" in word else [os.path.expanduser(word)]


def run(arguments, status, target):
    """Run the command line in this process."""
    with open(target or os.devnull, "w", encoding="utf-8") as out, pytest.MonkeyPatch.context() as patch:
        if target:
            patch.setattr(sys, "stdout", out)
        try:
            cli.main(arguments)
            found: object = 0
        except SystemExit as end:
            found = end.code or 0
    assert found == status, f"expost {shlex.join(arguments)}: exit status {found}, not {status}"


def parse(arguments, status=0, target=None):
    """Read a command by the command line's parser, and do not run it."""
    called = []

    def noted(function):
        @functools.wraps(function)
        def note(*args, **options):
            called.append(function)
            return {}

        return note

    with pytest.MonkeyPatch.context() as patch:
        load = cli.load
        patch.setattr(cli, "load", lambda name: (noted(load(name)[0]), lambda result: None))
        try:
            cli.main(arguments)
        except SystemExit as end:
            if "--help" in arguments and end.code in (0, None):
                return
            pytest.fail(f"expost {shlex.join(arguments)} is not understood (exit status {end.code})")
    assert len(called) == 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_block_that_does_not_run_says_why(page):
    for _, title, code in page.blocks:
        assert not title.startswith("Not run") or re.fullmatch(r"Not run in the tests: \w.+", title), code


def test_every_block_is_of_a_language_that_is_run_or_of_none():
    for path in sorted(DOCS.rglob("*.md")):
        opening = FENCE.findall(path.read_text(encoding="utf-8"))
        assert set(opening) <= LANGUAGES, f"{path}: {set(opening) - LANGUAGES}"


def test_the_readme_s_commands_are_understood():
    commands = re.findall(r"^    (expost .+)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(commands) > 20
    for words, _ in lines_of("\n".join(commands)):
        parse(words[1:])


def test_the_page_of_the_command_line_is_complete():
    text = (DOCS / "howto" / "cli.md").read_text(encoding="utf-8")
    for name in [*cli.COMMANDS, *VARIABLES]:
        assert f"`{name}`" in text, name


def test_the_page_of_scores_has_every_score_with_its_direction():
    text = (DOCS / "howto" / "scores.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.+?) \| (higher|lower|neither) \|", text, re.MULTILINE)
    found = {name: direction for names, direction in rows for name in re.findall(r"`([^`]+)`", names)}
    assert found == {name: direction.better for name, direction in DIRECTIONS.items()}


def test_the_page_of_models_has_every_row_of_the_zoo():
    rows = re.findall(r"^\| `([\w-]+)` \| (.+) \|$", (DOCS / "zoo.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert {name: cells.split(" | ") for name, cells in rows} == {
        name: [row.latent.name, row.penalty.name, row.regularizer.name, row.prior.name] for name, row in ZOO.items()
    }


def test_the_page_of_densities_has_every_density():
    text = (DOCS / "howto" / "density.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `([\w-]+)` \|", text, re.MULTILINE) == list(DENSITIES)


def test_the_site_builds_and_is_complete(tmp_path):
    """Strictly: a link or an anchor that leads nowhere, or a page in no menu, is an error.

    (Not with --quiet, which keeps warnings from being counted.) One test, since one build serves all that is looked at.
    """
    for package in ("mkdocs", "material", "mkdocstrings", "latex2mathml"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed; install it with: pip install -e '.[docs]'")
    site = tmp_path / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {path.relative_to(site).as_posix(): path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    for name, text in pages.items():
        assert not loaded_from_elsewhere(text), name
        assert "arithmatex" not in text, f"{name} has a formula that is no MathML"
    assert pages["math.html"].count("<math ") > 30
    assert 'id="eq-1"' in pages["math.html"]
    for path in NOTEBOOKS:
        assert "```" not in pages[f"notebooks/{path.stem}.html"]
    check_reference("".join(text for name, text in pages.items() if name.startswith("reference/")))


def loaded_from_elsewhere(text):
    """Return the addresses on other hosts that a page loads scripts, styles, fonts or pictures from."""
    found = re.findall(r"<(?:script|img|iframe|source)[^>]+src=\"((?://|https?:)[^\"]*)", text)
    links = re.findall(r"<link[^>]+>", text)
    loads = [each for each in links if re.search(r"rel=\"(?:stylesheet|preconnect|preload|icon)\"", each)]
    return found + [each for each in loads if re.search(r"href=\"(?://|https?:)", each)]


def check_reference(text):
    """Every public module that defines anything is in the reference, and nothing is in it twice."""
    anchors = re.findall(r'id="(expost[\w.]+)"', text)
    assert len(anchors) == len(set(anchors)), "something is documented twice"
    for path in (ROOT / "src" / "expost").rglob("*.py"):
        parts = path.relative_to(ROOT / "src").with_suffix("").parts
        if any(part.startswith("_") for part in parts):  # packages' own modules are found by their members
            continue
        has_members = any(
            isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            for node in ast.parse(path.read_text(encoding="utf-8")).body
        )
        assert not has_members or ".".join(parts) in anchors, f"{'.'.join(parts)} is on no page of the reference"


def test_nothing_that_is_shown_is_large():
    for path in [*DOCS.rglob("*.png"), *NOTEBOOKS]:
        assert path.stat().st_size < LARGEST, f"{path.name}: {path.stat().st_size} bytes"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path):
    """Run it anew, in an empty folder; what it holds is what such a run left."""
    nbclient = pytest.importorskip("nbclient", reason="install it with: pip install -e '.[docs]'")
    pytest.importorskip("ipykernel", reason="install it with: pip install -e '.[docs]'")
    assert nbclient
    shown = json.loads(path.read_text(encoding="utf-8"))
    cells = [cell for cell in shown["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1)), (
        "run scripts/docs_notebooks.py"
    )
    script = ROOT / "scripts" / "docs_notebooks.py"
    command = [sys.executable, str(script), str(path), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    fresh = json.loads((tmp_path / path.name).read_text(encoding="utf-8"))
    assert [cell["source"] for cell in fresh["cells"]] == [cell["source"] for cell in shown["cells"]]
    for cell in fresh["cells"]:
        for output in cell.get("outputs", []):
            assert output["output_type"] != "error"


@pytest.mark.parametrize(("page", "least"), [("fidelity", 25), ("reliability", 20)])
def test_every_line_of_a_page_of_promises_names_a_test_that_exists(page, least):
    lines: list[str] = []
    for table in re.split(r"\n{2,}", (DOCS / f"{page}.md").read_text(encoding="utf-8")):
        rows = table.strip().splitlines()
        lines += rows[2:] if rows and rows[0].endswith("| test |") else []
    assert len(lines) > least
    before: list[str] = []
    for line in lines:
        cell = line.rsplit("|", 2)[1]
        named = re.findall(r"`([\w/]+\.py)`", cell) or (before if "the same" in cell else [])
        assert named, line
        for path in named:
            assert (ROOT / "tests" / path).is_file(), path
        before = named
