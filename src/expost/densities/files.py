"""A fitted density on disk: one safetensors file, and its record beside it as JSON for people to read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

import expost
from expost.densities.checks import MOST_AXES, MOST_NUMBERS
from expost.errors import DataError
from expost.utils.hashing import hash_tensors
from expost.utils.store import read_tensors, write_json, write_tensors

FORMAT = "expost-density"
VERSION = 1
DEFAULT_NAME = "density.safetensors"


def resolve(path: Path) -> Path:
    """Return the safetensors file that `path` means: itself, the one beside a `.json`, or a folder's default one."""
    return path.with_suffix(".safetensors") if path.suffix in (".safetensors", ".json") else path / DEFAULT_NAME


@dataclass(frozen=True)
class Saved:
    """The contents of a density's file.

    Attributes:
        path: The file.
        density: Name in the registry.
        options: Keyword arguments of the density.
        statistics: Facts about the fit.
        tensors: Parameters by name, on the CPU.
        weights: SHA-256 of the weights whose codes it describes; empty where that is not known.
        held_out: The record of a `HeldOut`; None where there is none.
    """

    path: Path
    density: str
    options: dict[str, Any]
    statistics: dict[str, Any]
    tensors: dict[str, Tensor]
    weights: str = ""
    held_out: Mapping[str, Any] | None = None

    def require(self, layout: Mapping[str, tuple[int, ...]]) -> None:
        """Refuse tensors other than those of `layout`, and any that are not finite.

        Raises:
            DataError: naming the first that is wrong.
        """
        shapes = {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}
        if shapes != dict(layout):
            wrong = sorted(name for name in {*shapes, *layout} if shapes.get(name) != layout.get(name))
            found, expected = shapes.get(wrong[0]), layout.get(wrong[0])
            raise DataError(
                f"{self.path}: tensor '{wrong[0]}' has shape {found}, expected {expected}; restore it or fit again"
            )
        for name, tensor in self.tensors.items():
            if not tensor.is_floating_point() or not bool(tensor.isfinite().all()):
                raise DataError(f"{self.path}: tensor '{name}' is not finite; restore the file or fit again")


def write(
    path: Path,
    name: str,
    options: Mapping[str, Any],
    statistics: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    weights: str = "",
    held_out: Mapping[str, Any] | None = None,
) -> Path:
    """Write a fit and return the safetensors file; the JSON has the same name and the suffix `.json`."""
    target = resolve(path)
    record = {
        "format": FORMAT,
        "version": VERSION,
        "written_by": f"expost {expost.__version__}",
        "density": name,
        "options": dict(options),
        "fit": dict(statistics),
        "sha256": hash_tensors(tensors),
    }
    if weights:
        record["weights"] = weights
    if held_out is not None:
        record["held_out"] = dict(held_out)
    write_tensors(target, tensors, record)
    write_json(target.with_suffix(".json"), record)
    return target


def read(path: Path) -> Saved:
    """Read what `write` wrote.

    Raises:
        DataError: if the file is missing, truncated, damaged, not a density, or of a newer format.
    """
    target = resolve(path)
    tensors, record = read_tensors(target)
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise DataError(f"{target} holds no density; it may be another kind of file, choose the density's")
    version = record.get("version")
    if not isinstance(version, int) or version < 1:
        raise DataError(f"{target} has no valid format version ({version!r}); restore the file or fit again")
    if version > VERSION:
        raise DataError(f"{target} has format version {version}, newer than {VERSION}; update expost to read it")
    name, options, statistics = record.get("density"), record.get("options"), record.get("fit")
    if not (isinstance(name, str) and isinstance(options, dict) and isinstance(statistics, dict)):
        raise DataError(f"{target} has an incomplete record; restore the file or fit again")
    if record.get("sha256") != hash_tensors(tensors):
        raise DataError(
            f"{target}: the tensors are not those that were saved (wrong checksum); restore it or fit again"
        )
    return Saved(target, name, options, statistics, tensors, str(record.get("weights", "")), record.get("held_out"))


def check_size(saved: Saved) -> None:
    """Refuse a record without n and d, the shape of the codes that the density was fitted on, or of impossible maps.

    Raises:
        DataError: if they are not two positive whole numbers, or a map has not d of them.
    """
    n, d = saved.statistics.get("n"), saved.statistics.get("d")
    if not (isinstance(n, int) and isinstance(d, int) and n > 0 and d > 0):
        raise DataError(f"{saved.path} does not say the codes' shape (n={n!r}, d={d!r}); restore the file or fit again")
    if d > MOST_NUMBERS:
        raise DataError(f"{saved.path} has codes of {d} dimensions, more than {MOST_NUMBERS:,}; restore the file")
    shape = saved.statistics.get("shape", [d])
    sides = isinstance(shape, list) and all(isinstance(side, int) and side > 0 for side in shape)
    if not sides or not 1 <= len(shape) < MOST_AXES or math.prod(shape) != d:
        raise DataError(f"{saved.path} has codes of {d} dimensions and shape {shape!r}; restore the file or fit again")
