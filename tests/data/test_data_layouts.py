"""Axes of arrays, pages of files, an example a file, archives; and --layout."""

import io
import struct
import zipfile

import numpy as np
import pytest
from PIL import Image

from expost.data import load_data
from expost.data.decoding import decode
from expost.data.examples import Preprocess
from expost.data.image_archives import LARGEST
from expost.errors import DataError, UsageError

RNG = np.random.default_rng(0)


def noise(*shape):
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def rows(images):
    return sorted(np.ascontiguousarray(image).tobytes() for image in images)


def everything(data):
    return rows(np.concatenate([part.x.numpy() for part in (data.train, data.validation, data.test)]))


def saved(folder, array):
    np.save(folder / "x.npy", array)
    return folder / "x.npy"


# --- arrays ------------------------------------------------------------------------------------------------------

grey, color = noise(20, 12, 14), noise(20, 3, 12, 14)


@pytest.mark.parametrize(
    ("array", "layout", "expected"),
    [
        (grey, "NHW", grey[:, None]),
        (grey.transpose(1, 2, 0), "HWN", grey[:, None]),
        (grey.transpose(0, 2, 1), "NWH", grey[:, None]),
        (color, "NCHW", color),
        (color.transpose(0, 2, 3, 1), "nhwc", color),
        (color.transpose(2, 3, 1, 0), "HWCN", color),
        (color.transpose(1, 2, 3, 0), "CHWN", color),
        (grey[:3], "NHW", grey[:3, None]),
        (grey[:, :, :3], "NHW", grey[:, None, :, :3]),
    ],
)
def test_a_layout_that_is_given_is_taken(tmp_path, array, layout, expected):
    data = load_data(saved(tmp_path, array), layout=layout)
    assert data.shape == expected.shape[1:]
    assert everything(data) == rows(expected)


def test_rows_may_lie_along_the_second_axis(tmp_path):
    array = RNG.normal(size=(3, 50)).astype(np.float32)
    assert load_data(saved(tmp_path, array)).shape == (50,)
    assert everything(load_data(tmp_path / "x.npy", layout="DN")) == rows(array.T)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            (28, 28, 40),
            r"40 images of 28x28 along the last axis, or 28 of 28x40; give --layout HWN .*x.transpose\(2, 0, 1\)",
        ),
        ((64, 64, 1000), "1000 images of 64x64 along the last axis"),
        ((30, 32, 5000), "5000 images of 30x32 along the last axis"),
        (
            (32, 32, 3, 60),
            r"looks like images along axis 3, not the first; give --layout HWCN .*x.transpose\(3, 2, 0, 1\)",
        ),
        ((3, 32, 32, 60), r"images along axis 3, not the first; give --layout CHWN .*x.transpose\(3, 0, 1, 2\)"),
        (
            (28, 28, 60, 1),
            r"60 images of 28x28 along axis 2, or 28 of 60x28; give --layout HWNC .*x.transpose\(2, 3, 0, 1\)",
        ),
        ((10, 3, 32, 3), "axis 1 or 3 could be the channels; make images larger, or give --layout NCHW or NHWC"),
        ((20, 5, 12, 12), r"choose among them: pictures have 1 or 3 channels: keep some, as x\[:, \[0, 1, 2\], :, :\]"),
        ((20, 2, 12, 12), r"keep some, as x\[:, \[0\], :, :\]"),
        ((20, 12, 12, 7), r"keep some, as x\[:, :, :, \[0, 1, 2\]\]"),
        ((9, 7, 3), "add the missing axis: .* or give --layout NHW or HWC"),
        ((5, 8, 8, 8, 3), r"shape \(5, 8, 8, 8, 3\); give .* \(videos and volumes are not read"),
    ],
)
def test_shapes_that_speak_for_another_order_are_refused_with_the_layout(tmp_path, shape, message):
    with pytest.raises(DataError, match=message) as caught:
        load_data(saved(tmp_path, noise(*shape)))
    assert "\n" not in str(caught.value)
    layout = str(caught.value).partition("--layout ")[2].split(" ")[0].strip(",;")
    if layout and "H" in layout and shape != (9, 7, 3):
        data = load_data(tmp_path / "x.npy", layout=layout)
        assert len(data.train) + len(data.validation) + len(data.test) == shape[layout.index("N")]


