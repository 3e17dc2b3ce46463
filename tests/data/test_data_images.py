"""Folders of images: every mode and layout people have, and every way in which they are damaged."""

import io
import multiprocessing
import os
import shutil
import struct
import tempfile
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from expost.data import load_data
from expost.data.decoding import decode
from expost.data.examples import Preprocess
from expost.data.images import EncodedImages, ImageFiles, ImageSource, UnreadableImages
from expost.errors import DataError

RNG = np.random.default_rng(0)


def noise(*shape):
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def encoded(image, form, **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def plain(image, form="PNG", **options):
    return decode("it", encoded(image, form, **options), Preprocess())


def fill(folder, n=12, suffix="png", shape=(6, 6)):
    """Write n distinct images and return them, uint8 (n, C, H, W)."""
    folder.mkdir(parents=True, exist_ok=True)
    images = noise(n, *shape)
    for index, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{index:03d}.{suffix}")
    return images[:, None] if len(shape) == 2 else images.transpose(0, 3, 1, 2)


def rows(*arrays):
    return sorted(np.ascontiguousarray(image).tobytes() for array in arrays for image in array)


def everything(data):
    return rows(data.train.x.numpy(), data.validation.x.numpy(), data.test.x.numpy())


# --- layouts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "webp", "bmp", "tif", "tiff", "ppm", "PNG", "gif"])
def test_a_flat_folder_of_any_lossless_kind(tmp_path, suffix):
    shape = (6, 6) if suffix == "gif" else (6, 6, 3)
    images = fill(tmp_path / "pictures", 20, "png", shape)
    for path in (tmp_path / "pictures").glob("*.png"):
        options: dict[str, Any] = {"lossless": True} if suffix == "webp" else {}
        Image.open(path).save(tmp_path / f"{path.stem}.{suffix}", **options)
    shutil.rmtree(tmp_path / "pictures")
    data = load_data(tmp_path)
    assert [len(s) for s in (data.train, data.validation, data.test)] == [16, 2, 2]
    assert data.train.y is None
    assert everything(data) == rows(images)


def test_jpeg_comes_close(tmp_path):
    ramp = np.broadcast_to(np.linspace(0, 255, 16, dtype=np.uint8)[:, None], (16, 16))
    for name in ("a.jpg", "b.jpeg", "c.JPG"):
        Image.fromarray(ramp).save(tmp_path / name, quality=95)
    assert np.abs(load_data(tmp_path).train.x[0, 0].numpy().astype(int) - ramp).max() <= 4


def test_the_split_depends_on_sorted_names_not_on_the_disks_order(tmp_path):
    images = noise(30, 4, 4)
    for folder, order in (("one", range(30)), ("two", reversed(range(30)))):
        (tmp_path / folder).mkdir()
        for index in order:
            Image.fromarray(images[index]).save(tmp_path / folder / f"{index:02d}.png")
    one, two = load_data(tmp_path / "one", seed=4), load_data(tmp_path / "two", seed=4)
    other = load_data(tmp_path / "one", seed=5)
    for part in ("train", "validation", "test"):
        assert torch.equal(getattr(one, part).x, getattr(two, part).x)
    assert not torch.equal(one.test.x, other.test.x)
    assert everything(one) == everything(other) == rows(images[:, None])


def test_class_folders_are_labels_in_alphabetical_order(tmp_path):
    for name, shade in (("zebra", 200), ("ant", 10), ("Cat", 90)):
        (tmp_path / name).mkdir()
        for index in range(10):
            Image.new("L", (4, 4), shade + index).save(tmp_path / name / f"{index}.png")
    data = load_data(tmp_path)
    for split, each in ((data.train, 8), (data.validation, 1), (data.test, 1)):
        assert torch.bincount(split.y).tolist() == [each] * 3
        shades = split.x[:, 0, 0, 0]
        assert torch.equal(split.y, torch.where(shades < 50, 1, torch.where(shades < 150, 0, 2)))  # Cat, ant, zebra


def test_a_folder_that_holds_everything_is_no_class(tmp_path):
    images = fill(tmp_path / "faces", 10)
    data = load_data(tmp_path)
    assert data.train.y is None
    assert everything(data) == rows(images)


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("Training", "dev", "testing"), ("train", "validation", "TEST")]
)
@pytest.mark.parametrize("top", ["", "unpacked"])
def test_folders_of_parts(tmp_path, names, top):
    given = [fill(tmp_path / top / name, n) for name, n in zip(names, (7, 3, 4), strict=True)]
    data = load_data(tmp_path)
    for split, images in zip((data.train, data.validation, data.test), given, strict=True):
        assert np.array_equal(split.x.numpy(), images)
    assert "parts as given" in data.note


