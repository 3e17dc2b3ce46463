"""Pictures: what is drawn, where, how large, and in which formats."""

import base64
import csv
import re
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

import expost
from expost.commands.reporting import report
from expost.errors import UsageError
from expost.examples import lettering
from expost.examples.figure_files import as_svg, rasterized
from expost.examples.figures import INK, Bar, Look, Sheet, Text, Tile
from expost.examples.histograms import edges_of, marginal
from expost.examples.outputs import write_table, write_vectors
from expost.examples.pictures import as_images, figure, save_picture

SVG = "{http://www.w3.org/2000/svg}"


def texts(path):
    """Return the texts of an SVG with the positions of their ends."""
    root = ElementTree.parse(path).getroot()
    return {each.text: each for each in root.iter(f"{SVG}text")}


def size_of_svg(path):
    root = ElementTree.parse(path).getroot()
    return int(root.get("width")), int(root.get("height"))


def page_of_pdf(path):
    """Return the size of a PDF's only page, in points."""
    content = Path(path).read_bytes()
    assert content.startswith(b"%PDF-")
    assert content.rstrip().endswith(b"%%EOF")
    assert len(re.findall(rb"/Type /Page\b", content)) == 1
    box = re.search(rb"/MediaBox \[ ([\d. ]+) \]", content)[1].split()
    return tuple(map(float, box[2:]))


def cells(path):
    """Return the rows of a CSV."""
    return list(csv.reader(Path(path).read_text(encoding="utf-8").splitlines()))


