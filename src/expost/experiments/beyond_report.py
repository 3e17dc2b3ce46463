"""The ladder of densities as text and as a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from expost.evaluation.protocol import RECONSTRUCTION
from expost.examples import pictures
from expost.experiments.cells import comma_separated
from expost.generators.selection import AUTO
from expost.generators.selection_table import options_in_words
from expost.run import Run

_FRECHET = ("fid", "fid-768", "frechet-")
#: What the gap is measured from.
_FROM = "gmm"
#: The least gap, as a share of the mixture's distance.
_LEAST_GAP = 0.01
#: Rungs by what a reader calls them.
WORDS = {
    RECONSTRUCTION: "Rec",
    "standard-normal": "N(0, I)",
    "gaussian": "one Gaussian",
    "gmm": "GMM",
    "flow": "flow",
    "flow-matching": "flow matching",
    AUTO: "auto",
}


def values(record: Mapping[str, Any], rung: str, score: str | None = None) -> list[float]:
    """Return a score of a rung, one value a seed; empty where it has none.

    Args:
        record: A table's record.
        rung: A density, or "reconstruction".
        score: Name of the score; None takes the Frechet distance.
    """
    return [
        each["value"]
        for run in record["runs"]
        for each in run["cells"][rung]["scores"]
        if (each["name"] == score if score else each["name"].startswith(_FRECHET))
    ]


def closed(record: Mapping[str, Any], rung: str) -> list[float]:
    """Return the share of the gap between the mixture and the reconstructions that a rung closes, one a seed.

    With F the Frechet distances of one seed, it is (F_GMM - F) / (F_GMM - F_Rec): 0 for the mixture, 1 for samples as
    good as reconstructions, below 0 for worse ones. A seed whose gap is below a hundredth of F_GMM has none to close.
    """
    found = []
    for ours, start, end in zip(
        values(record, rung), values(record, _FROM), values(record, RECONSTRUCTION), strict=True
    ):
        if start - end > _LEAST_GAP * start:
            found.append((start - ours) / (start - end))
    return found


def markdown(record: Mapping[str, Any]) -> str:
    """Return the table as Markdown, with the command, the hardware and the protocol above it."""
    score = next(
        each for each in record["runs"][0]["cells"][RECONSTRUCTION]["scores"] if each["name"].startswith(_FRECHET)
    )
    card, first, name = score["card"], record["runs"][0]["cells"][_FROM], score["name"]
    spread = " Mean ± standard deviation over seeds." if len(record["runs"]) > 1 else ""
    lines = [
        f"# {record['dataset']}, scale {record['scale']['name']}, {record['model']}: {name}, lower is better",
        "",
        f"    {record['command']}",
        "",
        f"{record['hardware']}; {record['seconds']:,.0f} s in all, summed over processes; expost {record['version']}. "
        f"Features: {card['features']} (weights {card['weights'][:12] or 'none'}), "
        f"{json.dumps(card['preprocessing'])}. Against {card['reference']} ({card['reference_count']:,}). Densities of "
        f"{first['codes']:,} codes of {first['dimensions']} dimensions. Log-likelihoods are of test codes, in nats a "
        f"code. Sampling is of 10,000 codes, undecoded.{spread}",
        "",
        "Gap closed: the share of the way from GMM to Rec. Authenticity: samples no nearer to a training example than "
        "its own neighbour is; low is copying.",
        "",
        f"| codes from | {name} | gap closed, % | log-likelihood | authenticity | copying | fit, s | sample, s |",
        "|---" * 8 + "|",
    ]
    for rung in record["rungs"]:
        shares = [] if rung in (RECONSTRUCTION, _FROM) else [100 * share for share in closed(record, rung)]
        cells = [
            _cell(values(record, rung)),
            _percent(shares),
            _cell(_facts(record, rung, "log-likelihood"), digits=4),
            _cell(values(record, rung, "authenticity")),
            _cell(values(record, rung, "copying")),
            _cell(_facts(record, rung, "fit seconds")),
            _cell(_facts(record, rung, "sample seconds")),
        ]
        lines.append(f"| {WORDS.get(rung, rung)} | " + " | ".join(cells) + " |")
    chosen = [run["cells"][AUTO]["chosen"] for run in record["runs"] if AUTO in record["rungs"]]
    if chosen:
        lines += ["", "auto chose, by the likelihood of validation codes: " + "; ".join(map(_named, chosen)) + "."]
    return "\n".join(lines) + "\n"


def _named(chosen: Mapping[str, Any]) -> str:
    said = f" ({options_in_words(chosen['options'])})" if chosen["options"] else ""
    return f"{chosen['density']}{said}"


def as_csv(record: Mapping[str, Any]) -> str:
    """Return the table as CSV: a line a rung of a run, and a column for every score."""
    lines = []
    for run in record["runs"]:
        for rung in record["rungs"]:
            cell = run["cells"][rung]
            line = {"model": record["model"], "seed": run["seed"], "codes from": rung}
            line |= {score["name"]: score["value"] for score in cell["scores"]}
            line |= {key: cell[key] for key in ("log-likelihood", "fit seconds", "sample seconds") if key in cell}
            lines.append(line | {"training seconds": run["training seconds"]})
    return comma_separated(lines)


def figure(run: Run, densities: Sequence[str], device: str = "auto", n: int = 16) -> Image.Image:
    """Draw test images, their reconstructions and samples of every density, a strip each.

    Args:
        run: A run with all of them fitted.
        densities: Their names.
        device: Where to decode.
        n: Images of each kind.
    """
    generator, test = run.generator(device), run.data().test
    x = test.across(n).x
    strips = [("test images", x), ("their reconstructions", generator.reconstruct(x))]
    strips += [(f"samples: {WORDS.get(name, name)}", generator.sample(n, name, seed=0)) for name in densities]
    drawn = [(caption, pictures.grid(pictures.to_bytes(images), n)) for caption, images in strips]
    return pictures.panel(drawn, columns=1, margin=6)


def _facts(record: Mapping[str, Any], rung: str, name: str) -> list[float]:
    found = [run["cells"][rung].get(name) for run in record["runs"]]
    return [float(value) for value in found if value is not None]


def _cell(found: Sequence[float], digits: int = 3) -> str:
    if not found:
        return "-"
    spread = f" ± {np.std(found, ddof=1):.2g}" if len(found) > 1 else ""
    return f"{np.mean(found):.{digits}g}{spread}"


def _percent(found: Sequence[float]) -> str:
    if not found:
        return "-"
    return f"{np.mean(found):.0f}" + (f" ± {np.std(found, ddof=1):.0f}" if len(found) > 1 else "")
