"""Anomalies in a table: malignant tumors among benign ones, found without a label.

Three models learn benign tumors (scikit-learn's breast cancer data, 30 measurements per sample): a regularized
autoencoder with an ex-post mixture, principal components (a Gaussian), and a mixture of Gaussians on the measurements
themselves. Each then computes the log-density of held-out samples, benign and malignant.

| column | meaning |
|---|---|
| AUC | probability that a malignant sample has a lower log-density than a benign one (1 is best, 0.5 is chance) |
| log-likelihood | mean log-density of held-out benign samples, nats, of standardized columns (higher is better) |
| samples | cross-validated AUC of a classifier of drawn rows against held-out benign ones (0.5 is best) |

The script prints means and standard deviations over random splits. Cross-validated log-likelihood on the training rows
chooses the size of each model.

    python examples/table_anomalies.py
"""

from __future__ import annotations

import argparse
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer
from sklearn.decomposition import PCA
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, cross_val_predict, train_test_split
from sklearn.preprocessing import StandardScaler

from expost.estimators import RegularizedAutoencoder

Rows = NDArray[np.float64]


def models(seed: int) -> dict[str, GridSearchCV]:
    """Return each model with the sizes to choose from."""
    autoencoder = RegularizedAutoencoder(beta=0.1, regularizer_weight=0.01, random_state=seed)
    mixture = GaussianMixture(reg_covar=1e-3, random_state=seed)
    return {
        "regularized autoencoder": GridSearchCV(autoencoder, {"latent_dim": [10, 20]}, cv=2),
        "principal components": GridSearchCV(PCA(), {"n_components": [5, 10, 15, 20, 25, 29]}, cv=5),
        "mixture of Gaussians": GridSearchCV(mixture, {"n_components": [1, 2, 3, 5]}, cv=5),
    }


def draw(model: Any, n: int, seed: int) -> Rows:
    """Draw n rows of a fitted model, in random order."""
    if isinstance(model, RegularizedAutoencoder):
        return model.sample(n, random_state=seed)
    if isinstance(model, PCA):
        return np.random.default_rng(seed).multivariate_normal(model.mean_, model.get_covariance(), n, method="eigh")
    return model.sample(n)[0]


def told_apart(real: Rows, drawn: Rows, seed: int) -> float:
    """Return the cross-validated AUC of a classifier between real and drawn rows."""
    labels = np.repeat([0, 1], [len(real), len(drawn)])
    forest = ExtraTreesClassifier(100, random_state=seed)
    chances = cross_val_predict(forest, np.vstack([real, drawn]), labels, cv=5, method="predict_proba")
    return float(roc_auc_score(labels, chances[:, 1]))


def compare(benign: Rows, malignant: Rows, seed: int) -> dict[str, tuple[float, float, float]]:
    """Return the three scores of each model on one random split."""
    train, test = train_test_split(benign, test_size=0.3, random_state=seed)
    scaler = StandardScaler().fit(train)
    train, test, malignant = (scaler.transform(rows) for rows in (train, test, malignant))
    results = {}
    for name, search in models(seed).items():
        model = search.fit(train).best_estimator_
        normal, odd = model.score_samples(test), model.score_samples(malignant)
        labels = np.repeat([0, 1], [len(normal), len(odd)])
        auc = float(roc_auc_score(labels, -np.concatenate([normal, odd])))
        results[name] = (auc, float(normal.mean()), told_apart(test, draw(model, len(test), seed), seed))
    return results


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=int, default=3, help="random splits (default: 3)")
    splits = parser.parse_args().splits
    warnings.simplefilter("ignore", ConvergenceWarning)  # from mixtures of few rows
    rows, benign = load_breast_cancer(return_X_y=True)
    runs = [compare(rows[benign == 1], rows[benign == 0], seed) for seed in range(splits)]
    print(f"{'':24} {'AUC':>15} {'log-likelihood':>17} {'samples':>15}")
    for name in runs[0]:
        values = np.array([run[name] for run in runs])
        (auc, likelihood, told), (a, b, c) = values.mean(0), values.std(0)
        print(f"{name:24} {auc:7.3f} ± {a:.3f} {likelihood:9.1f} ± {b:5.1f} {told:7.3f} ± {c:.3f}")


if __name__ == "__main__":
    main()
