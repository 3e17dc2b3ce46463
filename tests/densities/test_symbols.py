"""The contract of densities of symbols, over the registry; and what the transformer learns, draws and caches."""

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from expost.densities import DENSITIES, Categorical, SymbolDensity, load_density, make_density
from expost.densities.symbols import choose_symbols, tempered
from expost.densities.transformer import Transformer
from expost.errors import DataError, UsageError

pytestmark = pytest.mark.usefixtures("one_thread")

# What makes a density quick enough for tests; a new one needs a row here only if its defaults are slow.
QUICK: dict[str, dict[str, Any]] = {
    "autoregressive": {"width": 16, "depth": 2, "heads": 2, "steps": 40, "batch_size": 64, "lr": 5e-3}
}
NAMES = [name for name, kind in DENSITIES.items() if kind.of_symbols]
every_density = pytest.mark.parametrize("name", NAMES)
#: All grids of 2 x 2 sites with 3 symbols, shape (81, 2, 2).
ALL = torch.tensor(list(itertools.product(range(3), repeat=4))).view(-1, 2, 2).float()
#: From each symbol to each: what follows it in a planted chain.
CHAIN = torch.tensor([[0.8, 0.1, 0.1], [0.05, 0.9, 0.05], [0.3, 0.3, 0.4]], dtype=torch.float64)
#: Standard errors that a frequency of a right sampler is not off: beyond 5 with a probability below 1e-6.
ERRORS = 5.0


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def quick(name: str, **options: Any) -> SymbolDensity:
    density = make_density(name, **QUICK.get(name, {}) | {"symbols": 3} | options)
    assert isinstance(density, SymbolDensity)
    return density


def chain(n: int, shape: tuple[int, int], seed: int = 0) -> Tensor:
    """Grids whose symbols follow each other, in raster order, as `CHAIN` says; the first is 0, 1 or 2 alike."""
    generator, sites = seeded(seed), math.prod(shape)
    z = torch.zeros(n, sites, dtype=torch.int64)
    z[:, 0] = torch.randint(3, (n,), generator=generator)
    for t in range(1, sites):
        z[:, t] = torch.multinomial(CHAIN[z[:, t - 1]], 1, generator=generator)[:, 0]
    return z.view(n, *shape).float()


def classes(z: Tensor) -> Tensor:
    return (z[:, 0, 0] + z[:, 1, 1]).long() % 2


@pytest.fixture(scope="module")
def fitted() -> dict[str, SymbolDensity]:
    return {name: quick(name).fit(chain(300, (2, 2))) for name in NAMES}


@pytest.fixture(scope="module")
def by_label() -> dict[str, SymbolDensity]:
    z = chain(300, (2, 2))
    return {name: quick(name).fit(z, classes(z)) for name in NAMES}


@every_density
def test_probabilities_of_all_grids_sum_to_one(
    name: str, fitted: dict[str, SymbolDensity], by_label: dict[str, SymbolDensity]
) -> None:
    for density in (fitted[name], by_label[name]):
        assert density.log_prob(ALL).exp().sum().item() == pytest.approx(1, abs=1e-6)
        assert density.log_prob(ALL).max() <= 0
    for label in (0, 1):
        assert by_label[name].log_prob(ALL, label).exp().sum().item() == pytest.approx(1, abs=1e-6)


@every_density
def test_a_mixture_over_labels_is_the_density_without_one(name: str, by_label: dict[str, SymbolDensity]) -> None:
    density = by_label[name]
    shares = torch.tensor(density.counts) / sum(density.counts)
    mixed = sum(share * density.log_prob(ALL, c).exp() for c, share in enumerate(shares))
    torch.testing.assert_close(density.log_prob(ALL).exp(), mixed)
    posterior = density.posterior(ALL)
    torch.testing.assert_close(posterior[:, 1], shares[1] * density.log_prob(ALL, 1).exp() / mixed)


def assert_frequencies(drawn: Tensor, probabilities: Tensor) -> None:
    """Compare how often grids of `ALL` were drawn with their probabilities."""
    numbers = (drawn.flatten(1).long() * torch.tensor([27, 9, 3, 1])).sum(1)
    found = numbers.bincount(minlength=81) / len(drawn)
    errors = (probabilities * (1 - probabilities) / len(drawn)).sqrt()
    assert ((found - probabilities).abs() <= ERRORS * errors + 3 / len(drawn)).all()


