"""Commands that list models and data sets."""

from __future__ import annotations

from typing import Any

from expost.commands.groups import takes
from expost.config import to_json
from expost.models.zoo import ZOO


@takes()
def zoo() -> list[dict[str, Any]]:
    """List the models: each is one row of choices."""
    return [{"name": name, **to_json(row)} for name, row in ZOO.items()]


@takes()
def data() -> list[dict[str, Any]]:
    """List the named data sets, and the formats that are read from disk."""
    from expost.data import data_catalog

    return [to_json(entry) for entry in data_catalog()]
