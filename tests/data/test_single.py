"""One image that comes alone gets the pixels that it has in its data set, and what was done is said."""

import io

import numpy as np
import pytest
from PIL import Image

from expost.data.load import load_data
from expost.data.single import Form
from expost.errors import DataError


@pytest.mark.parametrize("kind", ["RGB", "L", "I;16"])
@pytest.mark.parametrize("limits", [None, (0, 4095)])
def test_an_image_is_read_as_in_its_data_set(tmp_path, kind, limits):
    draw = np.random.default_rng(0)
    for index in range(12):
        size = (24, 40) if kind != "RGB" else (24, 40, 3)
        high = 4096 if kind == "I;16" and limits else 65536 if kind == "I;16" else 256
        pixels = draw.integers(0, high, size).astype(np.uint16 if kind == "I;16" else np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index:02}.png")
    data = load_data(tmp_path, size=16, range=limits)
    channels, height, width = data.shape
    form = Form.of(str(tmp_path), (channels, height, width), 16, limits)
    singles = [form.read("it", (tmp_path / f"{index:02}.png").read_bytes()) for index in range(12)]
    read = {single.pixels.tobytes() for single in singles}
    assert read == {x.numpy().tobytes() for part in (data.train, data.validation, data.test) for x in part.x}
    (said,) = {single.said.partition(" scaled")[0].partition("values")[0] for single in singles}
    assert said.startswith("40 x 24 pixels, ")
    assert ("scaled by the run's range, 0 to 4,095" in singles[0].said) == (limits is not None)
    assert singles[0].said.endswith("central 24 x 24 square, resized to 16x16")


def test_named_sets_have_what_was_done_to_them():
    buffer = io.BytesIO()
    Image.new("L", (28, 28), 255).save(buffer, "PNG")
    single = Form.of("mnist", (1, 32, 32)).read("it", buffer.getvalue())
    assert single.pixels[0, 2:30, 2:30].min() == 255
    assert single.pixels.sum() == 28 * 28 * 255


def test_arrays_go_by_the_layout_and_the_range_of_the_run():
    form = Form.of("x", (1, 4, 4), None, (0, 100), "HWN")
    single = form.read_array("it", np.arange(32).reshape(4, 4, 2))
    assert single.pixels[0].tolist() == np.rint(np.arange(0, 32, 2).reshape(4, 4) * 2.55).astype(int).tolist()
    assert single.said.startswith("4 x 4 pixels, the first of 2 images, integer grey, values")
    with pytest.raises(DataError, match=r"shape \(4, 4, 2, 1\), and the run's layout is HWN"):
        form.read_array("it", np.zeros((4, 4, 2, 1)))
    with pytest.raises(DataError, match=r"shape \(3, 4, 3\); give one image"):
        Form.of("x", (3, 4, 3)).read_array("it", np.zeros((3, 4, 3)))
