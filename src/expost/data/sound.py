"""Recordings: files that soundfile decodes, brought to one rate, one channel and one length, as log-mel frames."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from expost.config import SoundConfig
from expost.data.decoding import Page, Source
from expost.data.examples import Array, Examples, Found, Indices, New, Overrules, Part, Preprocess, in_memory
from expost.data.folders import sort_files
from expost.data.image_archives import ZipImages, names_inside
from expost.data.images import NAMED, ImageFiles, ImageSource, UnreadableImages
from expost.data.side_folders import left_out, without_system
from expost.errors import DataError, UsageError
from expost.utils.extras import require
from expost.utils.process import cores
from expost.utils.progress import progress

SUFFIXES = frozenset({".wav", ".wave", ".flac", ".ogg", ".oga", ".aif", ".aiff", ".au"})
"""What counts as a sound file, lower case. The contents decide how it is decoded, not the suffix."""

#: Bands, unless others are asked for; frames a second; length of the window in seconds.
MELS, FRAMES_A_SECOND, WINDOW = 64, 100, 0.032
#: Frames, unless a length is asked for: the least multiple of this between these that holds this part of a set.
STEP, FEWEST, MOST, HELD = 16, 32, 128, 0.95
#: Rates that can be asked for, and longest recordings.
SLOWEST, FASTEST, LONGEST = 1_000, 384_000, 600.0
_BLOCK = 256  # recordings in flight
_UNKNOWN = 0x7FFFFF00  # what programs that write to a pipe put for a length that they do not know, and more


@dataclass(frozen=True)
class Header:
    """What a sound file says of itself.

    Attributes:
        rate: Samples a second.
        channels: Channels.
        samples: Samples of each.
    """

    rate: int
    channels: int
    samples: int


def header(where: str, source: Source) -> Header:
    """Return the header of a sound file.

    Args:
        where: What errors call it.
        source: Its path or its bytes.

    Raises:
        UsageError: if soundfile is not installed.
        DataError: if it is empty, cut short, or no sound that can be decoded.
    """
    with _opened(where, source) as file:
        if not file.frames:
            raise DataError(f"{where} holds no samples; remove it")
        if not SLOWEST <= file.samplerate <= FASTEST:
            raise DataError(
                f"{where} says that it has {file.samplerate:,} samples a second; {SLOWEST:,} to {FASTEST:,} are read"
            )
        return Header(file.samplerate, file.channels, file.frames)


def wave_of(where: str, source: Source, sound: SoundConfig) -> Array:
    """Decode a recording: the mean of its channels, resampled, cut or padded with silence at its end.

    Args:
        where: What errors call it.
        source: Its path or its bytes.
        sound: What it is brought to.

    Returns:
        float64, shape (samples,).

    Raises:
        UsageError, DataError: see `header`; also if a value is not finite.
    """
    from scipy.signal import resample_poly

    with _opened(where, source) as file:
        rate = file.samplerate
        needed = min(file.frames, math.ceil((sound.samples + sound.window) * rate / sound.rate))
        try:
            values = file.read(needed, dtype="float64", always_2d=True).mean(1)
        except RuntimeError as error:
            raise _undecodable(where, error) from None
    if len(values) < needed:
        raise DataError(f"{where} is cut short: {len(values):,} samples where {needed:,} should be; restore it")
    if not np.isfinite(values).all():
        raise DataError(f"{where} holds NaN or infinity; restore or remove it")
    if rate != sound.rate:
        common = math.gcd(rate, sound.rate)
        values = resample_poly(values, sound.rate // common, rate // common)
    wave = np.zeros(sound.samples)
    wave[: len(values)] = values[: sound.samples]
    return wave


class Recordings(Examples):
    """Recordings that are decoded only when they are loaded.

    Args:
        source: Files that hold them.
        names: What these files are called, all of them.
        places: Which of them are meant, ascending.
        sound: What they are brought to.
    """

    def __init__(self, source: ImageSource, names: Sequence[str], places: Indices, sound: SoundConfig) -> None:
        self.source = source
        self.places = places
        self.all_names = names
        self.sound = sound

    @property
    def names(self) -> list[str]:
        """Names of the files that are meant."""
        return [self.all_names[place] for place in self.places]

    def only(self, chosen: Indices) -> Recordings:
        """Return some of the recordings, by their places among these, ascending."""
        return Recordings(self.source, self.all_names, self.places[chosen], self.sound)

    def __len__(self) -> int:
        """Return the number of recordings."""
        return len(self.places)

    def load(self, indices: Indices, prep: Preprocess, new: New = in_memory) -> Array:
        """Decode recordings into log-mel frames, uint8 (n, 1, mels, frames); see `Examples.load`."""
        import torch

        from expost.data.spectrogram import Spectrogram

        if prep != Preprocess():
            raise UsageError(f"these are recordings, not images ({prep.describe()} was asked for); leave it out")
        spectrogram = Spectrogram(self.sound)
        array = new((len(indices), 1, self.sound.mels, self.sound.frames), np.uint8)
        order = np.argsort(indices, kind="stable")
        encoded = self.source.encoded(self.places[indices[order]])
        decode = partial(_decoded, sound=self.sound)
        bad: dict[str, str] = {}
        start = 0
        with ThreadPoolExecutor(min(8, cores())) as pool, progress("reading recordings", len(indices)) as bar:
            while block := list(islice(encoded, _BLOCK)):
                waves = []
                for (where, _), wave in zip(block, pool.map(decode, block), strict=True):
                    if isinstance(wave, DataError):
                        bad[where] = str(wave)
                    else:
                        waves.append(wave)
                if not bad:
                    array[order[start : start + len(block)]] = spectrogram.images(torch.tensor(np.stack(waves)))
                start += len(block)
                bar.advance(len(block))
        if bad:
            raise UnreadableImages(bad)
        return array


def _decoded(one: tuple[str, Source], sound: SoundConfig) -> Array | DataError:
    try:
        return wave_of(*one, sound)
    except DataError as error:
        return error


def _header(one: tuple[str, Source]) -> Header | DataError:
    try:
        return header(*one)
    except DataError as error:
        return error


def read_sound(folder: Path, files: Sequence[Path], where: str, overrules: Overrules) -> Found:
    """Read a folder of recordings, or a zip archive of them, whose folders `sort_files` understands.

    Args:
        folder: The folder.
        files: The recordings in it, sorted; or one archive.
        where: What errors call them together.
        overrules: The folders of the parts, and the rate, length and bands that are asked for.

    Raises:
        UsageError: if soundfile is not installed, a given folder holds no recordings, or an option is out of range.
        DataError: for an archive that is damaged or beside others, and recordings that cannot be read.
    """
    archives = [file for file in files if file.suffix.lower() == ".zip"]
    remarks = []
    source: ImageSource
    if archives:
        if len(files) > 1:
            raise DataError(f"{where} holds archives of sound and other files; give the path of one, or unpack them")
        source = ZipImages.open(archives[0], SUFFIXES, "recordings")
        paths = [tuple(name.split("/")) for name in source.names]
        if source.others:
            remarks.append(f"ignored {source.others} other file{'s' * (source.others > 1)} in the archive")
    else:
        source = ImageFiles(files)
        paths = [file.relative_to(folder).parts for file in files]
    kept, folders = without_system(paths)
    if folders:
        remarks.append(left_out(folders, "thumbnails or files of the system", "files"))
    sorted_files = sort_files([paths[index] for index in kept], "recordings", overrules.places())
    chosen = {part: [kept[index] for index in places] for part, places in sorted_files.parts.items()}
    used = np.sort(np.concatenate([np.array(places, np.int64) for places in chosen.values()]))
    headers = _headers(source, used)
    sound = settled(headers, overrules)
    names = [path[-1] for path in paths]
    parts = {}
    for part, places in chosen.items():
        labels = sorted_files.labels[part]
        recordings = Recordings(source, names, np.array(places, np.int64), sound)
        parts[part] = Part(recordings, None if labels is None else np.array(labels, np.str_))
    remarks += [*sorted_files.remarks, *described(headers, sound)]
    return Found(parts, where, tuple(remarks), sound=sound)


def _headers(source: ImageSource, indices: Indices) -> list[Header]:
    found: list[Header] = []
    bad: dict[str, str] = {}
    encoded = source.encoded(indices)
    with ThreadPoolExecutor(min(8, cores())) as pool, progress("looking at recordings", len(indices)) as bar:
        while block := list(islice(encoded, _BLOCK)):
            for (where, _), one in zip(block, pool.map(_header, block), strict=True):
                if isinstance(one, DataError):
                    bad[where] = str(one)
                else:
                    found.append(one)
            bar.advance(len(block))
    if bad:
        raise UnreadableImages(bad)
    return found


def settled(headers: Sequence[Header], overrules: Overrules) -> SoundConfig:
    """Return what recordings are brought to: what is asked for, else what suits most of them.

    The rate is the commonest one, the lower of two; the length a multiple of 16 frames, from 32 to 128, that holds 95 %
    of the recordings; frames are a hundredth of a second apart, and 32 thousandths long.

    Args:
        headers: Of all recordings.
        overrules: Rate, length in seconds and bands that are asked for.

    Raises:
        UsageError: if one of these is out of range.

    Example:
        >>> settled([Header(8000, 1, 4000)] * 19 + [Header(44100, 2, 90000)], Overrules())
        SoundConfig(rate=8000, frames=64, mels=64, hop=80, window=256, decibels=60.0, iterations=64)
    """
    from scipy.fft import next_fast_len

    rate = overrules.rate
    if rate is None:
        counts = Counter(each.rate for each in headers)
        rate = min(counts, key=lambda each: (-counts[each], each))
    if not SLOWEST <= rate <= FASTEST:
        raise UsageError(f"rate is {rate:,}; give {SLOWEST:,} to {FASTEST:,} samples a second with --rate")
    hop = max(1, round(rate / FRAMES_A_SECOND))
    if overrules.seconds is None:
        lengths = sorted(each.samples / each.rate for each in headers)
        held = lengths[min(len(lengths) - 1, math.ceil(HELD * len(lengths)) - 1)]
        frames = math.ceil((held * rate / hop + 1) / STEP) * STEP
        frames = min(MOST, max(FEWEST, frames))
    else:
        if not hop / rate <= overrules.seconds <= LONGEST:
            raise UsageError(f"seconds is {overrules.seconds:g}; give {hop / rate:g} to {LONGEST:g}")
        frames = round(overrules.seconds * rate / hop) + 1
    mels = MELS if overrules.mels is None else overrules.mels
    if not 1 <= mels <= 1024:
        raise UsageError(f"mels is {mels}; give 1 to 1024 bands")
    return SoundConfig(rate, frames, mels, hop, next_fast_len(round(WINDOW * rate)))


def described(headers: Sequence[Header], sound: SoundConfig) -> list[str]:
    """Say what is done to recordings: how many are resampled, mixed down, cut and padded.

    Example:
        >>> sound = settled([Header(8000, 1, 4000)], Overrules())
        >>> described([Header(8000, 1, 4000), Header(44100, 2, 90000)], sound)[1:]
        ['1 of 2 resampled from 44,100 Hz', '1 of 2 made mono by the mean of its channels', \
'1 of 2 cut at its end, 1 padded with silence']
    """
    count = len(headers)
    others = Counter(each.rate for each in headers if each.rate != sound.rate)
    several = sum(each.channels > 1 for each in headers)
    seconds = [each.samples / each.rate for each in headers]
    cut = sum(each > sound.seconds + 0.5 / sound.rate for each in seconds)
    padded = sum(each < sound.seconds - 0.5 / sound.rate for each in seconds)
    remarks = [
        f"log-mel frames of {sound.seconds:g} s at {sound.rate:,} Hz: {sound.mels} bands, a frame each "
        f"{sound.hop} samples, {sound.decibels:g} dB below the loudest of each; loudness itself is not kept"
    ]
    if others:
        rates = ", ".join(f"{rate:,}" for rate in sorted(others)[:NAMED]) + ", ..." * (len(others) > NAMED)
        remarks.append(f"{others.total():,} of {count:,} resampled from {rates} Hz")
    if several:
        remarks.append(
            f"{several:,} of {count:,} made mono by the mean of {'its' if several == 1 else 'their'} channels"
        )
    said = []
    if cut:
        said.append(f"{cut:,} of {count:,} cut at {'its' if cut == 1 else 'their'} end")
    if padded:
        said.append(f"{padded:,}{'' if cut else f' of {count:,}'} padded with silence")
    return [*remarks, ", ".join(said)] if said else remarks


def is_sound(path: Path) -> bool:
    """Tell whether a file is a recording by its name, or a zip archive that holds recordings and no images."""
    if path.suffix.lower() != ".zip":
        return path.suffix.lower() in SUFFIXES
    from expost.data.images import SUFFIXES as IMAGES

    return names_inside(path, SUFFIXES) and not names_inside(path, IMAGES)


def _opened(where: str, source: Source) -> Any:
    """Open a sound file, after comparing what a WAV says of its length with the file."""
    soundfile = require("soundfile", "sound", "reading sound needs the package soundfile")
    assert not isinstance(source, Page)
    if isinstance(source, bytes):
        head, size = source[:8], len(source)
        file: Any = io.BytesIO(source)
    else:
        try:
            with source.open("rb") as opened:
                head = opened.read(8)
            size = source.stat().st_size
        except OSError as error:
            raise DataError(f"cannot read {where}: {error.strerror or error}; make it readable") from None
        file = str(source)
    if not size:
        raise DataError(f"{where} is empty; restore or remove it")
    said = int.from_bytes(head[4:], "little") + 8
    if head[:4] == b"RIFF" and 8 < said < _UNKNOWN and said > size:
        raise DataError(f"{where} is cut short: {size:,} bytes where its header says {said:,}; restore it")
    try:
        return soundfile.SoundFile(file)
    except (RuntimeError, OSError) as error:
        raise _undecodable(where, error) from None


def _undecodable(where: str, error: Exception) -> DataError:
    reason = " ".join(str(error).partition(": ")[2].split()).rstrip(".") or type(error).__name__
    return DataError(
        f"cannot read {where}: no sound that can be decoded ({reason}); restore it, or convert it to WAV: "
        "ffmpeg -i FILE FILE.wav"
    )
