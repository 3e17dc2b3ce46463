"""The slots: one contract over each registry, and identities. What each entry computes is in test_slot_values."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.utils._python_dispatch import TorchDispatchMode

import expost
from expost.errors import UsageError
from expost.models.autoencoder import build
from expost.models.latents import LATENTS, ConstantVariance, Gaussian, VectorQuantized
from expost.models.penalties import (
    PENALTIES,
    HalfNorm,
    KullbackLeibler,
    MaximumMeanDiscrepancy,
    mmd,
)
from expost.models.presets import PRESETS, configure
from expost.models.reconstructions import RECONSTRUCTIONS
from expost.models.regularizers import REGULARIZERS, GradientPenalty, SpectralNorm, Tikhonov
from expost.networks.layers import SameConv2d, SameConvTranspose2d
from expost.registry import Part, construct
from expost.types import LatentCode, layout_of


def plain_code(z):
    return LatentCode(z=z, mean=z)


def features_for(name, batch=6):
    return torch.randn(batch, 8, 4, 4) if LATENTS[name].spatial else torch.randn(batch, 8)


# --- latents


@pytest.mark.parametrize("name", LATENTS)
def test_a_latent_gives_codes_with_gradients(name):
    torch.manual_seed(0)
    latent = LATENTS[name](in_features=8, latent_dim=3)
    features = features_for(name).requires_grad_()
    code = latent(features, noise=True)
    assert code.z.shape == code.mean.shape == ((6, 3, 4, 4) if latent.spatial else (6, 3))
    code.z.square().sum().backward()
    assert features.grad.abs().sum() > 0
    assert latent.decodable(code.z.detach()).shape == code.z.shape


@pytest.mark.parametrize("name", LATENTS)
def test_encoding_is_noiseless_and_independent_of_the_batch(name):
    torch.manual_seed(0)
    latent = LATENTS[name](in_features=8, latent_dim=3).eval()
    features = features_for(name)
    once, again = latent(features, noise=False), latent(features, noise=False)
    assert torch.equal(once.z, again.z)
    alone = torch.cat([latent(feature[None], noise=False).z for feature in features])
    torch.testing.assert_close(alone, once.z)


def test_vector_quantization_moves_unused_vectors_to_where_codes_are():
    torch.manual_seed(0)
    latent = VectorQuantized(in_features=2, latent_dim=2, codebook_size=32, patience=3)
    with torch.no_grad():
        nn.init.dirac_(latent.mean.weight)
    features = torch.randn(64, 2, 4, 4) * 5 + 40  # far from where the codebook starts
    for _ in range(5):
        indices = latent(features, noise=True).indices
    assert len(indices.unique()) > 24
    before = latent.codebook.clone()
    latent.eval()(features + 100, noise=True)
    assert torch.equal(latent.codebook, before)


# --- penalties


@pytest.mark.parametrize("name", PENALTIES)
def test_a_penalty_is_a_finite_scalar_with_gradients_to_the_codes(name):
    torch.manual_seed(0)
    features = torch.randn(6, 8, 4, 4, requires_grad=True)
    if name == "vector-quantization":
        code = VectorQuantized(8, 3, codebook_size=8)(features, noise=True)
    else:
        code = Gaussian(8 * 16, 3)(features.flatten(1), noise=True)
        code = replace(code, prior_mean=torch.randn(4, 3), prior_log_var=torch.zeros(4, 3))
    value = PENALTIES[name]()(code)
    assert value.shape == ()
    assert value.isfinite()
    if name != "none":
        value.backward()
        assert features.grad.abs().sum() > 0


def test_the_kl_of_a_constant_variance_is_the_half_norm_and_a_constant():
    torch.manual_seed(0)
    code = ConstantVariance(in_features=5, latent_dim=3, sigma=0.7)(torch.randn(10, 5), noise=True)
    constant = 3 / 2 * (0.7**2 - math.log(0.7**2) - 1)
    torch.testing.assert_close(KullbackLeibler()(code), HalfNorm()(code) + constant)


def test_the_kl_needs_a_variance():
    with pytest.raises(UsageError, match="latent with a variance"):
        KullbackLeibler()(plain_code(torch.zeros(2, 2)))


def test_mmd_equals_a_direct_evaluation():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(7, 3)), rng.normal(size=(5, 3)) + 1
    scales = (0.5, 2.0)

    def kernel(u, v):
        return sum(2 * 3 * s / (2 * 3 * s + np.sum((u - v) ** 2)) for s in scales)

    within = [
        np.mean([kernel(s[i], s[j]) for i in range(len(s)) for j in range(len(s)) if i != j]) for s in (a, b)
    ]  # fmt: skip
    expected = sum(within) - 2 * np.mean([kernel(u, v) for u in a for v in b])
    assert mmd(torch.tensor(a), torch.tensor(b), scales).item() == pytest.approx(expected, rel=1e-10)


class Counting(TorchDispatchMode):
    """Counts operations."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += 1
        return function(*args, **(kwargs or {}))


