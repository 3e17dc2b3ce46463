"""The Hugging Face Hub: download repositories, and upload runs by huggingface_hub's mixin."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import HfApi, ModelHubMixin, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from expost._version import __version__
from expost.errors import DataError, UsageError
from expost.run import Run
from expost.sharing.card import CardOptions
from expost.sharing.layout import PICTURES, known_files, open_untrusted
from expost.sharing.publishing import write_published

R = TypeVar("R")

#: Bytes that a repository's files may have together to be fetched: 4 GiB.
LARGEST_PULL = 2**32
#: Seconds after which the Hub is not asked any longer how large the files are.
_PATIENCE = 10.0


class SharedRun(ModelHubMixin, library_name="expost"):  # type: ignore[misc, call-arg, unused-ignore]
    """Adapts a run to huggingface_hub's mixin: `save_pretrained`, `push_to_hub`, `from_pretrained`.

    Args:
        run: The run.
        card: Options of its model card.
        repository: user/name, for the card; empty takes the name of the folder it is written to.
    """

    def __init__(self, run: Run, card: CardOptions | None = None, repository: str = "") -> None:
        super().__init__()
        self.run = run
        self.card = card or CardOptions()
        self.repository = repository

    def _save_pretrained(self, save_directory: Path) -> None:
        write_published(self.run, save_directory, self.card, self.repository or save_directory.name)

    @classmethod
    def _from_pretrained(
        cls, *, model_id: str, revision: str | None = None, local_files_only: bool = False, **others: Any
    ) -> SharedRun:
        folder = Path(model_id) if Path(model_id).is_dir() else download(model_id, revision, local_files_only)
        return cls(open_untrusted(folder), repository=model_id)


def download(repository: str, revision: str | None, offline: bool) -> Path:
    """Fetch a repository's known files into the Hub's cache, and nothing else of it; return the folder.

    The folder is named after the commit that was fetched.

    The names of the files are fixed on this side, so that no repository can place a file elsewhere.

    Raises:
        UsageError: for what cannot be a repository's name.
        DataError: if it cannot be fetched, or is larger than `LARGEST_PULL`.
    """
    check_name(repository)

    def fetched() -> str:
        return snapshot_download(
            repository,
            revision=revision if offline else _measured(repository, revision),
            allow_patterns=list(known_files()),
            local_files_only=offline,
            library_name="expost",
            library_version=__version__,
        )

    return Path(_asking(f"cannot fetch '{repository}'", fetched))


def _measured(repository: str, revision: str | None) -> str | None:
    """Return the commit that a revision stands for, after looking at the sizes of its files.

    Where the Hub cannot be asked, the revision is returned: the download says so, or takes what is in the cache.

    Raises:
        DataError: if the files are larger than `LARGEST_PULL` together.
    """
    try:
        found = HfApi().model_info(repository, revision=revision, files_metadata=True, timeout=_PATIENCE)
    except Exception:
        return revision
    files = set(known_files())
    size = sum(file.size or 0 for file in found.siblings or [] if file.rfilename in files)
    if size > LARGEST_PULL:
        raise DataError(
            f"'{repository}' has {size / 1e9:.3g} GB of files, more than {LARGEST_PULL / 1e9:.3g}, and is not fetched; "
            f"if you trust it: hf download {repository} --local-dir FOLDER, and give that folder"
        )
    return found.sha or revision


def upload(run: Run, repository: str, private: bool, card: CardOptions) -> str:
    """Publish a run in a repository of the Hub, which is made if missing; return the commit's address.

    Raises:
        UsageError: for what cannot be a repository's name.
        DataError: if the Hub refuses or cannot be reached.
    """
    check_name(repository)
    shared = SharedRun(run, card, repository)
    message = f"Upload {run.config.model.name} with expost {__version__}"
    return str(
        _asking(
            f"cannot push to '{repository}'",
            lambda: shared.push_to_hub(
                repository,
                private=private or None,  # unless asked for, an existing repository stays as it is
                commit_message=message,
                delete_patterns=[*known_files(), *PICTURES],  # what an earlier version had and this one has not
            ),
        )
    )


def check_name(repository: str) -> None:
    """Refuse what cannot be a repository's name.

    Raises:
        UsageError: unless it is user/name in the Hub's letters.
    """
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", repository, re.ASCII) or ".." in repository:
        raise UsageError(f"'{repository}' is neither a folder nor a repository's name; write it as user/name")


def _asking(what: str, ask: Callable[[], R]) -> R:
    """Call the Hub, and turn its exceptions into errors of one line.

    The client raises errors of its own, of its HTTP library (another one in each major version) and of the operating
    system: they have no common class.
    """
    try:
        return ask()
    except (UsageError, DataError):
        raise
    except Exception as error:
        reason = next((words for kind, words in _REASONS.items() if isinstance(error, kind)), _first_line(error))
        remedy = "check name and network, and that you are logged in (hf auth login) if it is not public"
        raise DataError(f"{what}: {reason}; {remedy}") from error


#: What the client's errors mean, the special ones first.
_REASONS: dict[type[Exception], str] = {
    GatedRepoError: "its owner grants access on request",
    RepositoryNotFoundError: "the Hub has no such repository, or it is private",
    RevisionNotFoundError: "it has no such revision",
    LocalEntryNotFoundError: "it is not in the local cache, and the Hub cannot be reached or offline use was asked for",
}


def _first_line(error: Exception) -> str:
    lines = [line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
