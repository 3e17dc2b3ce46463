"""The recorded losses of training, term by term."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from expost.errors import DataError
from expost.report.blocks import Block, Drawing, Drawings, Key, Note
from expost.report.svg import Line, line_chart
from expost.utils.reading import contents, parsed
from expost.utils.store import read_tensors_record

#: The terms in order, and what they are called.
TERMS = {
    "total": "objective",
    "reconstruction": "reconstruction",
    "penalty": "latent penalty",
    "regularizer": "regularizer",
    "perplexity": "perplexity of the symbols",
    "usage": "share of the symbols in use",
}


@dataclass(frozen=True)
class History:
    """The epochs of a run.

    Attributes:
        epochs: In order; each a record of `metrics.jsonl`.
        best: The epoch whose weights are in `model.safetensors`; None without any. It is earlier than the epoch of the
            lowest loss if the run was killed before those weights were written.
    """

    epochs: list[dict[str, Any]]
    best: int | None = None

    @classmethod
    def read(cls, path: Path) -> History:
        """Read `metrics.jsonl`; without the file there are no epochs. If an epoch is there twice, the last counts.

        Raises:
            DataError: if a line is no record of an epoch.
        """
        if not path.exists():
            return cls([])
        found: dict[int, dict[str, Any]] = {}
        try:
            for line in contents(path).decode("utf-8").splitlines():
                record = parsed(line)
                for part in ("train", "validation"):
                    record[part] = {str(name): float(value) for name, value in record[part].items()}
                record["lr"], record["seconds"] = float(record["lr"]), float(record["seconds"])
                found[int(record["epoch"])] = record
        except DataError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
            raise DataError(f"{path} is damaged; restore it to see the loss curves") from None
        kept = read_tensors_record(path.with_name("model.safetensors")).get("epoch")
        return cls([found[epoch] for epoch in sorted(found)], kept if isinstance(kept, int) else None)

    def column(self, part: str, term: str) -> list[float]:
        """Return a term of every epoch; NaN where it is missing."""
        return [epoch[part].get(term, math.nan) for epoch in self.epochs]

    @property
    def cuts(self) -> list[int]:
        """The epochs that began with a lower learning rate than the one before."""
        return [int(b["epoch"]) for a, b in pairwise(self.epochs) if b["lr"] < a["lr"]]


def loss_curves(history: History) -> list[Block]:
    """Return a chart of every term that the model has, over the epochs."""
    if not history.epochs:
        return [Note("No epoch is finished yet, so there are no loss curves.")]
    epochs = [epoch["epoch"] for epoch in history.epochs]
    names = list(dict.fromkeys(name for epoch in history.epochs for name in (*epoch["train"], *epoch["validation"])))
    charts = []
    for name in [*(name for name in TERMS if name in names), *(name for name in names if name not in TERMS)]:
        parts = {part: history.column(part, name) for part in ("train", "validation")}
        # zero in every epoch: not a term of this model, or, held out, not computed
        lines = [
            Line(epochs, values, part)
            for part, values in parts.items()
            if any(value and not math.isnan(value) for value in values)
        ]
        if lines:
            ends = ", ".join(f"{line.style} {list(parts[line.style])[-1]:.4g} at last" for line in lines)
            title = TERMS.get(name, name)
            label = f"{title} over {len(epochs)} epochs: {ends}"
            charts.append(Drawing(line_chart(lines, label, "epoch", history.best), title))
    keys = (Key("train", "training set"), Key("validation", "validation set"), Key("mark", "epoch that is kept"))
    caption = "Terms are shown without their weights; summed over an example, averaged over examples."
    if history.cuts:
        shown = ", ".join(map(str, history.cuts[:8])) + (" …" if len(history.cuts) > 8 else "")
        caption += f" The learning rate was cut before epoch {shown}."
    return [Drawings(tuple(charts), keys, caption, "charts")]