def test_folders_of_parts_with_classes_share_one_numbering(tmp_path):
    for part, classes in (("train", "abc"), ("val", "bc"), ("test", "c")):
        for name in classes:
            fill(tmp_path / part / name, 2)
    data = load_data(tmp_path)
    assert data.train.y.tolist() == [0, 0, 1, 1, 2, 2]
    assert data.validation.y.tolist() == [1, 1, 2, 2]
    assert data.test.y.tolist() == [2, 2]


def test_images_beside_the_parts_are_counted_out(tmp_path):
    fill(tmp_path / "train", 20)
    fill(tmp_path / "test", 5)
    fill(tmp_path / "extra", 3)
    Image.new("L", (50, 50)).save(tmp_path / "logo.png")
    data = load_data(tmp_path)
    assert len(data.train) + len(data.validation) == 20
    assert len(data.test) == 5
    assert "ignored 4 images outside the parts (000.png, 001.png, 002.png, ...)" in data.note


def test_a_class_may_be_called_train(tmp_path):
    for name in ("bus", "car", "train"):
        fill(tmp_path / name, 10)
    data = load_data(tmp_path)
    assert torch.bincount(data.train.y).tolist() == [8, 8, 8]
    assert "ignored" not in data.note
    (tmp_path / "bus").rename(tmp_path / "test")  # now it can only be the training part
    assert "ignored 10 images outside the parts (000.png" in load_data(tmp_path).note


def test_some_images_in_class_folders_and_some_not_gives_no_labels(tmp_path):
    fill(tmp_path / "a", 5)
    fill(tmp_path, 5)
    data = load_data(tmp_path)
    assert data.train.y is None
    assert "no labels, since some images lie outside the subfolders" in data.note


def test_other_files_are_ignored_and_counted_hidden_ones_silently(tmp_path):
    fill(tmp_path, 10)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "labels.csv").write_text("a,b\n1,2\n")
    (tmp_path / ".DS_Store").write_bytes(b"\0")
    (tmp_path / "._000.png").write_bytes(b"\0")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX" / "a.png").write_bytes(b"\0")
    data = load_data(tmp_path)
    assert sum(map(len, (data.train, data.validation, data.test))) == 10
    assert "ignored 2 other files (labels.csv, notes.txt)" in data.note


def test_links_are_followed_once_and_loops_end(tmp_path):
    images = fill(tmp_path / "elsewhere", 10)
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "here").symlink_to(tmp_path / "elsewhere")
    (folder / "again").symlink_to(tmp_path / "elsewhere")
    (folder / "up").symlink_to(folder)
    (tmp_path / "elsewhere" / "back").symlink_to(folder)
    (folder / "self").symlink_to(folder / "self")
    (folder / "gone.png").symlink_to(tmp_path / "nothing.png")
    (folder / "turn.png").symlink_to(folder / "turn.png")
    os.mkfifo(folder / "pipe.png")
    assert everything(load_data(folder)) == rows(images)


# --- modes -------------------------------------------------------------------------------------------------------


