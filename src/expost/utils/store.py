"""Files: JSON and safetensors, written whole or not at all, read with one-line errors. Nothing is ever unpickled."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from expost import distributed
from expost.errors import DataError


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
        DataError: if the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"no file {path}; is its folder a complete run?") from None
    except RecursionError:
        raise DataError(f"{path} is nested too deeply for any file of expost; it is not read") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
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
    """Write tensors and a JSON-able record `meta` to one safetensors file, atomically.

    Args:
        path: The file; by convention it ends in `.safetensors`.
        tensors: Tensors by name, any shapes and dtypes; they are copied to the CPU.
        meta: Anything JSON can hold; returned by `read_tensors` as it was.
    """
    if not distributed.may_write():
        return
    plain = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    payload = safetensors_bytes(plain, metadata={"expost": json.dumps(dict(meta or {}), allow_nan=False)})
    with replacing(path) as temporary:
        temporary.write_bytes(payload)


def read_tensors_record(path: Path) -> dict[str, Any]:
    """Return the record in a file of tensors; an empty one if the file is missing or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            found = json.loads((file.metadata() or {}).get("expost", "{}"))
    except (OSError, SafetensorError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def read_tensors(path: Path, device: str | torch.device = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_tensors` wrote: the tensors by name and the record (empty for a foreign safetensors file).

    Raises:
        DataError: if the file is missing, truncated, or no safetensors file.
    """
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            record = (file.metadata() or {}).get("expost", "{}")
        return tensors, json.loads(record)
    except FileNotFoundError:
        raise DataError(f"no file {path}; is its folder a complete run?") from None
    except (SafetensorError, json.JSONDecodeError, RecursionError, OSError) as error:
        raise DataError(f"cannot read {path}: truncated or not safetensors ({error}); restore or remake it") from None