@every_density
def test_samples_follow_the_mass_function(
    name: str, fitted: dict[str, SymbolDensity], by_label: dict[str, SymbolDensity]
) -> None:
    drawn = fitted[name].sample(20_000, generator=seeded(1))
    assert drawn.shape == (20_000, 2, 2)
    assert drawn.dtype == torch.float32
    assert_frequencies(drawn, fitted[name].log_prob(ALL).exp())
    assert_frequencies(by_label[name].sample(20_000, generator=seeded(2)), by_label[name].log_prob(ALL).exp())
    given = by_label[name].sample(20_000, 1, generator=seeded(3))
    assert_frequencies(given, by_label[name].log_prob(ALL, 1).exp())


def explicit(density: SymbolDensity, change: Any) -> Tensor:
    """The probability of each of `ALL` when each symbol in turn is drawn from what `change` makes of its probabilities.

    P(z_t | z_<t) are sums of probabilities of whole grids.
    """
    joint = density.log_prob(ALL).exp().view(3, 3, 3, 3)
    result = torch.ones_like(joint)
    for t in range(4):
        prefix = joint.sum(dim=tuple(range(t + 1, 4))) if t < 3 else joint
        conditional = prefix / prefix.sum(-1, keepdim=True)
        result = result * change(conditional).view(*conditional.shape, *[1] * (3 - t))
    return result.flatten()


@every_density
@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_a_temperature_is_a_power_of_each_symbols_probability(
    name: str, temperature: float, fitted: dict[str, SymbolDensity]
) -> None:
    def power(p: Tensor) -> Tensor:
        return p ** (1 / temperature) / (p ** (1 / temperature)).sum(-1, keepdim=True)

    drawn = fitted[name].sample(20_000, generator=seeded(4), temperature=temperature)
    assert_frequencies(drawn, explicit(fitted[name], power))
    assert torch.equal(
        fitted[name].sample(9, generator=seeded(), temperature=1.0), fitted[name].sample(9, generator=seeded())
    )


@every_density
def test_at_temperature_zero_the_likeliest_symbols_are_left(name: str, fitted: dict[str, SymbolDensity]) -> None:
    cold = fitted[name].sample(5, generator=seeded(), temperature=0)
    expected = explicit(fitted[name], lambda p: (p == p.max(-1, keepdim=True).values).double())
    assert torch.equal(cold, ALL[int(expected.argmax())].expand(5, 2, 2))


def test_top_k_leaves_the_k_likeliest() -> None:
    z = chain(300, (2, 2))
    density = quick("autoregressive", top_k=2).fit(z)

    def two(p: Tensor) -> Tensor:
        kept = p.masked_fill(p < p.topk(2, -1).values[..., -1:], 0.0)
        return kept / kept.sum(-1, keepdim=True)

    assert_frequencies(density.sample(20_000, generator=seeded(5)), explicit(density, two))
    torch.testing.assert_close(density.log_prob(z), quick("autoregressive").fit(z).log_prob(z))
    assert torch.equal(quick("autoregressive", top_k=1).fit(z).sample(3), density.sample(3, temperature=0))


@every_density
def test_fits_and_draws_are_reproducible(name: str, fitted: dict[str, SymbolDensity]) -> None:
    state = torch.get_rng_state()
    again = quick(name).fit(chain(300, (2, 2)))
    assert torch.equal(torch.get_rng_state(), state)
    for key, tensor in fitted[name].tensors.items():
        torch.testing.assert_close(again.tensors[key], tensor)
    first = fitted[name].sample(50, generator=seeded(7))
    assert torch.equal(first, fitted[name].sample(50, generator=seeded(7)))
    assert not torch.equal(first, fitted[name].sample(50, generator=seeded(8)))
    assert fitted[name].sample(0).shape == (0, 2, 2)


@every_density
def test_a_file_holds_all_of_it(name: str, by_label: dict[str, SymbolDensity], tmp_path: Path) -> None:
    loaded = load_density(by_label[name].save(tmp_path))
    assert isinstance(loaded, SymbolDensity)
    assert torch.equal(loaded.log_prob(ALL, 1), by_label[name].log_prob(ALL, 1))
    assert torch.equal(loaded.sample(9, 0, generator=seeded()), by_label[name].sample(9, 0, generator=seeded()))
    assert loaded.labels == (0, 1)
    assert loaded.statistics == by_label[name].statistics


