"""Statistics, the Frechet distance, and features: closed forms, scipy and numpy, and one contract for all features."""

import importlib.util
import math
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from scipy import ndimage
from torch import nn

from expost.data import load_data
from expost.errors import DataError, UsageError
from expost.metrics import (
    FEATURES,
    DigitFeatures,
    PixelFeatures,
    RunningStatistics,
    Statistics,
    frechet_distance,
    mse,
    psnr,
    quantize,
    ssim,
    vision,
)
from expost.metrics.digits import WEIGHTS, load_digit_network
from expost.metrics.vision import ENCODERS
from expost.metrics.vit import VisionTransformer
from expost.utils.hashing import hash_tensors
from expost.utils.store import read_tensors, write_tensors


def correlated(n, d, seed=0, rank=None):
    """ReLU of correlated Gaussians, as features are."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).standard_normal((rank or d, d)) / math.sqrt(d)
    return torch.from_numpy(np.maximum(rng.standard_normal((n, rank or d)) @ mixing + 0.1 * seed, 0))


def gaussian(mean, cov, n=1000):
    return Statistics(torch.as_tensor(mean, dtype=torch.float64), torch.as_tensor(cov, dtype=torch.float64), n)


def rotation(d, seed):
    return torch.linalg.qr(torch.randn(d, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))[0]


# Statistics


def test_statistics_equal_numpy_with_the_unbiased_covariance():
    x = correlated(500, 20)
    stats = Statistics.of(x)
    assert stats.n == 500
    np.testing.assert_allclose(stats.mean, x.numpy().mean(0), rtol=1e-12)
    np.testing.assert_allclose(stats.cov, np.cov(x.numpy(), rowvar=False), rtol=1e-10, atol=1e-14)
    assert torch.equal(stats.cov, stats.cov.T)


@pytest.mark.parametrize("sizes", [[1] * 30, [29, 1], [0, 7, 0, 23], [30]])
def test_the_batches_do_not_matter(sizes):
    x = correlated(30, 5)
    running = RunningStatistics(chunk=4)
    for batch in x.split(sizes):
        running.add(batch)
    whole = Statistics.of(x)
    torch.testing.assert_close(running.result().mean, whole.mean, rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(running.result().cov, whole.cov, rtol=1e-12, atol=1e-15)


def test_merged_parts_equal_the_whole_and_stay_as_they_are():
    x = correlated(40, 5)
    left, right, empty = RunningStatistics(), RunningStatistics(), RunningStatistics()
    left.add(x[:13])
    right.add(x[13:])
    before = right.result()
    total = RunningStatistics()
    for part in (empty, left, right):
        total.merge(part)
    torch.testing.assert_close(total.result().cov, Statistics.of(x).cov, rtol=1e-12, atol=1e-15)
    assert total.n == 40
    assert torch.equal(right.result().cov, before.cov)
    assert torch.equal(right.result().mean, before.mean)


def test_all_reduce_gives_every_process_the_whole():
    x = correlated(50, 4)
    barrier, lock, sums = threading.Barrier(3), threading.Lock(), {}

    def worker(running):
        turn = iter(range(10))

        def add_up(tensor):  # what torch.distributed.all_reduce does, between threads
            key = next(turn)
            with lock:
                sums[key] = sums.get(key, 0) + tensor
            barrier.wait(timeout=300)
            tensor.copy_(sums[key])
            barrier.wait(timeout=300)

        running.all_reduce(add_up)

    parts = [RunningStatistics() for _ in range(3)]
    for running, batch in zip(parts, x.split([5, 44, 1]), strict=True):
        running.add(batch)
    threads = [threading.Thread(target=worker, args=(running,)) for running in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for running in parts:
        assert running.n == 50
        torch.testing.assert_close(running.result().mean, Statistics.of(x).mean, rtol=1e-13, atol=1e-15)
        torch.testing.assert_close(running.result().cov, Statistics.of(x).cov, rtol=1e-12, atol=1e-15)


def test_a_large_offset_does_not_cancel():
    x = correlated(1000, 3)
    shifted = RunningStatistics(chunk=64)
    shifted.add(x + 1e7)
    torch.testing.assert_close(shifted.result().cov, Statistics.of(x).cov, rtol=1e-6, atol=1e-8)


def test_half_precision_features_are_summed_in_double():
    x = torch.rand(3000, 2, generator=torch.Generator().manual_seed(0)).half()
    np.testing.assert_allclose(Statistics.of(x).mean, x.numpy().astype(np.float64).mean(0), rtol=1e-12)


def test_what_has_no_statistics_is_refused():
    with pytest.raises(DataError, match="at least 2 examples, got 1"):
        Statistics.of(torch.zeros(1, 3))
    with pytest.raises(DataError, match="at least 2 examples, got 0"):
        RunningStatistics().result()
    with pytest.raises(UsageError, match=r"give \(n, d\)"):
        Statistics.of(torch.zeros(3))
    x = correlated(10, 3)
    x[7, 1] = math.nan
    with pytest.raises(DataError, match="example 7 hold NaN"):
        Statistics.of(x)
    running = RunningStatistics(chunk=2)
    running.add(torch.zeros(5, 3))
    with pytest.raises(DataError, match="example 12 hold NaN"):
        running.add(x)
    with pytest.raises(UsageError, match="4 dimensions, earlier ones 3"):
        running.add(torch.zeros(2, 4))
    with pytest.raises(UsageError, match="chunk is 0"):
        RunningStatistics(chunk=0)
    with pytest.raises(DataError, match="no features in this process"):
        RunningStatistics().all_reduce(lambda tensor: None)


@pytest.mark.parametrize(
    ("mean", "cov", "n", "message"),
    [
        ([0.0, 0.0], [[1.0, 0.0], [0.0, 1.0]], 1, "at least 2"),
        ([0.0], [[1.0, 0.0], [0.0, 1.0]], 5, "do not fit"),
        ([], np.zeros((0, 0)), 5, "do not fit"),
        ([0.0, math.inf], [[1.0, 0.0], [0.0, 1.0]], 5, "NaN or infinity"),
        ([0.0, 0.0], [[1.0, 0.5], [0.0, 1.0]], 5, "not symmetric"),
        ([0.0, 0.0], [[1.0, 0.0], [0.0, -1.0]], 5, "negative variance"),
    ],
)
def test_what_is_no_covariance_is_refused(mean, cov, n, message):
    with pytest.raises(DataError, match=message):
        gaussian(mean, cov, n)


# Frechet distance


def test_one_dimension():
    assert frechet_distance(gaussian([1.0], [[4.0]]), gaussian([3.5], [[0.25]])) == pytest.approx(
        2.5**2 + (2 - 0.5) ** 2, rel=1e-12
    )


def test_diagonal_and_commuting():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0.01, 100, 50), rng.uniform(0.01, 100, 50)
    shift = rng.standard_normal(50)
    expected = (shift**2).sum() + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    assert frechet_distance(gaussian(np.zeros(50), np.diag(a)), gaussian(shift, np.diag(b))) == pytest.approx(
        expected, rel=1e-10
    )
    q = rotation(50, 1).numpy()
    rotated = [gaussian(mean, (q * values) @ q.T) for mean, values in ((np.zeros(50), a), (shift, b))]
    assert frechet_distance(*rotated) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("seed", range(5))
def test_two_by_two_that_do_not_commute(seed):
    rng = np.random.default_rng(seed)
    a, b = (m @ m.T for m in rng.standard_normal((2, 2, 2)))
    assert np.abs(a @ b - b @ a).max() > 1e-3
    # The eigenvalues l1, l2 of AB have (sqrt l1 + sqrt l2)^2 = tr AB + 2 sqrt(det AB).
    root = math.sqrt(np.trace(a @ b) + 2 * math.sqrt(np.linalg.det(a) * np.linalg.det(b)))
    expected = np.trace(a) + np.trace(b) - 2 * root
    assert frechet_distance(gaussian([0, 0], a), gaussian([0, 0], b)) == pytest.approx(expected, rel=1e-9)


def test_equals_scipy_where_the_matrix_square_root_works():
    a, b = Statistics.of(correlated(800, 100)), Statistics.of(correlated(900, 100, 1))
    root = scipy.linalg.sqrtm(a.cov.numpy() @ b.cov.numpy())
    expected = float(((a.mean - b.mean) ** 2).sum() + a.cov.trace() + b.cov.trace()) - 2 * np.trace(root).real
    assert expected > 0.1
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(("n_a", "n_b", "rank"), [(30, 40, None), (2, 500, None), (500, 500, 7), (20, 500, 40)])
def test_rank_deficient_covariances(n_a, n_b, rank):
    """Against the singular values of the centred features themselves, which need no covariance."""
    x, y = correlated(n_a, 60, 0, rank), correlated(n_b, 60, 2, rank)
    x[:, :5], y[:, 5:9] = 0, 0.25
    a, b = Statistics.of(x), Statistics.of(y)
    left, right = ((each - each.mean(0)) / math.sqrt(len(each) - 1) for each in (x, y))
    nuclear = float(torch.linalg.svdvals(left @ right.T).sum())
    expected = float((a.mean - b.mean).square().sum() + a.cov.trace() + b.cov.trace()) - 2 * nuclear
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-7)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)


def test_no_variance_at_all():
    point = Statistics.of(torch.ones(5, 3))
    assert frechet_distance(point, gaussian([1, 1, 3], np.diag([1.0, 2, 3]))) == pytest.approx(4 + 6, rel=1e-12)
    assert frechet_distance(point, point) == 0
    assert frechet_distance(point, Statistics.of(torch.zeros(9, 3))) == pytest.approx(3)


@pytest.mark.parametrize("n", [20, 400])
def test_a_set_is_at_no_distance_from_itself_in_any_order(n):
    x = correlated(n, 80)
    same = frechet_distance(Statistics.of(x), Statistics.of(x))
    assert same == 0
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    shuffled = frechet_distance(Statistics.of(x), Statistics.of(x[order]))
    assert 0 <= shuffled < 1e-11


def test_order_of_the_examples_does_not_matter():
    x, y = correlated(100, 30), correlated(120, 30, 1)
    order = torch.randperm(120, generator=torch.Generator().manual_seed(0))
    a = frechet_distance(Statistics.of(x), Statistics.of(y))
    assert frechet_distance(Statistics.of(x), Statistics.of(y[order])) == pytest.approx(a, rel=1e-10)
    assert frechet_distance(Statistics.of(x), Statistics.of(y)) == a


@pytest.mark.parametrize("scale", [1e-60, 1e-3, 1e60])
def test_invariances(scale):
    """Rotations and shifts of both leave it; scaling by s multiplies it by s^2, without over- or underflow."""
    x, y = correlated(200, 12), correlated(300, 12, 1)
    d = frechet_distance(Statistics.of(x), Statistics.of(y))
    q, shift = rotation(12, 3), torch.linspace(-1, 1, 12, dtype=torch.float64)
    moved = frechet_distance(Statistics.of(x @ q + shift), Statistics.of(y @ q + shift))
    assert moved == pytest.approx(d, rel=1e-9)
    assert frechet_distance(Statistics.of(x * scale), Statistics.of(y * scale)) == pytest.approx(d * scale**2, rel=1e-9)


def test_what_has_no_distance_is_refused():
    one, two = gaussian([0.0], [[1.0]]), gaussian([0.0, 0.0], np.eye(2))
    with pytest.raises(UsageError, match="1 and 2 features"):
        frechet_distance(one, two)
    with pytest.raises(DataError, match="not positive semi-definite"):
        frechet_distance(two, gaussian([0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]]))
    with pytest.raises(DataError, match="not positive semi-definite"):
        frechet_distance(gaussian([0.0, 0.0, 0.0], [[0, 1, 0], [1, 0, 0], [0, 0, 1]]), gaussian([0.0] * 3, np.eye(3)))
    with pytest.raises(DataError, match="overflows"):
        frechet_distance(gaussian([1e200], [[1.0]]), one)
    with pytest.raises(DataError, match="overflows"):
        frechet_distance(gaussian([0.0, 0.0], np.eye(2) * 1.5e308), two)


# Quantisation and hashes


def test_floats_are_quantised_to_the_nearest_byte_and_bytes_are_left():
    x = torch.tensor([-0.3, -0.001, 0.0, 0.4 / 255, 0.6 / 255, 200 / 255, 254.6 / 255, 1.0, 1.4])
    assert quantize(x).tolist() == [0, 0, 0, 0, 1, 200, 255, 255, 255]
    every = torch.arange(256, dtype=torch.uint8)
    assert quantize(every) is every
    for kind in (torch.float32, torch.float64):
        assert torch.equal(quantize(every.to(kind) / 255), every)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.tensor([0.0, math.nan]), DataError, "NaN"),
        (torch.tensor([0.0, math.inf]), DataError, "NaN or infinity"),
        (torch.tensor([0.0, 255.0]), UsageError, "range from 0 to 255"),
        (torch.tensor([-1.0, 1.0]), UsageError, "range from -1 to 1"),
        (torch.tensor([0, 1]), UsageError, "of type int64"),
    ],
)
def test_pixels_of_another_range_are_refused(x, error, message):
    with pytest.raises(error, match=message):
        quantize(x)


def test_the_hash_is_of_contents_not_of_layout():
    x = torch.arange(6.0).view(2, 3)
    reference = hash_tensors({"x": x})
    assert hash_tensors({"x": x.T.contiguous().T}) == reference
    assert hash_tensors({"x": x.double()}) != reference
    assert hash_tensors({"y": x}) != reference
    changed = x.clone()
    changed[1, 2] = torch.nextafter(changed[1, 2], torch.tensor(9.0))
    assert hash_tensors({"x": changed}) != reference


def test_pixel_scores_are_on_the_unit_scale_for_bytes_too():
    x, y = torch.randint(0, 256, (2, 3, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for score in (mse, psnr, ssim):
        torch.testing.assert_close(score(x, y), score(x / 255, y.double() / 255), rtol=1e-6, atol=1e-7)
    assert 0.05 < float(mse(x, y).mean()) < 0.3


# Features, one contract. Inception's own tests are in test_inception.py.


def random_vit(shape, seed=0):
    """Weights that keep tokens alive, by the authors' names, with positions of the grid that files have."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    with torch.device("meta"):
        network = VisionTransformer(shape)
    for name, value in network.state_dict().items():
        size = (1, shape.grid**2 + 1, shape.width) if name == "pos_embed" else value.shape
        drawn = torch.randn(size, generator=generator)
        scale = value[0].numel() ** -0.5 if value.dim() > 1 and "embed" not in name else 0.3
        state[name] = 1 + 0.2 * drawn if "norm" in name and name.endswith("weight") else scale * drawn
    return state


