"""Features of reference sets, cached under a hash of what they were computed from."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from torch import Tensor

from expost import distributed
from expost.errors import DataError
from expost.metrics.features import Space
from expost.metrics.inception import InceptionFeatures
from expost.utils.downloads import cache_folder
from expost.utils.hashing import hash_tensors
from expost.utils.store import read_tensors, write_tensors


def reference_key(space: Space, examples_hash: str) -> str:
    """Return the cache key: the SHA-256 of the examples' hash, the features' name, weights and protocol."""
    protocol = json.dumps(space.protocol(), sort_keys=True)
    return hashlib.sha256("\n".join([examples_hash, space.name, space.weights_hash, protocol]).encode()).hexdigest()


def reference_features(space: Space, x: Tensor, folder: Path | None = None) -> tuple[Tensor, str]:
    """Return the features of a reference set, and the SHA-256 of its examples.

    Inception's are cached by the content of the examples, never by a path: the same pixels under another name are found
    again, and changed pixels under the same name are not. A damaged file is computed again.

    Args:
        space: What turns examples into features.
        x: The examples, shape (N, ...).
        folder: Where features are kept; None for the cache (`$XDG_CACHE_HOME/expost/features`).

    Returns:
        float32 features (N, D), and the hash.
    """
    digest = hash_tensors({"x": x})
    if not isinstance(space, InceptionFeatures):  # the others are computed as fast as a file is read
        return space(x), digest
    path = (folder or cache_folder() / "features") / f"{reference_key(space, digest)}.safetensors"
    found = None
    if path.exists():
        try:
            found = read_tensors(path)[0]["features"]
        except (DataError, KeyError):
            path.unlink(missing_ok=True)
    # all processes share the computation: either all have found a file, or none has
    if distributed.everywhere(found is not None and len(found) == len(x)) and found is not None:
        return found, digest
    features = space(x)
    write_tensors(path, {"features": features}, {"features": space.name})
    return features, digest
