"""Log-mel frames of sound, and sound of log-mel frames: a mel pseudo-inverse and the fast Griffin-Lim algorithm."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from expost.config import SoundConfig
from expost.data.examples import Array
from expost.errors import UsageError

#: Slaney's mel scale: linear below this many Hz, logarithmic above.
BREAK = 1000.0
#: Hz of a mel below the break; factor of the frequency of a mel above it.
LINEAR, FACTOR = 200 / 3, 6.4 ** (1 / 27)
#: Pull of the last step on the next one in the fast Griffin-Lim algorithm.
MOMENTUM = 0.99
#: Peak of a waveform that is made.
PEAK = 0.9
_SEED = 0  # of the phases that Griffin-Lim starts from: the same frames give the same sound


def mel_of(hertz: Array) -> Array:
    """Return mels of frequencies in Hz, on Slaney's scale (Auditory Toolbox, 1998).

    Example:
        >>> mel_of(np.array([0.0, 200.0, 1000.0, 6400.0])).round(9).tolist()
        [0.0, 3.0, 15.0, 42.0]
    """
    above = BREAK / LINEAR + np.log(np.maximum(hertz, BREAK) / BREAK) / math.log(FACTOR)
    return np.where(hertz < BREAK, hertz / LINEAR, above)


def hertz_of(mel: Array) -> Array:
    """Return frequencies in Hz of mels: the inverse of `mel_of`."""
    start = BREAK / LINEAR
    return np.where(mel < start, mel * LINEAR, BREAK * FACTOR ** np.maximum(mel - start, 0))


def mel_filters(rate: int, window: int, mels: int) -> Array:
    """Return the weights of triangular bands, evenly spaced in mels from 0 to half the rate, each of area 1 over Hz.

    Band m rises from f[m] to f[m + 1] and falls to f[m + 2]; its weight at frequency f is

        2 / (f[m + 2] - f[m])  max(0, min((f - f[m]) / (f[m + 1] - f[m]), (f[m + 2] - f) / (f[m + 2] - f[m + 1])))

    Args:
        rate: Samples a second.
        window: Samples of the Fourier transform.
        mels: Number of bands.

    Returns:
        float64, shape (mels, window // 2 + 1).

    Raises:
        UsageError: if a band is so narrow that it holds no frequency of the transform.
    """
    edges = hertz_of(np.linspace(0, float(mel_of(np.array(rate / 2))), mels + 2))
    f = np.arange(window // 2 + 1) * (rate / window)
    low, middle, high = (edges[start : start + mels, None] for start in range(3))
    weights = np.maximum(0, np.minimum((f - low) / (middle - low), (high - f) / (high - middle))) * 2 / (high - low)
    empty = int((weights.sum(1) == 0).sum())
    if empty:
        raise UsageError(
            f"mels is {mels}: at {rate:,} Hz, {empty} bands of them would hold no frequency; give a smaller --mels"
        )
    return weights


class Spectrogram:
    """Turns waveforms into log-mel frames and back.

    Args:
        sound: All parameters.
    """

    def __init__(self, sound: SoundConfig) -> None:
        self.sound = sound
        self._filters = mel_filters(sound.rate, sound.window, sound.mels)
        self._window = torch.hann_window(sound.window, dtype=torch.float64)

    @cached_property
    def _inverse(self) -> Tensor:
        return torch.from_numpy(np.linalg.pinv(self._filters))

    def transform(self, waves: Tensor) -> Tensor:
        """Return Fourier transforms of frames, complex, shape (N, window // 2 + 1, frames), of waves (N, samples)."""
        return torch.stft(
            waves.double(),
            self.sound.window,
            self.sound.hop,
            window=self._window,
            center=True,
            pad_mode="constant",
            return_complex=True,
        )

    def invert(self, transforms: Tensor) -> Tensor:
        """Return waves, float64 (N, samples), whose transforms are nearest to those given, by least squares."""
        return torch.istft(
            transforms,
            self.sound.window,
            self.sound.hop,
            window=self._window,
            center=True,
            length=self.sound.samples,
        )

    def images(self, waves: Tensor) -> Tensor:
        """Return log-mel frames as images.

        With P the power of a band and frame and P' the largest of the recording, a pixel is

            255 max(0, 1 + 10 log10(P / P') / decibels),

        rounded. The loudness of a recording is not kept; silence is 0 everywhere.

        Args:
            waves: Shape (N, samples), finite.

        Returns:
            uint8, shape (N, 1, mels, frames), the highest band first, as a picture has it.
        """
        power = torch.from_numpy(self._filters) @ self.transform(waves).abs().square()
        loudest = power.amax((1, 2), keepdim=True)
        ratio = torch.where(loudest > 0, power / loudest, 0.0)
        level = 1 + 10 / self.sound.decibels * ratio.clamp_min(1e-30).log10()
        return (level.clamp(0, 1) * 255).round().to(torch.uint8).flip(1)[:, None]

    def magnitudes(self, images: Tensor) -> Tensor:
        """Return magnitudes of Fourier transforms, float64 (N, window // 2 + 1, frames), by the mel pseudo-inverse.

        Args:
            images: uint8, or floats in [0, 1], shape (N, 1, mels, frames).
        """
        level = images[:, 0].flip(1).double()
        level = (level / 255 if images.dtype == torch.uint8 else level).clamp(0, 1)
        power = torch.where(level > 0, 10 ** ((level - 1) * (self.sound.decibels / 10)), 0.0)
        return (self._inverse @ power).clamp_min(0).sqrt()

    def waves(self, images: Tensor) -> Tensor:
        """Return sound of log-mel frames, each at a peak of 0.9; of silence, zeros.

        Args:
            images: As `images` returns them, or floats in [0, 1].

        Returns:
            float32, shape (N, samples).
        """
        waves = self.griffin_lim(self.magnitudes(images.cpu()))
        peak = waves.abs().amax(1, keepdim=True)
        return torch.where(peak > 0, waves * (PEAK / peak), 0.0).float()

    def griffin_lim(self, magnitudes: Tensor) -> Tensor:
        """Return waves, float64 (N, samples), whose transforms have about these magnitudes.

        The fast algorithm of Perraudin, Balazs and Soendergaard (2013): from random phases, the projection onto the
        transforms of waves, then onto the magnitudes, with momentum between them.

        Args:
            magnitudes: Shape (N, window // 2 + 1, frames).
        """
        source = torch.Generator().manual_seed(_SEED)
        turns = torch.rand(magnitudes.shape[1:], generator=source, dtype=torch.float64) * (2 * math.pi)
        phases = torch.polar(torch.ones_like(turns), turns)
        last: Tensor | float = 0.0
        for _ in range(self.sound.iterations):
            consistent = self.transform(self.invert(magnitudes * phases))
            step = consistent - (MOMENTUM / (1 + MOMENTUM)) * last
            phases, last = torch.sgn(step), consistent
        return self.invert(magnitudes * phases)

    def convergence(self, waves: Tensor, magnitudes: Tensor) -> Tensor:
        """Return the spectral convergence of waves, shape (N,): || |S(waves)| - A || / || A ||, Frobenius norms."""
        off = self.transform(waves).abs() - magnitudes
        return off.flatten(1).norm(dim=1) / magnitudes.flatten(1).norm(dim=1)