@pytest.fixture(params=list(FEATURES))
def features(request, monkeypatch, tmp_path):
    if request.param in ENCODERS:  # of their width, but one block deep and of four patches, with random weights
        encoder = ENCODERS[request.param]
        shape = replace(encoder.shape, depth=1, side=2 * encoder.shape.patch)
        shape = replace(shape, grid=2) if shape.projected else shape
        monkeypatch.setitem(vision.ENCODERS, request.param, replace(encoder, shape=shape))
        write_tensors(tmp_path / encoder.names[-1], random_vit(shape))
        monkeypatch.setenv("EXPOST_WEIGHTS", str(tmp_path))
    if request.param.startswith("inception"):
        if request.param.startswith("inception-2048"):
            pytest.skip("needs the published file; test_inception.py runs the contract on random weights")
        monkeypatch.setenv("EXPOST_WEIGHTS", str(request.getfixturevalue("shared_data") / "inception"))
    loaded = FEATURES[request.param].load("cpu")
    assert request.param.removesuffix("-bf16") == loaded.name
    assert loaded.protocol()["precision"] == ("bfloat16" if request.param.endswith("-bf16") else "float32")
    return loaded


@pytest.fixture(scope="module")
def digits():
    return load_data("mnist-5k").test.x


def test_features_contract(features, digits):
    images = digits[:3]
    if (sound := FEATURES[features.name].sound) is not None:
        images = images.repeat(1, 1, 3, 3)[:, :, : sound.mels, : sound.mels]  # as many frames
    check_contract(features, images)


