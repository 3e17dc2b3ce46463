"""A griffe extension: prepare docstrings for the API reference."""

from __future__ import annotations

import ast
import re
from itertools import takewhile
from pathlib import Path
from typing import Any

import griffe


class Docstrings(griffe.Extension):
    """Changes docstrings where Markdown would misread them.

    ||x|| becomes ‖x‖, since bars end the cells of a table. Molecules such as [N+](=O)[O-] are escaped: they are no
    links. "Example:" starts a section of code, like "Examples:". Names that a package re-exports are documented only
    where they are defined.
    """

    def on_instance(self, *, node: ast.AST | griffe.ObjectNode, obj: griffe.Object, **kwargs: Any) -> None:
        """Change the docstring of a module, class, function or attribute."""
        if obj.docstring is not None:
            text = obj.docstring.value.replace("||", "‖")
            text = re.sub(r"^( *)Example:$", r"\1Examples:", text, flags=re.MULTILINE)
            obj.docstring.value = re.sub(r"^(?! *(?:>>>|\.\.\.)).*\]\(=.*$", _escaped, text, flags=re.MULTILINE)

    def on_attribute_instance(
        self, *, node: ast.AST | griffe.ObjectNode, attr: griffe.Attribute, **kwargs: Any
    ) -> None:
        """Use `#:` comments above an attribute as its docstring, as Sphinx does."""
        if attr.docstring is not None or attr.lineno is None or not isinstance(attr.filepath, Path):
            return
        lines = attr.filepath.read_text(encoding="utf-8").splitlines()[: attr.lineno - 1]
        above = list(takewhile(lambda line: line.strip().startswith("#:"), reversed(lines)))
        if above:
            text = " ".join(line.strip().removeprefix("#:").strip() for line in reversed(above))
            attr.docstring = griffe.Docstring(text.replace("||", "‖"), parent=attr)

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Leave out re-exported names."""
        self._own_members_only(pkg)

    def _own_members_only(self, module: griffe.Module) -> None:
        module.exports = None
        for each in module.modules.values():
            if not each.is_alias:
                self._own_members_only(each)


def _escaped(line: re.Match[str]) -> str:
    return line[0].replace("](=", "]\\(=")
