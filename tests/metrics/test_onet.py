"""The bundled features of photos: they are what they say, and tell blurred images from sharp ones."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from safetensors import safe_open
from torch.nn import functional

from expost.errors import DataError, UsageError
from expost.metrics import FEATURES, PixelFeatures
from expost.metrics.frechet import Statistics, frechet_distance
from expost.metrics.onet import WEIGHTS, OnetFeatures, load_onet
from expost.utils.store import read_tensors


@pytest.fixture(scope="module")
def faces(shared_data):
    import pyarrow.parquet as pq

    files = sorted((shared_data / "faces64").glob("t*.parquet"))
    if not files:
        pytest.skip("no faces64 in the shared data")
    rows = [row for file in files for row in pq.read_table(file).slice(0, 400)["image"].to_pylist()]
    return [Image.open(io.BytesIO(row["bytes"] if isinstance(row, dict) else row)).convert("RGB") for row in rows]


def stacked(images, radius=0.0):
    blurred = [image.filter(ImageFilter.GaussianBlur(radius)) if radius else image for image in images]
    return torch.from_numpy(np.stack([np.asarray(image) for image in blurred]).transpose(0, 3, 1, 2).copy())


def distances(features, faces):
    reference = Statistics.of(features(stacked(faces[:400])))
    return [frechet_distance(reference, Statistics.of(features(stacked(faces[400:], r)))) for r in (0, 1, 2)]


def test_blurred_faces_are_told_from_sharp_ones_where_thumbnails_see_nothing(faces):
    sharp, blurred, more = distances(OnetFeatures(), faces)
    assert 5 * sharp < blurred < more
    sharp, blurred, _ = distances(PixelFeatures(), faces)
    assert blurred < 1.1 * sharp


def test_texture_is_seen_in_any_image():
    noise = torch.randint(0, 256, (64, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    smooth = functional.avg_pool2d(noise.float(), 5, 1, 2).to(torch.uint8)
    features = OnetFeatures()
    same, other = (float((features(noise[:32]) - features(x[32:])).norm(dim=1).mean()) for x in (noise, smooth))
    assert other > 3 * same


def test_the_features_are_the_means_of_the_layers():
    weights, record = read_tensors(WEIGHTS)
    assert record["license"] == "MIT"
    x = torch.randint(0, 256, (3, 3, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    found = OnetFeatures()(x)
    h, means = (x.float() - 127.5) / 128, []
    for number in (1, 2, 3):
        h = functional.conv2d(h, weights[f"conv{number}.weight"], weights[f"conv{number}.bias"])
        h = torch.where(h > 0, h, h * weights[f"prelu{number}.weight"][None, :, None, None])
        means.append(h.mean((2, 3)))
        h = functional.max_pool2d(h, 3, 2, ceil_mode=True)
    torch.testing.assert_close(found, torch.cat(means, 1))
    assert found.shape[1] == FEATURES["onet"].dim


def test_gray_is_color_of_one_shade_and_other_channels_are_refused():
    gray = torch.randint(0, 256, (4, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    features = OnetFeatures()
    torch.testing.assert_close(features(gray), features(gray.expand(-1, 3, -1, -1)))
    with pytest.raises(UsageError, match="onet features take gray or RGB images"):
        features(torch.zeros(1, 2, 8, 8, dtype=torch.uint8))


def test_a_file_of_other_layers_is_refused(tmp_path):
    with safe_open(WEIGHTS, framework="pt") as file:
        assert set(file.keys()) == {
            f"{n}{k}.{p}" for k in (1, 2, 3) for n, p in (("conv", "weight"), ("conv", "bias"), ("prelu", "weight"))
        }
    from safetensors.torch import save_file

    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(DataError):
        load_onet(tmp_path / "other.safetensors")
