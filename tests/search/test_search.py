"""Search in latent space: surrogate and acquisition against closed forms, the loop on problems of known optimum."""

import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

pytest.importorskip("botorch", reason="search needs BoTorch: pip install 'expost[molecules]'")

from expost.densities import TractableDensity, make_density
from expost.errors import DataError, UsageError
from expost.search import (
    Found,
    FunctionObjective,
    Objective,
    SearchConfig,
    SearchResult,
    aggregate_corrected,
    aggregate_original,
    draw,
    make_objective,
    markdown,
    optimize,
    read_search,
)
from expost.search.acquisition import BatchImprovement, Box, DensityRegion, log_improvement
from expost.search.drawing import text
from expost.search.result import Round
from expost.search.surrogate import fit_surrogate

D = 6
SMALL = SearchConfig(rounds=2, batch=5, decodes=1, inducing=40, steps=10, minibatch=100, candidates=64, refinements=3)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Numeral(Objective):
    """The string is its own score."""

    name = "numeral"

    def __init__(self, minimize: bool = False) -> None:
        self._minimize = minimize

    @property
    def minimize(self) -> bool:
        return self._minimize

    @property
    def label(self) -> str:
        return "numeral"

    def _values(self, strings: list[str]) -> list[object]:
        return [float(string) for string in strings]

    def picture(self, found: Sequence[Found]) -> Image.Image:
        return text(found)


class Problem:
    """Codes in three clusters; f is best at a point that one of them covers; far from all clusters nothing decodes."""

    def __init__(self, n: int = 600, seed: int = 0) -> None:
        g = seeded(seed)
        self.centers = 3 * torch.randn(3, D, generator=g)
        codes = self.centers[torch.randint(3, (n,), generator=g)] + torch.randn(n, D, generator=g)
        self.optimum = self.centers[0] + 1.2 * torch.nn.functional.normalize(torch.randn(D, generator=g), dim=0)
        scores = self.f(codes)
        kept = scores < scores.quantile(0.9)  # what is to be found is better than all that is known
        self.codes, self.scores = codes[kept], scores[kept]
        self.density = make_density("gmm", components=3).fit(self.codes)

    def f(self, z: Tensor) -> Tensor:
        return -(z.double() - self.optimum).norm(dim=1)

    def decode(self, z: Tensor, k: int, generator: torch.Generator) -> list[str | None]:
        near = torch.cdist(z.double(), self.centers.double()).amin(1) < 4  # a cluster's radius is about 2.4
        return [f"{value:.9f}" if ok else None for value, ok in zip(self.f(z).tolist(), near.tolist(), strict=True)]

    def search(self, folder: Path, objective: Objective | None = None, **settings: object) -> SearchResult:
        config = SearchConfig(**{**vars(SMALL), **settings})  # type: ignore[arg-type]
        objective = objective or Numeral()
        return optimize(self.codes, self.scores, self.decode, objective, config, self.density, folder)


@pytest.fixture(scope="module")
def problem() -> Problem:
    return Problem()


def same(a: SearchResult, b: SearchResult) -> bool:
    pairs = list(zip(a.rounds, b.rounds, strict=True))
    return all(
        torch.equal(x.codes, y.codes)
        and (x.strings, x.scores, x.outcomes, x.message) == (y.strings, y.scores, y.outcomes, y.message)
        for x, y in pairs
    )


# --- the surrogate ---------------------------------------------------------------------------------------------------


