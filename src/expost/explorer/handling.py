"""Shared by all handlers of the page: registration, and errors shown as one line."""

from __future__ import annotations

import functools
import sys
import traceback
from collections.abc import Callable
from importlib import resources
from typing import Any

import gradio as gr

from expost.errors import DataError, UsageError
from expost.explorer.markup import failure, inert

#: Values go to the handlers as the page sent them: Gradio's own checks print a traceback, the handlers' are one line.
_PLAIN: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "preprocess": False}
#: While a thing is dragged, only its last position counts.
LIVE: dict[str, Any] = _PLAIN | {"trigger_mode": "always_last"}
EACH: dict[str, Any] = _PLAIN | {"trigger_mode": "multiple"}
CALM: dict[str, Any] = _PLAIN | {"trigger_mode": "once"}


def asset(name: str) -> str:
    """Return a file that belongs to the page, as text."""
    return (resources.files("expost.explorer") / "assets" / name).read_text(encoding="utf-8")


def panel_of(**options: Any) -> gr.HTML:
    """Return an HTML component; scripts run only where they are passed explicitly."""
    return gr.HTML("", apply_default_css=False, **({"js_on_load": None} | options))


def told(event: gr.EventData, name: str) -> object:
    """Return what the page says of an event.

    Raises:
        UsageError: if it does not say it.
    """
    try:
        return getattr(event, name)
    except (AttributeError, TypeError):  # of a request that the page does not make
        raise UsageError(f"the page did not say the {name}; load it again") from None


def guarded(outputs: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Show an error of a handler in its first output, and leave its other outputs as they are."""

    def decorate(handler: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(handler)
        def run(*args: Any) -> Any:
            try:
                found = handler(*args)
            except (UsageError, DataError) as error:
                problem = str(error)
            except Exception as error:  # a bug: one line on the page, the traceback on stderr
                traceback.print_exc(file=sys.stderr)
                problem = f"this did not work: {type(error).__name__}: {str(error)[:200]}"
            else:
                return found
            shown = inert(failure(problem))
            return (shown, *(gr.skip() for _ in range(outputs - 1))) if outputs > 1 else shown

        return run

    return decorate
