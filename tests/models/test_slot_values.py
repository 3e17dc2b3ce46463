"""What each slot's entries compute: formulas written out a second time, gradients by differences, where the least is.

A new entry of a registry is picked up here, and fails until it has a row in the table of its slot: `LATENT_CASES`,
`PENALTY_CASES`, `RECONSTRUCTION_CASES` or `REGULARIZER_CASES`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from expost.errors import UsageError
from expost.metrics.onet import load_onet
from expost.models import penalties
from expost.models.latents import LATENTS, FiniteScalar, VectorQuantized
from expost.models.penalties import PENALTIES, Divergence, mmd
from expost.models.reconstructions import RECONSTRUCTIONS
from expost.models.regularizers import REGULARIZERS
from expost.types import LatentCode
from references import assert_gradients, reference_for

HERE = "tests/models/test_slot_values.py"


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(actual, expected, rel=1e-9, abs=1e-10):
    actual = actual.detach().numpy() if isinstance(actual, torch.Tensor) else actual
    expected = expected.detach().numpy() if isinstance(expected, torch.Tensor) else expected
    assert np.shape(actual) == np.shape(expected)
    np.testing.assert_allclose(actual, expected, rtol=rel, atol=abs)


def test_an_entry_without_a_reference_fails_and_says_where_one_belongs():
    with pytest.raises(pytest.fail.Exception, match=f"'new' has no reference formula yet.* add it to X in {HERE}"):
        reference_for("new", {"old": 1}, f"X in {HERE}")


@pytest.mark.parametrize("slot", ["LATENT", "PENALTY", "RECONSTRUCTION", "REGULARIZER"])
def test_no_reference_is_of_an_entry_that_is_gone(slot):
    names = {
        "LATENT": [*LATENTS],
        "PENALTY": [*PENALTIES],
        "RECONSTRUCTION": [*RECONSTRUCTIONS],
        "REGULARIZER": [*REGULARIZERS],
    }
    assert set(globals()[f"{slot}_CASES"]) <= set(names[slot])


# --- latents


@dataclass(frozen=True)
class LatentCase:
    """What a latent computes.

    Attributes:
        code: From (latent, features, eps, options) to the fields of the code that are not None; eps is N(0, I), or 0
            where there is to be no noise.
        options: Sets of options to try.
        gradient_of: The field whose gradient z has; z itself but where something is rounded.
        decoded: From (latent, z) to what the decoder gets.
    """

    code: Callable[..., dict[str, torch.Tensor]]
    options: tuple[dict[str, Any], ...] = ({},)
    gradient_of: str = "z"
    decoded: Callable[..., torch.Tensor] = lambda latent, z: z


def affine(layer, h):
    """W h + b at each position."""
    matrix = layer.weight.reshape(layer.weight.shape[0], -1)
    return torch.einsum("oi,bi...->bo...", matrix, h) + layer.bias.view(-1, *[1] * (h.dim() - 2))


def gaussian_code(latent, h, eps, options):
    mean, linear, bound = affine(latent.mean, h), affine(latent.log_sigma, h), options.get("bound", 5.0)
    sigma = torch.sqrt(torch.exp(linear)) if bound is None else torch.exp(bound * torch.tanh(linear))
    return {"mean": mean, "z": mean + options.get("noise_scale", 1) * sigma * eps, "log_var": torch.log(sigma**2)}


def constant_code(latent, h, eps, options):
    mean, sigma = affine(latent.mean, h), options.get("sigma", 0.7)
    z = mean + options.get("noise_scale", 1) * sigma * eps
    return {"mean": mean, "z": z, "log_var": torch.full_like(mean, math.log(sigma**2))}


def nearest(latent, z):
    """The vector of the codebook at the least distance, by one difference after another, and its index."""
    points, codebook = z.detach().numpy(), latent.codebook.detach().numpy()
    indices = torch.empty(z.shape[0], *z.shape[2:], dtype=torch.int64)
    for b, i, j in np.ndindex(*indices.shape):
        indices[b, i, j] = int(np.argmin([sum((points[b, :, i, j] - vector) ** 2) for vector in codebook]))
    return torch.stack([latent.codebook[indices, c] for c in range(z.shape[1])], 1), indices


def quantized_code(latent, h, eps, options):
    mean = affine(latent.mean, h)
    vectors, indices = nearest(latent, mean)
    return {"mean": mean, "z": vectors, "quantized": vectors, "indices": indices}


def rounded_code(latent, h, eps, options):
    """By the appendix of Mentzer et al. 2024, number by number."""
    x, levels = affine(latent.mean, h), options["levels"]
    mean, rounded = torch.empty_like(x), torch.empty_like(x)
    indices, place = torch.zeros(x.shape[0], *x.shape[2:], dtype=torch.int64), 1
    for j, level in enumerate(levels):
        half = (level - 1) * (1 - 1e-3) / 2
        offset = 0.5 if level % 2 == 0 else 0.0
        bounded = torch.tanh(x[:, j] + math.tan(offset / half)) * half - offset
        mean[:, j], rounded[:, j] = bounded / (level // 2), bounded.detach().round() / (level // 2)
        indices += place * (bounded.detach().round() + level // 2).long()
        place *= level
    return {"mean": mean, "z": rounded, "quantized": rounded, "indices": indices}


def nearest_levels(latent, z):
    """The level of each number at the least distance."""
    found = torch.empty_like(z)
    for j, level in enumerate(latent.levels):
        values = (torch.arange(level) - level // 2).double() / (level // 2)
        found[:, j] = values[(z[:, j, ..., None] - values).abs().argmin(-1)]
    return found


LATENT_CASES = {
    "deterministic": LatentCase(lambda latent, h, eps, options: dict.fromkeys(("mean", "z"), affine(latent.mean, h))),
    "gaussian": LatentCase(gaussian_code, ({}, {"bound": 1.5}, {"bound": None, "noise_scale": 0.01}, {"samples": 3})),
    "constant-variance": LatentCase(constant_code, ({}, {"sigma": 0.3}, {"noise_scale": 0.01})),
    "vector-quantized": LatentCase(
        quantized_code,
        ({"codebook_size": 16}, {"codebook_size": 16, "decay": 0.9}),
        "mean",
        lambda latent, z: nearest(latent, z)[0],
    ),
    "finite-scalar": LatentCase(rounded_code, ({"levels": (4, 3, 7)},), "mean", nearest_levels),
}


def latents(name):
    """The latent in each set of options, in float64 and evaluation (where nothing tends a codebook), and features."""
    case = reference_for(name, LATENT_CASES, f"LATENT_CASES in {HERE}")
    for options in case.options:
        torch.manual_seed(0)
        latent = LATENTS[name](in_features=5, latent_dim=3, **options).double().eval()
        with torch.no_grad():
            for parameter in latent.parameters():
                parameter.copy_(draw(*parameter.shape, seed=1))  # biases too
        yield case, options, latent, draw(6, 5, 2, 3) if latent.spatial else draw(6, 5)


@pytest.mark.parametrize("noise", [False, True])
@pytest.mark.parametrize("name", LATENTS)
def test_a_latent_is_its_formula(name, noise):
    for case, options, latent, features in latents(name):
        torch.manual_seed(5)
        code = latent(features, noise)
        torch.manual_seed(5)
        expected = case.code(latent, features, noise * torch.randn(code.mean.shape).double(), options)
        for each in fields(code):
            value = getattr(code, each.name)
            assert (value is None) == (each.name not in expected), each.name
            if value is not None:
                close(value, expected[each.name])
        z = draw(*code.z.shape, seed=8)
        close(latent.decodable(z), case.decoded(latent, z))


@pytest.mark.parametrize("name", LATENTS)
def test_the_gradients_of_a_latent_are_those_of_its_formula(name):
    for case in latents(name):
        assert_latent_gradients(*case)


def assert_latent_gradients(case, options, latent, features):
    inputs = [features.requires_grad_(), *latent.parameters()]
    shape = latent(features, False).z.shape
    weight = draw(*shape, seed=3)
    torch.manual_seed(5)
    eps = torch.randn(shape).double()

    def value(name):
        torch.manual_seed(5)
        return getattr(latent(features, True), name)

    def gradient(name, formula):
        def weighted():
            return (case.code(latent, features, eps, options)[formula] * weight).sum()

        assert_gradients(lambda: (value(name) * weight).sum(), inputs, weighted)

    gradient("z", case.gradient_of)
    for name in ("mean", "log_var", "quantized"):
        if name in (formula := case.code(latent, features, eps, options)) and formula[name].requires_grad:
            gradient(name, name)


def test_moving_means_follow_the_batches_by_the_formula():
    """Three batches, written out position by position: van den Oord et al. 2017, appendix A.1."""
    torch.manual_seed(0)
    latent = VectorQuantized(in_features=2, latent_dim=2, codebook_size=5, patience=None, decay=0.7).double()
    with torch.no_grad():
        nn.init.dirac_(latent.mean.weight)
        latent.mean.bias.zero_()
    latent.started.fill_(True)
    latent.sums.copy_(latent.codebook)
    codebook = [vector.clone() for vector in latent.codebook]
    counts, sums = [1.0] * 5, [vector.clone() for vector in codebook]
    for seed in range(3):
        features = draw(4, 2, 3, 2, seed=seed)
        code = latent(features, noise=True)
        points = features.movedim(1, -1).reshape(-1, 2)
        chosen = [min(range(5), key=lambda k: float((point - codebook[k]).square().sum())) for point in points]
        assert code.indices.flatten().tolist() == chosen
        close(code.quantized, torch.stack([codebook[k] for k in chosen]).view(4, 3, 2, 2).movedim(-1, 1))
        for k in range(5):
            mine = [point for point, which in zip(points, chosen, strict=True) if which == k]
            counts[k] = 0.7 * counts[k] + 0.3 * len(mine)
            sums[k] = 0.7 * sums[k] + 0.3 * sum(mine, torch.zeros(2).double())
            codebook[k] = sums[k] / counts[k]
        close(latent.codebook, torch.stack(codebook))
    latent.eval()(features, noise=True)
    close(latent.codebook, torch.stack(codebook))  # held-out batches move nothing


@pytest.mark.parametrize("decay", [None, 0.9])
def test_without_patience_and_data_the_codebook_is_the_papers(decay):
    torch.manual_seed(0)
    options = {"patience": None, "decay": decay, "from_data": False}
    latent = VectorQuantized(in_features=2, latent_dim=2, codebook_size=8, **options)
    with torch.no_grad():
        latent.codebook[3] = 1000.0
        if decay is not None:
            latent.sums[3] = 1000.0
    before = latent.codebook.clone()
    for _ in range(30):
        latent(draw(8, 2, 3, 3).float(), noise=True)
    assert torch.equal(latent.codebook, before) == (decay is None)  # gradients alone move it
    torch.testing.assert_close(latent.codebook[3], torch.full((2,), 1000.0))  # what is not chosen stays where it is


@pytest.mark.parametrize("levels", [(2,), (8, 5, 5, 5), (3, 4), (2, 2, 2)])
def test_levels_and_symbols_are_one_to_one(levels):
    latent = FiniteScalar(in_features=3, latent_dim=len(levels), levels=levels)
    assert latent.symbols == math.prod(levels)
    numbers = torch.arange(latent.symbols)[:, None, None]
    vectors = latent.vectors(numbers)
    assert len(vectors.flatten(1).unique(dim=0)) == latent.symbols
    assert vectors.abs().max() <= 1
    assert torch.equal(latent.nearest(vectors), numbers)
    assert torch.equal(latent.decodable(numbers.float()), vectors)
    # every symbol is reached, by numbers of the encoder from far below to far above
    with torch.no_grad():
        latent.mean.weight.zero_()
        found = set()
        for value in torch.linspace(-6, 6, 60):
            latent.mean.bias.fill_(value)
            found |= set(latent.nearest(latent(torch.zeros(1, 3, 1, 1), False).quantized).flatten().tolist())
    assert {0, latent.symbols - 1} <= found


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"levels": (8, 1, 5)}, "at least 2 in each dimension"),
        ({"levels": (300, 300, 2)}, "at most 65,536 symbols"),
        ({"levels": (8, 5)}, "latent_dim is 3, and there are 2 levels; give --latent-dim 2"),
    ],
)
def test_levels_out_of_range_are_refused(options, words):
    with pytest.raises(UsageError, match=words):
        FiniteScalar(in_features=5, latent_dim=3, **options)
    with pytest.raises(UsageError, match="latent_dim=2 has no usual levels"):
        FiniteScalar(in_features=5, latent_dim=2)


def test_a_vector_is_moved_in_the_batch_in_which_its_patience_ends():
    latent = VectorQuantized(in_features=2, latent_dim=2, codebook_size=2, patience=3)
    with torch.no_grad():
        nn.init.dirac_(latent.mean.weight)
        latent.mean.bias.zero_()
        latent.codebook.copy_(torch.tensor([[0.0, 0.0], [1000.0, 0.0]]))
    latent.started.fill_(True)
    features = draw(8, 2, 3, 3).float()
    positions = features.movedim(1, -1).reshape(-1, 2)
    for left in (2, 1, 0):
        latent(features, noise=True)
        assert torch.equal(latent.codebook[0], torch.zeros(2))  # is used, and stays
        found = torch.cdist(latent.codebook[1:], positions).min()
        assert (found < 1e-4) == (left == 0)


# --- penalties


@dataclass(frozen=True)
class PenaltyCase:
    """What a penalty computes.

    Attributes:
        formula: From (arrays of the code by field, the prior's draws, options) to the value.
        options: Sets of options to try.
        gradients: The fields it has a gradient for, each with the formula whose gradient that is.
        least: The code at which it is 0 and has no gradient, from one that has not; None where theory has the least
            elsewhere, and a test of its own shows it.
        repeated: From (value, code, prior, k) to the value of the batch repeated k times, draws and all.
    """

    formula: Callable[..., float]
    gradients: dict[str, Callable[..., float]] = field(default_factory=dict)
    options: tuple[dict[str, Any], ...] = ({},)
    least: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]] | None = lambda code: code
    repeated: Callable[..., float] = lambda value, code, prior, k: value


def per_example(x):
    return [row.reshape(-1) for row in x]


def half_norm(code, prior=None, options=None):
    return sum(0.5 * sum(v**2 for v in row) for row in per_example(code["mean"])) / len(code["mean"])


def kl(code, prior=None, options=None):
    """By the formula for two normals, log(s2/s1) + (s1^2 + (m1 - m2)^2) / (2 s2^2) - 1/2, with m2 = 0 and s2 = 1."""
    total = 0.0
    for mean, log_var in zip(per_example(code["mean"]), per_example(code["log_var"]), strict=True):
        for m, sigma in zip(mean, np.exp(log_var / 2), strict=True):
            total += -np.log(sigma) + (sigma**2 + m**2) / 2 - 1 / 2
    return total / len(code["mean"])


SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def kernel_mean(a, b, scales, distinct):
    """Mean of sum_s 2 d s / (2 d s + ||u - v||^2) over pairs, or over pairs of distinct places."""
    values = [
        sum(2 * len(u) * s / (2 * len(u) * s + np.sum((u - v) ** 2)) for s in scales)
        for i, u in enumerate(a)
        for j, v in enumerate(b)
        if not (distinct and i == j)
    ]
    return np.mean(values)


def discrepancy(code, prior, options):
    z, scales = per_example(code["z"]), options.get("scales", SCALES)
    within = kernel_mean(z, z, scales, True) + kernel_mean(prior, prior, scales, True)
    return within - 2 * kernel_mean(z, prior, scales, False)


def repeated_discrepancy(value, code, prior, k):
    """Copies of an example are pairs of kernel S = k(x, x), the number of scales, whether distinct or not.

    Of a sample of n, repeated k times, the mean W of the kernel over distinct pairs becomes
    (k (n - 1) W + (k - 1) S) / (k n - 1); the mean C over pairs of the two samples stays. So it is for both samples.
    """
    z, n = per_example(code["z"]), len(prior)
    cross, same = kernel_mean(z, prior, SCALES, False), len(SCALES)
    return (k * (n - 1) * (value + 2 * cross) + 2 * (k - 1) * same) / (k * n - 1) - 2 * cross


def distance(code):
    pairs = zip(per_example(code["mean"]), per_example(code["quantized"]), strict=True)
    return sum(sum((v - e) ** 2) for v, e in pairs) / len(code["mean"])


def committed(code, prior, options):
    return options.get("commitment", 0.25) * distance(code)


def normal(z, mean, log_var):
    return np.prod(np.exp(-((z - mean) ** 2) / (2 * np.exp(log_var))) / np.sqrt(2 * np.pi * np.exp(log_var)))


def log_ratio(code, prior=None, options=None):
    """With the densities written out, products of normal ones, and their plain mean over the components."""
    own = list(zip(*(per_example(code[name]) for name in ("z", "mean", "log_var")), strict=True))
    components = list(zip(*(per_example(code[name]) for name in ("prior_mean", "prior_log_var")), strict=True))
    mixtures = [np.mean([normal(z, *component) for component in components]) for z, _, _ in own]
    return np.mean([np.log(normal(*each) / mixture) for each, mixture in zip(own, mixtures, strict=True)])


PENALTY_CASES = {
    "none": PenaltyCase(lambda code, prior, options: 0.0),
    "half-norm": PenaltyCase(
        half_norm, {"mean": half_norm}, least=lambda code: code | {"mean": torch.zeros_like(code["mean"])}
    ),
    "kl": PenaltyCase(
        kl,
        {"mean": kl, "log_var": kl},
        least=lambda code: code | {name: torch.zeros_like(code[name]) for name in ("mean", "log_var")},
    ),
    "mmd": PenaltyCase(
        discrepancy, {"z": discrepancy}, ({}, {"scales": (0.5, 3.0)}), least=None, repeated=repeated_discrepancy
    ),
    "vector-quantization": PenaltyCase(
        lambda code, prior, options: distance(code) + committed(code, prior, options),
        {"quantized": lambda code, prior, options: distance(code), "mean": committed},
        ({}, {"commitment": 2.0}),
        least=lambda code: code | {"quantized": code["mean"]},
    ),
    "posterior-mixture": PenaltyCase(
        log_ratio, dict.fromkeys(("z", "mean", "log_var", "prior_mean", "prior_log_var"), log_ratio), least=None
    ),
}
FLOATING = ("z", "mean", "log_var", "quantized", "prior_mean", "prior_log_var")


def penalty_case(name):
    return reference_for(name, PENALTY_CASES, f"PENALTY_CASES in {HERE}")


def arrays(tensors):
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}


@pytest.fixture
def prior(monkeypatch):
    """Draws from N(0, I) that a penalty gets, as often repeated as its batch is; as many numbers as it asks for."""

    def given(like, count=6):
        return draw(count, like[0].numel(), seed=77).reshape(count, *like.shape[1:]).repeat(len(like) // count, 1)

    monkeypatch.setattr(penalties, "normal_for_all", given)
    return lambda tensors: given(tensors["z"].flatten(1)).numpy()


@pytest.fixture(params=[(6, 3), (6, 2, 2, 3)], ids=["vectors", "maps"])
def tensors(request):
    """All that a code may have, each with numbers of its own."""
    return {name: draw(*request.param, seed=seed) for seed, name in enumerate(FLOATING)}


@pytest.mark.parametrize("name", PENALTIES)
def test_a_penalty_is_its_formula(name, tensors, prior):
    case = penalty_case(name)
    for options in case.options:
        value = PENALTIES[name](**options)(LatentCode(**tensors))
        assert value.shape == ()
        assert value.item() == pytest.approx(case.formula(arrays(tensors), prior(tensors), options), rel=1e-10)


@pytest.mark.parametrize("on", FLOATING)
@pytest.mark.parametrize("name", PENALTIES)
def test_the_gradients_of_a_penalty_are_those_of_its_formula(name, on, tensors, prior):
    """And there is none where nothing is named."""
    case = penalty_case(name)
    formula = case.gradients.get(on, lambda *_: 0.0)
    tensors[on].requires_grad_()

    def assert_right(options):
        penalty = PENALTIES[name](**options)
        assert_gradients(
            lambda: penalty(LatentCode(**tensors)) + 0 * tensors[on].sum(),
            [tensors[on]],
            lambda: torch.tensor(formula(arrays(tensors), prior(tensors), options)),
        )

    for options in case.options:
        assert_right(options)


@pytest.mark.parametrize("name", PENALTIES)
def test_a_batch_repeated_has_the_penalty_of_the_batch(name, tensors, prior):
    case, k = penalty_case(name), 3
    once = PENALTIES[name]()(LatentCode(**tensors)).item()
    many = {key: tensor.repeat(k, *[1] * (tensor.dim() - 1)) for key, tensor in tensors.items()}
    expected = case.repeated(once, arrays(tensors), prior(tensors), k)
    assert PENALTIES[name]()(LatentCode(**many)).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("name", [name for name in PENALTIES if name not in {"mmd", "posterior-mixture"}])
def test_a_penalty_is_least_where_theory_has_it(name, tensors):
    case = penalty_case(name)
    assert case.least is not None, f"say in a test of its own where '{name}' is least, and leave it out here"
    at = {key: tensor.clone().requires_grad_() for key, tensor in case.least(tensors).items()}
    value = PENALTIES[name]()(LatentCode(**at))
    assert value.item() == pytest.approx(0, abs=1e-12)
    gradients = torch.autograd.grad(value + 0 * at["z"].sum(), list(at.values()), allow_unused=True)
    assert all(gradient is None or gradient.abs().max() < 1e-12 for gradient in gradients)
    for seed in range(20):
        for size in (0.01, 1.0):
            around = {
                key: t.detach() + size * draw(*t.shape, seed=100 + seed) * (i + 1)
                for i, (key, t) in enumerate(at.items())
            }
            assert (PENALTIES[name]()(LatentCode(**around)) > 0) == bool(case.gradients)


def test_the_divergence_from_a_mixture_of_posteriors_is_least_where_it_is_the_mixture(tensors):
    """Which of one posterior it can be: then the ratio is 1 at every code that is drawn."""
    mean, log_var = tensors["mean"][:1], tensors["log_var"][:1]
    here = {"prior_mean": mean.repeat(4, *[1] * (mean.dim() - 1)), "prior_log_var": log_var.expand_as(mean)}
    here["prior_log_var"] = here["prior_log_var"].repeat(4, *[1] * (mean.dim() - 1))
    z = mean + (0.5 * log_var).exp() * draw(4000, *mean.shape[1:], seed=9)
    penalty = PENALTIES["posterior-mixture"]()
    at = {"z": z, "mean": mean.expand_as(z), "log_var": log_var.expand_as(z)}
    assert penalty(LatentCode(**at, **here)).item() == pytest.approx(0, abs=1e-12)
    for name in here:
        moved = here | {name: here[name] + 0.7}
        assert penalty(LatentCode(**at, **moved)).item() > 0.1


@pytest.mark.parametrize("name", [name for name, kind in PENALTIES.items() if issubclass(kind, Divergence)])
def test_the_ratio_of_a_divergence_has_the_divergence_as_its_mean(name):
    def normals(*names):
        mean, log_var = (0.5 * draw(4, 3, seed=seed) for seed, _ in enumerate(names))
        return dict(zip(names, (mean, log_var), strict=True))

    one, prior = normals("mean", "log_var"), normals("prior_mean", "prior_log_var")
    many = {key: tensor[:1].expand(200_000, -1) for key, tensor in one.items()}
    z = many["mean"] + (0.5 * many["log_var"]).exp() * draw(200_000, 3, seed=9)
    divergence: Any = PENALTIES[name]()
    ratios = divergence.log_ratio(LatentCode(z=z, **many, **prior))
    q = torch.distributions.Normal(many["mean"], (0.5 * many["log_var"]).exp())
    own = {"kl": torch.distributions.Normal(torch.zeros(3).double(), torch.ones(3).double()).log_prob(z).sum(1)}
    components = torch.distributions.Independent(
        torch.distributions.Normal(prior["prior_mean"], (0.5 * prior["prior_log_var"]).exp()), 1
    )
    equal = torch.distributions.Categorical(torch.ones(4).double())
    own["posterior-mixture"] = torch.distributions.MixtureSameFamily(equal, components).log_prob(z)
    close(ratios, q.log_prob(z).sum(1) - own[name])
    penalty = PENALTIES[name]()(LatentCode(z=z, **many, **prior)).item()
    assert ratios.mean().item() == pytest.approx(penalty, abs=5 * ratios.std().item() / math.sqrt(len(z)))


def test_the_mean_discrepancy_is_least_where_the_samples_agree():
    """Of the V-statistic this holds of the samples, of the U-statistic of what they are drawn from."""
    a = draw(9, 3).requires_grad_()
    b = a.detach().clone()
    value = mmd(a, b, SCALES, unbiased=False)
    assert value.abs() < 1e-12
    assert torch.autograd.grad(value, a)[0].abs().max() < 1e-12
    for size in (0.1, 1.0):
        assert mmd(a.detach() + size * draw(9, 3, seed=1), b, SCALES, unbiased=False) > 1e-6
    samples = [(draw(150, 3, seed=2 * seed), draw(150, 3, seed=2 * seed + 1)) for seed in range(12)]
    moved = {}
    for scale in (0.5, 0.8, 1.0, 1.25, 2.0):
        for shift in (-0.5, 0.0, 0.5):
            moved[scale, shift] = np.mean([mmd(scale * a + shift, b, SCALES).item() for a, b in samples])
    assert min(moved, key=moved.get) == (1.0, 0.0)
    assert abs(moved.pop((1.0, 0.0))) < 0.2 * min(moved.values())
    outwards = [moved[scale, 0.0] for scale in (1.25, 2.0)], [moved[scale, 0.0] for scale in (0.8, 0.5)]
    assert all(near < far for near, far in outwards)


# --- reconstructions


@dataclass(frozen=True)
class ReconstructionCase:
    """What a reconstruction term computes.

    Attributes:
        formula: From (x, output, options), of one example, to the value.
        examples: (x, output) of each kind that it is for.
        options: Sets of options to try.
        best: From (x, options) to the best output there is.
        least: From (x, options), of one example, to the value there.
    """

    formula: Callable[..., float]
    examples: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    best: Callable[..., torch.Tensor]
    least: Callable[..., float]
    options: tuple[dict[str, Any], ...] = ({},)


def unit(*shape, seed=0):
    return 0.05 + 0.9 * torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def one_hot(batch, length, symbols, seed=0):
    true = torch.randint(symbols, (batch, length), generator=torch.Generator().manual_seed(seed))
    return torch.eye(symbols, dtype=torch.float64)[true]


def squared_error(x, output, options):
    return sum((a - b) ** 2 for a, b in zip(x.ravel(), output.ravel(), strict=True))


def bernoulli(x, output, options):
    return -sum(a * np.log(b) + (1 - a) * np.log(1 - b) for a, b in zip(x.ravel(), output.ravel(), strict=True))


def categorical(x, output, options):
    groups = options.get("groups") or [0] * x.shape[-1]
    total = 0.0
    for row, logits in zip(x, output, strict=True):
        true = int(np.flatnonzero(row).item())
        rivals = [np.exp(logits[i]) for i in range(len(row)) if groups[i] == groups[true]]
        total -= np.log(np.exp(logits[true]) / sum(rivals))
    return total


def masked_bernoulli(x, output, options):
    """Every symbol present or not; a position whose symbol has no rival is left out."""
    groups = options.get("groups") or [0] * x.shape[-1]
    total = 0.0
    for row, logits in zip(x, output, strict=True):
        true = int(np.flatnonzero(row).item())
        competes = np.array([group == groups[true] for group in groups])
        if competes.sum() > 1:
            p = np.clip(competes * np.exp(logits) / np.sum(competes * np.exp(logits)), 1e-7, 1 - 1e-7)
            total -= np.sum(row * np.log(p) + (1 - row) * np.log(1 - p))
    return total


def perceptual(x, output, options):
    """With each convolution as sums over windows, and the largest of each 2 x 2 pixels."""
    network = {name: weight.double().numpy() for name, weight in load_onet().state_dict().items()}

    def maps(image):
        for number in (1, 2, 3):
            if number > 1:
                edge = [(0, 0), (0, image.shape[1] % 2), (0, image.shape[2] % 2)]
                even = np.pad(image, edge, constant_values=-np.inf)
                image = even.reshape(len(even), even.shape[1] // 2, 2, even.shape[2] // 2, 2).max((2, 4))
            windows = np.lib.stride_tricks.sliding_window_view(np.pad(image, [(0, 0), (1, 1), (1, 1)]), (3, 3), (1, 2))
            kernels, bias = network[f"conv{number}.weight"], network[f"conv{number}.bias"]
            image = np.tensordot(kernels, windows, ((1, 2, 3), (0, 3, 4))) + bias[:, None, None]
            image = np.where(image > 0, image, network[f"prelu{number}.weight"][:, None, None] * image)
            yield image / np.sqrt(np.sum(image**2, 0) + 1e-8)

    pairs = [(x, output)] if len(x) == 3 else [([a] * 3, [b] * 3) for a, b in zip(x, output, strict=True)]
    both = [(maps(2 * np.array(one) - 1), maps(2 * np.array(two) - 1)) for one, two in pairs]
    layers = [np.mean(np.sum((a - b) ** 2, 0)) for one, two in both for a, b in zip(one, two, strict=True)]
    return squared_error(x, output, options) + options.get("weight", 0.02) * x.size * np.mean(layers)


IMAGES = ((unit(5, 4), unit(5, 4, seed=1)), (unit(5, 2, 3, 3), unit(5, 2, 3, 3, seed=1)))
RECONSTRUCTION_CASES = {
    "squared-error": ReconstructionCase(squared_error, IMAGES, lambda x, options: x, lambda x, options: 0.0),
    "bernoulli": ReconstructionCase(
        bernoulli, IMAGES, lambda x, options: x, lambda x, options: bernoulli(x, x, options)
    ),
    "perceptual": ReconstructionCase(
        perceptual,
        ((unit(2, 3, 5, 3), unit(2, 3, 5, 3, seed=1)), (unit(1, 2, 3, 4), unit(1, 2, 3, 4, seed=1))),
        lambda x, options: x,
        lambda x, options: 0.0,
        ({}, {"weight": 0.5}),
    ),
    "masked-categorical": ReconstructionCase(
        categorical,
        ((one_hot(5, 7, 6), 2 * draw(5, 7, 6, seed=1)),),
        lambda x, options: 40.0 * x,
        lambda x, options: 0.0,
        ({}, {"groups": [0, 1, 1, 0, 0, 2]}),
    ),
    "masked-bernoulli": ReconstructionCase(
        masked_bernoulli,
        ((one_hot(5, 7, 6), 2 * draw(5, 7, 6, seed=1)),),
        lambda x, options: 40.0 * x,
        lambda x, options: masked_bernoulli(x, 40.0 * x, options),
        ({}, {"groups": [0, 1, 1, 0, 0, 2]}),
    ),
}


def reconstructions(name):
    """The term in each set of options, with inputs and outputs of each kind."""
    case = reference_for(name, RECONSTRUCTION_CASES, f"RECONSTRUCTION_CASES in {HERE}")
    for options in case.options:
        for x, output in case.examples:
            yield case, options, RECONSTRUCTIONS[name](**options), x, output.clone()


@pytest.mark.parametrize("name", RECONSTRUCTIONS)
def test_a_reconstruction_term_is_its_formula_summed_over_an_example_and_averaged_over_the_batch(name):
    for case, options, term, x, output in reconstructions(name):
        each = [case.formula(x[i].numpy(), output[i].numpy(), options) for i in range(len(x))]
        value = term(x, output)
        assert value.shape == ()
        close(term.each(x, output), np.array(each))
        assert value.item() == pytest.approx(sum(each) / len(each), rel=1e-10)
        twice = (torch.cat([x, x]), torch.cat([output, output]))
        assert term(*twice).item() == pytest.approx(value.item(), rel=1e-10)


@pytest.mark.parametrize("name", RECONSTRUCTIONS)
def test_the_gradient_of_a_reconstruction_term_is_that_of_its_formula(name):
    for case, options, term, x, output in reconstructions(name):

        def formula(case=case, options=options, x=x, output=output):
            rows = zip(x.numpy(), output.detach().numpy(), strict=True)
            return torch.tensor(sum(case.formula(*row, options) for row in rows) / len(x))

        assert_gradients(lambda term=term, x=x, output=output: term(x, output), [output.requires_grad_()], formula)


@pytest.mark.parametrize("name", RECONSTRUCTIONS)
def test_a_reconstruction_term_is_least_for_the_best_output(name):
    for case, options, term, x, output in reconstructions(name):
        best = case.best(x, options).clone().requires_grad_()
        least = term(x, best)
        expected = np.mean([case.least(row.numpy(), options) for row in x])
        assert least.item() == pytest.approx(expected, rel=1e-10, abs=1e-10)
        assert torch.autograd.grad(least, best)[0].abs().max() < 1e-9
        assert term(x, output) > least


# --- regularizers


class Decoder(nn.Module):
    """A smooth decoder of maps, with a kernel of each kind."""

    def __init__(self):
        super().__init__()
        layers = [nn.Linear(3, 8), nn.Tanh(), nn.Unflatten(1, (2, 2, 2))]
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(2, 3, 2), nn.Tanh(), nn.Conv2d(3, 1, 2))

    def forward(self, z):
        return self.layers(z)


@dataclass(frozen=True)
class RegularizerCase:
    """What a regularizer computes.

    Attributes:
        formula: From (decoder, z, coins) to the term; coins draws -1 and 1 of a shape, as the estimators do.
        options: Its options.
        drawn: Whether the term is an estimate, so that a batch repeated has another.
        prepared: From (layer, its weight) to the weight with which the decoder computes, once prepared.
    """

    formula: Callable[..., float]
    options: dict[str, Any] = field(default_factory=dict)
    drawn: bool = False
    prepared: Callable[..., torch.Tensor] = lambda layer, weight: weight


def kernels_squared(decoder, z, coins):
    weights = (p for p in decoder.parameters() if p.dim() > 1)
    return sum(sum(v**2 for v in weight.detach().numpy().ravel()) for weight in weights)


def jacobians(decoder, z, step=1e-5):
    """Of each example, outputs by codes, by central differences."""
    columns = []
    with torch.no_grad():
        for axis in torch.eye(z.shape[1], dtype=z.dtype):
            columns.append((decoder(z + step * axis) - decoder(z - step * axis)).flatten(1) / (2 * step))
    return torch.stack(columns, 2).numpy()


def frobenius(decoder, z, coins):
    return np.mean([np.sum(jacobian**2) for jacobian in jacobians(decoder, z)])


def pulled(decoder, z, coins):
    """|| J^T v ||^2, averaged over the batch."""
    signs = coins(decoder(z).shape).flatten(1).numpy()
    return np.mean([np.sum((j.T @ v) ** 2) for j, v in zip(jacobians(decoder, z), signs, strict=True)])


def pushed(decoder, z, coins):
    """|| J u ||^2, averaged over the batch."""
    return np.mean([np.sum((j @ u) ** 2) for j, u in zip(jacobians(decoder, z), coins(z.shape).numpy(), strict=True)])


def by_matrix(layer, weight):
    """By the largest singular value of the kernel as torch stores it, its first axis by the rest.

    Of a convolution that is outputs by rest, of a transposed one inputs by rest, as in the official code.
    """
    return weight / np.linalg.svd(weight.numpy().reshape(len(weight), -1))[1][0]


#: What the layers of `Decoder` get, and do without their biases.
MAPS: dict[type, tuple[tuple[int, ...], Callable[..., torch.Tensor]]] = {
    nn.Linear: ((3,), functional.linear),
    nn.ConvTranspose2d: ((2, 2, 2), functional.conv_transpose2d),
    nn.Conv2d: ((3, 3, 3), functional.conv2d),
}


def by_map(layer, weight):
    """By the largest singular value of the matrix from all numbers of the layer's input to all of its output."""
    size, operation = next(known for kind, known in MAPS.items() if isinstance(layer, kind))
    basis = torch.eye(math.prod(size), dtype=weight.dtype).view(-1, *size)
    return weight / np.linalg.svd(operation(basis, weight).flatten(1).numpy())[1][0]


REGULARIZER_CASES = {
    "none": (RegularizerCase(lambda *_: 0.0),),
    "tikhonov": (RegularizerCase(kernels_squared),),
    "gradient-penalty": (
        RegularizerCase(pulled, drawn=True),
        RegularizerCase(pushed, {"estimator": "forward"}, drawn=True),
        RegularizerCase(frobenius, {"estimator": "exact"}),
    ),
    "spectral-norm": (
        RegularizerCase(lambda *_: 0.0, {"iterations": 300}, prepared=by_matrix),
        RegularizerCase(lambda *_: 0.0, {"iterations": 300, "estimator": "operator"}, prepared=by_map),
    ),
}


def coins(shape):
    return (2 * torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(7)) - 1).double()


