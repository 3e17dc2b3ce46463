"""The bound of several codes and the prior of pseudo-inputs: closed forms, and formulas written out a second time."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import expost
from expost.densities import PosteriorMixture, load_density
from expost.errors import UsageError
from expost.models.autoencoder import build
from expost.models.presets import configure
from expost.registry import Part

D, BETA = 6, 0.8


def linear_gaussian(samples, exact, beta=BETA):
    """x = W z + b + noise of variance beta / 2, z of N(0, I), with orthogonal columns, so that q can be p(z | x)."""
    config, _ = configure("iwae", (D,), "small", {"latent_dim": 2, "beta": beta}, options={"latent.samples": samples})
    config = replace(config, standardize=False, latent=Part("gaussian", {"samples": samples, "bound": None}))
    decoder = nn.Linear(2, D)
    model: Any = build(config, (nn.Identity(), decoder))
    w = torch.linalg.qr(torch.randn(D, 2, generator=torch.Generator().manual_seed(1)))[0] * torch.tensor([1.5, 0.6])
    variance = 1 / (1 + 2 * w.square().sum(0) / beta)
    with torch.no_grad():
        decoder.weight.copy_(w)
        decoder.bias.copy_(torch.arange(D) / 5)
        model.latent.mean.weight.copy_(variance[:, None] * 2 / beta * w.T)
        model.latent.mean.bias.copy_(-model.latent.mean.weight @ decoder.bias)
        model.latent.log_sigma.weight.zero_()
        model.latent.log_sigma.bias.copy_(variance.log())
        if not exact:
            model.latent.log_sigma.bias += 0.8
            model.latent.mean.bias += 0.3
    return model


def log_evidence(model, x):
    weight, bias = model.decoder.weight.detach().double(), model.decoder.bias.detach().double()
    covariance = weight @ weight.T + model.beta / 2 * torch.eye(D).double()
    return torch.distributions.MultivariateNormal(bias, covariance).log_prob(x.double())


def in_nats(model, x):
    """The bound on log p(x), averaged over the batch: the loss is beta times it, without the normal one's constant."""
    return (-model.loss(x).total / model.beta - D / 2 * math.log(math.pi * model.beta)).item()


@pytest.mark.parametrize("samples", [1, 2, 7])
def test_with_the_exact_posterior_the_bound_is_the_evidence_whatever_is_drawn(samples):
    model = linear_gaussian(samples, exact=True)
    x = torch.randn(40, D, generator=torch.Generator().manual_seed(2))
    if samples == 1:  # the closed form of the divergence, which is exact on average
        x = x[:1].repeat(20000, 1)
    assert in_nats(model, x) == pytest.approx(log_evidence(model, x).mean().item(), abs=1e-4 if samples > 1 else 0.03)


def test_the_bound_rises_with_the_number_of_codes_to_the_evidence():
    x = torch.randn(1, D, generator=torch.Generator().manual_seed(2)).repeat(3000, 1)
    found = []
    for samples in (1, 2, 5, 25):
        torch.manual_seed(3)
        found.append(in_nats(linear_gaussian(samples, exact=False), x))
    evidence = log_evidence(linear_gaussian(2, exact=False), x).mean().item()
    assert found == sorted(found)
    assert found[0] < evidence - 0.3
    assert evidence - 0.05 < found[-1] < evidence + 0.01
    gaps = [evidence - value for value in found]
    assert gaps[2] < 0.4 * gaps[0]


def test_one_code_is_the_vae_with_the_same_noise():
    """By the closed form of the divergence; and the bound of one code has the divergence at that code in its place."""
    config, _ = configure("iwae", (D,), "small", {"width": 8, "latent_dim": 2}, options={"latent.samples": 1})
    vae, _ = configure("vae", (D,), "small", {"width": 8, "latent_dim": 2})
    x = torch.randn(30, D)
    losses = []
    for each in (config, vae):
        torch.manual_seed(0)
        model = build(each)
        torch.manual_seed(1)
        losses.append(model.loss(x).total.item())
    assert losses[0] == losses[1]
    torch.manual_seed(1)
    code = model.code(x, noise=True)
    reconstruction, penalty = model._bound(x, x, [code], model.beta)
    error = (x - model.decode(code.z)).square().sum(1).mean().item()
    q = torch.distributions.Normal(code.mean, (0.5 * code.log_var).exp())
    ratio = (q.log_prob(code.z) - torch.distributions.Normal(0.0, 1.0).log_prob(code.z)).sum(1).mean().item()
    assert reconstruction.item() == pytest.approx(error, rel=1e-5)
    assert penalty.item() == pytest.approx(ratio, rel=1e-4)


def test_the_terms_of_several_codes_add_up_with_their_weights_and_share():
    config, _ = configure("iwae", (1, 8, 8), "small", {"width": 8, "latent_dim": 2})
    assert config.latent.options == {"samples": 5}
    torch.manual_seed(0)
    model = build(config)
    x = torch.rand(12, 1, 8, 8)
    for share in (None, torch.tensor(0.25)):
        torch.manual_seed(1)
        loss = model.loss(x, beta_share=share)
        beta = model.beta * (1 if share is None else share.item())
        torch.manual_seed(1)
        features = model.encoder(x).flatten(1)
        codes = [model.latent(features, True) for _ in range(5)]
        weights = []
        for code in codes:
            q = torch.distributions.Normal(code.mean, (0.5 * code.log_var).exp())
            error = (x - model.decode(code.z)).square().flatten(1).sum(1)
            prior = torch.distributions.Normal(0.0, 1.0).log_prob(code.z).sum(1)
            weights.append((-error / beta + prior - q.log_prob(code.z).sum(1)).double().exp())
        expected = -beta * torch.stack(weights).mean(0).log().mean()
        assert loss.total.item() == pytest.approx(expected.item(), rel=1e-4)
        assert loss.total.item() == pytest.approx(
            (loss.terms["reconstruction"] + beta * loss.terms["penalty"]).item(), rel=1e-6
        )


