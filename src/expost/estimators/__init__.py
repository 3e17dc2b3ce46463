"""The scikit-learn face."""

from expost.estimators.autoencoder import RegularizedAutoencoder

__all__ = ["RegularizedAutoencoder"]
