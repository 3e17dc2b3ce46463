"""The sentence on a run: every word from a figure, on both sides of every threshold."""

import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import expost
from expost.commands.reporting import report
from expost.densities import DENSITIES
from expost.errors import Symptom
from expost.evaluation.scores import Card, Score
from expost.report.scoring import headline, read_scores
from expost.report.subject import Subject
from expost.report.verdict import Fidelity, apart, decisive, fidelity, interval, spoken, verdict
from expost.run import Run, Trouble

CARD = Card("m", "digits", "w", "mnist test", "h", 1_000, 1_000, {}, {}, 0, "1", {})


def scored(name, of, value, error=None, ends=None, card=CARD):
    return Score(name, of, value, card, error, ends)


def said(*scores, kept=None, trouble=None):
    return verdict(scores, None if kept is None else Fidelity(kept, "it"), trouble).text


def test_nothing_is_said_without_figures():
    assert verdict([]) is None
    assert verdict([scored("participation-ratio", "codes", 3.0)]) is None
    assert verdict([scored("fid", "gmm", 3.0)]) is None  # one density compares with nothing


@pytest.mark.parametrize(
    ("kept", "ssim", "words"),
    [
        (0.9, None, "Reconstructs well."),
        (0.8999, None, "Reconstructs roughly."),
        (0.6, None, "Reconstructs roughly."),
        (0.5999, None, "Reconstructs poorly."),
        (-0.2, None, "Reconstructs poorly."),
        (0.95, 0.8, "Reconstructs well."),
        (0.95, 0.7999, "Reconstructs roughly, blurred."),
        (0.65, 0.5, "Reconstructs roughly, blurred."),
        (0.3, 0.5, "Reconstructs poorly."),
    ],
)
def test_reconstruction(kept, ssim, words):
    scores = [] if ssim is None else [scored("ssim", "reconstruction", ssim)]
    assert said(*scores, kept=kept) == words
    grounds = verdict(scores, Fidelity(kept, "the pixels' variance")).grounds
    share = f"{100 * kept:.0f}" if kept > 0 else "less than the mean example would"
    assert share in grounds
    assert "from 90% it is well, from 60% roughly" in grounds


def test_strings_reconstruct_by_their_accuracy():
    for value, word in ((0.9, "well"), (0.89, "roughly"), (0.6, "roughly"), (0.59, "poorly")):
        assert said(scored("accuracy", "reconstruction", value)) == f"Reconstructs {word}."
    assert (
        "returns 89\N{NO-BREAK SPACE}% of 1,000 test strings"
        in verdict([scored("accuracy", "reconstruction", 0.89)]).grounds
    )


def test_a_density_is_better_where_intervals_do_not_overlap():
    def words(*ends, name="fid"):
        densities = ("gmm", "gaussian", "kde")
        scores = [scored(name, of, sum(each) / 2, ends=each) for of, each in zip(densities, ends, strict=False)]
        return said(*scores)

    assert words((1, 2), (2.01, 3)) == "The mixture samples better than one Gaussian."
    assert words((1, 2), (1.99, 3)) == "The mixture and one Gaussian sample alike."
    assert words((2.5, 3), (1, 2)) == "One Gaussian samples better than the mixture."
    # recall: more is better
    assert words((2.5, 3), (1, 2), name="recall") == "The mixture samples better than one Gaussian."
    assert words((1, 2), (1.5, 3), (4, 5)) == (
        "The mixture and one Gaussian sample alike, better than the kernel density."
    )
    assert words((1, 2), (3, 3.5), (4, 5)) == "The mixture samples better than one Gaussian and the kernel density."


def test_standard_errors_make_intervals():
    a, b = scored("kid", "gmm", 1.0, error=0.1), scored("kid", "gaussian", 1.5, error=0.1)
    assert interval(a) == pytest.approx((0.804, 1.196))
    assert apart(a, b) is True
    assert apart(a, replace(b, value=1.38)) is False
    assert apart(a, scored("kid", "gaussian", 1.5)) is None
    assert "samples better" in said(a, b)
    assert "sample alike" in said(a, replace(b, value=1.38))


