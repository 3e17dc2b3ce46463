"""What the page asks of Gradio, checked before Gradio sees it: only requests that the page itself makes go through."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

#: A session, an event: letters and digits that the page or Gradio drew.
_LONGEST_NAME = 64
#: Fields of a request for an event, beside those that it needs.
_OPTIONAL = frozenset({"event_data", "trigger_id"})


class Requests:
    """The requests of a page.

    Args:
        inputs: How many inputs each of its functions has, by the function's index.
    """

    def __init__(self, inputs: Mapping[int, int]) -> None:
        self.inputs = dict(inputs)
        self._forms: dict[str, Callable[[dict[str, Any]], bool]] = {
            "/gradio_api/queue/join": self._is_event,
            "/gradio_api/cancel": self._is_cancel,
            "/gradio_api/reset": lambda found: set(found) == {"event_id"} and _is_name(found["event_id"]),
        }

    @property
    def paths(self) -> frozenset[str]:
        """Where they go."""
        return frozenset(self._forms)

    def allow(self, path: str, body: bytes) -> bool:
        """Return whether the page makes such a request: of a function that it has, with as many values as that takes.

        Nothing that Gradio would take for a file's path goes through, wherever it is.
        """
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            return False
        return isinstance(found, dict) and _names_no_file(found) and self._forms[path](found)

    def _is_event(self, found: dict[str, Any]) -> bool:
        index, data = found.get("fn_index"), found.get("data")
        trigger = found.get("trigger_id")
        return (
            set(found) - _OPTIONAL == {"data", "fn_index", "session_hash"}
            and _is_name(found["session_hash"])
            and type(index) is int
            and index in self.inputs
            and isinstance(data, list)
            and len(data) == self.inputs[index]
            and (trigger is None or (type(trigger) is int and 0 <= trigger < 2**31))
        )

    def _is_cancel(self, found: dict[str, Any]) -> bool:
        return (
            set(found) == {"session_hash", "fn_index", "event_id"}
            and _is_name(found["session_hash"])
            and _is_name(found["event_id"])
            and type(found["fn_index"]) is int
            and found["fn_index"] in self.inputs
        )


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_NAME and value.isascii() and value.isprintable()


def _names_no_file(found: object) -> bool:
    waiting = [found]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            if "path" in each or "meta" in each:
                return False
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each
    return True
