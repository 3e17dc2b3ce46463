"""What a training step asks of a device: it never waits, and launches as much for a large batch as for a small one."""

from collections import Counter
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from expost.autoencoder import build
from expost.grammar.codec import CharacterCodec, GrammarCodec
from expost.presets import configure
from expost.replicas import Gradients
from expost.training import Training
from expost.types import Data, Split
from expost.zoo import ZOO

#: Operations whose result, or its shape, the host has to wait for.
WAITING = (
    "_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "nonzero_numpy", "argwhere", "masked_select",
    "unique_dim", "unique_consecutive", "unique_dim_consecutive", "_unique", "_unique2", "bincount", "histc",
    "repeat_interleave",
)  # fmt: skip

SUMS = "S -> T '+' S | T '*' S | T\nT -> 'x' | '1' | '2' | '3'"
IMAGES = [name for name, row in ZOO.items() if row.codec is None]
#: Models of strings, and the networks that they are tried with.
STRINGS = [
    (name, network)
    for name, networks in {
        "grae": ("gru-expressions", "convnext-1d", "transformer", "gru-autoregressive"),
        "gvae": ("gru-expressions", "gru-autoregressive"),
        "gcvvae": ("convnext-1d",),
        "character-vae": ("gru-molecules", "gru-autoregressive"),
    }.items()
    for network in networks
]


class Watch(TorchDispatchMode):
    """Counts the operations that a step launches, and refuses those that wait for the device."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name.removeprefix("aten::")
        masks = args[1] if name in ("index", "index_put", "index_put_", "_index_put_impl_") else ()
        if name in WAITING or any(mask is not None and mask.dtype in (torch.bool, torch.uint8) for mask in masks):
            raise AssertionError(f"{name} waits for the device")
        if not function.is_view:
            self.counts[name] += 1
        return function(*args, **(kwargs or {}))


def copied(name, *args, **kwargs):
    raise AssertionError(f"{name} copies from the host, which waits for the device")


def training(data, name, device, batch, folder, precision="float32", options=None, **model):
    config, settings = configure(
        name, data.shape, "paper", model,
        {"batch_size": batch, "device": device, "tensorboard": False, "clip": 1.0, "precision": precision}, options,
    )  # fmt: skip
    torch.manual_seed(0)
    made = Training(build(config), data, settings, folder)
    made._begin()
    made.gradients = Gradients([])
    if device == "meta":  # for which there is no fused Adam, as it is tested on the CPU
        made.optimizer = torch.optim.SGD(made.model.parameters(), lr=made.config.lr)
    made.model.train()
    return made


def images(count, channels=1):
    x = torch.randint(0, 256, (count, channels, 32, 32), dtype=torch.uint8)
    return Data("made up", Split(x), Split(x[:2]), Split(x[:2]))


def strings(count, codec):
    x = codec.encode(["x+1*x", "2*3*x+1", "x", "1+1"]).indices.repeat(-(-count // 4), 1)[:count]
    return Data("sums", Split(x), Split(x[:2]), Split(x[:2]), codec=codec, domain="expressions")


def watched(made, monkeypatch):
    """Take two steps, and watch the second: what is copied or allocated once need not be counted."""
    order = torch.randperm(len(made.data.train)).to(made.batches.home)
    if made.device.type == "meta":  # which has no autocast
        monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())
    made._step(order)
    x = made.batches.take(order[: made.batch_size])  # in training it is there before
    made.batches = Ready(x)
    made.position.step = 0
    watch = Watch()
    with monkeypatch.context() as patch, watch:
        for where, name in ((torch, "tensor"), (torch, "as_tensor"), (torch.Tensor, "new_tensor")):
            patch.setattr(where, name, partial(copied, name))
        loss = made._step(order)
    assert loss.total.device.type == made.device.type
    return watch.counts


class Ready:
    def __init__(self, x):
        self.x = x

    def take(self, indices, then=None):
        return self.x


#: Models of images, with the regularizers' variants.
CASES = [
    *((name, {}) for name in IMAGES),
    ("rae-gp", {"regularizer.fraction": 0.5}),
    ("rae-gp", {"regularizer.estimator": "forward"}),
    ("rae-sn", {"regularizer.scope": "both"}),
]


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_a_step_on_images_never_waits_and_launches_the_same_for_any_batch(name, options, device, tmp_path, monkeypatch):
    """ "meta" holds no numbers, so that what asks for one fails, and takes the ways of an accelerator."""
    counts = [
        watched(training(images(batch), name, device, batch, tmp_path, options=options, width=2), monkeypatch)
        for batch in (4, 8)
    ]
    assert counts[0] == counts[1]
    assert 50 < counts[0].total() < 1500


@pytest.mark.parametrize(("name", "network"), STRINGS)
def test_a_step_on_strings_never_waits_and_launches_the_same_for_any_batch(name, network, tmp_path, monkeypatch):
    """Not on the CPU, where rows are cut to the longest, and what costs nothing is left out."""
    codec = CharacterCodec("x123+*", 30) if name == "character-vae" else GrammarCodec(SUMS, 30)
    options, sizes = {"reconstruction.groups": codec.groups().tolist()}, {"width": 16, "latent_dim": 5}
    counts = [
        watched(
            training(strings(batch, codec), name, "meta", batch, tmp_path, options=options, network=network, **sizes),
            monkeypatch,
        )
        for batch in (4, 8)
    ]
    assert counts[0] == counts[1]


def test_the_watch_sees_what_waits():
    x = torch.arange(4.0)
    for waits in (lambda: x.sum().item(), lambda: x[x > 1], lambda: bool(x.any()), lambda: x.nonzero()):
        with pytest.raises(AssertionError, match="waits for the device"), Watch():
            waits()