@pytest.mark.parametrize(
    ("name", "options", "beta", "words"),
    [
        ("iwae", {"latent.samples": 0}, None, "samples is 0; give at least 1"),
        ("iwae", {"latent.noise_scale": 0.5}, None, "needs draws from the posterior itself"),
        ("iwae", {}, 0.0, "needs penalty kl or posterior-mixture and beta above 0"),
        ("vamp-vae", {"penalty.components": 1}, None, "at least 2 pseudo-inputs"),
    ],
)
def test_what_is_no_bound_is_refused(name, options, beta, words):
    with pytest.raises(UsageError, match=words):
        build(configure(name, (D,), "small", {"latent_dim": 2, "beta": beta}, options=options)[0])


@pytest.mark.parametrize("shape", [(6,), (2, 28, 30), (5, 7)])
def test_pseudo_inputs_start_at_examples_and_stay_possible_examples(shape):
    sequence = len(shape) == 2
    config, _ = configure("vamp-vae", shape, "small", {"width": 4, "latent_dim": 3}, options={"penalty.components": 4})
    model = build(replace(config, standardize=False))
    if sequence:
        x = torch.randint(shape[1], (9, shape[0]), dtype=torch.int16)
        seen = nn.functional.one_hot(x.long(), shape[1]).float()
    else:
        x = torch.randint(256, (9, *shape), dtype=torch.uint8) if len(shape) == 3 else torch.randn(9, *shape)
        seen = x.float() / 255 if len(shape) == 3 else x
    model.learn(x, torch.Generator().manual_seed(3))
    inputs = model.pseudo_inputs()
    nearest = torch.cdist(inputs.flatten(1), seen.flatten(1)).min(1)
    assert len(set(nearest.indices.tolist())) == 4
    assert (inputs - seen[nearest.indices]).abs().max() < 0.021
    with torch.no_grad():
        model.pseudo_inputs.values.add_(torch.randn_like(model.pseudo_inputs.values) * 9)
    inputs = model.pseudo_inputs()
    if len(shape) == 3:
        assert 0 <= inputs.min() <= inputs.max() <= 1
    if sequence:
        torch.testing.assert_close(inputs.sum(-1), torch.ones(4, shape[0]))


def test_the_prior_is_the_posteriors_of_the_pseudo_inputs_and_no_batch_changes_it():
    config, _ = configure("vamp-vae", (1, 28, 28), "small", {"width": 2, "latent_dim": 3})
    torch.manual_seed(0)
    model = build(config)
    x = torch.rand(8, 1, 28, 28)
    for _ in range(3):
        model.loss(x)  # moves the statistics of batch norm
    means, deviations = model.posteriors()
    assert model.encoder.training
    model.eval()
    code = model.code(model.pseudo_inputs())
    assert means.shape == (50, 3)
    torch.testing.assert_close(means, code.mean)
    torch.testing.assert_close(deviations, (0.5 * code.log_var).exp())
    torch.manual_seed(1)
    loss = model.loss(x)
    torch.manual_seed(1)
    drawn = model.code(x, noise=True)
    density = PosteriorMixture().given(means, deviations)
    q = torch.distributions.Normal(drawn.mean, (0.5 * drawn.log_var).exp()).log_prob(drawn.z).sum(1)
    expected = (q.double() - density.log_prob(drawn.z)).mean().item()
    assert loss.terms["penalty"].item() == pytest.approx(expected, rel=1e-4)
    loss.total.backward()
    assert model.pseudo_inputs.values.grad.abs().sum() > 0


def test_a_trained_model_samples_from_its_own_prior_without_a_fit(tmp_path):
    options = {"latent.samples": 2, "penalty.components": 6}  # both at once
    run = expost.train(
        "vamp-vae", "digits", tmp_path / "run", epochs=2, limit=200, width=16, latent_dim=3, batch_size=40,
        tensorboard=False, options=options,
    )  # fmt: skip
    generator: Any = run.generator("cpu")
    density = generator.density()
    means, deviations = generator.module.posteriors()
    assert isinstance(density, PosteriorMixture)
    torch.testing.assert_close(density.tensors["means"], means.double())
    assert generator.sample(5, seed=0).shape == (5, 1, 8, 8)
    source = torch.Generator().manual_seed(0)
    z = density.sample(20000, generator=source).double()
    spread = (deviations.square().mean(0) + means.var(0, correction=0)).double()
    torch.testing.assert_close(z.mean(0), means.mean(0).double(), rtol=0, atol=0.05 * spread.max().sqrt().item())
    torch.testing.assert_close(z.var(0), spread, rtol=0.05, atol=0)
    fitted = expost.fit(run, density="posterior-mixture")
    assert torch.equal(load_density(fitted.path).tensors["means"], density.tensors["means"])
    assert fitted.density == "posterior-mixture"


def test_other_models_have_no_such_prior_and_it_is_said(capsys):
    model = build(configure("vae", (D,), "small", {"width": 4, "latent_dim": 2})[0])
    generator = expost.Generator.of(model)
    assert not generator.densities
    density = generator.fit("posterior-mixture", torch.randn(9, D))
    assert density.statistics["components"] == 1
    assert "the model has no pseudo-inputs, as vamp-vae has" in capsys.readouterr().err
