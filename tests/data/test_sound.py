"""Recordings: one rate, one channel, one length, and what is said of it; what is no sound is refused in one line."""

import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.signal import resample_poly

from expost.config import SoundConfig
from expost.data import DATASETS, load_data, load_named
from expost.data.examples import Overrules
from expost.data.sound import Header, settled, wave_of
from expost.data.spectrogram import Spectrogram, hertz_of, mel_of
from expost.errors import DataError, UsageError
from expost.utils import extras
from sounds import tone, tones, write

soundfile = pytest.importorskip("soundfile", reason="reading sound needs soundfile")
SOUND = SoundConfig(rate=8000, frames=32, mels=64, hop=80, window=256)


def loudest(image):
    """The frequencies that the loudest band of an image spans."""
    mels = image.shape[1]
    edges = hertz_of(np.linspace(0, float(mel_of(np.array(4000.0))), mels + 2))
    band = mels - 1 - int(image[0].float().mean(1).argmax())
    return edges[band], edges[band + 2]


def test_a_folder_of_recordings_becomes_frames(tmp_path):
    data = load_data(tones(tmp_path / "tones"), seconds=0.31, mels=48)
    assert data.shape == (1, 48, 32)
    assert data.sound == SoundConfig(8000, 32, 48, 80, 256)
    assert "12 recordings as 32 frames of 48 bands" in data.note
    assert "12 of 12 cut at their end" in data.note
    assert "resampled" not in data.note


def test_frames_are_those_of_the_file(tmp_path):
    folder = tones(tmp_path / "tones")
    data = load_data(folder, seconds=0.31)
    given = {Spectrogram(data.sound).images(torch.tensor(wave_of("a", file, data.sound))[None]).numpy().tobytes()
             for file in folder.iterdir()}  # fmt: skip
    found = {x.numpy().tobytes() for split in (data.train, data.validation, data.test) for x in split.x}
    assert found == given


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_every_width_of_samples_is_read(tmp_path, subtype):
    values = tone(440)
    soundfile.write(tmp_path / "a.wav", values, 8000, subtype=subtype)
    found = wave_of("a.wav", tmp_path / "a.wav", SOUND)
    np.testing.assert_allclose(found, values[: SOUND.samples], atol=1 / 127 if subtype == "PCM_U8" else 1e-4)


def test_channels_are_averaged_and_rates_resampled(tmp_path):
    """As scipy resamples the mean of the channels; what lies beyond the cut plays no part."""
    both = np.stack([tone(500, 44100, 2), tone(900, 44100, 2)], axis=1)
    soundfile.write(tmp_path / "a.wav", both, 44100, subtype="DOUBLE")
    expected = resample_poly(both.mean(1), 80, 441)[: SOUND.samples]
    np.testing.assert_allclose(wave_of("a.wav", tmp_path / "a.wav", SOUND), expected, atol=1e-9)


def test_mixed_rates_and_channels_are_brought_to_the_commonest(tmp_path):
    tones(tmp_path / "a" / "low", 8)
    for index in range(3):
        both = np.stack([tone(1000, 44100, 0.7)] * 2, axis=1)
        write(tmp_path / "a" / "high" / f"{index}.wav", both, 44100)
    data = load_data(tmp_path / "a")
    assert data.sound.rate == 8000
    assert "3 of 11 resampled from 44,100 Hz" in data.note
    assert "3 of 11 made mono by the mean of their channels" in data.note
    assert data.classes == ("high", "low")
    high = data.train.x[data.train.y == 0][0]
    low, up = loudest(high)
    assert low < 1000 < up


@pytest.mark.parametrize("length", [0.4, 1.0, 30.0])
def test_the_usual_length_holds_most_recordings(length):
    headers = [Header(8000, 1, round(8000 * length))] * 95 + [Header(8000, 1, 8000 * 40)] * 5
    sound = settled(headers, Overrules())
    assert sound.frames % 16 == 0
    assert sound.seconds >= length if length < 1.27 else sound.frames == 128
    assert sound.seconds < length + 0.16 or sound.frames == 32


def test_archives_are_read_as_the_folders_that_they_unpack_to(tmp_path):
    folder = tones(tmp_path / "tones")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, f"tones/{file.name}")
        archive.writestr("tones/README.md", "tones")
    packed, plain = load_data(tmp_path / "a.zip"), load_data(folder)
    assert torch.equal(packed.train.x, plain.train.x)
    assert "ignored 1 other file in the archive" in packed.note


def test_flac_is_read(tmp_path):
    for index in range(4):
        (tmp_path / "f").mkdir(exist_ok=True)
        soundfile.write(tmp_path / "f" / f"{index}.flac", tone(400 + 100 * index), 8000)
    assert load_data(tmp_path / "f").train.x.any()


def test_silence_is_said_and_nothing_but_silence_refused(tmp_path):
    folder = tones(tmp_path / "a")
    write(folder / "03.wav", np.zeros(4000))
    assert "1 of 12 silent" in load_data(folder).note
    for index in range(5):
        write(tmp_path / "b" / f"{index}.wav", np.zeros(4000))
    with pytest.raises(DataError, match="all recordings of the training part are silent"):
        load_data(tmp_path / "b")


