"""Molecules as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any

from PIL import Image

from expost.metrics.molecules import parse_molecule, quiet_rdkit


def structures(smiles: Sequence[str], legends: Sequence[str], columns: int = 4) -> Image.Image | None:
    """Draw molecules with a line of text below each; None if one of the strings is no molecule.

    Raises:
        UsageError: if RDKit is not installed.
    """
    parsed = [parse_molecule(each) for each in smiles]
    if any(molecule is None for molecule in parsed):
        return None
    with quiet_rdkit():
        from rdkit.Chem import Draw

        grid: Any = Draw.MolsToGridImage

        picture = grid(
            parsed, molsPerRow=min(columns, len(parsed)), subImgSize=(280, 260), legends=[*legends], returnPNG=True
        )
    return Image.open(BytesIO(getattr(picture, "data", picture))).convert("RGB")
