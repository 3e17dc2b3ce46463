"""Make a bundle: with it a machine with torch and a GPU, but no network, runs expost and benchmarks/gpu.py.

    python scripts/offline_bundle.py --python 3.12 --data mnist --features inception-768 --out bundle/
    bash bundle/run.sh --budget 500 --out DIR        # on that machine

The bundle is a folder of parts of at most 60 MB: the wheels that the machine lacks, expost's own, the benchmarks, the
data, the weights. `--have FILE` lists the packages of the machine (write it there: pip list --format=freeze > FILE);
without it, torch, NumPy and the requirements of torch are assumed. Copy run.sh, install.py, MANIFEST.json, part1 and
the other parts that you want.
"""

from __future__ import annotations

import argparse
import ast
import json
import shutil
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bundle import data
from bundle.parts import Item, distribute, on_disk
from bundle.wheels import (
    BundleError,
    Needs,
    Pip,
    Target,
    build_wheel,
    find_needs,
    of_extra,
    read_have,
    requirements,
    torch_and_its_own,
)
from packaging.requirements import Requirement

from expost.data.named_strings import STRING_DATASETS
from expost.errors import DataError, UsageError
from expost.metrics import FEATURES

ROOT = Path(__file__).resolve().parents[1]
HERE = Path(__file__).resolve().parent / "bundle"
#: Files beside the parts.
BESIDE = ("run.sh", "install.py")


def main(words: Sequence[str] | None = None) -> int:
    """Make a bundle and print its contents; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default="3.12", metavar="X.Y", help="Python of the machine")
    parser.add_argument("--platform", default="linux-x86_64", help="linux-x86_64 or linux-aarch64")
    parser.add_argument("--data", nargs="*", default=["mnist"], metavar="NAME", help="named data sets")
    parser.add_argument("--features", nargs="*", default=["inception-768"], metavar="NAME", help="features of scores")
    parser.add_argument("--have", type=Path, metavar="FILE", help="packages of the machine: pip list --format=freeze")
    parser.add_argument("--peers", action="store_true", help="also Pythae, to measure against")
    parser.add_argument("--part-mb", type=float, default=60, metavar="MB", help="the largest part, in 10^6 bytes")
    parser.add_argument(
        "--wheel", type=Path, metavar="FILE", help="expost's wheel; default: build it from the checkout"
    )
    parser.add_argument("--find-links", type=Path, metavar="DIR", help="take wheels from a folder instead of an index")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder, new or an earlier bundle")
    given = parser.parse_args(words)
    try:
        make(given)
    except (BundleError, UsageError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def make(given: argparse.Namespace) -> None:
    """Make a bundle.

    Raises:
        BundleError: if it cannot be made.
    """
    out, target = given.out.resolve(), Target.parse(given.python, given.platform)
    limit = int(given.part_mb * 1_000_000)
    if limit < 100_000:
        raise BundleError(f"part-mb is {given.part_mb:g}; give at least 0.1")
    if out.exists() and any(out.iterdir()) and not (out / "MANIFEST.json").exists():
        raise BundleError(f"{out} is not a bundle; choose another --out")
    have = read_have(given.have) if given.have else torch_and_its_own()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        wheel = given.wheel or build_wheel(ROOT, work / "own")
        if not wheel.is_file():
            raise BundleError(f"no wheel {wheel}; build it by: python -m build --wheel")
        needs = find_needs(roots(wheel, target, given), target, have, Pip(target, work / "wheels", given.find_links))
        first = [Item(wheel, f"wheels/{wheel.name}"), Item(_code(work / "code.zip"), "code.zip")]
        wheels = [Item(path, f"wheels/{path.name}") for path in sorted(needs.wheels.values(), key=_size)]
        weights = [Item(path, f"weights/{path.name}") for path in _weights(given.features)]
        groups = [[each] for each in (*first, *wheels, *weights)]
        sets = {}
        for each in given.data:
            about = data.pack(each, work / "data" / each)
            if about is None:
                needs.left_out[each] = "comes with what is installed"
                continue
            sets[each] = about
            groups.append([Item(path, f"data/{each}/{path.name}") for path in sorted((work / "data" / each).iterdir())])
        if out.exists():
            shutil.rmtree(out)
        out.mkdir(parents=True)
        files = distribute(groups, out, limit)
    for beside in BESIDE:
        shutil.copyfile(HERE / beside, out / beside)
    manifest = {
        "format": 1,
        "python": given.python,
        "platform": given.platform,
        "part_bytes": limit,
        "files": files,
        "data": sets,
        "carried": needs.why,
        "left_out": needs.left_out,
    }
    (out / "MANIFEST.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    tell(out, files, needs)


def roots(wheel: Path, target: Target, given: argparse.Namespace) -> list[tuple[Requirement, str]]:
    """Return the requirements of expost and of the benchmarks, each with the reason."""
    wanted = [(each, "expost") for each in requirements(wheel, target)]
    imported = {name for path in marked_tests() for name in imports(path)}
    wanted += [(each, "the tests") for each in of_extra(wheel, target, "dev", ["pytest", *sorted(imported)])]
    if any(name in STRING_DATASETS and STRING_DATASETS[name].domain == "molecules" for name in given.data):
        wanted += [(each, "scores of molecules") for each in of_extra(wheel, target, "molecules", ["rdkit"])]
    if given.peers:
        wanted += [(each, "the stage speed") for each in of_extra(wheel, target, "peers")]
    return wanted


def _size(path: Path) -> int:
    return path.stat().st_size


def _code(path: Path) -> Path:
    """Write the benchmarks, and the tests that need a GPU."""
    benchmarks = [each for each in sorted((ROOT / "benchmarks").rglob("*")) if each.suffix in (".py", ".ini")]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for each in (*benchmarks, *marked_tests()):
            archive.write(each, each.relative_to(ROOT))
    return path


def marked_tests() -> list[Path]:
    """Return the files with tests that need a GPU, and their helpers."""
    files = sorted((ROOT / "tests").rglob("*.py"))
    marked = [each for each in files if each.name.startswith("test_") and "mark.cuda" in each.read_text("utf-8")]
    return [*marked, *(each for each in files if marked and not each.name.startswith("test_"))]


def imports(path: Path) -> set[str]:
    """Return the packages that a file imports, with hyphens, as distributions of the same name are written."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return {name.replace("_", "-") for name in found}