@every_density
@pytest.mark.parametrize(
    ("z", "words"),
    [
        (torch.tensor([[0.0, 1.0], [0.0, 0.5]]), "code 1 has 0.5 at site 1, and density '.*' is of symbols"),
        (torch.tensor([[0.0, 3.0], [0.0, 1.0]]), "code 0 has 3 at site 1.*from 0 to 2"),
        (torch.tensor([[0.0, -1.0], [0.0, 1.0]]), "has -1"),
        (torch.tensor([[0.0, math.nan], [0.0, 1.0]]), "NaN"),
        (torch.tensor([[0.0, 1.0]]), "at least two different codes"),
        (torch.ones(9, 2, 2), "all 9 codes are equal"),
    ],
)
def test_what_is_no_symbol_is_refused(name: str, z: Tensor, words: str, fitted: dict[str, SymbolDensity]) -> None:
    with pytest.raises(DataError, match=words) as caught:
        quick(name).fit(z)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="code 0 has 7"):
        fitted[name].log_prob(torch.full((2, 2, 2), 7.0))
    with pytest.raises(DataError, match="numbers.*65535|65535"):
        quick(name, symbols=None).fit(torch.tensor([[0.0, 1e6], [0.0, 1.0]]))


@every_density
def test_labels_that_were_not_given_are_not_known(name: str, fitted: dict[str, SymbolDensity]) -> None:
    for attempt in (
        lambda: fitted[name].sample(2, 1),
        lambda: fitted[name].posterior(ALL),
        lambda: fitted[name].labels,
    ):
        with pytest.raises(UsageError, match="was fitted without labels"):
            attempt()
    assert not fitted[name].labelled


