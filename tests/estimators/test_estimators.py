"""The scikit-learn estimator: scikit-learn's own contract, its log-likelihood against closed forms, and its uses."""

import pickle
import runpy
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.integrate import trapezoid
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_wine
from sklearn.exceptions import NotFittedError
from sklearn.impute import SimpleImputer
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from expost.densities import Gaussian, TractableDensity, make_density
from expost.densities.likelihood import LatentVariableModel
from expost.errors import DataError, UsageError
from expost.estimators import RegularizedAutoencoder
from expost.estimators.fitting import LARGEST_INPUT

pytestmark = pytest.mark.usefixtures("one_thread")


def quick(**options):
    return RegularizedAutoencoder(**{"epochs": 3, "width": 16, "random_state": 0} | options)


@parametrize_with_checks(
    [
        RegularizedAutoencoder(),
        RegularizedAutoencoder("vae", width=16, epochs=3, density="gaussian"),
        RegularizedAutoencoder("rae-sn", width=16, epochs=3, density="kde", draws=0),
    ]
)
def test_scikit_learn_s_own_contract(estimator, check):
    check(estimator)


# ---------------------------------------------------------------------------------------------------- log-likelihoods


def linear_model(dim=5, latent=2, seed=0):
    """x = W z + b + noise with z ~ N(m, C): log p(x) is N(W m + b, W C W^T + noise)."""
    rng = np.random.default_rng(seed)
    w, b = rng.standard_normal((dim, latent)), rng.standard_normal(dim)
    noise = rng.uniform(0.05, 0.5, dim)
    codes = torch.from_numpy(rng.standard_normal((400, latent)) @ rng.standard_normal((latent, latent)) + 1.5)
    density = Gaussian(regularization=0.0).fit(codes)
    mean, covariance = codes.mean(0), torch.from_numpy(np.cov(codes.T, bias=True))
    matrix, offset = torch.from_numpy(w), torch.from_numpy(b)
    model = LatentVariableModel(lambda z: z @ matrix.T + offset, density, torch.from_numpy(noise), mean, covariance)
    exact = multivariate_normal(w @ mean.numpy() + b, w @ covariance.numpy() @ w.T + np.diag(noise))
    return model, exact


@pytest.mark.parametrize("draws", [0, 2, 64])
def test_the_likelihood_of_a_linear_decoder_is_exact_whatever_the_draws_and_the_start(draws):
    model, exact = linear_model()
    x = torch.from_numpy(exact.rvs(50, random_state=1))
    for start in (torch.zeros(50, 2), 3 * torch.randn(50, 2, generator=torch.Generator().manual_seed(0))):
        estimate = model.log_prob(x, start.double(), draws)
        np.testing.assert_allclose(estimate, exact.logpdf(x.numpy()), rtol=1e-7)


def curved_model(density="gmm", **options):
    """A code of one dimension, bent into a parabola, so that a grid over the code gives the integral."""
    generator = torch.Generator().manual_seed(0)
    codes = (
        torch.randn(600, 1, generator=generator, dtype=torch.float64) + torch.tensor([-2.0, 2.0]).repeat(300)[:, None]
    )
    q = make_density(density, **options).fit(codes)
    assert isinstance(q, TractableDensity)
    noise = torch.tensor([0.05, 0.1], dtype=torch.float64)
    model = LatentVariableModel(
        lambda z: torch.cat([z, 0.3 * z.square()], 1),
        q,
        noise,
        codes.mean(0),
        codes.var(0).reshape(1, 1),
    )
    grid = torch.linspace(-8, 8, 4001, dtype=torch.float64)[:, None]

    def exact(x):
        decoded = model.decode(grid)
        squared = ((x[:, None] - decoded).square() / noise).sum(2)
        log_noise = -0.5 * (squared + noise.log().sum() + 2 * np.log(2 * np.pi))
        step = float(grid[1] - grid[0])
        return logsumexp((q.log_prob(grid) + log_noise).numpy(), axis=1) + np.log(step)

    return model, exact, codes


