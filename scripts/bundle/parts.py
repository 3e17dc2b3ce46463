"""Distribute files over folders of limited size."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Block size: a file takes a multiple of it on disk.
BLOCK = 4096


@dataclass(frozen=True)
class Item:
    """A file of the bundle.

    Attributes:
        path: The file.
        to: Its path on the other machine, relative to the folder of the installation.
    """

    path: Path
    to: str


def on_disk(size: int) -> int:
    """Return the bytes that a file of some size takes on disk.

    Example:
        >>> on_disk(1), on_disk(4096)
        (4096, 4096)
    """
    return -(-size // BLOCK) * BLOCK


def distribute(groups: Sequence[Sequence[Item]], out: Path, limit: int) -> list[dict[str, Any]]:
    """Write files into `part1`, `part2`, ..., each into the first that has room for it.

    What belongs together is in one part, or, where it is larger, in parts of its own, so that it can be left out. A
    file larger than a part is cut into pieces; `install.py` joins them.

    Args:
        groups: The files, most needed first, in groups that belong together.
        out: Gets the folders.
        limit: Bytes of a part on disk.

    Returns:
        For each file: `path` from `out`, `to`, `piece` and `pieces`, `size`, `sha256`.
    """
    room: list[int] = []
    most = limit // BLOCK * BLOCK
    written = []
    for group in groups:
        total = sum(on_disk(item.path.stat().st_size) for item in group)
        begin = next((number for number, left in enumerate(room) if left >= total), len(room))
        for item in group:
            content = item.path.read_bytes()
            pieces = [content[start : start + most] for start in range(0, max(1, len(content)), most)]
            for index, piece in enumerate(pieces):
                size = on_disk(len(piece))
                part = next((number for number in range(begin, len(room)) if room[number] >= size), len(room))
                if part == len(room):
                    room.append(most)
                room[part] -= size
                suffix = "" if len(pieces) == 1 else f".piece{index:02}"
                path = Path(f"part{part + 1}") / f"{item.to}{suffix}"
                (out / path).parent.mkdir(parents=True, exist_ok=True)
                (out / path).write_bytes(piece)
                written.append(
                    {
                        "path": str(path),
                        "to": item.to,
                        "piece": index,
                        "pieces": len(pieces),
                        "size": len(piece),
                        "sha256": hashlib.sha256(piece).hexdigest(),
                    }
                )
    return written
