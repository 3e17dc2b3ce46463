"""Commands that list models and data sets, and show what a data set is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Unpack

import tyro

from expost.commands.groups import takes
from expost.commands.train_options import DATA, DataOptions
from expost.config import DataConfig, to_json
from expost.models.zoo import ZOO

if TYPE_CHECKING:
    from expost.data.strings import Strings
    from expost.types import Data

#: How many examples are shown.
SHOWN = 16
#: How many rows of a table are.
ROWS = 8


@dataclass(frozen=True)
class DataShown:
    """What a data set is, and a few of its examples as they are read.

    Attributes:
        description: The line that `expost train` prints too.
        file: The picture, or the file that was asked for; empty if none was written.
        examples: Rows of a table with their classes, or strings; none of images.
        columns: Names of what the rows hold; empty for images and strings.
        classes: Of the images of the picture, row by row.
    """

    description: str
    file: str = ""
    examples: tuple[Any, ...] = ()
    columns: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()


@takes()
def zoo() -> list[dict[str, Any]]:
    """List the models: each is one row of choices."""
    return [{"name": name, **to_json(row)} for name, row in ZOO.items()]


@takes(data=DATA)
def data(
    path: Annotated[
        str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[NAME|PATH]", help_behavior_hint="(default: list all)")
    ] = None,
    out: Annotated[str | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")] = None,
    **given: Unpack[DataOptions],
) -> list[dict[str, Any]] | DataShown:
    """List the named data sets, or show what a data set is: its parts, classes and shape, and sixteen examples.

    Args:
        path: A data set's name, or a path: a folder or archive of images or of sound, an .npz, .npy, .csv, parquet or
            IDX file, or a file of strings. It is read as `expost train` reads it, and nothing is trained.
        out: Where the examples are written. Images: FILE.png, default NAME-examples.png in this folder. Tables:
            FILE.csv, strings: FILE.txt, default none, since they are printed.
        **given: How the data are read, as `expost train` takes it: size, limit, range, layout, parts, ...

    Returns:
        The named data sets; with a path, its description.

    Raises:
        UsageError, DataError: for what `expost train` would refuse.
    """
    if path is None:
        from expost.data import data_catalog

        return [to_json(entry) for entry in data_catalog()]
    from expost.commands.arguments import data_name, refuse_for_strings
    from expost.data.strings import is_strings, read_strings

    name = data_name(path)
    options = DATA.of(given)
    if is_strings(name, column := options.get("column")):
        refuse_for_strings(path, options)
        return _strings(read_strings(name, options.get("limit"), column=column), out)
    from expost.run import load

    loaded, config = load(DataConfig(name, **options))
    return _tensors(loaded, config, out)


def _tensors(loaded: Data, config: DataConfig, out: str | None) -> DataShown:
    from expost.examples import kind_of_data
    from expost.examples.outputs import check_output

    kind = kind_of_data(loaded)(config)
    train = loaded.train
    classes = loaded.labels(train)
    if not kind.pixels:
        rows = tuple(
            (*row, *([] if classes is None else [str(classes[index])]))
            for index, row in enumerate(train.x[:ROWS].tolist())
        )
        columns = loaded.columns or tuple(f"x{index}" for index in range(train.x.shape[1]))
        if out is not None:
            kind.write(train.x[:SHOWN], check_output(Path(out), kind.samples))
        return DataShown(loaded.note, out or "", rows, (*columns, *([] if classes is None else ["class"])))
    chosen = train.spread(SHOWN)
    target = check_output(Path(out) if out is not None else _fresh(loaded.name), kind.samples)
    kind.write(train.x[chosen], target)
    of_picture = () if classes is None else tuple(str(classes[index]) for index in chosen.tolist())
    return DataShown(loaded.note, str(target), classes=of_picture)


def _strings(strings: Strings, out: str | None) -> DataShown:
    from expost.examples.outputs import TEXT_SUFFIXES, check_output, write_strings

    shown = tuple(strings.train[:SHOWN])
    if out is not None:
        write_strings(shown, check_output(Path(out), TEXT_SUFFIXES))
    return DataShown(strings.note, out or "", shown)


def _fresh(name: str) -> Path:
    """Return a name for a picture that no file has yet."""
    stem = f"{Path(name).resolve().stem}-examples"
    path = Path(f"{stem}.png")
    number = 1
    while path.exists():
        number += 1
        path = Path(f"{stem}-{number}.png")
    return path
