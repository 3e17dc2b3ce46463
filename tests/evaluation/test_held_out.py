"""What a density has learned: log-likelihoods of held-out codes, paired differences, and what is said of them."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from expost.densities import Gaussian, GaussianMixture, SecondStageVAE, make_density
from expost.evaluation.held_out import compare, in_words


def codes(n, seed, scale=1.0):
    """Return codes of two clumps, far apart along the first axis for scale 1."""
    draw = np.random.default_rng(seed)
    z = draw.normal(size=(n, 3)) * 0.5
    z[:, 0] += 4 * scale * (draw.random(n) < 0.5)
    return torch.tensor(z, dtype=torch.float32)


def test_numbers_are_those_of_the_formulas():
    train, held_out = codes(400, 0), codes(200, 1)
    own = GaussianMixture(components=2).fit(train)
    found = {each.density: each for each in compare("gmm", {"gmm": own}, train, held_out)}
    assert list(found) == ["gmm", "gaussian", "standard-normal"]
    normal = multivariate_normal(np.zeros(3), np.eye(3)).logpdf(held_out.numpy())
    assert found["standard-normal"].mean == pytest.approx(normal.mean(), abs=1e-6)
    difference = normal - own.log_prob(held_out).numpy()
    assert found["standard-normal"].ahead == pytest.approx(difference.mean(), abs=1e-6)
    assert found["standard-normal"].ahead_error == pytest.approx(difference.std(ddof=1) / math.sqrt(200), abs=1e-6)
    gaussian = Gaussian().fit(train).log_prob(held_out).numpy()
    assert found["gaussian"].mean == pytest.approx(gaussian.mean(), abs=1e-6)
    assert (found["gmm"].ahead, found["gmm"].ahead_error) == (0.0, 0.0)


def said(name, density, train, held_out):
    return "\n".join(in_words(name, compare(name, {name: density}, train, held_out), "fit {density}"))


def test_a_mixture_of_clumps_is_better_than_one_gaussian():
    train, held_out = codes(400, 0), codes(200, 1)
    text = said("gmm", make_density("gmm", components=2).fit(train), train, held_out)
    assert "gmm is better than gaussian, by" in text
    assert "warning" not in text


def test_a_mixture_that_overfits_is_warned_of():
    train, held_out = codes(30, 0, scale=0), codes(300, 1, scale=0)
    mixture = make_density("gmm", components=8, regularization=1e-4).fit(train)
    text = said("gmm", mixture, train, held_out)
    assert "warning: gaussian describes held-out codes better than gmm, by" in text
    assert "fit gaussian" in text


def test_codes_of_a_standard_normal_need_no_mixture():
    source = torch.Generator().manual_seed(0)
    train, held_out = torch.randn(60, 6, generator=source), torch.randn(400, 6, generator=source)
    text = said("gmm", make_density("gmm", components=5).fit(train), train, held_out)
    assert "warning: standard-normal describes held-out codes better than gmm" in text


def test_what_is_equal_is_no_difference():
    train, held_out = codes(400, 0), codes(200, 1)
    assert "gmm is as good as gaussian" in said("gmm", make_density("gmm", components=1).fit(train), train, held_out)


def test_a_density_without_a_likelihood_is_said_to_have_none():
    train, held_out = codes(60, 0), codes(30, 1)
    density = SecondStageVAE(epochs=1).fit(train)
    found = compare("second-stage-vae", {"second-stage-vae": density}, train, held_out)
    assert [each.density for each in found] == ["gaussian", "standard-normal"]
    assert all(each.ahead is None for each in found)
    assert "has no log-likelihood" in in_words("second-stage-vae", found, "")[-1]