@pytest.mark.parametrize(("name", "options"), [("gmm", {"components": 2}), ("kde", {}), ("standard-normal", {})])
def test_the_likelihood_of_a_curved_decoder_agrees_with_quadrature(name, options):
    model, exact, codes = curved_model(name, **options)
    generator = torch.Generator().manual_seed(1)
    x = model.decode(codes[:200]) + model.noise.sqrt() * torch.randn(200, 2, generator=generator, dtype=torch.float64)
    estimate = model.log_prob(x, x[:, :1], draws=1000)
    np.testing.assert_allclose(estimate, exact(x), atol=0.05)
    # more draws come closer; none (Laplace) is a fair approximation
    few = np.abs(model.log_prob(x, x[:, :1], draws=4).numpy() - exact(x)).mean()
    assert np.abs(estimate.numpy() - exact(x)).mean() < few
    assert np.abs(model.log_prob(x, x[:, :1], draws=0).numpy() - exact(x)).mean() < 0.1


def test_a_loose_row_takes_more_draws_and_no_other_row_changes(monkeypatch):
    model, exact, codes = curved_model("gmm", components=2)
    generator = torch.Generator().manual_seed(1)
    # far off the curve the integrand is nothing like a Gaussian
    far = 2 * torch.randn(200, 2, generator=generator, dtype=torch.float64)
    x = torch.cat([model.decode(codes[:100]), model.decode(codes[:200]) + far])

    def estimates(rounds):
        monkeypatch.setattr("expost.densities.likelihood.ROUNDS", rounds)
        return model.log_prob(x, x[:, :1], draws=8)

    few, many = estimates(0), estimates(4)
    changed = many != few
    assert 10 < int(changed.sum()) < 290
    error = [(each - torch.from_numpy(exact(x))).abs()[changed].mean() for each in (few, many)]
    assert error[1] < 0.5 * error[0]
    one = int(changed.nonzero()[0, 0])
    assert model.log_prob(x[one : one + 1], x[one : one + 1, :1], draws=8).item() == pytest.approx(
        many[one].item(), rel=1e-12
    )


def test_the_likelihood_integrates_to_one():
    model, _, _ = curved_model("gmm", components=2)
    axes = [torch.linspace(-8, 8, 160, dtype=torch.float64), torch.linspace(-3, 16, 160, dtype=torch.float64)]
    points = torch.cartesian_prod(*axes)
    values = model.log_prob(points, points[:, :1], draws=64).exp().reshape(160, 160)
    assert trapezoid(trapezoid(values.numpy(), axes[1].numpy()), axes[0].numpy()) == pytest.approx(1, abs=0.01)


@pytest.fixture(scope="module")
def curve():
    """600 rows about a curve in space, in odd units: column 1 is the square of column 0, column 2 a wave of it."""
    rng = np.random.default_rng(0)
    u = rng.uniform(-2, 2, 600)
    space = np.stack([u, u**2, np.sin(2 * u)], 1) + 0.1 * rng.standard_normal((600, 3))
    return space * [1.0, 100.0, 0.01] + [0.0, 5000.0, -3.0]


@pytest.fixture(scope="module")
def fitted(curve):
    # a start from which the curve is found whatever the rounding
    return RegularizedAutoencoder(latent_dim=1, epochs=60, width=64, random_state=2).fit(curve)


def test_score_samples_is_the_log_density_in_the_units_of_the_data(curve, fitted):
    grid = torch.linspace(-1, 1, 20_001, dtype=torch.float64)[:, None]
    codes = fitted.transform(curve)
    grid = grid * 3 * np.abs(codes).max()
    decoded = fitted.inverse_transform(grid.numpy())
    deviation = np.sqrt(fitted.noise_variance_) * fitted.scale_
    rows = curve[:100]
    squared = (((rows[:, None] - decoded) / deviation) ** 2).sum(2)
    log_noise = -0.5 * squared - np.log(deviation).sum() - 1.5 * np.log(2 * np.pi)
    step = np.log(float(grid[1] - grid[0]))
    exact = logsumexp(fitted.density_.log_prob(grid).numpy() + log_noise, axis=1) + step
    many = clone(fitted).set_params(draws=2000)
    many.__dict__ |= {key: value for key, value in fitted.__dict__.items() if key.endswith("_") or key[0] == "_"}
    # a row between two parts of the curve may be explained by both, of which one may be missed: then too low, never
    # too high
    error = many.score_samples(rows) - exact
    assert (np.abs(error) < 0.1).mean() >= 0.95
    assert error.max() < 0.1
    assert abs(np.mean(fitted.score_samples(rows) - exact)) < 0.1
    assert fitted.score(rows) == fitted.score_samples(rows).mean()