def test_with_every_code_an_inducing_point_the_surrogate_is_the_exact_gaussian_process() -> None:
    g = seeded(1)
    x = torch.randn(30, 2, generator=g, dtype=torch.float64) * torch.tensor([1.0, 50.0]) + 7
    y = torch.sin(x[:, 0]) + 0.01 * x[:, 1]
    fitted = fit_surrogate(x, y, inducing=30, steps=0, minibatch=10, lr=0.1, generator=g)
    test = torch.randn(9, 2, generator=g, dtype=torch.float64) * torch.tensor([1.0, 50.0]) + 7
    u, v = fitted.to_unit(x), fitted.to_unit(test)
    length = fitted.model.model.covar_module.lengthscale
    noise, constant = fitted.model.likelihood.noise, fitted.model.model.mean_module.constant

    def k(a: Tensor, b: Tensor) -> Tensor:
        return torch.exp(-0.5 * torch.cdist(a / length, b / length).square())

    weights = torch.linalg.solve(k(u, u) + noise * torch.eye(30), k(u, v)).mT
    mean = constant + weights @ ((y - y.mean()) / y.std() - constant)
    variance = 1 - (weights * k(v, u)).sum(1)
    got_mean, got_deviation = fitted.predict(test)
    torch.testing.assert_close(got_mean, y.mean() + y.std() * mean, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(got_deviation, y.std() * variance.sqrt(), rtol=1e-2, atol=1e-3)


def test_the_surrogate_predicts_as_the_botorch_model_it_wraps(problem: Problem) -> None:
    fitted = fit_surrogate(problem.codes, problem.scores, 40, 15, 100, 0.02, seeded())
    x = fitted.to_unit(problem.codes[:20])
    posterior = fitted.model.posterior(x)
    mean, deviation = fitted.predict(problem.codes[:20])
    torch.testing.assert_close(mean, fitted.center + fitted.spread * posterior.mean[:, 0])
    torch.testing.assert_close(
        deviation, fitted.spread * (posterior.variance[:, 0] - 1e-6).sqrt(), rtol=1e-6, atol=1e-9
    )
    a = fitted.features(x)
    covariance = fitted.kernel(x, x) - a.mT @ fitted.posterior.shrinkage @ a
    torch.testing.assert_close(covariance, posterior.distribution.covariance_matrix - 1e-6 * torch.eye(20))


def test_training_raises_the_likelihood_of_held_out_scores(problem: Problem) -> None:
    known, held = slice(0, 400), slice(400, None)

    def log_likelihood(steps: int) -> float:
        fitted = fit_surrogate(problem.codes[known], problem.scores[known], 40, steps, 200, 0.02, seeded())
        mean, deviation = fitted.predict(problem.codes[held])
        noise = float(fitted.model.likelihood.noise) * fitted.spread**2
        return float(
            torch.distributions.Normal(mean, (deviation**2 + noise).sqrt()).log_prob(problem.scores[held]).mean()
        )

    assert log_likelihood(60) > log_likelihood(0) + 0.4  # with q(u) left to Adam it fell


def test_equal_codes_and_unused_dimensions_do_not_break_the_fit() -> None:
    codes = torch.cat([torch.randn(10, 3, generator=seeded()).repeat(20, 1), torch.full((200, 1), 4.0)], 1)
    fitted = fit_surrogate(codes, codes[:, 0], inducing=100, steps=3, minibatch=50, lr=0.02, generator=seeded())
    mean, _ = fitted.predict(codes[:10])
    assert len(fitted.posterior.mean) == 10
    torch.testing.assert_close(mean, codes[:10, 0].double(), rtol=0, atol=0.2)


# --- the acquisition -------------------------------------------------------------------------------------------------


def test_log_improvement_agrees_with_botorch_and_has_finite_slopes_everywhere() -> None:
    from botorch.acquisition.analytic import _log_ei_helper

    u = torch.cat(
        [torch.linspace(-40, 8, 4001, dtype=torch.float64), -torch.logspace(1.5, 12, 200, dtype=torch.float64)]
    )
    torch.testing.assert_close(log_improvement(u), _log_ei_helper(u), rtol=1e-8, atol=1e-8)
    u.requires_grad_()
    (slope,) = torch.autograd.grad(log_improvement(u).sum(), u)
    assert slope.isfinite().all()
    assert (slope > 0).all()


def test_the_batch_improvement_is_the_expectation_over_the_joint_posterior(problem: Problem) -> None:
    fitted = fit_surrogate(problem.codes, problem.scores, 40, 15, 100, 0.02, seeded())
    points = fitted.to_unit(problem.codes[problem.scores.topk(4).indices])
    pending, x = points[:2], points[2:] + 0.05
    best = float(problem.scores.max()) - 0.5
    acquisition = BatchImprovement(fitted, best, fantasies=4000, generator=seeded())
    for point in pending:
        acquisition.add(point)
    posterior = fitted.model.posterior(points.index_copy(0, torch.tensor([2, 3]), x)).distribution
    root = torch.linalg.cholesky(posterior.covariance_matrix)
    draws = posterior.mean + torch.randn(400_000, 4, generator=seeded(1), dtype=torch.float64) @ root.mT
    incumbent = draws[:, :2].amax(1).clamp_min((best - fitted.center) / fitted.spread)
    expected = (draws[:, 2:] - incumbent[:, None]).clamp_min(0).mean(0)
    torch.testing.assert_close(acquisition(x).exp(), expected, rtol=0.05, atol=1e-6)


def test_a_point_is_not_chosen_twice(problem: Problem) -> None:
    fitted = fit_surrogate(problem.codes, problem.scores, 40, 15, 100, 0.02, seeded())
    acquisition = BatchImprovement(fitted, float(problem.scores.max()), 8, seeded())
    x = fitted.to_unit(problem.codes[:1])
    before = acquisition(x)
    acquisition.add(x[0])
    assert float(acquisition(x)) < float(before) - 2


@pytest.mark.parametrize("kind", ["box", "density"])
def test_a_region_gives_points_inside_it_that_beat_random_ones(problem: Problem, kind: str) -> None:
    fitted = fit_surrogate(problem.codes, problem.scores, 40, 15, 100, 0.02, seeded())
    region: Box | DensityRegion = Box(problem.codes, 200, 4, 20)
    inside = region.low + torch.rand(2000, D, generator=seeded(3), dtype=torch.float64) * (region.high - region.low)
    if kind == "density":
        region = DensityRegion(
            problem.density,
            problem.codes,
            problem.codes,
            problem.scores,
            0.2,
            200,
            4,
            20,
            seeded(),  # type: ignore[arg-type]
        )
        assert float(region.contains(problem.codes).double().mean()) == pytest.approx(0.8, abs=0.01)
        inside = problem.density.sample(4000, generator=seeded(3)).double()
        inside = inside[region.contains(inside)][:2000]
    acquisition = BatchImprovement(fitted, float(problem.scores.max()), 8, seeded())
    source, chosen = seeded(4), []
    for _ in range(3):
        point = region.maximize(acquisition, source)
        assert float(acquisition(point[None])) > float(acquisition(fitted.to_unit(inside)).max())
        acquisition.add(point)
        chosen.append(fitted.to_codes(point))
    assert region.contains(torch.stack(chosen).float()).all()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gaussian", {}),
        ("gmm", {"components": 4}),
        ("kde", {"bandwidth": "cross-validated"}),
        ("kde", {"bandwidth": 0.1}),
        ("reduced", {"base": "kde", "rank": 4}),
    ],
)
def test_a_region_holds_its_share_of_codes_that_its_density_has_not_seen(name: str, options: dict[str, Any]) -> None:
    z = torch.randn(3000, 6, generator=seeded()) @ torch.randn(6, 6, generator=seeded(1))
    density = make_density(name, **options).fit(z[:1500])
    assert isinstance(density, TractableDensity)
    scores = z[:1500, 0].double()
    region = DensityRegion(density, z[:1500], z[:1500], scores, 0.2, 200, 4, 5, seeded(2))
    assert float(region.contains(z[1500:]).double().mean()) == pytest.approx(0.8, abs=0.04)
    draws = density.sample(1000, generator=seeded(3))
    assert float(region.contains(draws).double().mean()) > 0.5


