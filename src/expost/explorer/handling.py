"""Shared by all handlers of the page: registration, and errors shown as one line."""

from __future__ import annotations

import functools
import sys
import traceback
from collections.abc import Callable
from importlib import resources
from typing import Any, TypeVar

import gradio as gr

from expost.errors import DataError, UsageError
from expost.explorer.markup import failure, inert

#: While a thing is dragged, only its last position counts.
LIVE: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "always_last", "api_visibility": "private"}
EACH: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "multiple", "api_visibility": "private"}
CALM: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "once", "api_visibility": "private"}


def asset(name: str) -> str:
    """Return a file that belongs to the page, as text."""
    return (resources.files("expost.explorer") / "assets" / name).read_text(encoding="utf-8")


def panel_of(**options: Any) -> gr.HTML:
    """Return an HTML component; scripts run only where they are passed explicitly."""
    return gr.HTML("", apply_default_css=False, **({"js_on_load": None} | options))


Component = TypeVar("Component", gr.Slider, gr.Number, gr.Dropdown)


def unchecked(component: Component) -> Component:
    """Return a component whose values go to the handlers as the page sent them.

    Gradio checks them on the way, and prints a traceback where one is refused; the handlers check them too, and answer
    in one line. (Not a subclass: Gradio writes a file beside the source of each.)
    """
    component.preprocess = lambda payload: payload  # type: ignore[method-assign]
    return component


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
