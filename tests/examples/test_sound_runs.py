"""A run on recordings, end to end: WAVs out, playback in report and explorer, scores, and the comparison."""

import base64
import io
import re
import wave
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from PIL import Image

import expost
from expost.commands.listing import DataShown
from expost.commands.listing import data as show_data
from expost.commands.reporting import report
from expost.config import SoundConfig
from expost.data.spectrogram import Spectrogram
from expost.errors import DataError, UsageError
from expost.evaluation.protocol import Protocol, bundled_features, pick_space, resolve_features
from expost.evaluation.spoken import intended_digits, kept_digits
from expost.examples import kind_of, kind_of_run
from expost.examples.waves import PAUSE, data_uri, joined, wav
from expost.experiments import reproduce, sound_report
from expost.experiments import sound as comparison
from expost.explorer.explored import Explored
from expost.generators.generator import Generator
from expost.metrics.spoken_digits import HEARD, load_spoken_digit_network, recognized
from expost.run import Run
from expost.types import Data, Split
from sounds import tone, tones, write

pytest.importorskip("soundfile", reason="reading sound needs soundfile")


def heard(path):
    """The samples of a WAV file, in [-1, 1], and its rate."""
    content = io.BytesIO(path) if isinstance(path, bytes) else str(path)
    with wave.open(content, "rb") as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32767, file.getframerate()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on rising tones of two classes."""
    folder = tmp_path_factory.mktemp("sound")
    for index in range(40):
        values = tone(300 + 40 * index, seconds=0.31)
        write(folder / "tones" / ("low" if index < 20 else "high") / f"{index:02d}.wav", values)
    made = expost.train(
        "rae-l2", folder / "tones", folder / "run", epochs=2, width=4, latent_dim=4, batch_size=16, mels=32,
        seconds=0.31, tensorboard=False, precision="float32",
    )  # fmt: skip
    expost.fit(made, "gaussian")
    expost.fit(made, "gaussian", by="label")
    return made


def test_a_run_keeps_all_that_turns_frames_into_sound(run):
    config = Run.open(run.folder).config
    assert config.data.sound == SoundConfig(8000, 32, 32, 80, 256)
    assert config.model.shape == (1, 32, 32)
    assert kind_of_run(config).name == "sound"
    assert kind_of((1, 32, 32)).name == "images"
    assert kind_of((1, 32, 32), sound=True).name == "sound"


def test_samples_are_wavs_of_the_frames_that_are_drawn(run, tmp_path):
    folder = expost.sample(run, n=3, out=tmp_path / "s", seed=5)
    assert sorted(file.name for file in folder.iterdir()) == ["00000.wav", "00001.wav", "00002.wav", "spectrograms.png"]
    frames = np.load(expost.sample(run, n=3, out=tmp_path / "s.npy", seed=5))
    assert frames.shape == (3, 1, 32, 32)
    assert frames.dtype == np.uint8
    expected = Spectrogram(run.config.data.sound).waves(torch.tensor(frames)).numpy()
    for index in range(3):
        values, rate = heard(folder / f"{index:05d}.wav")
        assert rate == 8000
        np.testing.assert_allclose(values, expected[index], atol=1 / 32000)
    together, _ = heard(expost.sample(run, n=3, out=tmp_path / "s.wav", seed=5))
    pause = round(PAUSE * 8000)
    assert len(together) == 3 * 2480 + 2 * pause
    np.testing.assert_allclose(together[2480 + pause : 2 * 2480 + pause], expected[1], atol=1 / 32000)
    assert not together[2480 : 2480 + pause].any()


def test_samples_by_label_carry_it_in_their_names(run, tmp_path):
    folder = expost.sample(run, n=2, out=tmp_path / "s", label="high")
    assert (folder / "00001-high.wav").exists()


def test_pairs_and_paths_are_heard_in_order(run, tmp_path):
    folder = expost.reconstruct(run, tmp_path / "r", n=2)
    spectrogram, x = Spectrogram(run.config.data.sound), run.data().test.x
    original, _ = heard(folder / "00001-original.wav")
    np.testing.assert_allclose(original, spectrogram.waves(x[-1:])[0].numpy(), atol=1 / 32000)
    assert (folder / "00001-reconstruction.wav").exists()
    steps, _ = heard(expost.interpolate(run, tmp_path / "p", n=1, steps=4) / "00000.wav")
    assert len(steps) == 4 * 2480 + 3 * round(PAUSE * 8000)
    with Image.open(expost.panel(run, tmp_path / "p.png")) as picture:
        assert picture.width > 200
    with pytest.raises(UsageError, match=r"cannot write this as 's.mp3'; give one of: a folder, .wav"):
        expost.sample(run, out=tmp_path / "s.mp3")


def test_a_data_set_of_sound_is_shown_as_spectrograms(run, tmp_path):
    shown = show_data(str(run.config.data.name), out=str(tmp_path / "d.png"), mels=32, seconds=0.31)
    assert isinstance(shown, DataShown)
    assert "log-mel frames of 0.31 s at 8,000 Hz" in shown.description
    with Image.open(shown.file) as picture:
        assert picture.width > 64


def test_the_report_plays_what_it_shows(run, tmp_path):
    page = report((run.folder,), tmp_path / "page.html").read_text()
    assert "media-src data:" in page
    sounds = re.findall(r'<audio[^>]*src="data:audio/wav;base64,([^"]*)"[^>]*aria-label="([^"]*)"', page)
    names = [name for _, name in sounds]
    assert names[:2] == ["recording", "reconstruction"]
    assert "sample 0 from gaussian" in names
    for content, name in sounds:
        values, rate = heard(base64.b64decode(content))
        assert rate == 8000, name
        assert len(values) >= 2480, name
    assert len(page) < 3_000_000


def test_the_explorer_plays_and_reads_recordings(run, tmp_path):
    explored = Explored.of(run, 100, "cpu")
    drawn = explored.sample("gaussian", 2)
    page = str(explored.kind.sheet(drawn.items)) + str(explored.kind.one(drawn.items))
    assert page.count("<audio") == 2
    both = np.stack([tone(500, 16000, 1.0)] * 2, axis=1)
    body = write(tmp_path / "up.wav", both, 16000).read_bytes()
    given = explored.kind.read(body, "up.wav")
    assert given.said == "1 s at 16,000 Hz, 2 channels, mixed to one, resampled to 8,000 Hz, cut to 0.31 s"
    spectrogram = Spectrogram(run.config.data.sound)
    same = spectrogram.images(torch.tensor(tone(500, seconds=0.31))[None]).float() / 255
    assert float((given.items - same).abs()[..., 2:-2].mean()) < 0.02
    assert explored.kind.nearest(given.items, 1).title == "distance of frames"
    files = {file.name: file for file in explored.kind.files(drawn.items, "s")}
    assert len(heard(files["s.wav"].contents())[0]) == 2 * 2480 + round(PAUSE * 8000)
    with pytest.raises(DataError, match="no sound that can be decoded"):
        explored.kind.read(b"no sound at all, but text", "up.wav")
    with pytest.raises(UsageError, match=r"cannot read 'up.mid'; give one of: .wav, .flac"):
        explored.kind.read(body, "up.mid")


def test_scores_of_sound(run):
    scores = {(score.of, score.name) for score in expost.evaluate(run, measures=("frechet",), allow_few=True)}
    assert ("reconstruction", "mse") in scores
    assert ("gaussian", "frechet-pixels") in scores
    with pytest.raises(UsageError, match="spoken-digits' are of sound as fsdd has it.* mels 32 instead of 64"):
        pick_space("spoken-digits", run.data())


def test_sound_on_pages_and_in_files_is_the_same():
    values = torch.tensor([0.0, 0.5, -1.0, 2.0])
    samples, rate = heard(wav(values, 11025))
    assert rate == 11025
    np.testing.assert_allclose(samples, [0, 0.5, -1, 1], atol=1 / 32000)
    assert base64.b64decode(data_uri(values, 11025).partition(",")[2]) == wav(values, 11025)
    assert joined([values, values], 8, 0.25).tolist() == [*values.tolist(), 0, 0, *values.tolist()]


# Spoken digits


def speaker(data, wrong=(), labels=tuple(range(10))):
    """A generator that gives recordings back, and for a label those of that digit, or of the next if it is wrong."""

    class Speaker(Generator):
        def sample(self, n, density=None, seed=0, label=None, temperature=1.0):
            spoken = data.test.x[data.test.y == ((label + 1) % 10 if label in wrong else label)]
            return spoken[torch.arange(n) % len(spoken)].float() / 255

    by_label: Any = SimpleNamespace(labels=labels)
    return Speaker(lambda x: x, lambda z: z, by_label={"gaussian": by_label})


@pytest.fixture(scope="module")
def digits(shared_data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXPOST_DATA", str(shared_data))
        return expost.load_data("fsdd")


def test_the_classifier_is_as_right_as_its_file_says(digits):
    _, facts = load_spoken_digit_network()
    assert digits.sound == HEARD
    for split, name in ((digits.validation, "validation"), (digits.test, "test")):
        right = float((recognized(split.x) == split.y).double().mean())
        assert right == pytest.approx(facts[f"{name}_accuracy"], abs=0.005)
    assert facts["test_accuracy"] > 0.85  # of a speaker whom it has never heard


def test_digits_are_heard_as_intended(digits):
    data = replace(digits, test=Split(digits.train.x[::4], digits.train.y[::4]))  # the classifier knows these speakers
    (all_right,) = intended_digits(speaker(data), "gaussian", data, Protocol(), "m", "test")
    (some_wrong,) = intended_digits(speaker(data, wrong=(3, 7)), "gaussian", data, Protocol(), "m", "test")
    assert all_right.value > 0.99
    assert some_wrong.value == pytest.approx(all_right.value - 0.2, abs=0.01)
    assert (all_right.of, all_right.name) == ("gaussian by label", "intended-digit")
    (kept,) = kept_digits(speaker(data), data, Protocol(), "m", "test")
    right = float((recognized(data.test.x) == data.test.y).double().mean())
    assert kept.value == pytest.approx(right)
    assert kept.card.settings["right about the test recordings"] == round(right, 4)
    (few,) = kept_digits(speaker(data), data, Protocol(samples=50), "m", "test")
    assert few.card.count == 50


def test_labels_that_are_no_digits_have_no_such_scores(digits):
    named = replace(digits, classes=tuple(f"word {index}" for index in range(10)))
    assert kept_digits(speaker(named), named, Protocol(), "m", "test") == []
    assert intended_digits(speaker(named, labels=("ann", "bob")), "gaussian", named, Protocol(), "m", "test") == []


def test_the_features_of_sound_are_those_that_heard_such_sound(digits):
    assert bundled_features(digits) == resolve_features("auto", digits) == "spoken-digits"
    other = replace(digits, sound=replace(HEARD, rate=16000))
    assert bundled_features(other) == "pixels"
    x = torch.zeros(2000, 1, 64, 64, dtype=torch.uint8)
    own = Data("mine", Split(x), Split(x), Split(x), sound=HEARD)
    assert resolve_features("auto", own) == "pixels"  # Inception has seen photographs


# The comparison


def test_models_are_compared_at_equal_time(tmp_path, monkeypatch):
    prior = {"autoregressive": {"width": 8, "depth": 1, "heads": 1, "steps": 5}}
    scale = comparison.Scale("small", 1.0, width=4, latent_dim=4, densities=prior)
    monkeypatch.setitem(comparison.SCALES._entries, "smoke", scale)
    tones(tmp_path / "tones", 60, seconds=0.31)
    words = {"dataset": str(tmp_path / "tones"), "models": ("rae-l2", "vq-vae"), "out": tmp_path / "out", "workers": 1}
    reproduce("sound", **words)
    text = (tmp_path / "out" / "table.md").read_text()
    assert "| rae-l2 |" in text
    assert "| vq-vae |" in text
    assert "- MSE: best is" in text
    assert "frechet-pixels of real recordings against the same test recordings" in text
    table = (tmp_path / "out" / "table.csv").read_text().splitlines()
    assert [line.partition(",")[0] for line in table] == ["model", "rae-l2", "vq-vae"]
    sound, rate = heard(tmp_path / "out" / "wav" / "rae-l2" / "samples-gmm.wav")
    assert rate == 8000
    assert len(sound) > 8000
    assert (tmp_path / "out" / "wav" / "vq-vae" / "samples-autoregressive.wav").exists()
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out" / "cells").iterdir()}
    reproduce("sound", **words)  # nothing is left to do
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "out" / "cells").iterdir()} == before


def test_what_a_comparison_says():
    def cell(value, error, name="frechet-x", of="gmm"):
        return {"scores": [{"name": name, "of": of, "value": value, "error": error}]}

    rows = {"rae": [cell(5.0, 0.1)], "rae-l2": [cell(5.2, 0.1)], "ae": [cell(9.0, 0.1)]}
    said = "\n".join(sound_report.findings(rows, ["GMM"]))
    assert "GMM: best is rae (5); not told apart from it: rae-l2." in said
    own = cell(6.0, 0.1, of="standard-normal")
    said = "\n".join(sound_report.findings({**rows, "vae": [own]}, ["GMM"]))
    assert "RAE with a mixture ex post below the VAE's own prior: 2 of 2 (rae, rae-l2)." in said
    kept = {
        "ae": [cell(0.9, 0.01, "kept-digit", "reconstruction")],
        "vae": [cell(0.5, 0.01, "kept-digit", "reconstruction")],
    }
    said = "\n".join(sound_report.findings(kept, ["kept digit"]))
    assert "kept digit: best is ae (0.9); all others are worse beyond the intervals." in said


def test_what_a_comparison_of_several_seeds_says():
    def cells(*values):
        return [
            {"scores": [{"name": "frechet-x", "of": "gmm", "value": value, "error": 0.001}], "epochs": 1}
            for value in values
        ]

    # the first seed's order is another than the means', whose difference is within what seeds differ by
    rows = {"rae": cells(5.0, 6.0, 7.0), "ae": cells(5.4, 5.5, 5.6), "wae-mmd": cells(9.0, 9.1, 9.2)}
    said = "\n".join(sound_report.findings(rows, ["GMM"]))
    assert "GMM: best is ae (5.5); not told apart from it: rae." in said
    mean, half = sound_report.interval([(5.0, 0.1), (6.0, 0.1), (7.0, 0.1)])
    expected = scipy.stats.ttest_1samp([5.0, 6.0, 7.0], 0).confidence_interval(0.95)
    assert (mean - half, mean + half) == pytest.approx((expected.low, expected.high))


def test_other_data_than_sound_are_refused(tmp_path):
    with pytest.raises(UsageError, match="data set 'digits' is no sound"):
        reproduce("sound", dataset="digits", out=tmp_path / "out")
    with pytest.raises(UsageError, match="features is no option of sound"):
        reproduce("sound", features="pixels", out=tmp_path / "out")
