"""What the API reference needs of docstrings beyond Markdown."""

from __future__ import annotations

import ast
import re
from itertools import takewhile
from pathlib import Path
from typing import Any

import griffe


class Docstrings(griffe.Extension):
    """Reads our docstrings as they are meant.

    ||x|| gets the sign for norms, since in a table the bars would end its cells, and molecules such as [N+](=O)[O-] are
    no links. "Example:" is a section of code, as "Examples:" is. What a package merely passes on is documented where it
    is defined, and only there.
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
        """Take comments that begin with `#:` above an attribute for its docstring, as Sphinx does."""
        if attr.docstring is not None or attr.lineno is None or not isinstance(attr.filepath, Path):
            return
        lines = attr.filepath.read_text(encoding="utf-8").splitlines()[: attr.lineno - 1]
        above = list(takewhile(lambda line: line.strip().startswith("#:"), reversed(lines)))
        if above:
            text = " ".join(line.strip().removeprefix("#:").strip() for line in reversed(above))
            attr.docstring = griffe.Docstring(text.replace("||", "‖"), parent=attr)

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Forget what packages pass on."""
        self._own_members_only(pkg)

    def _own_members_only(self, module: griffe.Module) -> None:
        module.exports = None
        for each in module.modules.values():
            if not each.is_alias:
                self._own_members_only(each)


def _escaped(line: re.Match[str]) -> str:
    return line[0].replace("](=", "]\\(=")
