"""Tables on the report: rows under the names of their columns, histograms, correlations, a file; signals with axes."""

import base64
import csv
import io
import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp

import expost
from expost.commands.reporting import report
from expost.report import svg, vectors
from expost.report.blocks import rounded
from expost.report.files import csv_file
from expost.report.subject import Subject
from expost.report.vectors import COLUMNS, LONGEST_ROW, columns, correlations, marginal
from expost.run import Run

NAMES = ("age", "income, in $", "<b>rooms</b>", "constant")


def drawn_columns(subject) -> list[Any]:
    return list(columns(subject))


def table(count, seed=0):
    random = np.random.default_rng(seed)
    age = random.normal(40, 12, count)
    return np.stack([age, 900 * age + random.normal(0, 9_000, count), random.integers(1, 7, count), np.ones(count)], 1)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on a table of four named columns."""
    folder = tmp_path_factory.mktemp("table")
    with (folder / "people.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([NAMES, *table(300).tolist()])
    expost.train("rae", folder / "people.csv", folder / "run", epochs=5, latent_dim=2, tensorboard=False)
    expost.fit(folder / "run", "gaussian")
    expost.fit(folder / "run", "gmm", components=2)
    return folder / "run"


@pytest.fixture(scope="module")
def subject(run):
    opened = Run.open(run)
    return Subject(opened, opened.data(), opened.generator("cpu"), 0)


@pytest.fixture(scope="module")
def page(run, tmp_path_factory):
    return report((run,), tmp_path_factory.mktemp("page") / "report.html").read_text()


def test_rows_stand_under_the_names_of_their_columns(page, subject):
    heads = re.findall("<thead><tr>(.*?)</tr></thead>", page)
    named = [re.findall('<th scope="col">(.*?)</th>', head) for head in heads]
    escaped = ["", "age", "income, in $", "&lt;b&gt;rooms&lt;/b&gt;", "constant"]
    assert named.count(escaped) >= 5  # reconstructions, samples of two densities, neighbours, paths
    for value in subject.data.test.x[0].tolist():
        assert f">{rounded(value, 4)}" in page
    assert "chart spark" not in page
    assert "polyline" not in page


def test_marginals_are_numpys_histograms():
    random = np.random.default_rng(1)
    real, back, drawn = random.normal(size=500), random.normal(0.5, 2, 400), random.normal(-1, 1, 1_000)
    found = marginal(real, [back, drawn], bins=15)
    assert len(found.edges) == 16
    assert found.edges[0] <= real.min()
    assert found.edges[-1] >= real.max()
    for values, shares in zip((real, back, drawn), found.shares, strict=True):
        assert shares == pytest.approx(np.histogram(values, found.edges)[0] / len(values))
        assert shares.sum() >= 0.979
    assert found.shares[0].sum() == pytest.approx(1)
    flat = marginal(np.full(9, 3.0), [np.full(5, 3.0)])
    assert flat.shares[0].max() == flat.shares[1].max() == 1


def test_an_outlier_of_samples_does_not_flatten_a_histogram():
    real = np.linspace(0, 1, 300)
    wild = np.append(np.linspace(0, 1, 499), 1e9)
    assert marginal(real, [wild]).edges[-1] < 1.1


def test_every_column_has_its_histograms_drawn(subject):
    block = drawn_columns(subject)[0]
    assert [item.title for item in block.items] == list(NAMES)
    data = subject.data
    real = torch.cat([data.train.x, data.validation.x, data.test.x])  # 30 test rows are too few for a histogram
    assert block.legend[0].label == "real: 300 rows of all parts, training rows too"
    drawn = subject.sample(1_000, subject.density)
    back = subject.generator.reconstruct(real)
    for index, item in enumerate(block.items):
        values = [each[:, index].double().numpy() for each in (real, back, drawn)]
        found = marginal(values[0], values[1:])
        series = [(100 * shares, style) for shares, style in zip(found.shares, ("data", "second", "made"), strict=True)]
        assert item.svg == svg.step_chart(found.edges, series, ElementTree.fromstring(item.svg).get("aria-label"))
        distances = [ks_2samp(values[0], each).statistic for each in values[1:]]
        assert item.caption == f"reconstructed {distances[0]:.2f}, {subject.density} {distances[1]:.2f}"


def test_a_histogram_is_as_high_as_its_shares():
    root = ElementTree.fromstring(svg.step_chart([0, 1, 2], [([20.0, 40.0], "data"), ([60.0, 0.0], "made")], "a chart"))
    area, line = (each for each in root if (each.get("class") or "").startswith(("area", "line")))
    ticks = {each.text: float(each.get("y")) - 4 for each in root if each.get("text-anchor") == "end"}

    def heights(element):
        points = np.array(re.findall(r"[ML]([\d.]+) ([\d.]+)", element.get("d")), dtype=float)
        return points[1:-1:2, 1]

    assert heights(area)[:2] == pytest.approx([ticks["20"], ticks["40"]], abs=0.2)
    assert heights(line)[:2] == pytest.approx([ticks["60"], ticks["0"]], abs=0.2)


def test_with_enough_test_rows_only_they_are_counted(tmp_path):
    np.save(tmp_path / "x.npy", table(2_100)[:, :3].astype("float32"))
    expost.train("rae", tmp_path / "x.npy", tmp_path / "run", epochs=1, latent_dim=2, tensorboard=False)
    opened = Run.open(tmp_path / "run")
    count = len(opened.data().test)
    assert count >= 200
    blocks = drawn_columns(Subject(opened, opened.data(), opened.generator("cpu"), 0))
    assert blocks[0].legend[0].label == f"real: {count} test rows"
    assert [key.label for key in blocks[0].legend[1:]] == ["their reconstructions"]  # no density is fitted
    assert [item.title for item in blocks[0].items] == ["x0", "x1", "x2"]


def test_correlations_are_numpys_and_their_picture_says_so(subject):
    x = table(300)
    found = correlations(x)
    assert found[:3, :3] == pytest.approx(np.corrcoef(x[:, :3], rowvar=False))
    assert np.isnan(found[3]).all()
    drawn = ElementTree.fromstring(svg.matrix(found, NAMES, "correlations"))
    cells = [each for each in drawn if each.tag == "rect" and each.get("class") != "frame"]
    assert len(cells) == 9  # the constant column has none
    titles = {each[0].text: each for each in cells}
    strong = titles[f"age, income, in $: {found[0, 1]:.2f}"]
    assert strong.get("class") == "positive"
    assert float(strong.get("fill-opacity")) == pytest.approx(abs(found[0, 1]), abs=0.006)
    weak = next(each for title, each in titles.items() if title.startswith("age, <b>rooms"))
    assert weak.get("class") == ("positive" if found[0, 2] >= 0 else "negative")
    block = drawn_columns(subject)[2]
    assert [item.title for item in block.items] == ["real", "reconstructed", "gaussian", "gmm"]
    sampled = correlations(subject.sample(1_000, "gmm").double().numpy())
    data = subject.data
    truth = correlations(torch.cat([data.train.x, data.validation.x, data.test.x]).double().numpy())
    gaps = np.abs(sampled - truth)[~np.eye(4, dtype=bool)]
    assert block.items[3].caption == f"{np.nanmean(gaps):.2f} from the real ones, on average"


def test_the_samples_shown_can_be_saved_as_csv(page, subject):
    links = dict(re.findall(r'<a href="(data:text/csv[^"]+)" download="([^"]+)">', page))
    files = {name: base64.b64decode(address.partition(",")[2]).decode() for address, name in links.items()}
    assert set(files) == {"samples-gaussian.csv", "samples-gmm.csv"}
    head, *rows = csv.reader(io.StringIO(files["samples-gmm.csv"]))
    assert tuple(head) == NAMES
    drawn = subject.sample(1_000, "gmm")
    assert np.array(rows, dtype="float32") == pytest.approx(drawn.numpy())
    for value in drawn[0].tolist():  # the first is in the table
        assert f">{rounded(value, 4)}" in page


def test_names_of_files_are_made_safe():
    link = csv_file("samples-<b>/../x.csv", ["a"], [], "x")
    assert link.name == "samples--b-..-x.csv"


def test_wide_tables_show_the_columns_that_are_farthest(tmp_path):
    names = [f"gene {index}" for index in range(40)]
    rows = np.random.default_rng(0).normal(size=(150, 40)) * np.linspace(1, 3, 40)
    text = "\n".join([",".join(names), *(",".join(f"{value:.5g}" for value in row) for row in rows)])
    (tmp_path / "genes.csv").write_text(text)
    expost.train("rae", tmp_path / "genes.csv", tmp_path / "run", epochs=1, latent_dim=2, tensorboard=False)
    expost.fit(tmp_path / "run", "gaussian")
    opened = Run.open(tmp_path / "run")
    subject = Subject(opened, opened.data(), opened.generator("cpu"), 0)
    blocks = drawn_columns(subject)
    data = opened.data()
    real = torch.cat([data.train.x, data.validation.x, data.test.x]).numpy()
    drawn = subject.sample(1_000, "gaussian").numpy()
    distances = [ks_2samp(real[:, index], drawn[:, index]).statistic for index in range(40)]
    farthest = sorted(np.argsort(-np.array(distances), kind="stable")[:COLUMNS].tolist())
    assert [item.title for item in blocks[0].items] == [names[index] for index in farthest]
    assert f"Of 40 columns, the {COLUMNS} whose samples are farthest" in blocks[0].caption
    shown: Any = vectors.reconstructions(subject)[0]
    assert len(shown.head) == 1 + COLUMNS
    assert f"The first {COLUMNS} of 40 columns" in shown.note


def test_long_rows_without_names_are_curves_with_axes(tmp_path):
    x = np.sin(np.linspace(0, 6, LONGEST_ROW + 1)) + np.random.default_rng(0).normal(size=(80, LONGEST_ROW + 1)) / 5
    np.save(tmp_path / "x.npy", x.astype("float32"))
    expost.train("rae", tmp_path / "x.npy", tmp_path / "run", epochs=1, latent_dim=2, tensorboard=False)
    expost.fit(tmp_path / "run", "gaussian")
    page = report((tmp_path / "run",), tmp_path / "page.html").read_text()
    curves = re.findall(r"<svg[^>]*Test vector.*?</svg>", page, re.DOTALL)
    assert len(curves) == 8
    for curve in curves:
        texts = [each.text for each in ElementTree.fromstring(curve) if each.tag == "text"]
        assert "entry" in texts
        assert len(texts) > 5  # numbers on both axes
    assert "test vector 0" in page
    assert "chart spark" not in page
    assert "drawn as curves" in page