def test_a_change_of_units_shifts_the_log_density_by_its_logarithm(curve, fitted):
    factor = np.array([10.0, 0.5, -4.0])
    other = clone(fitted).fit(curve * np.abs(factor) + 7)
    difference = fitted.score_samples(curve) - other.score_samples(curve * np.abs(factor) + 7)
    np.testing.assert_allclose(difference, np.log(np.abs(factor)).sum(), atol=1e-2)


def test_rows_off_the_curve_are_anomalies_though_each_column_looks_normal(curve, fitted):
    rng = np.random.default_rng(1)
    shuffled = np.column_stack([rng.permutation(column) for column in curve.T])
    labels = np.repeat([0, 1], len(curve))
    scores = -fitted.score_samples(np.vstack([curve, shuffled]))
    assert roc_auc_score(labels, scores) > 0.9
    # a Gaussian of the same rows, which knows linear relations alone, sees less
    gaussian = multivariate_normal(curve.mean(0), np.cov(curve.T))
    plain = -gaussian.logpdf(np.vstack([curve, shuffled]))
    assert roc_auc_score(labels, scores) > roc_auc_score(labels, plain) + 0.1


@pytest.mark.parametrize("size", [1e3, 1e30, 1e150])
def test_an_absurd_value_gets_an_absurd_score_and_no_error(curve, fitted, size):
    row = curve[:1].copy()
    row[0, 1] = size * fitted.scale_[1]
    assert fitted.score_samples(row)[0] < fitted.score_samples(curve).min() - 100
    assert np.isfinite(fitted.transform(row)).all()
    assert LARGEST_INPUT < 1e30


def test_samples_have_the_data_s_moments_and_shape(curve, fitted):
    samples = fitted.sample(20_000, random_state=0)
    np.testing.assert_allclose(samples.mean(0), curve.mean(0), atol=0.1 * curve.std(0).max())
    np.testing.assert_allclose(samples.std(0) / curve.std(0), 1, atol=0.1)
    standard = samples / [1, 100, 1] - [0, 50, 0]
    # a parabola: the second column is the square of the first up to noise
    assert np.abs(standard[:, 1] - standard[:, 0] ** 2).mean() < 0.4
    thin = fitted.sample(20_000, random_state=0, noise=False)
    deviation = np.sqrt(fitted.noise_variance_) * fitted.scale_
    np.testing.assert_allclose((samples - thin).std(0), deviation, rtol=0.03)
    # on the decoder's surface, a curve: hardly any distance to the nearest of many points of it
    points = fitted.inverse_transform(np.linspace(-9, 9, 4000)[:, None]) / fitted.scale_
    distances = [np.abs(points - row).max(1).min() for row in thin[:100] / fitted.scale_]
    assert max(distances) < 0.02


def test_inverse_transform_is_close_to_the_data(curve, fitted):
    error = fitted.inverse_transform(fitted.transform(curve)) - curve
    assert (np.sqrt((error**2).mean(0)) / curve.std(0) < 0.3).all()


def test_seeds(curve):
    state, numpy_state = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"].copy()  # noqa: NPY002
    one, two, other = (quick(random_state=seed).fit(curve) for seed in (0, 0, 1))
    assert np.array_equal(one.score_samples(curve), two.score_samples(curve))
    assert not np.array_equal(one.transform(curve), other.transform(curve))
    assert np.array_equal(one.sample(5, random_state=3), two.sample(5, random_state=3))
    assert not np.array_equal(one.sample(5, random_state=3), one.sample(5, random_state=4))
    assert torch.equal(state, torch.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state(legacy=False)["state"]["key"])  # noqa: NPY002
    assert not np.array_equal(one.sample(5), one.sample(5))