def _cut(path):
    path.write_bytes(path.read_bytes()[:4000])


def _flac(path):
    path.unlink()
    soundfile.write(path.with_suffix(".flac"), np.random.default_rng(0).normal(size=4000) * 0.1, 8000)
    _cut(path.with_suffix(".flac"))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_cut, r"05\.wav is cut short: 4,000 bytes where its header says 8,044; restore it"),
        (_flac, r"05\.flac"),
        (lambda path: path.write_bytes(b""), r"05\.wav is empty; restore or remove it"),
        (lambda path: write(path, np.zeros(0)), r"05\.wav holds no samples; remove it"),
        (lambda path: path.write_text("some text\n" * 30), r"05\.wav: no sound that can be decoded .*ffmpeg"),
        (
            lambda path: soundfile.write(path, np.r_[tone(400), np.nan][::-1], 8000, subtype="FLOAT"),
            r"05\.wav holds NaN or infinity",
        ),
    ],
    ids=["cut", "flac cut", "empty", "no samples", "text", "NaN"],
)
def test_one_bad_file_is_named(tmp_path, damage, said):
    folder = tones(tmp_path / "a")
    damage(folder / "05.wav")
    with pytest.raises(DataError, match=said) as raised:
        load_data(folder)
    assert "\n" not in str(raised.value)


def test_formats_that_are_not_read_say_how_to_convert_them(tmp_path):
    for index in range(3):
        (tmp_path / f"{index}.mp3").write_bytes(b"ID3" + bytes(500))
    with pytest.raises(DataError, match=r"only 3 other files .* convert them to WAV: ffmpeg -i FILE FILE.wav"):
        load_data(tmp_path)


def test_without_soundfile_the_error_names_the_extra(tmp_path, monkeypatch):
    def absent(name):
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(extras.importlib, "import_module", absent)
    with pytest.raises(UsageError, match=r"soundfile; install it with: pip install 'expost\[sound\]'"):
        load_data(tones(tmp_path / "a", 3))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"rate": 100}, "rate is 100; give 1,000 to 384,000"),
        ({"seconds": 0.001}, "seconds is 0.001"),
        ({"mels": 0}, "mels is 0; give 1 to 1024"),
        ({"mels": 500}, "hold no frequency"),
        ({"size": 32}, "these are recordings, not images"),
        ({"layout": "NHW"}, "layout is for NumPy arrays"),
    ],
)
def test_options_out_of_range_or_of_others_are_refused(tmp_path, asked, said):
    with pytest.raises(UsageError, match=said):
        load_data(tones(tmp_path / "a", 4), **asked)
    if "rate" in asked:
        with pytest.raises(UsageError, match="rate is for files and folders, and digits is a named set"):
            load_data("digits", **asked)


@pytest.fixture
def spoken(tmp_path, monkeypatch):
    """Digits by four made-up speakers, whose pitch tells them apart."""
    for digit in range(10):
        for number, speaker in enumerate(("ann", "bob", "cy", "dee")):
            for take in range(2):
                values = tone(300 + 60 * digit) + 0.3 * tone(2000 + 400 * number)
                write(tmp_path / "fsdd" / "recordings" / f"{digit}_{speaker}_{take}.wav", values)
    monkeypatch.setenv("EXPOST_DATA", str(tmp_path))
    return replace(DATASETS["fsdd"], counts=(40, 20, 20))


def test_two_speakers_of_spoken_digits_are_held_out(spoken):
    data = load_named("fsdd", spoken)
    assert data.shape == (1, 64, 64)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [40, 20, 20]
    assert "speakers ann, bob for training, cy for validation, dee for test" in data.note
    for part in (data.train, data.validation, data.test):
        assert torch.bincount(part.y).tolist() == [len(part) // 10] * 10
    # the digit of each is heard in it, and the speaker of the test part
    for x, digit in zip(data.train.x, data.train.y.tolist(), strict=True):
        low, up = loudest(x)
        assert low < 300 + 60 * digit < up
    by_speaker = load_named("fsdd", spoken, overrules=Overrules(label_column="Speaker"))
    assert by_speaker.classes == ("ann", "bob", "cy", "dee")
    assert set(by_speaker.test.y.tolist()) == {3}
    assert torch.equal(by_speaker.test.x, data.test.x)
    with pytest.raises(UsageError, match="label_column is 'age'; fsdd has digit and speaker"):
        load_named("fsdd", spoken, overrules=Overrules(label_column="age"))
    assert load_named("fsdd", spoken, overrules=Overrules(mels=32)).shape == (1, 32, 64)


def test_another_number_of_spoken_digits_is_refused(spoken):
    with pytest.raises(DataError, match="40 examples in part 'train' where the set has 2,000"):
        load_data("fsdd")


def test_the_real_spoken_digits(shared_data, monkeypatch):
    monkeypatch.setenv("EXPOST_DATA", str(shared_data))
    data = load_data("fsdd", limit=40)
    assert "225 of 3,000 cut at their end, 2,774 padded with silence" in data.note
    assert "speaker4 for validation, speaker5 for test" in data.note
