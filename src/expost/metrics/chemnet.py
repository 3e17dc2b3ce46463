"""Frechet ChemNet distance: ChemNet's features of molecules, and the Frechet distance between their Gaussians.

ChemNet is the network of Preuer et al. 2018 ("Frechet ChemNet Distance: a metric for generative models for molecules in
drug discovery"). The package `fcd` has its weights and layers; batches and statistics are made here, so that neither
temporary files nor worker processes nor a matrix square root are needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import as_file, files
from typing import Any

import numpy as np
import torch
from torch import Tensor

from expost.errors import DataError, UsageError
from expost.metrics.frechet import Statistics, frechet_distance, frechet_influence
from expost.metrics.influence import Influence
from expost.metrics.molecules import canonical_smiles
from expost.metrics.strings import canonicalize
from expost.utils.extras import require
from expost.utils.precision import full_float32
from expost.utils.progress import progress

DIM = 512
"""Number of features."""

PADDED = 350
"""Characters that ChemNet reads, including the one that ends the string; other lengths give other features."""


@lru_cache(maxsize=1)
def _chemnet() -> Any:
    from fcd.utils import load_imported_model

    with as_file(files("fcd") / "ChemNet_v0.13_pretrained.pt") as path:
        return load_imported_model(torch.load(path, map_location="cpu", weights_only=True)).eval().requires_grad_(False)


def chemnet_features(smiles: Sequence[str | None], batch_size: int = 128, device: str | torch.device = "cpu") -> Tensor:
    """Return ChemNet's features of the valid molecules, by their canonical SMILES.

    Args:
        smiles: SMILES; invalid ones, and those longer than 349 characters, are left out.
        batch_size: Molecules at a time; it does not change the features beyond rounding.
        device: Where to run the network.

    Returns:
        Float32 on the CPU, shape (number of valid molecules, 512).

    Raises:
        UsageError: if the package `fcd` is not installed, or `batch_size` is below 1.
    """
    if batch_size < 1:
        raise UsageError(f"batch_size={batch_size}; give at least 1")
    get_one_hot = require("fcd.utils", "molecules", "ChemNet needs the package fcd").get_one_hot
    forms = [form for form in canonicalize(smiles, canonical_smiles) if form is not None and len(form) < PADDED]
    # ChemNet always reads 350 characters, so batches need no sorting by length; equal molecules are computed once.
    distinct = list(dict.fromkeys(forms))
    network = _chemnet().to(device)
    rows = []
    with torch.inference_mode(), full_float32(), progress("ChemNet", len(distinct)) as bar:
        for start in range(0, len(distinct), batch_size):
            coded = np.stack([get_one_hot(form, pad_len=PADDED) for form in distinct[start : start + batch_size]])
            batch = torch.from_numpy(coded / coded.shape[2]).float()  # fcd divides by the size of the alphabet too
            rows.append(network(batch.transpose(1, 2).to(device)).float().cpu())
            bar.advance(len(batch))
    place = {form: index for index, form in enumerate(distinct)}
    return torch.cat(rows)[[place[form] for form in forms]] if forms else torch.zeros(0, DIM)


def chemnet_statistics(smiles: Sequence[str | None], device: str | torch.device = "cpu") -> Statistics:
    """Return mean and covariance of ChemNet's features, for `frechet_distance`.

    Raises:
        UsageError: as `chemnet_features`.
        DataError: if fewer than 2 molecules are valid.
    """
    features = chemnet_features(smiles, device=device)
    if len(features) < 2:
        raise DataError(f"{len(features)} of {len(smiles)} molecules are valid; ChemNet's statistics need at least 2")
    return Statistics.of(features)


def frechet_chemnet_distance(
    generated: Sequence[str | None], reference: Sequence[str | None] | Statistics, device: str | torch.device = "cpu"
) -> float:
    """Return the Frechet ChemNet distance (FCD), the squared Frechet distance of ChemNet's features; lower is better.

    It is biased upwards for few molecules: Preuer et al. use at least 5,000 a side, MOSES 30,000; compare only at equal
    numbers.

    Args:
        generated: Generated SMILES; invalid ones are left out, so report validity beside it.
        reference: SMILES of the test set, or their `chemnet_statistics`.
        device: Where to run the network.

    Raises:
        UsageError: as `chemnet_features`.
        DataError: if fewer than 2 molecules of a side are valid.
    """
    other = reference if isinstance(reference, Statistics) else chemnet_statistics(reference, device)
    return frechet_distance(chemnet_statistics(generated, device), other)


def frechet_chemnet_influence(
    generated: Sequence[str | None], reference: Sequence[str | None], device: str | torch.device = "cpu"
) -> tuple[float, Influence]:
    """Return the distance of `frechet_chemnet_distance`, and how much each valid molecule moves it.

    Raises:
        UsageError: as `chemnet_features`.
        DataError: if fewer than 2 molecules of a side are valid.
    """
    samples, real = chemnet_features(generated, device=device), chemnet_features(reference, device=device)
    for found, smiles in ((samples, generated), (real, reference)):
        if len(found) < 2:
            raise DataError(f"{len(found)} of {len(smiles)} molecules are valid; ChemNet's statistics need at least 2")
    a, b = Statistics.of(real), Statistics.of(samples)
    return frechet_distance(b, a), frechet_influence(real, samples, a, b)
