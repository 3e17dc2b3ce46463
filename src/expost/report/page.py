"""The page as self-contained HTML."""

from __future__ import annotations

from typing import Any

import jinja2
from markupsafe import Markup

from expost.report.blocks import Page


def render(page: Page) -> str:
    """Return a page as HTML; all text in it is escaped, and the page's words are shortened."""

    def shortened(value: Any) -> Any:
        if isinstance(value, str) and not isinstance(value, Markup):
            for word, short in sorted(page.shortened.items(), key=lambda item: -len(item[0])):
                value = value.replace(word, short)
        return value

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("expost.report", "assets"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=shortened,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    source, _, _ = environment.loader.get_source(environment, "report.css")  # type: ignore[union-attr]
    text = environment.get_template("report.html").render(page=page, style=Markup(source)).lstrip()
    return text.encode("utf-8", "replace").decode()  # a path may hold bytes that are no UTF-8
