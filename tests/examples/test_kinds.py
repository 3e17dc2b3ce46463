"""What examples are: every kind writes what it draws, and a new kind is a class and an entry."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

import expost
from expost import examples
from expost.commands.reporting import report
from expost.errors import UsageError
from expost.examples import KINDS, Examples, Wish, examples_of, kind_of, kind_of_data
from expost.examples.figures import PLAIN, Bar, Sheet
from expost.registry import Registry
from expost.sharing.onnx import export_onnx
from expost.types import Data, Split


@pytest.mark.parametrize(
    ("shape", "coded", "name"),
    [((1, 28, 28), False, "images"), ((7,), False, "vectors"), ((15, 76), True, "strings"), ((9,), True, "strings")],
)
def test_a_shape_is_of_one_kind(shape, coded, name):
    assert kind_of(shape, coded).name == name
    assert [kind.name for kind in KINDS.values() if kind.holds(shape, coded, False)] == [name]


def test_a_shape_of_no_kind_is_refused():
    with pytest.raises(UsageError, match=r"\(3, 4, 5, 6\) are of no known kind: strings, sound, images, vectors"):
        kind_of((3, 4, 5, 6))


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A run on rows of three numbers, with a density."""
    folder = tmp_path_factory.mktemp("rows")
    values = np.random.default_rng(0).normal(size=(90, 3))
    with (folder / "rows.csv").open("w") as file:
        csv.writer(file).writerows([["a", "b", "c"], *values.tolist()])
    run = expost.train("ae", folder / "rows.csv", folder / "run", epochs=2, width=8, latent_dim=2, tensorboard=False)
    expost.fit(run, "gaussian")
    return run


def test_paths_between_rows_are_written_by_pair_and_position(rows, tmp_path):
    lines = list(csv.reader(expost.interpolate(rows, tmp_path / "i.csv", n=3, steps=5).read_text().splitlines()))
    assert lines[0] == ["pair", "position", "a", "b", "c"]
    found = np.array(lines[1:], dtype=float)
    assert found.shape == (15, 5)
    assert found[:, 0].tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert found[:5, 1].tolist() == [0, 0.25, 0.5, 0.75, 1]
    x = rows.data().test.x
    chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    ends = rows.generator("cpu").reconstruct(x[chosen[[0, 3]]])
    np.testing.assert_allclose(found[[0, 4], 2:], ends.numpy(), rtol=1e-4, atol=1e-5)
    with pytest.raises(UsageError, match="cannot write this as 'i.png'; give one of: .csv"):
        expost.interpolate(rows, tmp_path / "i.png")


class Profiles(Examples):
    """Rows of three numbers that are seen as bars."""

    name = "profiles"
    like = "vectors"
    usual = "profiles.json"
    samples = pairs = (".json",)
    paths = (".png",)

    @staticmethod
    def holds(shape, coded, sound):
        return not coded and tuple(shape) == (3,)

    def draw(self, generator, wish):
        return generator.sample(wish.count, wish.density, wish.seed).tolist()

    def write(self, drawn, path, look=PLAIN, labels=None):
        path.write_text(json.dumps({"columns": self.data.columns, "rows": drawn}))

    def write_pairs(self, generator, x, path, look=PLAIN, labels=None):
        path.write_text(json.dumps([x.tolist(), generator.reconstruct(x).tolist()]))

    def write_paths(self, generator, ends, t, method, path, look=PLAIN):
        rows = generator.interpolate(*ends, t, method)
        Image.fromarray(rows.flatten(1).sigmoid().mul(255).byte().numpy()).save(path)

    def parts(self, generator, data, wish):
        bar = Bar(0, 0, 20, 10, (255, 0, 0))
        return [(f"profiles: {name}", Sheet(20, 10, (bar,))) for name in wish.densities]


def test_a_new_kind_is_a_class_and_an_entry(rows, tmp_path, monkeypatch):
    """Everything else (scores, the report) takes it for what it is like."""
    monkeypatch.setattr(examples, "KINDS", Registry("kind of examples", {Profiles.name: Profiles, **KINDS}))
    monkeypatch.chdir(tmp_path)
    assert isinstance(examples_of(rows.config), Profiles)
    assert kind_of_data(rows.data()) is Profiles
    drawn = json.loads(expost.sample(rows, n=4).read_text())
    assert drawn["columns"] == ["a", "b", "c"]
    assert drawn["rows"] == Profiles(rows.config.data).draw(rows.generator("cpu"), Wish(4))
    before, after = json.loads(expost.reconstruct(rows, tmp_path / "r.json", n=5).read_text())
    assert np.shape(before) == np.shape(after) == (5, 3)
    with Image.open(expost.interpolate(rows, tmp_path / "i.png", n=2, steps=4)) as picture:
        assert picture.size == (12, 2)
    with Image.open(expost.panel(rows, tmp_path / "p.png")) as picture:
        assert (255, 0, 0) in {color for _, color in picture.convert("RGB").getcolors(9999)}
    with pytest.raises(UsageError, match=r"cannot write this as 's.csv'; give one of: .json"):
        expost.sample(rows, out=tmp_path / "s.csv")
    scores = {(score.of, score.name): score.value for score in expost.evaluate(rows, allow_few=True)}
    assert ("reconstruction", "mse") in scores
    assert report((rows.folder,), tmp_path / "page.html").read_text().count("<h2") > 3


def test_a_new_kind_is_published_and_exported_as_what_it_is_like(rows, tmp_path, monkeypatch):
    pytest.importorskip("huggingface_hub", reason="publishing needs huggingface_hub")
    pytest.importorskip("onnxscript", reason="export needs onnxscript")
    monkeypatch.setattr(examples, "KINDS", Registry("kind of examples", {Profiles.name: Profiles, **KINDS}))
    assert isinstance(examples_of(rows.config), Profiles)
    shared = expost.save_pretrained(rows, tmp_path / "shared")
    card = (shared / "README.md").read_text()
    assert "rows = generator.sample(64)" in card
    assert "there is nothing to picture" in card
    loaded, own = (
        each.sample(4, seed=1) for each in (expost.from_pretrained(shared, device="cpu"), rows.generator("cpu"))
    )
    assert torch.equal(torch.as_tensor(loaded), torch.as_tensor(own))
    encoder, decoder = export_onnx(rows, tmp_path / "onnx")
    assert encoder.input == "x: float32 (batch, 3), vectors"
    assert decoder.output == "y: float32 (batch, 3), vectors"
    assert encoder.difference < 1e-4


def test_the_kind_of_data_is_that_of_their_shape():
    for x, name in ((torch.zeros(4, 3, 8, 8, dtype=torch.uint8), "images"), (torch.zeros(4, 5), "vectors")):
        assert kind_of_data(Data("made up", Split(x), Split(x), Split(x))).name == name


def test_what_cannot_be_scored_is_refused_before_a_density_is_fitted(rows):
    with pytest.raises(UsageError, match="features 'digits' are of images"):
        expost.evaluate(rows, densities=("kde",), features="digits")
    assert not (rows.folder / "densities" / "kde.safetensors").exists()