# --- the loop --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("region", ["box", "density"])
def test_a_region_comes_near_the_optimum_and_beats_random_search(
    problem: Problem, tmp_path: Path, region: Literal["box", "density"]
) -> None:
    def decode(z: Tensor, k: int, generator: torch.Generator) -> list[str | None]:
        return [str(value) for value in problem.f(z).tolist()]  # whatever the code

    config = SearchConfig(rounds=2, batch=15, inducing=60, steps=30, candidates=200, refinements=15, region=region)
    begun = [problem.codes, problem.scores, decode, Numeral()]
    first = optimize(*begun, replace(config, rounds=1), problem.density, tmp_path, known=lambda strings: strings[:3])
    assert first.known == set(first.strings[:3])
    assert read_search(tmp_path).known == first.known
    result = optimize(*begun, config, problem.density, tmp_path)
    assert (result.known, read_search(tmp_path).known) == (None, None)  # nobody looked at the second round's
    low, high = problem.codes.amin(0), problem.codes.amax(0)
    draws = problem.density.sample(30, generator=seeded(5))
    uniform = low + torch.rand(30, D, generator=seeded(5)) * (high - low)
    random = max(float(problem.f(draws).max()), float(problem.f(uniform).max()))
    known = float(problem.scores.max())
    assert known < -2  # the optimum, 0, is far from what is known
    assert result.start == known
    best = result.best(1)[0].score
    assert best > random + 0.5
    assert best > -0.8
    trace = result.best_so_far()
    assert trace[0] is not None
    assert trace[0] <= best == trace[1]


def test_the_density_keeps_the_search_where_the_decoder_works(problem: Problem, tmp_path: Path) -> None:
    box = problem.search(tmp_path / "box", region="box", batch=20)
    density = problem.search(tmp_path / "density", region="density", batch=20)
    assert box.valid < 0.5
    assert density.valid > 0.9
    assert density.average() > box.average() + 1
    assert density.average(original=True) > density.average()  # less its single worst point


def test_what_is_recorded_is_what_was_decoded_and_scored(problem: Problem, tmp_path: Path) -> None:
    result = problem.search(tmp_path, region="box", batch=10, rounds=2)
    worst = float(problem.scores.min())
    assert result.worst == worst
    assert any(outcome == "invalid" for batch in result.rounds for outcome in batch.outcomes)
    for batch in result.rounds:
        assert batch.strings == problem.decode(batch.codes.float(), 1, seeded())
        for string, score, outcome in zip(batch.strings, batch.scores, batch.outcomes, strict=True):
            assert (score, outcome) == ((worst, "invalid") if string is None else (float(string), "valid"))
        assert batch.valid == sum(string is not None for string in batch.strings) / 10
    low, high = problem.codes.amin(0), problem.codes.amax(0)
    points = torch.cat([batch.codes for batch in result.rounds])
    assert ((points >= low - 1e-5) & (points <= high + 1e-5)).all()


