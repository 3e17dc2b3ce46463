"""Waveforms as WAV: files, bytes, and addresses of pages that hold the sound itself."""

from __future__ import annotations

import base64
import io
import wave
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from expost.utils.store import replacing

#: Seconds of silence between sounds in one file.
PAUSE = 0.25


def wav(samples: Tensor, rate: int) -> bytes:
    """Return a WAV file: mono, 16 bits.

    Args:
        samples: Shape (T,), in [-1, 1]; beyond that they are clipped.
        rate: Samples a second.

    Example:
        >>> len(wav(torch.zeros(100), 8000))
        244
    """
    buffer = io.BytesIO()
    values = samples.double().clamp(-1, 1).mul(32767).round().cpu().numpy().astype("<i2")
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.ascontiguousarray(values).tobytes())
    return buffer.getvalue()


def write_wav(samples: Tensor, rate: int, path: Path) -> None:
    """Write a WAV file; arguments are those of `wav`."""
    with replacing(path) as temporary:
        temporary.write_bytes(wav(samples, rate))


def joined(sounds: Iterable[Tensor], rate: int, pause: float = PAUSE) -> Tensor:
    """Return sounds one after the other, with silence between them.

    Args:
        sounds: Each of shape (T,).
        rate: Samples a second.
        pause: Seconds of silence.
    """
    silence = torch.zeros(round(pause * rate))
    parts = [part for sound in sounds for part in (sound, silence)]
    return torch.cat(parts[:-1])


def data_uri(samples: Tensor, rate: int) -> str:
    """Return sound as a data URI; arguments are those of `wav`."""
    return f"data:audio/wav;base64,{base64.b64encode(wav(samples, rate)).decode()}"
