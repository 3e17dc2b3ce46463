"""What runs on a GPU, against the CPU: every body runs on both, and is skipped for the GPU where there is none."""

import copy
import json
import os
import signal
from contextlib import ExitStack, contextmanager, nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from step_cases import IMAGES, STRINGS, SUMS, Ready, images, strings, training
from torch import nn

from expost.densities import load_density
from expost.densities.conditional import ConditionalDensity
from expost.errors import Interrupted, UsageError
from expost.estimators import RegularizedAutoencoder
from expost.generators.generator import Generator
from expost.grammar.codec import CharacterCodec, GrammarCodec
from expost.grammar.decode import finished
from expost.grammar.stepwise import Stepwise
from expost.metrics.digits import DigitFeatures
from expost.metrics.features import Features, PixelFeatures, StandardizedValues
from expost.metrics.frechet import RunningStatistics, frechet_distance
from expost.metrics.kernel import kernel_distance
from expost.metrics.memorization import authenticity, copying_test
from expost.metrics.neighbours import neighbour_scores
from expost.metrics.prd import prd
from expost.models.autoencoder import build
from expost.models.jacobians import jvp, jvp_in_reverse
from expost.models.penalties import Penalty
from expost.models.presets import configure
from expost.models.regularizers import GradientPenalty
from expost.networks import convolution
from expost.networks.layers import SameConv2d, SameConvTranspose2d
from expost.networks.normalization import BatchNorm2d
from expost.networks.sequence import RecurrentDecoder
from expost.training import batches
from expost.training.batches import Batches
from expost.training.cuda_graph import FIRST_CALLS, Recorded, recordable
from expost.training.devices import place
from expost.training.loop import Loop
from expost.training.trainer import Training
from expost.types import LatentCode, Loss
from expost.utils.precision import full_float32
from expost.utils.store import read_tensors

every_device = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])

#: How far a loss may be from the CPU's, relatively: a millionth more in the weights moves it by up to a hundredth.
TOLERANCES = {"float32": 0.03, "bf16": 0.1}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def made_up(count=32):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return images(count)


@pytest.fixture
def same_noise(monkeypatch):
    """Draw noise on the CPU whatever the device, which no recording could."""
    monkeypatch.setattr("expost.training.loop.recordable", lambda model, device: False)
    for name in ("randn", "randint"):
        drawn = getattr(torch, name)

        def draw(*given, device=None, drawn=drawn, **options):
            return drawn(*given, **options).to(device)

        monkeypatch.setattr(torch, name, draw)


def trained(data, name, device, folder, precision="float32", epochs=2, options=None, **model):
    """Train, and return the loss of each epoch in training and on validation examples."""
    settings = {
        "epochs": epochs, "batch_size": 8, "device": device, "precision": precision, "tensorboard": False, "lr": 1e-3,
    }  # fmt: skip
    config, how = configure(name, data.shape, "paper", model, settings, options)
    torch.manual_seed(0)
    Training(build(config), data, how, folder).run()
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line[part]["total"] for line in lines for part in ("train", "validation")]


@every_device
@pytest.mark.parametrize("name", IMAGES)
def test_models_of_images_learn_as_on_the_cpu(name, device, tmp_path, same_noise):
    data = made_up()
    expected = trained(data, name, "cpu", tmp_path / "cpu", width=4, latent_dim=4)
    for precision, tolerance in TOLERANCES.items():
        found = trained(data, name, device, tmp_path / precision, precision, width=4, latent_dim=4)
        assert found == pytest.approx(expected, rel=tolerance)


