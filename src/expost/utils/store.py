"""Files: JSON and safetensors, written whole or not at all, read with one-line errors. Nothing is ever unpickled.

A file of tensors carries a checksum of its contents; what does not agree with it is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
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

if sys.platform != "win32":
    import fcntl

#: The key in the metadata of a file of tensors. Its text is the checksum of tensors and record, a space, and the
#: record; of early versions the record alone. One key, since the order of several differs from writing to writing.
_KEY = "expost"
_OURS = re.compile(r"[0-9a-f]{64} ")
_HASH = re.compile(r"[0-9a-f]{64}")
#: The key of a JSON record's checksum.
_SEAL = "sha256"
#: Names of temporary files.
_TEMPORARY = re.compile(r"\..*\.[a-z0-9_]{8}\.part(\.[^.]*)?")
#: What a missing file of a run may mean.
_INCOMPLETE = "is its folder a complete run?"


def _umask() -> int:
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


@contextmanager
def replacing(path: Path, keep: Path | None = None) -> Iterator[Path]:
    """Give a temporary path beside `path` that replaces it on success and is removed on failure.

    The replacement is atomic (`os.replace` after `fsync`): whoever reads `path` sees the old contents or the new ones.
    The temporary name keeps the suffix, since writers such as Pillow choose the format by it. Of several processes that
    work together, the first writes; in the others what is written is thrown away.

    Args:
        path: What is written.
        keep: Where the old file goes at the moment that the new one takes its place; by default it goes nowhere.

    Raises:
        OSError: with the path and a remedy, if the folder cannot be written or the disk is full; the old file stays.
    """
    if not distributed.may_write():
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder) / path.name
        return
    with _explained(path), _temporary(path) as temporary:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        if keep is not None and path.exists():
            os.replace(path, keep)
        os.replace(temporary, path)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn an error of the system into one that names the file that was to be written, and a remedy."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(
            error.errno or 0, f"cannot write {path}: {reason}; free space or choose another folder (old files are kept)"
        ) from error


@contextmanager
def filling(folder: Path) -> Iterator[Path]:
    """Give a temporary folder beside `folder`, whose files are moved there when all of them are written.

    A folder that is new or empty gets all files at once. Of one that holds files, those of the same names are replaced,
    one after the other.

    Raises:
        OSError: as `replacing`.
    """
    if not distributed.may_write():
        with tempfile.TemporaryDirectory() as elsewhere:
            yield Path(elsewhere)
        return
    with _explained(folder), _temporary(folder, folder=True) as temporary:
        yield temporary
        for path in temporary.iterdir() if folder.is_dir() else ():
            os.replace(path, folder / path.name)
        if not folder.is_dir():
            os.replace(temporary, folder)


@contextmanager
def _temporary(path: Path, folder: bool = False) -> Iterator[Path]:
    """Make a temporary file or folder beside `path`, locked by this process until it is renamed or removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_leftovers(path.parent)
    named = f".part{path.suffix}", f".{path.stem}.", path.parent
    while True:
        if folder:
            name = tempfile.mkdtemp(*named)
            handle = os.open(name, os.O_RDONLY)
        else:
            handle, name = tempfile.mkstemp(*named)
        locked = _lock(handle)
        there = os.path.exists(name)  # else another process took it for a leftover, before it was locked
        if not (locked and there):
            os.close(handle)  # Windows renames no open file
        if there:
            break
    temporary = Path(name)
    try:
        # by the user's umask, which mkstemp and mkdtemp ignore
        temporary.chmod((0o777 if folder else 0o666) & ~_umask())
        yield temporary
    finally:
        _remove(temporary)
        if locked:
            os.close(handle)


def _remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it; nothing may be there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _lock(handle: int, wait: bool = True) -> bool:
    """Lock an open file; return whether that is known to keep other processes from it.

    The system releases the lock when the process ends, however it ends: no clock tells which files are abandoned.
    """
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:  # held by another process, or a file system without locks
        return False
    return True


