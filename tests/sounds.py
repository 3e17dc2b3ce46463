"""Folders of recordings for tests: tones that tell themselves apart, written without soundfile."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np


def tone(hertz: float, rate: int = 8000, seconds: float = 0.5) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)


def write(path: Path, values: np.ndarray, rate: int = 8000) -> Path:
    """Write a 16-bit WAV; values (T,) or (T, channels)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = values[:, None] if values.ndim == 1 else values
    with wave.open(str(path), "wb") as file:
        file.setnchannels(columns.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((columns * 32767).round().astype("<i2").tobytes())
    return path


def tones(folder: Path, count: int = 12, rate: int = 8000, seconds: float = 0.5) -> Path:
    """Fill a folder with tones of rising pitch, with a little noise."""
    source = np.random.default_rng(0)
    for index in range(count):
        values = tone(300 + 50 * index, rate, seconds)
        write(folder / f"{index:02d}.wav", values + 0.003 * source.normal(size=len(values)), rate)
    return folder
