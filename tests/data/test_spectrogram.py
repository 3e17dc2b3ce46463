"""Log-mel frames and their inverse: Slaney's filters, a sine's bin, Griffin-Lim on real digits."""

import io
import zipfile

import numpy as np
import pytest
import torch

from expost.config import SoundConfig
from expost.data.spectrogram import Spectrogram, hertz_of, mel_filters, mel_of
from expost.errors import UsageError
from sounds import tone

SOUND = SoundConfig(rate=8000, frames=64, mels=64, hop=80, window=256)


def test_the_mel_scale_is_slaneys():
    hertz = np.array([0.0, 100.0, 999.0, 1000.0, 2000.0, 6400.0])
    np.testing.assert_allclose(hertz_of(mel_of(hertz)), hertz, atol=1e-9)
    np.testing.assert_allclose(
        mel_of(np.array([500.0, 6400.0])), [7.5, 42.0]
    )  # 27 steps an octave and more, to 6.4 kHz


@pytest.mark.parametrize(("rate", "window", "mels"), [(8000, 256, 64), (16000, 512, 80), (44100, 1440, 40)])
def test_filters_are_triangles_of_area_one(rate, window, mels):
    weights = mel_filters(rate, window, mels)
    assert weights.shape == (mels, window // 2 + 1)
    edges = hertz_of(np.linspace(0, float(mel_of(np.array(rate / 2))), mels + 2))
    f = np.arange(window // 2 + 1) * rate / window
    for band in range(0, mels, 7):
        low, middle, high = edges[band : band + 3]
        expected = np.interp(f, [low, middle, high], [0, 2 / (high - low), 0])
        np.testing.assert_allclose(weights[band], expected, atol=1e-12)
    wide = weights[-1]
    assert wide.sum() * rate / window == pytest.approx(1, rel=0.1)  # an area of 1, to what sampling it leaves


def test_filters_are_those_of_librosa():
    """librosa.filters.mel(sr=8000, n_fft=64, n_mels=4) of librosa 0.11.0, its first and its last band."""
    weights = mel_filters(8000, 64, 4)
    first = [0.000568645907, 0.001137291814, 0.001705937721, 0.001991171759, 0.001422525852, 0.000853879945]
    last = [0.000263025915, 0.000197269436, 0.000131512957, 6.5756479e-05]
    np.testing.assert_allclose(weights[0, :8], [0, *first, 0.000285234038], atol=1e-12)
    np.testing.assert_allclose(weights[3, 28:], [*last, 0], atol=1e-12)
    assert (weights[:, 19] > 0).tolist() == [False, False, True, True]


def test_bands_without_a_frequency_are_refused():
    with pytest.raises(UsageError, match="mels is 200: at 8,000 Hz, .* bands of them would hold no frequency"):
        mel_filters(8000, 256, 200)


@pytest.mark.parametrize("hertz", [250, 1000, 3000])
def test_a_sine_peaks_in_its_band(hertz):
    image = Spectrogram(SOUND).images(torch.tensor(tone(hertz, seconds=SOUND.seconds))[None])[0, 0]
    assert image.max() == 255
    edges = hertz_of(np.linspace(0, float(mel_of(np.array(4000.0))), 66))
    band = 63 - int(image[:, 32].int().argmax())  # the highest band is drawn on top
    assert edges[band] < hertz < edges[band + 2]


def test_a_level_is_in_decibels_below_the_loudest():
    """Half the amplitude is 6.02 dB less, of the 60 that are kept."""
    first = tone(1000, seconds=SOUND.seconds)
    first[len(first) // 2 :] *= 0.5
    image = Spectrogram(SOUND).images(torch.tensor(first)[None])[0, 0].float()
    loud, soft = image[:, 16].max(), image[:, 48].max()
    assert float(loud - soft) == pytest.approx(255 * 20 * np.log10(2) / 60, abs=0.6)


def test_loudness_is_not_kept_and_silence_stays_silent():
    spectrogram, wave = Spectrogram(SOUND), torch.tensor(tone(700, seconds=SOUND.seconds))
    images = spectrogram.images(torch.stack([wave, 0.01 * wave, 0 * wave]))
    assert torch.equal(images[0], images[1])
    assert not images[2].any()
    assert not spectrogram.waves(images[2:]).any()


def test_a_wave_comes_back_from_its_own_transform():
    spectrogram = Spectrogram(SOUND)
    wave = torch.randn(2, SOUND.samples, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(spectrogram.invert(spectrogram.transform(wave)), wave)


@pytest.mark.parametrize("hertz", [440, 1800])
def test_a_tone_comes_back_at_its_pitch(hertz):
    """The strongest frequency of what is made of its frames is within half a band of the tone."""
    spectrogram = Spectrogram(SOUND)
    wave = spectrogram.waves(spectrogram.images(torch.tensor(tone(hertz, seconds=SOUND.seconds))[None]))[0]
    assert wave.abs().max() == pytest.approx(0.9, abs=1e-6)
    strongest = float(np.abs(np.fft.rfft(wave.numpy())).argmax()) * 8000 / SOUND.samples
    assert abs(float(mel_of(np.array(strongest)) - mel_of(np.array(float(hertz))))) < 0.6


def test_griffin_lim_converges_on_real_digits(shared_data):
    """To 5 % of whole spectra, and to 3 dB of log-mel frames."""
    pytest.importorskip("soundfile", reason="reading sound needs soundfile")
    import soundfile

    waves = np.zeros((6, SOUND.samples))
    with zipfile.ZipFile(shared_data / "fsdd" / "recordings.zip") as archive:
        for row, name in enumerate(archive.namelist()[::500]):
            values, rate = soundfile.read(io.BytesIO(archive.read(name)))
            assert rate == 8000
            waves[row, : len(values)] = values[: SOUND.samples]
    spectrogram = Spectrogram(SOUND)
    magnitudes = spectrogram.transform(torch.tensor(waves)).abs()
    found = spectrogram.griffin_lim(magnitudes)
    assert float(spectrogram.convergence(found, magnitudes).mean()) < 0.05
    # of log-mel frames the pseudo-inverse is no spectrum of a sound, and what comes back is near it all the same
    images = spectrogram.images(torch.tensor(waves))
    again = spectrogram.images(spectrogram.waves(images)).double()
    assert float((again - images.double()).square().mean().sqrt()) * SOUND.decibels / 255 < 3.0  # dB


def test_settings_out_of_range_are_refused():
    with pytest.raises(UsageError, match="window is 100"):
        SoundConfig(8000, 64, 64, 80, 100)
    with pytest.raises(UsageError, match="decibels is 0"):
        SoundConfig(8000, 64, 64, 80, 256, decibels=0)
