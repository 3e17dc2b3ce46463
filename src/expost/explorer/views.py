"""The page's answers as markup, independent of Gradio."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup
from torch import Tensor

from expost.explorer.explored import Drawn, Explored
from expost.explorer.kinds import Neighbours
from expost.explorer.markup import caption, downloads, facts, heading, join, note, number, panel
from expost.models.latents import LATENTS

#: Neighbours that are shown.
NEAREST = 6
#: File suffixes that are listed where one can be dropped.
COMMON = 5


def header(explored: Explored) -> Markup:
    """Return the run's name, model and data."""
    config = explored.run.config.model
    dims = "codes on a map" if LATENTS[config.latent.name].spatial else f"{config.latent_dim} latent dimensions"
    fitted = ", ".join(explored.choices) or "no density fitted"
    parts = (f"{config.name} on {explored.data.name.rpartition('/')[2]}", dims, fitted)
    return Markup('<header class="ex"><h1>{}</h1><p>{}</p></header>').format(explored.title, " · ".join(parts))


def axes_note() -> Markup:
    """Return a note that explains the sliders."""
    return panel(note("The first principal axes of the codes, each with its share of their variance."))


def point(explored: Explored, z: Tensor) -> Markup:
    """Return the decode of one code, shape (1, d), with the training examples near it."""
    drawn = Drawn(explored.decode(z), z)
    near = explored.near_codes(z, NEAREST)
    values = [("distance to the nearest training code", number(near.distances[0]))]
    found = explored.log_density(z)
    if found is not None:
        what = "density" if explored.generator.quantizer is None else "probability of the nearest symbols"
        values.append((f"log {what} under {found[0]}", number(found[1])))
    return panel(
        explored.kind.one(drawn.items),
        caption(f"The {explored.kind.noun} decoded from the code at the ring and the sliders."),
        facts(values),
        downloads(explored.keep(drawn, "point")),
        _neighbours(explored, near),
    )


def samples(explored: Explored, drawn: Drawn, what: str) -> Markup:
    """Return samples as a sheet, each selectable by a click."""
    return panel(
        explored.kind.sheet(drawn.items),
        downloads(explored.keep(drawn, "samples")),
        note(f"{len(drawn.z)} samples from {what}, not selected. Pick one to see the training examples nearest to it."),
    )


def sample(explored: Explored, drawn: Drawn, index: int) -> Markup:
    """Return one of several samples with its nearest training examples."""
    item = explored.kind.take(drawn.items, index)
    return panel(
        heading(f"Sample {index + 1}"),
        explored.kind.small(item),
        *_all_neighbours(explored, item, drawn.z[index : index + 1]),
    )


def reconstruction(explored: Explored, reference: str) -> Markup:
    """Return an example, its reconstruction, and the training examples near it."""
    item = explored.item(reference)
    z = explored.encode(item)
    drawn = Drawn(explored.decode(z), z)
    return panel(
        explored.kind.pair(item, drawn.items),
        downloads(explored.keep(drawn, "reconstruction")),
        *_all_neighbours(explored, item, z),
    )


def path(explored: Explored, a: str, b: str, method: str, steps: int) -> Markup:
    """Return the steps between two examples."""
    drawn = explored.path(a, b, method, steps)
    words = f"{len(drawn.z)} points between the two codes, decoded; method {method}. The ends are reconstructions."
    return panel(explored.kind.path(drawn.items), downloads(explored.keep(drawn, "path")), note(words))


def _all_neighbours(explored: Explored, item: Any, z: Tensor) -> list[Markup]:
    pieces = [_neighbours(explored, explored.near_codes(z, NEAREST))]
    text = explored.kind.text(item)
    if text or not explored.kind.symbols:  # a string that did not end has no letters to compare
        pieces.append(_neighbours(explored, explored.kind.nearest(item, NEAREST)))
    return pieces


def _neighbours(explored: Explored, near: Neighbours) -> Markup:
    captions = [number(distance) for distance in near.distances]
    count = f"{len(explored.chosen):,}"
    title = heading("Nearest training examples", f"by {near.title}, among {count}")
    return join([title, explored.kind.row(explored.train_items(near.indices), captions)])


def drop(preview: Markup, accept: tuple[str, ...], most: int, uploaded: str = "", understood: str = "") -> Markup:
    """Return what was chosen, and a place to drop a file where files are taken.

    Args:
        preview: What was chosen.
        accept: File suffixes that are taken; none where nothing can be uploaded.
        most: Largest upload, in bytes.
        uploaded: Name of the file that was chosen, which is shown; empty for a test example.
        understood: How it was understood.
    """
    said = f"{uploaded[:60]} is uploaded and shown{f': {understood}' if understood else ''}" if uploaded else ""
    some = ", ".join(accept[:COMMON]) + (", ..." if len(accept) > COMMON else "")
    zone = (
        Markup(
            '<label class="drop" data-most="{}"><input type="file" accept="{}"><span>Drop a file, or <u>choose</u> one'
            '</span><small>{}; at most {} MB</small></label><p class="state" role="status">{}</p>'
        ).format(most, ",".join(accept), some, f"{most / 1e6:.3g}", said)
        if accept
        else Markup("")
    )
    return Markup(
        '<div class="ex picker"><div class="preview">{}</div>{}<p class="problem" role="alert"></p></div>'
    ).format(preview, zone)