def test_without_intervals_no_difference_is_claimed():
    scores = [scored("fid", "gmm", 1.0), scored("fid", "gaussian", 99.0)]
    assert said(*scores) == "The mixture has the best fid, without an interval to tell it from chance."
    assert "better than" not in verdict(scores).grounds


def test_the_deciding_score_has_intervals_and_no_trivial_model_wins_it():
    fid = [scored("fid", "gmm", 1.0), scored("fid", "gaussian", 2.0)]
    kid = [scored("kid", "gmm", 0.1, 0.01), scored("kid", "gaussian", 0.2, 0.01)]
    assert decisive([*fid, *kid]) == "kid"
    assert decisive(fid) == "fid"
    assert decisive([*[replace(each, interval=(0, 9)) for each in fid], *kid]) == "fid"
    strings = [scored("validity-greedy", "gmm", 1.0), scored("unique-valid", "gmm", 0.1)]
    assert decisive(strings) == "unique-valid"
    assert decisive([scored("log-likelihood", "gmm", 1.0, 0.1), scored("copying", "gmm", 0.0)]) is None
    assert decisive([scored("fid", "reconstruction", 1.0)]) is None


def test_copies_by_the_copying_test():
    assert said(scored("copying", "gmm", -3.0)) == "No sign of copies."
    assert said(scored("copying", "gmm", 3.0)) == "No sign of copies."
    assert said(scored("copying", "gmm", -3.01)) == (
        "Samples of the mixture lie so close to training examples that they may be copies."
    )
    assert said(scored("copying", "gmm", 3.01)) == (
        "No sign of copies, but samples of the mixture lie farther from the data than test examples do."
    )
    both = said(scored("copying", "gmm", 0.0), scored("copying", "gaussian", -9.0))
    assert both == "Samples of one Gaussian lie so close to training examples that they may be copies."


def test_copies_of_strings_by_novelty():
    def words(novelty, validity=0.5):
        return said(scored("validity-greedy", "gmm", validity), scored("novelty", "gmm", novelty))

    half = "50\N{NO-BREAK SPACE}% of the samples of the mixture are valid, and "
    assert words(0.95) == half + "few or none are training strings."
    assert words(0.94) == half + "6\N{NO-BREAK SPACE}% of those of the mixture are training strings."
    assert words(0.0, 0.0) == "0\N{NO-BREAK SPACE}% of the samples of the mixture are valid."  # nothing to be a copy


def test_few_examples_are_said():
    few = replace(CARD, count=99, reference_count=5_000)
    assert "scored on 99 examples only" in said(scored("copying", "gmm", 0.0, card=few))
    assert "examples only" not in said(scored("copying", "gmm", 0.0, card=replace(CARD, count=100)))
    assert "scored on 60 examples" in said(scored("copying", "gmm", 0.0, card=replace(CARD, reference_count=60)))


def test_codes_that_say_nothing_come_first():
    assert said(kept=0.2, trouble=Trouble("the codes say next to nothing", "", Symptom.ALIKE)) == (
        "The codes say next to nothing; reconstructs poorly."
    )


def test_every_density_is_called_by_words():
    words = [kind.words for kind in DENSITIES.values()]
    assert len(set(words)) == len(words)
    assert all(spoken(name) == kind.words for name, kind in DENSITIES.items())
    assert spoken("<b>") == "<b>"


def test_the_headline_is_one_score_with_its_interval_and_its_arrow():
    scores = [
        scored("fid", "reconstruction", 1.0), scored("kid", "reconstruction", 0.01, 0.001),
        scored("fid", "gaussian", 5.0), scored("kid", "gaussian", 0.3, 0.01),
        scored("fid", "gmm", 4.0), scored("kid", "gmm", 0.2, 0.01),
        scored("participation-ratio", "codes", 3.0),
    ]  # fmt: skip
    items = headline(scores).items
    assert [item.label for item in items] == ["kid ↓, gmm", "kid ↓, gaussian", "kid ↓, reconstruction"]
    assert items[0].value == "0.2"
    assert items[0].detail == "95 % [0.18, 0.22]"
    assert headline([scored("recall", "gmm", 0.5)]).items[0].label == "recall ↑, gmm"
    assert headline([scored("recall", "gmm", 0.5)]).items[0].detail == "no interval"
    assert headline([]) is None