def check_contract(features, images):
    entry = FEATURES[features.name]
    assert (entry.name, entry.score_name, entry.dim) == (features.name, features.score_name, features.dim)
    assert entry.available()
    state = torch.get_rng_state()
    z = features(images)
    assert torch.equal(torch.get_rng_state(), state)
    assert z.shape == (len(images), features.dim)
    assert z.dtype == torch.float32
    assert bool(z.isfinite().all())
    assert float(z.std(0).max()) > 0.01
    tolerance = (1e-5 if features.protocol()["precision"] == "float32" else 1e-2) * float(z.abs().max())
    torch.testing.assert_close(features(images, batch_size=2), z, rtol=0, atol=tolerance)
    torch.testing.assert_close(features(iter(images.split([1, len(images) - 1]))), z, rtol=0, atol=tolerance)
    torch.testing.assert_close(features((images.double() / 255).requires_grad_()), z, rtol=0, atol=tolerance)
    stats = features.statistics(images, batch_size=3)
    torch.testing.assert_close(stats.mean, z.double().mean(0), rtol=0, atol=tolerance)
    torch.testing.assert_close(stats.cov, z.T.double().cov(), rtol=0, atol=tolerance * float(z.std(0).max()))
    assert features(images[:0]).shape == (0, features.dim)
    layer = nn.Linear(features.dim, 1)
    layer(features(images[:2])).sum().backward()  # an inference tensor would refuse this
    assert set(features.protocol()) == {"resize", "quantization", "channels", "precision", "weights"}
    with pytest.raises(UsageError, match="batch_size is 0"):
        features(images, batch_size=0)
    with pytest.raises(UsageError, match=r"give \(N, C, H, W\)"):
        features(images[0])
    size = rf"\(4, {images.shape[2]}, {images.shape[3]}\)"
    with pytest.raises(UsageError, match=rf"{features.name} features take .* not \(C, H, W\) = {size}"):
        features(images.expand(-1, 4, -1, -1))
    with pytest.raises(DataError, match="at least 2"):
        features.statistics(images[:1])


