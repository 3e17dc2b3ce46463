"""The page: Gradio's components and their events.

Every handler's first output is a panel; an error is shown there in one line.
"""

from __future__ import annotations

import fastapi
import gradio as gr

from expost.explorer import views
from expost.explorer.browsing import latent_space, sampling
from expost.explorer.explored import Explored
from expost.explorer.gate import App
from expost.explorer.handling import asset
from expost.explorer.markup import inert
from expost.explorer.picking import interpolating, reconstructing
from expost.explorer.requests import Requests

SYSTEM = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
MONOSPACE = ("ui-monospace", "SF Mono", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace")


#: Events that wait at once; a page that opens makes four. More are refused.
MOST_WAITING = 1_000
#: Open pages that the server remembers; the one that was used the longest ago begins anew where there are more.
MOST_SESSIONS = 256


def application(explored: Explored, largest: int) -> tuple[App, Requests]:
    """Return the page of a run as an ASGI application, to be wrapped in a `Gate`, and what it is asked.

    Args:
        explored: The run.
        largest: Largest upload, in bytes.
    """
    blocks = build(explored, largest)
    app = fastapi.FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    mounted = gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        app_kwargs={"openapi_url": None, "docs_url": None, "redoc_url": None},
        footer_links=[],
        run_history=False,
        root_path="",
        allowed_paths=[],
        blocked_paths=["/"],
        show_error=False,
        max_file_size=1,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=_theme(),
        css=asset("explorer.css"),
    )
    return mounted, Requests({index: len(function.inputs) for index, function in blocks.fns.items()})


def _theme() -> gr.Theme:
    """Return a theme with system fonts, so that no font is downloaded."""
    return gr.themes.Base(
        primary_hue="blue",
        neutral_hue="stone",
        radius_size="md",
        font=[gr.themes.Font(name) for name in SYSTEM],
        font_mono=[gr.themes.Font(name) for name in MONOSPACE],
    )


def build(explored: Explored, largest: int) -> gr.Blocks:
    """Return the page of a run."""
    with gr.Blocks(title=f"{explored.title} – expost", analytics_enabled=False, fill_width=True) as blocks:
        gr.HTML(inert(views.header(explored)), js_on_load=None, apply_default_css=False)
        with gr.Tabs(overflow_behavior="wrap"):  # a phone shows all of them
            with gr.Tab("Map"):
                latent_space(blocks, explored)
            with gr.Tab("Sample"):
                sampling(blocks, explored)
            with gr.Tab("Reconstruct"):
                reconstructing(blocks, explored, largest)
            with gr.Tab("Interpolate"):
                interpolating(blocks, explored, largest)
    blocks.queue(default_concurrency_limit=2, max_size=MOST_WAITING, api_open=False)
    blocks.state_session_capacity = MOST_SESSIONS
    return blocks
