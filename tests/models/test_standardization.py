"""Columns in standard units around a model: trained on in them, everything that comes out in the units of the data."""

import json
from typing import Any

import numpy as np
import pytest
import torch

import expost
from expost.data.standardization import Columns
from expost.errors import DataError, UsageError
from expost.models.autoencoder import build
from expost.models.presets import configure
from expost.run import Run
from expost.sharing.onnx import export_onnx
from expost.training.loop import Loop

#: Columns as a census or a laboratory has them: years, money, a ratio of tiny numbers, one that never varies.
UNITS = torch.tensor([1e-6, 1.0, 3e4, 1e9, 0.0], dtype=torch.float64)
CENTERS = torch.tensor([4e-6, -70.0, 1e5, -2e9, 12.25], dtype=torch.float64)


def rows(n=400, seed=0):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    mixed = hidden @ torch.randn(2, 5, generator=generator, dtype=torch.float64)
    t = mixed / mixed.std(0) + 0.1 * torch.randn(n, 5, generator=generator, dtype=torch.float64)
    return CENTERS + UNITS * t


def table(path, x, names="abcde"):
    lines = [",".join(names), *(",".join(f"{value:.9g}" for value in row) for row in x.tolist())]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    return expost.train(
        "rae-l2",
        table(folder / "x.csv", rows()),
        folder / "run",
        latent_dim=3,
        width=64,
        epochs=25,
        lr=3e-3,
        tensorboard=False,
    )


def deviations(x):
    varying = UNITS > 0
    return (x.double() - CENTERS)[:, varying] / UNITS[varying]


