"""`expost doctor RUN` names exactly the file that is wrong."""

import json
import random
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from torture import count, times

import expost
from expost.cli import main
from expost.commands.doctor import doctor
from expost.errors import DataError
from expost.run import Run
from expost.utils.store import sealed, write_json

TINY: Any = {"epochs": 2, "limit": 120, "width": 8, "latent_dim": 2, "tensorboard": False, "device": "cpu"}
#: Files without which nothing tells that they were there.
NOT_MISSED = {"checkpoint.previous.safetensors", "metrics.json"}


def made(folder: Path, **changes: Any) -> Path:
    run = expost.train("rae-l2", "digits", folder, **TINY | changes)
    expost.fit(run, "gaussian")
    expost.fit(run, "gmm", components=2)
    expost.fit(run, "gaussian", by="label")
    expost.evaluate(run, ("gaussian",), ("frechet",), features="pixels", allow_few=True)
    return run.folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return made(tmp_path_factory.mktemp("doctor") / "run")


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Another run, of a model of the same shapes."""
    return made(tmp_path_factory.mktemp("doctor") / "other", seed=1)


@pytest.fixture
def copy(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "run"))


def wrong(folder: Path) -> list[str]:
    return [each.file for each in expost.check_run(folder) if each.state == "wrong"]


def checked(folder: Path) -> list[str]:
    return [each.file for each in expost.check_run(folder) if not Path(each.file).name.startswith(".")]


FILES = [
    "config.json", "model.safetensors", "checkpoint.safetensors", "checkpoint.previous.safetensors", "metrics.jsonl",
    "metrics.json", "densities/fitted_on.json", "densities/gaussian.safetensors", "densities/gaussian.json",
    "densities/gmm.safetensors", "densities/gmm.json", "densities/by_label/gaussian.safetensors",
    "densities/by_label/gaussian.json",
]  # fmt: skip


def test_a_whole_run_is_right_and_every_file_of_it_has_a_line(trained):
    assert sorted(checked(trained)) == sorted(FILES)
    assert {each.state for each in expost.check_run(trained)} == {"right"}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_flipped_is_named(copy, name):
    path, source = copy / name, random.Random(name)
    whole = path.read_bytes()
    tried = times(2, 60)
    for _ in range(tried):
        place, bit = source.randrange(len(whole)), source.randrange(8)
        print(f"{name}: bit {bit} of byte {place}")
        damaged = bytearray(whole)
        damaged[place] ^= 1 << bit
        path.write_bytes(damaged)
        if path.suffix == ".json" and _reads_the_same(whole, damaged):
            continue
        assert wrong(copy) == [name]
    count("doctor names the file with a flipped bit", tried)


def test_bits_of_names_and_gaps_are_noticed(copy):
    """The name of a checksum, a name in the table of densities, and what stands between a checksum and a record."""
    lines = (copy / "metrics.jsonl").read_text()
    (copy / "metrics.jsonl").write_text(lines.replace('"sha256"', '"sha257"', 1))
    assert wrong(copy) == ["metrics.jsonl"]
    (copy / "metrics.jsonl").write_text(lines)
    table = (copy / "densities" / "fitted_on.json").read_text()
    (copy / "densities" / "fitted_on.json").write_text(table.replace('"gmm"', '"gmi"', 1))
    assert wrong(copy) == ["densities/fitted_on.json"]
    (copy / "densities" / "fitted_on.json").write_text(table)
    weights = (copy / "model.safetensors").read_bytes()
    place = re.search(rb'"[0-9a-f]{64}( )\{', weights).start(1)
    (copy / "model.safetensors").write_bytes(weights[:place] + b"(" + weights[place + 1 :])
    assert wrong(copy) == ["model.safetensors"]


def _reads_the_same(whole: bytes, damaged: bytearray) -> bool:
    """Return whether a bit of white space was flipped to other white space."""
    try:
        return bool(json.loads(whole) == json.loads(damaged))
    except ValueError:
        return False


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_cut_off_is_named(copy, name):
    path = copy / name
    whole = path.read_bytes()
    parts = range(0, 20, times(11, 1))
    for part in parts:
        path.write_bytes(whole[: len(whole) * part // 20])
        assert wrong(copy) == [name], part
    count("doctor names the file that was cut off", len(parts))


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_missing_is_named(copy, name):
    (copy / name).unlink()
    assert wrong(copy) == ([] if name in NOT_MISSED else [name])
    count("doctor names the file that is missing", 1)


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_run_is_named(copy, other, name):
    shutil.copyfile(other / name, copy / name)
    found = wrong(copy)
    if name == "config.json":  # as whole as its own: another seed would have given other weights, which nothing tells
        assert found == []
    else:
        assert found == [name]
    count("doctor names the file of another run", 1)


def test_a_density_of_another_run_is_never_sampled_from(copy, other, capsys):
    shutil.copyfile(other / "densities" / "gmm.safetensors", copy / "densities" / "gmm.safetensors")
    generator = Run.open(copy).generator("cpu")
    assert "gmm" not in generator.densities
    assert "gaussian" in generator.densities
    assert "density gmm is of another model's codes, and is left out; fit it again" in capsys.readouterr().err


def test_two_densities_that_were_swapped_are_named(copy):
    one, two = copy / "densities" / "gaussian.safetensors", copy / "densities" / "gmm.safetensors"
    payload = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(payload)
    assert wrong(copy) == ["densities/gaussian.safetensors", "densities/gmm.safetensors"]


def test_two_checkpoints_that_were_swapped_are_named(copy):
    one, two = copy / "checkpoint.safetensors", copy / "checkpoint.previous.safetensors"
    payload = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(payload)
    assert wrong(copy) == ["checkpoint.safetensors"]


def test_a_configuration_of_other_shapes_is_named(copy):
    run = Run.open(copy)
    replace(run, config=replace(run.config, model=replace(run.config.model, width=16))).save_config()
    assert wrong(copy) == ["model.safetensors"]  # either may be the wrong one; the configuration has its checksum


def test_a_newer_format_is_told_and_an_older_folder_without_checksums_is_right(copy):
    path = copy / "config.json"
    record = json.loads(path.read_text())
    write_json(path, {key: value for key, value in record.items() if key != "sha256"})
    scores = json.loads((copy / "metrics.json").read_text())
    write_json(copy / "metrics.json", {"format": 1, "scores": scores["scores"]})
    assert wrong(copy) == []
    write_json(path, sealed(record | {"format": 99}))
    assert wrong(copy) == ["config.json"]
    assert "newer" in next(each.what for each in expost.check_run(copy) if each.file == "config.json")


def test_densities_and_scores_of_earlier_weights_are_named(copy):
    expost.train("rae-l2", "digits", copy, resume=True, epochs=4)
    assert wrong(copy) == [
        "metrics.json", "densities/by_label/gaussian.safetensors", "densities/gaussian.safetensors",
        "densities/gmm.safetensors",
    ]  # fmt: skip
    remedies = {each.file: each.remedy for each in expost.check_run(copy) if each.state == "wrong"}
    assert remedies["densities/gmm.safetensors"] == "fit it again: expost fit --density gmm"


def test_leftovers_and_locks_are_told(copy):
    left = copy / ".model.abcd1234.part.safetensors"
    left.write_bytes(b"half")
    assert wrong(copy) == [left.name]
    found = {each.file: each.what for each in expost.check_run(copy)}
    assert found[".training.lock"] == "lock, free"
    with FileLock(copy / ".training.lock"):
        found = {each.file: each.what for each in expost.check_run(copy)}
    assert found[".training.lock"] == "lock, in use now"


def test_a_training_that_was_stopped_early_is_right(tmp_path):
    run = Run.open(expost.train("rae-l2", "digits", tmp_path / "run", **TINY).folder)
    for name in ("model.safetensors", "checkpoint.safetensors", "checkpoint.previous.safetensors", "metrics.jsonl"):
        (run.folder / name).unlink()
    assert wrong(run.folder) == []


def test_a_search_is_checked(tmp_path):
    run = expost.train("grae", "expressions", tmp_path / "run", **{**TINY, "limit": 200, "epochs": 1, "width": 16})
    expost.optimize(run, rounds=1, batch=3, decodes=2, inducing=5, region="box", codes=60)
    (folder,) = (run.folder / "search").iterdir()
    assert wrong(run.folder) == []
    source = random.Random(0)
    for name in ("search.json", "search.safetensors"):
        path = folder / name
        whole = path.read_bytes()
        for _ in range(times(5, 50)):
            damaged = bytearray(whole)
            damaged[source.randrange(len(whole))] ^= 1 << source.randrange(8)
            path.write_bytes(damaged)
            if name == "search.json" and _reads_the_same(whole, damaged):
                continue
            assert wrong(run.folder) == [f"search/{folder.name}/{name}"]
        path.unlink()
        assert wrong(run.folder) == [f"search/{folder.name}/{name}"]
        path.write_bytes(whole)
    scores = expost.utils.store.read_tensors(folder / "search.safetensors")[0]
    expost.utils.store.write_tensors(folder / "search.safetensors", scores | {"scores": scores["scores"] + 1})
    assert wrong(run.folder) == [f"search/{folder.name}/search.safetensors"]
    with pytest.raises(DataError, match="does not belong to"):
        expost.optimize(run, rounds=2, batch=3, decodes=2, inducing=5, region="box", codes=60)


def test_the_command_prints_a_line_a_file_and_ends_with_status_1_where_one_is_wrong(copy, capsys):
    main(["doctor", str(copy)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(expost.check_run(copy)) + 1
    assert lines[-1].endswith("none is wrong")
    (copy / "model.safetensors").write_bytes(b"")
    with pytest.raises(SystemExit) as end:
        main(["doctor", str(copy), "--json"])
    assert end.value.code == 1
    report = json.loads(capsys.readouterr().out)
    assert [each["file"] for each in report["files"] if each["state"] == "wrong"] == ["model.safetensors"]
    assert report["problems"] == doctor(copy)["problems"]
    with pytest.raises(SystemExit) as end:
        main(["doctor", str(copy / "densities")])
    assert end.value.code == 1
    assert "is no run's folder" in capsys.readouterr().err


def test_networks_of_ones_own_are_checked_with_them_and_without(tmp_path):
    encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2))
    decoder = torch.nn.Sequential(torch.nn.Linear(2, 64), torch.nn.Unflatten(1, (1, 8, 8)))
    options = {key: value for key, value in TINY.items() if key != "width"}
    run = expost.train("rae-l2", "digits", tmp_path / "run", networks=(encoder, decoder), **options)
    assert wrong(run.folder) == []
    assert [each.state for each in expost.check_run(run) if each.state != "right"] == []