def test_mmd_takes_as_many_operations_for_many_kernel_scales_as_for_one_and_copies_nothing_after_the_first_time():
    counts = []
    for scales in ((0.5,), (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)):
        a = torch.randn(6, 3).requires_grad_()  # anew: to add to a gradient takes other operations than to begin one
        with torch.inference_mode():  # what is kept from here serves in training
            mmd(a, a, scales)
        with Counting() as counting:
            mmd(a, torch.zeros(6, 3), scales).backward()
        counts.append(counting.count)
    assert counts[0] == counts[1]


def test_mmd_of_a_sample_with_itself():
    """V-statistic: zero. U-statistic: 2 A / (n (n-1)) - 2 (A + n S) / n^2, A the off-diagonal sum, S = k(x, x)."""
    torch.manual_seed(0)
    z, scales = torch.randn(20, 4, dtype=torch.float64), (0.1, 1.0, 5.0)
    assert mmd(z, z, scales, unbiased=False).abs() < 1e-12
    distance = torch.cdist(z, z).square()
    total = sum(8 * s / (8 * s + distance) for s in scales)
    off = total.sum() - total.diagonal().sum()
    expected = 2 * off / (20 * 19) - 2 * (off + 20 * len(scales)) / 400
    torch.testing.assert_close(mmd(z, z, scales), expected)
    assert expected < 0


def test_mmd_is_unbiased_and_tells_distributions_apart():
    torch.manual_seed(0)
    penalty = MaximumMeanDiscrepancy()
    same = torch.stack([penalty(plain_code(torch.randn(50, 4))) for _ in range(400)])
    assert same.mean().abs() < 4 * same.std() / 20  # within four standard errors of zero
    assert (same < 0).any()
    assert penalty(plain_code(torch.randn(50, 4) + 2)) > same.max()


# --- regularizers


class Decoder(nn.Module):
    """A small nonlinear decoder."""

    def __init__(self, batch_norm=False):
        super().__init__()
        middle = [nn.BatchNorm1d(6)] if batch_norm else []
        self.layers = nn.Sequential(nn.Linear(3, 6), *middle, nn.Tanh(), nn.Linear(6, 5))

    def forward(self, z):
        return self.layers(z)


@pytest.mark.parametrize("name", REGULARIZERS)
def test_a_regularizer_gives_a_scalar_and_never_touches_the_encoder(name):
    torch.manual_seed(0)
    encoder, decoder = nn.Linear(4, 3), Decoder()
    regularizer = REGULARIZERS[name]()
    regularizer.prepare(encoder, decoder)
    value = regularizer.penalty(decoder, plain_code(encoder(torch.randn(8, 4))))
    assert value.shape == ()
    assert value >= 0
    if value.requires_grad:
        value.backward()
        assert all(parameter.grad is None for parameter in encoder.parameters())
        assert sum(p.grad.abs().sum() for p in decoder.parameters() if p.grad is not None) > 0


