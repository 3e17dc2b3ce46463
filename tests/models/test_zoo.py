"""The zoo and its presets: every row trains, identities hold, official weights convert exactly."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from expost.config import ModelConfig, RunConfig, TrainingConfig, run_config_from_json, to_json
from expost.densities import DENSITIES, make_density
from expost.errors import DataError, UsageError
from expost.models import zoo as zoo_module
from expost.models.autoencoder import build
from expost.models.latents import LATENTS
from expost.models.official import PAPER, made_of
from expost.models.penalties import PENALTIES, MixtureOfPosteriors
from expost.models.presets import PRESETS, configure
from expost.models.regularizers import REGULARIZERS, GradientPenalty
from expost.models.zoo import ZOO
from expost.networks import NETWORKS
from expost.registry import Part, Registry
from expost.types import Layout, layout_of

COMMAND_LINE = (
    "ae ae-l2 rae rae-l2 rae-gp rae-sn vae beta-vae cv-vae wae-mmd two-stage-vae vq-vae grae gvae gcvvae character-vae"
)
#: Models of which weights are published; the gradient penalty's is ours, as is what a mixture of posteriors and the
#: bound of several codes take from the VAE.
PUBLISHED = [
    name
    for name, row in ZOO.items()
    if made_of(row) in PAPER["mnist"].weights
    and REGULARIZERS[row.regularizer.name] is not GradientPenalty
    and PENALTIES[row.penalty.name] is not MixtureOfPosteriors
    and not (row.beta or row.codec or row.latent.options)
]
#: Presets of images.
IMAGES = [name for name, preset in PRESETS.items() if Layout.IMAGE in preset.layouts]
PAPER_SHAPES = {name: setting.shape for name, setting in PAPER.items()}


def model_for(name, shape=(1, 28, 28), **changes):
    torch.manual_seed(0)
    return build(configure(name, shape, "small", {"width": 4, **changes})[0])


def test_the_zoo_has_the_promised_rows():
    assert [name for name in ZOO if name in COMMAND_LINE.split()] == COMMAND_LINE.split()
    assert all(row.prior is None or row.prior.name in DENSITIES for row in ZOO.values())


@pytest.mark.parametrize("name", ZOO)
def test_every_model_lowers_its_loss(name):
    model = model_for(name)
    x = torch.rand(16, 1, 28, 28).round()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = model.loss(x)
        loss.total.backward()
        optimizer.step()
        losses.append(loss.terms["reconstruction"].item())
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


@pytest.mark.parametrize("name", ZOO)
def test_the_total_is_the_weighted_sum_of_the_unweighted_terms(name):
    model = model_for(name)
    loss = model.loss(torch.rand(8, 1, 28, 28))
    terms = {key: value.item() for key, value in loss.terms.items()}
    expected = terms["reconstruction"] + model.beta * terms["penalty"]
    expected += model.regularizer_weight * terms["regularizer"]
    assert loss.total.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ZOO)
def test_every_parameter_gets_a_gradient(name):
    model = model_for(name)
    model.loss(torch.rand(8, 1, 28, 28)).total.backward()
    silent = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # a bias before batch norm has no effect, and its gradient may round to zero
    assert all(key.endswith(("bias", "log_sigma.weight")) for key in silent), silent


@pytest.mark.parametrize("name", ZOO)
def test_inference_does_not_depend_on_the_batch_and_repeats(name):
    model = model_for(name).eval()
    x = torch.rand(5, 1, 28, 28)
    with torch.inference_mode():
        together = model(x)
        torch.testing.assert_close(torch.cat([model(image[None]) for image in x]), together)
        assert torch.equal(model(x), together)
        torch.testing.assert_close(model.decode(model.encode(x)), together)


@pytest.mark.parametrize("name", ZOO)
def test_codes_losses_and_outputs_are_float32_under_autocast(name):
    model = model_for(name)
    with torch.autocast("cpu", torch.bfloat16):
        code, loss = model.code(torch.rand(4, 1, 28, 28)), model.loss(torch.rand(4, 1, 28, 28))
        output = model.decoder(code.z)
    assert code.z.dtype == output.dtype == loss.total.dtype == torch.float32
    loss.total.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_rae_without_its_weight_is_a_plain_autoencoder():
    rae, ae = model_for("rae", beta=0.0), model_for("ae")
    x = torch.rand(8, 1, 28, 28)
    assert torch.equal(rae.loss(x).total, ae.loss(x).total)


def test_beta_vae_at_the_weight_of_the_vae_is_the_vae():
    weight = configure("vae", (1, 28, 28))[0].beta
    heavy, vae = model_for("beta-vae", beta=weight), model_for("vae")
    x = torch.rand(8, 1, 28, 28)
    torch.manual_seed(1)
    first = heavy.loss(x).total
    torch.manual_seed(1)
    assert torch.equal(first, vae.loss(x).total)
    assert configure("beta-vae", (1, 28, 28))[0].beta == 4.0


def official_total(family, official, x, output, code, theta, batch_mmd):
    """The official losses as the official code scales them, written out for one batch."""
    error = (x - output).square()
    if family == "rae":
        return error.mean() + official.b * code.mean.square().mean() + official.l * theta
    if family == "vae":
        kl = 0.5 * (code.mean.square() + code.log_var.exp() - code.log_var - 1).sum(1).mean()
        return error.mean(1).sum((1, 2)).mean() + official.k * kl
    if official.s:
        return official.s * error.flatten(1).sum(1).mean() + official.m * batch_mmd
    return error.mean() + official.m * batch_mmd


@pytest.mark.parametrize("data", PAPER)
@pytest.mark.parametrize("name", PUBLISHED)
def test_paper_weights_are_the_official_loss_up_to_one_constant(data, name):
    """Two batches: the ratio of our total to the official one is the same constant for both."""
    setting, row = PAPER[data], ZOO[name]
    config, _ = configure(name, setting.shape, "paper", {"width": 2})
    torch.manual_seed(0)
    model = build(config).eval()  # evaluation mode: loss and its parts see the same batch norm
    official = setting.weights[made_of(row)]
    pixels, channels = math.prod(setting.shape), setting.shape[0]
    constant = {"rae": pixels, "vae": channels, "wae": 1 / official.s if official.s else pixels}[row.family]
    theta = sum(
        w.square().sum()
        for key, w in model.decoder.named_parameters()
        if (w.dim() == 4 or (data == "celeba" and w.dim() == 2)) and not key.endswith(("original", "_u"))
    )
    for seed in (1, 2):
        x = torch.rand(6, *setting.shape, generator=torch.Generator().manual_seed(seed))
        torch.manual_seed(seed)
        ours = model.loss(x)
        torch.manual_seed(seed)
        code = model.code(x, noise=True)
        output = model.decoder(code.z)
        theirs = official_total(row.family, official, x, output, code, theta, ours.terms["penalty"])
        assert ours.total.item() == pytest.approx(constant * theirs.item(), rel=2e-5)


@pytest.mark.parametrize(
    ("data", "name", "lr", "epochs", "latent_dim"),
    [
        ("mnist", "rae-l2", 5e-4, 100, 16),
        ("mnist", "vae", 1e-4, 100, 16),
        ("mnist", "wae-mmd", 1e-3, 100, 16),
        ("cifar10", "rae-gp", 5e-4, 70, 128),
        ("cifar10", "cv-vae", 1e-4, 70, 128),
        ("cifar10", "rae", 5e-4, 100, 128),
        ("celeba", "rae-sn", 1e-3, 70, 64),
        ("celeba", "ae-l2", 1e-3, 100, 64),
    ],
)
def test_paper_schedules(data, name, lr, epochs, latent_dim):
    model, training = configure(name, PAPER_SHAPES[data], "paper")
    assert (training.lr, training.epochs, model.latent_dim) == (lr, epochs, latent_dim)
    assert (training.batch_size, training.patience, training.factor) == (100, 5, 0.5)
    assert model.width == 128


def test_the_second_stage_has_its_official_weight():
    options = configure("two-stage-vae", (3, 64, 64), "paper")[0].prior.options
    assert options == {"kl_weight": 2e-3, "width": 1024, "lr": 1e-4, "patience": 3, "noise": False}
    assert make_density("second-stage-vae", **options).options["batch_size"] == 64
    assert configure("two-stage-vae", (3, 64, 64), "small")[0].prior.options == {}


def test_another_latent_dimension_converts_the_weight_anew():
    sixteen = configure("rae", (1, 32, 32), "paper")[0].beta
    assert configure("rae", (1, 32, 32), "paper", {"latent_dim": 32})[0].beta == sixteen / 2
    assert configure("rae", (1, 32, 32), "paper", {"latent_dim": 32, "beta": 1.0})[0].beta == 1.0


@pytest.mark.parametrize("preset", IMAGES)
@pytest.mark.parametrize("name", ZOO)
def test_configurations_survive_json(preset, name, tmp_path):
    from expost.config import DataConfig

    model, training = configure(name, (3, 64, 64), preset)
    run = RunConfig(model, training, DataConfig("faces"), preset, "1.0")
    assert run_config_from_json(to_json(run), tmp_path) == run


def test_a_saved_configuration_refuses_newer_formats_and_unknown_keys(tmp_path):
    from expost.config import DataConfig

    model, training = configure("ae", (3, 64, 64))
    value = to_json(RunConfig(model, training, DataConfig("faces"), "small", "1.0"))
    with pytest.raises(DataError, match="format 99, newer than this expost"):
        run_config_from_json(value | {"format": 99}, tmp_path)
    with pytest.raises(DataError, match="training\\.lrr"):
        run_config_from_json(value | {"training": {"lrr": 1}}, tmp_path)
    with pytest.raises(DataError, match="does not hold a run"):
        run_config_from_json([], tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": 1}, "batch_size is 1"),
        ({"lr": 0.0}, "lr is 0.0"),
        ({"lr": math.nan}, "lr is nan"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_training_options_are_checked(changes, message):
    with pytest.raises(UsageError, match=message):
        TrainingConfig(**changes)


@pytest.mark.parametrize("key", ["sigma", "latent.sigma.x", "encoder.width", "prior"])
def test_unknown_slot_options_are_refused(key):
    with pytest.raises(UsageError, match="option"):
        build(configure("cv-vae", (1, 32, 32), options={key: 1})[0])


def test_slot_options_reach_the_slot():
    model = build(configure("cv-vae", (1, 32, 32), options={"latent.sigma": 0.3}, model_overrides={"width": 2})[0])
    assert model.latent.sigma == 0.3
    assert isinstance(configure("rae", (1, 32, 32))[0], ModelConfig)


def test_the_published_objective_is_of_strings_alone():
    with pytest.raises(UsageError, match="preset published is for strings.*use preset paper"):
        configure("rae-l2", (1, 32, 32), "published")


def test_the_paper_preset_names_the_shapes_it_knows():
    with pytest.raises(UsageError, match="cifar10 \\(3, 32, 32\\)"):
        configure("rae", (3, 48, 48), "paper")


def test_small_networks_of_long_strings_read_their_own_output():
    """Expressions keep the networks and weights of the committed table; the published settings are untouched."""
    short, long = configure("grae", (15, 12), "small"), configure("grae", (277, 141), "small")
    assert (short[0].network, short[0].beta, short[0].regularizer_weight) == ("convnext-1d", 1e-2, 1e-5)
    assert (long[0].network, long[0].beta, long[0].regularizer_weight) == ("gru-autoregressive", 0.1, 1e-4)
    assert (short[1].batch_size, short[1].precision) == (250, "float32")
    assert (long[1].batch_size, long[1].precision) == (100, "auto")
    bound = configure("gvae", (277, 141), "small")  # under the bound such a decoder would do without the code
    assert (bound[0].network, bound[0].beta, bound[1].precision) == ("convnext-1d", 1, "auto")
    paper = configure("grae", (277, 141), "paper")
    assert (paper[0].network, paper[0].width, paper[1].batch_size) == ("gru-molecules", 501, 500)
    assert build(long[0]).autoregressive
    assert not build(short[0]).autoregressive


def test_the_papers_models_are_all_there():
    assert {"ae", "ae-l2", "rae", "rae-l2", "rae-sn", "vae", "cv-vae", "wae-mmd", "two-stage-vae"} <= set(PUBLISHED)
    assert all(setting.weights.keys() == PAPER["mnist"].weights.keys() for setting in PAPER.values())


@pytest.mark.parametrize("preset", IMAGES)
@pytest.mark.parametrize("name", [name for name, row in ZOO.items() if row.codec is None])
def test_a_row_under_another_name_is_the_same_model(preset, name, monkeypatch):
    """What a row is made of decides its weights, its schedule and its options, never its name."""
    rows = dict(ZOO)
    monkeypatch.setattr(zoo_module.ZOO, "_entries", rows | {"copy": rows[name]})
    for shape in PAPER_SHAPES.values():
        (model, training), (copied, same) = configure(name, shape, preset), configure("copy", shape, preset)
        assert replace(copied, name=name) == model
        assert same == training


@pytest.mark.parametrize("preset", IMAGES)
@pytest.mark.parametrize("name", [name for name, row in ZOO.items() if row.codec is None])
def test_parts_under_other_names_get_the_same_weights_and_options(preset, name, monkeypatch):
    """The classes of a row's parts decide its configuration, not the names that registries give them."""
    row = ZOO[name]
    slots: dict[str, Registry[Any]] = {
        "latent": LATENTS, "penalty": PENALTIES, "regularizer": REGULARIZERS, "prior": DENSITIES,
    }  # fmt: skip
    parts = {slot: part for slot in slots if (part := vars(row)[slot]) is not None}
    for slot, part in parts.items():
        registry = slots[slot]
        monkeypatch.setattr(registry, "_entries", dict(registry) | {f"other {part.name}": registry[part.name]})
    others = {slot: replace(part, name=f"other {part.name}") for slot, part in parts.items()}
    monkeypatch.setattr(zoo_module.ZOO, "_entries", dict(ZOO) | {"other": replace(row, **others)})
    others_of_it = [] if PRESETS[preset].published else [(9,), (1, 8, 8)]
    for shape in (*PAPER_SHAPES.values(), *others_of_it):
        if layout_of(shape) not in PRESETS[preset].layouts:
            continue
        (model, training), (other, same) = configure(name, shape, preset), configure("other", shape, preset)
        renamed = {slot: replace(vars(model)[slot], name=others[slot].name) for slot in others}
        assert other == replace(model, name="other", **renamed)
        assert same == training


