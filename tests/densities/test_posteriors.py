"""A mixture with given components: against torch's, and what is refused."""

import pytest
import torch

from expost.densities import PosteriorMixture
from expost.errors import UsageError

MEANS, DEVIATIONS = torch.tensor([[-2.0, 0.0], [1.0, 3.0], [0.0, 0.5]]), torch.tensor([[0.1, 1], [2, 0.5], [1, 1.5]])


def test_its_density_and_samples_are_torchs(tmp_path):
    density = PosteriorMixture().given(MEANS, DEVIATIONS)
    normal = torch.distributions.Independent(torch.distributions.Normal(MEANS.double(), DEVIATIONS.double()), 1)
    expected = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(torch.ones(3).double()), normal)
    z = torch.randn(50, 2, generator=torch.Generator().manual_seed(0)) * 3
    torch.testing.assert_close(density.log_prob(z), expected.log_prob(z.double()), rtol=1e-9, atol=1e-9)
    drawn = density.sample(40000, generator=torch.Generator().manual_seed(1)).double()
    torch.testing.assert_close(drawn.mean(0), expected.mean, rtol=0, atol=0.05)
    torch.testing.assert_close(drawn.var(0), expected.variance, rtol=0.03, atol=0)
    cold = density.sample(300, generator=torch.Generator().manual_seed(1), temperature=0.0)
    assert torch.equal(cold.unique(dim=0), MEANS.unique(dim=0))
    again = PosteriorMixture.load(density.save(tmp_path / "d.safetensors"))
    assert torch.equal(again.log_prob(z), density.log_prob(z))


def test_a_fit_with_given_components_notes_the_likelihood_of_codes():
    z = torch.randn(80, 2, generator=torch.Generator().manual_seed(0))
    density = PosteriorMixture().fit_given(z, MEANS, DEVIATIONS)
    assert density.statistics["components"] == 3
    assert density.statistics["log_likelihood"] == pytest.approx(density.log_prob(z).mean().item())


def test_codes_alone_give_the_normal_density_of_their_means_and_variances():
    z = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([3.0, 0.1]) + 5
    density = PosteriorMixture().fit(z)
    torch.testing.assert_close(density.tensors["means"][0], z.double().mean(0))
    torch.testing.assert_close(density.tensors["deviations"][0], z.double().std(0), rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    ("means", "deviations"),
    [(MEANS, DEVIATIONS[:2]), (MEANS, -DEVIATIONS), (MEANS * torch.inf, DEVIATIONS), (MEANS[0], DEVIATIONS[0])],
)
def test_what_makes_no_mixture_is_refused(means, deviations):
    with pytest.raises(UsageError, match="components need finite means and positive deviations"):
        PosteriorMixture().given(means, deviations)
    with pytest.raises(UsageError, match="codes have 5 dimensions"):
        PosteriorMixture().fit_given(torch.randn(9, 5), MEANS, DEVIATIONS)
