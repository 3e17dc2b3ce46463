"""The 2015 Inception network against torch-fidelity's, and how its weights are found, fetched and refused."""

import hashlib
import http.server
import io
import pickle
import re
import sys
import threading
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from test_metrics import check_contract

from expost.data.idx import read_idx
from expost.errors import DataError, UsageError
from expost.metrics import FEATURES, InceptionFeatures, Statistics, frechet_distance, weights
from expost.metrics.inception import resize_tf1
from expost.metrics.inception_network import BLOCKS, inception
from expost.metrics.weights import (
    PUBLIC,
    find_or_download,
    find_weights,
    fold,
    read_state,
)
from expost.utils.downloads import PublicFile, download, verify
from expost.utils.store import write_tensors

TRUNK = "inception-2015-trunk.safetensors"
_OPERATORS = []


def torch_fidelity(name):
    """Import a module of torch-fidelity, which imports torchvision, whose compiled operators may be missing here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside those packages are not ours
        try:
            return pytest.importorskip(f"torch_fidelity.{name}", exc_type=ImportError)
        except RuntimeError as error:
            if "torchvision::nms" not in str(error):
                raise
        library = torch.library.Library("torchvision", "DEF")  # declared, never called
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _OPERATORS.append(library)  # the declarations live as long as this does
        for module in [each for each in sys.modules if each.partition(".")[0] in ("torchvision", "torch_fidelity")]:
            del sys.modules[module]
        return pytest.importorskip(f"torch_fidelity.{name}", exc_type=ImportError)


def random_state(seed=0):
    """A state dictionary in the published form, with random weights that keep activations alive through the network."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, value in inception(2048).state_dict().items():
        if key.endswith("conv.weight"):
            scale = (2 / (value[0].numel())) ** 0.5
            state[key] = torch.randn(value.shape, generator=generator) * scale
        else:
            bn = key.replace("conv.bias", "bn.")
            state[bn + "weight"] = torch.rand(value.shape, generator=generator) + 0.5
            state[bn + "bias"] = torch.randn(value.shape, generator=generator) * 0.2
            state[bn + "running_mean"] = torch.randn(value.shape, generator=generator) * 0.2
            state[bn + "running_var"] = torch.rand(value.shape, generator=generator) + 0.5
    state["fc.weight"], state["fc.bias"] = torch.zeros(1008, 2048), torch.zeros(1008)
    return state


def unfolded(trunk, state):
    """`state` with the layers of a folded trunk put in, behind a batch normalisation that does nothing."""
    state = dict(state)
    for key, value in trunk.items():
        if key.endswith("conv.weight"):
            state[key] = value
        else:
            bn = key.replace("conv.bias", "bn.")
            state |= {bn + "weight": torch.ones_like(value), bn + "bias": value}
            state |= {bn + "running_mean": torch.zeros_like(value)}
            state |= {bn + "running_var": torch.full_like(value, 1 - 1e-3)}
    return state


