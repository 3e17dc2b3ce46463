"""How far packed files may unpack: what claims or makes more is refused before memory is asked for."""

from __future__ import annotations

from pathlib import Path

from expost.errors import DataError

SMALL = 2**26
"""Bytes that any file may unpack to: 64 MiB."""

RATIO = 200
"""Beyond `SMALL`, how many times its own size a file may unpack to. Text and images pack to a tenth, rarely to a
hundredth; deflate reaches 1,032 for nothing but zeros."""


IMAGE = 2**27
"""What stands for `SMALL` where an image is read: 33 million pixels. A scanned page that is nearly blank packs to a
thousandth."""

TEXT = 2**23
"""What stands for `SMALL` where text is read, which takes longer: 8 MiB."""


def check_unpacked(where: Path | str, unpacked: int, packed: int, small: int = SMALL) -> None:
    """Refuse what unpacks, or says that it unpacks, to more than `small` bytes and `RATIO` times its size.

    Args:
        where: What errors call it.
        unpacked: Bytes that are claimed, or were unpacked so far.
        packed: Bytes of the packed file.
        small: Bytes that any file may unpack to.

    Raises:
        DataError: if it is more.
    """
    if unpacked > max(small, RATIO * packed):
        raise DataError(
            f"{where} has {packed:,} bytes and unpacks to {unpacked:,} or more, over {RATIO} times as many; unpack it "
            "yourself if you trust it"
        )
