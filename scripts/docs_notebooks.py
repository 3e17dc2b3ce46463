"""Run the documentation's notebooks from top to bottom in an empty folder, and save their outputs.

    python scripts/docs_notebooks.py                          # all of docs/notebooks, in place
    python scripts/docs_notebooks.py FILE.ipynb --out FOLDER

Progress on stderr, times and the kernel's version are not saved, so that another run changes the file only where
results change.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import nbformat
import tyro
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "notebooks"


def run(path: Path) -> nbformat.NotebookNode:
    """Return a notebook with fresh outputs."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=1200, kernel_name="python3", resources=resources).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = kept(cell.outputs)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


def kept(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Leave out progress, which rich shows as HTML in a notebook, and join the text before and after it."""
    found: list[nbformat.NotebookNode] = []
    for output in outputs:
        if output.get("name") == "stderr" or "white-space:pre" in output.get("data", {}).get("text/html", ""):
            continue
        if found and output.output_type == found[-1].output_type == "stream":
            found[-1].text += output.text
        else:
            found.append(output)
    return found


def main(notebooks: Annotated[tuple[Path, ...], tyro.conf.Positional] = (), out: Path | None = None) -> None:
    """Run notebooks.

    Args:
        notebooks: Notebooks; default: all in docs/notebooks.
        out: Folder of the results; default: in place.
    """
    for path in notebooks or sorted(FOLDER.glob("*.ipynb")):
        notebook = run(path)
        nbformat.write(notebook, (out or path.parent) / path.name)
        print(path.name)


if __name__ == "__main__":
    tyro.cli(main)
