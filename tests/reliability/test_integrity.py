"""What is on disk is what was written, or is refused; what is derived from weights is filed under these weights."""

import json
import os
import random
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torture import count, times

import expost
from expost.densities import load_density
from expost.errors import DataError, UsageError
from expost.generators.generator import Generator
from expost.run import Run
from expost.search.records import TENSORS
from expost.training.checkpoint import previous
from expost.utils.store import filling, read_tensor_file, read_tensors, replacing, write_json, write_tensors

TINY: Any = {"epochs": 2, "limit": 120, "width": 8, "latent_dim": 2, "tensorboard": False, "device": "cpu"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    run = expost.train("rae-l2", "digits", tmp_path_factory.mktemp("integrity") / "run", **TINY)
    expost.fit(run, "gaussian")
    expost.fit(run, "gmm", components=2)
    expost.fit(run, "kde")
    expost.fit(run, "gaussian", by="label")
    return run


@pytest.fixture
def copy(trained, tmp_path):
    return Run.open(shutil.copytree(trained.folder, tmp_path / "run"))


def weights_of(folder):
    return read_tensors(Path(folder) / "model.safetensors")[0]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def tensor_files(folder):
    found = sorted(path for path in Path(folder).rglob("*.safetensors"))
    assert len(found) >= 7
    return found


def refuse(file, payload):
    """Check that a file of these bytes is refused in one line."""
    file.write_bytes(payload)
    with pytest.raises(DataError) as refusal:
        read_tensor_file(file)
    assert str(file) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_flipped_bit_anywhere_in_a_file_of_tensors_is_refused(trained, tmp_path):
    source, tried = random.Random(0), 0
    for path in tensor_files(trained.folder):
        whole = path.read_bytes()
        header = 8 + int.from_bytes(whole[:8], "little")
        among = times(40, 4000)
        places = [*range(0, header, times(7, 1)), *(source.randrange(header, len(whole)) for _ in range(among)), -1]
        for place in places:
            damaged = bytearray(whole)
            damaged[place] ^= 1 << source.randrange(8)
            refuse(tmp_path / "damaged.safetensors", damaged)
        tried += len(places)
    count("a file of tensors with a flipped bit is refused", tried)


def test_a_file_of_tensors_that_is_cut_off_anywhere_is_refused(trained, tmp_path):
    tried = 0
    for path in tensor_files(trained.folder):
        whole = path.read_bytes()
        parts = times(20, 500)
        for part in range(parts):
            refuse(tmp_path / "cut.safetensors", whole[: len(whole) * part // parts])
        tried += parts
    count("a file of tensors that was cut off is refused", tried)


def test_files_of_other_packages_and_of_early_versions_have_no_checksum_and_are_read(tmp_path):
    x = {"x": torch.arange(3.0)}
    for metadata, record in ((None, {}), ({"format": "pt", "by": "anybody"}, {}), ({"expost": '{"a": 1}'}, {"a": 1})):
        save_file(x, tmp_path / "x.safetensors", metadata=metadata)
        found = read_tensor_file(tmp_path / "x.safetensors")
        assert same(found.tensors, x)
        assert found.record == record


def test_a_record_that_was_changed_alone_is_refused(tmp_path):
    write_tensors(tmp_path / "x.safetensors", {"x": torch.ones(2)}, {"epoch": 1})
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        metadata = file.metadata()
    changed = metadata["expost"].replace('"epoch": 1', '"epoch": 2')
    assert changed != metadata["expost"]
    save_file({"x": torch.ones(2)}, tmp_path / "x.safetensors", {"expost": changed})
    with pytest.raises(DataError, match="not what was written"):
        read_tensors(tmp_path / "x.safetensors")


def test_a_damaged_checkpoint_gives_way_to_the_one_before_it_and_the_end_is_the_same(copy, tmp_path, capsys):
    whole = expost.train("rae-l2", "digits", tmp_path / "whole", **TINY | {"epochs": 4})
    path = copy.folder / "checkpoint.safetensors"
    damaged = bytearray(path.read_bytes())
    damaged[-5] ^= 4
    path.write_bytes(damaged)
    expost.train("rae-l2", "digits", copy.folder, resume=True, epochs=4)
    assert "goes on from the checkpoint before it, epoch 1" in capsys.readouterr().err
    assert same(weights_of(copy.folder), weights_of(whole.folder))


def test_with_both_checkpoints_damaged_nothing_is_trained(copy):
    before = weights_of(copy.folder)
    for path in (copy.folder / "checkpoint.safetensors", previous(copy.folder / "checkpoint.safetensors")):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="checkpoint.previous.safetensors"):
        expost.train("rae-l2", "digits", copy.folder, resume=True, epochs=3)
    assert same(weights_of(copy.folder), before)


@pytest.mark.parametrize("lost", ["epoch", "step", "steps", "best", "sums", "seconds", "plateau", "lr"])
def test_every_field_of_a_checkpoint_is_required(copy, lost):
    path = copy.folder / "checkpoint.safetensors"
    previous(path).unlink()
    tensors, record = read_tensors(path)
    write_tensors(path, tensors, {key: value for key, value in record.items() if key != lost})
    with pytest.raises(DataError, match="no training checkpoint, or damaged"):
        expost.train("rae-l2", "digits", copy.folder, resume=True, epochs=3)


def test_a_checkpoint_with_a_rate_of_zero_is_refused(copy):
    path = copy.folder / "checkpoint.safetensors"
    previous(path).unlink()
    tensors, record = read_tensors(path)
    write_tensors(path, tensors, record | {"lr": 0.0})
    with pytest.raises(DataError, match="no training checkpoint, or damaged"):
        expost.train("rae-l2", "digits", copy.folder, resume=True, epochs=3)


def test_damaged_tensors_of_a_search_are_refused(tmp_path):
    run = expost.train("grae", "expressions", tmp_path / "run", **{**TINY, "limit": 200, "epochs": 1, "width": 16})
    options = {"rounds": 1, "batch": 3, "decodes": 2, "inducing": 5, "region": "box", "out": tmp_path / "search"}
    expost.optimize(run, **options)
    path = tmp_path / "search" / TENSORS
    whole = path.read_bytes()
    source = random.Random(1)
    for _ in range(20):
        damaged = bytearray(whole)
        damaged[source.randrange(len(whole))] ^= 1 << source.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=TENSORS):
            expost.optimize(run, **options | {"rounds": 2})


# ------------------------------------------------------------------------------- weights that change in the meantime


def train_on(copy):
    """Go on training in another process until the weights are other ones."""
    before = copy.weights_hash()
    program = "import sys, expost; expost.train('rae-l2', 'digits', sys.argv[1], resume=True, epochs=int(sys.argv[2]))"
    epochs = copy.config.training.epochs + 3
    subprocess.run([sys.executable, "-c", program, str(copy.folder), str(epochs)], check=True, capture_output=True)
    assert copy.weights_hash() != before
    return before


def test_a_density_is_filed_under_the_weights_it_is_of(copy, capsys, monkeypatch):
    encode, hashes = Generator.encode, []

    def encoding(self, x):
        codes = encode(self, x)
        if not hashes:
            hashes.append(train_on(copy))
        return codes

    monkeypatch.setattr(Generator, "encode", encoding)
    expost.fit(copy, "gaussian")
    record = json.loads((copy.folder / "densities" / "fitted_on.json").read_text())
    assert record["gaussian"] == hashes[0]
    assert "was trained on meanwhile: gaussian is of codes of earlier weights; fit it again" in capsys.readouterr().err
    assert "gaussian" not in copy.generator("cpu").densities
    # fitted by the run's generator, and saved by hand
    generator = Run.open(copy.folder).generator("cpu")
    density = generator.fit("gaussian", copy.data().train.x)
    train_on(Run.open(copy.folder))
    copy.save_density("gaussian", density)
    assert "gaussian" not in Run.open(copy.folder).generator("cpu").densities


def test_a_score_is_filed_under_the_weights_it_is_of(copy, capsys, monkeypatch):
    decode, hashes = Generator.decode, []

    def decoding(self, z):
        if not hashes:
            hashes.append(train_on(copy))
        return decode(self, z)

    monkeypatch.setattr(Generator, "decode", decoding)
    scores = expost.evaluate(copy, (), ("frechet",), features="pixels", allow_few=True)
    assert {score.card.model for score in scores} == set(hashes)
    saved = json.loads((copy.folder / "metrics.json").read_text())["scores"]
    assert {score["card"]["model"] for score in saved} == set(hashes)
    assert "was trained on meanwhile: these scores are of earlier weights" in capsys.readouterr().err


def test_a_density_saved_again_is_never_taken_for_that_of_other_weights(copy, monkeypatch):
    """A kill between the density's file and its record leaves one that counts as stale."""
    density = copy.generator("cpu").densities["gaussian"]
    train_on(copy)

    save = type(density).save

    def killed(self, path):
        save(self, path)
        raise KeyboardInterrupt

    monkeypatch.setattr(type(density), "save", killed)
    with pytest.raises(KeyboardInterrupt):
        copy.save_density("gaussian", density)
    monkeypatch.undo()
    assert load_density(copy.folder / "densities" / "gaussian.safetensors").fitted
    assert "gaussian" not in copy.generator("cpu").densities


# -------------------------------------------------------------------------------------------- beginning, and the lock


def test_two_trainings_begun_at_once_leave_one_whole_run(tmp_path):
    program = (
        "import sys, expost; expost.train('rae-l2', 'digits', sys.argv[1], latent_dim=int(sys.argv[2]), epochs=2, "
        "width=8, limit=120, tensorboard=False, device='cpu')"
    )
    for _ in range(3):
        folder = tmp_path / f"run-{_}"
        both = [
            subprocess.Popen([sys.executable, "-c", program, str(folder), str(d)], stderr=subprocess.PIPE, text=True)
            for d in (2, 3)
        ]
        said = [process.communicate()[1] for process in both]
        ended = [process.returncode for process in both]
        assert sorted(ended) == [0, 1], said
        winner = (2, 3)[ended.index(0)]
        assert Run.open(folder).config.model.latent_dim == winner
        assert Run.open(folder).model("cpu").encode(torch.zeros(1, 1, 8, 8)).shape == (1, winner)
        loser = said[1 - ended.index(0)].splitlines()[-1]
        assert "being trained by another process" in loser or "exists already" in loser


def test_resuming_writes_nothing_while_another_process_trains(copy):
    from expost.training.lock import training_lock

    before = (copy.folder / "config.json").read_bytes()
    program = "import sys, expost; expost.train('rae-l2', 'digits', sys.argv[1], resume=True, epochs=9)"
    with training_lock(copy.folder):
        other = subprocess.run([sys.executable, "-c", program, str(copy.folder)], capture_output=True, text=True)
    assert "is being trained by another process" in other.stderr
    assert (copy.folder / "config.json").read_bytes() == before


def test_a_folder_left_by_a_kill_in_the_first_write_is_as_good_as_none(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".training.lock").touch()
    (folder / ".config.abcd1234.part.json").write_text("{")
    expost.train("rae-l2", "digits", folder, **TINY)
    assert not (folder / ".config.abcd1234.part.json").exists()
    assert Run.open(folder).model("cpu")


def test_a_refused_training_leaves_no_folder(tmp_path):
    with pytest.raises(UsageError, match="has 1 training"):
        expost.train("rae-l2", "digits", tmp_path / "run", **TINY | {"limit": 1})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        expost.train("rae-l2", "digits", tmp_path / "other", **TINY)
    assert not (tmp_path / "run").exists()
    assert (tmp_path / "other" / "mine.txt").read_text() == "mine"


def test_what_a_killed_writer_left_is_cleared_by_the_next_and_a_live_writer_s_file_is_not(copy):
    left = [
        copy.folder / f".{name}"
        for name in ("a.abcdefgh.part.json", "model.abc_12gh.part.safetensors", "x.abcdefgh.part")
    ]
    mine = [copy.folder / name for name in (".config.settings.json", ".x.part", ".env", "a.abcdefgh.part.json")]
    for path in (*left, *mine):
        path.write_bytes(b"half")
    os.utime(left[0], (4e9, 4e9))  # in the future
    folder = copy.folder / ".onnx.abcdefgh.part"
    folder.mkdir()
    (folder / "encoder.onnx").write_bytes(b"half")
    with replacing(copy.folder / "metrics.json") as being_written:
        os.utime(being_written, (0, 0))
        write_json(copy.folder / "other.json", {})
        assert not any(path.exists() for path in (*left, folder))
        assert all(path.exists() for path in (*mine, being_written))
        being_written.write_text("{}")
    assert not being_written.exists()


def test_a_folder_is_filled_at_once_or_not_at_all(tmp_path):
    target = tmp_path / "filled"
    umask = os.umask(0o022)
    os.umask(umask)
    with suppress(KeyboardInterrupt), filling(target) as folder:
        (folder / "a").write_text("1")
        assert not target.exists()
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
    for there in ("", "old"):
        if there:
            (target / "kept").write_text("kept")
            (target / "a").write_text("old")
        with filling(target) as folder:
            (folder / "a").write_text("new")
            (folder / "b").write_text("new")
        assert {path.name: path.read_text() for path in target.iterdir()} == (
            {"a": "new", "b": "new"} | ({"kept": "kept"} if there else {})
        )
        assert target.stat().st_mode & 0o777 == 0o777 & ~umask
    assert [path.name for path in tmp_path.iterdir()] == ["filled"]


def test_two_processes_write_one_file_in_turns(tmp_path):
    """Neither takes the other's temporary file for a leftover, and each write succeeds."""
    program = (
        "import sys; from pathlib import Path; from expost.utils.store import write_json\n"
        "for number in range(int(sys.argv[2])): write_json(Path(sys.argv[1]), {'who': sys.argv[3], 'number': number})"
    )
    writes = times(100, 3000)
    words = [sys.executable, "-c", program, str(tmp_path / "x.json"), str(writes)]
    both = [subprocess.Popen([*words, who], stderr=subprocess.PIPE) for who in "ab"]
    while any(process.poll() is None for process in both):
        if (tmp_path / "x.json").exists():
            assert json.loads((tmp_path / "x.json").read_text())["who"] in "ab"
    assert [process.communicate()[1] for process in both] == [b"", b""]
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
    count("two processes write one file", 2 * writes)
