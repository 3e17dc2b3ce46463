"""DINOv2 and CLIP against transformers and torch-fidelity on random weights; how their files are found and refused."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from test_inception import Server, torch_fidelity
from test_metrics import random_vit

from expost.commands.scoring import score
from expost.errors import DataError, UsageError
from expost.metrics import FEATURES, VisionFeatures, vision
from expost.metrics.vision import ENCODERS, find_encoder
from expost.metrics.vit import VisionTransformer, adapted, clip, dinov2, resized_positions
from expost.utils.downloads import PublicFile
from expost.utils.store import write_tensors

DINO = replace(dinov2(48, 2, 3, side=56), grid=4)
CLIP = clip(48, 2, 3, 14, 56, 20)


@pytest.fixture(autouse=True)
def no_weights_around(monkeypatch, tmp_path):
    """Every test starts where no weights are to be found."""
    for name in ("EXPOST_WEIGHTS", "EXPOST_DATA"):
        monkeypatch.delenv(name, raising=False)
    for name in ("XDG_CACHE_HOME", "TORCH_HOME", "HF_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))


def network_of(state, shape):
    network = VisionTransformer(shape)
    network.load_state_dict(adapted(state, shape, "file"))
    return network.eval().requires_grad_(False)


def images(n, *size, seed=0):
    return torch.randint(0, 256, (n, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def transformers():
    torch_fidelity("helpers")  # lets torchvision be imported, which transformers imports where it is installed
    return pytest.importorskip("transformers", exc_type=ImportError)


# The networks


def randomized(network):
    generator = torch.Generator().manual_seed(3)
    for name, value in network.named_parameters():
        scale = value[0].numel() ** -0.5 if value.dim() > 1 and "embedding" not in name else 0.3
        value.data = scale * torch.randn(value.shape, generator=generator)
        if "norm" in name and name.endswith("weight"):
            value.data += 1
    return network.eval().requires_grad_(False)


def test_dinov2_is_that_of_transformers(transformers):
    config = transformers.Dinov2Config(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=3, image_size=56, patch_size=14
    )
    theirs = randomized(transformers.Dinov2Model(config))
    x = torch.randn(3, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    expected = theirs(x).pooler_output
    assert expected.std(0).mean() > 0.05 * expected.abs().mean()
    state = theirs.state_dict()
    torch.testing.assert_close(network_of(state, DINO)(x), expected, rtol=1e-4, atol=1e-5)
    # the names in the Hub's file, which earlier versions of transformers have
    older = {
        "q_proj": "attention.query",
        "k_proj": "attention.key",
        "v_proj": "attention.value",
        "o_proj": "output.dense",
    }
    for new, old in older.items():
        state = {name.replace(f"attention.{new}", f"attention.{old}"): value for name, value in state.items()}
    assert "encoder.layer.1.attention.attention.query.weight" in state
    torch.testing.assert_close(network_of(state, DINO)(x), expected, rtol=1e-4, atol=1e-5)


def test_clip_is_that_of_transformers_with_its_text_encoder_beside_it(transformers):
    config = transformers.CLIPVisionConfig(
        hidden_size=48, intermediate_size=192, num_hidden_layers=2, num_attention_heads=3, image_size=56, patch_size=14,
        projection_dim=20,
    )  # fmt: skip
    theirs = randomized(transformers.CLIPVisionModelWithProjection(config))
    x = torch.randn(3, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    expected = theirs(x).image_embeds
    assert expected.std(0).mean() > 0.05 * expected.abs().mean()
    state = theirs.state_dict() | {"text_model.final_layer_norm.weight": torch.ones(7), "logit_scale": torch.ones(())}
    torch.testing.assert_close(network_of(state, CLIP)(x), expected, rtol=1e-4, atol=1e-5)


def test_dinov2_and_its_normalization_are_torch_fidelitys_on_images_of_its_size(monkeypatch, tmp_path):
    """torch-fidelity asks torch.hub for the network; here it gets ours, and all that is around it is theirs."""
    module = torch_fidelity("feature_extractor_dinov2")
    shape = dinov2(48, 1, 3)
    state = random_vit(shape)
    monkeypatch.setattr(torch.hub, "load", lambda repository, name: network_of(state, shape))
    theirs = module.FeatureExtractorDinoV2("dinov2-vit-b-14", ["dinov2"])
    x = images(2, 3, 224, 224)
    expected = theirs(x)[0]
    encoder = written(monkeypatch, tmp_path, "dinov2", shape, state)
    torch.testing.assert_close(VisionFeatures(encoder)(x), expected, rtol=1e-4, atol=1e-5)


def test_positions_are_resized_at_the_step_of_dinov2s_authors():
    """Cubic convolution with a = -3/4, column i of 16 at (i + 1/2) 37 / 16.1 - 1/2 of 37."""

    def weight(x):
        x = abs(x)
        if x <= 1:
            return 1.25 * x**3 - 2.25 * x**2 + 1
        return -0.75 * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0

    matrix = np.zeros((16, 37))
    for i, at in enumerate((np.arange(16) + 0.5) * 37 / 16.1 - 0.5):
        for k in range(int(np.floor(at)) - 1, int(np.floor(at)) + 3):
            matrix[i, np.clip(k, 0, 36)] += weight(at - k)
    grid = np.random.default_rng(0).normal(size=(37, 37, 3))
    expected = np.einsum("ij,jkc,lk->ilc", matrix, grid, matrix)
    token = torch.full((1, 1, 3), 9.0)
    found = resized_positions(torch.cat([token, torch.from_numpy(grid).float().reshape(1, -1, 3)], dim=1), 16)
    assert torch.equal(found[:, :1], token)
    torch.testing.assert_close(found[0, 1:].reshape(16, 16, 3).double(), torch.from_numpy(expected), rtol=0, atol=2e-5)
    same = torch.randn(1, 17, 5)
    assert torch.equal(resized_positions(same, 4), same)


# Preprocessing


@pytest.mark.parametrize("size", [(8, 8), (224, 224), (300, 170), (32, 40)])
@pytest.mark.parametrize("name", ["dinov2", "clip"])
def test_images_are_resized_and_normalized_as_dgm_eval_does(size, name):
    """Channel by channel with Pillow in floating point, bicubic, cut off at 0 and 255; whatever the shape."""
    encoder = ENCODERS[name]
    x = images(1, 3, *size)
    expected = []
    for channel, mean, std in zip(x[0].float().numpy(), encoder.mean, encoder.std, strict=True):
        resized = Image.fromarray(channel).resize((224, 224), resample=Image.Resampling.BICUBIC)
        expected.append((np.asarray(resized).clip(0, 255) / 255 - mean) / std)
    torch.testing.assert_close(encoder.prepared(x)[0], torch.from_numpy(np.stack(expected)).float(), rtol=0, atol=2e-4)


def test_clips_preprocessing_is_that_of_transformers_but_for_its_rounding(transformers):
    encoder = ENCODERS["clip"]
    processor = transformers.CLIPImageProcessor(do_center_crop=False, size={"height": 224, "width": 224})
    assert tuple(processor.image_mean) == encoder.mean
    assert tuple(processor.image_std) == encoder.std
    x = images(1, 3, 60, 90)
    smooth = torch.nn.functional.avg_pool2d(x.float(), 5, 1).round().to(torch.uint8)
    picture = Image.fromarray(smooth[0].permute(1, 2, 0).numpy())
    theirs = torch.as_tensor(np.stack(processor(picture)["pixel_values"]))
    assert (encoder.prepared(smooth) - theirs).abs().max() < 1.5 / 255 / min(encoder.std)


# The file


def written(monkeypatch, tmp_path, name, shape, state):
    """Put a network of another shape in the place of a published one, with its weights in the cache."""
    encoder = replace(ENCODERS[name], shape=shape)
    monkeypatch.setitem(vision.ENCODERS, name, encoder)
    path = tmp_path / "XDG_CACHE_HOME" / "expost" / encoder.names[-1]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, state)
    return encoder


def test_places_are_tried_in_order(tmp_path, monkeypatch):
    encoder = ENCODERS["dinov2"]
    name = "dinov2_vitb14_pretrain.pth"
    assert find_encoder(encoder) is None
    assert not FEATURES["dinov2"].available()

    def put(*parts):
        path = tmp_path.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        return path

    hub = put("TORCH_HOME", "hub", "checkpoints", name)
    assert find_encoder(encoder) == hub
    monkeypatch.setenv("EXPOST_DATA", str(tmp_path / "data"))
    data = put("data", "vision", name)
    assert find_encoder(encoder) == data
    cached = put("XDG_CACHE_HOME", "expost", name)
    assert find_encoder(encoder) == cached
    given = put("given", "dinov2_vitb14_pretrain.safetensors")
    monkeypatch.setenv("EXPOST_WEIGHTS", str(given.parent))
    assert find_encoder(encoder) == given
    monkeypatch.setenv("EXPOST_WEIGHTS", str(put("other", "pt_inception-2015-12-05-6726825d.pth")))
    assert find_encoder(encoder) == cached  # a file of another network says nothing of this one
    monkeypatch.setenv("EXPOST_WEIGHTS", str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="nowhere, which does not exist"):
        find_encoder(encoder)


def test_clip_is_found_in_the_hubs_cache_and_checked_there(tmp_path):
    encoder = ENCODERS["clip"]
    path = tmp_path / "HF_HOME" / "hub" / encoder.hub
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not these weights")
    assert path.name == "pytorch_model.bin"
    assert find_encoder(encoder) == path
    with pytest.raises(DataError, match="pytorch_model.bin is not the published file"):
        FEATURES["clip"].load("cpu")


def test_a_published_file_is_fetched_checked_and_said_to_be_so(tmp_path, monkeypatch):
    """From a real server on the loopback interface; the file is small, with a hash of its own."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    torch.save(random_vit(DINO), tmp_path / "served.pth")
    body = (tmp_path / "served.pth").read_bytes()
    sha256 = hashlib.sha256(body).hexdigest()
    with Server.of({"/good": body, "/altered": body[:-1] + b"!"}) as server:
        for path, said in (("/altered", "contents are altered"), ("/missing", "404")):
            public = PublicFile("tiny.pth", (f"{server.url}{path}",), sha256, len(body))
            with pytest.raises(DataError, match=said) as caught:
                VisionFeatures(replace(ENCODERS["dinov2"], shape=DINO, public=public))
            assert "\n" not in str(caught.value)
            assert "put it into" in str(caught.value)
            assert "EXPOST_WEIGHTS" in str(caught.value)
        public = PublicFile("tiny.pth", (f"{server.url}/good",), sha256, len(body))
        encoder = replace(ENCODERS["dinov2"], shape=DINO, public=public)
        first = VisionFeatures(encoder)
        assert first.protocol()["weights"] == "published file, SHA-256 checked"
        assert VisionFeatures(encoder).weights_hash == first.weights_hash
        assert server.paths.count("/good") == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.pop("blocks.1.attn.qkv.weight"), "has no blocks.1.attn.qkv.weight; it is another network"),
        (lambda s: s.update({"patch_embed.proj.weight": torch.zeros(48, 3, 16, 16)}), r"shape \(48, 3, 16, 16\)"),
        (lambda s: s.update({"pos_embed": torch.zeros(1, 10, 48)}), r"pos_embed has shape \(1, 10, 48\)"),
        (lambda s: s["norm.bias"].fill_(float("nan")), "norm.bias holds NaN"),
        (lambda s: s.update({"cls_token": torch.zeros(1, 1, 48, dtype=torch.int64)}), "no floating-point numbers"),
    ],
)
def test_weights_of_another_network_are_refused_in_a_line(change, said):
    state = random_vit(DINO)
    change(state)
    with pytest.raises(DataError, match=said) as caught:
        adapted(state, DINO, "file.pth")
    assert str(caught.value).startswith("file.pth")
    assert "\n" not in str(caught.value)


def test_a_folder_of_images_is_scored_on_them(tmp_path, monkeypatch):
    """Images of any size; a score's card says how they came to the network's."""
    written(monkeypatch, tmp_path, "clip-l-336", CLIP, random_vit(CLIP))
    rng = np.random.default_rng(0)
    for name, seed in (("one", 0), ("two", 1)):
        (tmp_path / name).mkdir()
        for k in range(30):
            noise = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8) // (1 + seed)
            Image.fromarray(noise).save(tmp_path / name / f"{k}.png")
    found = {each.name: each for each in score(tmp_path / "one", tmp_path / "two", features="clip-l-336")}
    assert {"frechet-clip-l-336", "cmmd", "monge-distance", "vendi", "precision", "coverage", "kernel-distance"} <= set(
        found
    )
    for each in found.values():
        assert each.card.features == "clip-l-336"
        assert "bicubic, antialiased, to 56x56" in each.card.preprocessing["resize"]
        assert "smaller images are enlarged" in each.card.preprocessing["resize"]
        assert each.uncertainty is not None
        assert each.uncertainty >= 0
    assert found["cmmd"].card.settings["bandwidth"] == 10
