"""What a training step asks of a device: it never waits, and launches as much for a large batch as for a small one."""

from collections import Counter
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from step_cases import IMAGES, STRINGS, SUMS, Ready, images, strings, training
from torch.utils._python_dispatch import TorchDispatchMode

from expost.grammar.codec import CharacterCodec, GrammarCodec

#: Operations whose result, or its shape, the host has to wait for.
WAITING = (
    "_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "nonzero_numpy", "argwhere", "masked_select",
    "unique_dim", "unique_consecutive", "unique_dim_consecutive", "_unique", "_unique2", "bincount", "histc",
    "repeat_interleave",
)  # fmt: skip


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


def watched(made, monkeypatch):
    """Take two steps, and watch the second: what is copied or allocated once need not be counted."""
    order = torch.randperm(len(made.batches)).to(made.batches.home)
    if made.device.type == "meta":  # which has no autocast
        monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())
    made.step(order)
    x = made.batches.take(order[: made.batch_size])  # in training it is there before
    made.batches = Ready(x)
    made.position.step = 0
    watch = Watch()
    with monkeypatch.context() as patch, watch:
        for where, name in ((torch, "tensor"), (torch, "as_tensor"), (torch.Tensor, "new_tensor")):
            patch.setattr(where, name, partial(copied, name))
        loss = made.step(order)
    assert loss.total.device.type == made.device.type
    return watch.counts


#: Models of images, with the regularizers' variants.
CASES = [
    *((name, {}) for name in IMAGES),
    ("rae-gp", {"regularizer.fraction": 0.5}),
    ("rae-gp", {"regularizer.estimator": "forward"}),
    ("rae-sn", {"regularizer.scope": "both"}),
]


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_a_step_on_images_never_waits_and_launches_the_same_for_any_batch(name, options, device, monkeypatch):
    """ "meta" holds no numbers, so that what asks for one fails, and takes the ways of an accelerator."""
    counts = [
        watched(training(images(batch), name, device, batch, options=options, width=2), monkeypatch) for batch in (4, 8)
    ]
    assert counts[0] == counts[1]
    assert 50 < counts[0].total() < 1500


@pytest.mark.parametrize(("name", "network"), STRINGS)
def test_a_step_on_strings_never_waits_and_launches_the_same_for_any_batch(name, network, monkeypatch):
    """Not on the CPU, where rows are cut to the longest, and what costs nothing is left out."""
    codec = CharacterCodec("x123+*", 30) if name == "character-vae" else GrammarCodec(SUMS, 30)
    options, sizes = {"reconstruction.groups": codec.groups().tolist()}, {"width": 16, "latent_dim": 5}
    counts = [
        watched(
            training(strings(batch, codec), name, "meta", batch, options=options, network=network, **sizes),
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
