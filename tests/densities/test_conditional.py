"""Densities by class: what they recover, Bayes' rule, labels of every kind, files."""

import json
import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.preprocessing import StandardScaler

import expost
from expost.densities import Gaussian, GaussianMixture, Reduced, load_density
from expost.densities.conditional import ConditionalDensity
from expost.densities.labels import Classes, read_labels
from expost.densities.mixture import default_components
from expost.errors import DataError, UsageError
from expost.utils.hashing import hash_tensors
from expost.utils.store import read_tensors, write_tensors
from references import bulk_units

pytestmark = pytest.mark.usefixtures("one_thread")

MEANS = np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
FACTORS = np.array([[[1.0, 0.0], [0.6, 0.8]], [[0.5, 0.0], [0.0, 1.5]], [[1.0, 0.0], [-0.9, 0.5]]])
SHARES = np.array([0.5, 0.3, 0.2])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def known_classes(n=6000, seed=0):
    """Codes of three known Gaussians, and their labels."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, n, p=SHARES)
    noise = rng.standard_normal((n, 2))
    z = MEANS[labels] + np.einsum("nij,nj->ni", FACTORS[labels], noise)
    return torch.from_numpy(z), torch.from_numpy(labels)


def is_same(one, other):
    """Whether two densities are of one class: they share its parameters."""
    return all(one.tensors[name] is other.tensors[name] for name in one.tensors | other.tensors)


def exact_log_joint(z):
    columns = [
        np.log(share) + multivariate_normal(mean, factor @ factor.T).logpdf(z)
        for share, mean, factor in zip(SHARES, MEANS, FACTORS, strict=True)
    ]
    return np.stack(columns, 1)


@pytest.fixture(scope="module")
def fitted():
    return ConditionalDensity(base="gaussian").fit(*known_classes(60_000))


# ---------------------------------------------------------------------------------------------------------- the truth


def test_each_class_gets_its_own_gaussian(fitted):
    assert fitted.labels == (0, 1, 2)
    for c in range(3):
        samples = fitted.sample(40_000, label=c, generator=seeded(c)).double()
        np.testing.assert_allclose(samples.mean(0), MEANS[c], atol=0.06)
        np.testing.assert_allclose(np.cov(samples.T), FACTORS[c] @ FACTORS[c].T, atol=0.12)


def test_log_prob_and_posterior_agree_with_the_closed_form(fitted):
    z, labels = known_classes(2000, seed=1)
    exact = exact_log_joint(z.numpy())
    np.testing.assert_allclose(fitted.log_prob(z), logsumexp(exact, axis=1), rtol=0.02, atol=0.05)
    posterior = np.exp(exact - logsumexp(exact, axis=1, keepdims=True))
    np.testing.assert_allclose(fitted.posterior(z), posterior, atol=0.06)
    np.testing.assert_allclose(fitted.posterior(z).sum(1), 1.0, rtol=1e-12)
    agreement = (fitted.posterior(z).argmax(1) == labels).double().mean()
    assert abs(agreement - (posterior.argmax(1) == labels.numpy()).mean()) < 0.01


def test_gaussian_classes_are_quadratic_discriminant_analysis():
    z, labels = known_classes(900)
    ours = ConditionalDensity(base="gaussian", base_options={"regularization": 0.0}).fit(z, labels)
    theirs = QuadraticDiscriminantAnalysis().fit(z.numpy(), labels.numpy())
    # scikit-learn divides covariances by N_c - 1, we by N_c
    np.testing.assert_allclose(ours.posterior(z), theirs.predict_proba(z.numpy()), atol=0.01)


def test_each_class_is_fitted_as_if_it_were_alone():
    z, labels = known_classes(600)
    conditional = ConditionalDensity(base="gmm", base_options={"components": 2}).fit(z, labels)
    for c in range(3):
        alone = GaussianMixture(components=2).fit(z[labels == c])
        assert torch.equal(conditional.log_prob(z, label=c), alone.log_prob(z))
        assert torch.equal(conditional.sample(9, label=c, generator=seeded()), alone.sample(9, generator=seeded()))


def test_samples_without_a_label_have_the_classes_frequencies(fitted):
    samples = fitted.sample(30_000, generator=seeded())
    assert samples.dtype == torch.float32
    shares = fitted.posterior(samples).mean(0)
    counts = torch.tensor(fitted.counts)
    np.testing.assert_allclose(shares, counts / counts.sum(), atol=0.01)
    # in random order: the halves are alike
    first, second = samples[:15_000].mean(0), samples[15_000:].mean(0)
    torch.testing.assert_close(first, second, atol=0.08, rtol=0)


def test_log_prob_integrates_to_one(fitted):
    grid = torch.linspace(-9, 12, 300, dtype=torch.float64)
    points = torch.cartesian_prod(grid, grid)
    step = float(grid[1] - grid[0])
    assert float(fitted.log_prob(points).exp().sum()) * step**2 == pytest.approx(1, abs=1e-3)


def test_samples_repeat_with_a_seed_and_differ_without(fitted):
    for label in (None, 2):
        assert torch.equal(fitted.sample(5, label, generator=seeded(3)), fitted.sample(5, label, generator=seeded(3)))
        assert not torch.equal(fitted.sample(5, label), fitted.sample(5, label))
    assert fitted.sample(0).shape == (0, 2)


def test_a_second_fit_is_the_same():
    z, labels = known_classes(600)
    one, two = (ConditionalDensity().fit(z, labels) for _ in range(2))
    assert torch.equal(one.log_prob(z), two.log_prob(z))


# --------------------------------------------------------------------------------------------------------- the labels


@pytest.mark.parametrize("label", [7, "7", np.int64(7), torch.tensor(7)])
def test_a_class_is_found_by_anything_that_names_it(label):
    z, labels = known_classes(600)
    density = ConditionalDensity(base="gaussian").fit(z, labels + 5)
    assert density.labels == (5, 6, 7)
    assert is_same(density.given(label), density.given(7))


def test_classes_may_be_strings_and_come_in_order():
    z, labels = known_classes(600)
    names = [("wolf", "ape", "fox")[each] for each in labels]
    density = ConditionalDensity(base="gaussian").fit(z, names)
    assert density.labels == ("ape", "fox", "wolf")
    assert list(density.counts) == [names.count(name) for name in density.labels]
    with pytest.raises(UsageError, match="unknown label 'cat'; choose one of: ape, fox, wolf"):
        density.sample(1, label="cat")


def test_an_unknown_label_lists_the_labels(fitted):
    for call in (fitted.sample, fitted.log_prob):
        argument = 1 if call == fitted.sample else torch.zeros(1, 2)
        with pytest.raises(UsageError, match="unknown label '3'; choose one of: 0, 1, 2"):
            call(argument, label=3)


def test_a_property_is_cut_into_quantiles_and_found_by_value():
    z = torch.linspace(0, 1, 1000)[:, None] + torch.zeros(1, 2) + 0.01 * torch.randn(1000, 2, generator=seeded())
    property_ = torch.linspace(-1, 3, 1000)
    density = ConditionalDensity(base="gaussian").fit(z, property_, bins=4)
    assert list(density.counts) == [250] * 4
    np.testing.assert_allclose(density.edges, [-1, 0, 1, 2, 3], atol=1e-6)
    for value, bin_ in ((-1, 0), (-0.5, 0), (1.5, 2), ("2.5", 3), (3, 3), (np.float64(0.5), 1)):
        assert is_same(density.given(value), density.given(density.labels[bin_]))
    # codes follow the property
    samples = density.sample(2000, label=1.5, generator=seeded())
    assert float(samples.mean()) == pytest.approx(0.625, abs=0.01)
    for value in (3.01, -1.5, "nan", "high"):
        with pytest.raises(UsageError, match="is in no bin; give a value from -1 to 3"):
            density.given(value)


def test_bins_may_be_bounds():
    z, _ = known_classes(600)
    values = np.arange(600) % 10  # whole numbers too
    density = ConditionalDensity(base="gaussian").fit(z, values, bins=[0, 3, 10])
    assert density.labels == ("0..3", "3..10")
    assert list(density.counts) == [180, 420]
    assert is_same(density.given(3), density.given("3..10"))
    with pytest.raises(DataError, match="60 labels lie outside the bins 0 to 8"):
        ConditionalDensity().fit(z, values, bins=[0, 3, 8])
    with pytest.raises(DataError, match=r"no example lies in bin 0\.1\.\.0\.9"):
        ConditionalDensity().fit(z, values, bins=[0, 0.1, 0.9, 10])


def test_close_bounds_get_names_that_differ():
    classes, _ = read_labels(np.linspace(1e6, 1e6 + 1, 100), 100, bins=4)
    assert len(set(classes.labels)) == 4


@pytest.mark.parametrize(
    ("labels", "bins", "error", "message"),
    [
        (np.linspace(0, 1, 60), None, UsageError, "labels are fractional numbers; give bins=10"),
        (np.zeros(60), 5, DataError, "too few different values for 5 bins"),
        (np.where(np.arange(60) < 2, np.nan, 1.0), 5, DataError, "2 of 60 labels are NaN"),
        (np.arange(60), 1, UsageError, "bins=1 must be a whole number, at least 2"),
        (np.arange(60), [3, 2, 1], UsageError, "ascending bounds"),
        (["a"] * 60, 3, UsageError, "labels are strings; leave bins out"),
        ([None] + ["a"] * 59, None, DataError, "labels mix strings with None"),
        (np.arange(59), None, DataError, r"labels have shape \(59,\) for 60 codes"),
        (np.zeros((60, 1), int), None, DataError, r"labels have shape \(60, 1\)"),
        (np.zeros(60, "datetime64[s]"), None, DataError, "of type datetime64"),
    ],
)
def test_labels_that_cannot_be_used_are_refused(labels, bins, error, message):
    with pytest.raises(error, match=message):
        ConditionalDensity().fit(torch.randn(60, 2, generator=seeded()), labels, bins=bins)


# ------------------------------------------------------------------------------------------------------ small classes


def with_a_small_class(count):
    z, labels = known_classes(600)
    keep = (labels != 2) | (torch.cumsum(labels == 2, 0) <= count)
    return z[keep], labels[keep]


@pytest.mark.parametrize("count", [1, 4])
def test_a_small_class_shrinks_to_the_pooled_covariance(count):
    z, labels = with_a_small_class(count)
    density = ConditionalDensity(base="gmm").fit(z, labels)
    assert [each["density"] for each in density.statistics["classes"]] == ["gmm", "gmm", "gaussian"]
    assert density.given(2).statistics["shrunk"]
    groups = [z[labels == c].numpy() for c in range(3)]
    scatter = [(group - group.mean(0)).T @ (group - group.mean(0)) for group in groups]
    pooled = sum(scatter) / (len(z) - 3)
    ridge = 1e-6 * np.diag(bulk_units(z.double()).numpy() ** 2)
    covariance = (scatter[2] + 3 * pooled) / (count + 3) + ridge
    expected = multivariate_normal(groups[2].mean(0), covariance).logpdf(z)
    np.testing.assert_allclose(density.log_prob(z, label=2), expected, rtol=1e-9)


def test_a_small_class_is_an_error_on_request():
    z, labels = with_a_small_class(4)
    with pytest.raises(DataError, match=r"fewer than 6 codes in class 2 \(4\); merge them, or take small='shrink'"):
        ConditionalDensity(small="error").fit(z, labels)
    assert ConditionalDensity(small="error", min_codes=3, base="gaussian").fit(z, labels).fitted


def test_too_few_codes_for_any_covariance_are_refused():
    z = torch.randn(6, 8, generator=seeded())
    with pytest.raises(DataError, match="6 codes in 3 classes are too few for a covariance in 8 dimensions"):
        ConditionalDensity().fit(z, [0, 0, 1, 1, 2, 2])


def test_a_mixture_gets_as_many_components_as_its_class_supports():
    z, labels = known_classes(600)
    density = ConditionalDensity().fit(z, labels)
    for c, count in enumerate(density.counts):
        assert density.given(c).options["components"] == default_components(count, 2) == min(10, count // 15)


def test_a_failure_names_the_class():
    z, labels = known_classes(600)
    z[labels == 1] = 4.0
    with pytest.raises(DataError, match="class 1: all .* codes are equal"):
        ConditionalDensity(base="gaussian").fit(z, labels)


def test_options_are_checked_before_any_fit():
    for options, message in (
        ({"base": "gnm"}, "did you mean 'gmm'"),
        ({"base_options": {"bandwidth": 1}}, "no option 'bandwidth'"),
        ({"small": "drop"}, "small='drop' is unknown"),
        ({"min_codes": 1}, "min_codes=1"),
    ):
        with pytest.raises(UsageError, match=message):
            ConditionalDensity(**options)
    density = ConditionalDensity()
    with pytest.raises(UsageError, match="not fitted"):
        density.sample(1)


def test_a_base_without_a_log_prob_can_be_sampled_and_says_what_could_be_evaluated():
    z, labels = known_classes(300)
    density = ConditionalDensity(base="second-stage-vae", base_options={"epochs": 2, "width": 8}).fit(z, labels)
    assert density.sample(4, label=1).isfinite().all()
    for call in (lambda: density.log_prob(z), lambda: density.posterior(z), lambda: density.log_prob(z, label=1)):
        with pytest.raises(UsageError, match="cannot be evaluated, only sampled; choose a base of: .*gaussian, gmm"):
            call()


def test_a_failed_fit_leaves_nothing_behind():
    z, labels = known_classes(300)
    density = ConditionalDensity(base="gaussian").fit(z, labels)
    with pytest.raises(DataError, match="NaN"):
        density.fit(torch.full((4, 2), math.nan), [0, 0, 1, 1])
    assert not density.fitted


# --------------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("base", ["gaussian", "gmm", "kde"])
@pytest.mark.parametrize("labels", ["classes", "strings", "bins"])
def test_a_saved_density_comes_back_the_same(tmp_path, base, labels):
    z, classes = with_a_small_class(4)
    given = {"classes": classes, "strings": [f"c{each}" for each in classes], "bins": z[:, 0]}[labels]
    density = ConditionalDensity(base=base, min_codes=6).fit(z, given, bins=3 if labels == "bins" else None)
    path = density.save(tmp_path / "by_label.safetensors")
    again = ConditionalDensity.load(path)
    assert again.labels == density.labels
    assert again.edges == density.edges
    assert again.options == density.options
    assert again.statistics == density.statistics
    assert torch.equal(again.log_prob(z), density.log_prob(z))
    assert torch.equal(again.posterior(z), density.posterior(z))
    for label in (None, density.labels[-1]):
        assert torch.equal(again.sample(9, label, generator=seeded()), density.sample(9, label, generator=seeded()))
    assert json.loads(path.with_suffix(".json").read_text())["density"] == "conditional"


def test_any_density_is_read_by_load_density(tmp_path, fitted):
    assert isinstance(load_density(fitted.save(tmp_path / "all")), ConditionalDensity)
    one = fitted.given(0).save(tmp_path / "one")
    assert isinstance(load_density(one), Gaussian)
    with pytest.raises(DataError, match="holds density 'gaussian', not 'conditional'"):
        ConditionalDensity.load(one)


def test_labels_are_refused_by_a_density_that_takes_none_and_asked_for_by_one_that_needs_them():
    z, labels = known_classes(60)
    plain = Gaussian().fit(z)
    for call in (
        lambda: Gaussian().fit(z, labels),
        lambda: plain.sample(1, 0),
        lambda: plain.log_prob(z, label=0),
    ):
        with pytest.raises(UsageError, match=r"'gaussian' takes no labels; .*ConditionalDensity\(base='gaussian'\)"):
            call()
    with pytest.raises(UsageError, match=r"'conditional' needs a label for each code; call fit\(z, labels\)"):
        ConditionalDensity().fit(z)


def tampered(record, tensors, how):
    fit = record["fit"]
    if how == "label missing":
        fit["labels"] = fit["labels"][:-1]
    elif how == "labels equal":
        fit["labels"] = [1, 1, 1]
    elif how == "class missing":
        del fit["classes"][0]["options"]
    elif how == "unknown density":
        fit["classes"][0]["density"] = "os"
    elif how == "dimension":
        fit["d"] = 3
    elif how == "edges":
        fit["edges"] = [3, 2, 1, 0]
    elif how == "no classes":
        fit["classes"], fit["labels"] = [], []
    elif how == "other options":
        record["options"]["colour"] = "red"
    elif how == "tensor missing":
        del tensors["1.mean"]
    elif how == "tensor too many":
        tensors["9.mean"] = tensors["1.mean"].clone()
    elif how == "fit is a list":
        fit["classes"] = [1, 2, 3]
    record["sha256"] = hash_tensors(tensors)


@pytest.mark.parametrize(
    "how",
    [
        "label missing",
        "labels equal",
        "class missing",
        "unknown density",
        "dimension",
        "edges",
        "no classes",
        "other options",
        "tensor missing",
        "tensor too many",
        "fit is a list",
    ],
)
def test_a_damaged_file_is_refused(tmp_path, fitted, how):
    path = fitted.save(tmp_path / "x.safetensors")
    tensors, record = read_tensors(path)
    tampered(record, tensors, how)
    write_tensors(path, tensors, record)
    with pytest.raises(DataError, match="restore"):
        ConditionalDensity.load(path)


# -------------------------------------------------------------------------------------- a density in fewer dimensions


def test_a_reduced_gaussian_is_probabilistic_pca():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 3)) @ rng.standard_normal((3, 12)) * 2 + 0.3 * rng.standard_normal((400, 12)) + 5
    z = torch.from_numpy(x)
    options = {"regularization": 0.0}
    density = Reduced(rank=3, base="gaussian", base_options=options, regularization=1e-12).fit(z[:300])
    scaler = StandardScaler().fit(x[:300])
    # scikit-learn divides variances by N - 1, we by N: repeating each row a thousand times makes the two alike
    pca = PCA(3).fit(np.repeat(scaler.transform(x[:300]), 1000, 0))
    expected = pca.score_samples(scaler.transform(x[300:])) - np.log(scaler.scale_).sum()
    np.testing.assert_allclose(density.log_prob(z[300:]), expected, rtol=1e-4)
    samples = density.sample(200_000, generator=seeded()).double().numpy()
    covariance = scaler.scale_[:, None] * pca.get_covariance() * scaler.scale_
    np.testing.assert_allclose(samples.mean(0), x[:300].mean(0), atol=0.05)
    np.testing.assert_allclose(np.cov(samples.T), covariance, atol=0.25)


def test_a_reduced_density_of_all_dimensions_is_its_base():
    z = torch.randn(200, 4, generator=seeded(), dtype=torch.float64) * torch.tensor([1.0, 2.0, 3.0, 4.0])
    whole = Gaussian(regularization=0.0).fit(z)
    reduced = Reduced(rank=9, base="gaussian", base_options={"regularization": 0.0}, regularization=1e-12).fit(z)
    torch.testing.assert_close(reduced.log_prob(z), whole.log_prob(z))


def test_fewer_codes_than_dimensions_give_the_same_axes_as_a_singular_value_decomposition():
    z = torch.randn(30, 100, generator=seeded(), dtype=torch.float64) * torch.linspace(3, 1, 100)
    density = Reduced(rank=5, base="gaussian").fit(z)
    t = (z - z.mean(0)) / z.std(0, correction=0)
    right = torch.linalg.svd(t, full_matrices=False)[2][:5].T
    overlap = (right.T @ density.tensors["basis"]).abs()
    torch.testing.assert_close(overlap, torch.eye(5, dtype=torch.float64), atol=1e-8, rtol=0)


def test_the_base_of_a_reduced_density_must_have_a_log_prob():
    for base in ("second-stage-vae", "reduced"):
        with pytest.raises(UsageError, match=f"base='{base}' cannot be evaluated in fewer dimensions; choose one of"):
            Reduced(base=base)


def test_a_run_is_asked_for_one_class(tmp_path):
    """The samples of a class lie in its own part of the latent space; the fit survives the folder."""
    run = expost.train("rae", "digits", tmp_path / "run", epochs=3, width=32, tensorboard=False)
    path = expost.fit(run, "gaussian", by="label").path
    assert path.parent.name == "by_label"
    generator = expost.Run.open(run.folder).generator("cpu")
    fitted = generator.by_label["gaussian"]
    assert fitted.labels == tuple(range(10))
    guessed = fitted.posterior(generator.draw(200, label="7", source=torch.Generator().manual_seed(0))).argmax(1)
    assert (guessed == 7).double().mean() > 0.8
    images = np.load(expost.sample(run, n=5, out=tmp_path / "sevens.npy", label="7"))
    assert images.shape == (5, 1, 8, 8)
    with pytest.raises(UsageError, match="label"):
        expost.sample(run, n=5, out=tmp_path / "x.npy", label="12")
    with pytest.raises(UsageError, match="no 'gmm' is fitted by label"):
        expost.sample(run, n=5, out=tmp_path / "x.npy", density="gmm", label="7")
    with pytest.raises(UsageError, match="has no molecules"):
        expost.fit(run, "gaussian", by="logp")
    with pytest.raises(UsageError, match="bins"):
        expost.fit(run, "gaussian", by="label", bins=3)
    with pytest.raises(UsageError, match="bins"):
        expost.fit(run, "gaussian", bins=3)


def test_molecules_are_asked_for_by_a_property(tmp_path):
    run = expost.train("grae", "drugs", tmp_path / "run", epochs=1, width=16, tensorboard=False)
    expost.fit(run, "gaussian", by="logp", bins=3)
    fitted = run.generator("cpu").by_label["gaussian"]
    assert len(fitted.edges) == 4
    lines = expost.sample(run, n=5, out=tmp_path / "s.smi", label="2.5").read_text().splitlines()
    assert len(lines) <= 5


def test_labels_can_be_asked_for_as_they_were_given():
    z = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    flags = np.arange(60) % 2 == 1
    density = ConditionalDensity(base="gaussian").fit(z + 20.0 * torch.from_numpy(flags)[:, None], flags)
    for label in (True, np.True_, 1, 1.0, "1", torch.tensor(1)):
        assert density.sample(5, label=label).mean() > 10
    with pytest.raises(UsageError, match="unknown label '0.5'"):
        density.sample(1, label=0.5)
    named = ConditionalDensity(base="gaussian").fit(z, np.where(flags, "True", "False"))
    assert is_same(named.given(True), named.given("True"))


def test_numbers_that_are_no_labels_are_told_in_one_line():
    classes = Classes((0, 1, 2))
    assert classes.find(2.0) == classes.find("2") == 2
    for label in (float("nan"), float("inf"), 0.5):
        with pytest.raises(UsageError, match=f"unknown label '{label}'; choose one of: 0, 1, 2"):
            classes.find(label)
