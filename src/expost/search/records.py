"""A search on disk: its settings and its finished rounds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from expost.densities import TractableDensity
from expost.errors import DataError, UsageError
from expost.search.result import Round, SearchResult
from expost.utils.store import read_json, read_tensors, write_json, write_tensors

if TYPE_CHECKING:
    from expost.search.config import SearchConfig

FORMAT = 1
#: The files of a search.
JSON, TENSORS = "search.json", "search.safetensors"


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
        return _rounds(record, self.json, self.tensors), _known(record, self.json)

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
        write_tensors(
            self.tensors,
            {
                "codes": torch.cat([batch.codes for batch in rounds]),
                "scores": torch.tensor(result.scores, dtype=torch.float64),
            },
        )
        record = {
            "format": FORMAT,
            "asked": self.asked,
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
        write_json(self.json, record)


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
    return SearchResult(*described, *ends, _rounds(record, path, Path(folder) / TENSORS), _known(record, path))


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
    if not isinstance(record.get("asked"), dict) or not isinstance(record.get("rounds"), list):
        raise _damaged(path)
    return record


def _rounds(record: dict[str, Any], path: Path, tensors: Path) -> list[Round]:
    rounds = record["rounds"]
    if not rounds:
        return []
    values, _ = read_tensors(tensors)
    try:
        batch = record["asked"]["batch"]
        codes, scores = (torch.split(values[name][: batch * len(rounds)], batch) for name in ("codes", "scores"))
        # the tensors are written first: they may be a round ahead, never behind
        found = [
            Round(z.clone(), r["strings"], s.tolist(), r["outcomes"], r["message"], r["seconds"])
            for z, s, r in zip(codes, scores, rounds, strict=True)
        ]
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{tensors} does not belong to {path.name}; restore both") from None
    if any(len({len(r.codes), len(r.scores), len(r.strings), len(r.outcomes), batch}) > 1 for r in found):
        raise DataError(f"{tensors} and {path.name} hold rounds of other sizes; restore both")
    return found


def _known(record: dict[str, Any], path: Path) -> frozenset[str] | None:
    known = record.get("known")
    if known is None:
        return None
    if not isinstance(known, list) or not all(isinstance(string, str) for string in known):
        raise _damaged(path)
    return frozenset(known)


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 that format 1 has of named tensors; with another one, searches of 0.2.0 could not go on."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