def test_fidelity_is_the_share_of_variance_that_is_kept():
    class Shifted:
        """Reconstructs with a known error."""

        def __init__(self, offsets):
            self.offsets = offsets

        def reconstruct(self, x):
            x = x.float() / 255 if x.dtype == torch.uint8 else x.float()
            return x + self.offsets

    def subject(x, offsets):
        data = SimpleNamespace(test=_Test(x), shape=tuple(x.shape[1:]), codec=None, sound=None)
        return SimpleNamespace(data=data, generator=Shifted(offsets), seed=0)

    source = torch.Generator().manual_seed(0)
    rows = torch.randn(400, 3, generator=source) * torch.tensor([1.0, 100.0, 0.0])  # the last does not vary
    variance = rows.double().var(0, correction=0)
    offsets = torch.tensor([0.5, 10.0, 7.0])
    found = fidelity(subject(rows, offsets))
    expected = 1 - float(((offsets.double() ** 2) / variance)[:2].mean())
    assert found.kept == pytest.approx(expected, abs=1e-5)
    assert "400 test rows" in found.of
    images = torch.randint(0, 256, (300, 1, 4, 4), generator=source, dtype=torch.uint8)
    found = fidelity(subject(images, torch.tensor(0.1)))
    total = (images.double() / 255).var(0, correction=0).sum()
    assert found.kept == pytest.approx(1 - 16 * 0.01 / float(total), abs=1e-5)
    assert fidelity(subject(torch.ones(50, 3), offsets)) is None


class _Test:
    """A split that holds examples alone."""

    def __init__(self, x):
        self.x = x

    def __len__(self):
        return len(self.x)


def test_the_sentence_on_a_page_is_that_of_its_scores(tmp_path):
    run = tmp_path / "digits"
    expost.train("rae-l2", "digits", run, epochs=4, width=64, latent_dim=6, tensorboard=False)
    expost.evaluate(run, ("gaussian", "gmm"), ("frechet", "kid", "memorization"))
    opened = Run.open(run)
    kept = fidelity(Subject(opened, opened.data(), opened.generator("cpu"), 0))
    x = opened.data().test.x
    back = opened.generator("cpu").reconstruct(x).double()
    true = x.double() / 255
    assert kept.kept == pytest.approx(1 - float((true - back).square().sum() / (true - true.mean(0)).square().sum()))
    expected = verdict(read_scores(run), kept)
    text = re.sub(r"\s+", " ", report((run,), tmp_path / "page.html").read_text().replace("\N{NO-BREAK SPACE}", " "))
    assert f'<p class="verdict">{expected.text}</p>'.replace("\N{NO-BREAK SPACE}", " ") in text


def test_what_has_a_remedy_is_linked_by_the_thresholds_of_the_sentence():
    def remedies(*scores, kept=None, trouble=None):
        return list(verdict(scores, None if kept is None else Fidelity(kept, "it"), trouble).remedies)

    assert remedies(kept=0.95) == []
    assert remedies(kept=0.89) == remedies(scored("ssim", "reconstruction", 0.7), kept=0.95) == [Symptom.POOR]
    for symptom in (Symptom.ALIKE, Symptom.LOSS):
        assert remedies(kept=0.95, trouble=Trouble("it diverged", "it diverged; lower --lr", symptom)) == [symptom]
    assert remedies(scored("copying", "gmm", -3.1)) == [Symptom.COPIES]
    assert remedies(scored("copying", "gmm", -2.9)) == remedies(scored("copying", "gmm", 2.9)) == []
    assert remedies(scored("copying", "gmm", 3.1)) == [Symptom.BAD_SAMPLES]
    normal, better = scored("fid", "standard-normal", 90.0, 1.0), scored("fid", "gmm", 30.0, 1.0)
    assert remedies(normal, better) == [Symptom.NOISE]
    assert remedies(normal, replace(better, value=89.0)) == []  # may be chance
    assert remedies(replace(normal, value=10.0), better) == []