def test_columns_are_those_of_numpy_in_any_number_of_parts(monkeypatch):
    x = rows(101).numpy()
    whole = Columns.of(x)
    np.testing.assert_allclose(whole.mean, x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(whole.scale[:4], x[:, :4].std(0), rtol=1e-12)
    assert whole.varying.tolist() == [True] * 4 + [False]
    assert whole.mean[4] == 12.25
    monkeypatch.setattr("expost.data.standardization._AT_ONCE", 35)
    parts = Columns.of(x)
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(parts.scale, whole.scale, rtol=1e-12)


def test_values_too_large_for_their_variance_are_refused():
    with pytest.raises(DataError, match=r"too large for their variance, up to 1e\+200"):
        Columns.of(np.array([[1e200], [-1e200]]))


def test_reconstructions_and_samples_are_in_the_units_of_the_data(run):
    x = rows()
    expost.fit(run, "gaussian")
    generator = run.generator("cpu")
    again = generator.reconstruct(x.float())
    error = (deviations(again) - deviations(x)).square().mean(0)
    assert (error < 0.2).all()  # of 1, the variance, in every column, whatever its unit
    assert (again[:, 4] == 12.25).all()
    drawn = generator.sample(500, "gaussian", seed=1)
    assert (drawn[:, 4] == 12.25).all()
    torch.testing.assert_close(deviations(drawn).std(0), deviations(x).std(0), rtol=0.3, atol=0)
    path = expost.interpolate(run, run.folder.parent / "way.csv", device="cpu")
    way = np.genfromtxt(path, delimiter=",", names=True)
    assert set(way["e"].tolist()) == {12.25}
    assert (np.abs(way["d"] + 2e9) < 6e9).all()


def test_what_a_held_out_row_says_in_a_constant_column_changes_nothing(run):
    model = run.model("cpu")
    x = rows(5, seed=3).float()
    other = x.clone()
    other[:, 4] = 1e7
    torch.testing.assert_close(model.encode(other), model.encode(x))


def test_the_loss_is_in_standard_units():
    """The same model on standardized rows, written out a second time."""
    x = rows(64)
    config, training = configure("rae-l2", (5,), "small", {"width": 16, "latent_dim": 2}, {"tensorboard": False})
    assert config.standardize
    torch.manual_seed(0)
    model = build(config)
    Loop(model, x.float(), x.float()[:8], training)
    torch.manual_seed(0)
    plain = build(configure("rae-l2", (5,), "small", {"width": 16, "latent_dim": 2, "standardize": False})[0])
    assert plain.standardization is None
    t = torch.zeros(64, 5)
    t[:, :4] = ((x - x.mean(0)) / x.std(0, correction=0))[:, :4].float()
    ours, theirs = model.loss(x.float()), plain.loss(t)
    for name, value in theirs.terms.items():
        torch.testing.assert_close(ours.terms[name], value, rtol=1e-3, atol=1e-6)
    restored = model(x.float())
    units = torch.where(UNITS > 0, x.std(0, correction=0), 0.0)
    torch.testing.assert_close(restored.double(), x.mean(0) + units * plain(t).double(), rtol=1e-3, atol=1e-3)


def test_the_statistics_travel_with_the_weights(run, tmp_path):
    x = rows(20, seed=5).float()
    expected = run.model("cpu")(x)
    expost.push(run, "me/table", dry_run=True, out=tmp_path / "pushed", license="mit")
    pulled = expost.pull(str(tmp_path / "pushed"), tmp_path / "pulled")
    torch.testing.assert_close(pulled.model("cpu")(x), expected)


def test_an_onnx_file_takes_and_gives_the_units_of_the_data(run, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    export_onnx(run, tmp_path / "onnx")
    x = rows(20, seed=5).float()
    (z,) = onnxruntime.InferenceSession(tmp_path / "onnx" / "encoder.onnx").run(None, {"x": x.numpy()})
    (y,) = onnxruntime.InferenceSession(tmp_path / "onnx" / "decoder.onnx").run(None, {"z": z})
    torch.testing.assert_close(torch.from_numpy(y), run.model("cpu")(x), rtol=1e-4, atol=1e-4)


def test_no_standardize_trains_on_values_as_they_are_and_a_run_before_opens_as_such(tmp_path, capsys):
    x = (rows(60) - CENTERS) / UNITS.clamp_min(1e-9)
    x[:, 4] = 0.5
    path = table(tmp_path / "x.csv", x)
    options: dict[str, Any] = {"epochs": 1, "width": 16, "tensorboard": False}
    plain = expost.train("ae", path, tmp_path / "plain", standardize=False, **options)
    assert "columns: standardized" not in capsys.readouterr().err
    assert not any(name.startswith("standardization") for name in plain.model("cpu").state_dict())
    config = json.loads((plain.folder / "config.json").read_text())
    del config["model"]["standardize"]
    config["format"] = 1
    (plain.folder / "config.json").write_text(json.dumps(config))
    before = Run.open(plain.folder)
    assert not before.config.model.standardize
    torch.testing.assert_close(before.model("cpu")(x.float()), plain.model("cpu")(x.float()))
    with pytest.raises(UsageError, match="trained with model.standardize False, not True"):
        expost.train("ae", path, plain.folder, resume=True, standardize=True, epochs=2)


def test_it_is_said_and_names_what_does_not_vary(tmp_path, capsys):
    x = rows(60)
    x[:, 1] = -3.0
    path = table(tmp_path / "x.csv", x, ["age", "level", "pay", "code", "unit"])
    expost.train("ae", path, tmp_path / "run", epochs=1, width=16, tensorboard=False)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("columns: ")]
    assert said == [
        "columns: standardized for training, samples are in the data's units; 2 of 5 do not vary (level, unit)"
    ]


def test_a_resumed_run_keeps_its_units_exactly(tmp_path):
    path = table(tmp_path / "x.csv", rows(80))
    options: dict[str, Any] = {"width": 16, "tensorboard": False, "latent_dim": 2}
    expost.train("ae", path, tmp_path / "whole", epochs=4, **options)
    expost.train("ae", path, tmp_path / "parts", epochs=2, **options)
    expost.train("ae", path, tmp_path / "parts", epochs=4, resume=True, **options)
    whole, parts = (Run.open(tmp_path / name).model("cpu").state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert whole["standardization.scale"][4] == 0


def test_images_and_strings_are_not_standardized(tmp_path):
    for shape in ((1, 28, 28), (15, 12)):
        name = "ae" if len(shape) == 3 else "grae"
        assert not configure(name, shape)[0].standardize
        with pytest.raises(UsageError, match="standardize is for tables and vectors"):
            configure(name, shape, model_overrides={"standardize": True})
