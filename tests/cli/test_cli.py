"""The command line as a person meets it: results on stdout, progress on stderr, one-line errors, exit statuses."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import expost
from expost.cli import parsing as cli
from expost.models.zoo import ZOO
from expost.utils import store


def run_cli(*words, capsys, status=0):
    """Run the command line in this process; return what it printed."""
    try:
        cli.main([str(word) for word in words])
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    printed = capsys.readouterr()
    assert code == status, printed.err
    if status:
        assert printed.out == ""
    return printed


def one_line_error(printed):
    lines = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, printed.err
    assert "Traceback" not in printed.err
    return lines[0]


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    """A trained run on small digits, with a mixture."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    expost.train("rae", "digits", folder, epochs=5, width=64, tensorboard=False)
    expost.fit(folder, "gmm", components=5)
    return folder


@pytest.fixture(scope="module")
def image_run(tmp_path_factory):
    """A trained run on 32x32 images, barely trained."""
    folder = tmp_path_factory.mktemp("runs") / "images"
    expost.train("vae", "mnist-5k", folder, epochs=1, width=2, limit=200, tensorboard=False, precision="float32")
    return folder


def test_every_model_is_listed(capsys):
    assert [row["name"] for row in json.loads(run_cli("zoo", "--json", capsys=capsys).out)] == list(ZOO)
    table = run_cli("zoo", capsys=capsys).out
    assert all(name in table for name in ZOO)


def test_data_sets_are_listed(capsys):
    rows = {row["name"]: row for row in json.loads(run_cli("data", "--json", capsys=capsys).out)}
    assert {"mnist-5k", "digits", "mnist", "fashion-mnist", "cifar10", "svhn", "celeba"} <= rows.keys()
    assert rows["mnist-5k"]["train"] == 4000
    assert "mnist-5k" in run_cli("data", capsys=capsys).out


def test_the_whole_pipeline(tmp_path, capsys):
    run = tmp_path / "run"
    words = ["train", "rae-l2", "--data", "digits", "--out", run, "--epochs", "15", "--width", "64", "--no-tensorboard"]
    printed = run_cli(*words, capsys=capsys)
    assert printed.out.strip() == str(run)
    assert "epoch 15/15" in printed.err
    run_cli("fit", run, "--density", "gmm", "--components", "4", capsys=capsys)
    run_cli("fit", run, "--density", "gaussian", capsys=capsys)
    for name in ("s.png", "s.npy"):
        assert run_cli("sample", run, "-n", "12", "--out", tmp_path / name, capsys=capsys).out.strip() == str(
            tmp_path / name
        )
    array = np.load(tmp_path / "s.npy")
    assert (array.shape, array.dtype) == ((12, 1, 8, 8), np.uint8)
    run_cli("sample", run, "-n", "12", "--out", tmp_path / "folder", capsys=capsys)
    names = sorted(path.name for path in (tmp_path / "folder").iterdir())
    assert names == [f"{i:05d}.png" for i in range(12)]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "folder" / "00001.png")), array[1, 0])  # the same seed
    run_cli("reconstruct", run, "--out", tmp_path / "r.png", "-n", "5", capsys=capsys)
    run_cli("interpolate", run, "--out", tmp_path / "i.png", "--method", "spherical", capsys=capsys)
    for name in ("s.png", "r.png", "i.png"):
        assert np.asarray(Image.open(tmp_path / name).convert("L")).std() > 5  # something is on it
    scores = json.loads(run_cli("evaluate", run, "--json", capsys=capsys).out)
    values = {(score["name"], score["of"]): score["value"] for score in scores}
    assert values["frechet-pixels", "reconstruction"] < values["frechet-pixels", "gaussian"]
    assert all(np.isfinite(value) for value in values.values())
    saved = json.loads((run / "metrics.json").read_text())["scores"]
    assert saved == scores
    assert {path.name for path in run.iterdir()} >= {"config.json", "model.safetensors", "densities", "metrics.jsonl"}
    table = run_cli("evaluate", run, capsys=capsys).out
    assert "frechet-pixels" in table
    assert len(json.loads((run / "metrics.json").read_text())["scores"]) == len(scores)  # replaced, not added


