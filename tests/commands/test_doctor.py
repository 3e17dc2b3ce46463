"""The report on a machine: true, complete, silent about secrets, and never failing itself."""

import importlib.metadata
import io
import json
import sys

import pytest
import torch
from pydantic_core import to_json
from rich.console import Console

import expost
from expost.commands import doctor as module
from expost.commands.doctor import doctor, tables
from expost.data import DATASETS
from expost.data.named_strings import STRING_DATASETS
from expost.metrics import FEATURES
from expost.metrics.vision import ENCODERS


def rows(report, topic, key):
    return {row[key]: row for row in report[topic]}


def text(report):
    out = io.StringIO()
    console = Console(file=out, width=160)
    for each in tables(report):
        console.print(each)
    return out.getvalue()


@pytest.fixture(scope="module")
def report():
    return doctor()


def test_versions_are_those_that_are_installed(report):
    versions = {name: row["version"] for name, row in rows(report, "versions", "package").items()}
    assert versions["expost"] == expost.__version__
    assert versions["python"].startswith(sys.version.split()[0])
    for name in ("torch", "numpy", "safetensors", "pillow", "tyro"):
        assert versions[name] == importlib.metadata.version(name)


def test_extras_say_how_they_are_installed(monkeypatch):
    asked = [
        "torch<3,>=2.6",
        'Rich>=1; extra == "pretty"',
        "no_such.thing~=2; extra == 'odd'",
        'pytest; extra == "dev"',
    ]
    asked += ['expost[odd]; extra == "all"', 'absent-core; python_version >= "3"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: asked)
    report = doctor(self_test=False)
    assert report["extras"] == [
        {"package": "Rich", "extra": "pretty", "version": importlib.metadata.version("rich"), "install with": ""},
        {
            "package": "no_such.thing",
            "extra": "odd",
            "version": None,
            "install with": "pip install 'expost[odd]'",
        },
    ]
    assert "pip install 'expost[odd]'" in text(report)
    assert rows(report, "versions", "package")["absent-core"]["version"] == "missing"
    assert report["problems"] == ["absent-core is missing; install it with: pip install -U expost"]


def test_what_is_on_the_machine_is_found(report, tmp_path, monkeypatch):
    assert rows(report, "devices", "device")["cpu"]["what"].endswith(f"threads of torch: {torch.get_num_threads()}")
    assert list(rows(report, "weights", "features")) == list(FEATURES)
    assert rows(report, "weights", "features")["digits"]["found"] is True
    assert set(rows(report, "data", "data set")) == {*DATASETS, *STRING_DATASETS}
    assert rows(report, "data", "data set")["faces64"]["found"] is None
    (tmp_path / "faces64").mkdir()
    monkeypatch.setenv("EXPOST_DATA", str(tmp_path))
    again = doctor(self_test=False)
    assert rows(again, "data", "data set")["faces64"]["found"] == str(tmp_path / "faces64")
    assert rows(again, "environment", "variable")["EXPOST_DATA"]["exists"] is True
    assert "self_test" not in again


def test_a_model_trains_and_the_global_seed_is_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    test = doctor()["self_test"]
    assert test["step_ms"] > 0
    assert 0 < test["loss"] < 1024  # summed squared error of 1,024 pixels in [0, 1]
    assert torch.equal(torch.rand(1), expected)


def test_it_reads_as_tables_and_as_json(report):
    shown = text(report)
    assert all(word in shown for word in ("torch", "mnist-5k", "inception-2048", "EXPOST_DATA", "one step in"))
    assert json.loads(to_json(report)) == report
    for problem in report["problems"]:
        assert " ".join(problem.split()) in " ".join(shown.split())
    assert shown.rstrip().endswith("no problems") == (not report["problems"])


def test_no_secret_is_shown(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdef")
    monkeypatch.setenv("HF_ENDPOINT", "https://me:pass-word@hub.example/path?key=s3cret")
    report = doctor(self_test=False)
    said = json.dumps(report) + text(report)
    assert not any(secret in said for secret in ("hf_abcdef", "pass-word", "s3cret"))
    environment = rows(report, "environment", "variable")
    assert environment["HF_TOKEN"]["value"] == "set"
    assert environment["HF_ENDPOINT"]["value"] == "https://hub.example/path"


def test_weights_of_large_networks_are_found_or_said_where_to_get(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("EXPOST_WEIGHTS", raising=False)
    (tmp_path / "expost").mkdir()
    (tmp_path / "expost" / "clip-vit-base-patch32.bin").write_bytes(b"")
    report = doctor(self_test=False)
    told = {name: {} for name in ENCODERS}
    for row in report["vision"]:
        told[row["features"]][row["their weights"]] = row["where"]
    assert told["clip"] == {"found": str(tmp_path / "expost" / "clip-vit-base-patch32.bin")}
    assert told["dinov2-s"]["put"] == "dinov2_vits14_pretrain.pth"
    assert told["dinov2-s"]["from"].endswith("/dinov2_vits14_pretrain.pth")
    assert len(told["dinov2-s"]["SHA-256"]) == 64
    assert told["dinov2-s"]["SHA-256"] in text(report)  # whole, to be copied


def test_wrong_settings_are_problems_with_a_remedy(monkeypatch, tmp_path):
    monkeypatch.setenv("EXPOST_WEIGHTS", str(tmp_path / "gone"))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "below"))
    report = doctor(self_test=False)
    assert report["problems"] == [
        f"EXPOST_WEIGHTS is {tmp_path / 'gone'}, which does not exist; correct it, or unset it",
        f"{tmp_path / 'file' / 'below' / 'expost'} cannot be written, so nothing is kept; "
        "set XDG_CACHE_HOME to a folder of yours",
    ]
    assert rows(report, "weights", "features")["pixels"]["found"] is True
    assert "problems:" in text(report)


def test_a_check_that_fails_is_reported_and_the_others_go_on(monkeypatch):
    def broken():
        raise RuntimeError("CUDA driver\nis too old")

    monkeypatch.setattr(module, "_devices", broken)
    report = doctor(self_test=False)
    assert report["devices"] is None
    assert report["problems"] == ["devices: RuntimeError: CUDA driver is too old"]
    assert "CUDA driver is too old" in text(report)
    assert report["versions"]


def test_run_from_source_it_still_says_the_main_versions(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", missing)
    report = doctor(self_test=False)
    assert rows(report, "versions", "package")["torch"]["version"] == torch.__version__
    assert report["extras"] == []


def test_the_weights_of_fid_say_what_to_put_where(tmp_path, monkeypatch):
    from expost.metrics.weights import PUBLIC

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in ("EXPOST_WEIGHTS", "EXPOST_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    found = [(row["weights of fid and fid-768"], row["where"]) for row in doctor(self_test=False)["inception"]]
    assert found[:4] == [
        ("file for fid-768", None),
        ("file for fid", None),
        ("else put", PUBLIC.name),
        ("into", str(tmp_path / "expost")),
    ]
    assert ("SHA-256", PUBLIC.sha256) in found
    assert {url for key, url in found if key == "from"} == set(PUBLIC.urls)
    (tmp_path / "expost").mkdir()
    (tmp_path / "expost" / PUBLIC.name).write_bytes(b"")
    found = doctor(self_test=False)["inception"]
    assert found[0]["where"] == found[1]["where"] == str(tmp_path / "expost" / PUBLIC.name)