@pytest.fixture(autouse=True)
def no_weights_around(monkeypatch, tmp_path):
    """Every test starts where no weights are to be found."""
    for name in ("EXPOST_WEIGHTS", "EXPOST_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.fixture(scope="module")
def random_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(random_state(), path)
    return path


def reference_network(path, features):
    module = torch_fidelity("feature_extractor_inceptionv3")
    return module.FeatureExtractorInceptionV3("inception", [features], feature_extractor_weights_path=str(path))


def cifar(file, n):
    group = parquet.ParquetFile(file).read_row_group(0, columns=["img"])
    rows = group.slice(0, n).column("img").to_pylist()
    pictures = [np.array(Image.open(io.BytesIO(row["bytes"])).convert("RGB")) for row in rows]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


# The network


@pytest.mark.parametrize("size", [(32, 32), (299, 299), (17, 40), (400, 301), (1, 1)])
def test_resizing_is_that_of_tensorflow_1_to_the_bit(size):
    module = torch_fidelity("interpolate_compat_tensorflow")
    x = torch.randint(0, 256, (2, 3, *size), generator=torch.Generator().manual_seed(0)).float()
    expected = module.interpolate_bilinear_2d_like_tensorflow1x(x, (299, 299), align_corners=False)
    assert torch.equal(resize_tf1(x), expected)


def test_the_whole_network_equals_torch_fidelity_on_random_weights(random_file, monkeypatch):
    monkeypatch.setenv("EXPOST_WEIGHTS", str(random_file))
    x = torch.randint(0, 256, (3, 3, 40, 56), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    x[1] //= 4
    x[2, :, :20] = 255
    with torch.inference_mode():
        expected = reference_network(random_file, "2048")(x)[0]
    features = InceptionFeatures(2048)(x)
    assert expected.std(0).mean() > 0.05 * expected.abs().mean()  # images differ, so that agreement means something
    assert (features - expected).norm() < 1e-5 * expected.norm()
    assert (features - expected).abs().max() < 1e-4 * expected.abs().max()
    check_contract(InceptionFeatures(2048), x[:, :1, :32, :32])


def test_names_are_those_of_the_published_file(random_file):
    """A state dictionary goes in only if names and shapes fit; torch-fidelity's constructor checks that strictly."""
    state = read_state(random_file)
    assert set(reference_network(random_file, "64").state_dict()) - set(state) == {
        name for name in reference_network(random_file, "64").state_dict() if name.endswith("num_batches_tracked")
    }
    assert {name.partition(".")[0] for name in state} >= set(BLOCKS)


@pytest.fixture(scope="module")
def real(shared_data, tmp_path_factory):
    """Real images, with their 768 features by torch-fidelity's network with the real trunk, and by ours."""
    digits = torch.from_numpy(read_idx(shared_data / "mnist" / "t10k-images-idx3-ubyte.gz")[:4].copy())
    digits = torch.nn.functional.pad(digits, (2, 2, 2, 2))[:, None].expand(-1, 3, -1, -1)
    x = torch.cat([cifar(shared_data / "cifar10" / "test-00000-of-00001.parquet", 12), digits])
    path = tmp_path_factory.mktemp("real") / "real.pth"
    torch.save(unfolded(load_file(shared_data / "inception" / TRUNK), random_state()), path)
    with torch.inference_mode():
        expected = torch.cat([reference_network(path, "768")(part)[0] for part in x.split(4)])
    return x, expected, path


def test_the_real_trunk_equals_torch_fidelity_on_real_images(real, shared_data, monkeypatch):
    x, expected, path = real
    monkeypatch.setenv("EXPOST_WEIGHTS", str(shared_data / "inception" / TRUNK))
    features = InceptionFeatures(768)
    z = features(x)
    assert (z - expected).norm() < 1e-5 * expected.norm()
    assert ((z - expected).norm(dim=1) < 1e-4 * expected.norm(dim=1)).all()
    fid_768 = frechet_distance(Statistics.of(z[:6]), Statistics.of(z[6:]))
    fid = torch_fidelity("metric_fid")
    statistics = [fid.fid_features_to_statistics(part) for part in (expected[:6], expected[6:])]
    reference = fid.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert reference > 0.5
    assert fid_768 == pytest.approx(reference, abs=0.01)

    # The same weights with their batch normalisation beside them give the same features.
    monkeypatch.setenv("EXPOST_WEIGHTS", str(path))
    torch.testing.assert_close(InceptionFeatures(768)(x[:2]), z[:2], rtol=1e-4, atol=1e-5)

    # Gray images count as RGB ones with equal channels; what the network is given decides, not the name of the file.
    gray = x[10:14, :1]
    torch.testing.assert_close(features(gray), features(gray.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)

    half = InceptionFeatures(768, precision="bfloat16")
    assert half.weights_hash == features.weights_hash
    assert half.protocol()["precision"] == "bfloat16"
    assert features.protocol()["precision"] == "float32"
    error = (half(x[8:]) - z[8:]).norm() / z[8:].norm()
    assert 1e-4 < error < 0.02


def test_the_frechet_distance_of_the_same_features_is_torch_fidelitys_to_rounding():
    fid = torch_fidelity("metric_fid")
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(20, 50, generator=generator, dtype=torch.float64)
    x, y = (
        (scale * torch.randn(n, 20, generator=generator).double() @ mixing).relu() for n, scale in ((300, 1), (250, 2))
    )
    theirs = fid.fid_statistics_to_metric(*map(fid.fid_features_to_statistics, (y, x)), verbose=False)
    expected = theirs["frechet_inception_distance"]
    assert expected > 10
    assert frechet_distance(Statistics.of(x), Statistics.of(y)) == pytest.approx(expected, rel=1e-9)


# Folding


def test_folding_is_batch_normalisation(random_file):
    generator = torch.Generator().manual_seed(1)
    conv, bn = torch.nn.Conv2d(3, 5, 3, bias=False), torch.nn.BatchNorm2d(5, eps=1e-3).eval()
    for value in (bn.weight, bn.bias, bn.running_mean, bn.running_var):
        value.data.copy_(torch.rand(5, generator=generator) + 0.01)
    state = {"a.conv.weight": conv.weight} | {f"a.bn.{name}": value for name, value in bn.state_dict().items()}
    shapes = {"a.conv.weight": torch.Size([5, 3, 3, 3]), "a.conv.bias": torch.Size([5])}
    folded = fold({name: value.detach() for name, value in state.items()}, shapes, "here")
    x = torch.randn(2, 3, 8, 8, generator=generator)
    with torch.inference_mode():
        ours = torch.nn.functional.conv2d(x, folded["a.conv.weight"], folded["a.conv.bias"])
        torch.testing.assert_close(ours, bn(conv(x)), rtol=1e-5, atol=1e-5)
    again = fold(folded, shapes, "here")
    assert all(torch.equal(again[name], folded[name]) for name in shapes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("Mixed_6b.branch7x7_2.conv.weight"), "has no Mixed_6b.branch7x7_2.conv.weight"),
        (lambda s: s.pop("Mixed_6b.branch1x1.bn.bias"), r"has no Mixed_6b.branch1x1.bn.bias"),
        (lambda s: s.update({"Conv2d_1a_3x3.conv.weight": torch.zeros(32, 1, 3, 3)}), "has shape"),
        (lambda s: s.update({"Conv2d_1a_3x3.bn.bias": torch.zeros(7)}), "do not fit each other"),
        (lambda s: s["Mixed_5b.branch1x1.bn.running_var"].fill_(-1), "variance is negative"),
        (lambda s: s["Mixed_5b.branch1x1.conv.weight"].fill_(float("nan")), "holds NaN"),
    ],
)
def test_weights_of_another_network_are_refused(change, message):
    state = random_state()
    change(state)
    shapes = {name: value.shape for name, value in inception(768).state_dict().items()}
    with pytest.raises(DataError, match=message):
        fold(state, shapes, "file.pth")


# Finding


def test_places_are_tried_in_order(tmp_path, monkeypatch, shared_data):
    assert find_weights("Mixed_6e") is None
    assert not FEATURES["inception-768"].available()

    def put(folder, name):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
        return folder / name

    hub = put(tmp_path / "torch" / "hub" / "checkpoints", PUBLIC.name)
    assert find_weights("Mixed_7c") == hub
    monkeypatch.setenv("EXPOST_DATA", str(tmp_path / "data"))
    data = put(tmp_path / "data" / "inception", "weights-inception-2015-12-05-6726825d.pth")
    assert find_weights("Mixed_7c") == data
    cached = put(tmp_path / "cache" / "expost", PUBLIC.name)
    assert find_weights("Mixed_7c") == cached
    put(tmp_path / "given", "unrelated.pth")
    monkeypatch.setenv("EXPOST_WEIGHTS", str(tmp_path / "given"))
    assert find_weights("Mixed_7c") == cached
    monkeypatch.setenv("EXPOST_WEIGHTS", str(tmp_path / "given" / "unrelated.pth"))
    assert find_weights("Mixed_7c") == tmp_path / "given" / "unrelated.pth"
    monkeypatch.setenv("EXPOST_WEIGHTS", str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="nowhere, which does not exist"):
        find_weights("Mixed_7c")


def test_a_trunk_serves_768_features_only(tmp_path, monkeypatch):
    trunk = tmp_path / "data" / "inception" / TRUNK
    trunk.parent.mkdir(parents=True)
    write_tensors(trunk, {"Mixed_6e.branch1x1.conv.bias": torch.zeros(1)})
    monkeypatch.setenv("EXPOST_DATA", str(tmp_path / "data"))
    assert find_weights("Mixed_6e") == trunk
    assert find_weights("Mixed_7c") is None
    assert FEATURES["inception-768"].available()
    assert not FEATURES["inception-2048"].available()


def test_options_out_of_range_are_refused_before_anything_is_read():
    with pytest.raises(UsageError, match="768 or 2048"):
        InceptionFeatures(64)
    with pytest.raises(UsageError, match="float32 or bfloat16"):
        InceptionFeatures(768, precision="float16")  # type: ignore[arg-type]


def test_files_that_are_not_weights_are_refused(tmp_path, monkeypatch):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    bad = {
        "truncated.pth": b"PK\x03\x04 cut",
        "empty.pth": b"",
        "text.pth": b"<!DOCTYPE html> not found",
        "bomb.pth": pickle.dumps({"x": Bomb()}),
        "cut.safetensors": b"\x10\0\0\0\0\0\0\0{",
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    torch.save({"x": 3}, tmp_path / "number.pth")
    for name in [*bad, "number.pth"]:
        monkeypatch.setenv("EXPOST_WEIGHTS", str(tmp_path / name))
        with pytest.raises(DataError, match=name) as caught:
            InceptionFeatures(2048)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "exploded").exists()


def test_a_file_with_the_published_name_must_be_the_published_file(tmp_path, random_file, monkeypatch):
    fake = tmp_path / PUBLIC.name
    fake.write_bytes(random_file.read_bytes())
    monkeypatch.setenv("EXPOST_WEIGHTS", str(fake))
    with pytest.raises(DataError, match="is not the published file"):
        InceptionFeatures(768)
    assert not verify(random_file, PUBLIC)
    monkeypatch.setenv("EXPOST_WEIGHTS", str(random_file))
    features = InceptionFeatures(768)
    assert "not checked" in features.protocol()["weights"]
    assert features.weights_hash != InceptionFeatures(2048).weights_hash


# Fetching. The server is real, on the loopback interface; only the file is small.

CONTENT = bytes(range(256)) * 40


BODIES = {
    "/good": CONTENT,
    "/altered": CONTENT[:-1] + b"!",
    "/short": CONTENT[:5000],
    "/cut": CONTENT[:5000],
    "/long": CONTENT + b"more",
}


class Server(http.server.ThreadingHTTPServer):
    """Records the paths of all requests."""

    def __init__(self, bodies):
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies = bodies
        self.paths: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    @classmethod
    @contextmanager
    def of(cls, bodies):
        """Serve these bodies by their paths."""
        with cls(bodies) as running:
            thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            try:
                yield running
            finally:
                running.shutdown()
                thread.join()


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        self.server.paths.append(self.path)
        body = self.server.bodies.get(self.path)
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT) if self.path == "/cut" else len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server.of(BODIES) as running:
        yield running