def test_minimizing_the_negative_is_maximizing(problem: Problem, tmp_path: Path) -> None:
    class Negative(Numeral):
        def _values(self, strings: list[str]) -> list[object]:
            return [-float(string) for string in strings]

    up = problem.search(tmp_path / "up")
    config = SearchConfig(**vars(SMALL))
    down = optimize(
        problem.codes,
        -problem.scores,
        problem.decode,
        Negative(minimize=True),
        config,
        problem.density,
        tmp_path / "down",
    )
    assert (down.worst, down.start) == (-up.worst, -up.start)
    assert [s for batch in down.rounds for s in batch.strings] == [s for batch in up.rounds for s in batch.strings]
    assert down.best(1)[0].score == -up.best(1)[0].score
    assert down.average() == pytest.approx(-up.average())


def test_a_seed_decides_everything_and_the_global_generator_is_left_alone(problem: Problem, tmp_path: Path) -> None:
    state = torch.random.get_rng_state()
    first = problem.search(tmp_path / "a")
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(7)
    assert same(first, problem.search(tmp_path / "b"))
    assert not same(first, problem.search(tmp_path / "c", seed=1))


@pytest.mark.parametrize("region", ["box", "density"])
def test_an_interrupted_search_goes_on_as_if_it_had_not_been(problem: Problem, tmp_path: Path, region: str) -> None:
    whole = problem.search(tmp_path / "whole", rounds=3, region=region)
    calls = 0

    def interrupted(z: Tensor, k: int, generator: torch.Generator) -> list[str | None]:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return problem.decode(z, k, generator)

    config = SearchConfig(**{**vars(SMALL), "rounds": 3, "region": region})  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        optimize(problem.codes, problem.scores, interrupted, Numeral(), config, problem.density, tmp_path / "part")
    assert len(json.loads((tmp_path / "part/search.json").read_text())["rounds"]) == 1
    resumed = problem.search(tmp_path / "part", rounds=3, region=region)
    assert same(whole, resumed)
    assert whole.summary()["average"] == resumed.summary()["average"]


def test_a_finished_search_is_read_and_can_be_continued_to_more_rounds(problem: Problem, tmp_path: Path) -> None:
    class Never(Numeral):
        def _values(self, strings: list[str]) -> list[object]:
            raise AssertionError("a finished round was scored again")

    whole = problem.search(tmp_path / "whole", rounds=2)
    problem.search(tmp_path / "part", rounds=1)
    assert same(problem.search(tmp_path / "part", rounds=2), whole)
    again = problem.search(tmp_path / "part", Never(), rounds=2)
    assert same(again, whole)
    assert (again.start, again.worst, again.average()) == (whole.start, whole.worst, whole.average())
    with pytest.raises(UsageError, match="rounds=2, not 1"):
        problem.search(tmp_path / "part", rounds=1)


def test_another_search_in_the_same_folder_is_refused_and_the_difference_named(
    problem: Problem, tmp_path: Path
) -> None:
    problem.search(tmp_path, rounds=1)
    for name, value in {"batch": 6, "region": "box", "seed": 9, "quantile": 0.3, "minimize": True, "steps": 9}.items():
        with pytest.raises(UsageError, match=f"holds a search with {name}="):
            problem.search(tmp_path, rounds=1, **{name: value})
    config = SearchConfig(**{**vars(SMALL), "rounds": 1})

    class Other(Numeral):
        @property
        def label(self) -> str:
            return "scores:f"

    with pytest.raises(UsageError, match="objective=numeral, not scores:f"):
        problem.search(tmp_path, Other(), rounds=1)
    with pytest.raises(UsageError, match="other codes"):
        optimize(problem.codes + 1, problem.scores, problem.decode, Numeral(), config, problem.density, tmp_path)
    with pytest.raises(UsageError, match="other scores"):
        optimize(problem.codes, problem.scores + 1, problem.decode, Numeral(), config, problem.density, tmp_path)
    refit = make_density("gmm", components=2).fit(problem.codes)
    with pytest.raises(UsageError, match="other density"):
        optimize(problem.codes, problem.scores, problem.decode, Numeral(), config, refit, tmp_path)