def _weights(features: Sequence[str]) -> list[Path]:
    """Return the weight files that features need, each once.

    Raises:
        BundleError: if one is not on this machine.
    """
    found = []
    for name in features:
        find = FEATURES[name].find
        if find is None:  # its weights are in the package
            continue
        path = find()
        if path is None:
            raise BundleError(f"the weights of {name} are not on this machine; set EXPOST_WEIGHTS to their file")
        found.append(path)
    return list(dict.fromkeys(found))


def tell(out: Path, files: Sequence[dict[str, Any]], needs: Needs) -> None:
    """Print the contents of each part, and what was left out."""
    parts: dict[str, list[dict[str, Any]]] = {}
    for file in files:
        parts.setdefault(Path(file["path"]).parts[0], []).append(file)
    for part, own in parts.items():
        total = sum(on_disk(file["size"]) for file in own) / 1e6
        counts: Counter[str] = Counter()
        for file in own:
            first, *rest = Path(file["to"]).parts
            key = rest[0] if first in ("data", "weights") else "wheels" if first == "wheels" else first
            counts[key] += file["size"]
        print(f"{part}  {total:.1f} MB: " + ", ".join(f"{key} {size / 1e6:.1f}" for key, size in counts.items()))
    for name, why in sorted(needs.why.items()):
        path = needs.wheels.get(name)
        if path is not None:
            print(f"  {path.name}: {why}")
    for name, why in sorted(needs.left_out.items()):
        print(f"  without {name}: {why}")
    print(f"copy run.sh, install.py, MANIFEST.json and parts of {out} to the machine; there: bash {out.name}/run.sh")


if __name__ == "__main__":
    sys.exit(main())