def test_tikhonov_scopes_differ_as_stated():
    torch.manual_seed(0)
    linear, conv = nn.Linear(2, 8), nn.ConvTranspose2d(8, 1, 4)
    decoder = nn.Sequential(linear, nn.Unflatten(1, (8, 1, 1)), nn.BatchNorm2d(8), conv)
    code = plain_code(torch.randn(4, 2))
    kernel, matrix = conv.weight.square().sum(), linear.weight.square().sum()
    torch.testing.assert_close(Tikhonov("transposed-convolutions").penalty(decoder, code), kernel)
    torch.testing.assert_close(Tikhonov("kernels").penalty(decoder, code), kernel + matrix)
    rest = 8 + linear.bias.square().sum() + conv.bias.square().sum()  # batch norm's scale is one, its shift zero
    torch.testing.assert_close(Tikhonov("all").penalty(decoder, code), kernel + matrix + rest)
    with pytest.raises(UsageError, match="names no weight"):
        Tikhonov("transposed-convolutions").prepare(nn.Identity(), nn.Linear(2, 2))


@pytest.mark.parametrize("scope", ["kernels", "all"])
def test_tikhonov_counts_a_shared_weight_once(scope):
    torch.manual_seed(0)
    first, second, own = (nn.Linear(3, 3, bias=False) for _ in range(3))
    second.weight = first.weight
    value = Tikhonov(scope).penalty(nn.Sequential(first, own, second), plain_code(torch.randn(4, 3)))
    torch.testing.assert_close(value, first.weight.square().sum() + own.weight.square().sum())


@pytest.mark.parametrize("estimator", ["exact", "forward", "reverse"])
def test_gradient_penalty_of_a_linear_decoder_is_its_squared_norm(estimator):
    torch.manual_seed(0)
    decoder = nn.Linear(6, 9).double()
    expected = decoder.weight.square().sum().item()
    code = plain_code(torch.randn(50_000, 6, dtype=torch.float64))
    if estimator == "exact":
        assert GradientPenalty(estimator).penalty(decoder, code).item() == pytest.approx(expected, rel=1e-5)
        return
    penalty = GradientPenalty(estimator)
    draws = torch.stack([penalty.penalty(decoder, code) for _ in range(20)])
    error = draws.std().item() / math.sqrt(20)
    assert abs(draws.mean().item() - expected) < 5 * error
    assert error < 0.01 * expected


def test_with_batch_norm_the_penalty_is_that_of_the_batch_map_and_leaves_the_running_statistics():
    torch.manual_seed(0)
    decoder, z = Decoder(batch_norm=True).double(), torch.randn(4, 3, dtype=torch.float64)
    before = {name: value.clone() for name, value in decoder.state_dict().items()}
    exact = GradientPenalty("exact").penalty(decoder, plain_code(z))
    for name, value in decoder.state_dict().items():
        assert torch.equal(value, before[name]), name
    jacobian = torch.autograd.functional.jacobian(decoder, z)  # (4, 5, 4, 3): output of i by code of j
    torch.testing.assert_close(exact, jacobian.square().sum() / 4)
    for estimator in ("forward", "reverse"):
        penalty = GradientPenalty(estimator)
        draws = torch.stack([penalty.penalty(decoder, plain_code(z)).detach() for _ in range(3000)])
        assert abs(draws.mean() - exact) < 5 * draws.std() / math.sqrt(3000)


@pytest.mark.parametrize("estimator", ["exact", "forward", "reverse"])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_gradient_of_the_penalty_equals_finite_differences(estimator, batch_norm):
    torch.manual_seed(0)
    decoder, z = Decoder(batch_norm).double(), torch.randn(9, 3, dtype=torch.float64)
    weight = decoder.layers[0].weight

    def value():
        torch.manual_seed(7)  # the same projection each time
        return GradientPenalty(estimator).penalty(decoder, plain_code(z))

    (gradient,) = torch.autograd.grad(value(), weight)
    step = 1e-6
    with torch.no_grad():
        weight[0, 0] += step
        above = value().item()
        weight[0, 0] -= 2 * step
        below = value().item()
    assert gradient[0, 0].item() == pytest.approx((above - below) / (2 * step), rel=1e-5)
    assert gradient.abs().max() > 0.1


