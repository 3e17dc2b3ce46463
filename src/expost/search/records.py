"""A search on disk: its settings and its finished rounds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from expost.densities import TractableDensity
from expost.errors import DataError, UsageError
from expost.search.result import Outcome, Round, SearchResult
from expost.utils.hashing import hash_tensors
from expost.utils.store import read_json, read_tensors, require_writable, sealed, write_json, write_tensors

if TYPE_CHECKING:
    from expost.search.config import SearchConfig

FORMAT = 1
#: The files of a search.
JSON, TENSORS, LOCK = "search.json", "search.safetensors", ".search.lock"


#: What is read of the file, and of each of its rounds.
_FIELDS: dict[str, Any] = {"asked": dict[str, Any], "rounds": list[dict[str, Any]], "known": list[str] | None}
_OF_A_ROUND: dict[str, Any] = {
    "strings": list[str | None],
    "outcomes": list[Outcome],
    "message": str | None,
    "seconds": dict[str, float],
}


class Session:
    """The folder of a search: `search.json`, all that is not a tensor, and `search.safetensors`, codes and scores.

    Args:
        folder: The folder; made when the first round is written.
        config: The search's settings.
        objective: The objective's label.
        minimize: The direction in force.
        codes: Training codes; a hash of them is kept.
        scores: Training scores, likewise.
        density: The density in use, likewise, or None.
    """

    def __init__(
        self,
        folder: Path,
        config: SearchConfig,
        objective: str,
        minimize: bool,
        codes: Tensor,
        scores: Tensor,
        density: TractableDensity | None,
    ) -> None:
        self.json, self.tensors = Path(folder) / JSON, Path(folder) / TENSORS
        self.asked: dict[str, Any] = {
            **asdict(config),
            "minimize": minimize,
            "objective": objective,
            "codes": _digest({"codes": codes}),
            "scores": _digest({"scores": scores}),
            "density": None if density is None else f"{density!r} {_digest(density.tensors)}",
        }

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the folder to this process; what could not be written is refused before any work.

        Raises:
            UsageError: if another process searches in it.
            OSError: if it cannot be written.
        """
        require_writable(self.json)
        self.json.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.json.parent / LOCK)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            raise UsageError(
                f"{self.json.parent} is being searched by another process; wait for it, or choose another --out"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def read(self) -> tuple[list[Round], frozenset[str] | None]:
        """Return the finished rounds, none if there is no search yet, and which of their strings are training strings.

        Raises:
            UsageError: if the folder's search has other settings; the message names the first that differs.
            DataError: if the files are damaged or of a newer format.
        """
        if not self.json.exists():
            return [], None
        record = _record(self.json)
        self._compare(record["asked"], len(record["rounds"]))
        return _rounds(record, self.json, self.tensors), _known(record)

    def _compare(self, asked: dict[str, Any], finished: int) -> None:
        for name, now in self.asked.items():
            then = asked.get(name)
            if then == now or (name == "rounds" and now >= finished):
                continue
            if name in ("codes", "scores", "density") and then is not None and now is not None:
                detail = f"other {name}"
            else:
                detail = f"{name}={then}, not {now}"
            raise UsageError(
                f"{self.json.parent} holds a search with {detail}; repeat its settings or choose another --out"
            )

    def write(self, result: SearchResult) -> None:
        """Write all finished rounds. Each file is replaced as a whole, the one that counts, `search.json`, last."""
        rounds = result.rounds
        tensors = {
            "codes": torch.cat([batch.codes for batch in rounds]),
            "scores": torch.tensor(result.scores, dtype=torch.float64),
        }
        write_tensors(self.tensors, tensors)
        record = {
            "format": FORMAT,
            "asked": self.asked,
            "tensors": hash_tensors(tensors),
            "summary": result.summary(),
            "known": None if result.known is None else sorted(result.known),
            "rounds": [
                {
                    "strings": batch.strings,
                    "scores": batch.scores,
                    "outcomes": batch.outcomes,
                    "message": batch.message,
                    "seconds": batch.seconds,
                }
                for batch in rounds
            ],
        }
        write_json(self.json, sealed(record))


def read_search(folder: Path) -> SearchResult:
    """Read a search's finished rounds, whatever its settings.

    Args:
        folder: Of the search; it holds `search.json`.

    Raises:
        DataError: if the files are missing, damaged or of a newer format.
    """
    path = Path(folder) / JSON
    record = _record(path)
    asked = record["asked"]
    try:
        training = record["summary"]["training"]
        ends = float(training["worst"]), float(training["best"])
        described = str(asked["objective"]), str(asked["region"]), bool(asked["minimize"])
    except (KeyError, TypeError, ValueError):
        raise _damaged(path) from None
    return SearchResult(*described, *ends, _rounds(record, path, Path(folder) / TENSORS), _known(record))


def _damaged(path: Path) -> DataError:
    return DataError(f"{path} is no record of a search, or damaged; restore it or choose another folder")


def _record(path: Path) -> dict[str, Any]:
    """Return the settings and the rounds as the file has them."""
    record = read_json(path)
    if not isinstance(record, dict) or not isinstance(record.get("format"), int):
        raise _damaged(path)
    if record["format"] > FORMAT:
        raise DataError(
            f"{path} has format {record['format']}, newer than {FORMAT}; upgrade with: pip install -U expost"
        )
    try:
        _check(record | {"known": record.get("known")}, _FIELDS)  # which early versions did not write
        for batch in record["rounds"]:
            _check(batch, _OF_A_ROUND)
    except (KeyError, ValidationError):
        raise _damaged(path) from None
    return record


def _check(record: dict[str, Any], kinds: dict[str, Any]) -> None:
    for name, kind in kinds.items():
        TypeAdapter(kind).validate_python(record[name], strict=True)


def _rounds(record: dict[str, Any], path: Path, tensors: Path) -> list[Round]:
    rounds = record["rounds"]
    if not rounds:
        return []
    values, _ = read_tensors(tensors)
    if not all(tensor.is_floating_point() and bool(tensor.isfinite().all()) for tensor in values.values()):
        raise DataError(f"{tensors} holds what is no finite number; restore it")
    try:
        batch = record["asked"]["batch"]
        # the tensors are written first: they may be a round ahead, never behind
        mine = {name: values[name][: batch * len(rounds)] for name in ("codes", "scores")}
        if record.get("tensors", hash_tensors(mine)) != hash_tensors(mine):  # not recorded by early versions
            raise ValueError
        codes, scores = (torch.split(mine[name], batch) for name in ("codes", "scores"))
        found = [
            Round(z.clone(), r["strings"], s.tolist(), r["outcomes"], r["message"], r["seconds"])
            for z, s, r in zip(codes, scores, rounds, strict=True)
        ]
    except (KeyError, TypeError, ValueError, RuntimeError):  # torch's, of tensors of other shapes
        raise DataError(f"{tensors} does not belong to {path.name}; restore both") from None
    if any(len({len(r.codes), len(r.scores), len(r.strings), len(r.outcomes), batch}) > 1 for r in found):
        raise DataError(f"{tensors} and {path.name} hold rounds of other sizes; restore both")
    return found


def _known(record: dict[str, Any]) -> frozenset[str] | None:
    known = record.get("known")
    return None if known is None else frozenset(known)


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 that format 1 has of named tensors; with another one, searches of 0.2.0 could not go on."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
