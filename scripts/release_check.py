"""Check a release: version, date and citation agree, and the wheel works away from the checkout (`make release-check`).

python scripts/release_check.py              # everything
python scripts/release_check.py --no-wheel   # version, date and citation only
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: Files that the package reads at run time, and py.typed: the wheel must have them.
NEEDED = (
    "expost/py.typed", "expost/data/mnist_5k.npy.xz", "expost/data/drugs.smi",
    "expost/metrics/digit_features.safetensors",
    "expost/metrics/onet_features.safetensors",
)  # fmt: skip


def found(pattern: str, name: str) -> str:
    """Return the first group of a pattern in a file of the checkout; empty if nothing matches."""
    match = re.search(pattern, (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)
    return match[1] if match else ""


def disagreements() -> list[str]:
    """Return one line for each disagreement between the files of the checkout."""
    version = found(r'^__version__ = "(.+)"', "src/expost/_version.py")
    heading = found(r"^## (\d.+)$", "CHANGELOG.md")
    dated = re.fullmatch(r"(\S+) - (\d{4}-\d\d-\d\d)", heading)
    wrong = [] if dated else [f"CHANGELOG.md: '## {heading}' is not 'VERSION - YYYY-MM-DD'"]
    newest, date = dated.groups() if dated else ("", "")
    if newest != version:
        wrong.append(f"CHANGELOG.md: the newest version is {newest or 'not there'}, _version.py has {version}")
    cited = found(r"^version: (.+)$", "CITATION.cff"), found(r"^date-released: (.+)$", "CITATION.cff")
    if cited != (version, date):
        wrong.append(f"CITATION.cff: has {' of '.join(cited)}, not {version} of {date}")
    return wrong


def check_wheel(folder: Path) -> list[str]:
    """Build the wheel; return the files that it lacks, and its failures outside the checkout."""
    run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)], folder)
    (wheel,) = folder.glob("expost-*.whl")
    site = folder / "site"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(site)
    wrong = [f"{wheel.name}: lacks {name}" for name in NEEDED if name not in names]
    if not any(name.endswith("/licenses/LICENSE") for name in names):
        wrong.append(f"{wheel.name}: lacks the license")
    wrong += [f"{wheel.name}: has {name}" for name in names if not name.startswith(("expost/", "expost-"))]
    # -P leaves the current folder out; what is on sys.path first is imported, before an editable checkout
    expost = [
        sys.executable,
        "-P",
        "-c",
        f"import sys; sys.path.insert(0, {str(site)!r}); import expost.cli as c; c.main()",
    ]
    version = found(r'^__version__ = "(.+)"', "src/expost/_version.py")
    said = run([*expost, "--version"], folder).strip()
    if said != f"expost {version}":
        wrong.append(f"{wheel.name}: --version says '{said}', not 'expost {version}'")
    train = ["train", "rae-l2", "--data", "digits", "--epochs", "2", "--out", "run", "--no-tensorboard"]
    run([*expost, *train], folder)
    run([*expost, "fit", "run", "--density", "gaussian"], folder)
    run([*expost, "sample", "run", "-n", "16", "--out", "samples.png"], folder)
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB, trains and samples")
    return wrong


def run(command: list[str], folder: Path) -> str:
    """Run a command in a folder; return what it prints."""
    return subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> None:
    """Print what is wrong, and end with 1 if anything is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-wheel", action="store_true", help="do not build the wheel")
    wrong = disagreements()
    if not parser.parse_args().no_wheel:
        with tempfile.TemporaryDirectory() as folder:
            try:
                wrong += check_wheel(Path(folder))
            except subprocess.CalledProcessError as error:
                wrong.append(f"exit status {error.returncode}: {shlex.join(error.cmd)}")
    for line in wrong:
        print(f"error: {line}", file=sys.stderr)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
