"""Which values of pixels are scaled, refused or kept, in files and arrays; and --range."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

import expost
from expost.data import load_data
from expost.data.decoding import decode
from expost.data.examples import Preprocess
from expost.data.intensities import Extent, scaled
from expost.errors import DataError, UsageError

RNG = np.random.default_rng(0)


def levels(count, high, kind, low=0):
    """Return images (count, 8, 8) that use values from low to high, both ends included."""
    values = RNG.uniform(low, high, (count, 8, 8))
    values[:, 0, 0], values[:, 0, 1] = low, high
    return values.astype(kind)


def write(folder, images, suffix):
    folder.mkdir(exist_ok=True)
    for index, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{index}.{suffix}")
    return folder


def values(data):
    return np.concatenate([part.x.numpy().ravel() for part in (data.train, data.validation, data.test)])


@pytest.mark.parametrize(
    ("high", "kind", "suffix", "suggested"),
    [
        (4095, np.uint16, "png", "0 4095"),
        (4000, np.uint16, "tif", "0 4095"),
        (1023, np.uint16, "png", "0 1023"),
        (16383, np.uint16, "tif", "0 16383"),
        (255, np.uint16, "png", "0 255"),
        (255, np.int32, "tif", "0 255"),
        (0.008, np.float32, "tif", "0 0.008"),
        (1, np.uint8, "png", "0 1"),
    ],
)
def test_values_that_fill_little_of_their_type_are_refused_and_scaled_by_a_range(
    tmp_path, high, kind, suffix, suggested
):
    images = levels(12, high, kind)
    folder = write(tmp_path / "scans", images, suffix)
    with pytest.raises(
        DataError, match=f"fill .* few levels of grey would be left; give --range {suggested} "
    ) as caught:
        load_data(folder)
    assert "\n" not in str(caught.value)
    low, top = map(float, suggested.split())
    data = load_data(folder, range=(low, top))
    assert f"values {low:,g} to {top:,g} scaled to 0..255, beyond them clipped" in data.note
    expected = np.rint(np.clip((images.astype(float) - low) / (top - low), 0, 1) * 255)
    assert sorted(values(data)) == sorted(expected.ravel())


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (levels(12, 0.008, np.float32), "floating-point pixels from 0 to 0.008 fill 0.8 % of 0 to 1"),
        (levels(12, 1e-4, np.float64), "give --range 0 0.0001 "),
        (levels(12, 255, np.float32), r"floating-point pixels from 0 to 255; divide by 255, .* or give --range 0 255 "),
        (levels(12, 1, np.float32, low=-1), r"map them to \[0, 1\] with \(x \+ 1\) / 2, or give --range -1 1 "),
        (levels(12, 1, np.uint8), "has no pixels but 0 and 1 .* or give --range 0 1 "),
        (levels(12, 4095, np.uint16), "integer pixels from 0 to 4095; scale them .* or give --range 0 4095 "),
        (levels(12, 3000, np.int32, low=-1000), "integer pixels from -1000 to 3000; .* or give --range -1000 3000 "),
    ],
)
def test_arrays_are_refused_as_files_are_and_the_advice_works(tmp_path, array, message):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(DataError, match=message) as caught:
        load_data(tmp_path / "x.npy")
    limits = str(caught.value).split("--range ")[1].split()[:2]
    low, high = map(float, limits)
    data = load_data(tmp_path / "x.npy", range=(low, high))
    assert (values(data).min(), values(data).max()) == (0, 255)


def test_what_fills_its_type_is_read_as_before_and_said(tmp_path):
    data = load_data(write(tmp_path / "sixteen", levels(12, 60000, np.uint16), "png"))
    assert "16-bit pixels divided by 257" in data.note
    assert values(data).max() == round(60000 / 257)
    np.save(tmp_path / "x.npy", levels(12, 1, np.float32))
    assert "floating-point pixels times 255" in load_data(tmp_path / "x.npy").note
    eight = load_data(write(tmp_path / "eight", levels(12, 250, np.uint8), "png"))
    assert "pixels divided" not in eight.note
    assert "--range" not in eight.note


def test_dark_8_bit_images_are_read_and_it_is_said(tmp_path):
    folder = write(tmp_path / "masks", levels(12, 5, np.uint8), "png")
    data = load_data(folder)
    assert values(data).max() == 5
    assert (
        "8-bit pixels from 0 to 5 fill 2 % of 0 to 255; give --range 0 7 (load_data: range=(0, 7)) to spread them"
        in data.note
    )
    assert set(values(load_data(folder, range=(0, 5)))) == {0, 51, 102, 153, 204, 255}


def test_one_bright_image_of_the_set_decides(tmp_path):
    images = levels(12, 3000, np.uint16)
    images[7, 3, 3] = 65535
    assert values(load_data(write(tmp_path / "scans", images, "png"))).max() == 255


def test_equal_images_are_no_matter_of_range(tmp_path):
    data = load_data(write(tmp_path / "same", np.full((10, 4, 4), 900, np.uint16), "png"))
    assert "all examples are identical" in data.note


def test_the_range_goes_before_the_resize(tmp_path):
    images = np.zeros((6, 8, 8), np.uint16)
    images[:, ::2] = 4095
    data = load_data(write(tmp_path / "scans", images, "png"), size=4, range=(0, 4095))
    assert np.abs(values(data).astype(int) - 128).max() <= 35  # an average of black and white, not of clipped values


@pytest.mark.parametrize("limits", [(1, 1), (5, 0), (0, float("inf")), (float("nan"), 1)])
def test_ranges_that_are_none(tmp_path, limits):
    with pytest.raises(UsageError, match="give two finite numbers, the lower first"):
        load_data(write(tmp_path / "a", levels(4, 255, np.uint8), "png"), range=limits)


def test_nan_is_refused_in_any_range(tmp_path):
    array = levels(12, 1000, np.float32)
    array[3, 3, 3] = np.nan
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(DataError, match="1 of 768 pixels are NaN or infinite"):
        load_data(tmp_path / "x.npy", range=(0, 1000))


def test_scaled_rounds_and_clips():
    assert scaled(np.array([-1.0, 0, 0.49, 0.51, 1, 9]), (0, 1)).tolist() == [0, 0, 125, 130, 255, 255]
    assert scaled(np.array([0, 2**16 - 1], np.uint16), (0, 2**16 - 1)).tolist() == [0, 255]


def test_extents_join_to_the_wider_kind():
    assert Extent("8-bit", 3, 200).joined(Extent("16-bit", 0, 100)) == Extent("16-bit", 0, 200)
    assert Extent("16-bit", 20000, 60000).check("it") == ""


# --- transparency ------------------------------------------------------------------------------------------------


def test_transparent_grey_of_16_bits_is_white(tmp_path):
    image = np.full((8, 8), 30000, np.uint16)
    image[1, 1] = 7
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", transparency=7)
    pixels = decode("it", buffer.getvalue(), Preprocess())
    assert pixels[0, 1, 1] == 255
    assert (np.delete(pixels.ravel(), 9) == round(30000 / 257)).all()
    shifted = decode("it", buffer.getvalue(), Preprocess(range=(0, 60000)))
    assert (shifted[0, 1, 1], shifted[0, 0, 0]) == (255, 128)


# --- Python ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    options: dict[str, Any] = {"epochs": 1, "limit": 100, "latent_dim": 2, "tensorboard": False, "precision": "float32"}
    run = expost.train("ae", data="digits", out=out, **options)
    return run.generator(), run.data().train.x


@pytest.mark.parametrize("name", ["encode", "reconstruct", "fit", "interpolate"])
def test_images_of_other_ranges_and_shapes_are_refused_in_python(generator, name):
    model, x = generator
    use = {
        "encode": model.encode,
        "reconstruct": model.reconstruct,
        "fit": lambda y: model.fit("gaussian", y),
        "interpolate": lambda y: model.interpolate(y[:4], y[4:8]),
    }[name]
    use(x)
    use(x.float() / 255)
    for wrong, message in (
        (x.float(), "floating-point pixels from 0 to 255; divide by 255"),
        (x.float() / 127.5 - 1, r"floating-point pixels from -1 to 1; map them to \[0, 1\] with"),
        (x.float() / 0, "NaN|inf"),
        (x.long(), "images of type int64; give uint8"),
        (x.permute(0, 2, 3, 1), r"examples have shape \(8, 8, 1\), .*; move their axes with x.permute\(0, 3, 1, 2\)"),
        (x[:, 0], r"add the axis of channels with x\[:, None\]"),
    ):
        with pytest.raises(UsageError, match=message):
            use(wrong)


def test_an_array_is_told_to_be_saved():
    with pytest.raises(UsageError, match=r"data set is an array of shape \(4, 8, 8\); save it with numpy.save, give"):
        load_data(np.zeros((4, 8, 8)))  # type: ignore[arg-type]
