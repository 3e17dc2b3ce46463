import pytest
import torch
from torch import nn

from expost.evaluation.collapse import LEAST_USE, collapse, use_of_codes
from expost.models.autoencoder import build
from expost.models.latents import Deterministic
from expost.models.presets import configure


class Copying(nn.Module):
    """A decoder of codes that are the examples; with `share` 0 it ignores them."""

    def __init__(self, share):
        super().__init__()
        self.share = nn.Parameter(torch.tensor(share))

    def forward(self, z):
        return self.share * z + (1 - self.share) * 0.5


def model_of(share, size=16):
    config, _ = configure("ae", (size,), model_overrides={"latent_dim": size})
    model = build(config, (nn.Identity(), Copying(share)))
    assert isinstance(model.latent, Deterministic)
    with torch.no_grad():
        model.latent.mean.weight.copy_(torch.eye(size))
        model.latent.mean.bias.zero_()
    return model.eval()


def test_use_of_codes_is_the_share_of_the_loss_that_another_examples_code_costs():
    x = torch.rand(64, 16, generator=torch.Generator().manual_seed(0))
    assert use_of_codes(model_of(1.0), x) == pytest.approx(1)
    assert use_of_codes(model_of(0.0), x) == pytest.approx(0, abs=1e-6)
    half = model_of(0.5)
    own = (x - (0.5 * x + 0.25)).square().sum()
    other = (x - (0.5 * x.roll(32, 0) + 0.25)).square().sum()
    assert use_of_codes(half, x) == pytest.approx(1 - (own / other).item(), rel=1e-5)


def test_a_collapsed_model_is_warned_of_and_no_other():
    x = torch.rand(64, 16, generator=torch.Generator().manual_seed(0))
    said = collapse(model_of(0.0), x)
    assert said is not None
    assert "no worse" in said
    assert "\n" not in said
    assert collapse(model_of(0.5), x) is None
    assert collapse(model_of(0.0), x[:1]) is None
    assert 0 < LEAST_USE < 0.5


@pytest.mark.parametrize(
    ("name", "shape"), [("vae", (1, 28, 28)), ("vq-vae", (1, 28, 28)), ("gvae", (15, 12)), ("grae", (120, 35))]
)
def test_every_kind_of_model_has_a_use_of_its_codes(name, shape):
    config, _ = configure(name, shape, model_overrides={"width": 4})
    torch.manual_seed(0)
    model = build(config).eval()
    x = torch.randint(shape[1], (10, shape[0])) if len(shape) == 2 else torch.rand(10, *shape)
    use = use_of_codes(model, x)
    assert -1 < use < 1
    assert use_of_codes(model, x) == use  # codes have no noise
