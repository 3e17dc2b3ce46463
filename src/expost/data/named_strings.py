"""The named data sets of strings."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from expost.data.examples import FOUND_OUT, POOL, Found, Overrules, Part
from expost.data.expressions import PUBLISHED, SOLUTIONS, published_expressions, sample_expressions
from expost.data.hub import VARIABLE, BuiltIn, Origin, data_folder
from expost.data.notations import Domain
from expost.data.splits import permutation
from expost.data.string_files import read_string_parts, read_string_path
from expost.data.string_lines import Lines
from expost.errors import DataError
from expost.registry import Registry
from expost.utils.downloads import PublicFile, cache_folder, download

ZINC = PublicFile(
    name="250k_rndm_zinc_drugs_clean.smi",
    urls=("https://raw.githubusercontent.com/mkusner/grammarVAE/master/data/250k_rndm_zinc_drugs_clean.smi",),
    sha256="f900b46bb42b77aab37cd827d1ea474e2a037ecab2bd7def2b6027492216d36a",
    size=11_303_042,
)
"""The 249,456 molecules of the Grammar VAE's experiments, one SMILES a line."""


@dataclass(frozen=True)
class Published(Origin):
    """A file of strings that is published under a fixed hash, looked for on disk and downloaded if it is not there.

    It may lie, plain or gzipped, in `$EXPOST_DATA/<name>/`; a download goes to `<name>/` in the cache folder of expost.
    Its contents are checked wherever it comes from, since the parts are stretches of it.

    Attributes:
        public: The file.
        test: How many strings at its beginning are the test part.
        validation: How many of the others are the validation part, by a fixed draw.
    """

    public: PublicFile
    test: int
    validation: int
    kind: str = field(default="download", init=False)
    repository: None = field(default=None, init=False)

    def find(self, name: str) -> str | None:
        """Name the file if it is on this machine."""
        folders = (data_folder(name), cache_folder() / name)
        names = (self.public.name, f"{self.public.name}.gz")
        places = [folder / file for folder in folders if folder is not None for file in names]
        return next((str(place) for place in places if os.path.isfile(place)), None)

    def read(self, name: str, overrules: Overrules = FOUND_OUT) -> Found:
        """Read the file, fetching it first if need be."""
        where = Path(self.find(name) or self._fetch(name))
        strings = self._checked(where).decode("utf-8").split()
        test, others = strings[: self.test], strings[self.test :]
        held = np.zeros(len(others), dtype=bool)
        held[permutation(len(others), 0)[: self.validation]] = True
        train = [string for string, out in zip(others, held.tolist(), strict=True) if not out]
        validation = [string for string, out in zip(others, held.tolist(), strict=True) if out]
        parts = {"train": train, "validation": validation, "test": test}
        remark = f"test is its first {self.test:,}, validation a fixed draw of the others (the literature has none)"
        return Found({part: Part(Lines(lines, str(where))) for part, lines in parts.items()}, str(where), (remark,))

    def _fetch(self, name: str) -> Path:
        return download(cache_folder() / name, self.public, f"or into {_place(name)}")

    def _checked(self, path: Path) -> bytes:
        """Return the unpacked contents, which must be the published ones."""
        most = self.public.size + 1  # a byte more shows that it is longer, whatever else is packed in it
        try:
            with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
                content = file.read(most)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DataError(f"{path} is no complete gzip file ({error}); download or pack it again") from None
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror or error}; make it readable") from None
        if hashlib.sha256(content).hexdigest() != self.public.sha256:
            size = f"{len(content):,} bytes" if len(content) < most else f"more than {self.public.size:,} bytes"
            raise DataError(
                f"{path} is not the published file ({size} of other contents); delete it to fetch it anew, "
                "or pass its path to use it as it is"
            )
        return content


