"""What leaves the machine names no folder of it: all bytes of pages, cards, exports, published folders are searched."""

from __future__ import annotations

import base64
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torture import count, times

import expost
from expost.commands.publishing import export
from expost.commands.reporting import report
from expost.commands.showing import panel, sample

pytest.importorskip("huggingface_hub", reason="publishing needs the extra: pip install 'expost[hub]'")
pytestmark = pytest.mark.usefixtures("one_thread")

#: The name of a home folder that can be nowhere by chance.
TELLTALE = "telltale-jane-doe"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder, in which everything lies."""
    folder = tmp_path / TELLTALE
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


def images(home: Path) -> dict:
    draw = np.random.default_rng(0)
    for part, number in (("first", 40), ("second", 30)):
        for name in ("cats", "dogs"):
            (home / "private" / part / name).mkdir(parents=True)
            for index in range(number):
                pixels = draw.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(home / "private" / part / name / f"{index}.png")
    places = (f"train={home / 'private' / 'first'}", f"test={home / 'private' / 'second'}")
    return {"data": str(home / "private"), "parts": places, "width": 16}


def table(home: Path) -> dict:
    rows = np.random.default_rng(0).normal(size=(120, 3))
    lines = ["height,weight,age", *(",".join(f"{value:.4f}" for value in row) for row in rows)]
    (home / "private").mkdir()
    (home / "private" / "patients.csv").write_text("\n".join(lines))
    return {"data": str(home / "private" / "patients.csv")}


def strings(home: Path) -> dict:
    (home / "private").mkdir()
    texts = [f"{'ab' * (1 + index % 4)}{'c' * (index % 5)}{index % 7}" for index in range(120)]
    (home / "private" / "words.txt").write_text("\n".join(dict.fromkeys(texts * 2)) + "\n")
    return {"data": str(home / "private" / "words.txt"), "model": "character-vae", "width": 16}


def traces(path: Path, words: list[bytes]) -> list[str]:
    """Return where one of some words is in a file, or in a file or a picture inside it."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            contents = {f"{path.name}/{name}": archive.read(name) for name in archive.namelist()}
    else:
        contents = {path.name: path.read_bytes()}
    for name, content in list(contents.items()):
        for index, inner in enumerate(re.findall(rb"base64,([A-Za-z0-9+/=]{40,})", content)):
            contents[f"{name}/picture {index}"] = base64.b64decode(inner)
    found = []
    for name, content in contents.items():
        for word in words:
            at = content.find(word)
            if at >= 0:
                found.append(f"{name}: ...{content[max(0, at - 80) : at + 80]!r}...")
    return found


SHORT = [(images, False), (table, True), (strings, False)]
LONG = [*SHORT, (images, True), (table, False), (strings, True)]


@pytest.mark.parametrize(("kind", "relative"), LONG[: times(len(SHORT), len(LONG))])
def test_nothing_that_is_published_names_a_folder_of_this_machine(kind, relative, home, tmp_path, monkeypatch):
    options = kind(home)
    data, model = options.pop("data"), options.pop("model", "rae")
    runs = [home / "runs" / "one", home / "runs" / "two"]
    if relative:  # as seen from elsewhere, so that the way there leads through the home folder
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        data = data.replace(str(tmp_path), "..")
        options |= {"parts": ("train=first", "test=second")} if kind is images else {}
        runs = [Path("..") / run.relative_to(tmp_path) for run in runs]
    for seed, run in enumerate(runs):
        expost.train(model, data, run, epochs=1, latent_dim=2, seed=seed, tensorboard=False, **options)
    run = runs[0]
    expost.fit(run, "gaussian")
    if kind is not strings:
        expost.evaluate(run, ("gaussian",), samples=40)
    out = tmp_path / "published"
    out.mkdir()
    report((run,), out / "one.html")  # the other has neither densities nor scores: the page says what to run
    report(tuple(runs), out / "both.html")
    panel(run, out / "panel.svg")
    sample(run, 4, out / f"samples{'.svg' if kind is images else '.csv'}")
    expost.save_pretrained(run, out / "hub")
    if kind is not strings:
        export(run, out / "onnx")
    files = [path for path in out.rglob("*") if path.is_file()]
    metrics = run / "metrics.json"  # which people pass on as it is
    files += [metrics] if metrics.exists() else []
    assert len(files) > 8
    words = [TELLTALE.encode(), str(tmp_path).encode()]
    found = {str(path): said for path in files if (said := traces(path, words))}
    count("published files: no folder of the machine is named", len(files), len(found))
    assert not found