@pytest.mark.parametrize(
    "shape", [(40, 28, 28), (28, 28, 28), (12, 28, 30), (40, 20, 28), (20, 1, 8, 200), (60, 3, 32, 32)]
)
def test_usual_shapes_need_no_layout(tmp_path, shape):
    data = load_data(saved(tmp_path, noise(*shape)))
    assert len(data.train) + len(data.validation) + len(data.test) == shape[0]
    assert data.shape[1:] == shape[-2:]


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ("NCHW", r"has shape \(20, 12, 14\), and layout NCHW names 4 axes; give one of 3 letters"),
        ("ND", "names 2 axes; give one of 3 letters"),
    ],
)
def test_layouts_that_do_not_fit(tmp_path, layout, message):
    with pytest.raises(DataError, match=message):
        load_data(saved(tmp_path, grey), layout=layout)
    with pytest.raises(DataError, match=r"has 12 channels by layout NHCW, .*as x\[:, :, \[0, 1, 2\], :\]"):
        load_data(saved(tmp_path, color), layout="NHCW")


def test_a_fourth_band_is_no_opacity_unless_it_is_opaque_somewhere(tmp_path):
    bands = noise(20, 4, 8, 8)
    bands[:, 3] = np.minimum(bands[:, 3], 200)
    with pytest.raises(
        DataError, match=r"the fourth, from \d+ to 200, is no opacity, .*x\[:, :3\] where they are at axis 1"
    ):
        load_data(saved(tmp_path, bands))
    bands[:, 3] = 255
    data = load_data(saved(tmp_path, bands))
    assert everything(data) == rows(bands[:, :3])
    assert "the fourth channel is taken for opacity, and put on white" in data.note


# --- an array a file ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 9), (3, 8, 9), (8, 9, 3), (5,)])
def test_an_array_a_file_is_an_example_a_file(tmp_path, shape):
    arrays = noise(12, *shape)
    for index, array in enumerate(arrays):
        np.save(tmp_path / f"{index:03d}.npy", array)
    data = load_data(tmp_path)
    assert "an example a file" in data.note
    if len(shape) == 1:
        assert everything(data) == rows(arrays.astype(np.float32))
    else:
        images = arrays[:, None] if len(shape) == 2 else arrays if shape[0] == 3 else arrays.transpose(0, 3, 1, 2)
        assert everything(data) == rows(images)


def test_folders_of_arrays_are_parts_and_classes(tmp_path):
    for part, count in (("train", 5), ("test", 3)):
        for kind in ("cat", "dog"):
            for index in range(count):
                path = tmp_path / part / kind / f"{index}.npy"
                path.parent.mkdir(parents=True, exist_ok=True)
                np.save(path, noise(8, 8))
    data = load_data(tmp_path)
    assert (data.classes, len(data.test), len(data.train) + len(data.validation)) == (("cat", "dog"), 6, 10)


def test_files_of_different_shapes_are_no_examples(tmp_path):
    np.save(tmp_path / "a.npy", noise(8, 8))
    np.save(tmp_path / "b.npy", noise(9, 8))
    with pytest.raises(
        DataError, match=r"as an example a file they differ: a.npy has shape \(8, 8\) .* b.npy \(9, 8\)"
    ):
        load_data(tmp_path)
    (tmp_path / "b.npy").unlink()
    for name in "bcd":
        np.save(tmp_path / f"{name}.npy", noise(8, 8))
    with pytest.raises(UsageError, match=r"parts has train=z, where no arrays are"):
        load_data(tmp_path, parts=["train=z"])