def test_grey_stays_one_channel_until_one_image_has_color(tmp_path):
    grey = fill(tmp_path, 9)
    assert load_data(tmp_path).shape == (1, 6, 6)
    color = noise(6, 6, 3)
    Image.fromarray(color).save(tmp_path / "zz.png")
    data = load_data(tmp_path)
    assert data.shape == (3, 6, 6)
    assert everything(data) == rows(np.repeat(grey, 3, axis=1), color.transpose(2, 0, 1)[None])
    assert load_data(tmp_path, channels=1).shape == (1, 6, 6)


def test_color_in_one_part_gives_all_parts_three_channels(tmp_path):
    grey = fill(tmp_path / "train", 4)
    fill(tmp_path / "val", 2)
    fill(tmp_path / "test", 2, shape=(6, 6, 3))
    data = load_data(tmp_path)
    assert data.validation.x.shape == (2, 3, 6, 6)
    assert np.array_equal(data.train.x.numpy(), np.repeat(grey, 3, axis=1))


def test_every_mode_becomes_grey_or_rgb_with_the_right_values():
    opaque = noise(5, 5, 3)
    alpha = np.dstack([opaque, np.full((5, 5), 255, np.uint8)])
    assert np.array_equal(plain(Image.fromarray(alpha)), opaque.transpose(2, 0, 1))
    clear = alpha.copy()
    clear[..., 3] = 0
    assert (plain(Image.fromarray(clear)) == 255).all()  # transparent shows the white behind it, not hidden colors
    half = np.zeros((5, 5, 4), np.uint8)
    half[..., 3] = 128
    assert np.abs(plain(Image.fromarray(half)).astype(int) - 127).max() <= 1
    grey_alpha = np.zeros((5, 5, 2), np.uint8)
    grey_alpha[:2, :, 1] = 255
    got = plain(Image.fromarray(grey_alpha, "LA"))
    assert got.shape == (1, 5, 5)
    assert (got[0, :2] == 0).all()
    assert (got[0, 2:] == 255).all()
    bits = noise(5, 5) > 127
    assert np.array_equal(plain(Image.fromarray(bits))[0], bits * np.uint8(255))
    cmyk = plain(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "JPEG", quality=95)
    assert cmyk.shape == (3, 4, 4)
    assert cmyk[0].min() > 240
    assert cmyk[1:].max() < 15


def test_palettes_of_greys_are_grey_and_others_rgb():
    grey = Image.fromarray(noise(5, 5))
    palette = grey.convert("RGB").quantize(25, method=Image.Quantize.MEDIANCUT)
    expected = np.asarray(palette.convert("L"))
    assert palette.mode == "P"
    assert np.array_equal(plain(palette), expected[None])
    color = Image.fromarray(noise(5, 5, 3)).quantize(25)
    assert np.array_equal(plain(color), np.asarray(color.convert("RGB")).transpose(2, 0, 1))
    marked = Image.new("P", (4, 4), 1)
    marked.putpalette([255, 0, 0, 0, 0, 255])
    assert (plain(marked, transparency=1) == 255).all()
    assert (plain(marked, transparency=b"\xff\x00") == 255).all()
    marked.putpalette([0, 0, 0, 90, 90, 90])
    assert plain(marked, transparency=b"\x00\xff").tolist() == [[[90] * 4] * 4]
    marked.putpalette([255, 0, 0, 0, 0, 255])
    assert plain(marked).reshape(3, -1)[:, 0].tolist() == [0, 0, 255]


def test_transparency_of_one_color_in_a_grey_or_rgb_png():
    image = Image.fromarray(np.array([[10, 20], [30, 40]], np.uint8))
    assert plain(image, transparency=20).tolist() == [[[10, 255], [30, 40]]]
    color = Image.new("RGB", (2, 2), (1, 2, 3))
    assert (plain(color, transparency=(1, 2, 3)) == 255).all()


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(form):
    values = np.array([[0, 257, 65535], [128 * 257, 100, 200]], np.uint16)
    got = plain(Image.fromarray(values), form)
    assert got.tolist() == [[[0, 1, 255], [128, 0, 1]]]


