"""scripts/offline_bundle.py: which wheels are needed, parts, data, and the installation on the other machine."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from PIL import Image

from expost.data import load_data
from expost.data.examples import Preprocess
from expost.data.files import read_path
from expost.utils.hashing import hash_tensors

SCRIPTS = Path(__file__).parents[2] / "scripts"
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture(scope="module", autouse=True)
def _scripts_importable() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPTS)
        yield


@pytest.fixture
def wheels() -> ModuleType:
    """The module that finds out what is needed."""
    from bundle import wheels

    return wheels


def write_wheel(folder: Path, name: str, version: str, requires: tuple[str, ...] = (), content: str = "") -> Path:
    """Write a wheel that pip installs: one module, and metadata."""
    folder.mkdir(parents=True, exist_ok=True)
    path, info = folder / f"{name}-{version}-py3-none-any.whl", f"{name}-{version}.dist-info"
    extras = {each.partition("extra == ")[2].strip("\"'") for each in requires if "extra ==" in each}
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Provides-Extra: {extra}" for extra in sorted(extras)] + [f"Requires-Dist: {each}" for each in requires]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", f"VERSION = {version!r}\n{content}")
        archive.writestr(f"{info}/METADATA", "\n".join(lines) + "\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


def found(
    wheels: ModuleType, tmp_path: Path, published: Mapping[str, tuple[str, ...]], root: str, have: Mapping[str, str]
) -> Any:
    """Resolve one requirement; `published` has requirements by `name version`."""
    paths = {}
    for each, requires in published.items():
        name, version = each.split()
        paths[each] = write_wheel(tmp_path / "index", name, version, requires)

    def fetch(name: str, versions: SpecifierSet) -> Path:
        suited = [each for each in paths if each.split()[0] == name and versions.contains(each.split()[1])]
        return paths[max(suited, key=lambda each: Version(each.split()[1]))]

    target = wheels.Target.parse("3.12", "linux-x86_64")
    known = {name: Version(version) if version else None for name, version in have.items()}
    return wheels.find_needs([(Requirement(root), "expost")], target, known, fetch)


def test_what_is_there_is_left_out_with_all_that_it_requires(wheels: ModuleType, tmp_path: Path) -> None:
    published = {"aaa 2.0": ("bbb>=1", "ccc"), "bbb 1.5": ("ddd",), "ccc 1.0": ()}
    needs = found(wheels, tmp_path, published, "aaa", {"bbb": "1.2"})
    assert set(needs.wheels) == {"aaa", "ccc"}
    assert needs.left_out == {"bbb": "1.2 is there"}
    assert needs.why == {"aaa": "for expost", "ccc": "for aaa"}


def test_what_is_there_but_too_old_is_carried(wheels: ModuleType, tmp_path: Path) -> None:
    published = {"aaa 2.0": ("bbb>=1.4",), "bbb 1.5": ()}
    needs = found(wheels, tmp_path, published, "aaa", {"bbb": "1.2"})
    assert needs.wheels["bbb"].name.startswith("bbb-1.5")
    assert needs.why["bbb"] == "1.2 is there, aaa requires >=1.4"
    assert needs.left_out == {}


def test_what_two_require_is_one_version_that_suits_both(wheels: ModuleType, tmp_path: Path) -> None:
    published = {"aaa 1.0": ("bbb", "ccc"), "bbb 2.0": (), "bbb 1.0": (), "ccc 1.0": ("bbb<2",)}
    needs = found(wheels, tmp_path, published, "aaa", {})
    assert needs.wheels["bbb"].name.startswith("bbb-1.0")


def test_of_extras_and_markers_only_what_holds_there(wheels: ModuleType, tmp_path: Path) -> None:
    requires = (
        'win ; sys_platform == "win32"', 'old ; python_version < "3.12"', 'new ; python_version >= "3.12"',
        'fast ; extra == "speed"', 'docs ; extra == "docs"', "dataclasses>=0.6",
    )  # fmt: skip
    published = {"aaa 1.0": requires, "new 1.0": (), "fast 1.0": ()}
    needs = found(wheels, tmp_path, published, "aaa[speed]", {})
    assert set(needs.wheels) == {"aaa", "new", "fast"}
    assert needs.left_out == {"dataclasses": "aaa requires it, but Python has it"}


@pytest.mark.parametrize(("have", "said"), [({"torch": "2.1"}, "2.1 is there"), ({}, "it is not there")])
def test_torch_is_never_carried(wheels: ModuleType, tmp_path: Path, have: dict[str, str], said: str) -> None:
    with pytest.raises(wheels.BundleError, match=f"^expost requires torch>=2.6, and {said}; no bundle carries torch"):
        found(wheels, tmp_path, {}, "torch>=2.6", have)


def test_a_freeze_file_is_read(wheels: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "have.txt"
    path.write_text("Typing_Extensions==4.1\ntorch==2.11.0+cu130\n-e git+x\nlocal @ file:///x\n# a remark\n\n")
    read = wheels.read_have(path)
    assert read == {"typing-extensions": Version("4.1"), "torch": Version("2.11.0+cu130"), "local": None}
    with pytest.raises(wheels.BundleError, match="pip list --format=freeze"):
        wheels.read_have(tmp_path / "none.txt")


def test_torchs_own_requirements_are_taken_to_be_there(wheels: ModuleType) -> None:
    assert {"torch", "numpy", "sympy", "mpmath", "jinja2", "markupsafe", "filelock"} <= set(wheels.torch_and_its_own())
    assert "scipy" not in wheels.torch_and_its_own()


@pytest.mark.parametrize(
    ("python", "platform"), [("3.12", "win-amd64"), ("3", "linux-x86_64"), ("2.7", "linux-x86_64"), ("3.12", "linux")]
)
def test_other_machines_are_refused(wheels: ModuleType, python: str, platform: str) -> None:
    with pytest.raises(wheels.BundleError):
        wheels.Target.parse(python, platform)


def test_tags_begin_with_an_old_glibc(wheels: ModuleType) -> None:
    tags = wheels.Target.parse("3.12", "linux-aarch64").platforms(28)
    assert tags[0] == "manylinux_2_28_aarch64"
    assert {"manylinux_2_17_aarch64", "manylinux2014_aarch64", "linux_aarch64"} <= set(tags)


def test_parts_hold_at_most_the_limit_and_pieces_join(tmp_path: Path) -> None:
    from bundle.parts import Item, distribute, on_disk

    generator = np.random.default_rng(0)
    sizes = {"wheels/a": 30_000, "wheels/b": 70_000, "data/c": 250_000, "data/d": 5, "data/e": 0}
    items = []
    for name, size in sizes.items():
        path = tmp_path / name.replace("/", "-")
        path.write_bytes(generator.bytes(size))
        items.append(Item(path, name))
    files = distribute([[item] for item in items], tmp_path / "out", 100_000)
    parts = {path.name: path for path in (tmp_path / "out").iterdir()}
    for part in parts.values():
        assert sum(on_disk(each.stat().st_size) for each in part.rglob("*") if each.is_file()) <= 100_000
    for item in items:
        pieces = sorted((file for file in files if file["to"] == item.to), key=lambda file: file["piece"])
        contents = [(tmp_path / "out" / file["path"]).read_bytes() for file in pieces]
        assert b"".join(contents) == item.path.read_bytes()
        assert [hashlib.sha256(each).hexdigest() for each in contents] == [file["sha256"] for file in pieces]
        assert {file["pieces"] for file in pieces} == {len(pieces)}
    assert len([file for file in files if file["to"] == "data/c"]) == 3
    assert sum(file["path"] == "part1/data/d" for file in files) == 1  # small ones fill up the first


def test_what_belongs_together_is_together_or_in_parts_of_its_own(tmp_path: Path) -> None:
    from bundle.parts import Item, distribute

    def items(name: str, *sizes: int) -> list[Item]:
        paths = [tmp_path / f"{name}{index}" for index in range(len(sizes))]
        for path, size in zip(paths, sizes, strict=True):
            path.write_bytes(bytes(size))
        return [Item(path, path.name) for path in paths]

    groups = [items("a", 50_000), items("big", 30_000, 30_000, 30_000, 30_000), items("small", 10_000, 10_000)]
    files = distribute(groups, tmp_path / "out", 100_000)
    assert {file["to"]: Path(file["path"]).parts[0] for file in files} == {
        "a0": "part1", "big0": "part2", "big1": "part2", "big2": "part2", "big3": "part3", "small0": "part1",
        "small1": "part1",
    }  # fmt: skip


@pytest.fixture
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of data sets: digits as IDX files, faces as images."""
    generator = np.random.default_rng(0)
    folder = tmp_path / "sets"
    for part, count in (("train", 60), ("t10k", 20)):
        images = generator.integers(0, 256, (count, 28, 28), np.uint8)
        labels = generator.integers(0, 10, count).astype(np.uint8)
        (folder / "mnist").mkdir(parents=True, exist_ok=True)
        for what, head, array in (("images-idx3", 3, images), ("labels-idx1", 1, labels)):
            content = struct.pack(f">I{head}I", 0x800 + head, *array.shape) + array.tobytes()
            (folder / "mnist" / f"{part}-{what}-ubyte.gz").write_bytes(gzip.compress(content))
    for part, count in (("train", 5), ("test", 3)):
        for index in range(count):
            path = folder / "faces64" / part / f"{index}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    monkeypatch.setenv("EXPOST_DATA", str(folder))
    return folder


