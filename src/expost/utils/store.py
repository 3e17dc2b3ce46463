"""Files: JSON and safetensors, written whole or not at all, read with one-line errors. Nothing is ever unpickled.

A file of tensors carries a checksum of its contents; what does not agree with it is refused.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as tensors_of_bytes
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from expost import distributed
from expost.errors import DataError
from expost.utils.hashing import hash_tensors
from expost.utils.reading import contents, parsed, size_of

#: The key in the metadata of a file of tensors. Its text is the checksum of tensors and record, a space, and the
#: record; of early versions the record alone. One key, since the order of several differs from writing to writing.
_KEY = "expost"
_OURS = re.compile(r"[0-9a-f]{64} ")
#: Seconds after which a temporary file was left by a process that was killed.
_ABANDONED = 3600.0
#: What a missing file of a run may mean.
_INCOMPLETE = "is its folder a complete run?"


def _umask() -> int:
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` that replaces it on success and is removed on failure.

    The replacement is atomic (`os.replace` after `fsync`): whoever reads `path` sees the old contents or the new ones.
    The temporary name keeps the suffix, since writers such as Pillow choose the format by it. Of several processes that
    work together, the first writes; in the others what is written is thrown away.

    Raises:
        OSError: with the path and a remedy, if the folder cannot be written or the disk is full; the old file stays.
    """
    if not distributed.may_write():
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder) / path.name
        return
    temporary = path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        clear_leftovers(path, _ABANDONED)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        temporary.chmod(0o666 & ~_umask())  # mkstemp ignores the user's umask
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(
            error.errno or 0, f"cannot write {path}: {reason}; free space or choose another folder (old files are kept)"
        ) from error
    finally:
        if temporary != path:
            temporary.unlink(missing_ok=True)


def leftovers(path: Path) -> list[Path]:
    """Return the temporary files that writers of `path` made, if they were killed or are still at work."""
    return list(path.parent.glob(f".{glob.escape(path.stem)}.????????{glob.escape(path.suffix)}"))


def clear_leftovers(path: Path, age: float = 0.0) -> None:
    """Remove temporary files that killed writers of `path` left, if they have not changed for `age` seconds."""
    now = time.time()
    for file in leftovers(path):
        with suppress(OSError):  # another process may have removed it
            if not age or now - file.stat().st_mtime > age:
                file.unlink()


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON to `path` atomically. NaN and infinity are refused, since they are not JSON."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: if the file is missing, cannot be read, or is not JSON.
    """
    try:
        return parsed(contents(path, _INCOMPLETE))
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON ({error}); restore it or make it again") from None


def update_json(path: Path, change: Callable[[Any], Any]) -> None:
    """Apply `change` to the contents of a JSON file (None if there is no file) under a lock, and write the result.

    Raises:
        DataError: if the file is not JSON.
    """
    if not distributed.may_write():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        write_json(path, change(read_json(path) if path.exists() else None))


def write_tensors(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any] | None = None) -> None:
    """Write tensors and a JSON-able record `meta` to one safetensors file with a checksum, atomically.

    Args:
        path: The file; by convention it ends in `.safetensors`.
        tensors: Tensors by name, any shapes and dtypes; they are copied to the CPU.
        meta: Anything JSON can hold; returned by `read_tensors` as it was.
    """
    if not distributed.may_write():
        return
    plain = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    record = json.dumps(dict(meta or {}), allow_nan=False)
    payload = safetensors_bytes(plain, metadata={_KEY: f"{_checksum(plain, record)} {record}"})
    with replacing(path) as temporary:
        temporary.write_bytes(payload)


def read_tensors_record(path: Path) -> dict[str, Any]:
    """Return the record in a file of tensors; an empty one if the file is missing or damaged."""
    try:
        size_of(path)
        with safe_open(path, framework="pt") as file:
            found = parsed(_parts((file.metadata() or {}).get(_KEY, "{}"))[1])
    except (OSError, SafetensorError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@dataclass(frozen=True)
class TensorFile:
    """A file of tensors as it was read.

    Attributes:
        tensors: By name.
        record: What was written beside them; empty for a foreign safetensors file.
        sha256: Of the bytes of the file, in hex.
    """

    tensors: dict[str, Tensor]
    record: dict[str, Any]
    sha256: str


def read_tensor_file(path: Path, device: str | torch.device = "cpu") -> TensorFile:
    """Read what `write_tensors` wrote, or a foreign safetensors file, at once: the hash is of what is returned.

    Raises:
        DataError: if the file is missing, cannot be read, is truncated, no safetensors file, or does not agree with
            its checksum.
    """
    payload = contents(path, _INCOMPLETE)
    try:
        tensors = tensors_of_bytes(payload)
        length = int.from_bytes(payload[:8], "little")
        metadata = parsed(payload[8 : 8 + length]).get("__metadata__") or {}
        checksum, text = _parts(metadata.get(_KEY, "{}"))
        record = parsed(text)
    except (SafetensorError, ValueError) as error:
        raise DataError(f"cannot read {path}: truncated or not safetensors ({error}); restore or remake it") from None
    # a foreign file may say anything, but not what we say under another word
    strange = _KEY not in metadata and any(map(_OURS.match, metadata.values()))
    if strange or (checksum and checksum != _checksum(tensors, text)):
        raise DataError(f"{path} is damaged: its contents are not what was written; restore or remake it")
    if not isinstance(record, dict):
        raise DataError(f"{path} has a record that is no mapping; restore or remake it")
    on_device = {name: tensor.to(device) for name, tensor in tensors.items()}
    return TensorFile(on_device, record, hashlib.sha256(payload).hexdigest())


def read_tensors(path: Path, device: str | torch.device = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors by name and the record of a file: see `read_tensor_file`."""
    file = read_tensor_file(path, device)
    return file.tensors, file.record


def _parts(text: str) -> tuple[str, str]:
    """Return the checksum, empty for files of early versions, and the record."""
    return ("", text) if text.startswith("{") else (text[:64] or " ", text[65:])


def _checksum(tensors: Mapping[str, Tensor], record: str) -> str:
    return hashlib.sha256(f"{hash_tensors(tensors)}\n{record}".encode()).hexdigest()