@every_device
@pytest.mark.parametrize(("name", "network"), STRINGS)
def test_models_of_strings_learn_as_on_the_cpu(name, network, device, tmp_path, same_noise):
    codec = CharacterCodec("x123+*", 30) if name == "character-vae" else GrammarCodec(SUMS, 30)
    data, groups = strings(32, codec), {"reconstruction.groups": codec.groups().tolist()}
    sizes = {"network": network, "width": 16, "latent_dim": 5}
    expected = trained(data, name, "cpu", tmp_path / "cpu", options=groups, **sizes)
    for precision, tolerance in TOLERANCES.items():
        found = trained(data, name, device, tmp_path / precision, precision, options=groups, **sizes)
        assert found == pytest.approx(expected, rel=tolerance)


@every_device
@pytest.mark.parametrize("name", ["rae-l2", "vae", "vq-vae"])
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not(name, device, tmp_path, monkeypatch):
    data = made_up()
    expected = trained(data, name, device, tmp_path / "whole", epochs=3, width=4, latent_dim=4)
    step = Loop.step

    def stopping(self, order):
        loss = step(self, order)
        if self.position.steps == 6:
            os.kill(os.getpid(), signal.SIGINT)
        return loss

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "step", stopping)
        with pytest.raises(Interrupted):
            trained(data, name, device, tmp_path / "stopped", epochs=3, width=4, latent_dim=4)
    found = trained(data, name, device, tmp_path / "stopped", epochs=3, width=4, latent_dim=4)
    # a GPU adds up in another order each time, and of a bias before batch norm Adam takes the rounding for a gradient
    assert found == (expected if device == "cpu" else pytest.approx(expected, rel=5e-3))
    if device == "cpu":
        whole, stopped = (read_tensors(tmp_path / each / "model.safetensors")[0] for each in ("whole", "stopped"))
        for key, value in whole.items():
            assert torch.equal(value, stopped[key])


@contextmanager
def never_waiting(device):
    if device == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("default")


@every_device
@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("name", IMAGES)
def test_a_step_never_waits(name, precision, device):
    made = training(made_up(8), name, device, 4, precision, width=4)
    order = torch.arange(8, device=made.batches.home)
    made.step(order)  # what is placed once
    made.batches = Ready(made.batches.take(order[:4]))
    for step in range(1, 7):
        with never_waiting(device) if step != FIRST_CALLS else nullcontext():  # then it is recorded, once
            loss = made.step(order)
    assert loss.total.isfinite()
    assert (device == "cuda") == (made.recorded is not None and made.recorded._graph is not None)


CASES = [*((name, {}) for name in IMAGES), ("rae-gp", {"regularizer.fraction": 0.5})]


def recorded_and_not(data, name, monkeypatch, precision="float32", **options):
    """Take ten steps twice, recorded and launched one by one; return the losses of both."""
    both = []
    for recorded in (True, False):
        with monkeypatch.context() as patch:
            if not recorded:
                patch.setattr("expost.training.loop.recordable", lambda model, device: False)
            made = training(data, name, "cuda", 4, precision, **options)
            assert (made.recorded is not None) == recorded
            order = torch.arange(40, device=made.batches.home)
            both.append([made.step(order).total.item() for _ in range(10)])
    assert len(set(both[0][FIRST_CALLS:])) == 10 - FIRST_CALLS  # noise and examples are new each time
    return both


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_recorded_steps_are_the_ordinary_ones(name, options, precision, monkeypatch):
    recorded, ordinary = recorded_and_not(made_up(40), name, monkeypatch, precision, options=options, width=4)
    assert recorded == pytest.approx(ordinary, rel=1e-3 if precision == "float32" else 2e-2)


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize(("name", "network"), STRINGS)
def test_recorded_steps_on_strings_are_the_ordinary_ones(name, network, precision, tmp_path, monkeypatch):
    codec = CharacterCodec("x123+*", 30) if name == "character-vae" else GrammarCodec(SUMS, 30)
    options, sizes = {"reconstruction.groups": codec.groups().tolist()}, {"width": 16, "latent_dim": 5}
    recorded, ordinary = recorded_and_not(
        strings(40, codec), name, monkeypatch, precision, options=options, network=network, **sizes
    )
    assert recorded == pytest.approx(ordinary, rel=1e-3 if precision == "float32" else 2e-2)


