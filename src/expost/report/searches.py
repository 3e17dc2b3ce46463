"""Sections of searches: what each found, and its progress by round."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from expost.errors import DataError
from expost.report.blocks import Block, Cell, Heading, Note, Picture, Pictures, Table
from expost.report.pictures import data_uri
from expost.search import SearchResult, read_search
from expost.search.report import overview

#: Strings listed for each search.
LISTED = 10
#: About how wide a search's picture is on the page, in CSS pixels.
WIDTH = 720


def search_blocks(folder: Path) -> list[Block]:
    """Return the blocks of the searches in a run's folder; none if there is no search.

    Args:
        folder: The run's.
    """
    blocks: list[Block] = []
    for path in sorted((folder / "search").glob("*/search.json")):
        try:
            blocks += _search(path.parent, read_search(path.parent))
        except (DataError, OSError) as error:
            blocks.append(Note(f"A search cannot be read: {' '.join(str(error).split()).rstrip('.')}."))
    return blocks


def _search(folder: Path, result: SearchResult) -> list[Block]:
    direction = "lower" if result.minimize else "higher"
    text = f"Objective {result.objective}; {direction} is better. "
    if not result.rounds:
        return [Heading(folder.name, text + "No round is finished yet.")]
    text += overview(result)
    found = result.best(LISTED)
    rows = [
        (
            Cell(item.string, "", "code"),
            Cell(f"{item.score:.5g}", "", "number"),
            Cell(str(item.round), "", "number"),
            *([] if item.new is None else [Cell("yes" if item.new else "no")]),
        )
        for item in found
    ]
    listed = Table(
        f"The best {len(rows)} of {folder.name}",
        ("string", "score", "round", *([] if result.known is None else ["new"])),
        tuple(rows),
        f"The best training score at the start is {result.start:.5g}; strings "
        f"{'listed here may be' if result.known is None else 'that are not new are'} training strings.",
    )
    return [Heading(folder.name, text), *_picture(folder / "best.png"), *([listed] if rows else []), _progress(result)]


def _progress(result: SearchResult) -> Table:
    rows = []
    for number, (batch, best) in enumerate(zip(result.rounds, result.best_so_far(), strict=True), 1):
        average = sum(batch.scores) / len(batch.scores)
        values = (f"{batch.valid:.0%}", f"{average:.4g}", "–" if best is None else f"{best:.5g}")
        rows.append((Cell(str(number)), *(Cell(value, "", "number") for value in values)))
    head = ("round", "valid", "average score", "best so far")
    return Table("How the search went", head, tuple(rows), "", folded=True)


def _picture(path: Path) -> list[Block]:
    try:
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
    except OSError:  # there is none where nothing valid was found, or it is damaged
        return []
    height = round(picture.height * WIDTH / picture.width)
    alt = f"What {path.parent.name} found, drawn"
    return [Pictures((Picture(data_uri(picture, lossless=False), alt, WIDTH, height),), layout="wide")]