def test_scores_carry_their_protocol_and_only_inception_is_called_fid(image_run, capsys):
    scores = expost.evaluate(image_run, densities=("gaussian",), samples=50, features="digits", allow_few=True)
    assert {score.name for score in scores if "digits" in score.name or "fid" in score.name} == {"frechet-digits"}
    assert {"mse", "psnr", "ssim"} < {score.name for score in scores}
    by_subject = {score.of: score.card for score in scores if score.name == "frechet-digits"}
    card = by_subject["gaussian"]
    assert (card.count, card.reference_count, card.reference) == (50, 200, "mnist-5k test")
    assert card.density["name"] == "gaussian"
    assert len(card.weights) == 64
    assert by_subject["reconstruction"].count == by_subject["interpolation"].count == 50  # one count for all
    again = expost.evaluate(image_run, densities=("gaussian",), samples=50, features="digits", allow_few=True)
    assert again == scores


def test_a_dry_run_prints_the_configuration_and_writes_nothing(tmp_path, capsys):
    words = ("train", "rae-l2", "--data", "mnist-5k", "--out", tmp_path / "run", "--preset", "paper", "--dry-run")
    config = json.loads(run_cli(*words, capsys=capsys).out)
    assert (config["model"]["beta"], config["model"]["latent_dim"], config["training"]["lr"]) == (0.0128, 16, 5e-4)
    assert not (tmp_path / "run").exists()


def test_values_of_a_flag_that_is_given_again_are_all_taken(tmp_path, capsys):
    words = ["train", "cv-vae", "--data", "digits", "--out", tmp_path / "run", "--dry-run"]
    again = ["--set", "latent.sigma=0.5", "--epochs", "7", "--set", "latent.noise_scale=0.1", "--epochs", "3"]
    config = json.loads(run_cli(*words, *again, capsys=capsys).out)
    assert config["model"]["latent"]["options"] == {"sigma": 0.5, "noise_scale": 0.1}
    assert config["training"]["epochs"] == 3  # of one value the last counts
    equal = ["--set=latent.sigma=0.5", "--set=latent.noise_scale=0.1", "--epochs", "3"]
    assert json.loads(run_cli(*words, *equal, capsys=capsys).out)["model"] == config["model"]


def test_run_folders_do_not_depend_on_where_they_are(digits_run, tmp_path, capsys):
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in digits_run.rglob("*"):
        if path.is_file():
            target = moved / path.relative_to(digits_run)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(path.read_bytes())
    a, b = (expost.Run.open(folder).generator().sample(4, "gmm", seed=0) for folder in (digits_run, moved))
    assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "rae2", "--data", "digits", "--out", "OUT"], "unknown model 'rae2', did you mean 'rae'"),
        (["train", "rae", "--data", "minst", "--out", "OUT"], "mnist"),
        (["train", "rae", "--data", "digits", "--out", "OUT", "--preset", "big"], "choose one of: small, paper"),
        (["train", "rae", "--data", "digits", "--out", "OUT", "--latent-dim", "100"], "--latent-dim is 100"),
        (["train", "rae", "--data", "digits", "--out", "OUT", "--epochs", "0"], "epochs is 0"),
        (["train", "rae", "--data", "digits", "--out", "OUT", "--device", "gpu"], "device 'gpu' cannot be used"),
        (["train", "rae", "--data", "digits", "--out", "OUT", "--set", "x"], "write NAME=VALUE"),
        (["train", "rae", "--data", "digits", "--out", "OUT", "--preset", "paper"], "preset paper knows the shapes"),
        (["train", "vq-vae", "--data", "digits", "--out", "OUT"], "no feature map"),
        (["train", "cv-vae", "--data", "digits", "--out", "OUT", "--set", "latent.sigma=abc"], "sigma='abc'"),
        (["train", "vae", "--data", "digits", "--out", "OUT", "--set", "latent.bound=NaN"], "bound=nan"),
        (["train", "rae", "--data", "digits", "--out", "OUT", "--set", "prior.foo=1"], "no option 'foo'"),
        (["train", "ae", "--data", "digits", "--out", "OUT", "--beta", "1"], "no latent penalty"),
        (["train", "rae", "--data", "digits", "--out", "OUT", "--regularizer-weight", "1"], "no regularizer term"),
        (["train", "rae", "--data", "~nosuchuser/x", "--out", "OUT"], "nosuchuser"),
        (["fit", "RUN", "--density", "gm"], "unknown density 'gm', did you mean 'gmm'"),
        (["fit", "RUN", "--density", "gmm", "--components", "0"], "components"),
        (["fit", "RUN", "--density", "gaussian", "--components", "3"], "no option 'components'"),
        (["sample", "RUN", "--density", "kde"], "density 'kde' is not fitted (fitted: gmm"),
        (["sample", "RUN", "-n", "0"], "n is 0"),
        (["sample", "RUN", "--out", "samples.gif"], "cannot write this as 'samples.gif'"),
        (["interpolate", "RUN", "--out", "i.png", "--method", "cubic"], "unknown interpolation 'cubic'"),
        (["interpolate", "RUN", "--out", "i.png", "--steps", "1"], "steps is 1"),
        (["evaluate", "RUN", "--features", "resnet"], "unknown features 'resnet'"),
        (["evaluate", "RUN", "--features", "digits"], "28x28 or 32x32"),
        (["evaluate", "RUN", "--densities", "kd"], "unknown density 'kd'"),
        (["evaluate", "RUN", "--samples", "1"], "samples is 1"),
    ],
)
def test_wrong_words_exit_with_2_and_say_what_exists(words, message, digits_run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = {"RUN": digits_run, "OUT": tmp_path / "out"}
    printed = run_cli(*(places.get(word, word) for word in words), capsys=capsys, status=2)
    assert message in one_line_error(printed)
    assert not list(tmp_path.iterdir())


TRAIN = ["train", "rae-l2", "--data", "digits", "--out", "x"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trane"], "unknown command 'trane'; did you mean train? expost --help lists them"),
        (["x1y2"], "unknown command 'x1y2'; expost --help lists them"),
        (["--jsn"], "a command is missing; expost --help lists them"),
        (["train"], "train needs MODEL, --data NAME|PATH; expost train --help says more"),
        (["train", "rae", "--data"], "--data needs a value; expost train --help says more"),
        (["train", "rae", "--epoch", "3"], "train needs --data NAME|PATH; unknown: --epoch 3; expost"),
        (["sample", "RUN", "--out", "x", "-n", "many"], "-n/--n is many; give a whole number; expost sample"),
        ([*TRAIN, "--lr", "fast"], "--lr is fast; give a number; expost train --help says more"),
        ([*TRAIN, "--precision", "half"], "--precision is 'half'; choose of "),
        ([*TRAIN, "--epoch", "3"], "train has no option --epoch 3 (did you mean --epochs?); expost train --help"),
        ([*TRAIN, "--components", "3"], "has no option --components 3 (did you mean --components of expost fit?)"),
        ([*TRAIN, "more"], "train has no use for more; expost train --help says more"),
    ],
)
def test_words_that_are_refused_are_one_line_and_exit_with_2(words, said, capsys):
    printed = run_cli(*words, capsys=capsys, status=2).err
    assert printed.startswith("error: ")
    assert printed.count("\n") == 1
    assert said in printed
    assert "None" not in printed


