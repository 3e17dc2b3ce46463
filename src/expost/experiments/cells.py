"""What the tables share about the runs they are made of."""

from __future__ import annotations

from typing import Any

from expost.config import to_json
from expost.run import Run


def what_decides(run: Run) -> dict[str, Any]:
    """Return what decides a run's weights."""
    config = to_json(run.config)
    training = {key: value for key, value in config["training"].items() if key not in ("device", "tensorboard")}
    return {"model": config["model"], "training": training, "data": config["data"]}
