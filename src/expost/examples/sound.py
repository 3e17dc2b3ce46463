"""Sound: log-mel frames, uint8, shape (1, mels, frames), drawn as spectrograms and written as WAV."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, final

from torch import Tensor

from expost.config import DataConfig
from expost.data.spectrogram import Spectrogram
from expost.examples.figure_files import PICTURE_SUFFIXES
from expost.examples.figures import PLAIN, Look, Sheet
from expost.examples.images import Images
from expost.examples.kind import Examples, Labels, Pair, PanelWish, Wish
from expost.examples.pictures import to_bytes
from expost.examples.waves import joined, write_wav
from expost.generators.generator import Generator
from expost.types import Data
from expost.utils.store import filling

#: The picture in a folder of recordings.
PICTURE = "spectrograms.png"


@final
class Sound(Examples):
    """Written as a folder of WAV files with a picture, as one WAV file, a picture, or an array of log-mel frames."""

    name: ClassVar[str] = "sound"
    like: ClassVar[str] = "sound"
    pixels: ClassVar[bool] = True
    usual: ClassVar[str] = "samples"
    samples = ("", ".wav", *PICTURE_SUFFIXES, ".npy")
    pairs = paths = ("", ".wav", *PICTURE_SUFFIXES)

    def __init__(self, data: DataConfig) -> None:
        super().__init__(data)
        assert data.sound is not None
        self.spectrogram = Spectrogram(data.sound)
        self.rate = data.sound.rate
        self._pictures = Images(data)

    @staticmethod
    def holds(shape: Sequence[int], coded: bool, sound: bool) -> bool:
        """Return whether recordings became these frames."""
        return sound and not coded

    def draw(self, generator: Generator, wish: Wish) -> Tensor:
        """Return log-mel frames in [0, 1]."""
        return self._pictures.draw(generator, wish)

    def write(self, drawn: Tensor, path: Path, look: Look = PLAIN, labels: Labels = None) -> None:
        """Write a WAV file a sample, all in one, a picture, or an array, as the path's suffix says."""
        if path.suffix.lower() in (*PICTURE_SUFFIXES, ".npy"):
            self._pictures.write(drawn, path, look)
            return
        waves = list(self.spectrogram.waves(to_bytes(drawn)))
        if path.suffix:
            write_wav(joined(waves, self.rate), self.rate, path)
            return
        with filling(path) as temporary:
            for index, wave in enumerate(waves):
                label = "" if labels is None else f"-{_plain(labels[index])}"
                write_wav(wave, self.rate, temporary / f"{index:05d}{label}.wav")
            self._pictures.write(drawn, temporary / PICTURE, look)

    def write_pairs(
        self, generator: Generator, x: Tensor, path: Path, look: Look = PLAIN, labels: Labels = None
    ) -> None:
        """Write each recording, as its frames give it back, and its reconstruction after it."""
        if path.suffix.lower() in PICTURE_SUFFIXES:
            self._pictures.write_pairs(generator, x, path, look)
            return
        first, second = self.spectrogram.waves(x), self.spectrogram.waves(to_bytes(generator.reconstruct(x)))
        if path.suffix:
            both = [wave for pair in zip(first, second, strict=True) for wave in pair]
            write_wav(joined(both, self.rate), self.rate, path)
            return
        with filling(path) as temporary:
            for index, (original, back) in enumerate(zip(first, second, strict=True)):
                write_wav(original, self.rate, temporary / f"{index:05d}-original.wav")
                write_wav(back, self.rate, temporary / f"{index:05d}-reconstruction.wav")
            self._pictures.write_pairs(generator, x, temporary / PICTURE, look)

    def write_paths(
        self, generator: Generator, ends: Pair, t: Tensor, method: str, path: Path, look: Look = PLAIN
    ) -> None:
        """Write the steps of each path one after the other."""
        if path.suffix.lower() in PICTURE_SUFFIXES:
            self._pictures.write_paths(generator, ends, t, method, path, look)
            return
        frames = generator.interpolate(*ends, t, method)
        waves = [joined(self.spectrogram.waves(to_bytes(steps)), self.rate) for steps in frames]
        if path.suffix:
            write_wav(joined(waves, self.rate, 1.0), self.rate, path)
            return
        with filling(path) as temporary:
            for index, wave in enumerate(waves):
                write_wav(wave, self.rate, temporary / f"{index:05d}.wav")
            self._pictures.write_paths(generator, ends, t, method, temporary / PICTURE, look)

    def parts(self, generator: Generator, data: Data, wish: PanelWish) -> list[tuple[str, Sheet]]:
        """Return spectrograms, as images are shown."""
        return [
            (title.replace("test image", "test recording"), sheet)
            for title, sheet in self._pictures.parts(generator, data, wish)
        ]


def _plain(label: object) -> str:
    """Return a label as a part of a file's name."""
    return "".join(letter if letter.isalnum() else "_" for letter in str(label))[:40]
