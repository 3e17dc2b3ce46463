"""Reports: what is on the page, that it is right, that it is safe, and that what is missing is said."""

import base64
import json
import math
import re
import shutil
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from itertools import pairwise

import numpy as np
import pytest
import torch
from nltk import edit_distance
from PIL import Image
from scipy.integrate import quad
from torch import nn

import expost
from expost.commands.reporting import report
from expost.densities import make_density
from expost.errors import TROUBLESHOOTING, DataError, UsageError
from expost.evaluation.scores import Card, Score
from expost.metrics import pool as pool_module
from expost.report import svg
from expost.report.blocks import Note, Page, RunPage, Section
from expost.report.codes import Codes, code_map, contours
from expost.report.page import render
from expost.report.pictures import stack, tiles
from expost.report.plane import Plane, Surface, shadow, surface
from expost.report.scoring import name_cell, protocol_cards, ranking, score_blocks
from expost.report.strings import edit_distances
from expost.report.structures import draw_expression, draw_molecule
from expost.report.subject import Subject
from expost.report.training import History, loss_curves
from expost.run import Run
from expost.utils.store import write_tensors

VOID = {"meta", "img", "br", "link", "input"}
HOSTILE = "<img src=x onerror=alert(1)>\"'&<script>alert(2)<!--"
HOSTILE_NAME = HOSTILE.replace("/", "")