def make(tmp_path: Path, *words: str) -> Path:
    """Make a bundle of an expost that is a stand-in, from a folder of wheels; return its folder."""
    import offline_bundle

    links = tmp_path / "links"
    requires = ("zz-needed>=2", "zz-there", "torch>=2.6", 'zz-peer ; extra == "peers"')
    own = write_wheel(tmp_path, "expost", "0.1", requires)
    write_wheel(links, "zz_needed", "1.0")
    write_wheel(links, "zz_needed", "2.5")
    write_wheel(links, "zz_peer", "1.0", ("zz-needed",))
    have = tmp_path / "have.txt"
    have.write_text("torch==2.13.0\nzz_there==1.0\nzz-needed==1.0\n")
    out = tmp_path / "bundle"
    given = ["--python", HERE, "--wheel", str(own), "--find-links", str(links), "--have", str(have), "--out", str(out)]
    assert offline_bundle.main([*given, "--features", "pixels", *words]) == 0
    return out


def install(bundle: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(bundle / "install.py"), str(bundle), str(site)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_bundle_holds_what_its_manifest_says(sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = make(tmp_path, "--data", "mnist", "digits", "--part-mb", "0.2", "--peers")
    manifest = json.loads((out / "MANIFEST.json").read_text())
    assert {Path(file["to"]).name for file in manifest["files"] if file["to"].startswith("wheels/")} == {
        "expost-0.1-py3-none-any.whl", "zz_needed-2.5-py3-none-any.whl", "zz_peer-1.0-py3-none-any.whl"
    }  # fmt: skip
    listed = {file["path"]: (file["size"], file["sha256"]) for file in manifest["files"]}
    there = {
        str(path.relative_to(out)): (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in out.glob("part*/**/*")
        if path.is_file()
    }
    assert listed == there
    assert manifest["left_out"]["zz-there"] == "1.0 is there"
    assert manifest["left_out"]["digits"] == "comes with what is installed"
    said = capsys.readouterr().out
    assert "zz_needed-2.5-py3-none-any.whl: 1.0 is there, expost requires >=2" in said
    assert "without torch: 2.13.0 is there" in said
    assert said.startswith("part1  0.")


def test_the_other_machine_installs_once_and_runs(sets: Path, tmp_path: Path) -> None:
    out = make(tmp_path, "--data", "mnist", "--peers")
    shutil.rmtree(tmp_path / "links")
    command = ["bash", str(out / "run.sh"), "--help"]
    environment = {**os.environ, "PYTHON": sys.executable, "EXPOST_SITE": str(tmp_path / "site"), "PIP_NO_INDEX": "1"}
    first = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("installed 5 files in ")
    assert "--budget" in first.stdout
    second = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert second.stdout.startswith("installed already")
    module = (tmp_path / "site" / "lib" / "zz_needed.py").read_text()
    assert module.startswith("VERSION = '2.5'")
    assert (tmp_path / "site" / "code" / "benchmarks" / "gpu_stages" / "checks.ini").exists()


def test_arrays_are_read_as_at_home(sets: Path, tmp_path: Path) -> None:
    out = make(tmp_path, "--data", "mnist")
    ended = install(out, tmp_path / "site")
    assert ended.returncode == 0, ended.stderr
    same_data(sets / "mnist", tmp_path / "site" / "data" / "mnist", labelled=True)


def same_data(home: Path, there: Path, labelled: bool) -> None:
    first, second = read_path(home), read_path(there)
    assert set(first.parts) == set(second.parts) == {"train", "test"}
    for name, part in first.parts.items():
        order = np.arange(len(part))
        x, y = (each.examples.load(order, Preprocess()) for each in (part, second.parts[name]))
        np.testing.assert_array_equal(x, y)
        if labelled:
            np.testing.assert_array_equal(part.labels, second.parts[name].labels)


def test_packed_images_decode_to_the_same_pixels(
    sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from bundle import data
    from bundle.install import _decode

    monkeypatch.setattr(data, "SHARD", 8_000)
    folder = tmp_path / "faces64"
    about = data.pack("faces64", folder)
    assert about is not None
    assert about["parts"]["train"]["shards"] > 1
    assert sum(path.stat().st_size for path in folder.iterdir()) < 1.2 * sum(
        path.stat().st_size for path in sets.rglob("*.jpg")
    )
    kept = tmp_path / "kept"
    shutil.copytree(folder, kept)
    assert _decode(folder, "faces64", about["parts"]) == "decoded"
    same_data(sets / "faces64", folder, labelled=False)
    about["parts"]["test"]["sha256"] = "0" * 64
    assert _decode(kept, "faces64", about["parts"]) == "other pixels"
    assert "faces64 is left out" in capsys.readouterr().out
    assert list(kept.iterdir()) == []


def test_strings_are_copied_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bundle import data

    place = tmp_path / "sets" / "zinc250k"
    place.mkdir(parents=True)
    (place / "250k_rndm_zinc_drugs_clean.smi").write_text("CCO\n" * 100)
    monkeypatch.setenv("EXPOST_DATA", str(tmp_path / "sets"))
    assert data.pack("zinc250k", tmp_path / "out") == {"form": "files"}
    packed = (tmp_path / "out" / "250k_rndm_zinc_drugs_clean.smi.gz").read_bytes()
    assert gzip.decompress(packed) == (place / "250k_rndm_zinc_drugs_clean.smi").read_bytes()


def test_a_part_that_comes_later_is_added(sets: Path, tmp_path: Path) -> None:
    out = make(tmp_path, "--data", "mnist", "--part-mb", "0.1")
    parts = sorted(path.name for path in out.glob("part*"))
    assert len(parts) > 1
    manifest = json.loads((out / "MANIFEST.json").read_text())
    (late,) = {Path(f["path"]).parts[0] for f in manifest["files"] if f["to"] == "data/mnist/mnist.npz"}
    shutil.move(out / late, tmp_path / "late")
    first = install(out, tmp_path / "site")
    assert first.returncode == 0, first.stderr
    assert f"mnist is left out: {late} not here" in first.stdout
    assert not (tmp_path / "site" / "data" / "mnist" / "mnist.npz").exists()
    shutil.move(tmp_path / "late", out / late)
    second = install(out, tmp_path / "site")
    assert second.returncode == 0, second.stderr
    assert (tmp_path / "site" / "data" / "mnist" / "mnist.npz").exists()


def test_a_damaged_file_and_another_python_are_refused_in_one_line(sets: Path, tmp_path: Path) -> None:
    out = make(tmp_path, "--data", "mnist")
    path = out / "part1" / "data" / "mnist" / "mnist.npz"
    path.write_bytes(path.read_bytes()[:-1])
    damaged = install(out, tmp_path / "site")
    assert (damaged.returncode, damaged.stderr) == (
        1, "error: part1/data/mnist/mnist.npz is not the file of the manifest; copy it again\n"
    )  # fmt: skip
    manifest = json.loads((out / "MANIFEST.json").read_text())
    (out / "MANIFEST.json").write_text(json.dumps({**manifest, "python": "3.9"}))
    other = install(out, tmp_path / "site")
    assert other.returncode == 1
    assert other.stderr.startswith("error: the wheels are for Python 3.9, ")
    assert other.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data", "mnits"], "unknown data set 'mnits'"),
        (["--data", "cifar10"], "cifar10 is not on this machine; put its files into EXPOST_DATA/cifar10"),
        (["--features", "inception-768"], "the weights of inception-768 are not on this machine"),
        (["--features", "inception"], "unknown features 'inception'"),
        (["--part-mb", "0"], "part-mb is 0"),
        (["--wheel", "none.whl"], "no wheel none.whl"),
    ],
)
def test_what_cannot_be_bundled_is_one_line(
    sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    import offline_bundle

    own = write_wheel(tmp_path, "expost", "0.1", ("torch>=2.6",))
    given = ["--wheel", str(own), "--find-links", str(tmp_path), "--out", str(tmp_path / "b"), "--data", "digits"]
    assert offline_bundle.main([*given, "--features", "pixels", *words]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {said}")
    assert error.count("\n") == 1


def test_what_tests_import_is_found(tmp_path: Path) -> None:
    from offline_bundle import imports

    path = tmp_path / "test_x.py"
    path.write_text("import os.path, nltk\nfrom hypothesis.strategies import text\ndef f():\n    import scikit_image\n")
    assert imports(path) == {"os", "nltk", "hypothesis", "scikit-image"}


def test_tests_are_carried_with_what_they_import_of_one_another() -> None:
    from offline_bundle import imports, marked_tests

    carried = {path.stem.replace("_", "-") for path in marked_tests()}
    there = {path.stem.replace("_", "-") for path in Path(__file__).parents[1].rglob("*.py")}
    assert "test-cuda" in carried
    for path in marked_tests():
        assert imports(path) & there <= carried


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import offline_bundle

    (tmp_path / "thesis.tex").write_text("dear")
    assert offline_bundle.main(["--out", str(tmp_path)]) == 1
    assert "is not a bundle" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").read_text() == "dear"


def test_the_real_digits_have_the_same_fingerprint(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bundle import data

    def fingerprint(folder: Path) -> str:
        monkeypatch.setenv("EXPOST_DATA", str(folder))
        loaded = load_data("mnist")
        return hash_tensors({"train": loaded.train.x, "validation": loaded.validation.x, "test": loaded.test.x})

    home = fingerprint(shared_data)
    assert data.pack("mnist", tmp_path / "mnist") == {"form": "files"}
    assert (tmp_path / "mnist" / "mnist.npz").stat().st_size < 12_500_000
    assert fingerprint(tmp_path) == home