class Stub:
    """CUDA's streams and graphs as far as `Recorded` asks for them: a graph does again what was done in it."""

    def __init__(self, monkeypatch, fails):
        self.fails, self.work, self.replays = fails, None, 0
        stream = SimpleNamespace(wait_stream=lambda other: None)
        for name, value in {
            "Stream": lambda device: stream, "current_stream": lambda device: stream,
            "stream": lambda stream: nullcontext(), "CUDAGraph": lambda: SimpleNamespace(replay=self.replay),
            "graph": self.graph, "empty_cache": lambda: None,
        }.items():  # fmt: skip
            monkeypatch.setattr(torch.cuda, name, value)
        monkeypatch.setattr("expost.training.cuda_graph._end", lambda device: None)

    @contextmanager
    def graph(self, graph, stream, capture_error_mode):
        assert capture_error_mode == "thread_local"
        yield
        if self.fails is not None:
            raise self.fails

    def replay(self):
        self.replays += 1
        self.work()

    def passes(self, weight):
        """Return what computes (w x)^2 and adds its gradient, as a backward pass does."""

        def passes(x):
            loss, fresh = torch.zeros(()), weight.grad is None
            if fresh:
                weight.grad = torch.zeros(2)

            def run():
                product = (weight.detach() * x).sum()
                loss.copy_(product.square())
                before = 0 if fresh else weight.grad  # an addition that was recorded is one each time
                weight.grad.copy_(before + 2 * product * x)

            run()
            self.work = run
            return Loss(loss)

        return passes


@pytest.mark.parametrize("fails", [None, torch.OutOfMemoryError("no memory"), RuntimeError("no such thing\nmore")])
def test_what_is_recorded_is_done_again_on_each_batch_or_else_one_by_one(fails, monkeypatch):
    stub = Stub(monkeypatch, fails)
    weight = nn.Parameter(torch.tensor([1.0, -2.0]))
    recorded = Recorded(stub.passes(weight), [weight])
    examples = torch.randn(8, 2, generator=seeded())
    with pytest.warns(UserWarning, match="cannot be recorded: no") if fails else nullcontext():
        for x in examples:
            loss = recorded(x)
            product = (weight.detach() * x).sum()
            torch.testing.assert_close(loss.total, product.square())
            torch.testing.assert_close(weight.grad, 2 * product * x)
    assert stub.replays == (0 if fails else len(examples) - FIRST_CALLS)


@pytest.mark.cuda
def test_steps_that_cannot_be_recorded_are_taken_one_by_one(monkeypatch):
    both = []
    for waits in (True, False):
        made = training(made_up(40), "vae", "cuda", 4, width=4)
        order = torch.arange(40, device=made.batches.home)
        with monkeypatch.context() as patch, ExitStack() as stack:
            if waits:
                whole = made.model.loss
                patch.setattr(made.model, "loss", lambda x, whole=whole: (x.sum().item(), whole(x))[1])
                said = "steps are launched kernel by kernel, since they cannot be recorded"
                stack.enter_context(pytest.warns(UserWarning, match=said))
            both.append([made.step(order).total.item() for _ in range(10)])
    assert both[0] == pytest.approx(both[1], rel=1e-3)


def test_only_layers_that_are_known_are_recorded():
    class Own(nn.Linear):
        pass

    class OwnPenalty(Penalty):
        def __call__(self, code):
            return code.z.sum()

    cuda = torch.device("cuda")
    for name in IMAGES:
        model = build(configure(name, (1, 32, 32), "paper", {"width": 2})[0])
        assert recordable(model, cuda)
        assert not recordable(model, torch.device("cpu"))
    handle = model.encoder.register_forward_hook(lambda *given: None)
    assert not recordable(model, cuda)
    handle.remove()
    assert recordable(model, cuda)
    hook = next(model.parameters()).register_hook(lambda gradient: None)
    assert not recordable(model, cuda)
    hook.remove()
    model.decoder.forward = model.decoder.forward
    assert not recordable(model, cuda)
    del model.decoder.forward
    penalty, model.penalty = model.penalty, OwnPenalty()
    assert not recordable(model, cuda)
    model.penalty = penalty
    assert recordable(model, cuda)
    model.extra = Own(2, 2)
    assert not recordable(model, cuda)