def test_parts_name_arrays(tmp_path):
    first, second = noise(10, 8, 8), noise(4, 8, 8)
    np.savez(tmp_path / "x.npz", before=first, after=second, noise=np.zeros(3))
    data = load_data(tmp_path / "x.npz", parts=["train=before", "test=after"])
    assert rows(data.test.x.numpy()) == rows(second[:, None])
    assert "ignored 1 other array (noise)" in data.note
    with pytest.raises(
        UsageError, match="parts names 'later', and there are the arrays before, after, noise; name one"
    ):
        load_data(tmp_path / "x.npz", parts=["train=before", "test=later"])
    (tmp_path / "files").mkdir()
    np.save(tmp_path / "files" / "before.npy", first)
    np.save(tmp_path / "files" / "after.npy", second)
    assert len(load_data(tmp_path / "files", parts={"train": "before.npy", "test": "after.npy"}).test) == 4


# --- pages, bands and formats ------------------------------------------------------------------------------------


def stack(path, pages, **options):
    first, *others = [Image.fromarray(page) for page in pages]
    first.save(path, save_all=True, append_images=others, **options)


def test_every_page_of_a_tiff_is_an_example(tmp_path):
    pages = noise(24, 8, 8)
    for index in range(4):
        stack(tmp_path / f"{index}.tif", pages[6 * index : 6 * index + 6])
    data = load_data(tmp_path)
    assert everything(data) == rows(pages[:, None])
    assert "24 pages of 4 files, an example each" in data.note
    one = load_data(tmp_path / "0.tif")
    assert everything(one) == rows(pages[:6, None])
    assert "6 pages of 1 file" in one.note


def test_no_page_is_lost_in_silence(tmp_path):
    pages = noise(6, 8, 8)
    stack(tmp_path / "a.tif", [*pages, noise(1, 4, 4)[0]])
    data = load_data(tmp_path / "a.tif")
    assert len(everything(data)) == 6
    assert "left out 1 other page: smaller copies, masks, or of another size" in data.note
    whole = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(whole[: len(whole) * 3 // 4])
    with pytest.raises(DataError, match="cut.tif"):
        load_data(tmp_path / "cut.tif")


def test_smaller_copies_in_a_tiff_are_no_examples(tmp_path):
    stack(tmp_path / "0.tif", [noise(8, 8), noise(4, 4), noise(8, 8), noise(8, 8)])
    assert len(load_data(tmp_path / "0.tif").train) == 1
    for index in range(3):
        Image.fromarray(noise(8, 8)).save(tmp_path / f"{index}.tif")
    assert "pages" not in load_data(tmp_path).note


def test_animations_are_said(tmp_path):
    for index in range(4):
        stack(tmp_path / f"{index}.gif", noise(3, 8, 8))
    assert "of 4 animations the first frame" in load_data(tmp_path).note


def tiff(samples, bands, extra=None):
    """Return a TIFF file of 4 x 4 pixels of one color with any number of samples."""
    entries = [(256, 3, 1, 4), (257, 3, 1, 4), (259, 3, 1, 1), (262, 3, 1, 2), (277, 3, 1, bands), (278, 3, 1, 4)]
    if extra is not None:
        entries.append((338, 3, 1, extra))
    offset = 8 + 2 + 12 * (len(entries) + 3) + 4
    entries += [(258, 3, bands, offset), (273, 4, 1, offset + 2 * bands), (279, 4, 1, 16 * bands)]
    head = b"II*\0" + struct.pack("<IH", 8, len(entries))
    body = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries)) + struct.pack("<I", 0)
    return head + body + struct.pack(f"<{bands}H", *[8] * bands) + bytes(samples[:bands]) * 16


@pytest.mark.parametrize(("bands", "extra"), [(4, None), (4, 0), (5, None)])
def test_bands_beside_color_are_refused(bands, extra):
    with pytest.raises(
        DataError, match=r"4 bands, of which the fourth is not marked|with 1, 3 or 4 channels; replace it"
    ):
        decode("it", tiff([200, 100, 50, 10, 7], bands, extra), Preprocess())


def test_bands_that_are_marked_are_read():
    assert decode("it", tiff([200, 100, 50], 3), Preprocess())[:, 0, 0].tolist() == [200, 100, 50]
    assert decode("it", tiff([200, 100, 50, 255], 4, 2), Preprocess())[:, 0, 0].tolist() == [200, 100, 50]