def regularizers(name):
    """Each case with a decoder, its weights before it was prepared, and codes."""
    for case in reference_for(name, REGULARIZER_CASES, f"REGULARIZER_CASES in {HERE}"):
        torch.manual_seed(0)
        encoder, decoder = nn.Linear(4, 3).double(), Decoder().double()
        before = [
            (layer, layer.weight.detach().clone()) for layer in (*decoder.layers, encoder) if hasattr(layer, "weight")
        ]
        regularizer = REGULARIZERS[name](**case.options)
        regularizer.prepare(encoder, decoder, (draw(1, 4), draw(1, 3)))
        yield case, regularizer, decoder, before, draw(6, 3)


def term(regularizer, decoder, z):
    torch.manual_seed(7)
    return regularizer.penalty(decoder, LatentCode(z=z, mean=z))


@pytest.mark.parametrize("name", REGULARIZERS)
def test_a_regularizer_is_its_formula(name):
    for case, regularizer, decoder, before, z in regularizers(name):
        *of_decoder, (encoder, weight) = before
        decoder(z)
        for layer, original in of_decoder:
            close(layer.weight, case.prepared(layer, original), rel=1e-6)
        close(encoder.weight, weight)
        value = term(regularizer, decoder, z)
        assert value.shape == ()
        assert value.item() == pytest.approx(case.formula(decoder, z, coins), rel=1e-7)
        assert not case.drawn or value.item() != pytest.approx(frobenius(decoder, z, coins), rel=1e-3)
        if not case.drawn:
            assert term(regularizer, decoder, z.repeat(4, 1)).item() == pytest.approx(value.item(), rel=1e-10)