def test_integer_and_float_tiffs():
    assert plain(Image.fromarray(np.array([[0, 65535]], np.int32)), "TIFF").tolist() == [[[0, 255]]]
    with pytest.raises(DataError, match="integer pixels from -1 to 70000; convert them to 8 or 16 bits"):
        plain(Image.fromarray(np.array([[-1, 70000]], np.int32)), "TIFF")
    assert plain(Image.fromarray(np.array([[0, 0.5, 1]], np.float32)), "TIFF").tolist() == [[[0, 128, 255]]]
    with pytest.raises(DataError, match="it: floating-point pixels from 0 to 7; divide by 255"):
        plain(Image.fromarray(np.array([[0, 7]], np.float32)), "TIFF")
    with pytest.raises(DataError, match="1 of 2 pixels are NaN or infinite"):
        plain(Image.fromarray(np.array([[0, np.nan]], np.float32)), "TIFF")


def test_exif_orientation_is_applied():
    image = Image.fromarray(np.array([[10, 200], [30, 40], [50, 60]], np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show rotated by 90 degrees clockwise
    assert plain(image, exif=exif).tolist() == [[[50, 30, 10], [60, 40, 200]]]


def test_the_first_frame_of_an_animation():
    frames = [Image.fromarray(np.full((4, 4), shade, np.uint8)) for shade in (30, 90, 200)]
    for form in ("GIF", "WEBP", "TIFF"):
        options = {"lossless": True} if form == "WEBP" else {}
        got = plain(frames[0], form, save_all=True, append_images=frames[1:], **options)
        assert (got == 30).all()


# --- preprocessing -----------------------------------------------------------------------------------------------


def test_the_papers_celeba_crop_is_the_central_140_square():
    image = noise(218, 178, 3)
    cropped = decode("it", encoded(Image.fromarray(image), "PNG"), Preprocess(crop=140))
    assert np.array_equal(cropped, image[39:179, 19:159].transpose(2, 0, 1))
    small = decode("it", encoded(Image.fromarray(image), "PNG"), Preprocess(crop=140, size=64))
    want = Image.fromarray(image[39:179, 19:159]).resize((64, 64), Image.Resampling.BILINEAR)
    assert np.array_equal(small, np.asarray(want).transpose(2, 0, 1))


def test_shrinking_does_not_alias():
    checkers = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    small = decode("it", encoded(Image.fromarray(checkers), "PNG"), Preprocess(size=16))
    inner = small[0, 1:-1, 1:-1].astype(int)
    assert np.abs(inner - 127.5).max() < 8  # picking pixels, without averaging, would give 0 or 255


def test_size_takes_the_largest_central_square_of_images_of_any_size(tmp_path):
    wide = np.zeros((8, 20), np.uint8)
    wide[:, 6:14] = 200
    Image.fromarray(wide).save(tmp_path / "a.png")
    Image.fromarray(wide.T).save(tmp_path / "b.png")
    Image.new("L", (4, 4), 200).save(tmp_path / "c.png")
    data = load_data(tmp_path, size=8)
    assert data.shape == (1, 8, 8)
    assert everything(data) == rows(np.full((3, 1, 8, 8), 200, np.uint8))
    assert "resized to 8x8" in data.note


def test_large_jpegs_decoded_at_a_fraction_look_like_those_decoded_whole():
    ramp = np.add.outer(np.linspace(0, 120, 600), np.linspace(0, 120, 800)).astype(np.uint8)
    content = encoded(Image.fromarray(ramp), "JPEG", quality=95)
    with Image.open(io.BytesIO(content)) as image:
        want = image.resize((32, 32), Image.Resampling.BILINEAR, box=(100, 0, 700, 600))
    got = decode("it", content, Preprocess(size=32))
    assert np.abs(got[0].astype(int) - np.asarray(want)).max() <= 2


def test_mixed_sizes_name_two_files_and_the_option(tmp_path):
    fill(tmp_path, 9)
    Image.new("L", (7, 5)).save(tmp_path / "zz.png")
    with pytest.raises(
        DataError, match=r"images differ in size: .*00\d.png is 6x6, .*zz.png is 7x5; pass a size"
    ) as caught:
        load_data(tmp_path)
    assert "\n" not in str(caught.value)
    assert load_data(tmp_path, size=5).shape == (1, 5, 5)


def test_parts_of_different_sizes(tmp_path):
    fill(tmp_path / "train", 5)
    fill(tmp_path / "test", 5, shape=(7, 7))
    with pytest.raises(DataError, match=r"shape \(1, 6, 6\) in training, .* \(1, 7, 7\) in test; make them equal"):
        load_data(tmp_path)


def test_padding_larger_images_is_refused():
    with pytest.raises(DataError, match="it is 9x9, larger than the 8x8 padding; pass size instead"):
        decode("it", encoded(Image.new("L", (9, 9)), "PNG"), Preprocess(pad=8))


def test_blocks_and_threads_keep_the_order(tmp_path):
    class Numbered(ImageSource):
        def __len__(self):
            return 2000

        def encoded(self, indices):
            for index in indices:
                yield str(index), encoded(Image.new("RGB", (1, 1), (index % 256, index // 256, 0)), "PPM")

    indices = np.random.default_rng(1).permutation(2000)[:1700]
    got = EncodedImages(Numbered()).load(indices, Preprocess())
    assert np.array_equal(got[:, 0, 0, 0] + got[:, 1, 0, 0].astype(int) * 256, indices)


# --- damage ------------------------------------------------------------------------------------------------------


def png_header(width, height):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    ihdr = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + ihdr + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


whole = encoded(Image.fromarray(noise(40, 40, 3)), "PNG")
damaged_body = whole[:200] + bytes(50) + whole[250:]
jpeg = encoded(Image.fromarray(noise(64, 64, 3)), "JPEG")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged, or none of PNG, JPEG"),
        (b"hello", "damaged, or none of PNG, JPEG"),
        (whole[:300], "truncated"),
        (damaged_body, "cannot read image"),
        (whole[:20], "cannot read image"),
        (jpeg[: len(jpeg) // 2], "truncated"),
        (encoded(Image.new("RGB", (9, 9)), "WEBP")[:30], "cannot read image"),
        (encoded(Image.new("RGB", (9, 9)), "GIF")[:20], "cannot read image"),
        (encoded(Image.new("RGB", (9, 9)), "TIFF")[:40], "cannot read image"),
        (encoded(Image.new("RGB", (9, 9)), "BMP")[:60], "cannot read image"),
        (encoded(Image.new("RGB", (9, 9)), "EPS"), "none of PNG"),
        (png_header(0, 5), "cannot read image"),
        (png_header(10_000, 10_000), "too large to be safe to decode"),
        (png_header(100_000, 100_000), "too large to be safe to decode"),
    ],
)
def test_damaged_images_are_named(tmp_path, content, message):
    fill(tmp_path, 6)
    (tmp_path / "003.png").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        load_data(tmp_path)
    assert str(tmp_path / "003.png") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "; " in str(caught.value)


def test_every_prefix_of_an_image_is_refused_with_one_line():
    content = encoded(Image.fromarray(noise(8, 8, 3)), "PNG")
    pixels_end = len(content) - 20  # then come two checksums of the pixels and the end mark
    for length in range(pixels_end):
        with pytest.raises(DataError, match=r"^[^\n]*$"):
            decode("it", content[:length], Preprocess())


def test_a_file_of_only_text_in_the_folder(tmp_path):
    (tmp_path / "readme.txt").write_text("hello")
    with pytest.raises(DataError, match=r"holds no data, only 1 other files \(readme.txt\); formats: -ubyte"):
        load_data(tmp_path)


def test_empty_folders(tmp_path):
    with pytest.raises(DataError, match="is empty; put files of a data set there"):
        load_data(tmp_path)
    fill(tmp_path / "train", 5)
    (tmp_path / "test").mkdir()
    with pytest.raises(DataError, match=r"folder .*test holds no images; fill it or remove it"):
        load_data(tmp_path)


@pytest.mark.parametrize("n", [1, 2])
def test_too_few_images(tmp_path, n):
    fill(tmp_path, n)
    with pytest.raises(DataError, match=f"{n} example.* at least 3 are needed"):
        load_data(tmp_path)


def test_one_image_by_its_path(tmp_path):
    fill(tmp_path, 5)
    with pytest.raises(DataError, match=r"000.png: 1 example to divide into 3 parts"):
        load_data(tmp_path / "000.png")


def test_unknown_files(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"cannot read .*a.zip: File is not a zip file; restore it"):
        load_data(tmp_path / "a.zip")
    (tmp_path / "a.7z").write_bytes(b"x")
    with pytest.raises(DataError, match=r"a.7z is in no known format .*; unpack it and pass its folder"):
        load_data(tmp_path / "a.7z")
    (tmp_path / "a.xyz").write_bytes(b"x")
    with pytest.raises(DataError, match=r"a.xyz is in no known format .*; convert it"):
        load_data(tmp_path / "a.xyz")


def test_constant_sets_and_copies_are_noted(tmp_path):
    for index in range(10):
        (tmp_path / "same").mkdir(exist_ok=True)
        Image.new("L", (4, 4), 7).save(tmp_path / "same" / f"{index}.png")
    data = load_data(tmp_path / "same")
    assert "all examples are identical" in data.note
    fill(tmp_path / "two" / "train", 5)
    shutil.copytree(tmp_path / "two" / "train", tmp_path / "two" / "test")
    fill(tmp_path / "two" / "val", 3)
    data = load_data(tmp_path / "two")
    assert "5 of 8 validation and test examples are exact copies of earlier ones" in data.note
    assert len(data.test) == 5  # noted, not removed
    fill(tmp_path / "distinct", 30)
    assert "exact copies" not in load_data(tmp_path / "distinct").note


@contextmanager
def powerless():
    """Give up the superuser's right to read everything for a while, where tests run as the superuser."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_files_and_folders_that_may_not_be_read():
    with tempfile.TemporaryDirectory() as name:  # unlike tmp_path, open to others once it is told so
        folder = Path(name)
        folder.chmod(0o755)
        fill(folder, 5)
        load_data(folder)  # imports what is needed while that is still allowed
        locked = folder / "002.png"
        locked.chmod(0)
        with powerless(), pytest.raises(DataError, match=r"cannot read image .*002.png: Permission denied; repair or"):
            load_data(folder)
        locked.unlink()
        (folder / "sub").mkdir()
        (folder / "sub").chmod(0)
        with powerless(), pytest.raises(DataError, match=r"cannot read .*sub: Permission denied; make it readable"):
            load_data(folder)
        with powerless(), pytest.raises(DataError, match=r"cannot read .*sub/x: Permission denied; make its folder"):
            load_data(folder / "sub" / "x")


def test_a_file_that_disappears(tmp_path):
    source = EncodedImages(ImageFiles([tmp_path / "gone.png"]))
    with pytest.raises(DataError, match=r"cannot read image .*gone.png: No such file or directory"):
        source.load(np.array([0]), Preprocess())


def test_all_images_that_cannot_be_read_are_named_at_once(tmp_path):
    for index in range(8):
        Image.fromarray(np.full((8, 8), 10 * index, np.uint8)).save(tmp_path / f"{index}.png")
    (tmp_path / "2.png").write_bytes(b"no image")
    whole = (tmp_path / "5.png").read_bytes()
    (tmp_path / "5.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnreadableImages, match=r"1 more cannot be read") as caught:
        load_data(tmp_path)
    assert {Path(name).name for name in caught.value.reasons} == {"2.png", "5.png"}
    assert all(name in str(caught.value) for name in caught.value.reasons)
    there, here = multiprocessing.Pipe()  # as workers send it
    there.send(caught.value)
    again = here.recv()
    assert (str(again), again.reasons) == (str(caught.value), caught.value.reasons)
    assert "\n" not in str(caught.value)
