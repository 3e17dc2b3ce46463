"""Records of a training run: one line per epoch in `metrics.jsonl`, and the same for TensorBoard."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expost import distributed
from expost.errors import DataError
from expost.utils.extras import installed
from expost.utils.progress import say
from expost.utils.reading import contents, parsed
from expost.utils.store import sealed, write_text


@dataclass(frozen=True)
class Records:
    """The records of a run's epochs.

    Attributes:
        path: The file of lines.
        board: TensorBoard's writer; None where none is wanted.
    """

    path: Path
    board: Any

    def add(
        self, record: Mapping[str, Any], best: bool, train: Mapping[str, float], validation: Mapping[str, float]
    ) -> None:
        """Record an epoch; only the first process writes.

        Args:
            record: Its number under "epoch", the learning rate under "lr", and more.
            best: Whether its weights are the best so far.
            train: Mean terms over its training batches.
            validation: Terms on the validation split.
        """
        if not distributed.is_main():
            return
        with self.path.open("a", encoding="utf-8") as file:
            line = sealed({**record, "best": best, "train": dict(train), "validation": dict(validation)})
            file.write(json.dumps(line) + "\n")
        if self.board is not None:
            self.board.add_scalar("lr", record["lr"], record["epoch"])
            for part, values in (("train", train), ("validation", validation)):
                for name, value in values.items():
                    self.board.add_scalar(f"{part}/{name}", value, record["epoch"])


@contextmanager
def records(folder: Path, tensorboard: bool, epoch: int) -> Iterator[Records]:
    """Open the records of a run that has finished `epoch` epochs; lines of later epochs are dropped.

    Raises:
        DataError: if `metrics.jsonl` holds something else.
    """
    path = folder / "metrics.jsonl"
    with contextlib.ExitStack() as stack:
        board = None
        distributed.on_main(lambda: _cut(path, epoch))
        if tensorboard and not installed("tensorboard"):  # a run that was begun on another machine
            say("no event files are written, since TensorBoard is not installed: pip install 'expost[tensorboard]'")
        elif tensorboard and distributed.is_main():
            from torch.utils.tensorboard import SummaryWriter  # slow to import, and not needed to sample

            board = SummaryWriter(str(folder / "tensorboard"), purge_step=epoch + 1)
            stack.callback(board.close)
        yield Records(path, board)


def record_of(line: str) -> dict[str, Any] | None:
    """Return the record of an epoch that a line of `metrics.jsonl` holds; None if it holds none."""
    try:
        record = parsed(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and type(record.get("epoch")) is int else None


def lines_in(path: Path) -> list[str]:
    """Return the lines of a `metrics.jsonl`, with their ends; none if there is no such file.

    Raises:
        DataError: if it cannot be read, or is no text.
    """
    if not path.exists():
        return []
    try:
        return contents(path).decode("utf-8").splitlines(keepends=True)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is damaged: no text at byte {error.start:,}; restore it, or remove that line"
        ) from None


def _cut(path: Path, epoch: int) -> None:
    # a line may have been written just before a kill that lost its checkpoint
    lines = lines_in(path)
    kept = [line for number, line in enumerate(lines, 1) if _belongs(line, epoch, path, number)]
    if kept != lines:
        write_text(path, "".join(kept))


def _belongs(line: str, epoch: int, path: Path, number: int) -> bool:
    """Return whether a line records an epoch up to the checkpoint's; a line that a kill cut off does not."""
    if not line.endswith("\n"):
        return False
    record = record_of(line)
    if record is None:
        raise DataError(f"{path}, line {number} is not a record of an epoch; remove that line to go on")
    return int(record["epoch"]) <= epoch