def test_only_inception_is_called_fid():
    names = {name: entry.score_name for name, entry in FEATURES.items()}
    assert names == {
        "inception-2048": "fid",
        "onet": "frechet-onet",
        "inception-768": "fid-768",
        "inception-2048-bf16": "fid",
        "inception-768-bf16": "fid-768",
        "digits": "frechet-digits",
        "pixels": "frechet-pixels",
        "spoken-digits": "frechet-spoken-digits",
        "dinov2": "frechet-dinov2",
        "dinov2-s": "frechet-dinov2-s",
        "dinov2-l": "frechet-dinov2-l",
        "clip": "frechet-clip",
        "clip-l-336": "frechet-clip-l-336",
    }
    with pytest.raises(UsageError, match="did you mean 'digits'"):
        _ = FEATURES["digit"]


def test_pixel_features_are_block_means():
    x = torch.randint(0, 256, (2, 3, 16, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    blocks = x.double().view(2, 3, 8, 2, 8, 3).mean(dim=(3, 5)).flatten(1) / 255
    torch.testing.assert_close(PixelFeatures()(x).double(), blocks, rtol=1e-6, atol=1e-7)
    gray = PixelFeatures()(x[:, :1])
    assert torch.equal(gray[:, :64], gray[:, 128:])


# The digit classifier


def test_digit_features_are_those_of_a_good_classifier(digits):
    network, record = load_digit_network()
    data = load_data("mnist-5k")
    with torch.inference_mode():
        right = (network(digits.float() / 255).argmax(1) == data.test.y).double().mean().item()
    assert right == pytest.approx(record["test_accuracy"], abs=0.003)
    assert right > 0.97
    assert "training split of 4000" in record["data"]
    assert WEIGHTS.stat().st_size < 300_000


def test_digit_features_on_digits_never_seen(shared_data):
    network, _ = load_digit_network()
    from expost.data.idx import read_idx

    x = torch.from_numpy(read_idx(shared_data / "mnist" / "t10k-images-idx3-ubyte.gz").copy())[:, None]
    y = torch.from_numpy(read_idx(shared_data / "mnist" / "t10k-labels-idx1-ubyte.gz").copy())
    with torch.inference_mode():
        logits = network.head(DigitFeatures()(x))  # 28x28, which the features pad
    assert (logits.argmax(1) == y).double().mean() > 0.98


def test_digit_features_equal_numpy(digits):
    """The forward pass written out with scipy's correlation, which knows nothing of torch's convolution."""
    weights, _ = read_tensors(WEIGHTS)
    x = digits[0].numpy().astype(np.float64) / 255
    for layer in (0, 2, 4):
        kernel, bias = weights[f"convs.{layer}.weight"].numpy(), weights[f"convs.{layer}.bias"].numpy()
        maps = [sum(ndimage.correlate(x[c], k[c], mode="constant") for c in range(len(x))) for k in kernel]
        x = np.maximum(np.stack(maps)[:, ::2, ::2] + bias[:, None, None], 0)
    hidden = weights["hidden.weight"].numpy() @ x.ravel() + weights["hidden.bias"].numpy()
    np.testing.assert_allclose(DigitFeatures()(digits[:1])[0].numpy(), np.maximum(hidden, 0), rtol=1e-4, atol=1e-5)


def test_digit_features_rank_digits_above_damaged_ones(digits):
    features = DigitFeatures()
    train = features.statistics(load_data("mnist-5k").train.x)
    noise = torch.randn(digits.shape, generator=torch.Generator().manual_seed(0))
    little, much = (quantize((digits / 255 + s * noise).clamp(0, 1)) for s in (0.1, 0.3))
    scores = [frechet_distance(train, features.statistics(x)) for x in (digits, little, much, 255 - digits)]
    assert scores == sorted(scores)
    assert scores[1] > 1.5 * scores[0]


def test_digit_features_take_padded_and_plain_digits_and_nothing_else(digits):
    features = DigitFeatures()
    torch.testing.assert_close(features(digits[:9, :, 2:-2, 2:-2]), features(digits[:9]))
    for shape in ((3, 32, 32), (1, 28, 32), (1, 64, 64)):
        with pytest.raises(UsageError, match="choose other features"):
            features(torch.zeros(2, *shape))


def test_a_foreign_file_is_no_digit_classifier(tmp_path):
    write_tensors(tmp_path / "x.safetensors", {"hidden.weight": torch.zeros(3)})
    with pytest.raises(DataError, match="does not hold the digit classifier"):
        load_digit_network(tmp_path / "x.safetensors")


@pytest.fixture(scope="module")
def script():
    path = Path(__file__).resolve().parents[2] / "scripts" / "train_digit_features.py"
    spec = importlib.util.spec_from_file_location("train_digit_features", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_training_script_repeats_itself_and_learns(script):
    data = load_data("mnist-5k", limit=400)
    with torch.random.fork_rng():
        first, second, other = (script.train(data.train, epochs=8, seed=seed) for seed in (0, 0, 1))
    assert hash_tensors(first.state_dict()) == hash_tensors(second.state_dict())
    assert hash_tensors(first.state_dict()) != hash_tensors(other.state_dict())
    assert script.accuracy(first, data.test) > 0.6
    assert script.record(first, data)["test_accuracy"] == script.accuracy(first, data.test)


def test_the_training_script_folds_its_normalisation_exactly(script):
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        model = script.Normalized(script.DigitNetwork())
    model.norm.running_mean.copy_(torch.randn(64, generator=generator))
    model.norm.running_var.copy_(torch.rand(64, generator=generator) + 0.1)
    x = torch.rand(4, 1, 32, 32, generator=generator)
    with torch.inference_mode():
        before = model.eval()(x)
        torch.testing.assert_close(model.folded()(x), before)


def test_the_training_script_deforms_mildly(script, digits):
    x = digits[:50].float() / 255
    y = script.deform(x, torch.Generator().manual_seed(0))
    assert torch.equal(y, script.deform(x, torch.Generator().manual_seed(0)))
    assert float(y.sum()) == pytest.approx(float(x.sum()), rel=0.1)
    moved = float((y - x).abs().mean() / x.mean())
    assert 0.1 < moved < 1.5
