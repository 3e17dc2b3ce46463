"""The paper's configuration, cell by cell, against numbers written down from the official code, not from our tables.

The official losses are scaled differently for each family. With N = C H W pixels and d latent dimensions,

    RAE   mean over pixels + b mean over d of z^2 + l sum theta^2        times N: beta = 2 b N / d, lambda = l N
    VAE   sum over H, W of the mean over C + k KL                        times C: beta = k C
    WAE   mean over pixels + m MMD                                       times N: beta = m N
    WAE on CelebA    0.05 sum + m MMD                                    over 0.05: beta = 20 m

(`test_zoo` evaluates both losses on a batch.) Schedules are those of its configuration file and training script.

The loss of the Grammar VAE's code (Kusner et al. 2017), with V symbols and d dimensions, is

    mean over symbols of the binary cross-entropies, summed over positions + mean over d of KL    times V: beta = V / d
"""

from typing import NamedTuple

import pytest

from expost.errors import UsageError
from expost.models.presets import configure


class Cell(NamedTuple):
    """One model on one data set: weights in the official scaling, epochs, Adam's rate, channels of the first layer."""

    b: float = 0.0
    l: float = 0.0  # noqa: E741 (the official symbol)
    k: float = 0.0
    m: float = 0.0
    epochs: int = 100
    lr: float = 5e-4
    width: int = 128


SHAPES = {"mnist": (1, 32, 32), "cifar10": (3, 32, 32), "celeba": (3, 64, 64)}
LATENT = {"mnist": 16, "cifar10": 128, "celeba": 64}
CELLS = {
    ("mnist", "ae"): Cell(),
    ("mnist", "ae-l2"): Cell(l=1e-7),
    ("mnist", "rae"): Cell(b=5e-4),
    ("mnist", "rae-l2"): Cell(b=1e-4, l=1e-7),
    ("mnist", "rae-gp"): Cell(b=1e-4),
    ("mnist", "rae-sn"): Cell(b=9e-3),
    ("mnist", "vae"): Cell(k=0.312, lr=1e-4),
    ("mnist", "cv-vae"): Cell(k=0.039, lr=1e-4),
    ("mnist", "wae-mmd"): Cell(m=3e-2, lr=1e-3),
    ("mnist", "two-stage-vae"): Cell(k=0.312, lr=1e-4),
    ("cifar10", "ae"): Cell(),
    ("cifar10", "ae-l2"): Cell(l=1e-6),
    ("cifar10", "rae"): Cell(b=1e-2),
    ("cifar10", "rae-l2"): Cell(b=1e-3, l=1e-6),
    ("cifar10", "rae-gp"): Cell(b=9e-4, epochs=70),
    ("cifar10", "rae-sn"): Cell(b=3e-2),
    ("cifar10", "vae"): Cell(k=0.024, lr=1e-4),
    ("cifar10", "cv-vae"): Cell(k=9e-4, lr=1e-4, epochs=70),
    ("cifar10", "wae-mmd"): Cell(m=6e-3, lr=1e-3, epochs=70),
    ("cifar10", "two-stage-vae"): Cell(k=0.024, lr=1e-4),
    ("celeba", "ae"): Cell(lr=1e-3, epochs=70),
    ("celeba", "ae-l2"): Cell(l=1e-6, lr=1e-3, epochs=100),
    ("celeba", "rae"): Cell(b=1e-4, lr=1e-3, epochs=70),
    ("celeba", "rae-l2"): Cell(b=1e-4, l=1e-7, lr=1e-3, epochs=70),
    ("celeba", "rae-gp"): Cell(b=1e-4, lr=1e-3, epochs=70),
    ("celeba", "rae-sn"): Cell(b=2.4e-3, lr=1e-3, epochs=70),
    ("celeba", "vae"): Cell(k=0.09024, lr=1e-4, epochs=70),
    ("celeba", "cv-vae"): Cell(k=0.01, lr=1e-4, epochs=70, width=64),
    ("celeba", "wae-mmd"): Cell(m=100.0, lr=1e-3, epochs=70),
    ("celeba", "two-stage-vae"): Cell(k=0.09024, lr=1e-4, epochs=70),
}
SECOND_STAGE = {"mnist": 1.5e-3, "cifar10": 1e-3, "celeba": 2e-3}


def test_all_thirty_cells_are_here():
    assert len(CELLS) == 30


