"""Sound, to be explored: spectrograms as images are shown, with what they sound like."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from markupsafe import Markup
from torch import Tensor

from expost.config import SoundConfig
from expost.data.examples import Preprocess
from expost.data.single import Form
from expost.data.sound import SUFFIXES, header, wave_of
from expost.data.spectrogram import Spectrogram
from expost.examples.pictures import to_bytes
from expost.examples.waves import data_uri, joined, wav
from expost.explorer.images import Images
from expost.explorer.kinds import File, Given, Neighbours, TensorKind, suffix_of
from expost.explorer.markup import join
from expost.generators.generator import Generator


class Sounds(TensorKind):
    """Log-mel frames: floats in [0, 1], shape (N, 1, mels, frames).

    Args:
        generator: From the trained model.
        sound: How recordings became frames.
        train: Training frames that others are compared with, uint8.
    """

    noun = "recording"
    accept = (".wav", ".flac", *sorted(SUFFIXES - {".wav", ".flac"}))

    def __init__(self, generator: Generator, sound: SoundConfig, train: Tensor) -> None:
        super().__init__(generator)
        self._sound = sound
        self._spectrogram = Spectrogram(sound)
        self._images = Images(generator, Form((1, sound.mels, sound.frames), Preprocess()), train)

    def of_rows(self, x: Tensor) -> Tensor:
        """Return frames of a data set as floats."""
        return self._images.of_rows(x)

    def read(self, body: bytes, name: str) -> Given[Tensor]:
        """Read a sound file, and bring it to what the run's data are.

        Raises:
            DataError: if it is no sound, or damaged.
            UsageError: for another suffix, and if soundfile is not installed.
        """
        suffix_of(name, self.accept)
        head = header("the file", body)
        wave = torch.from_numpy(wave_of("the file", body, self._sound))[None]
        seconds = head.samples / head.rate
        said = [f"{seconds:.3g} s at {head.rate:,} Hz", "mono" if head.channels == 1 else f"{head.channels} channels"]
        if head.channels > 1:
            said.append("mixed to one")
        if head.rate != self._sound.rate:
            said.append(f"resampled to {self._sound.rate:,} Hz")
        if seconds > self._sound.seconds:
            said.append(f"cut to {self._sound.seconds:g} s")
        elif seconds < self._sound.seconds:
            said.append(f"padded with silence to {self._sound.seconds:g} s")
        return Given(self._spectrogram.images(wave).float().div(255), ", ".join(said))

    def parse(self, text: str) -> Tensor:
        """Refuse: recordings are not typed."""
        return self._images.parse(text)

    def text(self, items: Tensor) -> str:
        """Return nothing: recordings are not typed."""
        return self._images.text(items)

    def size(self, items: Tensor) -> int:
        """Return the bytes of the floats."""
        return self._images.size(items)

    def one(self, items: Tensor) -> Markup:
        """Show a spectrogram, large, with its sound."""
        return join([self._images.one(items), self._player(items[:1], "The decoded recording")])

    def small(self, items: Tensor) -> Markup:
        """Show a spectrogram at half that size, with its sound."""
        return join([self._images.small(items), self._player(items[:1], "The chosen recording")])

    def sheet(self, items: Tensor) -> Markup:
        """Show spectrograms in a grid, and play all of them."""
        return join([self._images.sheet(items), self._player(items, "All of them, row by row")])

    def pair(self, item: Tensor, back: Tensor) -> Markup:
        """Show a spectrogram and its reconstruction, with the sound of both."""
        return join(
            [
                self._images.pair(item, back),
                self._player(item, "The recording, of its frames"),
                self._player(back, "The reconstruction"),
            ]
        )

    def path(self, items: Tensor) -> Markup:
        """Show the steps in a row, and play them in order."""
        return join([self._images.path(items), self._player(items, "The steps in order")])

    def row(self, items: Tensor, captions: Sequence[str]) -> Markup:
        """Show a few spectrograms with captions, and play them in order."""
        return join([self._images.row(items, captions), self._player(items, "These in order")])

    def nearest(self, item: Tensor, n: int) -> Neighbours:
        """Return the training recordings whose frames are nearest, by Euclidean distance."""
        found = self._images.nearest(item, n)
        return Neighbours("distance of frames", found.indices, found.distances)

    def files(self, items: Tensor, stem: str) -> list[File]:
        """Return a WAV, a PNG, and frames as .npy, uint8."""
        rate = self._sound.rate
        sound = File(f"{stem}.wav", "audio/wav", lambda: wav(self._joined(items), rate))
        return [sound, *self._images.files(items, stem)]

    def _joined(self, items: Tensor) -> Tensor:
        return joined(self._spectrogram.waves(to_bytes(items)), self._sound.rate)

    def _player(self, items: Tensor, what: str) -> Markup:
        address = data_uri(self._joined(items), self._sound.rate)
        player = '<figure><audio controls src="{}" aria-label="{}"></audio><figcaption>{}</figcaption></figure>'
        return Markup(player).format(address, what, what)