def published(*urls):
    return PublicFile("pt.pth", urls, hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))


def test_a_file_is_fetched_once_and_whole(server, tmp_path):
    path = download(tmp_path / "new" / "cache", published(f"{server.url}/good"))
    assert path == tmp_path / "new" / "cache" / "pt.pth"
    assert path.read_bytes() == CONTENT
    assert [each.name for each in path.parent.iterdir()] == ["pt.pth"]
    assert verify(path, published())


def test_what_is_cached_is_not_fetched_again(server, tmp_path):
    public = PublicFile(PUBLIC.name, (f"{server.url}/good",), published().sha256, len(CONTENT))
    first = find_or_download("Mixed_7c", public)
    assert first == tmp_path / "cache" / "expost" / PUBLIC.name
    assert find_or_download("Mixed_7c", public) == first
    assert server.paths == ["/good"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/altered", "SHA-256 .* contents are altered"),
        ("/short", "5000 bytes, published 10240"),
        ("/cut", "(5000 bytes, published 10240|IncompleteRead)"),
        ("/long", "more than the published 10240 bytes"),
        ("/missing", "404"),
    ],
)
def test_a_bad_download_leaves_nothing_and_says_what_to_do(server, tmp_path, path, reason):
    with pytest.raises(DataError, match=reason) as caught:
        download(tmp_path / "cache", published(f"{server.url}{path}"))
    message = str(caught.value)
    assert "\n" not in message
    assert "pt.pth" in message
    assert re.search(rf"put it into {tmp_path / 'cache'} \(10,240 bytes, SHA-256 [0-9a-f]{{64}}\)", message)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_bad_download_keeps_the_file_that_was_there(server, tmp_path):
    (tmp_path / "pt.pth").write_bytes(b"old")
    with pytest.raises(DataError, match="altered"):
        download(tmp_path, published(f"{server.url}/altered"))
    assert (tmp_path / "pt.pth").read_bytes() == b"old"