def dark(picture):
    """Return where a picture is darker than its sheet."""
    return np.asarray(picture.convert("L")) < 200


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A run on tiny images with labels, and densities, also by label."""
    folder = tmp_path_factory.mktemp("images")
    run = expost.train("ae", "digits", folder / "run", epochs=1, limit=200, latent_dim=2, tensorboard=False)
    expost.fit(run, "gaussian")
    expost.fit(run, "gmm", components=2)
    expost.fit(run, "gaussian", by="label")
    return run


def test_a_plain_picture_is_the_grid_alone(tmp_path):
    x = torch.rand(6, 1, 8, 8)
    for name in ("a.png", "a.webp", "a.jpg"):
        save_picture(x, str(tmp_path / name), columns=3, scale=2)
        with Image.open(tmp_path / name) as picture:
            assert picture.size == (3 * 18 - 2, 2 * 18 - 2)
    save_picture(x, tmp_path / "a.svg", columns=3, scale=2)
    assert size_of_svg(tmp_path / "a.svg") == (52, 34)
    assert texts(tmp_path / "a.svg") == {}
    save_picture(x, tmp_path / "a.pdf", columns=3, scale=2)
    assert page_of_pdf(tmp_path / "a.pdf") == (52, 34)
    save_picture(x[0], tmp_path / "one.png", scale=1)
    with Image.open(tmp_path / "one.png") as picture:
        assert np.abs(np.asarray(picture) / 255 - x[0, 0].numpy()).max() <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize(
    ("shape", "tensor", "found"),
    [
        ((8, 9), False, (1, 1, 8, 9)),
        ((8, 9, 3), False, (1, 3, 8, 9)),
        ((8, 9, 1), False, (1, 1, 8, 9)),
        ((3, 8, 9), False, (1, 3, 8, 9)),
        ((3, 8, 9), True, (1, 3, 8, 9)),
        ((5, 8, 9), True, (5, 1, 8, 9)),
        ((5, 8, 9, 4), False, (5, 4, 8, 9)),
        ((5, 3, 8, 9), False, (5, 3, 8, 9)),
        ((5, 3, 8, 3), True, (5, 3, 8, 3)),
        ((5, 3, 8, 3), False, (5, 3, 3, 8)),
    ],
)
def test_the_usual_layouts_are_told_apart(shape, tensor, found):
    values = np.random.default_rng(0).random(shape)
    images = as_images(torch.from_numpy(values) if tensor else values)
    assert images.dtype == torch.uint8
    assert tuple(images.shape) == found
    assert sorted(images.flatten().tolist()) == sorted(np.rint(values * 255).flatten().tolist())


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (np.zeros((4, 8, 9)), "one image with opacity or four grey ones; add the missing axis"),
        (np.zeros((5, 8, 9, 2)), r"shape \(5, 8, 9, 2\); give \(H, W\)"),
        (np.zeros(7), r"shape \(7,\); give \(H, W\)"),
        (np.zeros((0, 8, 8)), "are empty; give at least one"),
        (np.linspace(-1, 1, 64).reshape(8, 8), r"from -1 to 1; map them to \[0, 1\] with \(x \+ 1\) / 2"),
        (np.linspace(0, 255, 64).reshape(8, 8), "from 0 to 255; divide by 255"),
        (np.full((8, 8), np.nan), "NaN or infinite"),
        (np.full((8, 8), 4095), "integer pixels from 4095 to 4095; scale them to 0..255"),
        (np.full((8, 8), 1j), "complex128 are no pixels"),
        (["a", "b"], "are no pixels; give uint8"),
        ([[1, 2], [3]], "no picture can be made of this list"),
        (None, "are no pixels"),
    ],
)
def test_what_is_no_picture_is_refused_in_one_line(images, said, tmp_path):
    with pytest.raises(UsageError, match=said) as refused:
        save_picture(images, tmp_path / "a.png")
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_other_suffixes_labels_and_sizes_are_refused(tmp_path):
    x = torch.rand(6, 1, 8, 8)
    with pytest.raises(UsageError, match=r"cannot write a picture as 'a.gif'; give one of: .png, .jpg"):
        save_picture(x, tmp_path / "a.gif")
    with pytest.raises(UsageError, match="4 row labels are given for 3; leave out 1"):
        save_picture(x, tmp_path / "a.png", row_labels=["a", "b", "c", "d"], columns=2)
    with pytest.raises(UsageError, match="3 column labels are given for 2; leave out 1"):
        save_picture(x, tmp_path / "a.png", column_labels=["a", "b", "c"], columns=2)
    with pytest.raises(UsageError, match="are lists of texts"):
        save_picture(x, tmp_path / "a.png", row_labels="abc")
    for name in ("scale", "columns"):
        with pytest.raises(UsageError, match=f"{name} is 0; give a whole number of at least 1"):
            save_picture(
                x, tmp_path / "a.png", columns=0 if name == "columns" else None, scale=0 if name == "scale" else 1
            )
    with pytest.raises(UsageError, match="too many; give fewer examples or a smaller --scale"):
        save_picture(x, tmp_path / "a.png", scale=4000)
    with pytest.raises(UsageError, match=r"too many for .webp"):
        save_picture(Image.new("L", (20_000, 1)), tmp_path / "a.webp")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("scale", [1, 2, 4, 8])
@pytest.mark.parametrize("ground", [0.0, 1.0])
def test_labels_stand_beside_their_rows_and_above_their_columns(scale, ground, tmp_path):
    """In the SVG, whose text is text; the picture has the same places dark."""
    x = torch.full((6, 1, 8, 8), ground)
    for suffix in ("svg", "png", "pdf"):
        save_picture(
            x,
            tmp_path / f"a.{suffix}",
            title="Six tiles & <more>",
            row_labels=["first row", "second"],
            column_labels=["a", "b", "t = 0"],
            columns=3,
            scale=scale,
        )
    found = texts(tmp_path / "a.svg")
    assert list(found) == ["Six tiles & <more>", "a", "b", "t = 0", "first row", "second"]
    (picture,) = ElementTree.parse(tmp_path / "a.svg").getroot().iter(f"{SVG}image")
    left, top, width, height = (float(picture.get(name)) for name in ("x", "y", "width", "height"))
    drawn = Image.open(BytesIO(base64.b64decode(picture.get("href").partition(",")[2])))
    assert drawn.size == (width, height)
    pitch = (width + 2) / 3
    assert pitch >= 8 * scale + 2
    at = [float(found[name].get("x")) for name in ("a", "b", "t = 0")]
    np.testing.assert_allclose(np.diff(at), pitch, atol=2)
    assert left <= at[0] <= left + pitch
    for name in ("a", "b", "t = 0"):
        assert float(found[name].get("y")) < top
        assert float(found[name].get("textLength")) < pitch
    for number, name in enumerate(("first row", "second")):
        assert found[name].get("text-anchor") == "end"
        assert float(found[name].get("x")) < left
        assert float(found[name].get("x")) - float(found[name].get("textLength")) >= 0
        assert top + height / 2 * number < float(found[name].get("y")) <= top + height / 2 * (number + 1) + 6
    size = size_of_svg(tmp_path / "a.svg")
    with Image.open(tmp_path / "a.png") as raster:
        assert raster.size == size
        marked = dark(raster)
        assert marked[: int(top) - 2, int(left) :].any()  # title and labels of columns
        assert marked[int(top) :, : int(left) - 2].any()  # labels of rows
        assert not marked[0].any()
        assert not marked[-1].any()
        assert not marked[:, 0].any()
        assert not marked[:, -1].any()
    assert page_of_pdf(tmp_path / "a.pdf") == size


def test_light_images_get_a_frame_and_dark_ones_none():
    light, black = (
        np.asarray(rasterized(figure(torch.full((4, 1, 8, 8), value), Look("t"))).convert("L")) for value in (1.0, 0.0)
    )
    assert light.shape == black.shape
    assert ((light > 200) & (light < 210)).sum() == 4 * (4 * 64 - 4)
    assert (black < 10).sum() >= 4 * 64 * 64


def test_a_long_title_is_wrapped_and_nothing_is_clipped():
    title = "a title of very many words " * 6
    sheet = figure(torch.zeros(2, 1, 8, 8), Look(title, rows=("supercalifragilisticexpialidocious" * 2,), scale=1))
    written = [mark for mark in sheet.marks if isinstance(mark, Text)]
    assert " ".join(mark.text for mark in written if mark.anchor == "l").split() == title.split()
    for mark in written:
        width = lettering.text_width(mark.text, mark.size)
        start = mark.left - width * {"l": 0, "m": 0.5, "r": 1}[mark.anchor]
        assert start >= 0
        assert start + width <= sheet.width
        assert mark.top + lettering.line_height(mark.size) <= sheet.height


def test_letters_that_no_font_has_are_said_and_kept_in_an_svg(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(lettering, "FONTS", ())
    lettering.font_for.cache_clear()
    x = torch.zeros(1, 1, 8, 8)
    save_picture(x, tmp_path / "a.svg", title="Größe")
    assert capsys.readouterr().err == ""
    assert "Größe" in texts(tmp_path / "a.svg")
    save_picture(x, tmp_path / "a.png", title="Größe")
    assert "no font here has öß, which are drawn as boxes; write FILE.svg" in capsys.readouterr().err
    save_picture(x, tmp_path / "b.png", title="plain letters")
    assert capsys.readouterr().err == ""
    lettering.font_for.cache_clear()


def test_transparent_images_show_the_sheet(tmp_path):
    x = torch.zeros(1, 4, 8, 8, dtype=torch.uint8)
    x[:, 3, :4] = 255  # the upper half is black, the lower one transparent
    save_picture(x, tmp_path / "a.png", scale=1)
    with Image.open(tmp_path / "a.png") as picture:
        pixels = np.asarray(picture.convert("L"))
    assert (pixels[:4] == 0).all()
    assert (pixels[4:] == 255).all()
    with Image.open(tmp_path / "a.png") as picture:
        save_picture(picture, tmp_path / "again.svg", title="a Pillow image")
    assert "a Pillow image" in texts(tmp_path / "again.svg")


def test_marks_are_where_they_are_said_to_be_in_both_formats():
    tile = Image.new("RGB", (4, 3), (0, 0, 255))
    sheet = Sheet(30, 20, (Bar(2, 3, 5, 4, (255, 0, 0)), Tile(10, 8, tile)), "marks")
    pixels = np.asarray(rasterized(sheet))
    assert {tuple(pixel) for pixel in pixels[3:7, 2:7].reshape(-1, 3).tolist()} == {(255, 0, 0)}
    assert {tuple(pixel) for pixel in pixels[8:11, 10:14].reshape(-1, 3).tolist()} == {(0, 0, 255)}
    assert (pixels != 255).any(2).sum() == 5 * 4 + 4 * 3
    assert np.array_equal(np.asarray(rasterized(sheet, 2))[::2, ::2], pixels)
    root = ElementTree.fromstring(as_svg(sheet))
    rects = [[float(each.get(name, 0)) for name in ("x", "y", "width", "height")] for each in root.iter(f"{SVG}rect")]
    assert rects == [[0, 0, 30, 20], [2, 3, 5, 4]]
    assert root.find(f"{SVG}title").text == "marks"


def test_captions_say_how_many_and_from_what(images, tmp_path):
    def first(path):
        return ElementTree.parse(path).getroot().find(f"{SVG}title").text

    path = expost.sample(images, 9, tmp_path / "a.svg", density="gmm")
    assert first(path) == "9 samples of ae through gmm, trained on digits"
    path = expost.sample(images, 1, tmp_path / "b.svg", density="gaussian", label="7", code_temperature=0.5)
    assert first(path) == "1 sample of ae through gaussian for label 7 at code temperature 0.5, trained on digits"
    found = texts(expost.reconstruct(images, tmp_path / "c.svg", n=15))
    assert next(iter(found)) == "15 test examples of digits and their reconstructions by ae"
    assert list(found)[1:] == ["original", "reconstruction"]
    found = texts(expost.interpolate(images, tmp_path / "d.svg", "spherical", n=2, steps=3))
    assert list(found) == ["2 spherical paths of ae between codes of test examples of digits", "t = 0", "0.5", "1"]
    found = texts(expost.reconstruct(images, tmp_path / "e.svg", n=4, title="Mine", row_labels=("x", "y"), columns=2))
    assert list(found) == ["Mine", "x", "y"]


@pytest.mark.parametrize("nothing", ["", "none"])
def test_without_title_and_labels_there_is_the_plain_grid(images, tmp_path, nothing):
    expost.sample(images, 9, tmp_path / "s.png", title=nothing, columns=9, scale=3)
    expost.reconstruct(images, tmp_path / "r.png", n=15, title=nothing, row_labels=(nothing,), scale=3)
    expost.interpolate(images, tmp_path / "i.png", n=2, steps=3, title=nothing, column_labels=(nothing,), scale=3)
    for name, across, down in (("s", 9, 1), ("r", 10, 4), ("i", 3, 2)):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.size == (26 * across - 2, 26 * down - 2)


def test_options_of_pictures_are_refused_where_they_have_no_effect(images, tmp_path):
    with pytest.raises(UsageError, match=r"scale is for pictures, and a.npy is none; leave it out"):
        expost.sample(images, 2, tmp_path / "a.npy", scale=2)
    with pytest.raises(UsageError, match="columns is 3, and a row is one path; give steps 3"):
        expost.interpolate(images, tmp_path / "a.png", columns=3)
    with pytest.raises(UsageError, match="labels of their own"):
        expost.panel(images, tmp_path / "a.png", row_labels=("a",))
    with pytest.raises(UsageError, match="has no option 'colums'"):
        expost.sample(images, 2, tmp_path / "a.png", colums=2)  # type: ignore[call-arg]
    with pytest.raises(UsageError, match=r"for a picture: expost panel RUN --out a.png"):
        report((images.folder,), tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_a_panel_of_images_shows_all_that_the_run_has(images, tmp_path):
    found = [each.text for each in ElementTree.parse(expost.panel(images, tmp_path / "p.svg")).iter(f"{SVG}text")]
    titles = [
        "24 test images and their reconstructions",
        "6 paths between two codes",
        "48 samples: gaussian",
        "48 samples: gmm",
        "80 samples: gaussian by label",
    ]
    assert [text for text in found if text in titles] == titles
    assert found[0] == "ae, trained on digits"
    assert {"original", "reconstruction", "t = 0", *map(str, range(10))} <= set(found)
    sizes = {}
    for suffix in (".png", ".pdf"):
        path = expost.panel(images, tmp_path / f"p{suffix}", densities=("gmm",), title="Mine", scale=2)
        if suffix == ".png":
            with Image.open(path) as picture:
                sizes[suffix] = picture.size
        else:
            sizes[suffix] = page_of_pdf(path)
    assert sizes[".png"] == sizes[".pdf"]
    with pytest.raises(UsageError, match="density 'kde' is not fitted"):
        expost.panel(images, tmp_path / "q.png", densities=("kde",))


def test_the_tiles_of_a_panel_are_the_runs_own(images, tmp_path):
    """The first picture of the figure holds test images from all over the part, the last one samples."""
    pictures = list(ElementTree.parse(expost.panel(images, tmp_path / "p.svg", scale=1)).iter(f"{SVG}image"))
    first = np.asarray(Image.open(BytesIO(base64.b64decode(pictures[0].get("href").partition(",")[2]))).convert("L"))
    test = images.data().test.x[:, 0].numpy()
    found = np.lib.stride_tricks.sliding_window_view(first, (8, 8))
    for x in (test[0], test[-1]):
        assert (found == x).all((2, 3)).any()
    third = np.asarray(Image.open(BytesIO(base64.b64decode(pictures[2].get("href").partition(",")[2]))).convert("L"))
    drawn = images.generator("cpu").sample(48, "gaussian", 0)[47, 0].mul(255).round().byte().numpy()
    found = np.lib.stride_tricks.sliding_window_view(third, (8, 8)).astype(int)
    assert (np.abs(found - drawn) <= 1).all((2, 3)).any()


def test_a_panel_without_densities_says_how_to_fit_one(tmp_path, capsys):
    run = expost.train("ae", "digits", tmp_path / "run", epochs=1, limit=60, latent_dim=2, tensorboard=False)
    found = texts(expost.panel(run, tmp_path / "p.svg"))
    assert not any("samples" in text for text in found)
    assert "no density is fitted, so there are no samples in the panel; fit one: expost fit" in capsys.readouterr().err


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A run on a table with two columns of numbers and labels, fitted by label too."""
    folder = tmp_path_factory.mktemp("table")
    random = np.random.default_rng(0)
    with (folder / "iris.csv").open("w") as file:
        rows = [[*random.normal(size=3).round(3), "no, maybe" if index % 3 else "yes"] for index in range(120)]
        csv.writer(file).writerows([["width", "height", "depth", "label"], *rows])
    run = expost.train("ae", folder / "iris.csv", folder / "run", epochs=1, width=8, latent_dim=2, tensorboard=False)
    expost.fit(run, "gaussian")
    expost.fit(run, "gaussian", by="label")
    return run


