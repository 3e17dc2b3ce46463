"""Sources of named data sets: the package, a dependency, the user's folder, the cache of `datasets`, the Hub."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expost.data.examples import FOUND_OUT, Found, Overrules
from expost.data.files import read_path
from expost.data.splits import part_named
from expost.data.string_files import holds_strings, read_string_path
from expost.data.table_cells import Images, Rows
from expost.data.tables import assembled
from expost.errors import DataError
from expost.utils.extras import require

if TYPE_CHECKING:
    from expost.data.parquet import TableSource

VARIABLE = "EXPOST_DATA"
"""The environment variable that names the folder of data sets: `$EXPOST_DATA/<name>/` holds the set `<name>`."""


class Origin(ABC):
    """Where a named set comes from.

    Attributes:
        kind: "built in", "hub" or "disk".
        repository: Its repository on the Hugging Face Hub; None for the other kinds.
    """

    kind: str
    repository: str | None

    @abstractmethod
    def find(self, name: str) -> str | None:
        """Return where the set is on this machine, without reading it or using the network; None if it is absent."""

    @abstractmethod
    def read(self, name: str, overrules: Overrules = FOUND_OUT) -> Found:
        """Read the set, fetching it first if need be.

        Args:
            name: Its name.
            overrules: What a person says of it.

        Raises:
            DataError: if it is not there and cannot be fetched, or cannot be read; it names the folder to fill.
        """


@dataclass(frozen=True)
class BuiltIn(Origin):
    """A set that expost or a dependency ships.

    Attributes:
        reader: Reads it.
    """

    reader: Callable[[], Found]
    kind: str = field(default="built in", init=False)
    repository: None = field(default=None, init=False)

    def find(self, name: str) -> str | None:
        """Return "built in"."""
        return "built in"

    def read(self, name: str, overrules: Overrules = FOUND_OUT) -> Found:
        """Read it; nothing of it can be overruled."""
        return self.reader()


@dataclass(frozen=True)
class OnDisk(Origin):
    """A set without a download that we can read; the user puts its files into `$EXPOST_DATA/<name>/`."""

    kind: str = field(default="disk", init=False)
    repository: None = field(default=None, init=False)

    def find(self, name: str) -> str | None:
        """Name its folder if there is one."""
        folder = data_folder(name)
        return None if folder is None else str(folder)

    def read(self, name: str, overrules: Overrules = FOUND_OUT) -> Found:
        """Read its folder."""
        folder = data_folder(name)
        if folder is None:
            raise DataError(f"data set '{name}' cannot be downloaded; {remedy(name)}")
        return read_path(folder, overrules)


@dataclass(frozen=True)
class Hub(Origin):
    """A set on the Hugging Face Hub, of which `datasets` keeps a copy in its own cache once it is downloaded.

    Attributes:
        repository: Its repository (`owner/name`), or a local folder laid out like one.
        config: Its configuration, None for the only or the default one. In `$EXPOST_DATA/<name>/`, a subfolder of that
            name is preferred to the whole folder, so that a clone of the repository can be put there as it is.
        timeout: Seconds to wait for the Hub's first answer. After it, a download has the retries and timeouts of
            `huggingface_hub`, which give up on a dead connection within two minutes.
        whole: Bytes of its files up to which it is downloaded whole; of a larger one the first `STREAMED` examples of
            each split are streamed.
    """

    repository: str
    config: str | None
    timeout: float = 10.0
    whole: int = 2**32
    kind: str = field(default="hub", init=False)

    def find(self, name: str) -> str | None:
        """Name its folder, or its copy in the cache of `datasets`, if there is one."""
        folder = data_folder(name)
        if folder is not None:
            return str(folder)
        cached = _cache() / self.repository.replace("/", "___") / (self.config or "default")
        # A configuration's versions hold revisions; one in the making is called <revision>.incomplete.
        complete = [path.parent for path in cached.glob("*/*/dataset_info.json") if path.parent.suffix != ".incomplete"]
        return str(cached) if complete else None

    def read(self, name: str, overrules: Overrules = FOUND_OUT) -> Found:
        """Read its folder, or its cached copy, or download it."""
        folder = self._folder(name)
        if folder is not None:
            return read_path(folder, overrules)
        parts, remarks, where = self._parts(name)
        from expost.data.parquet import read_table  # after `datasets`, which brings what it needs

        found: dict[str, Images | Rows] = {}
        for part, split in parts.items():
            found[part] = read_table(split.table, split.name, overrules.label_column)
        assembly = assembled(found, where, overrules, remarks)
        return replace(assembly, files=tuple(file for split in parts.values() for file in split.files))

    def holds_strings(self, name: str, column: str | None) -> bool:
        """Tell whether it has a column of strings and none of images; it is read for that, unless a column is given.

        Raises:
            DataError: as `read` does.
        """
        folder = self._folder(name)
        if folder is not None:
            return holds_strings(folder, column)
        if column is not None:
            return True
        parts, _, _ = self._parts(name)
        from expost.data.arrow_strings import is_source_of_strings

        return is_source_of_strings(next(iter(parts.values())).source())

    def read_strings(self, name: str, column: str | None) -> Found:
        """Read its column of strings; see `read`.

        Raises:
            UsageError: if there is no such column.
            DataError: as `read` does, and if there are no strings, or it is unclear which column to read.
        """
        folder = self._folder(name)
        if folder is not None:
            return read_string_path(folder, column)
        parts, remarks, where = self._parts(name)
        from expost.data.arrow_strings import read_sources

        found = read_sources({part: [split.source()] for part, split in parts.items()}, where, column)
        return replace(found, remarks=(*remarks, *found.remarks))

    def _folder(self, name: str) -> Path | None:
        """Return what there is of it in the folder of data sets."""
        folder = data_folder(name)
        if folder is None:
            return None
        own = folder / (self.config or "")
        return own if own.is_dir() else folder

    def _parts(self, name: str) -> tuple[dict[str, _Split], list[str], str]:
        """Return its splits by part, what to say of them, and what errors call it."""
        splits, said = self._load(name)
        remarks = list(said)
        where = self.repository if self.config is None else f"{self.repository} ({self.config})"
        parts: dict[str, _Split] = {}
        for title, split in splits.items():
            part = part_named(title)
            if part is None:
                remarks.append(f"left out its split '{title}'")
            else:
                parts[part] = replace(split, name=f"{where}, split {title}")
        if not parts:
            raise DataError(f"{where} has no split called train or test, only {', '.join(splits)}; choose another")
        return parts, remarks, where

    def _load(self, name: str) -> tuple[dict[str, _Split], list[str]]:
        """Return the splits, and remarks: of what was streamed last, the copy in the cache, or else from the Hub."""
        if _streams.get(self) is not None:
            return _streams[self]
        datasets = require("datasets", "hub", f"data set '{name}' needs the package datasets")
        from huggingface_hub import HfApi

        if self.find(name) is not None:
            try:
                with _offline(datasets):
                    return _tables(datasets.load_dataset(self.repository, self.config)), []
            except Exception:  # a copy that another version of `datasets` left and this one cannot read: fetch it anew
                pass
        try:
            if not Path(self.repository).is_dir():
                # `datasets` alone would try an unreachable Hub six times, for up to a minute and a half.
                api = HfApi(endpoint=datasets.config.HF_ENDPOINT)
                record = api.dataset_info(self.repository, timeout=self.timeout, files_metadata=True)
                size = sum(file.size or 0 for file in record.siblings or [])
                if size > self.whole:
                    said = (
                        f"streamed {STREAMED:,} examples of each split at most, of {size / 1e9:.2g} GB in all, drawn "
                        f"from its files in random order through a buffer of {BUFFER:,} with seed {_SEED}"
                    )
                    _streams.clear()
                    _streams[self] = _streamed(datasets, self.repository, self.config), [said]
                    return _streams[self]
            return _tables(datasets.load_dataset(self.repository, self.config)), []
        except Exception as error:
            # Of httpx, huggingface_hub, datasets, pyarrow or the disk: to a user they all mean the same.
            reason = str(error).strip().split("\n")[0][:160] or type(error).__name__
            raise DataError(f"cannot download '{name}' ({self.repository}): {reason}; {remedy(name)}") from error


STREAMED = 20_000
"""Examples of each split that are read of a set that is too large to be downloaded whole."""

BUFFER = 2_000
"""Examples of a stream that each next one is drawn from: sets are often sorted by class, and files hold stretches."""

_SEED = 0  # of that draw, which is one of what the set is: the parts are drawn from it with the seed of the user


@dataclass(frozen=True)
class _Split:
    """A split of a set on the Hub.

    Attributes:
        name: What errors call it.
        table: Its Arrow table.
        files: The files that hold it; none of what was streamed.
    """

    name: str
    table: Any
    files: tuple[Path, ...] = ()

    def source(self) -> TableSource:
        """Return its table as one that is read a few rows at a time."""
        from expost.data.parquet import source_in_memory

        return source_in_memory(self.table, self.name)


_streams: dict[Hub, tuple[dict[str, _Split], list[str]]] = {}
"""The set that was streamed last: it is asked for twice, for what it holds and for its examples."""


def _tables(splits: Any) -> dict[str, _Split]:
    """Return the splits of a `DatasetDict`, mapped, not loaded; numbers of classes are shown by their names."""
    return {
        title: _Split(
            title,
            _described(splits[title].with_format("arrow")[:], splits[title].features),
            tuple(Path(file["filename"]) for file in splits[title].cache_files),
        )
        for title in splits
    }


def _described(table: Any, features: Any) -> Any:
    """Return a table with what `datasets` knows of its columns, the names of classes among it."""
    return table if features is None else table.replace_schema_metadata(features.arrow_schema.metadata)


def _streamed(datasets: Any, repository: str, config: str | None) -> dict[str, _Split]:
    """Return some examples of each split that names a part, drawn and fetched without the rest."""
    import pyarrow as pa

    tables: dict[str, _Split] = {}
    for title, stream in datasets.load_dataset(repository, config, streaming=True).items():
        if part_named(title) is not None:
            drawn = stream.shuffle(seed=_SEED, buffer_size=BUFFER).take(STREAMED)
            batches = drawn.with_format("arrow").iter(batch_size=256)
            table = pa.concat_tables(list(batches), promote_options="permissive")
            tables[title] = _Split(title, _described(table, stream.features))
    return tables


_FILES = frozenset(
    (
        ".csv",
        ".tsv",
        ".txt",
        ".smi",
        ".npy",
        ".npz",
        ".gz",
        ".zip",
        ".parquet",
        ".arrow",
        ".h5",
        ".h5ad",
        ".png",
        ".jpg",
    )
)
_REPOSITORY = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*?)(?::([\w.-]+))?")


def on_hub(name: str | Path) -> Hub | None:
    """Return the set on the Hugging Face Hub that a name stands for: owner/name or owner/name:configuration.

    None for what is no such name, or more likely a path: there is a folder called like the owner, or a file's suffix.
    """
    match = _REPOSITORY.fullmatch(name) if isinstance(name, str) else None
    if match is None or Path(match[1]).parent.is_dir() or Path(match[1]).suffix.lower() in _FILES:
        return None
    return Hub(match[1], match[2])


def data_folder(name: str) -> Path | None:
    """Return `$EXPOST_DATA/<name>` if the variable is set and that folder exists."""
    root = os.environ.get(VARIABLE, "").strip()
    if not root:
        return None
    folder = Path(os.path.expanduser(root)) / name
    return folder if os.path.isdir(folder) else None  # unlike Path.is_dir, False where one may not look


def remedy(name: str) -> str:
    """Return what to do where a set is not on this machine and cannot be fetched."""
    root = os.environ.get(VARIABLE, "").strip()
    if not root:
        return f"put its files into a folder '{name}' and set {VARIABLE} to the folder that holds it"
    return f"put its files into {Path(os.path.expanduser(root)) / name}"


def _cache() -> Path:
    """Return the cache folder of `datasets` by its documented rules; importing it would take a second."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(os.environ.get("HF_DATASETS_CACHE") or Path(home) / "datasets").expanduser()


@contextmanager
def _offline(datasets: Any) -> Iterator[None]:
    """Keep `datasets` off the network, and silent about it, for one call."""
    before, verbosity = datasets.config.HF_HUB_OFFLINE, datasets.logging.get_verbosity()
    datasets.config.HF_HUB_OFFLINE = True
    datasets.logging.set_verbosity_error()
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before
        datasets.logging.set_verbosity(verbosity)