def test_the_next_server_is_tried(server, tmp_path):
    public = published(f"{server.url}/missing", f"{server.url}/altered", f"{server.url}/good")
    assert download(tmp_path, public).read_bytes() == CONTENT
    assert server.paths == ["/missing", "/altered", "/good"]


def test_offline_it_says_which_file_to_put_where(server, tmp_path):
    server.shutdown()
    server.server_close()
    with pytest.raises(
        DataError, match=r"cannot download pt.pth .*refused.*; fetch it on another machine.*SHA-256 [0-9a-f]{64}"
    ):
        download(tmp_path, published(f"{server.url}/good"))
    with pytest.raises(DataError, match=f"put it into {tmp_path / 'cache' / 'expost'} .*, or set EXPOST_WEIGHTS to it"):
        find_or_download("Mixed_7c", published(f"{server.url}/good"))
    with pytest.raises(DataError, match="unknown url type"):
        download(tmp_path, published("nonsense"))


def test_the_published_facts_agree_with_the_name():
    assert PUBLIC.sha256.startswith("6726825d")
    assert len(PUBLIC.sha256) == 64
    assert all("6726825d" in name for name in (PUBLIC.name, *PUBLIC.aliases, *PUBLIC.urls))
    assert weights.NAMES[0] == PUBLIC.name
