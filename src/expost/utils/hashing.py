"""SHA-256 of tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

#: Bytes hashed at a time: a data set may be larger than memory.
HASHED_AT_ONCE = 2**25


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256, in hex, of tensors with their names, types and shapes; order and file format do not matter.

    Example:
        >>> a, b = torch.zeros(2), torch.ones(3)
        >>> hash_tensors({"a": a, "b": b}) == hash_tensors({"b": b, "a": a})
        True
        >>> hash_tensors({"a": a}) == hash_tensors({"a": a.view(1, 2)})
        False
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        rows = max(1, HASHED_AT_ONCE // max(1, tensor[:1].nbytes)) if tensor.dim() else 1
        for part in tensor.split(rows) if tensor.dim() else (tensor,):  # type: ignore[no-untyped-call]
            digest.update(part.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