@pytest.mark.parametrize("model", ["rae-gp convolutional", "rae-gp", "vae with it"])
def test_a_penalty_read_off_the_reconstructions_output_trains_the_same_networks(model):
    """One pass of the decoder for both gives the gradients of two, of the decoder and of the encoder."""
    name, *kind = model.split()
    shape = (1, 28, 28) if "convolutional" in kind else (12,)
    config = configure(name, shape, "small", {"width": 4, "latent_dim": 3}, options=None)[0]
    config = replace(config, regularizer=Part("gradient-penalty"), regularizer_weight=0.3)
    torch.manual_seed(0)
    network = build(config)
    x = torch.rand(7, *shape)
    assert network.regularizer.wants_output

    def trained(shared):
        network.zero_grad()
        network.regularizer.wants_output = shared
        before = {key: value.clone() for key, value in network.state_dict().items()}
        torch.manual_seed(5)  # the same noise and signs
        loss = network.train().loss(x)
        loss.total.backward()
        after = {key: value.clone() for key, value in network.state_dict().items()}
        network.load_state_dict(before)
        parts = [network.encoder, network.latent, network.decoder]  # biases before batch norm have none but rounding
        gradients = [torch.cat([each.grad.flatten() for each in part.parameters()]) for part in parts]
        return [torch.stack([loss.total, *loss.terms.values()]).detach(), *gradients, *after.values()]

    for one, two in zip(trained(True), trained(False), strict=True):
        assert (one - two).double().norm() <= 1e-5 * two.double().norm()
    assert trained(True)[1].norm() > 0
    assert not network.eval().loss(x, regularize=False).terms["regularizer"]


@pytest.mark.parametrize("kind", [SameConv2d, SameConvTranspose2d])
@pytest.mark.parametrize("iterations", [1, 3])
def test_a_step_makes_as_many_power_iterations_as_it_says(kind, iterations):
    layer = kind(4, 3, 4, 2)
    decoder = nn.Sequential(layer)
    SpectralNorm(iterations=iterations).prepare(nn.Linear(2, 2), decoder)
    norm = layer.parametrizations.weight[0]
    assert norm.dim == 0  # outputs by rest; of the transposed one inputs by rest
    expected = [norm._u.clone(), norm._v.clone()]
    matrix = norm._reshape_weight_to_matrix(layer.parametrizations.weight.original.detach())
    for _ in range(iterations):
        expected[0] = functional.normalize(matrix @ expected[1], dim=0)
        expected[1] = functional.normalize(matrix.t() @ expected[0], dim=0)
    decoder.train()(torch.randn(2, 4, 6, 6)).sum().backward()
    for vector, wanted in zip((norm._u, norm._v), expected, strict=True):
        torch.testing.assert_close(vector, wanted)


def test_spectral_norm_is_computed_outside_of_autocast(monkeypatch):
    """On a GPU autocast takes matrix-vector products in bfloat16, and the largest singular value with them."""
    seen, forward = [], _SpectralNorm.forward

    def watched(self, weight):
        seen.append(torch.is_autocast_enabled("cpu"))
        return forward(self, weight)

    monkeypatch.setattr(_SpectralNorm, "forward", watched)
    decoder = nn.Linear(3, 4)
    SpectralNorm().prepare(nn.Identity(), decoder)
    with torch.autocast("cpu", torch.bfloat16):
        assert decoder(torch.randn(2, 3)).dtype == torch.bfloat16
    assert seen
    assert not any(seen)


def test_the_operator_norm_is_that_of_the_padded_layer_on_its_map_and_its_iterations_are_of_training_alone():
    torch.manual_seed(0)
    decoder = nn.Sequential(
        nn.Linear(2, 48),
        nn.Unflatten(1, (3, 4, 4)),
        SameConvTranspose2d(3, 4, 4, 2),
        nn.ReLU(),
        SameConvTranspose2d(4, 1, 5, 1),
    ).double()
    originals = [(layer, layer.weight.detach().clone()) for layer in decoder if hasattr(layer, "stride")]
    SpectralNorm(iterations=200, estimator="operator").prepare(
        nn.Identity(), decoder, (torch.zeros(1, 2).double(), torch.zeros(1, 2).double())
    )
    z = torch.randn(3, 2).double()
    decoder.train()(z).sum().backward()
    for (layer, original), side in zip(originals, (4, 8), strict=True):
        channels, out, side_of_kernel, _ = original.shape
        plain = SameConvTranspose2d(channels, out, side_of_kernel, layer.stride[0]).double().eval()
        plain.load_state_dict({"weight": original, "bias": torch.zeros_like(plain.bias)})
        basis = torch.eye(original.shape[0] * side**2).double().view(-1, original.shape[0], side, side)
        norm = torch.linalg.matrix_norm(plain(basis).flatten(1), ord=2)
        torch.testing.assert_close(layer.weight, original / norm)
        assert layer.parametrizations.weight.original.grad.abs().sum() > 0
    decoder.eval()
    before = {key: value.clone() for key, value in decoder.state_dict().items()}
    assert torch.equal(decoder(z), decoder(z))
    assert all(torch.equal(value, before[key]) for key, value in decoder.state_dict().items())
    assert sum("_layer" in key for key in before) == 0