def test_no_words_are_answered_with_the_help(capsys):
    assert "optimisation" in run_cli(capsys=capsys, status=2).err


def test_the_version_is_said(capsys):
    assert run_cli("--version", capsys=capsys).out == f"expost {expost.__version__}\n"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run / "config.json").unlink(), "is not a run folder"),
        (lambda run: (run / "config.json").write_text("{"), "not valid JSON"),
        (lambda run: rewrite_config(run, format=99), "format 99, newer than this expost"),
        (lambda run: rewrite_config(run, colour="red"), "colour"),
        (lambda run: truncate(run / "model.safetensors"), "model.safetensors: truncated"),
        (lambda run: truncate(run / "densities" / "gmm.safetensors"), "gmm.safetensors"),
        (lambda run: (run / "model.safetensors").unlink(), "no trained weights"),
        (lambda run: (run / "densities" / "fitted_on.json").write_text("[]"), "fitted_on.json is damaged"),
    ],
)
def test_damaged_runs_exit_with_1(damage, message, digits_run, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    (run / "densities").mkdir()
    for path in digits_run.rglob("*"):
        if path.is_file() and path.suffix in (".json", ".safetensors"):
            (run / path.relative_to(digits_run)).write_bytes(path.read_bytes())
    damage(run)
    assert message in one_line_error(run_cli("sample", run, "--out", tmp_path / "s.png", capsys=capsys, status=1))
    assert not (tmp_path / "s.png").exists()


def truncate(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def rewrite_config(run, **changes):
    path = run / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_an_existing_run_is_not_touched(digits_run, capsys):
    before = {path: path.read_bytes() for path in digits_run.rglob("*") if path.is_file()}
    words = ("train", "rae", "--data", "digits", "--out", digits_run)
    assert "exists already" in one_line_error(run_cli(*words, capsys=capsys, status=2))
    assert {path: path.read_bytes() for path in digits_run.rglob("*") if path.is_file()} == before


def test_a_full_disk_keeps_what_was_there(digits_run, tmp_path, capsys, monkeypatch):
    """The real write path, with the system call that fails on a full disk failing as it does there."""
    picture, density = tmp_path / "s.png", digits_run / "densities" / "gmm.safetensors"
    run_cli("sample", digits_run, "--out", picture, capsys=capsys)
    before = picture.read_bytes(), density.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store.os, "fsync", full)
    for words in (["sample", digits_run, "--out", picture], ["fit", digits_run, "--density", "gmm"]):
        message = one_line_error(run_cli(*words, capsys=capsys, status=1))
        assert "No space left on device" in message
    assert (picture.read_bytes(), density.read_bytes()) == before
    hidden = {path.name for folder in (tmp_path, density.parent) for path in folder.glob(".*")}
    assert hidden <= {".fitted_on.json.lock"}  # an empty file that is locked while the record is changed


def test_a_really_full_disk_while_training(tmp_path):
    """A file size limit stands in for the disk: the kernel refuses to write on."""
    code = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    code += "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)); from expost.cli import main; main()"
    words = ["train", "rae", "--data", "digits", "--width", "128", "--epochs", "1", "--no-tensorboard", "--out", "run"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "error: cannot write run/model.safetensors: File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [".training.lock", "config.json"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "empty"),
        (lambda folder: (folder / "notes.txt").write_text("x"), "notes.txt"),
        (lambda folder: [*several(folder), (folder / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")], "a.png"),
        (lambda folder: [*several(folder), picture(folder / "b.png", 40)], "size"),
        (lambda folder: [picture(folder / "a.png", 32)], "example"),
    ],
)
def test_bad_image_folders(make, message, tmp_path, capsys):
    folder = tmp_path / "images"
    folder.mkdir()
    make(folder)
    words = ("train", "rae", "--data", folder, "--out", tmp_path / "run")
    assert message in one_line_error(run_cli(*words, capsys=capsys, status=1))
    assert not (tmp_path / "run").exists()


def several(folder):
    return [picture(folder / f"{i}.png", 32) for i in range(5)]


def picture(path, side, value=None):
    array = np.random.default_rng(len(path.name)).integers(0, 256, (side, side), dtype=np.uint8)
    Image.fromarray(array if value is None else np.full_like(array, value)).save(path)


def test_arrays_that_cannot_be_trained_on(tmp_path, capsys):
    values = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    values[7, 3] = np.nan
    np.save(tmp_path / "nan.npy", values)
    message = one_line_error(
        run_cli("train", "ae", "--data", tmp_path / "nan.npy", "--out", tmp_path / "r", capsys=capsys, status=1)
    )
    assert "nan in row 7, column 3" in message
    np.save(tmp_path / "cut.npy", np.zeros((50, 6), np.float32))
    content = (tmp_path / "cut.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(content[:-100])
    message = one_line_error(
        run_cli("train", "ae", "--data", tmp_path / "cut.npy", "--out", tmp_path / "r", capsys=capsys, status=1)
    )
    assert "cut.npy" in message


def test_a_constant_image_set_trains_and_says_what_cannot_be_fitted(tmp_path, capsys):
    folder = tmp_path / "flat"
    folder.mkdir()
    for i in range(30):
        picture(folder / f"{i}.png", 32, value=128)
    run = tmp_path / "run"
    run_cli(
        "train",
        "ae",
        "--data",
        folder,
        "--out",
        run,
        "--epochs",
        "2",
        "--width",
        "2",
        "--no-tensorboard",
        capsys=capsys,
    )
    assert "codes" in one_line_error(run_cli("fit", run, "--density", "gmm", capsys=capsys, status=1))


def test_fewer_examples_than_components(tmp_path, capsys):
    np.save(tmp_path / "few.npy", np.random.default_rng(0).normal(size=(10, 8)).astype(np.float32))
    run = tmp_path / "run"
    run_cli(
        "train", "ae", "--data", tmp_path / "few.npy", "--out", run, "--epochs", "1", "--no-tensorboard", capsys=capsys
    )
    message = one_line_error(run_cli("fit", run, "--density", "gmm", "--components", "10", capsys=capsys, status=1))
    assert "10" in message


def test_one_class_and_vectors_go_through(tmp_path, capsys):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "one.npz", x=rng.normal(size=(200, 5)).astype(np.float32), y=np.zeros(200, int))
    run = tmp_path / "run"
    run_cli(
        "train", "rae", "--data", tmp_path / "one.npz", "--out", run, "--epochs", "2", "--no-tensorboard", capsys=capsys
    )
    scores = json.loads(run_cli("evaluate", run, "--json", capsys=capsys).out)
    names = {score["name"] for score in scores}
    assert {"frechet-values", "mse", "recall", "f8", "kernel-distance", "log-likelihood", "copying"} <= names
    assert not any("fid" in name or "digits" in name or name == "ssim" for name in names)
    run_cli("sample", run, "--out", tmp_path / "s.npy", capsys=capsys)
    assert np.load(tmp_path / "s.npy").shape == (64, 5)
    message = one_line_error(run_cli("sample", run, "--out", tmp_path / "s.png", capsys=capsys, status=2))
    assert "give one of: .csv, .npy" in message


def test_a_table_keeps_its_names(tmp_path, capsys):
    draw = np.random.default_rng(0)
    kinds = ["barbera", "barolo"]
    lines = [f"{draw.normal() + 3 * (i % 2):.4f},{1000 * draw.normal():.4f},{kinds[i % 2]}" for i in range(200)]
    (tmp_path / "wines.csv").write_text("ash,proline,label\n" + "\n".join(lines) + "\n")
    run = tmp_path / "run"
    words = ["train", "rae", "--data", tmp_path / "wines.csv", "--out", run, "--epochs", "3"]
    printed = run_cli(*words, "--latent-dim", "2", "--no-tensorboard", capsys=capsys)
    assert "columns: standardized for training, samples are in the data's units\n" in printed.err
    run_cli("fit", run, "--density", "gaussian", "--by", "label", capsys=capsys)
    refused = run_cli("sample", run, "--label", "cider", capsys=capsys, status=2)
    assert "unknown label 'cider'; choose one of: barbera, barolo" in refused.err
    out = tmp_path / "more.csv"
    run_cli("sample", run, "-n", "7", "--label", "barolo", "--out", out, capsys=capsys)
    header, *rows = out.read_text().splitlines()
    assert [name.strip('"') for name in header.split(",")] == ["ash", "proline", "label"]
    assert {row.split(",")[2] for row in rows} == {"barolo"}
    assert np.array([row.split(",")[:2] for row in rows], float).shape == (7, 2)
    run_cli("reconstruct", run, "-n", "3", "--out", tmp_path / "back.csv", capsys=capsys)
    header, *rows = (tmp_path / "back.csv").read_text().splitlines()
    assert "proline, reconstructed" in header
    assert len(rows) == 3
    refused = run_cli("sample", run, "--label", "barolo", "--out", tmp_path / "more.png", capsys=capsys, status=2)
    assert "give one of: .csv, .npy" in refused.err
    few = run_cli("fit", run, "--density", "gmm", "--components", "50", capsys=capsys)
    assert "50 full covariances of 2 dimensions from 160 codes are likely to overfit" in few.err


def test_help_into_a_closed_pipe(tmp_path):
    words = f"{sys.executable} -u -m expost train --help | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", words], capture_output=True, text=True, timeout=900)
    assert done.stdout.startswith("usage: expost train")
    assert done.stderr == ""


def test_vector_quantised_models_train_reconstruct_and_evaluate(tmp_path, capsys):
    run = tmp_path / "run"
    words = (
        "train",
        "vq-vae",
        "--data",
        "mnist-5k",
        "--limit",
        "200",
        "--epochs",
        "2",
        "--width",
        "4",
        "--no-tensorboard",
    )
    run_cli(*words, "--out", run, capsys=capsys)
    run_cli("reconstruct", run, "--out", tmp_path / "r.png", capsys=capsys)
    assert "codes are symbols, not vectors" in one_line_error(
        run_cli("fit", run, "--density", "gmm", capsys=capsys, status=2)
    )
    run_cli("fit", run, "--density", "autoregressive", "--set", "width=8", "depth=1", "steps=5", capsys=capsys)
    scores = json.loads(run_cli("evaluate", run, "--features", "digits", "--json", capsys=capsys).out)
    assert {score["of"] for score in scores} == {"reconstruction", "interpolation", "autoregressive", "codes"}


def test_debug_shows_the_traceback(capsys, tmp_path):
    printed = run_cli("sample", tmp_path, "--debug", capsys=capsys, status=1)
    assert "Traceback" in printed.err


def test_the_programs_exit_status_is_seen_from_outside(tmp_path):
    script = Path(sys.executable).with_name("expost")
    wrong = subprocess.run(
        [script, "train", "nope", "--data", "digits", "--out", tmp_path / "x"], capture_output=True, check=False
    )
    assert wrong.returncode == 2
    listed = subprocess.run(
        f"{script} zoo --json | head -c 10", shell=True, capture_output=True, text=True, check=False
    )
    assert listed.stderr == ""  # a closed pipe is no error
