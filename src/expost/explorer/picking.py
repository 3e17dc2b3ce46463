"""The tabs that choose examples: reconstruction, and interpolation between two."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr
from markupsafe import Markup

from expost.explorer import views
from expost.explorer.explored import MOST_STEPS, Explored, whole
from expost.explorer.handling import CALM, LIVE, asset, guarded, panel_of, told
from expost.explorer.markup import inert
from expost.generators.interpolation import INTERPOLATIONS


class Picker:
    """Controls by which an example is chosen: of the test split, uploaded, or typed.

    Args:
        explored: The run.
        title: Title of the controls.
        index: The test example to begin with.
        largest: Largest upload, in bytes.
        name: Prefix of its elements' ids.
    """

    def __init__(self, explored: Explored, title: str, index: int, largest: int, name: str) -> None:
        self.explored, self.largest = explored, largest
        last = len(explored.data.test) - 1
        index = min(index, last)
        item = explored.item(f"test:{index}")
        self.reference = gr.State(f"test:{index}")
        gr.Markdown(f"**{title}**")
        self.preview = gr.HTML(
            self._preview(item),
            js_on_load=asset("drop.js"),
            apply_default_css=False,
            visible=bool(explored.kind.accept) or not explored.kind.symbols,
            elem_id=f"{name}-preview",
        )
        self.text = gr.Textbox(
            explored.kind.text(item), label=f"{explored.kind.noun.capitalize()} (press Enter)", lines=1,
            max_lines=4, visible=bool(explored.kind.typed), elem_id=f"{name}-text",
        )  # fmt: skip
        with gr.Row():
            self.index = gr.Slider(
                0, max(1, last), index, step=1, label="Test example", buttons=[], elem_id=f"{name}-index"
            )
            self.random = gr.Button("Random", size="md", scale=0, min_width=96, elem_id=f"{name}-random")
        self.outputs = [self.reference, self.preview, self.text, self.index]

    def _preview(self, item: Any, uploaded: str = "", understood: str = "") -> str:
        kind = self.explored.kind
        shown = Markup("") if kind.symbols else kind.small(item)
        return inert(views.drop(shown, kind.accept, self.largest, uploaded, understood))

    def _chosen(self, reference: str, index: Any, uploaded: str) -> tuple[Any, ...]:
        item = self.explored.item(reference)
        return (
            reference,
            self._preview(item, uploaded, self.explored.said(reference)),
            self.explored.kind.text(item),
            index,
        )

    def connect(self, panel: gr.HTML, show: Callable[..., str], inputs: Sequence[Any]) -> None:
        """Update the outputs when the choice changes.

        Args:
            panel: Where it is shown.
            show: Gets this picker's reference and the values of `inputs`.
            inputs: Other components that `show` depends on.
        """

        def take(reference: str, index: Any, others: Sequence[Any], uploaded: str = "") -> Any:
            chosen = self._chosen(reference, index, uploaded)
            return inert(Markup(show(reference, *others))), *chosen

        def slid(index: float, *others: Any) -> Any:
            number = whole("the test example", index, 0, len(self.explored.data.test) - 1)
            return take(f"test:{number}", gr.skip(), others)

        def drawn(*others: Any) -> Any:
            index = random.SystemRandom().randrange(len(self.explored.data.test))
            return take(f"test:{index}", index, others)

        def typed(text: str, *others: Any) -> Any:
            return take(self.explored.typed(str(text or "")), gr.skip(), others)

        def uploaded(event: gr.EventData, *others: Any) -> Any:
            return take(str(told(event, "item")), gr.skip(), others, str(told(event, "file")))

        outputs = [panel, *self.outputs]
        guard = guarded(len(outputs))
        self.index.input(guard(slid), [self.index, *inputs], outputs, **LIVE)
        self.random.click(guard(drawn), list(inputs), outputs, **CALM)
        self.text.submit(guard(typed), [self.text, *inputs], outputs, **CALM)
        self.preview.upload(guard(uploaded), list(inputs), outputs, **CALM)


def reconstructing(blocks: gr.Blocks, explored: Explored, largest: int) -> None:
    """Make the tab in which an example is reconstructed."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=280):
            picker = Picker(explored, f"The {explored.kind.noun}", 0, largest, "one")
        with gr.Column(scale=5, min_width=320):
            panel = panel_of(elem_id="back")

    def show(reference: str) -> str:
        return views.reconstruction(explored, reference)

    picker.connect(panel, show, [])
    blocks.load(
        guarded(1)(lambda reference: inert(views.reconstruction(explored, reference))), picker.reference, panel, **CALM
    )


def interpolating(blocks: gr.Blocks, explored: Explored, largest: int) -> None:
    """Make the tab of paths between two examples."""
    with gr.Row(equal_height=False):
        with gr.Column(min_width=280):
            first = Picker(explored, "From", 0, largest, "from")
        with gr.Column(min_width=280):
            last = Picker(explored, "To", 1, largest, "to")
    with gr.Row():
        method = gr.Dropdown(list(INTERPOLATIONS), value="linear", label="Method", elem_id="method")
        steps = gr.Slider(2, MOST_STEPS, 8, step=1, label="Steps", buttons=[], elem_id="steps")
    panel = panel_of(elem_id="path")

    def show(a: str, b: str, method: str, steps: float) -> str:
        return views.path(explored, a, b, str(method), whole("the number of steps", steps, 2, MOST_STEPS))

    def from_last(b: str, a: str, method: str, steps: float) -> str:
        return show(a, b, method, steps)

    def again(a: str, b: str, method: str, steps: float) -> str:
        return inert(views.path(explored, a, b, str(method), whole("the number of steps", steps, 2, MOST_STEPS)))

    first.connect(panel, show, [last.reference, method, steps])
    last.connect(panel, from_last, [first.reference, method, steps])
    inputs = [first.reference, last.reference, method, steps]
    gr.on([method.input, steps.input], guarded(1)(again), inputs, panel, **LIVE)
    blocks.load(guarded(1)(again), inputs, panel, **CALM)