def test_the_operator_norm_has_the_gradient_of_the_largest_singular_value():
    """Of <C, W / sigma(W)> by W, with sigma from the matrix of the map; its derivative counts too."""
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(2, 3, 3, stride=2).double()
    weight = layer.weight.detach().clone().requires_grad_()
    direction = torch.randn_like(weight)
    SpectralNorm(iterations=500, estimator="operator").prepare(
        nn.Identity(), nn.Sequential(layer), (torch.zeros(1, 2).double(), torch.zeros(1, 2, 4, 4).double())
    )
    (direction * layer.train().weight).sum().backward()
    basis = torch.eye(2 * 4 * 4).double().view(-1, 2, 4, 4)
    matrix = functional.conv_transpose2d(basis, weight, stride=2).flatten(1)
    (direction * weight / torch.linalg.matrix_norm(matrix, ord=2)).sum().backward()
    torch.testing.assert_close(layer.parametrizations.weight.original.grad, weight.grad)


def test_the_operator_norm_says_that_it_needs_the_sizes_of_maps():
    with pytest.raises(UsageError, match="estimator=matrix"):
        SpectralNorm(estimator="operator").prepare(nn.Identity(), nn.Sequential(nn.Conv2d(1, 1, 3)))


@pytest.mark.parametrize("estimator", ["matrix", "operator"])
def test_a_spectrally_normalized_model_of_images_trains_and_keeps_its_norms(estimator):
    config, _ = configure(
        "rae-sn", (1, 28, 28), model_overrides={"width": 4}, options={"regularizer.estimator": estimator}
    )
    torch.manual_seed(0)
    model = build(config).train()
    loss = model.loss(torch.rand(8, 1, 28, 28)).total
    loss.backward()
    again = build(config)
    again.load_state_dict(model.state_dict())
    z = torch.randn(2, config.latent_dim)
    assert torch.equal(model.eval().decode(z), again.eval().decode(z))