def test_a_table_of_samples_by_label_has_the_label_column(table, tmp_path):
    lines = cells(expost.sample(table, 5, tmp_path / "a.csv", label="no, maybe"))
    assert lines[0] == ["width", "height", "depth", "label"]
    assert [line[-1] for line in lines[1:]] == ["no, maybe"] * 5
    plain = cells(expost.sample(table, 5, tmp_path / "b.csv"))
    assert plain[0] == ["width", "height", "depth"]
    again = expost.load_data(tmp_path / "a.csv")
    assert again.columns == ("width", "height", "depth")
    assert again.classes == ("no, maybe",)


def test_a_table_of_reconstructions_has_the_label_of_each_row(table, tmp_path):
    lines = cells(expost.reconstruct(table, tmp_path / "r.csv", n=7))
    assert lines[0][-2:] == ["depth, reconstructed", "label"]
    data = table.data()
    rows = np.linspace(0, len(data.test) - 1, 7).round().astype(int)  # from all over the part
    assert [line[-1] for line in lines[1:]] == data.labels(data.test)[rows].tolist()
    np.testing.assert_allclose(np.array([line[:3] for line in lines[1:]], dtype=float), data.test.x[rows], rtol=1e-6)


def test_a_panel_of_a_table_has_a_histogram_of_each_column(table, tmp_path):
    found = list(texts(expost.panel(table, tmp_path / "p.svg")))
    assert {"width", "height", "depth", "96 training rows", "their reconstructions"} <= set(found)
    assert {"1,000 samples: gaussian", "1,000 samples: gaussian by label"} <= set(found)