@pytest.mark.parametrize(
    ("suffix", "form", "options", "error"),
    [
        ("jfif", "JPEG", {"quality": 98}, 12),
        ("jpe", "JPEG", {"quality": 98}, 12),
        ("jp2", "JPEG2000", {}, 0),
        ("j2k", "JPEG2000", {}, 0),
        ("avif", "AVIF", {"quality": 95}, 16),
        ("pnm", "PPM", {}, 0),
    ],
)
def test_formats_that_pillow_reads(tmp_path, suffix, form, options, error):
    ramp = np.broadcast_to(np.linspace(0, 255, 32, dtype=np.uint8)[:, None, None], (32, 32, 3))
    for index in range(3):
        Image.fromarray(ramp).save(tmp_path / f"{index}.{suffix}", form, **options)
    data = load_data(tmp_path)
    assert data.shape == (3, 32, 32)
    assert np.abs(data.train.x[0].numpy().astype(int) - ramp.transpose(2, 0, 1)).max() <= error


# --- archives ----------------------------------------------------------------------------------------------------


def archive(path, **contents):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in contents.items():
            file.writestr(name, content)
    return path


def png(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_zip_archive_is_read_as_the_folder_it_unpacks_to(tmp_path):
    images = noise(20, 8, 8, 3)
    names = [f"set/{part}/{kind}/{n}.png" for part in ("train", "test") for kind in ("cat", "dog") for n in range(5)]
    contents = {name: png(image) for name, image in zip(names, images, strict=True)}
    extra = {"__MACOSX/set/._0.png": b"x", "set/@eaDir/0.png": png(images[0]), "set/readme.txt": b"hello"}
    data = load_data(archive(tmp_path / "photos.zip", **contents, **extra))
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    unpacked = load_data(tmp_path / "set")
    for part in ("train", "validation", "test"):
        assert (getattr(data, part).x == getattr(unpacked, part).x).all()
        assert (getattr(data, part).y == getattr(unpacked, part).y).all()
    assert data.classes == ("cat", "dog")
    assert "left out 1 file in @eaDir" in data.note
    assert "ignored 1 other file in the archive" in data.note


def test_names_that_lead_out_of_an_archive_are_not_read(tmp_path):
    inside = {f"{index}.png": png(image) for index, image in enumerate(noise(4, 8, 8))}
    outside = {"../out.png": png(noise(8, 8)), "/etc/out.png": png(noise(8, 8)), "a/../../out.png": png(noise(8, 8))}
    data = load_data(archive(tmp_path / "a.zip", **inside, **outside))
    assert len(data.train) + len(data.validation) + len(data.test) == 4
    assert "ignored 3 other files in the archive" in data.note
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.zip"]


def test_bombs_in_an_archive_are_refused(tmp_path):
    path = archive(tmp_path / "a.zip", **{f"{index}.png": b"\0" * (LARGEST + 1) for index in range(3)})
    with pytest.raises(DataError, match=r"a.zip/\d.png unpacks to more than 256 MiB; shrink or remove it"):
        load_data(path)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({}, "holds no images, only 0 other files; unpack it"),
        ({"a.csv": "a\n1\n"}, "holds no images, only 1 other files; unpack it and pass its folder"),
        ({"a.png": b"no image", "b.png": b"", "c.png": b"x"}, r"cannot read image .*a.zip/\w.png: damaged"),
    ],
)
def test_archives_that_are_refused(tmp_path, contents, message):
    with pytest.raises(DataError, match=message):
        load_data(archive(tmp_path / "a.zip", **contents))


def test_damaged_and_several_archives(tmp_path):
    path = archive(tmp_path / "a.zip", **{f"{index}.png": png(image) for index, image in enumerate(noise(5, 30, 30))})
    content = path.read_bytes()
    (tmp_path / "b.zip").write_bytes(content[:60] + bytes(200) + content[260:])
    with pytest.raises(DataError, match=r"cannot read .*b.zip"):
        load_data(tmp_path / "b.zip")
    with pytest.raises(DataError, match=r"holds 2 zip archives \(a.zip, b.zip\); give the path of one, or unpack them"):
        load_data(tmp_path)