@every_device
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_second_derivatives_of_layers_are_those_of_torch(precision, device):
    torch.manual_seed(0)
    sizes = [(1, 32, 4, 2), (32, 64, 4, 2)]
    layers = [nn.Sequential(SameConv2d(*each), BatchNorm2d(each[1]), nn.ReLU()) for each in sizes]
    layers += [nn.Sequential(SameConvTranspose2d(64, 32, 4, 2), BatchNorm2d(32), nn.ReLU())]
    fast = nn.Sequential(*layers, SameConvTranspose2d(32, 1, 4, 1))
    slow = copy.deepcopy(fast).double()
    place(fast, torch.device(device))
    for each in slow.modules():
        if isinstance(each, BatchNorm2d):
            each.__class__ = nn.BatchNorm2d
    found = []
    with pytest.MonkeyPatch.context() as patch, full_float32():
        for network, where in ((fast, device), (slow, "cpu")):
            if network is slow:
                patch.setattr(convolution, "trains", lambda x, weight: False)
            x = torch.randn(16, 1, 16, 16, generator=seeded()).to(where, next(network.parameters()).dtype)
            x.requires_grad_()
            half = torch.autocast(device, torch.bfloat16, enabled=precision == "bf16" and network is fast)
            with half, convolution.differentiated_twice():
                y = network(x)
            direction = torch.randn(y.shape, generator=seeded(1)).to(where, y.dtype)
            (gradient,) = torch.autograd.grad(y, x, direction, create_graph=True)
            gradient.float().square().sum().backward()
            weights = [each.grad.cpu().double() for each in network.parameters() if each.grad is not None]
            found.append(torch.cat([each.flatten() for each in [gradient.detach().cpu().double(), *weights]]))
    difference = (found[0] - found[1]).norm() / found[1].norm()
    assert difference < (1e-4 if precision == "float32" else 0.1)


@every_device
def test_larger_data_than_memory_come_batch_by_batch(device, monkeypatch):
    x = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8, generator=seeded())
    order = torch.randperm(40, generator=seeded())
    expected = [x[rows].float() / 255 for rows in order.split(8)]
    for free in (0, 2**40):
        monkeypatch.setattr(batches, "_free", lambda device, free=free: free)
        made = Batches(x, torch.device(device))
        assert made.resident == bool(free)
        assert made._pinned == (device == "cuda" and not free)
        rows = order.to(made.home).split(8)
        for index, batch in enumerate(rows):
            found = made.take(batch, rows[index + 1] if index + 1 < len(rows) else None)
            assert found.device.type == device
            torch.testing.assert_close(found.cpu(), expected[index])


@every_device
def test_densities_by_class(device, tmp_path):
    z = torch.randn(200, 3, generator=seeded()) + torch.arange(200)[:, None] % 3
    labels = torch.arange(200) % 3
    labels[:2] = 7  # too few for a covariance of their own
    here, there = (ConditionalDensity(base="gaussian").fit(each, labels) for each in (z, z.to(device)))
    torch.testing.assert_close(there.log_prob(z.to(device)).cpu(), here.log_prob(z))
    drawn = there.sample(20, generator=seeded())
    assert drawn.device.type == device
    torch.testing.assert_close(drawn.cpu(), here.sample(20, generator=seeded()), rtol=1e-4, atol=1e-4)
    again = ConditionalDensity.load(there.save(tmp_path))
    few = [each.sample(20, 7, generator=seeded()) for each in (again, here)]
    torch.testing.assert_close(*few, rtol=1e-4, atol=1e-4)


