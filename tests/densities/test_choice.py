"""Which fitted density is taken where none is named: by held-out likelihood, ties to the simpler, and its record."""

import json
import math

import numpy as np
import pytest
import torch

from expost.densities import HeldOut, SecondStageVAE, load_density, make_density, usual_density
from expost.densities.choice import KEPT, best, lead, log_likelihoods, spaced
from expost.errors import DataError


def clumps(n, seed):
    source = torch.Generator().manual_seed(seed)
    return torch.randn(n, 2, generator=source) + 8.0 * torch.randint(2, (n, 1), generator=source)


def judged(name, z, held_out, split="validation", **options):
    density = make_density(name, **options).fit(z)
    return density.judged(HeldOut.of(split, log_likelihoods(density, held_out)))


def test_the_likeliest_is_taken_whatever_it_is_called():
    z, held_out = clumps(600, 0), clumps(300, 1)
    fitted = {
        "gmm": judged("gmm", z, held_out, components=1),
        "kde": judged("kde", z, held_out, bandwidth=0.1),
        "gaussian": judged("gaussian", z, held_out),
    }
    means = {name: density.log_prob(held_out).mean().item() for name, density in fitted.items()}
    taken = usual_density(fitted)
    assert taken.name == "kde" == max(means, key=means.get)
    assert f"likeliest under it, {means['kde']:.2f} nats a code" in taken.why
    assert taken.line == f"density kde is taken: {taken.why}"


@pytest.mark.parametrize("seed", range(6))
def test_of_equals_the_simplest_is_taken(seed):
    source = torch.Generator().manual_seed(seed)
    z, held_out = torch.randn(500, 3, generator=source) * 2 + 1, torch.randn(200, 3, generator=source) * 2 + 1
    fitted = {
        "gmm": judged("gmm", z, held_out, components=5),
        "kde": judged("kde", z, held_out),
        "gaussian": judged("gaussian", z, held_out),
        "standard-normal": judged("standard-normal", z, held_out),
    }
    assert usual_density(fitted).name == "gaussian"


def test_a_tie_is_two_standard_errors_of_the_paired_difference():
    draw = np.random.default_rng(0)
    common, own = draw.normal(size=400) * 10, draw.normal(size=400)
    a = torch.tensor(common)
    for shift, taken in ((0.06, "small"), (0.3, "large")):  # the error is 1/20, the spread of the codes 10
        b = torch.tensor(common + shift + own - own.mean())
        found = lead(b, a)
        assert found.mean == pytest.approx(shift, abs=1e-9)
        assert found.error == pytest.approx((own - own.mean()).std(ddof=1) / 20, rel=1e-9)
        assert best({"large": b, "small": a}, {"large": 9, "small": 1}) == taken


def test_what_cannot_be_evaluated_or_is_impossible_comes_last():
    z, held_out = clumps(60, 0), clumps(40, 1)
    stage = SecondStageVAE(epochs=1).fit(z)
    assert log_likelihoods(stage, held_out) is None
    impossible = make_density("kde").fit(z).judged(HeldOut("validation", torch.full((40,), -math.inf)))
    fitted = {"gaussian": judged("gaussian", z, held_out), "kde": impossible, "second-stage-vae": stage}
    taken = usual_density(fitted)
    assert taken.name == "gaussian"
    assert taken.why.endswith("not compared: second-stage-vae")
    unjudged = {"gaussian": make_density("gaussian").fit(z), "second-stage-vae": stage}
    assert usual_density(unjudged).name == "gaussian"


def test_densities_are_compared_on_the_same_codes_only():
    z, held_out = clumps(300, 0), clumps(200, 1)
    fitted = {
        "gaussian": judged("gaussian", z, held_out),
        "standard-normal": judged("standard-normal", z, held_out),
        "kde": judged("kde", z, held_out, "another split", bandwidth=0.1),
    }
    assert usual_density(fitted).name == "gaussian"
    assert "not compared: kde" in usual_density(fitted).why


def test_without_a_record_the_mixture_is_taken_and_it_is_said():
    z = clumps(100, 0)
    fitted = {name: make_density(name).fit(z) for name in ("gmm", "gaussian")}
    assert usual_density(fitted).name == "gmm"
    assert "held-out codes to compare by were not given" in usual_density(fitted).why
    assert usual_density({}) is None


def test_the_record_is_saved_and_ends_with_the_fit(tmp_path):
    z, held_out = clumps(300, 0), clumps(50, 1)
    density = judged("gaussian", z, held_out)
    path = density.save(tmp_path)
    again = load_density(path)
    assert again.held_out.split == "validation"
    assert torch.equal(again.held_out.values, density.held_out.values)
    torch.testing.assert_close(again.held_out.values, density.log_prob(held_out), atol=5.1e-5, rtol=0)
    assert again.held_out.mean == pytest.approx(density.log_prob(held_out).mean().item(), abs=1e-4)
    assert json.loads(path.with_suffix(".json").read_text())["held_out"]["split"] == "validation"
    assert density.fit(z[:100]).held_out is None


def test_a_record_without_numbers_is_refused():
    for record in ({"split": "x", "values": "nan"}, {"split": "x", "values": ""}, {"split": "x", "values": "inf"}):
        with pytest.raises(ValueError, match="no numbers"):
            HeldOut.read(record)
    kept = HeldOut.of("x", torch.tensor([math.nan, 1.0]))
    assert HeldOut.read(kept.record()).values.tolist() == [-math.inf, 1.0]


def test_a_density_that_fails_at_a_code_makes_it_impossible(monkeypatch):
    z = clumps(50, 0)
    density = make_density("gaussian").fit(z)

    def fails(self, z):
        raise DataError("too far")

    monkeypatch.setattr(type(density), "_log_prob", fails)
    assert log_likelihoods(density, z).tolist() == [-math.inf] * 50


def test_many_codes_are_thinned_evenly():
    assert spaced(KEPT, KEPT) is None
    rows = spaced(10 * KEPT + 3, KEPT)
    assert len(rows) == KEPT
    assert (rows[0], rows[-1]) == (0, 10 * KEPT + 2)
    assert set(rows.diff().tolist()) == {10, 11}
