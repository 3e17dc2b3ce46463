"""Encoded strings: the record, its summary, and a cache on disk keyed by what was encoded."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from expost.errors import DataError
from expost.grammar.packing import Rejection, as_strings
from expost.utils.store import read_tensors, write_tensors

if TYPE_CHECKING:
    from expost.grammar.codec import Codec

_FORMAT = 1  # of the cache's files, and of the derivations in them: raise it when either changes


@dataclass(frozen=True)
class Encoded:
    """Strings as rows of symbols, and those that could not be encoded.

    Attributes:
        indices: Symbols, then padding, shape (M, L): uint8 where there are at most 256 symbols, else int16 (int32 above
            32,768).
        kept: Which of the given strings the rows are, ascending, int64, shape (M,).
        rejected: The strings without a row, in order.
        ambiguous: How many rows are one of several derivations of their string.
    """

    indices: Tensor
    kept: Tensor
    rejected: list[Rejection] = field(default_factory=list)
    ambiguous: int = 0

    @property
    def coverage(self) -> float:
        """The fraction of the strings that were encoded, 0..1; 1 of none."""
        given = len(self.kept) + len(self.rejected)
        return len(self.kept) / given if given else 1.0

    def summary(self) -> str:
        """Return one line: how many strings were encoded, and of the others how many for what reason.

        Example:
            >>> rejected = [Rejection(1, "x+", 2, ("x",), "does not parse")]
            >>> Encoded(torch.zeros(1, 3, dtype=torch.uint8), torch.tensor([0]), rejected).summary()
            "1 of 2 strings encoded (50.00 %); does not parse: 1; first: string 1, 'x+': does not parse at position 2, \
its end: expected 'x'"
        """
        given = len(self.kept) + len(self.rejected)
        # rounded down, so that 100.00 % means all
        percent = 10_000 * len(self.kept) // given / 100 if given else 100.0
        parts = [f"{len(self.kept):,} of {given:,} strings encoded ({percent:.2f} %)"]
        for reason, count in Counter(rejection.reason for rejection in self.rejected).most_common():
            needed = [r.needed for r in self.rejected if r.reason == reason and r.needed is not None]
            parts.append(f"{reason}: {count:,}" + (f" (the longest needs {max(needed):,})" if needed else ""))
        if self.ambiguous:
            parts.append(f"ambiguous: {self.ambiguous:,}")
        if self.rejected:
            parts.append(f"first: {self.rejected[0]}")
        return "; ".join(parts)


def encode_cached(codec: Codec, strings: Iterable[str], folder: Path | str) -> Encoded:
    """Encode strings, or read what was encoded before from `folder`.

    The file's name is a hash of the codec's kind and options and of every string in order, so that a change of any
    makes another file. A file that is damaged is made again.

    Args:
        codec: What encodes.
        strings: The strings.
        folder: Where the files are; made if it is missing.

    Raises:
        UsageError: if `strings` is one string.
        OSError: if the folder cannot be written.
    """
    given = as_strings(strings)
    key = _key(codec, given)
    path = Path(folder) / f"encoded-{key[:32]}.safetensors"
    if path.is_file():
        try:
            return _read(path, key, given)
        except (DataError, KeyError, IndexError, TypeError, ValueError):
            pass  # damaged or not ours: what it should hold can be made again
    encoded = codec.encode(given)
    _write(path, key, encoded)
    return encoded


def _key(codec: Codec, strings: Sequence[Any]) -> str:
    made = hashlib.sha256(json.dumps([_FORMAT, type(codec).__name__, codec.options()], sort_keys=True).encode())
    for string in strings:
        kind, text = ("s", string) if isinstance(string, str) else ("o", repr(string))
        data = text.encode("utf-8", "surrogatepass")
        made.update(f"{kind}{len(data)}:".encode() + data)
    return made.hexdigest()


def _write(path: Path, key: str, encoded: Encoded) -> None:
    faults: dict[tuple[str, tuple[str, ...]], int] = {}
    rows = []
    for r in encoded.rejected:
        fault = faults.setdefault((r.reason, r.expected), len(faults))
        rows.append([r.index, fault, -1 if r.position is None else r.position, -1 if r.needed is None else r.needed])
    tensors = {
        "indices": encoded.indices,
        "kept": encoded.kept,
        "rejected": torch.tensor(rows, dtype=torch.int64).reshape(len(rows), 4),
    }
    write_tensors(path, tensors, {"key": key, "ambiguous": encoded.ambiguous, "faults": list(faults)})


def _read(path: Path, key: str, strings: Sequence[Any]) -> Encoded:
    tensors, meta = read_tensors(path)
    if meta["key"] != key:
        raise DataError(f"{path} holds other strings than its name says; remove it")
    rejected = []
    for index, fault, position, needed in tensors["rejected"].tolist():
        reason, expected = meta["faults"][fault]
        string = strings[index]
        text = string if isinstance(string, str) else repr(string)
        where, size = (None if value < 0 else value for value in (position, needed))
        rejected.append(Rejection(index, text, where, tuple(expected), reason, size))
    return Encoded(tensors["indices"], tensors["kept"], rejected, meta["ambiguous"])