@every_density
@pytest.mark.parametrize("device", [pytest.param("cuda", marks=pytest.mark.cuda)])
def test_a_gpu_gives_what_the_cpu_gives(name: str, device: str, fitted: dict[str, SymbolDensity]) -> None:
    density = quick(name).fit(chain(300, (2, 2)).to(device))
    assert density.sample(4, generator=seeded()).device.type == device
    torch.testing.assert_close(density.log_prob(ALL), fitted[name].log_prob(ALL), rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"symbols": 1}, "symbols=1"),
        ({"width": 10, "heads": 4}, "width=10 must be a multiple of heads=4"),
        ({"top_k": 0}, "top_k=0"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"lr": 0.0}, "lr=0.0"),
        ({"depth": 0}, "depth=0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make_density("autoregressive", **options)


@pytest.mark.parametrize(
    ("z", "least", "most"),
    [
        (torch.stack([torch.arange(400) % 2, (torch.arange(400) % 4 == 0) * 2], 1), 0, 10),  # unlike sites
        (torch.randint(3, (6, 20), generator=seeded(2)), 100, math.inf),  # sites alike: their own shares are chance
    ],
    ids=["unlike", "alike"],
)
def test_independent_symbols_are_shares_of_each_site(z: Tensor, least: float, most: float) -> None:
    """With a the weight of the pooled shares g, (n + a g) / (N + a); a is best if each occurrence is left out."""
    count, sites = z.shape
    density = Categorical(symbols=3).fit(z.float())
    table = density.tensors["log"].exp()[0]
    counts = torch.stack([z[:, s].bincount(minlength=3) for s in range(sites)]).double()
    pooled = (counts.sum(0) + 0.5) / (count * sites + 1.5)
    pairs = [(float(counts[s, k]), float(pooled[k])) for s in range(sites) for k in range(3)]

    def left_out(a: float) -> float:
        return sum(n * math.log((n - 1 + a * g) / (count - 1 + a)) for n, g in pairs if n)

    best = max((0.1, 1.0, 10.0, 100.0, 1000.0, 10_000.0), key=left_out)
    assert least <= best <= most
    torch.testing.assert_close(table, (counts + best * pooled) / (count + best))
    expected = sum(math.log(table[s, int(z[0, s])]) for s in range(sites))
    assert density.log_prob(z[:1].float()).item() == pytest.approx(expected)


# ------------------------------------------------------------------------------------------------------ the transformer


def network(classes: int = 2) -> tuple[Transformer, dict[str, Tensor]]:
    made = Transformer(symbols=5, shape=(3, 4), classes=classes, width=16, depth=2, heads=4)
    weights = made.initial(seeded(), torch.device("cpu"))
    return made, {
        name: weight + 0.3 * torch.randn(weight.shape, generator=seeded(1)) for name, weight in weights.items()
    }


def test_cached_decoding_is_the_full_evaluation() -> None:
    made, weights = network()
    grids, labels = torch.randint(5, (7, 12), generator=seeded()), torch.arange(7) % 2
    full = made.logits(grids, labels, weights)
    cache = made.empty(7, weights)
    for t in range(12):
        step = made.step(grids[:, max(0, t - 1)], t, labels, cache, weights)
        torch.testing.assert_close(step, full[:, t], rtol=1e-5, atol=1e-5)


def test_a_symbol_depends_on_those_before_it_and_on_its_place_and_class() -> None:
    made, weights = network()
    grids, labels = torch.randint(5, (1, 12), generator=seeded()), torch.zeros(1, dtype=torch.int64)
    logits = made.logits(grids, labels, weights)
    for t in range(12):
        other = grids.clone()
        other[0, t] = (other[0, t] + 1) % 5
        moved = (made.logits(other, labels, weights) - logits).abs().amax((0, 2)) > 1e-6
        assert moved.tolist() == [s > t for s in range(12)]
    assert ((made.logits(grids, labels + 1, weights) - logits).abs().amax(2) > 1e-6).all()
    for name, first in (("row", 4), ("column", 1)):  # of the second row or column; what is before does not change
        placed = weights | {name: weights[name].index_add(0, torch.tensor([1]), weights["out"][:1])}
        moved = (made.logits(grids, labels, placed) - logits).abs().amax((0, 2)) > 1e-6
        assert moved.tolist() == [s >= first for s in range(12)]


def test_dropout_sets_numbers_to_zero_in_training_only() -> None:
    made, weights = network()
    grids, labels = torch.zeros(3, 12, dtype=torch.int64), torch.zeros(3, dtype=torch.int64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first, second = (made.logits(grids, labels, weights, dropout=0.5) for _ in range(2))
    assert not torch.allclose(first, second)
    assert torch.equal(made.logits(grids, labels, weights), made.logits(grids, labels, weights))


def test_training_starts_from_independent_symbols() -> None:
    made = Transformer(symbols=5, shape=(3, 4), classes=1, width=16, depth=2, heads=4)
    weights = made.initial(seeded(), torch.device("cpu"))
    assert {name: tuple(weight.shape) for name, weight in weights.items()} == made.shapes()
    logits = made.logits(torch.zeros(2, 12, dtype=torch.int64), torch.zeros(2, dtype=torch.int64), weights)
    assert torch.equal(logits, torch.zeros(2, 12, 5))
    density = quick("autoregressive").fit(torch.tensor([[0.0, 1.0], [2.0, 0.0], [1.0, 1.0]]))
    assert density.statistics["best_step"] == 0  # one held-out code tells nothing


def test_a_planted_chain_is_recovered() -> None:
    """Transition frequencies within sampling error plus what 3,000 grids leave open, and 0.01 nats a site."""
    options = {"width": 32, "steps": 250, "dropout": 0.0}
    density = quick("autoregressive", **options).fit(chain(3_000, (3, 4)))
    held_out = chain(2_000, (3, 4), seed=1)
    symbols = held_out.long().flatten(1)
    truth = -math.log(3) + CHAIN.log()[symbols[:, :-1], symbols[:, 1:]].sum(1)
    assert 0 <= (truth - density.log_prob(held_out)).mean().item() / 12 < 0.01
    drawn = density.sample(4_000, generator=seeded(2)).long().flatten(1)
    for symbol in range(3):
        following = drawn[:, 1:][drawn[:, :-1] == symbol]
        found = following.bincount(minlength=3) / len(following)
        torch.testing.assert_close(found.double(), CHAIN[symbol], atol=0.03, rtol=0)
    independent = Categorical(symbols=3).fit(chain(3_000, (3, 4)))
    assert (density.log_prob(held_out) - independent.log_prob(held_out)).mean() > 3


@every_density
def test_labels_are_learned(name: str) -> None:
    """Of one class the chain runs along rows from 0, of the other from 2: the first symbol tells the class."""
    z = chain(400, (2, 2))
    z = z[z[:, 0, 0] != 1]
    labels = (z[:, 0, 0] == 2).long()
    density = quick(name, **({"steps": 120} if name == "autoregressive" else {})).fit(z, labels)
    for c, symbol in ((0, 0.0), (1, 2.0)):
        assert (density.sample(500, c, generator=seeded())[:, 0, 0] == symbol).float().mean() > 0.95
    assert (density.posterior(z).argmax(1) == labels).float().mean() > 0.95


def test_symbols_are_drawn_by_inversion() -> None:
    probabilities = torch.tensor([[0.0, 0.5, 0.25, 0.25, 0.0]]).double().expand(4, 5)
    uniform = torch.tensor([0.0, 0.49, 0.5, 1.0]).double()
    assert choose_symbols(probabilities, uniform).tolist() == [1, 1, 2, 3]
    assert tempered(torch.tensor([1.0, 1.0, 0.0]), 1.0, top_k=1).tolist() == [0.5, 0.5, 0.0]