@pytest.mark.parametrize(("data", "name"), CELLS)
def test_a_cell_of_preset_paper_has_the_official_values(data, name):
    cell, shape, d = CELLS[data, name], SHAPES[data], LATENT[data]
    channels, height, width = shape
    pixels = channels * height * width
    model, training = configure(name, shape, "paper")
    beta = 2 * cell.b * pixels / d + cell.k * channels + cell.m * (20 if data == "celeba" else pixels)
    assert model.beta == pytest.approx(beta, rel=1e-12)
    if name != "rae-gp":  # its weight is ours: the official penalty is another quantity
        assert model.regularizer_weight == pytest.approx(cell.l * pixels, rel=1e-12)
    assert (model.latent_dim, model.width) == (d, cell.width)
    assert model.network == ("conv5-celeba" if data == "celeba" else "conv4")
    assert (training.epochs, training.lr) == (cell.epochs, cell.lr)
    assert (training.batch_size, training.patience, training.factor) == (100, 5, 0.5)
    assert model.input_noise == (0.01 if (data, name) == ("celeba", "wae-mmd") else 0.0)
    assert model.latent.options.get("sigma", 0.7) == 0.7
    assert model.prior is not None
    if name == "two-stage-vae":
        options = model.prior.options
        assert (options["kl_weight"], options["patience"], options["width"]) == (SECOND_STAGE[data], 3, 1024)


STRINGS = [
    # rows, V in the published code, d, epochs, patience
    ((15, 12), 12, 25, 50, 1),
    ((277, 74), 76, 56, 100, 3),
    ((19, 15), 15, 25, 50, 1),
    ((120, 35), 35, 56, 100, 3),
]


@pytest.mark.parametrize(("shape", "symbols", "d", "epochs", "patience"), STRINGS)
@pytest.mark.parametrize("name", ["gvae", "gcvvae", "grae", "character-vae"])
def test_strings_have_the_published_objective_and_schedule(name, shape, symbols, d, epochs, patience):
    """Loss of the code: 1/V sum of binary cross-entropies + 1/d KL, the noise 0.01 sigma eps; ours is V times it."""
    model, training = configure(name, shape, "published")
    assert model.beta == pytest.approx(symbols / d, rel=1e-12)
    assert model.reconstruction.name == "masked-bernoulli"
    noise = {"gvae": {"bound": None, "noise_scale": 0.01}, "gcvvae": {"noise_scale": 0.01}, "grae": {}}
    assert model.latent.options == noise.get(name, noise["gvae"])
    assert model.regularizer_weight == pytest.approx(symbols * 1e-7 if name == "grae" else 0)
    assert configure(name, shape, "published", {"latent_dim": 10})[0].beta == pytest.approx(symbols / 10)
    for preset in ("paper", "published"):
        _, training = configure(name, shape, preset)
        assert (training.epochs, training.patience, training.factor, training.min_lr) == (epochs, patience, 0.2, 1e-4)
        assert training.min_delta == pytest.approx(1e-4 * symbols, rel=1e-12)


def test_a_row_on_strings_of_which_no_weight_is_published_asks_for_it():
    with pytest.raises(UsageError, match="no weight is published for model 'wae-mmd' on strings.*give --beta"):
        configure("wae-mmd", (15, 12), "published")
    assert configure("wae-mmd", (15, 12), "published", {"beta": 2.0})[0].beta == 2.0


@pytest.mark.parametrize(("data", "name"), CELLS)
def test_a_cell_has_the_official_threshold_of_its_plateau(data, name):
    """Keras' min_delta is 1e-4 in the official scaling of the loss, which is ours over N, C, or times 0.05."""
    channels, height, width = SHAPES[data]
    _, training = configure(name, SHAPES[data], "paper")
    scale = channels * height * width
    if name in ("vae", "cv-vae", "two-stage-vae"):
        scale = channels
    elif (data, name) == ("celeba", "wae-mmd"):
        scale = 20
    assert training.min_delta == pytest.approx(1e-4 * scale, rel=1e-12)
    assert training.watch == "objective"  # the official validation loss has the regularizer in it
    assert configure(name, SHAPES[data])[1].min_delta == 0


@pytest.mark.parametrize(
    ("shape", "symbols", "d", "batch_size", "epochs", "patience"),
    [((15, 12), 12, 25, 600, 50, 1), ((277, 74), 76, 56, 500, 100, 3), ((120, 35), 35, 56, 500, 100, 3)],
)
def test_strings_have_the_schedule_and_objective_of_the_grammar_vaes_code(
    shape, symbols, d, batch_size, epochs, patience
):
    """Of the 76 productions for molecules ours leave two out, which no string can hold; the code's mean counts them."""
    model, training = configure("gvae", shape, "published")
    assert (model.latent_dim, training.batch_size, training.epochs) == (d, batch_size, epochs)
    assert (training.lr, training.factor, training.patience, training.min_lr) == (1e-3, 0.2, patience, 1e-4)
    assert training.min_delta == pytest.approx(1e-4 * symbols, rel=1e-12)
    assert (model.reconstruction.name, dict(model.latent.options)) == (
        "masked-bernoulli",
        {"bound": None, "noise_scale": 0.01},
    )
    assert model.beta == pytest.approx(symbols / d, rel=1e-12)
    decayed = configure("grae", shape, "published")[0]
    assert (decayed.beta, decayed.regularizer_weight) == pytest.approx((symbols / d, symbols * 1e-7), rel=1e-12)
    bound, same = configure("gvae", shape, "paper")  # what the paper states
    assert (bound.reconstruction.name, bound.beta, same) == ("masked-categorical", 1, training)
    assert not bound.latent.options