def test_the_weights_are_those_of_the_best_epoch(curve):
    estimator = RegularizedAutoencoder(latent_dim=2, epochs=30, width=16, lr=0.1, random_state=2).fit(curve)
    held_out = [validation for _, validation in estimator.history_]
    assert estimator.n_epochs_ == len(held_out) == 30
    assert min(held_out) < held_out[-1]
    # the held-out rows are drawn from the seed alone, so one epoch fewer than the best gives other weights
    best = int(np.argmin(held_out)) + 1
    again = clone(estimator).set_params(epochs=best).fit(curve)
    assert np.array_equal(again.transform(curve), estimator.transform(curve))


def test_training_ends_when_nothing_improves():
    rng = np.random.default_rng(0)
    estimator = RegularizedAutoencoder(latent_dim=1, width=8, epochs=5000, lr=0.01, random_state=0)
    assert estimator.fit(rng.standard_normal((60, 4))).n_epochs_ < 1000


# ------------------------------------------------------------------------------------------------------------- columns


def test_a_constant_column_is_left_out_and_comes_back(curve):
    wide = np.column_stack([np.full(600, 1e9 / 3), curve, np.zeros(600)])
    with_constants, without = quick().fit(wide), quick().fit(curve)
    assert with_constants.varying_.tolist() == [False, True, True, True, False]
    assert np.array_equal(with_constants.score_samples(wide), without.score_samples(curve))
    back = with_constants.inverse_transform(with_constants.transform(wide))
    assert (back[:, 0] == 1e9 / 3).all()
    assert (back[:, 4] == 0).all()
    assert np.array_equal(back[:, 1:4], without.inverse_transform(without.transform(curve)))
    assert (with_constants.sample(5)[:, 0] == 1e9 / 3).all()