def leftovers(folder: Path) -> list[Path]:
    """Return the temporary files in a folder, of writers that were killed or are still at work."""
    try:
        with os.scandir(folder) as entries:
            found = [entry.name for entry in entries if entry.name[0] == "." and _TEMPORARY.fullmatch(entry.name)]
    except FileNotFoundError:
        return []
    return [folder / name for name in sorted(found)]


def abandoned(path: Path, remove: bool = False) -> bool:
    """Return whether no process is writing a temporary file any more.

    Args:
        path: One of `leftovers`.
        remove: Remove it then.
    """
    try:
        handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    except OSError:  # renamed or removed meanwhile
        return False
    try:
        free = _lock(handle, wait=False)
        if free and remove:
            with suppress(OSError):
                _remove(path)
        return free
    finally:
        os.close(handle)


def clear_leftovers(folder: Path) -> None:
    """Remove the temporary files that killed writers left in a folder; those of writers at work stay."""
    for path in leftovers(folder):
        abandoned(path, remove=True)


def require_writable(path: Path) -> None:
    """Refuse now what could not be written after hours of work; only the first of several processes looks.

    Args:
        path: A file or a folder that is to be written, and need not exist.

    Raises:
        OSError: with the path and a remedy, if nothing can be written there.
    """
    if not distributed.may_write():
        return
    there = path.parent
    while not there.exists() and there != there.parent:
        there = there.parent
    with _explained(path), _temporary(there / path.name) as temporary:
        temporary.write_bytes(bytes(4096))


@contextmanager
def exclusively(path: Path) -> Iterator[None]:
    """Let one process at a time change what belongs to a file; those that write nothing do not wait."""
    if not distributed.may_write():
        yield
        return
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f".{path.name}.lock"))
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON to `path` atomically. NaN and infinity are refused, since they are not JSON."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record of plain JSON values with a checksum of them under "sha256"."""
    plain = {key: value for key, value in record.items() if key != _SEAL}
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return plain | {_SEAL: hashlib.sha256(text.encode()).hexdigest()}


def seal_broken(record: Mapping[str, Any]) -> bool:
    """Return whether a record that was read has a checksum, and other values than those that it was made of.

    The checksum is known under another name, too, as one flipped bit makes it.

    Example:
        >>> record = sealed({"epochs": 3})
        >>> seal_broken(record), seal_broken(record | {"epochs": 4}), seal_broken({"epochs": 4})
        (False, True, False)
        >>> seal_broken({"epochs": 3, "sha257": record["sha256"]}), seal_broken(record | {"epochs": float("nan")})
        (True, True)
    """
    try:
        if _SEAL in record:
            return bool(record[_SEAL] != sealed(record)[_SEAL])
        texts = [key for key, value in record.items() if isinstance(value, str) and _HASH.fullmatch(value)]
        return any(record[key] == sealed({k: v for k, v in record.items() if k != key})[_SEAL] for key in texts)
    except ValueError:  # NaN or infinity, which nothing with a checksum holds
        return _SEAL in record


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
    with exclusively(path):
        write_json(path, change(read_json(path) if path.exists() else None))


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any] | None = None, keep: Path | None = None
) -> None:
    """Write tensors and a JSON-able record `meta` to one safetensors file with a checksum, atomically.

    Args:
        path: The file; by convention it ends in `.safetensors`.
        tensors: Tensors by name, any shapes and dtypes; they are copied to the CPU.
        meta: Anything JSON can hold; returned by `read_tensors` as it was.
        keep: Where the file that is replaced goes; by default nowhere.
    """
    if not distributed.may_write():
        return
    plain = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    record = json.dumps(dict(meta or {}), allow_nan=False)
    payload = safetensors_bytes(plain, metadata={_KEY: f"{_checksum(plain, record)} {record}"})
    with replacing(path, keep) as temporary:
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
    if text.startswith("{"):
        return "", text
    return (text[:64] if text[64:65] == " " else " "), text[65:]


def _checksum(tensors: Mapping[str, Tensor], record: str) -> str:
    return hashlib.sha256(f"{hash_tensors(tensors)}\n{record}".encode()).hexdigest()