def test_vectors_of_an_early_version_keep_their_axis():
    """It took transposed kernels by their outputs."""
    torch.manual_seed(0)
    layer = SameConvTranspose2d(4, 3, 4, 2)
    old = copy.deepcopy(layer)
    parametrize.register_parametrization(old, "weight", _SpectralNorm(old.weight, dim=1))
    decoder = nn.Sequential(layer)
    SpectralNorm().prepare(nn.Identity(), decoder)
    layer.load_state_dict(old.state_dict())
    assert torch.equal(layer.eval().weight, old.eval().weight)
    for each in (layer, old):
        each.train()(torch.randn(1, 4, 5, 5, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(layer.eval().weight, old.eval().weight)


def test_noise_on_the_input_is_cut_off_at_one_deviation_and_images_are_not():
    config, _ = configure("wae-mmd", (1, 28, 28), model_overrides={"width": 4, "input_noise": 0.1})
    torch.manual_seed(0)
    model = build(config).train()
    seen = []
    model.encoder.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    x = torch.rand(64, 1, 28, 28)
    model.loss(x)
    noise = seen[0] - x
    assert noise.abs().max() <= 0.1 + 1e-6
    assert (noise.abs() > 0.1 - 1e-5).float().mean() == pytest.approx(0.3173, abs=0.01)  # beyond one deviation
    assert seen[0].min() < 0
    model.eval().loss(x)
    assert torch.equal(seen[1], x)


def test_spectral_norm_of_both_reaches_the_encoder():
    encoder, decoder = nn.Linear(4, 3), nn.Linear(3, 4)
    SpectralNorm("both").prepare(encoder, decoder)
    assert nn.utils.parametrize.is_parametrized(encoder, "weight")


# --- registries


@pytest.mark.parametrize(
    ("registry", "part", "message"),
    [
        (LATENTS, Part("gausian"), "did you mean 'gaussian'"),
        (LATENTS, Part("gaussian", {"sigma": 1}), "its options: bound"),
        (
            REGULARIZERS,
            Part("tikhonov", {"scope": "biases"}),
            "Input should be 'kernels', 'transposed-convolutions' or 'all'",
        ),
        (PENALTIES, Part("mmd", {"scales": []}), "at least one"),
        (LATENTS, Part("constant-variance", {"sigma": 0.0}), "positive"),
    ],
)
def test_unknown_words_list_what_exists(registry, part, message):
    given = {"in_features": 2, "latent_dim": 2} if registry is LATENTS else {}
    with pytest.raises(UsageError, match=message):
        construct(registry, part, **given)


def test_a_fraction_of_the_batch_has_the_same_expectation():
    """The penalty on the first part of a batch is that of those examples; over all parts, the mean is the whole."""
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 5)).double()
    z = torch.randn(12, 3, dtype=torch.float64)
    whole = GradientPenalty("exact").penalty(decoder, plain_code(z))
    quarter = GradientPenalty("exact", fraction=0.25)
    parts = torch.stack([quarter.penalty(decoder, plain_code(z.roll(-3 * index, 0))) for index in range(4)])
    torch.testing.assert_close(parts.mean(), whole)
    torch.testing.assert_close(parts[0], GradientPenalty("exact").penalty(decoder, plain_code(z[:3])))
    assert parts.std() > 0
    # batch norm needs two examples, so there are never fewer
    torch.testing.assert_close(
        GradientPenalty("exact", fraction=0.01).penalty(decoder, plain_code(z)),
        GradientPenalty("exact").penalty(decoder, plain_code(z[:2])),
    )
    for fraction in (0.0, 1.5):
        with pytest.raises(UsageError, match=f"fraction is {fraction}"):
            GradientPenalty(fraction=fraction)


def test_a_reconstruction_is_chosen_by_name_among_those_for_such_examples(tmp_path):
    options = {"epochs": 1, "limit": 60, "batch_size": 20}
    run = expost.train("ae", "digits", tmp_path / "run", reconstruction="bernoulli", **options)
    assert run.config.model.reconstruction == Part("bernoulli")
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    model = run.model().eval()
    with torch.no_grad():
        p = model(x)
        expected = -(x * p.log() + (1 - x) * (1 - p).log()).sum() / 3
        torch.testing.assert_close(model.loss(x).terms["reconstruction"], expected, rtol=1e-4, atol=0)
    resumed = expost.train("ae", "digits", tmp_path / "run", reconstruction="bernoulli", resume=True, dry_run=True)
    assert resumed.config.model == run.config.model
    with pytest.raises(UsageError, match="reconstruction bernoulli, not squared-error"):
        expost.train("ae", "digits", tmp_path / "run", reconstruction="squared-error", resume=True)


@pytest.mark.parametrize(
    ("shape", "name", "suited"),
    [
        ((1, 8, 8), "masked-bernoulli", "squared-error, bernoulli, perceptual"),
        ((4,), "bernoulli", "squared-error"),
        ((15, 12), "squared-error", "masked-categorical, masked-bernoulli"),
        ((2, 3, 4, 5), "bernoulli", "squared-error"),
    ],
)
def test_a_reconstruction_of_other_examples_is_refused(shape, name, suited):
    with pytest.raises(UsageError, match=rf"'{name}' is not for examples .*choose one of: {suited}$"):
        configure("ae", shape, model_overrides={"reconstruction": name})


@pytest.mark.parametrize(
    ("preset", "shape"),
    [("small", (1, 8, 8)), ("small", (4,)), ("small", (15, 12)), ("paper", (1, 32, 32)), ("paper", (15, 12)),
     ("published", (15, 12))],
)  # fmt: skip
def test_a_preset_takes_a_reconstruction_for_its_examples(preset, shape):
    chosen, _ = PRESETS[preset].resolve("ae", shape, {})
    assert layout_of(shape) in RECONSTRUCTIONS[chosen.reconstruction.name].layouts
