"""A two-stage model reconstructs and interpolates through its second stage, as in the paper's table."""

import pytest
import torch

import expost
from expost.densities import SecondStageVAE, load_density
from expost.densities import files as density_files
from expost.errors import UsageError
from expost.types import to_unit


@pytest.fixture(scope="module")
def codes():
    torch.manual_seed(0)
    plane = torch.randn(400, 2)
    return torch.cat([plane, plane @ torch.tensor([[1.0], [-1.0]]) + 0.01 * torch.randn(400, 1), torch.ones(400, 1)], 1)


def test_a_second_stage_encodes_and_decodes_as_its_network_does(codes):
    stage = SecondStageVAE(width=32, epochs=40, kl_weight=1e-3).fit(codes)
    u = stage.encode(codes[:50])
    back = stage.decode(u)
    assert u.shape == back.shape == (50, 4)
    assert torch.equal(back[:, 3], torch.ones(50))  # a constant dimension stays
    assert (back - codes[:50]).square().mean() < 0.1 * codes.var(0).mean()
    t = stage.tensors
    x = ((codes[:50].double() - t["mean"]) / t["deviation"].clamp_min(1e-300)).float().nan_to_num(0, 0, 0)
    x[:, 3] = 0
    for i in range(2):
        x = torch.relu(x @ t[f"encoder.{i}.weight"].T + t[f"encoder.{i}.bias"])
    torch.testing.assert_close(u, x @ t["mu.weight"].T + t["mu.bias"])
    x = u
    for i in range(3):
        x = (x if i == 0 else torch.relu(x)) @ t[f"decoder.{i}.weight"].T + t[f"decoder.{i}.bias"]
    torch.testing.assert_close(back, (t["mean"] + t["deviation"] * x.double()).float())


def test_a_saved_second_stage_encodes_as_before_and_one_of_an_early_version_says_that_it_cannot(codes, tmp_path):
    stage = SecondStageVAE(width=8, epochs=1).fit(codes)
    again = load_density(stage.save(tmp_path / "new.safetensors"))
    assert isinstance(again, SecondStageVAE)
    assert torch.equal(again.encode(codes), stage.encode(codes))
    old = {name: tensor for name, tensor in stage.tensors.items() if not name.startswith(("encoder.", "mu."))}
    facts = {name: value for name, value in stage.statistics.items() if name != "encoder"}
    path = density_files.write(tmp_path / "old.safetensors", stage.name, stage.options, facts, old)
    early = load_density(path)
    assert isinstance(early, SecondStageVAE)
    one, two = (each.sample(3, generator=torch.Generator().manual_seed(0)) for each in (early, stage))
    assert torch.equal(one, two)
    with pytest.raises(UsageError, match="saved without its encoder; fit it again"):
        early.encode(codes)


def test_reconstruction_and_interpolation_of_a_two_stage_model_go_through_its_second_stage(tmp_path):
    """The weights are those of a VAE, whose own reconstructions are other ones."""
    runs = {
        name: expost.train(name, "digits", tmp_path / name, epochs=3, seed=0, tensorboard=False)
        for name in ("vae", "two-stage-vae")
    }
    scores = {name: expost.evaluate(run, measures=("frechet",)) for name, run in runs.items()}
    found = {
        (name, score.name, score.of): score
        for name, each in scores.items()
        for score in each
        if score.of in ("reconstruction", "interpolation")
    }
    run = runs["two-stage-vae"]
    data, generator = run.data(), run.generator("cpu")
    assert torch.equal(generator.encode(data.test.x), runs["vae"].generator("cpu").encode(data.test.x))
    stage = generator.densities["second-stage-vae"]
    assert isinstance(stage, SecondStageVAE)
    through = generator.decode(stage.decode(stage.encode(generator.encode(data.test.x))))
    mse = found["two-stage-vae", "mse", "reconstruction"]
    assert mse.value == pytest.approx((through - to_unit(data.test.x)).square().mean().item(), rel=1e-5)
    assert mse.value > found["vae", "mse", "reconstruction"].value
    for key, score in found.items():
        expected = ("second-stage-vae", True) if key[0] == "two-stage-vae" else (None, None)
        assert (score.card.density.get("name"), score.card.density.get("through")) == expected
    # what was scored may differ, how may not
    assert expost.rank((runs["vae"].folder, run.folder), "mse", of="reconstruction")[0][0] == str(runs["vae"].folder)
    distances = {name: [s.value for s in each if s.of == "interpolation"] for name, each in scores.items()}
    assert distances["vae"] != distances["two-stage-vae"]