def test_damaged_files_are_refused_in_one_line(problem: Problem, tmp_path: Path) -> None:
    problem.search(tmp_path, rounds=1)
    record = (tmp_path / "search.json").read_text()
    for broken, pattern in {
        "[]": "no record of a search",
        record[:100]: "not valid JSON",
        record.replace('"format": 1', '"format": 99'): "format 99, newer",
        record.replace('"strings"', '"string"'): "no record of a search",
    }.items():
        (tmp_path / "search.json").write_text(broken)
        with pytest.raises(DataError, match=pattern) as caught:
            problem.search(tmp_path, rounds=1)
        assert "\n" not in str(caught.value)
    (tmp_path / "search.json").write_text(record)
    (tmp_path / "search.safetensors").unlink()
    with pytest.raises(DataError, match="no file"):
        problem.search(tmp_path, rounds=1)


# --- objectives that misbehave ---------------------------------------------------------------------------------------


class Hostile(Numeral):
    """Raises, and returns what is no number, by turns."""

    def _values(self, strings: list[str]) -> list[object]:
        if len(strings) > 1:
            raise RuntimeError("one\nat a time")
        turn = int(strings[0][-1])
        if turn < 2:
            raise (SystemExit(3) if turn else ZeroDivisionError("division by zero\nsecond line"))
        return [[math.nan, math.inf, None, "7", 1 + 2j, [1.0]][turn - 2]] if turn < 8 else [float(strings[0])]


def test_a_hostile_objective_costs_its_own_strings_only(capsys: pytest.CaptureFixture[str]) -> None:
    scored = Hostile().score([f"0.{turn}" for turn in range(10)])
    assert scored.values == [None] * 8 + [0.8, 0.9]
    assert scored.skipped == 8
    assert scored.message == "'0.0': ZeroDivisionError: division by zero"
    assert Numeral().score([]).values == []
    nan = (
        "'x*y': the score is nan, not a finite number; expression scores expressions of x, 1, 2, 3, + * / ( ) sin( exp("
    )
    assert make_objective("expression").score(["x*y"]).message == nan

    class Loud(Numeral):
        def _values(self, strings: list[str]) -> list[object]:
            print("chatter")
            return [np.float32(1.5), torch.tensor(2.0), True][: len(strings)]

    assert Loud().score(["a", "b", "c"]).values == [1.5, 2.0, 1.0]
    assert Loud().score(["a"] * 4).values == [1.5] * 4  # too few for the list: one at a time
    output = capsys.readouterr()
    assert "chatter" in output.err
    assert output.out == ""


def test_a_search_survives_an_objective_that_fails(
    problem: Problem, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    some = problem.search(tmp_path / "some", Hostile())
    assert len(some.rounds) == 2
    outcomes = [outcome for batch in some.rounds for outcome in batch.outcomes]
    assert some.skipped == outcomes.count("skipped") > 0
    told = {
        score for batch in some.rounds for score, o in zip(batch.scores, batch.outcomes, strict=True) if o == "skipped"
    }
    assert told == {some.worst}
    capsys.readouterr()

    class Broken(Numeral):
        def _values(self, strings: list[str]) -> list[object]:
            raise ValueError("no such thing")

    none = problem.search(tmp_path / "none", Broken())
    assert [batch.skipped for batch in none.rounds] == [5, 5]
    assert (none.valid, none.average(), none.best()) == (1.0, pytest.approx(none.worst), [])
    assert none.best_so_far() == [None, None]
    warnings = capsys.readouterr().err.count("warning: the objective gave no score for all of the valid strings")
    assert warnings == 2
    assert "ValueError: no such thing" in none.rounds[0].message  # type: ignore[operator]
    assert "No valid string with a score was found" in markdown(none)


def test_a_search_survives_a_decoder_that_gives_nothing(
    problem: Problem, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = SearchConfig(**vars(SMALL))
    result = optimize(
        problem.codes,
        problem.scores,
        lambda z, k, g: [None, ""] * 2 + [None],
        Numeral(),
        config,
        problem.density,
        tmp_path,
    )
    assert result.valid == 0
    assert [result.average(), result.average(original=True)] == pytest.approx([result.worst] * 2)
    assert "none of the 5 points decoded" in capsys.readouterr().err


FUNCTIONS = """
def listed(strings): return [float(len(s)) for s in strings]
def plain(string): return float(len(string.upper()))
def counting(string): return string.count("a")
def annotated(string: str) -> float: return 1 / (len(string) - 1)
def picky(strings):
    if "bad" in strings: raise ValueError("bad string")
    return [1.0] * len(strings)
def sized(strings): return len(strings)
class Holder:
    @staticmethod
    def inner(string: str) -> float: return 4.0
number = 3
"""


@pytest.fixture
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "own_scores.py").write_text(FUNCTIONS)
    monkeypatch.delitem(sys.modules, "own_scores", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "strings", "values"),
    [
        ("listed", ["a", "bcd"], [1.0, 3.0]),
        ("plain", ["a", "bcd"], [1.0, 3.0]),
        ("plain", ["a"], [1.0]),
        ("counting", ["aa", "ba"], [2.0, 1.0]),
        ("annotated", ["aa", "a", "abc"], [1.0, None, 0.5]),
        ("picky", ["x", "bad", "y"], [1.0, None, 1.0]),
        ("Holder.inner", ["x", "y"], [4.0, 4.0]),
    ],
)
def test_a_function_of_ones_own_takes_a_list_or_a_string(
    working_folder: Path, name: str, strings: list[str], values: list[float | None]
) -> None:
    before = list(sys.path)
    objective = make_objective(f"own_scores:{name}", minimize=True)
    assert sys.path == before
    assert isinstance(objective, FunctionObjective)
    assert (objective.minimize, objective.label) == (True, f"own_scores:{name}")
    assert objective.score(strings).values == values


