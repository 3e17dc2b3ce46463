"""The file of figures: each is on disk at once, and finished work is not repeated."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

#: Names of the lines that record the outcome of a unit of work.
DONE, FAILED, LEFT_OUT = "done", "failed", "left out"


class Ledger:
    """`figures.jsonl`: JSON lines, each on disk before the next begins.

    Args:
        folder: Folder of the file.
        identity: Origin of a figure (card, torch, tiny): work done on another card does not count here.
        began: Begin of this call, in seconds since the epoch; lines record the seconds since then.
    """

    def __init__(self, folder: Path, identity: dict[str, Any], began: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.identity, self.began = folder / "figures.jsonl", identity, began
        self.lines: list[dict[str, Any]] = []
        if self.path.exists():
            text = self.path.read_text(encoding="utf-8")
            self.lines = [line for line in map(_parsed, text.splitlines()) if line is not None]
            if text and not text.endswith("\n"):  # a line that was cut short: what follows begins a new one
                self._write("\n")

    def add(self, stage: str, name: str, value: Any, unit: str = "", **settings: Any) -> None:
        """Write a figure, and print it."""
        line = {
            "stage": stage, "name": name, "value": value, "unit": unit, "settings": settings, **self.identity,
            "seconds": round(time.time() - self.began, 1), "call": self.began,
        }  # fmt: skip
        self.lines.append(line)
        self._write(json.dumps(line) + "\n")
        shown = "" if value is None else f" {value:,.4g}" if isinstance(value, float) else f" {value}"
        details = ", ".join(f"{key} {text}" for key, text in settings.items())
        text = f"{stage}: {name}{shown} {unit}".rstrip() + (f" ({details})" if details else "")
        with contextlib.suppress(BrokenPipeError):  # nobody looks any more; the line is on disk
            print(f"{line['seconds']:7.1f} s  {text}", flush=True)

    def value(self, stage: str, name: str, **settings: Any) -> Any:
        """Return the last value of a figure of this card with these settings, or None."""
        line = self.last(stage, name, **settings)
        return None if line is None else line["value"]

    def last(self, stage: str, name: str, **settings: Any) -> dict[str, Any] | None:
        """Return the last line of a figure of this card with these settings, or None."""
        found = (line for line in reversed(self.lines) if self._is(line, stage, name))
        return next((line for line in found if settings.items() <= line["settings"].items()), None)

    def done(self, stage: str, unit: str) -> bool:
        """Tell whether a unit of work was finished, in this call or an earlier one."""
        return self.value(stage, DONE, of=unit) is not None

    def failed(self, stage: str, unit: str) -> bool:
        """Tell whether a unit of work has failed in this call; a later call tries it again."""
        found = (line for line in self.lines if self._is(line, stage, FAILED) and line["call"] == self.began)
        return any(line["settings"].get("of") == unit for line in found)

    def _is(self, line: dict[str, Any], stage: str, name: str) -> bool:
        return (line["stage"], line["name"]) == (stage, name) and self.identity.items() <= line.items()

    def _write(self, text: str) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())


def _parsed(line: str) -> dict[str, Any] | None:
    """Return a line, None for one that was cut short."""
    try:
        found = json.loads(line)
    except json.JSONDecodeError:
        return None
    return found if isinstance(found, dict) and {"stage", "name", "value", "settings", "call"} <= found.keys() else None
