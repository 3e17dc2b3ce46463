"""Pieces of the page. Every piece of markup is made by `Markup.format`, which escapes what it is given."""

from __future__ import annotations

import math
from collections.abc import Iterable

from markupsafe import Markup, escape

from expost.report.blocks import rounded

#: Characters that Gradio's templates would evaluate, as entities, which they ignore and a browser shows as characters.
_INERT = str.maketrans({"{": "&#123;", "}": "&#125;", "$": "&#36;", "`": "&#96;", "\\": "&#92;"})


def inert(markup: Markup) -> str:
    """Return markup in which nothing is a template, for a component of Gradio's.

    Example:
        >>> inert(Markup("<p>{}</p>").format("${1} {{x}}"))
        '<p>&#36;&#123;1&#125; &#123;&#123;x&#125;&#125;</p>'
    """
    if not isinstance(markup, Markup):  # plain text would be read as markup
        raise TypeError(f"{type(markup).__name__} is no markup")
    return str(markup).translate(_INERT)


def join(pieces: Iterable[Markup], between: str = "") -> Markup:
    """Join pieces of markup."""
    return Markup(escape(between)).join(pieces)


def panel(*pieces: Markup) -> Markup:
    """Return pieces below each other."""
    return Markup('<div class="ex">{}</div>').format(join(pieces))


def note(text: str) -> Markup:
    """Return a line of small text."""
    return Markup('<p class="note">{}</p>').format(text)


def caption(text: str) -> Markup:
    """Return a line of small text that belongs to what is above it."""
    return Markup('<p class="caption">{}</p>').format(text)


def failure(text: str) -> Markup:
    """Return an error: one line, whatever the text is."""
    line = " ".join(text.split())
    return panel(Markup('<p class="failure" role="alert">{}</p>').format(line))


def heading(text: str, more: str = "") -> Markup:
    """Return a small heading."""
    small = Markup(" <small>{}</small>").format(more) if more else Markup("")
    return Markup("<h3>{}{}</h3>").format(text, small)


def facts(values: Iterable[tuple[str, str]]) -> Markup:
    """Return names and values in a row."""
    items = (Markup("<div><dt>{}</dt><dd>{}</dd></div>").format(name, value) for name, value in values)
    body = join(items)
    return Markup('<dl class="facts">{}</dl>').format(body) if body else body


def number(value: float) -> str:
    """Return a number with three digits, or all before the point; a dash for NaN.

    Example:
        >>> number(-0.123456), number(float("nan"))
        ('−0.123', '–')
    """
    return rounded(value, 3) if math.isfinite(value) else "–"


def downloads(links: Iterable[tuple[str, str]]) -> Markup:
    """Return links that save files.

    Args:
        links: Labels and addresses.
    """
    items = (
        Markup('<a class="save" href="{}" download title="Save as {}">{}</a>').format(address, label, label)
        for label, address in links
    )
    body = join(items, " ")
    return Markup('<p class="saves"><span>Save</span> {}</p>').format(body) if body else body