@pytest.mark.parametrize("name", REGULARIZERS)
def test_the_gradient_of_a_regularizer_is_that_of_its_term(name):
    for _, regularizer, decoder, _, z in regularizers(name):
        inputs = list(decoder.parameters())

        def value(regularizer=regularizer, decoder=decoder, z=z, inputs=inputs):
            return term(regularizer, decoder, z) + 0 * inputs[0].sum()

        assert_gradients(value, inputs)


@pytest.mark.parametrize("name", REGULARIZERS)
def test_a_regularizer_is_least_for_a_decoder_of_zeros(name):
    for case, regularizer, decoder, _, z in regularizers(name):
        value = term(regularizer, decoder, z)
        if case.prepared is not RegularizerCase.prepared:
            continue  # no term: what it does is done to the weights
        with torch.no_grad():
            for parameter in decoder.parameters():
                parameter.zero_()
        assert term(regularizer, decoder, z).item() == 0
        assert value > 0 or name == "none"


def test_the_distance_of_features_grows_with_blur_where_the_squared_error_hardly_does():
    """And shifts of brightness, which blur is not, cost it less than the squared error has them cost."""
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    x = torch.stack([0.5 + 0.2 * torch.sin(rows * a + columns * b) for a, b in ((1.1, 0.4), (0.2, 1.7), (0.9, -1.3))])
    x = x[None].repeat(2, 1, 1, 1) + 0.05 * draw(2, 3, 32, 32).float()
    term: Any = RECONSTRUCTIONS["perceptual"]()
    found = []
    for width in (0.0, 0.4, 0.7, 1.0, 2.0, 4.0):
        kernel = torch.exp(-0.5 * (torch.arange(-9, 10) / max(width, 1e-3)) ** 2)
        kernel = (kernel / kernel.sum()).repeat(3, 1)
        padded = functional.pad(x, (9, 9, 9, 9), mode="reflect")
        blurred = functional.conv2d(padded, kernel[:, None, None], groups=3)
        found.append(term.distance(x, functional.conv2d(blurred, kernel[:, None, :, None], groups=3)).mean().item())
    assert found == sorted(found)
    assert found[0] == pytest.approx(0, abs=1e-9)
    assert found[2] > 1e-3
    lighter = x + (x - x.mean()).square().mean().sqrt()  # costs the squared error as much as to say nothing
    assert term.distance(x, lighter).mean() < 0.5 * found[-1]