def test_no_varying_column_is_refused():
    with pytest.raises(DataError, match="none of the 2 columns of X varies"):
        quick().fit(np.ones((10, 2)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_missing_values_are_refused_with_the_remedy_and_imputation_works(curve, value):
    holed = curve.copy()
    holed[[4, 7], 1] = value
    word = "NaN" if np.isnan(value) else "inf"
    with pytest.raises(DataError, match=rf"X has 2 values .*{word}.* first in row 4, column 1; .*SimpleImputer\(\)"):
        quick().fit(holed)
    estimator = quick().fit(curve)
    with pytest.raises(DataError, match="SimpleImputer"):
        estimator.score_samples(holed)
    if np.isnan(value):
        assert np.isfinite(make_pipeline(SimpleImputer(), quick()).fit(holed).score_samples(holed)).all()


def test_values_near_the_end_of_the_numbers_are_refused():
    with pytest.raises(DataError, match="too large"):
        quick().fit(np.array([[1e308], [-1e308], [0.0], [1.0]]))


def test_mixed_columns_go_through_a_column_transformer():
    rng = np.random.default_rng(0)
    kind = rng.choice(["oak", "elm", "ash"], 300)
    height = np.where(kind == "oak", 20.0, 10.0) + rng.standard_normal(300)
    height[3] = np.nan
    table = pd.DataFrame({"kind": kind, "height": height, "age": rng.integers(1, 90, 300)})
    columns = ColumnTransformer(
        [
            ("kind", OneHotEncoder(sparse_output=False), ["kind"]),
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["height", "age"]),
        ]
    )
    pipeline = make_pipeline(columns, quick(epochs=60, latent_dim=3)).fit(table)
    odd = table.assign(kind=np.where(table.kind == "oak", "elm", "oak"))  # tall elms and short oaks
    labels = np.repeat([0, 1], 300)
    assert roc_auc_score(labels, -pipeline.score_samples(pd.concat([table, odd]))) > 0.9


def test_names_of_columns_travel(curve):
    table = pd.DataFrame(curve, columns=["a", "b", "c"])
    estimator = quick(latent_dim=2).fit(table)
    assert estimator.feature_names_in_.tolist() == ["a", "b", "c"]
    codes = estimator.set_output(transform="pandas").transform(table)
    assert codes.columns.tolist() == ["regularizedautoencoder0", "regularizedautoencoder1"]
    table.loc[3, "b"] = np.nan
    with pytest.raises(ValueError, match="the first in row 3, column 'b'; fill"):
        estimator.transform(table)
    odd = table.rename(columns={"b": "price\n(EUR)"})
    with pytest.raises(ValueError, match=r"column 'price\\n\(EUR\)'; fill"):  # one line
        quick(latent_dim=2).fit(odd)


def test_single_precision_stays_single_precision(curve):
    estimator = quick().fit(curve.astype(np.float32))
    codes = estimator.transform(curve.astype(np.float32))
    assert codes.dtype == np.float32
    assert estimator.inverse_transform(codes).dtype == np.float32
    assert estimator.inverse_transform(codes.astype(np.float64)).dtype == np.float64


# ---------------------------------------------------------------------------------------------------- in scikit-learn


def test_a_grid_search_chooses_by_held_out_log_likelihood():
    rng = np.random.default_rng(0)
    plane = rng.standard_normal((300, 2)) @ rng.standard_normal((2, 8))
    x = plane + 0.05 * rng.standard_normal((300, 8))
    search = GridSearchCV(
        quick(epochs=40, width=32, density="gaussian"), {"latent_dim": [1, 2]}, cv=2, error_score="raise"
    )
    search.fit(x)
    assert search.best_params_ == {"latent_dim": 2}
    pipeline = make_pipeline(StandardScaler(), quick())
    nested = GridSearchCV(pipeline, {"regularizedautoencoder__density": ["gaussian", "kde"]}, cv=2, error_score="raise")
    assert np.isfinite(nested.fit(x).best_score_)


@pytest.mark.parametrize("model", ["rae-l2", "rae-sn", "vae"])
def test_an_estimator_survives_scikit_learn_s_way_of_saving(curve, model):
    estimator = quick(model=model, density="gmm", density_options={"components": 2}).fit(curve)
    again = pickle.loads(
        pickle.dumps(estimator)
    )  # what joblib.dump does; a spectrally normalized module cannot as such
    assert np.array_equal(again.transform(curve), estimator.transform(curve))
    assert np.array_equal(again.score_samples(curve), estimator.score_samples(curve))
    assert np.array_equal(again.sample(4, random_state=0), estimator.sample(4, random_state=0))
    assert not again.autoencoder_.training


def test_every_kind_of_density_samples_and_scores(curve):
    for density in ("standard-normal", "gaussian", "gmm", "bayesian-gmm", "kde"):
        estimator = quick(density=density).fit(curve)
        assert np.isfinite(estimator.score_samples(curve)).all()
    intractable = quick(density="second-stage-vae", density_options={"epochs": 1, "width": 8}).fit(curve)
    assert np.isfinite(intractable.sample(5)).all()
    with pytest.raises(UsageError, match="'second-stage-vae' cannot be evaluated, only sampled; choose one of: .*gmm"):
        intractable.score_samples(curve)


def test_a_density_and_its_options_are_chosen_by_held_out_likelihood(curve):
    options = {f"{name}.steps": 20 for name in ("flow", "flow-matching")}
    chosen = quick(density="auto", density_options=options).fit(curve)
    trials = chosen.selection_["trials"]
    assert {"gaussian", "gmm", "kde", "flow"} <= {trial["density"] for trial in trials}
    assert chosen.density_.name == trials[chosen.selection_["chosen"]]["density"]
    assert np.isfinite(chosen.score_samples(curve)).all()
    mixture = quick(density_options={"components": "auto", "covariance": "diag"}).fit(curve)
    assert {trial["options"]["components"] for trial in mixture.selection_["trials"]} == {1, 2, 5, 10, 20, 50}
    assert mixture.density_.options["covariance"] == "diag"
    assert mixture.density_.options["seed"] > 0  # of random_state
    assert not hasattr(mixture.set_params(density_options=None).fit(curve), "selection_")
    with pytest.raises(UsageError, match="option 'components' is of no candidate"):
        quick(density="auto", density_options={"components": 3}).fit(curve)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "rae-l3"}, "did you mean 'rae-l2'"),
        ({"model": "vq-vae"}, "'vq-vae' has maps for codes"),
        ({"density": "gnm"}, "did you mean 'gmm'"),
        ({"density_options": {"n_components": 3}}, "no option 'n_components'"),
        ({"latent_dim": 0}, "latent_dim=0"),
        ({"latent_dim": 2.5}, "latent_dim=2.5"),
        ({"width": "wide"}, "width='wide'"),
        ({"epochs": 0}, "epochs=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"lr": -1}, "lr=-1"),
        ({"lr": "fast"}, "lr='fast'"),
        ({"validation_fraction": 1.0}, "validation_fraction=1"),
        ({"validation_fraction": 0.999}, "leaves 1 to train"),
        ({"beta": -1.0}, "beta is -1"),
        ({"model": "ae", "beta": 1.0}, "no latent penalty"),
        ({"device": "abacus"}, "device 'abacus'"),
    ],
)
def test_options_that_cannot_be_are_refused_by_fit(curve, options, message):
    with pytest.raises(UsageError, match=message):
        quick(**options).fit(curve)