@dataclass(frozen=True)
class Tables(Origin):
    """A set that the user downloads: one table with a column of parts, or a table for each part.

    Attributes:
        whole: Name of the one table.
        parts: Names of the tables by part, where that one is not there.
        column: The column of strings.
        source: Where they are to be had.
    """

    whole: str
    parts: tuple[tuple[str, str], ...]
    column: str
    source: str
    kind: str = field(default="disk", init=False)
    repository: None = field(default=None, init=False)

    def find(self, name: str) -> str | None:
        """Name its folder if its tables are there."""
        return str(data_folder(name)) if self._files(name) else None

    def read(self, name: str, overrules: Overrules = FOUND_OUT) -> Found:
        """Read its tables."""
        files = self._files(name)
        if files is None:
            wanted = " and ".join(file for _, file in self.parts)
            raise DataError(
                f"data set '{name}' is not here; download {self.whole}, or {wanted}, from {self.source} "
                f"and put it into {_place(name)}"
            )
        return read_string_path(files[POOL], self.column) if POOL in files else read_string_parts(files, self.column)

    def _files(self, name: str) -> dict[str, Path] | None:
        """Return the tables by part, plain or gzipped; the one table is the part `POOL`."""
        folder = data_folder(name)
        if folder is None:
            return None
        for wanted in (((POOL, self.whole),), self.parts):
            found = {
                part: next((folder / each for each in (file, f"{file}.gz") if os.path.isfile(folder / each)), None)
                for part, file in wanted
            }
            present = {part: path for part, path in found.items() if path is not None}
            if len(present) == len(wanted):
                return present
        return None


@dataclass(frozen=True)
class NamedStrings:
    """A data set of strings by name.

    Attributes:
        title: What it is, in a few words.
        domain: What its strings are.
        origin: Where it comes from.
        licence: Its licence or terms, and whom to cite.
        download: Size of the download, in words; empty if there is none.
    """

    title: str
    domain: Domain
    origin: Origin
    licence: str
    download: str = ""


def read_drawn() -> Found:
    """The fixed draw of 100,000 expressions."""
    remark = (
        f"uniform over derivations of depth 5, without the {len(SOLUTIONS)} that equal the target of the paper's search"
    )
    where = "expost.data.expressions.sample_expressions"
    return Found({POOL: Part(Lines(sample_expressions(PUBLISHED, seed=0), where))}, where, (remark,))


def read_published() -> Found:
    """The Grammar VAE's 100,000 expressions."""
    where = "expost.data.expressions.published_expressions"
    remark = "equals the published file"
    return Found({POOL: Part(Lines(published_expressions(), where))}, where, (remark,))


def read_drugs() -> Found:
    """The drugs that come with the package."""
    from expost.data.drugs import DRUGS

    return Found({POOL: Part(Lines([smiles for _, smiles in DRUGS], "drugs"))}, "expost.data.drugs")


STRING_DATASETS: Registry[NamedStrings] = Registry(
    "data set of strings",
    {
        "expressions": NamedStrings(
            "100,000 arithmetic expressions, drawn from the Grammar VAE's grammar",
            "expressions",
            BuiltIn(read_drawn),
            "none needed; for the grammar cite Kusner, Paige and Hernandez-Lobato 2017",
        ),
        "expressions-published": NamedStrings(
            "100,000 arithmetic expressions, those of the Grammar VAE's experiments",
            "expressions",
            BuiltIn(read_published),
            "remade from the grammar; cite Kusner, Paige and Hernandez-Lobato 2017",
        ),
        "drugs": NamedStrings(
            "a few hundred well-known drugs",
            "molecules",
            BuiltIn(read_drugs),
            "facts in the public domain",
        ),
        "zinc250k": NamedStrings(
            "249,456 drug-like molecules of ZINC, those of the Grammar VAE's experiments",
            "molecules",
            Published(ZINC, test=5_000, validation=5_000),
            "ZINC is free to use; cite Irwin et al. 2012 and Kusner, Paige and Hernandez-Lobato 2017",
            "11 MB",
        ),
        "moses": NamedStrings(
            "1.9 million lead-like molecules of ZINC, the MOSES benchmark's",
            "molecules",
            Tables(
                "dataset_v1.csv",
                (("train", "train.csv"), ("test", "test.csv")),
                "SMILES",
                "github.com/molecularsets/moses (folder data)",
            ),
            "MIT; cite Polykovskiy et al. 2020",
        ),
    },
)
"""The named data sets of strings. A new one is one more entry."""


def _place(name: str) -> str:
    root = os.environ.get(VARIABLE, "").strip()
    if not root:
        return f"a folder '{name}', and set {VARIABLE} to the folder that holds that one"
    return str(Path(os.path.expanduser(root)) / name)