@every_device
@pytest.mark.parametrize("codec", [GrammarCodec(SUMS, 12), CharacterCodec("x1+", 12)], ids=["grammar", "characters"])
def test_decoding_takes_the_same_symbols(codec, device):
    logits = torch.randn(50, 12, codec.size, generator=seeded())
    assert torch.equal(codec.generate(logits.to(device)).cpu(), codec.generate(logits))
    drawn = codec.generate(logits.to(device), 1.0, torch.Generator(device).manual_seed(0))
    assert drawn.device.type == device
    assert len(codec.decode(drawn)) == 50
    if isinstance(codec, GrammarCodec):
        grammar = codec.grammar
        parts = grammar.left, grammar.children, 0, codec.size - 1
        assert torch.equal(finished(drawn, *parts).cpu(), finished(drawn.cpu(), *parts))


@every_device
def test_a_decoder_that_reads_its_output_walks_with_the_grammar(device):
    codec = GrammarCodec(SUMS, 20)
    options = {"reconstruction.groups": codec.groups().tolist()}
    sizes = {"network": "gru-autoregressive", "width": 8, "latent_dim": 4}
    made = training(strings(8, codec), "grae", "cpu", 4, options=options, **sizes)
    model, z = made.model.eval(), torch.randn(30, 4, generator=seeded())
    here = codec.generate(model.stepwise(z))
    walked = model.to(device).stepwise(z.to(device))
    assert isinstance(walked, Stepwise)
    there = codec.generate(walked)
    assert (here == there).float().mean() > 0.9  # where two logits are nearly equal, rounding decides


@every_device
def test_scores_of_features(device):
    a, b = (torch.randn(120, 6, generator=seeded(seed)) * (1 + seed) for seed in (0, 1))
    p, q = a.to(device), b.to(device)
    assert kernel_distance(p, q, 5, 50).value == pytest.approx(kernel_distance(a, b, 5, 50).value)
    assert neighbour_scores(p, q) == neighbour_scores(a, b)
    assert prd(p, q).f8 == pytest.approx(prd(a, b).f8)
    assert authenticity(p, q) == authenticity(a, b)
    for cells in (1, 3):
        there, here = copying_test(p, p + 0.1, q, cells), copying_test(a, a + 0.1, b, cells)
        assert there.c_t == pytest.approx(here.c_t, rel=1e-3)
    statistics = []
    for features, where in ((a, "cpu"), (b, "cpu"), (p, device), (q, device)):
        running = RunningStatistics(where)
        running.add(features)
        statistics.append(running.result())
    assert frechet_distance(*statistics[2:]) == pytest.approx(frechet_distance(*statistics[:2]))
    torch.testing.assert_close(StandardizedValues(p)(p).cpu(), StandardizedValues(a)(a))
    torch.testing.assert_close(StandardizedValues(a)(p).cpu(), StandardizedValues(a)(a))


@every_device
@pytest.mark.parametrize("features", [DigitFeatures, PixelFeatures])
def test_features_of_images(features: type[Features], device):
    x = made_up(10).train.x
    here, there = features(device="cpu"), features(device=device)
    torch.testing.assert_close(there(x), here(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(there.statistics(x).cov, here.statistics(x).cov, rtol=1e-3, atol=1e-4)


@every_device
def test_samples_with_a_seed_are_those_of_the_cpu(device, tmp_path):
    data = made_up(64)
    config, _ = configure("rae-l2", data.shape, "paper", {"width": 4, "latent_dim": 3})
    torch.manual_seed(0)
    model = build(config)
    here = Generator.of(model)
    here.fit("gmm", data.train.x, components=2)
    codes, samples = here.encode(data.train.x), here.sample(5, seed=1)
    here.densities["gmm"].save(tmp_path)
    place(model, torch.device(device))
    there = Generator.of(model)
    torch.testing.assert_close(there.encode(data.train.x), codes, rtol=1e-3, atol=1e-4)
    there.densities["gmm"] = load_density(tmp_path).to(device)
    found = there.sample(5, seed=1)
    assert found.device.type == "cpu"
    torch.testing.assert_close(found, samples, rtol=1e-3, atol=1e-4)


def small_decoders():
    yield "perceptron", nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 4))
    yield "recurrent", RecurrentDecoder((5, 4), 3, 6)