def test_options_of_a_row_win_over_those_of_a_preset(monkeypatch):
    row = replace(ZOO["rae-l2"], regularizer=Part("tikhonov", {"scope": "all"}))
    monkeypatch.setattr(zoo_module.ZOO, "_entries", dict(ZOO) | {"own": row})
    assert configure("own", (1, 32, 32), "paper")[0].regularizer.options == {"scope": "all"}
    assert configure("rae-l2", (1, 32, 32), "paper")[0].regularizer.options == {"scope": "transposed-convolutions"}


def test_a_network_that_flattens_has_no_convolutions_to_decay_whatever_its_name(monkeypatch):
    monkeypatch.setattr(NETWORKS, "_entries", dict(NETWORKS) | {"flat": NETWORKS["mlp"]})
    for network in ("mlp", "flat"):
        model, training = configure("rae-l2", (1, 32, 32), "small", {"network": network})
        assert (model.network, model.width, dict(model.regularizer.options)) == (network, 256, {})
        assert training.precision == "float32"
        build(model)


def test_a_row_of_which_nothing_is_published_names_the_weights_that_it_needs(monkeypatch):
    mixed = replace(ZOO["wae-mmd"], regularizer=Part("tikhonov"))
    monkeypatch.setattr(zoo_module.ZOO, "_entries", dict(ZOO) | {"mixed": mixed})
    expected = (
        r"no weights are published for model 'mixed' \(deterministic, mmd, tikhonov\); give --beta, the weight of mmd "
        "and --regularizer-weight, that of tikhonov"
    )
    with pytest.raises(UsageError, match=expected):
        configure("mixed", (1, 32, 32))
    with pytest.raises(UsageError, match="give --regularizer-weight, that of tikhonov"):
        configure("mixed", (1, 32, 32), "paper", {"beta": 2.0})
    model, _ = configure("mixed", (1, 32, 32), "paper", {"beta": 2.0, "regularizer_weight": 0.5})
    assert (model.beta, model.regularizer_weight) == (2.0, 0.5)


def test_a_weight_that_a_model_has_no_term_for_is_refused_whatever_it_weighs():
    assert configure("ae-l2", (1, 32, 32), "small", {"regularizer_weight": 0.0})[0].regularizer_weight == 0
    for name in ("rae", "rae-sn", "vae"):
        with pytest.raises(UsageError, match=f"model '{name}' has no regularizer term"):
            configure(name, (1, 32, 32), "small", {"regularizer_weight": 0.5})
