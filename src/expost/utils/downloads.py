"""Files from the network: fetched once, checked against their published hash, kept in one folder."""

from __future__ import annotations

import hashlib
import http.client
import os
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from expost.errors import DataError
from expost.utils.progress import progress
from expost.utils.reading import size_of, unreadable

#: Bytes a second that a server has to keep to on average, else it is given up: no file takes longer than its size
#: divided by this.
SLOWEST = 10_000


@dataclass(frozen=True)
class PublicFile:
    """A file that is published under a fixed hash.

    Attributes:
        name: File name.
        urls: Its addresses, tried in order.
        sha256: Its SHA-256 in hex.
        size: Its size in bytes.
        aliases: Other names under which the same file is published.
    """

    name: str
    urls: tuple[str, ...]
    sha256: str
    size: int
    aliases: tuple[str, ...] = ()


def cache_folder() -> Path:
    """Return the folder for downloads: `$XDG_CACHE_HOME/expost`, by default `~/.cache/expost`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "expost"


def download(folder: Path, public: PublicFile, otherwise: str = "", timeout: float = 30.0) -> Path:
    """Download a public file to `folder` and check its size and SHA-256; what fails the check is not kept.

    Args:
        folder: Folder for the file; made if missing.
        public: The file.
        otherwise: For the message, what helps besides putting the file there by hand: "or ...".
        timeout: Seconds without an answer after which a server is given up; also the seconds after which it has to
            have kept to `SLOWEST`.

    Returns:
        Its path.

    Raises:
        DataError: if no URL gives the file; the message says why, and which file to put where by hand.
    """
    from expost.utils.store import replacing  # which imports torch, and listing the data sets needs none

    reasons = []
    for url in public.urls:
        try:
            with replacing(folder / public.name) as temporary:
                digest, size = hashlib.sha256(), 0
                with temporary.open("wb") as file, progress(f"downloading {public.name}", public.size) as bar:
                    for block in _blocks(url, timeout):
                        bar.advance(len(block))
                        size += len(block)
                        if size > public.size:
                            raise DataError(f"more than the published {public.size} bytes")
                        digest.update(block)
                        file.write(block)
                _compare(digest.hexdigest(), size, public)
            return folder / public.name
        except DataError as error:
            reasons.append(f"{url}: {error}")
    raise DataError(
        f"cannot download {public.name} ({'; '.join(reasons)}); fetch it on another machine and put it into {folder}"
        f" ({public.size:,} bytes, SHA-256 {public.sha256}){f', {otherwise}' if otherwise else ''}"
    )


def verify(path: Path, public: PublicFile) -> bool:
    """Check a file that bears the public file's name (or an alias) against its size and hash.

    Returns:
        True if it is that file; False if it has another name, so that nothing can be checked.

    Raises:
        DataError: if it has the name but not the contents.
    """
    if path.name not in (public.name, *public.aliases):
        return False
    size_of(path)
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(path, error) from None
    try:
        _compare(digest, path.stat().st_size, public)
    except DataError as error:
        raise DataError(f"{path} is not the published file: {error}; delete it and fetch it again") from None
    return True


def _blocks(url: str, timeout: float) -> Iterator[bytes]:
    begun, size = time.monotonic(), 0
    try:
        with urllib.request.urlopen(url, timeout=timeout) as response:
            while block := response.read1(1 << 20):
                size += len(block)
                passed = time.monotonic() - begun
                if passed > timeout and size < SLOWEST * passed:
                    raise DataError(f"too slow: {size:,} bytes in {passed:.0f} s")
                yield block
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise DataError(str(error) or type(error).__name__) from None


def _compare(digest: str, size: int, public: PublicFile) -> None:
    if size != public.size:
        raise DataError(f"{size} bytes, published {public.size}; it is truncated or another file")
    if digest != public.sha256:
        raise DataError(f"SHA-256 {digest[:16]}..., published {public.sha256[:16]}...; its contents are altered")
