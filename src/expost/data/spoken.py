"""The Free Spoken Digit Dataset: ten digits by six speakers, two of them held out."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import PurePath

import numpy as np

from expost.data.examples import FOUND_OUT, POOL, Found, Overrules, Part
from expost.data.files import read_path
from expost.data.hub import Origin, data_folder, remedy
from expost.data.sound import Recordings
from expost.errors import DataError, UsageError

#: What recordings are brought to unless something else is asked for: 64 frames, which hold 93 % of them.
RATE, SECONDS = 8_000, 0.63
#: Its customary address, from which nothing is fetched without being asked for.
ADDRESS = "https://github.com/Jakobovski/free-spoken-digit-dataset"
_NAME = re.compile(r"(\d)_([^_]+)_(\d+)")
_LABELS = ("digit", "speaker")


@dataclass(frozen=True)
class SpokenDigits(Origin):
    """The set in `$EXPOST_DATA/<name>/`: a clone of its repository, its recordings, or a zip archive of them.

    Files are called DIGIT_SPEAKER_INDEX.wav. Of the speakers, in alphabetical order, the last is the test part, the one
    before it the validation part.
    """

    kind: str = field(default="disk", init=False)
    repository: None = field(default=None, init=False)

    def find(self, name: str) -> str | None:
        """Name its folder if there is one."""
        folder = data_folder(name)
        return None if folder is None else str(folder)

    def read(self, name: str, overrules: Overrules = FOUND_OUT) -> Found:
        """Read its recordings, labelled by their digits, or by their speakers where `label_column` says so.

        Raises:
            UsageError: for another `label_column`, or an option out of range.
            DataError: if it is not there, or holds other recordings.
        """
        labelled = (overrules.label_column or _LABELS[0]).lower()
        if labelled not in _LABELS:
            raise UsageError(f"label_column is '{overrules.label_column}'; {name} has {' and '.join(_LABELS)}")
        folder = data_folder(name)
        if folder is None:
            raise DataError(f"data set '{name}' cannot be downloaded; clone {ADDRESS}, or {remedy(name)}")
        asked = replace(
            overrules,
            label_column=None,
            rate=overrules.rate or RATE,
            seconds=SECONDS if overrules.seconds is None else overrules.seconds,
        )
        found = read_path(folder, asked)
        if found.sound is None:
            raise DataError(f"{found.where} is no sound; put the recordings of {ADDRESS} there")
        parts, speakers = _by_speaker(found, labelled)
        held = (
            f"speakers {', '.join(speakers[:-2])} for training, {speakers[-2]} for validation, {speakers[-1]} for test"
        )
        return replace(found, parts=parts, remarks=(held, *found.remarks))


def _by_speaker(found: Found, labelled: str) -> tuple[dict[str, Part], list[str]]:
    """Divide recordings by their speakers; return the parts, and all speakers."""
    if set(found.parts) != {POOL}:
        raise DataError(f"{found.where} has parts; put the recordings as they are published there")
    recordings = found.parts[POOL].examples
    assert isinstance(recordings, Recordings)
    matches = [(name, _NAME.fullmatch(PurePath(name).stem)) for name in recordings.names]
    for name, match in matches:
        if match is None:
            raise DataError(f"{found.where}: {name} is not called DIGIT_SPEAKER_INDEX; remove it")
    digits = np.array([int(match[1]) for _, match in matches if match is not None], np.int64)
    spoken = np.array([match[2] for _, match in matches if match is not None], np.str_)
    speakers = sorted(set(spoken.tolist()))
    if len(speakers) < 3:
        raise DataError(f"{found.where}: {len(speakers)} speakers; two are held out, so that at least 3 are needed")
    parts = {}
    for part, names in (("train", speakers[:-2]), ("validation", speakers[-2:-1]), ("test", speakers[-1:])):
        places = np.flatnonzero(np.isin(spoken, names))
        parts[part] = Part(recordings.only(places), (digits if labelled == _LABELS[0] else spoken)[places])
    return parts, speakers