def test_wrong_uses_are_told_the_right_one(curve):
    with pytest.raises(NotFittedError):
        quick().sample(3)
    estimator = quick(draws=3).fit(curve)
    with pytest.raises(UsageError, match="draws=3 is odd; they come in pairs, take 4"):
        estimator.score_samples(curve)
    with pytest.raises(UsageError, match="n_samples=0"):
        estimator.sample(0)
    with pytest.raises(UsageError, match="codes have 7 columns, the model's have 1"):
        estimator.inverse_transform(np.zeros((2, 7)))
    with pytest.raises(ValueError, match="minimum of 3 is required"):
        quick().fit(curve[:2])


def test_a_loss_that_explodes_is_told_in_a_table_s_words(curve):
    with pytest.raises(DataError, match=r"in epoch \d+, step \d+ \(.*is (nan|inf).*\); lower lr=1e\+30, or scale X$"):
        quick(lr=1e30).fit(curve)


def test_numpy_s_numbers_are_numbers(curve):
    estimator = quick(latent_dim=np.int64(2), epochs=np.int32(2), lr=np.float64(1e-3), batch_size=np.int64(32))
    assert estimator.fit(curve).transform(curve).shape == (600, 2)


def test_verbose_says_how_it_goes_on_stderr_alone(curve, capsys):
    quick(verbose=2, epochs=4).fit(curve)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert [line.split(":")[0] for line in captured.err.splitlines()] == ["epoch 2/4", "epoch 4/4"]
    quick().fit(curve)
    assert capsys.readouterr().err == ""


def test_real_data_is_told_from_noise_of_the_same_columns():
    x = load_wine().data
    rng = np.random.default_rng(0)
    shuffled = np.column_stack([rng.permutation(column) for column in x.T])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimator = RegularizedAutoencoder(random_state=0).fit(x[::2])
    scores = -estimator.score_samples(np.vstack([x[1::2], shuffled[1::2]]))
    assert roc_auc_score(np.repeat([0, 1], len(x[1::2])), scores) > 0.85


def test_the_example_prints_what_it_says(capsys, monkeypatch):
    path = Path(__file__).resolve().parents[2] / "examples" / "table_anomalies.py"
    monkeypatch.setattr("sys.argv", [str(path), "--splits", "1"])
    runpy.run_path(str(path), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["AUC", "log-likelihood", "samples"]
    values = {line[:24].strip(): [float(word) for word in line[24:].split()[::3]] for line in lines[1:]}
    assert list(values) == ["regularized autoencoder", "principal components", "mixture of Gaussians"]
    for auc, likelihood, told_apart in values.values():
        assert 0.9 < auc < 1
        assert -40 < likelihood < 0
        assert 0.4 < told_apart < 1
