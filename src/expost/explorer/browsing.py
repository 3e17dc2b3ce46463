"""The tabs that choose codes: the map with its sliders, and samples."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import gradio as gr
import numpy as np

from expost.errors import UsageError
from expost.explorer import views
from expost.explorer.explored import MOST_SAMPLES, Drawn, Explored, between, whole
from expost.explorer.handling import CALM, EACH, LIVE, asset, guarded, panel_of, told
from expost.explorer.map import draw_map
from expost.explorer.markup import inert


def latent_space(blocks: gr.Blocks, explored: Explored) -> None:
    """Make the map and the sliders along the principal axes."""
    space = explored.space
    k = space.axes.shape[1]
    reach = np.abs((explored.codes.z.double().numpy() - space.mean) @ space.axes).max(0)
    reach = np.maximum(reach, 3.5 * space.deviations)
    board: gr.HTML | None = None
    rest = gr.State(None)
    shown = explored.density if explored.density in explored.densities else None
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320):
            if k > 1:
                drawing, frame = draw_map(space, explored.codes, explored.densities, shown)
                reach[0], reach[1] = max(reach[0], *map(abs, frame.x)), max(reach[1], *map(abs, frame.y))
                board = gr.HTML(
                    [0.0, 0.0],
                    html_template=inert(drawing),
                    js_on_load=asset("map.js"),
                    apply_default_css=False,
                    elem_id="map",
                )
            with gr.Row():
                example = gr.Button("Another training example", size="sm", min_width=100, elem_id="example")
                mean = gr.Button("Mean of the codes", size="sm", min_width=100, elem_id="mean")
        with gr.Column(scale=4, min_width=300):
            panel = panel_of(elem_id="point")
    # round ends are easier to read; a code may lie a little beyond them
    reach = np.array([float(f"{value:.2g}") for value in reach * 1.05])
    sliders = []
    gr.HTML(inert(views.axes_note()), js_on_load=None, apply_default_css=False)
    with gr.Row(elem_classes="sliders"):
        for axis in range(k):
            sliders.append(
                gr.Slider(
                    -float(reach[axis]),
                    float(reach[axis]),
                    0.0,
                    step=float(f"{reach[axis] / 500:.0e}"),
                    label=f"Axis {axis + 1}: {100 * space.explained[axis]:.1f} %",
                    buttons=[],
                    min_width=180,
                )
            )

    def dragged(place: Any, rest: list[float] | None, *values: float) -> Any:
        if not (isinstance(place, list) and len(place) == 2):
            raise UsageError("the map's point is not a pair of numbers; drag it again")
        coordinates = _coordinates((*place, *values[2:]), reach)
        return _shown(coordinates, rest), *_rounded(coordinates[:2])

    def slid(rest: list[float] | None, *values: float) -> Any:
        coordinates = _coordinates(values, reach)
        shown = _shown(coordinates, rest)
        return (shown, _rounded(coordinates[:2])) if board is not None else shown

    def _shown(coordinates: np.ndarray, rest: list[float] | None) -> str:
        off = None if rest is None else np.asarray(rest)
        return inert(views.point(explored, space.join(coordinates, off)))

    def moved(coordinates: np.ndarray, off: list[float] | None) -> Any:
        places = _rounded(coordinates)
        return (_shown(coordinates, off), off, *places, *([places[:2]] if board is not None else []))

    def to_mean() -> Any:
        return moved(np.zeros(k), None)

    def to_first() -> Any:
        return at_example(0)

    def to_example() -> Any:
        return at_example(random.SystemRandom().randrange(len(explored.codes.z)))

    def at_example(index: int) -> Any:
        coordinates, off = space.split(explored.codes.z[index])
        return moved(np.clip(coordinates, -reach, reach), off.tolist())

    all_outputs = [panel, rest, *sliders, *([board] if board is not None else [])]
    if board is not None:
        board.input(guarded(3)(dragged), [board, rest, *sliders], [panel, *sliders[:2]], **LIVE)
    slid_outputs = [panel, *([board] if board is not None else [])]
    gr.on(
        [slider.input for slider in sliders], guarded(len(slid_outputs))(slid), [rest, *sliders], slid_outputs, **LIVE
    )
    mean.click(guarded(len(all_outputs))(to_mean), None, all_outputs, **CALM)
    example.click(guarded(len(all_outputs))(to_example), None, all_outputs, **CALM)
    blocks.load(guarded(len(all_outputs))(to_first), None, all_outputs, **CALM)


def _rounded(coordinates: np.ndarray) -> list[float]:
    """Round coordinates for display."""
    return [round(float(value), 3) for value in coordinates]


def _coordinates(values: Sequence[object], reach: np.ndarray) -> np.ndarray:
    """Return the sliders' values; the numbers typed beside them are checked."""
    return np.array(
        [
            between(f"axis {i + 1}", value, -r * 1.001, r * 1.001)
            for i, (value, r) in enumerate(zip(values, reach, strict=True))
        ]
    )