def test_labels_are_written_in_pieces_and_under_a_free_name(tmp_path):
    rows = torch.arange(70_000.0)[:, None]
    write_vectors(rows, tmp_path / "a.csv", ["label"], labels=[f"l{index}" for index in range(70_000)])
    lines = cells(tmp_path / "a.csv")
    assert lines[0] == ["label", "class"]
    assert lines[-1] == ["69999.0", "l69999"]
    write_table([["a,b"], ["c"]], ["text"], tmp_path / "b.csv", labels=[1, 2])
    assert (tmp_path / "b.csv").read_text() == 'text,label\n"a,b",1\nc,2\n'


def test_histograms_count_real_values_and_others_in_the_same_bins():
    random = np.random.default_rng(0)
    real, others = random.normal(size=400), random.normal(3, 1, size=400)
    edges = edges_of(real, [others])
    assert edges[0] == real.min()
    assert real.max() < edges[-1] <= real.max() + (real.max() - real.min()) / 2
    assert edges_of(np.array([5.0, 5.0])).tolist() == [4.5, 5.5]
    sheet = marginal(np.array([0.0, 1.0, 1.0, 1.0]), [(np.zeros(3), INK)])
    bars = [mark for mark in sheet.marks if isinstance(mark, Bar)]
    low, high = bars[0].height, bars[1].height
    assert low / high == pytest.approx(1 / 3)  # a quarter against three, of which the highest is all of the samples


def test_a_file_of_strings_without_any_string_is_said(tmp_path, capsys):
    run = expost.train("grae", "drugs", tmp_path / "run", epochs=1, width=8, limit=100, tensorboard=False)
    expost.fit(run, "gaussian")
    examples = expost.examples.examples_of(run.config)
    capsys.readouterr()
    examples.write([None, None], tmp_path / "a.smi")
    said = capsys.readouterr().err
    assert "warning: a.smi holds no string: 2 of 2 derivations did not end within the model's length; train" in said
    examples.write(["", ""], tmp_path / "a.csv")
    assert "warning: a.csv holds no string: all 2 strings are empty" in capsys.readouterr().err
    examples.write(["CC", None, "CO"], tmp_path / "b.csv", labels=["x", "y", "z"])
    assert (tmp_path / "b.csv").read_text() == "smiles,label\nCC,x\nCO,z\n"
    assert "1 of 3 derivations did not end within the model's length, and are left out" in capsys.readouterr().err
    with pytest.raises(UsageError, match="are of images; leave them out"):
        expost.panel(run, tmp_path / "p.png", scale=3)
    found = list(texts(expost.panel(run, tmp_path / "p.svg")))
    assert {"test string", "reconstruction", "16 samples: gaussian"} <= set(found)