class Reader(HTMLParser):
    """Takes a page apart: elements with attributes, texts, and whether tags are balanced."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text, self.open = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def read(path):
    return Reader(path.read_text(encoding="utf-8"))


def harmless(page):
    """Check that a page loads nothing and runs nothing."""
    assert page.open == []
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "iframe", "object", "embed", "form", "base", "image", "use", "foreignobject"}
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        for name in ("src", "href", "data", "action", "srcset", "xlink:href"):
            value = attributes.get(name) or ""
            assert value == "" or value.startswith(
                (
                    "data:image/png;base64,",
                    "data:image/webp;base64,",
                    "data:text/csv;charset=utf-8;base64,",
                    "#run-",
                    "#ranking",
                    *([f"{TROUBLESHOOTING}#"] if (tag, name) == ("a", "href") else []),  # which a person follows
                )
            )
    assert "url(" not in "".join(page.text)
    assert "@import" not in "".join(page.text)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A run on small images with labels: two densities, scores."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    expost.train("rae-l2", "digits", folder, epochs=6, width=64, latent_dim=6, tensorboard=False)
    expost.fit(folder, "gmm", components=3)
    expost.evaluate(folder, ("gaussian", "gmm"), ("frechet", "prd", "latent"))
    return folder


@pytest.fixture(scope="module")
def page(digits, tmp_path_factory):
    """The page of that run."""
    return read(report((digits,), tmp_path_factory.mktemp("pages") / "report.html"))


def copied(run, tmp_path, name="run"):
    return shutil.copytree(run, tmp_path / name)


def report_on(*runs, to, **options):
    return read(report(tuple(runs), to / "report.html", **options))


# the page


def test_a_page_is_complete_in_itself(page, digits, tmp_path):
    harmless(page)
    path = report((digits,), tmp_path / "report.html")
    assert 30_000 < path.stat().st_size < 3_000_000
    policy = next(each["content"] for each in page.all("meta") if each.get("http-equiv"))
    assert policy.startswith("default-src 'none'")
    assert "prefers-color-scheme: dark" in "".join(page.text)


def test_a_page_says_what_the_run_is(page):
    for words in ("deterministic", "half-norm", "tikhonov", "squared-error", "6 latent dimensions", "6 of 6 epochs"):
        assert words in page.words
    anchors = {each["id"] for _, each in page.elements if "id" in each}
    links = {each["href"][1:] for each in page.all("a") if each["href"].startswith("#")}
    assert links <= anchors
    sections = ["choices", "training", "reconstructions", "samples", "neighbours", "interpolations", "codes", "scores"]
    assert {f"run-1-{name}" for name in sections} == links


def test_a_page_is_accessible(page):
    assert page.all("html")[0]["lang"] == "en"
    assert all(len(each["alt"]) > 10 for each in page.all("img"))
    charts = page.all("svg")
    assert len(charts) >= 5
    assert all(each["role"] == "img" and len(each["aria-label"]) > 10 for each in charts)
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))
    assert len(page.all("caption")) == len(page.all("table")) == 2
    assert all(each.get("scope") in ("col", "row") for each in page.all("th"))


def test_scores_are_shown_with_their_protocol(page, digits):
    saved = json.loads((digits / "metrics.json").read_text())["scores"]
    assert len(saved) > 12
    for score in saved:
        assert f"{score['value']:.4g}".replace("-", "−") in page.words, score["name"]
        assert score["name"] in page.words
    card = saved[0]["card"]
    for value in (card["model"], card["reference_hash"], card["reference"], f"{card['reference_count']}"):
        assert value in page.words


def test_the_same_seed_makes_the_same_page(digits, tmp_path):
    def text(seed):
        path = report((digits,), tmp_path / "page.html", seed=seed)
        return re.sub(r"Made [-\d: ]+ by", "", path.read_text())

    assert text(1) == text(1)
    assert text(1) != text(2)


def test_the_heading_is_the_title_that_is_given(digits, tmp_path):
    page = report((digits,), tmp_path / "page.html", title="Digits <of> March").read_text(encoding="utf-8")
    assert "<title>Digits &lt;of&gt; March</title>" in page
    assert "<h1>Digits &lt;of&gt; March</h1>" in page


# what is wrong or missing


def test_wrong_requests_are_refused_before_any_work(digits, tmp_path):
    for out, words in ((tmp_path / "page.pdf", "ending in .html"), (tmp_path, "ending in .html")):
        with pytest.raises(UsageError, match=words):
            report((digits,), out)
    (tmp_path / "x.html").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        report((digits,), tmp_path / "x.html")
    with pytest.raises(UsageError, match="no run is given"):
        report((), tmp_path / "page.html")
    with pytest.raises(UsageError, match="given twice"):
        report((digits, digits / ".." / "digits"), tmp_path / "page.html")
    with pytest.raises(DataError, match="not a run folder"):
        report((tmp_path,), tmp_path / "page.html")
    with pytest.raises(UsageError, match="seed is -1"):
        report((digits,), tmp_path / "page.html", seed=-1)
    with pytest.raises(UsageError, match="device 'tpu9'"):
        report((digits,), tmp_path / "page.html", device="tpu9")
    assert not (tmp_path / "page.html").exists()


def test_an_unfinished_run_says_so(digits, tmp_path):
    run = copied(digits, tmp_path)
    for name in ("model.safetensors", "metrics.json", "metrics.jsonl"):
        (run / name).unlink()
    page = report_on(run, to=tmp_path)
    harmless(page)
    for words in (
        "unfinished: 0 of 6 epochs",
        "no loss curves",
        "no trained weights yet",
        f"expost evaluate {run.name}",
    ):
        assert words in page.words
    assert not page.all("img")
    assert not page.all("svg")


def test_a_run_without_densities_or_scores_says_what_to_run(digits, tmp_path):
    run = copied(digits, tmp_path)
    shutil.rmtree(run / "densities")
    (run / "metrics.json").unlink()
    page = report_on(run, to=tmp_path)
    assert f"expost fit {run.name} --density gmm" in page.words
    assert f"expost evaluate {run.name}" in page.words
    assert len(page.all("img")) > 20  # reconstructions and interpolations need no density
    assert "Map of 1,437 codes of training examples" in next(
        each["aria-label"] for each in page.all("svg") if "map" in each["class"]
    )


def test_scores_and_densities_of_earlier_weights_are_left_out(digits, tmp_path):
    run = copied(digits, tmp_path)
    expost.train("rae-l2", "digits", run, epochs=7, resume=True)
    page = report_on(run, to=tmp_path)
    assert "Scores of earlier weights are left out" in page.words
    assert "left out: gaussian, gmm" in page.words
    assert not page.all("table")


def test_damaged_files_do_not_hide_the_rest(digits, tmp_path):
    run = copied(digits, tmp_path)
    (run / "metrics.json").write_text('{"scores": [{"name": 1}]}')
    (run / "metrics.jsonl").write_text('{"epoch": 1}\n')
    page = report_on(run, to=tmp_path)
    assert "scores cannot be read" in page.words
    assert "No loss curves" in page.words
    assert len(page.all("img")) > 20
    (run / "model.safetensors").write_bytes(b"no weights")
    assert "cannot be drawn" in report_on(run, to=tmp_path).words


def test_data_that_have_changed_are_said(tmp_path):
    x = torch.rand(60, 5).numpy()
    np.save(tmp_path / "x.npy", x)
    expost.train("ae", tmp_path / "x.npy", tmp_path / "run", epochs=1, latent_dim=2, tensorboard=False)
    np.save(tmp_path / "x.npy", x + 1)
    assert "has changed since the run was started" in report_on(tmp_path / "run", to=tmp_path).words


def test_codes_of_symbols_have_a_map_and_samples(tmp_path):
    run = tmp_path / "vq"
    expost.train("vq-vae", "mnist-5k", run, epochs=1, width=2, limit=60, tensorboard=False, precision="float32")
    page = report_on(run, to=tmp_path)
    harmless(page)
    assert "expost fit" in page.words
    assert "--density autoregressive" in page.words
    assert "perplexity of the symbols" in page.words
    assert sum("map" in each["class"] for each in page.all("svg")) == 1
    assert len(page.all("img")) == 24 + 8
    expost.fit(run, "autoregressive", options={"width": 8, "depth": 1, "heads": 1, "steps": 5})
    page = report_on(run, to=tmp_path)
    harmless(page)
    assert "cannot be drawn" not in page.words
    assert "those of autoregressive are estimated from samples" in page.words
    assert sum("map" in each["class"] for each in page.all("svg")) == 1
    assert len(page.all("img")) > 24 + 8


def test_one_dimensional_codes_have_no_map(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(80, 3)).astype("float32"))
    for name, latent_dim in (("line", 1), ("plane", 2)):
        expost.train("rae", tmp_path / "x.npy", tmp_path / name, epochs=1, latent_dim=latent_dim, tensorboard=False)
        expost.fit(tmp_path / name, "gaussian")
    line, plane = (report_on(tmp_path / name, to=tmp_path) for name in ("line", "plane"))
    assert "codes of one dimension span no plane" in line.words
    assert sum("map" in each["class"] for each in plane.all("svg")) == 1
    assert "holds 100%" in plane.words


def test_own_networks_are_asked_for_and_used(tmp_path):
    def make():
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 8)), nn.Sequential(
            nn.Linear(3, 64), nn.Unflatten(1, (1, 8, 8))
        )

    expost.train("ae", "digits", tmp_path / "own", epochs=1, latent_dim=3, tensorboard=False, networks=make())
    assert "trained with your own networks" in report_on(tmp_path / "own", to=tmp_path).words
    opened = Run.open(tmp_path / "own", make())
    assert len(report_on(opened, to=tmp_path).all("img")) == 24 + 8


# safety


def test_names_cannot_inject_html(tmp_path):
    folder = tmp_path / HOSTILE_NAME
    folder.mkdir()
    np.save(folder / f"{HOSTILE_NAME}.npy", np.random.default_rng(0).integers(0, 255, (60, 1, 8, 8), dtype=np.uint8))
    run = folder / f"run {HOSTILE_NAME}"
    expost.train("rae", folder / f"{HOSTILE_NAME}.npy", run, epochs=1, latent_dim=3, tensorboard=False)
    expost.fit(run, "gaussian")
    shutil.copy(run / "densities" / "gaussian.safetensors", run / "densities" / f"{HOSTILE_NAME}.safetensors")
    opened = Run.open(run)
    fitted_on = {name: opened.weights_hash() for name in ("gaussian", HOSTILE_NAME)}
    (run / "densities" / "fitted_on.json").write_text(json.dumps(fitted_on))
    line = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(line.replace('"penalty"', json.dumps(HOSTILE)))
    card = {
        "model": opened.weights_hash(), "features": HOSTILE, "weights": "", "reference": HOSTILE, "reference_hash": "",
        "reference_count": 3, "count": 3, "preprocessing": {HOSTILE: HOSTILE}, "density": {HOSTILE: HOSTILE},
        "seed": 0, "version": HOSTILE, "settings": {HOSTILE: [HOSTILE]},
    }  # fmt: skip
    scores = [{"name": name, "of": HOSTILE, "value": 1.0, "card": card} for name in (HOSTILE, "fid")]
    (run / "metrics.json").write_text(json.dumps({"format": 1, "scores": scores}))
    second = shutil.copytree(run, tmp_path / "second")
    scores[1]["card"] = card | {"features": "other " + HOSTILE}
    (second / "metrics.json").write_text(json.dumps({"format": 1, "scores": scores}))
    for page in (report_on(run, to=tmp_path), report_on(run, second, to=tmp_path)):
        harmless(page)
        assert page.words.count(HOSTILE_NAME) > 10  # shown as it is, as text
        assert page.words.count(HOSTILE) > 10
        assert sum(each.get("src", "x").startswith("data:") for each in page.all("img")) == len(page.all("img")) > 10


def test_strings_cannot_inject_html(tmp_path):
    pieces = ["<b>", "<script>", "&amp;", '"x"', "'y'", "</td>", "</style>"]
    texts = {
        "".join(pieces[(i + j * k) % 7] for k in range(1 + i % 4)) + str(i * j) for i in range(12) for j in range(12)
    }
    (tmp_path / "texts.txt").write_text("\n".join(sorted(texts)))
    run = tmp_path / "texts"
    expost.train("ae", tmp_path / "texts.txt", run, epochs=1, codec="characters", latent_dim=4, tensorboard=False)
    expost.fit(run, "gaussian")
    page = report_on(run, to=tmp_path)
    harmless(page)
    assert not {"b"} & {tag for tag, _ in page.elements}
    assert any(text in page.words for text in texts if "<script>" in text)


def test_text_that_is_no_unicode_is_replaced():
    run = RunPage("bad \udcff name", "run-1", "", "", None, (Section("a", "A", (Note("\ud800"),)),))
    assert "bad ? name" in render(Page("x", (run,), "0", "now"))


# codes


def three_densities(z):
    return {
        "standard-normal": make_density("standard-normal").fit(z),
        "gaussian": make_density("gaussian").fit(z),
        "gmm": make_density("gmm", components=3).fit(z),
        "diag": make_density("gmm", components=2, covariance="diag").fit(z),
        "bayesian": make_density("bayesian-gmm", components=2).fit(z),
    }


@pytest.fixture(scope="module")
def codes():
    """Codes in three dimensions, in two unequal clusters."""
    source = torch.Generator().manual_seed(0)
    z = torch.randn(600, 3, generator=source) @ torch.tensor([[1.0, 0.4, 0.0], [0.0, 0.7, -0.3], [0.2, 0.0, 0.5]])
    z[:200] += torch.tensor([2.0, -1.0, 0.5])
    return z


@pytest.mark.parametrize("name", ["standard-normal", "gaussian", "gmm", "diag", "bayesian"])
def test_a_shadow_is_the_integral_of_the_density_along_the_axis_left_out(codes, name):
    density, plane = three_densities(codes)[name], Plane.of(codes)
    last = np.cross(plane.axes[:, 0], plane.axes[:, 1])
    points = np.array([[0.0, 0.0], [1.0, -0.5], [-1.5, 0.4]])
    values = shadow(density, plane).pdf(points)
    for point, value in zip(points, values, strict=True):

        def along(t, point=point):
            z = plane.mean + plane.axes @ point + t * last
            return float(density.log_prob(torch.from_numpy(z)[None]).exp())

        assert value == pytest.approx(quad(along, -12, 12, limit=200)[0], rel=1e-5)


def test_other_densities_are_estimated_from_samples(codes):
    density, plane = make_density("kde", bandwidth=0.4).fit(codes), Plane.of(codes)
    assert shadow(density, plane) is None
    found = surface(density, plane, (-6.0, 6.0), (-5.0, 5.0), seed=0)
    assert not found.exact
    area = (found.x[1] - found.x[0]) * (found.y[1] - found.y[0])
    assert found.values.sum() * area == pytest.approx(1, abs=0.01)
    points = plane.project(codes)
    spread = np.cov(points.T, bias=True) * (1 + 0.4**2)  # a kernel estimate's covariance
    x, y = np.meshgrid(found.x, found.y)
    mean_x, mean_y = ((found.values * each).sum() * area for each in (x, y))
    assert (mean_x, mean_y) == pytest.approx((0, 0), abs=0.05)
    assert (found.values * x**2).sum() * area == pytest.approx(spread[0, 0], rel=0.08)
    assert (found.values * x * y).sum() * area == pytest.approx(spread[0, 1], abs=0.08)


def test_contours_of_a_normal_are_circles_that_hold_their_mass():
    x = np.linspace(-5, 5, 401)
    values = np.exp(-0.5 * (x[:, None] ** 2 + x[None] ** 2)) / (2 * math.pi)
    found = Surface(x, x, values, True)
    for mass in (0.9, 0.5, 0.1):
        assert found.level(mass) == pytest.approx((1 - mass) / (2 * math.pi), rel=0.02)
    frame = svg.Frame((-5, 5), (-5, 5), 1000, 1000)
    lines = re.findall(r'class="contour" d="([^"]+)"', contours(found, frame))
    radii = []
    for line in lines:
        points = np.array(re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", line), dtype=float) / 100 - 5
        radius = np.hypot(points[:, 0], points[:, 1])
        assert radius.std() < 0.02
        radii.append(radius.mean())
    assert radii == pytest.approx([math.sqrt(-2 * math.log(1 - mass)) for mass in (0.9, 0.7, 0.5, 0.3, 0.1)], rel=0.02)
    assert len(re.findall('class="level"', contours(found, frame))) == 5
    small = Surface(x[190:211], x[190:211], values[190:211, 190:211], True)
    assert small.level(0.9) == 0.0  # the grid holds less


def test_the_plane_is_that_of_largest_variance(codes):
    plane = Plane.of(codes)
    assert plane.axes.T @ plane.axes == pytest.approx(np.eye(2), abs=1e-10)
    spectrum = np.linalg.eigvalsh(np.cov(codes.double().numpy().T))[::-1]
    assert plane.explained == pytest.approx(tuple(spectrum[:2] / spectrum.sum()))
    assert plane.project(codes).var(0, ddof=1) == pytest.approx(spectrum[:2])


def test_a_map_has_a_dot_an_example_in_the_color_of_its_label(codes):
    labels = torch.arange(600) % 3
    block = code_map(Codes(codes, labels.numpy()), {}, 0)[0]
    text = str(block.items[0].svg)
    assert [key.label for key in block.legend] == ["0", "1", "2"]
    for label in range(3):
        (path,) = re.findall(rf'class="dot c{label}" d="([^"]+)"', text)
        assert path.count("h0") == 200
    # to one scale: distances in the drawing are those in the plane, but for rounding
    (first,) = re.findall(r'class="dot c0" d="([^"]+)"', text)
    drawn = np.array(re.findall(r"M(-?[\d.]+) (-?[\d.]+)", first), dtype=float)
    points = Plane.of(codes).project(codes)[::3] * [1, -1]
    scale = np.linalg.norm(drawn[0] - drawn[50]) / np.linalg.norm(points[0] - points[50])
    assert drawn - drawn[0] == pytest.approx(scale * (points - points[0]), abs=0.2)


def test_many_labels_no_labels_and_many_dimensions_are_drawn(codes):
    many = code_map(Codes(codes, np.arange(600) % 40), {}, 0)[0]
    assert not many.legend
    assert str(many.items[0].svg).count("hsl(") == 40
    assert "of which there are 40" in many.caption
    wide = torch.randn(50, 3000, generator=torch.Generator().manual_seed(0))
    assert str(code_map(Codes(wide, None), {}, 0)[0].items[0].svg).count("h0") == 50
    huge = make_density("reduced", rank=4, base="gaussian").fit(wide)
    assert "estimated from samples" in code_map(Codes(wide, None), {"reduced": huge}, 0)[0].caption


def test_codes_without_a_map_are_refused(codes):
    for z, words in ((torch.zeros(9, 3), "codes are equal"), (codes / 0, "finite"), (codes[:, :1], "one dimension")):
        with pytest.raises(DataError, match=words):
            Plane.of(z)
    other = make_density("gaussian").fit(codes[:, :2])
    with pytest.raises((DataError, ValueError)):
        surface(other, Plane.of(codes), (-1, 1), (-1, 1), 0)


# examples


def opened(item):
    return Image.open(BytesIO(base64.b64decode(item.source.partition(",")[2])))


def test_small_images_are_shown_pixel_by_pixel():
    images = torch.randint(0, 256, (5, 1, 32, 20), dtype=torch.uint8)
    item = tiles(images, 3, "five images")
    picture = np.asarray(opened(item).convert("LA"))
    assert item.pixelated
    assert picture.shape == (2 * 33 - 1, 3 * 21 - 1, 2)
    for index, image in enumerate(images):
        top, left = 33 * (index // 3), 21 * (index % 3)
        assert (picture[top : top + 32, left : left + 20, 0] == image[0].numpy()).all()
    assert (picture[:32, 20, 1] == 0).all()  # gaps are transparent
    assert (item.width, item.height) == (picture.shape[1] * 2, picture.shape[0] * 2)


def test_large_images_are_brought_to_the_size_of_a_tile():
    images = torch.rand(4, 3, 300, 200, generator=torch.Generator().manual_seed(0))
    item = tiles(images, 2, "four images")
    assert opened(item).size == (2 * 64 + 3, 2 * 96 + 3)  # 3 of 96 pixels make 2 of 56
    assert not item.pixelated
    assert item.source.startswith("data:image/webp")
    assert len(tiles(images[:, :2].repeat(1, 4, 1, 1), 2, "eight channels").source) > 1000


def test_images_are_drawn_at_the_scale_that_is_asked_for():
    for side, scale in ((8, 1), (8, 5), (28, 3), (128, 1), (128, 2)):
        picture = tiles(torch.rand(3, 3, side, side), 1, "three", scale=scale)
        assert picture.width == side * scale
        assert picture.pixelated
        assert picture.height >= 3 * side * scale
        found = Image.open(BytesIO(base64.b64decode(picture.source.partition(",")[2])))
        assert found.width % side == 0  # nothing is resampled
    assert tiles(torch.rand(1, 3, 128, 128), 1, "one").width < 128


def test_a_pair_is_one_above_the_other():
    first, second = torch.zeros(3, 32, 32, dtype=torch.uint8), torch.full((3, 32, 32), 200, dtype=torch.uint8)
    picture = np.asarray(opened(stack(first, second, "a pair")).convert("RGBA"))
    assert (picture[:32, :, :3] == 0).all()
    assert (picture[-32:, :, :3] == 200).all()


def test_nearest_training_examples_are_the_nearest_of_all(digits, monkeypatch):
    monkeypatch.setattr(pool_module, "BLOCK_ELEMENTS", 100 * 64)
    run = Run.open(digits)
    subject = Subject(run, run.data(), run.generator("cpu"), 0)
    train = subject.data.train.x
    queries = torch.cat([train[[1400, 3]].float() / 255, subject.data.test.x[:20].float() / 255])
    distances, indices = subject.nearest_training(queries)
    all_of_them = torch.cdist(queries.flatten(1).double(), train.flatten(1).double() / 255)
    assert distances == pytest.approx(all_of_them.min(1).values, abs=1e-6)
    assert indices.tolist() == all_of_them.argmin(1).tolist()
    assert (distances[:2] < 1e-6).all()


def test_edit_distances_are_levenshteins():
    random = np.random.default_rng(0)
    words = ["".join(random.choice(list("abCé"), size=size)) for size in random.integers(0, 12, 60)]
    for query in [*words[:15], ""]:
        expected = [edit_distance(query, word) for word in words]
        assert edit_distances(query, words).tolist() == expected


# strings


@pytest.fixture(scope="module")
def expressions(tmp_path_factory):
    """A run on expressions, with a density."""
    folder = tmp_path_factory.mktemp("runs") / "expressions"
    expost.train("grae", "expressions", folder, epochs=3, limit=400, width=16, latent_dim=8, tensorboard=False)
    expost.fit(folder, "gmm", components=2)
    return folder


def test_expressions_are_listed_scored_and_plotted(expressions, tmp_path):
    page = report_on(expressions, to=tmp_path)
    harmless(page)
    run = Run.open(expressions)
    data = run.data()
    test = data.codec.decode(data.test.x[data.test.spread(12)])
    assert test[-1] == data.codec.decode(data.test.x[-1:])[0]  # from all over the part
    assert all(text in page.words for text in test)
    assert "Of 200 samples" in page.words
    curves = [each["aria-label"] for each in page.all("svg") if each["aria-label"].startswith("Curve of")]
    samples = run.string_generator("cpu").sample(200, "gmm")  # an evaluation's and this report's samples are the same
    valid = list(dict.fromkeys(text for text in samples if text is not None))
    assert len(curves) == min(12, len(valid)) > 0
    assert all(f"Curve of {text} for x" in curves[index] for index, text in enumerate(valid[:12]))
    assert "nearest training string" in page.words


def test_searches_are_listed_with_their_best_and_their_picture(expressions, tmp_path):
    folder = tmp_path / "searched"
    shutil.copytree(expressions, folder)
    assert "Searches" not in report_on(folder, to=tmp_path).words
    found = expost.optimize(folder, rounds=2, batch=3, decodes=2, inducing=8, codes=40)
    page = report_on(folder, to=tmp_path)
    harmless(page)
    assert f"6 points in 2 rounds, {found.valid:.1%} valid" in page.words
    assert found.best(1)
    for item in found.best(10):
        assert item.string in page.words
        assert f"{item.score:.5g}" in page.words
    assert [each for each in page.all("img") if each["alt"] == "What expression-density-0 found, drawn"]
    (folder / "search" / "expression-density-0" / "search.json").write_text("{}")
    assert "A search cannot be read" in report_on(folder, to=tmp_path).words


def test_a_curve_off_the_scale_is_said():
    assert "off the scale" in draw_expression("exp(3*3)")
    assert "off the scale" in draw_expression("x/(1*exp(x)*exp(exp(x*x)))/(x/x)*exp(3)*exp(3)+exp(3*3)")
    assert "off the scale" not in draw_expression("sin(x)")
    assert draw_expression("sin(") is None


def test_molecules_are_drawn_in_the_colors_of_the_page():
    pytest.importorskip("rdkit")
    drawn = str(draw_molecule("c1ccccc1O"))
    root = ElementTree.fromstring(drawn)
    assert root.get("aria-label") == "Structural formula of c1ccccc1O"
    assert {each.tag for each in root} == {"path"}
    styles = [each.get("style") for each in root]
    assert any("currentColor" in each for each in styles)
    assert any("#e5484d" in each for each in styles)  # oxygen
    assert not any("#010203" in each or "#000000" in each for each in styles)
    assert draw_molecule("c1cccc") is None


def test_molecules_are_on_the_page(tmp_path):
    pytest.importorskip("rdkit")
    run = tmp_path / "drugs"
    expost.train("character-vae", "drugs", run, epochs=1, limit=40, width=8, latent_dim=4, tensorboard=False)
    expost.fit(run, "standard-normal")
    page = report_on(run, to=tmp_path)
    harmless(page)
    assert "Of 200 samples" in page.words
    assert "test string" in page.words


# losses


def record(epoch, train, validation, lr=0.1):
    values = {"epoch": epoch, "step": epoch, "lr": lr, "seconds": epoch}
    return json.dumps(values | {"train": {"total": train, "penalty": 0.0}, "validation": {"total": validation}})


def test_loss_curves_show_every_term_that_the_model_has(tmp_path):
    lines = [record(1, 9, 8), record(2, 7, 5), record(2, 6, 4), record(3, 5, 6, lr=0.05)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    assert History.read(tmp_path / "metrics.jsonl").best is None
    write_tensors(tmp_path / "model.safetensors", {"w": torch.zeros(1)}, {"epoch": 2})
    history = History.read(tmp_path / "metrics.jsonl")
    assert history.column("train", "total") == [9, 6, 5]  # an epoch that was done again counts once
    assert history.best == 2
    assert history.cuts == [3]
    (block,) = loss_curves(history)
    assert [item.title for item in block.items] == ["objective"]  # the penalty is zero throughout: no term of the model
    assert "before epoch 3" in block.caption
    assert str(block.items[0].svg).count('class="line') == 2


def test_a_chart_draws_its_values_where_they_belong():
    chart = ElementTree.fromstring(
        str(svg.line_chart([svg.Line([1, 2, 3], [0.0, 10.0, 5.0], "train")], "a chart", "x"))
    )
    (line,) = [each for each in chart if each.get("class") == "line train"]
    points = np.array(re.findall(r"[ML]([\d.]+) ([\d.]+)", line.get("d")), dtype=float)
    labels = {each.text: float(each.get("y")) - 4 for each in chart if each.get("text-anchor") == "end"}
    assert labels["10"] == pytest.approx(points[1, 1], abs=0.1)
    assert labels["0"] == pytest.approx(points[0, 1], abs=0.1)
    assert points[2, 1] == pytest.approx((points[0, 1] + points[1, 1]) / 2, abs=0.1)
    assert np.diff(points[:, 0]) == pytest.approx(points[1, 0] - points[0, 0], abs=0.11)


def test_a_chart_of_values_that_span_orders_is_logarithmic():
    text = str(svg.line_chart([svg.Line([1, 2, 3], [1.0, 10.0, 100.0], "train")], "a chart", "x"))
    points = np.array(re.findall(r"[ML]([\d.]+) ([\d.]+)", re.search(r'line train" d="([^"]+)', text)[1]), dtype=float)
    assert np.diff(points[:, 1])[0] == pytest.approx(np.diff(points[:, 1])[1], abs=0.2)


def test_charts_bear_odd_values():
    for values in ([math.nan, math.inf], [1.0], [3.0, 3.0], [-1e300, 1e300], [0.0, 0.0]):
        text = str(svg.line_chart([svg.Line(range(1, len(values) + 1), values, "train")], "odd", "x"))
        ElementTree.fromstring(text)
        assert "nan" not in text
        assert "inf" not in text


# ranking

CARD = Card("m", "digits", "w", "mnist test", "h", 100, 100, {}, {}, 0, "1", {})


def scored(name, of, value, card=CARD):
    return Score(name, of, value, card)


def table(section, index=0):
    blocks = [block for block in section.blocks if block.kind == "table"]
    return [[cell.text for cell in row] for row in blocks[index].rows], blocks[index]


def test_a_kernel_distance_below_0_is_explained_where_there_is_one(tmp_path):
    note = score_blocks([scored("kid", "gmm", -0.1), scored("mse", "gmm", 1.0)], tmp_path)[0].note
    assert "the estimate may be negative" in note
    for name, value in (("kernel-distance", 0.001), ("copying", -2.0)):
        assert "below" not in score_blocks([scored(name, "gmm", value)], tmp_path)[0].note
    _, ranked = table(ranking({"a": [scored("kid", "gmm", -0.1)], "b": [scored("kid", "gmm", 0.1)]}, {}))
    assert "the estimate may be negative" in ranked.note


def test_the_coverage_of_perfect_samples_stands_below_the_table(tmp_path):
    card = replace(CARD, reference_count=2, count=1, settings={"neighbours": 1})
    note = score_blocks([scored("coverage", "gmm", 0.4, card)], tmp_path)[0].note
    assert "have a coverage of 0.500 on average" in note
    assert "coverage" not in score_blocks([scored("recall", "gmm", 0.4, card)], tmp_path)[0].note


def test_runs_are_ranked_best_first_with_shared_places():
    runs = {
        "a": [scored("fid", "gmm", 3.0), scored("recall", "gmm", 0.5)],
        "b": [scored("fid", "gmm", 1.0), scored("recall", "gmm", 0.7)],
        "c": [scored("fid", "gmm", 1.0), scored("recall", "gmm", 0.9)],
    }
    section = ranking(runs, dict.fromkeys(runs))
    rows, first = table(section)
    assert first.head == ("run", "gmm, fid ↓")
    assert "may be chance" in first.note  # no score has an interval
    assert [row[0] for row in rows] == ["b", "c", "a"]
    assert [row[1].detail for row in first.rows] == ["#1=", "#1=", "#3"]
    rows, every = table(section, 1)
    assert [row[0] for row in rows] == ["fid ↓", "recall ↑"]
    assert [cell.detail for cell in every.rows[1][1:]] == ["#3", "#2", "#1"]


def test_runs_whose_difference_may_be_chance_share_a_place():
    def places(*ends):
        runs = {name: [Score("fid", "gmm", (low + high) / 2, CARD, interval=(low, high))]
                for name, (low, high) in zip("abc", ends, strict=True)}  # fmt: skip
        return {row[0].text: row[1].detail for row in table(ranking(runs, {}))[1].rows}

    assert places((1, 2), (1.2, 2.6), (4, 5)) == {"a": "[1, 2] #1=", "b": "[1.2, 2.6] #1=", "c": "[4, 5] #3"}
    assert places((1, 2), (2.1, 3), (4, 5)) == {"a": "[1, 2] #1", "b": "[2.1, 3] #2", "c": "[4, 5] #3"}
    _, block = table(
        ranking({"a": [Score("fid", "gmm", 1.0, CARD, 0.1)], "b": [Score("fid", "gmm", 2.0, CARD, 0.1)]}, {})
    )
    assert [row[1].detail for row in block.rows] == ["[0.804, 1.2] #1", "[1.8, 2.2] #2"]
    assert "may be chance" not in block.note


def test_scores_with_intervals_go_before_those_without():
    runs = {
        name: [scored("fid", "gmm", value), Score("kid", "gmm", value / 100, CARD, 0.001)]
        for name, value in (("a", 1.0), ("b", 2.0))
    }
    _, block = table(ranking(runs, {}))
    assert block.head == ("run", "gmm, kid ↓")


def test_unlike_protocols_are_not_ranked_and_the_reason_is_said():
    other = replace(CARD, seed=1)
    runs = {"a": [scored("fid", "gmm", 3.0)], "b": [scored("fid", "gmm", 1.0, other)]}
    section = ranking(runs, dict.fromkeys(runs))
    assert not [block for block in section.blocks if block.kind == "table"]
    (note,) = section.blocks
    assert "differ: fid. " in note.text
    assert "Of b, protocols differ in seed (1 against 0)" in note.text


def test_own_densities_compare_and_what_means_nothing_across_models_does_not():
    names = ("mse", "log-likelihood", "copying")
    runs = {
        "rae": [scored(name, "gaussian", 1.0) for name in names] + [scored("active-units", "codes", 5.0)],
        "vae": [scored(name, "standard-normal", 2.0) for name in names] + [scored("active-units", "codes", 4.0)],
        "new": [],
    }
    section = ranking(runs, {"rae": "gaussian", "vae": "standard-normal", "new": None})
    assert "not ranked: new" in section.blocks[0].text
    rows, block = table(section)
    assert block.head == ("run", "own density, mse ↓")
    assert rows == [["rae", "1"], ["vae", "2"], ["new", "–"]]


def test_a_score_has_an_arrow_in_its_direction():
    arrows = {"psnr": "↑", "unique-valid": "↑", "fid": "↓", "truncated": "↓", "copying": "", "unknown": ""}
    assert {name: name_cell(name).detail for name in arrows} == arrows


def test_cards_say_once_what_scores_share():
    path = replace(CARD, settings={"k": 5, "path": "linear"})
    gmm = replace(CARD, settings={"k": 5}, density={"name": "gmm", "components": 10})
    scores = [
        scored("recall", "gmm", 1.0, gmm),
        scored("recall", "interpolation", 1.0, path),
        scored("mse", "gmm", 1.0, gmm),
    ]
    cards = {card.title: dict(card.fields) for card in protocol_cards(scores).items}
    assert cards["All scores"]["reference"] == "mnist test"
    assert cards["recall, mse — of gmm, interpolation"] == {"settings": "k 5"}
    assert cards["What was scored"] == {"gmm": "name gmm, components 10", "interpolation": "path linear"}


def test_several_runs_are_on_one_page(digits, tmp_path):
    other = copied(digits, tmp_path, "other")
    page = report_on(digits, other, to=tmp_path)
    harmless(page)
    ids = [each["id"] for _, each in page.elements if "id" in each]
    assert len(set(ids)) == len(ids)
    assert {each["href"][1:] for each in page.all("a") if each["href"].startswith("#")} <= set(ids)
    assert "Runs in the order of" in page.words
    clone = copied(digits, tmp_path / "deeper", "other")
    page = report_on(other, clone, to=tmp_path)
    assert "deeper/other" in page.words  # two runs of one name are told apart by folders above
    assert str(clone) not in page.words


def test_runs_stand_side_by_side_before_the_long_sections(digits, tmp_path):
    other = copied(digits, tmp_path, "other")
    shutil.rmtree(other / "densities")
    path = report((digits, other), tmp_path / "report.html")
    text = path.read_text()
    first = text[text.index('id="ranking"') : text.index('id="run-1"')]
    strips = re.search('<ul class="strips">(.*?)</ul>', first, re.DOTALL)[1]
    labels = re.findall('class="label">(.*?)</span>', strips)
    assert labels == ["test images", "digits, reconstructed", "other, reconstructed", "digits, sampled from gmm"]
    sources = re.findall('src="(.*?)"', strips)
    assert sources[1] == sources[2] != sources[0]  # of the same weights, on the same test images
    x = Run.open(digits).data().test.x[:12]
    drawn = np.asarray(Image.open(BytesIO(base64.b64decode(sources[0].partition(",")[2]))).convert("L"))
    scale = drawn.shape[0] // 8
    assert np.array_equal(drawn[::scale, : 8 * scale : scale], x[0, 0].numpy())
    assert "there are no samples of: other" in first
    sentences = dict(re.findall("<dt>(.*?)</dt><dd>(.*?)</dd>", re.search('<dl class="verdicts">(.*?)</dl>', first)[1]))
    assert list(sentences) == ["digits", "other"]
    assert all(sentence.startswith("Reconstructs ") for sentence in sentences.values())
    assert first.index("Runs in the order of") < first.index("verdicts") < first.index("strips")  # scores first


def test_runs_on_other_data_stand_in_rows_of_their_own(digits, expressions, tmp_path):
    page = report_on(digits, expressions, to=tmp_path)
    harmless(page)
    text = (tmp_path / "report.html").read_text()
    first = text[text.index('id="ranking"') : text.index('id="run-1"')]
    assert first.count('class="strips"') == 1
    assert "expressions side by side" in first
    data = Run.open(expressions).data()
    strings = data.codec.decode(data.test.x[data.test.spread(3)])
    assert all(f'<td class="code">{text.replace("&", "&amp;")}</td>' in first for text in strings)


def test_the_path_of_data_is_not_on_the_page(tmp_path):
    place = tmp_path / "home of somebody" / "secrets"
    place.mkdir(parents=True)
    (place / "rows.csv").write_text("a,b\n" + "\n".join(f"{i},{i * i % 7}" for i in range(60)))
    np.save(place / "photos.npy", np.random.default_rng(0).integers(0, 255, (60, 1, 8, 8), dtype=np.uint8))
    for name in ("rows.csv", "photos.npy"):
        run = tmp_path / f"run-{name[:4]}"
        expost.train("rae", place / name, run, epochs=1, latent_dim=2, tensorboard=False)
        expost.evaluate(run, ("gaussian",), ("kid",))
        text = report((run,), tmp_path / "page.html").read_text()
        assert "secrets" not in text
        assert f"{name} test" in text  # the reference of the protocol
        if name == "rows.csv":
            (place / name).write_text("a,b\n1,2\n3,4\n5,6\n7,8\n9,10\n")  # it has changed: the error names the file
            text = report((run,), tmp_path / "page.html").read_text()
            assert "has changed since the run was started" in text
            assert "secrets" not in text