def sampling(blocks: gr.Blocks, explored: Explored) -> None:
    """Make the tab in which densities are sampled, and samples picked."""
    kind = explored.kind
    if explored.density is None:
        gr.Markdown(
            f"No density is fitted. Run `expost fit {explored.run.folder} --density gmm` and open the page again."
        )
        return
    first = explored.conditional(explored.density)
    token = gr.State("")
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=260):
            choice = gr.Dropdown(
                explored.choices, value=explored.density, label="Density", info=explored.why, elem_id="density"
            )
            label = gr.Dropdown(_labels(first), value="any", label="Label", visible=first is not None, elem_id="label")
            temperature = gr.Slider(
                0, 2, 1.0, step=0.01, label="Temperature", info="of the density: 1 as fitted, 0 only its centers",
                buttons=[], elem_id="temperature",
            )  # fmt: skip
            symbols = gr.Slider(
                0, 2, 0.0, step=0.01, label="Temperature of symbols", info="0 takes the most likely symbols",
                buttons=[], visible=kind.symbols,
            )  # fmt: skip
            count = gr.Slider(
                1, MOST_SAMPLES, 24 if kind.symbols else 64, step=1, label="Samples", buttons=[], elem_id="count"
            )
            seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**32 - 1, elem_id="seed")
            again = gr.Button("New samples", variant="primary", elem_id="again")
        with gr.Column(scale=5, min_width=320):
            sheet = panel_of(js_on_load=asset("sheet.js"), elem_id="sheet")
            picked = panel_of(elem_id="picked")
    inputs = [choice, label, temperature, count, seed, symbols]

    def draw(choice: str, label: str, temperature: float, count: float, seed: float, symbols: float) -> Any:
        named = None if label == "any" else str(label)
        drawn = explored.sample(choice, whole("the number of samples", count, 1, MOST_SAMPLES), temperature,
                                whole("the seed", seed, 0, 2**32 - 1), named, symbols)  # fmt: skip
        what = choice if named is None or explored.conditional(choice) is None else f"{choice}, {named}"
        if temperature != 1:
            what += f" at temperature {temperature:g}"
        kept = explored.drawn.keep(drawn, kind.size(drawn.items) + 4 * drawn.z.numel())
        return inert(views.samples(explored, drawn, what)), kept, ""

    def draw_new(choice: str, label: str, temperature: float, count: float, seed: float, symbols: float) -> Any:
        fresh = random.SystemRandom().randrange(10**6)
        return *draw(choice, label, temperature, count, fresh, symbols), fresh

    def choose(choice: str, label: str, temperature: float, count: float, seed: float, symbols: float) -> Any:
        by_label = explored.conditional(choice)
        names = _labels(by_label)
        label = label if label in names else "any"
        update = gr.update(choices=names, value=label, visible=by_label is not None)
        return *draw(choice, label, temperature, count, seed, symbols), update

    def pick(event: gr.EventData, token: str) -> str:
        drawn: Drawn = explored.drawn[token]
        return inert(views.sample(explored, drawn, whole("the sample", told(event, "index"), 0, len(drawn.z) - 1)))

    shown = [sheet, token, picked]
    choice.input(guarded(4)(choose), inputs, [*shown, label], **LIVE)
    gr.on([each.input for each in (label, temperature, count, seed, symbols)], guarded(3)(draw), inputs, shown, **LIVE)
    again.click(guarded(4)(draw_new), inputs, [*shown, seed], **CALM)
    sheet.select(guarded(1)(pick), token, picked, **EACH)
    blocks.load(guarded(3)(draw), inputs, shown, **CALM)


def _labels(by_label: Any) -> list[str]:
    return ["any", *(map(str, by_label.labels) if by_label is not None else ())]