@every_device
@pytest.mark.parametrize("kind", ["perceptron", "recurrent"])
def test_the_gradient_penalty_is_the_jacobians_norm(kind, device):
    torch.manual_seed(0)
    decoder = dict(small_decoders())[kind]
    z = torch.randn(6, 3, generator=seeded())
    rows = [torch.autograd.functional.jacobian(lambda x: decoder(x[None])[0], each) for each in z]
    expected = sum(row.square().sum() for row in rows).item() / len(z)
    decoder, z = decoder.to(device), z.to(device)

    def penalty(estimator):
        return GradientPenalty(estimator).penalty(decoder, LatentCode(z, z))

    assert penalty("exact").item() == pytest.approx(expected, rel=1e-3)
    for estimator in ("reverse", "forward"):
        values = torch.stack([penalty(estimator).detach() for _ in range(200)])
        assert values.mean().item() == pytest.approx(expected, rel=0.2)
        penalty(estimator).backward()
    weights = [weight for weight in decoder.parameters() if weight.dim() > 1]  # the last bias has no part in it
    assert all(weight.grad is not None and bool(weight.grad.isfinite().all()) for weight in weights)


@every_device
def test_an_estimator_of_rows_fits_there(device):
    rows = np.random.default_rng(0).normal(size=(80, 4))
    fitted = RegularizedAutoencoder(latent_dim=2, epochs=3, width=8, device=device, random_state=0).fit(rows)
    assert np.isfinite(fitted.score_samples(rows)).all()


@pytest.mark.parametrize("kind", ["perceptron", "recurrent"])
def test_the_forward_derivative_comes_out_of_two_backward_ones(kind):
    torch.manual_seed(0)
    decoder = dict(small_decoders())[kind]
    z, direction = torch.randn(6, 3), torch.randn(6, 3)
    found = []
    for derivative in (jvp, jvp_in_reverse):
        value = derivative(decoder, z, direction)
        found.append([value, *torch.autograd.grad(value.square().sum(), decoder.parameters(), allow_unused=True)])
    for a, b in zip(*found, strict=True):
        if a is not None or b is not None:  # the last bias
            torch.testing.assert_close(torch.zeros_like(b) if a is None else a, torch.zeros_like(a) if b is None else b)


def test_float32_is_float32_in_the_block_and_as_it_was_after_it():
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("medium")
    try:
        with full_float32():
            assert torch.get_float32_matmul_precision() == "highest"
            assert not torch.backends.cudnn.allow_tf32
            assert not torch.backends.cuda.matmul.allow_tf32
            with torch.backends.cudnn.flags(enabled=False):
                pass
            assert not torch.backends.cudnn.allow_tf32
        assert torch.get_float32_matmul_precision() == "medium"
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.backends.cudnn.allow_tf32 = before
        torch.set_float32_matmul_precision("highest")


def test_a_full_gpu_is_one_line_that_says_what_to_lower(tmp_path, monkeypatch):
    def full(self, order):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. GPU 0 has a total capacity of ...")

    monkeypatch.setattr(Loop, "step", full)
    with pytest.raises(UsageError, match=r"batches of 8 \(CUDA out of memory\); lower --batch-size") as caught:
        trained(made_up(), "ae", "cpu", tmp_path, width=4)
    assert "\n" not in str(caught.value)