@pytest.mark.parametrize(
    ("spec", "pattern"),
    [
        ("own_scores:nothing", "no function 'nothing'; it has: .*listed"),
        ("own_scores:number", "is of type int, not a function; name a function"),
        ("no_such_module_here:f", "no module 'no_such_module_here'"),
        ("broken:f", "importing module broken .* failed: SyntaxError"),
        ("needy:f", "needs not_installed_anywhere"),
        ("quitter:f", "failed: SystemExit: 1"),
        ("scores.py:f", "no module 'scores.py'"),
        ("own scores:f", "is not of the form module:function"),
        ("own_scores:", "is not of the form module:function"),
        ("expresion", "did you mean 'expression'"),
    ],
)
def test_an_objective_that_is_not_there_is_refused_at_once(working_folder: Path, spec: str, pattern: str) -> None:
    (working_folder / "broken.py").write_text("def f(:\n")
    (working_folder / "needy.py").write_text("import not_installed_anywhere\n")
    (working_folder / "quitter.py").write_text("raise SystemExit(1)\n")
    with pytest.raises(UsageError, match=pattern) as caught:
        make_objective(spec)
    assert "\n" not in str(caught.value)


# --- wrong inputs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "pattern"),
    [
        ({"batch": 0}, "batch=0"),
        ({"rounds": 0}, "rounds=0"),
        ({"decodes": 2.5}, "decodes=2.5"),
        ({"inducing": -1}, "inducing=-1"),
        ({"candidates": 1}, "candidates=1"),
        ({"quantile": 1.0}, "quantile=1.0"),
        ({"lr": math.nan}, "lr=nan"),
        ({"seed": -1}, "seed=-1"),
        ({"region": "sphere"}, "sphere"),
        ({"incumbent": "median"}, "median"),
        ({"minimize": "yes"}, "minimize='yes'"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], pattern: str) -> None:
    with pytest.raises(UsageError, match=pattern):
        SearchConfig(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        (lambda z, s: (z.index_fill(0, torch.tensor([3]), math.nan), s), "NaN or infinity, first in row 3"),
        (lambda z, s: (z, s[:-1]), "540 codes but scores of shape"),
        (lambda z, s: (z, s[:, None]), "one score for each code"),
        (lambda z, s: (z, s.index_fill(0, torch.tensor([0, 1]), math.inf)), "2 of 540 training scores"),
        (lambda z, s: (z, torch.zeros(len(s))), "all 540 training scores are 0"),
        (lambda z, s: (z[:1], s[:1]), "at least two"),
        (lambda z, s: (z[0], s), "shape"),
    ],
)
def test_unusable_data_is_refused(
    problem: Problem, tmp_path: Path, change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], pattern: str
) -> None:
    codes, scores = change(problem.codes, problem.scores)
    with pytest.raises((DataError, UsageError), match=pattern):
        optimize(codes, scores, problem.decode, Numeral(), SMALL, problem.density, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_density_that_cannot_bound_a_region_is_refused(problem: Problem, tmp_path: Path) -> None:
    for density, pattern in [
        (None, "needs a density"),
        (make_density("gmm"), "not fitted"),
        (make_density("gaussian").fit(problem.codes[:, :2]), "of 2 dimensions, the codes have 6"),
        (make_density("second-stage-vae"), "cannot be evaluated"),
    ]:
        with pytest.raises(UsageError, match=pattern):
            optimize(problem.codes, problem.scores, problem.decode, Numeral(), SMALL, density, tmp_path)


def test_a_decoder_that_forgets_a_code_is_refused(problem: Problem, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gave 2 strings for 5 codes"):
        optimize(problem.codes, problem.scores, lambda z, k, g: ["1", "2"], Numeral(), SMALL, problem.density, tmp_path)


def test_two_training_codes_are_enough(tmp_path: Path) -> None:
    codes = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    config = SearchConfig(**{**vars(SMALL), "region": "box"})
    result = optimize(
        codes,
        torch.tensor([0.0, 1.0]),
        lambda z, k, g: [str(float(v)) for v in z.sum(1)],
        Numeral(),
        config,
        None,
        tmp_path,
    )
    assert len(result.scores) == 10


# --- decoding, aggregation, report -----------------------------------------------------------------------------------


def made(scores: list[list[float]], minimize: bool, worst: float, invalid: int = 0) -> SearchResult:
    rounds = []
    for values in scores:
        outcomes = ["invalid" if value == worst else "valid" for value in values]
        strings = [None if o == "invalid" else f"s{v}" for o, v in zip(outcomes, values, strict=True)]
        rounds.append(Round(torch.zeros(len(values), 2), strings, values, outcomes, None, {}))  # type: ignore[arg-type]
    return SearchResult("numeral", "box", minimize, worst, 0.0, rounds)


def test_aggregation_as_published_and_corrected_by_hand() -> None:
    a = made([[1.0, 9.0], [3.0, 9.0]], minimize=True, worst=9.0)
    b = made([[2.0, 4.0], [6.0, 8.0]], minimize=True, worst=9.0)
    corrected = aggregate_corrected([a, b])
    assert (a.average(), b.average()) == (5.5, 5.0)
    assert corrected.score.mean == 5.25
    assert corrected.score.error == pytest.approx(0.25)  # |5.5 - 5| / sqrt(2) / sqrt(2)
    assert corrected.valid.mean == 0.75
    assert corrected.best is not None
    assert corrected.best.mean == 1.5
    own = aggregate_original([a, b])
    assert (a.average(original=True), b.average(original=True)) == (2.0, 4.0)  # without 9s; without the single 8
    assert own.score.mean == 3.0
    assert own.score.error == pytest.approx(1 / math.sqrt(2))  # population deviation 1, two rounds
    last = aggregate_original([a, b], cutoff="last")
    assert last.score.mean == 3.0  # below 8: (1, 3) and (2, 4, 6)
    assert aggregate_original([b, a], cutoff="last").score.mean == pytest.approx((5.0 + 2.0) / 2)  # below 9: all of b
    assert aggregate_corrected([a]).score.error is None


def test_aggregation_of_scores_to_be_maximized_and_of_nothing_valid() -> None:
    up = made([[-3.0, -20.0, -1.0]], minimize=False, worst=-20.0)
    assert up.average() == -8.0
    assert up.average(original=True) == aggregate_original([up]).score.mean == -2.0
    positive = made([[0.2, 0.6]], minimize=False, worst=0.1)
    assert positive.average(original=True) == pytest.approx(
        0.4
    )  # the published maximum starts at 0: nothing is dropped
    nothing = made([[-20.0, -20.0]], minimize=False, worst=-20.0)
    assert nothing.average(original=True) == -20.0
    assert aggregate_corrected([up, nothing]).best is None


def test_what_cannot_be_put_together_is_refused(problem: Problem) -> None:
    a = made([[1.0]], True, 9.0)
    with pytest.raises(UsageError, match="at least one"):
        aggregate_corrected([])
    with pytest.raises(UsageError, match="different objectives"):
        aggregate_corrected([a, made([[1.0]], False, 9.0)])
    with pytest.raises(UsageError, match="unknown cutoff"):
        aggregate_original([a], cutoff="first")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no finished round"):
        aggregate_corrected([made([], True, 9.0)])
    with pytest.raises(DataError, match="no finished round"):
        made([], True, 9.0).average()


def test_the_table_holds_each_string_once_best_first_whatever_is_in_it() -> None:
    codes = torch.zeros(4, 2)
    first = Round(
        codes, ["C|C", "a`b", None, "C|C"], [2.0, 5.0, 9.0, 2.0], ["valid", "valid", "invalid", "valid"], None, {}
    )
    second = Round(
        codes, ["q", "C|C", "z", "w"], [9.0, 1.5, 3.0, 1.0], ["skipped", "valid", "valid", "valid"], "oh", {}
    )
    result = SearchResult("numeral", "box", True, 9.0, 1.25, [first, second])
    assert [(f.string, f.score, f.round) for f in result.best(3)] == [("w", 1.0, 2), ("C|C", 2.0, 1), ("z", 3.0, 2)]
    table = markdown(result)
    rows = [line for line in table.splitlines() if line.startswith("| ") and "rank" not in line]
    assert rows[:2] == ["| 1 | 1 | `w` | 2 |", "| 2 | 2 | `C\\|C` | 1 |"]
    assert rows[3] == "| 4 | 5 | ``a`b`` | 1 |"
    assert len(rows) == 4
    assert "87.5% valid, 1 without a score" in table
    assert "5 different strings. Best training score at the start: 1.25" in table
    looked = replace(result, known=frozenset({"C|C", "q"}))
    assert (result.new, looked.new, looked.improved) == (None, 3, True)
    assert [found.new for found in looked.best(2)] == [True, False]
    assert "5 different strings, 3 of them not in the training set" in markdown(looked)
    assert "| 1 | 1 | `w` | 2 | yes |" in markdown(looked)
    assert "| 2 | 2 | `C\\|C` | 1 | no |" in markdown(looked)
    assert not replace(result, start=1.0).improved
    assert replace(result, minimize=False, start=4.9).improved


# --- the built-in objectives and their pictures ----------------------------------------------------------------------


def test_the_expression_objective_is_the_capped_error_by_numpy() -> None:
    objective = make_objective("expression", target="x*x")
    x = np.linspace(-10, 10, 1000)
    expected = math.log1p(np.minimum((np.sin(x) - x * x) ** 2, 1000).mean())
    assert objective.minimize
    scored = objective.score(["sin(x)", "x * x", "x+"])
    assert scored.values[0] == pytest.approx(expected, rel=1e-12)
    assert scored.values[1:] == [0.0, None]
    assert scored.message.startswith("'x+': the score is nan, not a finite number; expression scores expressions of x")


def test_whole_quotients_are_of_what_a_search_finds_and_not_of_what_it_begins_with() -> None:
    objective = make_objective("expression", division="python2")
    string = "1/3+x+sin(x*x)"
    assert objective.score([string]).values[0] == pytest.approx(0.1054, abs=5e-5)
    assert objective.for_training().score([string]).values == [0]
    assert objective.label == "expression target=1/3+x+sin(x*x) division=python2"
    assert make_objective("expression").label == "expression target=1/3+x+sin(x*x)"


def test_the_molecular_objectives_are_the_metrics() -> None:
    from expost.metrics.molecule_properties import PenalizedLogP

    assert make_objective("plogp").score(["CCCC", "C1CC2CC1CC2"]).values == (
        PenalizedLogP.zinc250k()(["CCCC", "C1CC2CC1CC2"]).tolist()
    )

    fitted = PenalizedLogP.fit(["CCO", "c1ccccc1", "CC(=O)N", "C1CCCCCCC1"])
    objective = make_objective("plogp", **vars(fitted))
    assert not objective.minimize
    smiles = ["CCCC", "c1ccccc1O", "C1CCCCCCC1"]
    assert objective.score([*smiles, "C("]).values == [*fitted(smiles).tolist(), None]
    assert make_objective("qed").score(["C("]).skipped == 1
    with pytest.raises(UsageError, match="logp_std"):
        make_objective("plogp", **{**vars(fitted), "logp_std": "wide"})
    with pytest.raises(UsageError, match="positive"):
        make_objective("plogp", **{**vars(fitted), "logp_std": -1.0})


def search_of(strings: list[str], objective: Objective) -> SearchResult:
    scores = objective.score(strings).values
    batch = Round(torch.zeros(len(strings), 2), list(strings), scores, ["valid"] * len(strings), None, {})  # type: ignore[arg-type]
    return SearchResult(objective.label, "box", objective.minimize, 9.0, 1.0, [batch])


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def test_pictures_of_curves_molecules_and_strings(tmp_path: Path) -> None:
    objective = make_objective("expression")
    result = search_of(["x+sin(x*x)", "x", "x+1/(x+x)", "exp(exp(x))"], objective)
    one = pixels(draw(result, objective, tmp_path / "curves.png"))
    two = pixels(draw(result, make_objective("expression", target="x"), tmp_path / "other.png"))
    assert one.shape == two.shape == (600, 960, 3)
    assert (one != two).any()  # another target, another curve
    blue = (np.abs(one - [0x1F, 0x77, 0xB4]).sum(2) < 30).sum()
    assert blue > 500  # the best curve is there, and is not hidden

    smiles = ["CCO", "c1ccccc1O", "CC(=O)Nc1ccc(O)cc1"]
    qed = make_objective("qed")
    drawn = pixels(draw(search_of(smiles, qed), qed, tmp_path / "molecules.png"))
    assert drawn.shape == (260, 3 * 280, 3)
    assert ((drawn[..., 0] > 200) & (drawn[..., 1] < 80) & (drawn[..., 2] < 80)).any()  # oxygen is red

    few = pixels(draw(search_of(["3.5"], Numeral()), Numeral(), tmp_path / "few.png"))
    more = pixels(draw(search_of(["3.5", "7"], Numeral()), Numeral(), tmp_path / "more.png"))
    assert len(few) < len(more)
    assert (few < 128).any()


def test_a_picture_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="picture.gif"):
        draw(search_of(["1"], Numeral()), Numeral(), tmp_path / "picture.gif")
    with pytest.raises(DataError, match="nothing to draw"):
        draw(made([[9.0]], True, 9.0), Numeral(), tmp_path / "picture.png")
    assert not list(tmp_path.iterdir())
