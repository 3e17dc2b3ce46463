"""Drawings and scores of strings: molecules as structural formulas, expressions as curves."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from expost.errors import UsageError
from expost.metrics.expressions import ExpressionScore, canonical_expression, evaluate
from expost.metrics.molecule_properties import properties
from expost.metrics.molecules import canonical_smiles, parse_molecule, quiet_rdkit
from expost.registry import Registry
from expost.report import svg
from expost.report.blocks import Key

#: Colors of atoms that are legible on white and on black; other atoms are drawn as carbon is.
_ATOMS = {
    7: "#4a7dff",
    8: "#e5484d",
    9: "#2f9e68",
    16: "#c08a00",
    17: "#2f9e68",
    35: "#b0632f",
    53: "#9455c9",
    15: "#d9730d",
}
#: Placeholder for the text's color while RDKit draws.
_INK = (1 / 255, 2 / 255, 3 / 255)
_INK_HEX = "#010203"


@dataclass(frozen=True)
class Structure:
    """How a kind of strings is shown.

    Attributes:
        noun: What they are, in the plural.
        standard: Brings a string to standard form, None for an invalid one.
        scores: Returns scores by name for strings; NaN for invalid ones.
        draw: Returns a drawing of a valid string, None where there is none.
        legend: What the drawing's colors mean.
        explained: What the scores are.
        size: Of the drawings, as `Drawings` has it.
    """

    noun: str
    standard: Callable[[str], str | None]
    scores: Callable[[Sequence[str | None]], dict[str, Any]]
    draw: Callable[[str], Markup | None]
    legend: tuple[Key, ...] = ()
    explained: str = ""
    size: str = "small"


def _molecule_scores(strings: Sequence[str | None]) -> dict[str, Any]:
    found = properties([text or "" for text in strings], ("logp", "qed", "sa"))
    return {"logP": found["logp"], "QED": found["qed"], "SA": found["sa"]}


def draw_molecule(smiles: str, size: tuple[int, int] = (220, 170)) -> Markup | None:
    """Draw a molecule in the page's colors; None if the string is not a molecule.

    Args:
        smiles: The molecule.
        size: Width and height.

    Raises:
        UsageError: if RDKit is not installed.
    """
    molecule = parse_molecule(smiles)
    if molecule is None:
        return None
    with quiet_rdkit():
        from rdkit.Chem.Draw import rdMolDraw2D

        canvas = rdMolDraw2D.MolDraw2DSVG(*size)
        options: Any = canvas.drawOptions()
        colors = {number: tuple(int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)) for number, code in _ATOMS.items()}
        options.setAtomPalette({-1: _INK, 0: _INK, 1: _INK, 6: _INK} | colors)
        options.clearBackground = False
        options.bondLineWidth = 1.4
        options.fixedBondLength = 26
        options.padding = 0.06
        rdMolDraw2D.PrepareAndDrawMolecule(canvas, molecule)
        canvas.FinishDrawing()
        text = canvas.GetDrawingText()
    return _restyled(text, size, f"Structural formula of {smiles}")


def _restyled(text: str, size: tuple[int, int], label: str) -> Markup:
    """Return RDKit's paths alone, with rounded numbers and the page's text color."""
    body = []
    for element in ElementTree.fromstring(text).iter():
        if not element.tag.endswith("}path"):
            continue
        style = dict(part.split(":", 1) for part in element.get("style", "").split(";") if ":" in part)
        paint = {name: element.get(name) or style.get(name, "") for name in ("fill", "stroke", "stroke-width")}
        data = re.sub(r"\d+\.\d+", lambda match: f"{float(match[0]):.1f}", element.get("d", "")).replace(" L ", "L")
        body.append(
            Markup('<path d="{}" style="fill:{};stroke:{};stroke-width:{}"/>').format(
                data, _paint(paint["fill"]), _paint(paint["stroke"]), paint["stroke-width"].replace("px", "") or "0"
            )
        )
    return svg.drawing(*size, label, svg.group(body), "molecule")


def _paint(color: str) -> str:
    color = color.strip().lower()
    if color == _INK_HEX:
        return "currentColor"
    return color if re.fullmatch(r"#[0-9a-f]{6}", color) else "none"


_TARGET = ExpressionScore()


def draw_expression(text: str) -> Markup | None:
    """Plot an expression over the target of the expression score, between the same ordinates for all."""
    x = np.linspace(_TARGET.low, _TARGET.high, 401)
    target, values = evaluate(_TARGET.target, x), evaluate(text, x)
    if target is None or values is None:
        return None
    reach = 1.15 * float(np.abs(target).max())
    values = np.where(np.abs(values) < 4 * reach, values, np.nan)  # else a pole would be drawn as a vertical line
    lines = [svg.Line(x, target, "data"), svg.Line(x, values, "made")]
    seen = bool((np.abs(values) < reach).any())  # false also where nothing is finite
    label = f"Curve of {text} for x from {_TARGET.low:g} to {_TARGET.high:g}"
    return svg.spark(lines, label, (-reach, reach), style="target", text="" if seen else "off the scale")


def _nothing(strings: Sequence[str | None]) -> dict[str, Any]:
    return {}


#: How each domain's strings are shown. A new domain is a line here.
STRUCTURES: Registry[Structure] = Registry(
    "structure",
    {
        "expressions": Structure(
            "expressions",
            canonical_expression,
            lambda strings: {"score": _TARGET(strings)},
            draw_expression,
            (Key("made", "the expression"), Key("data", f"{_TARGET.target}, the target")),
            f"Score: log(1 + mean squared distance) from {_TARGET.target} on "
            f"[{_TARGET.low:g}, {_TARGET.high:g}], errors capped; lower is nearer.",
        ),
        "molecules": Structure(
            "molecules",
            canonical_smiles,
            _molecule_scores,
            draw_molecule,
            (),
            "logP: octanol-water partition. QED: drug-likeness, 0 to 1. SA: synthetic accessibility, 1 easy to "
            "10 hard.",
            "formulas",
        ),
        "text": Structure("strings", lambda text: text, _nothing, lambda text: None),
    },
)


def available(structure: Structure) -> str:
    """Return why a kind of strings cannot be drawn on this machine, empty if it can."""
    try:
        structure.standard("C")
    except UsageError as error:
        return str(error)
    return ""
