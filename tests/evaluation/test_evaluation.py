"""Scoring: the measures on known sets, the cache of reference features, and input that is refused."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import expost
from expost.commands import rank, score
from expost.densities import usual_density
from expost.errors import DataError, UsageError
from expost.evaluation.catalog import ALL_MEASURES, DIRECTIONS
from expost.evaluation.evaluate import evaluate_generator, score_examples
from expost.evaluation.protocol import Omissions, Protocol, pick_space, resolve_features
from expost.generators.generator import Generator
from expost.metrics import FEATURES, InceptionFeatures, PixelFeatures, StandardizedValues
from expost.metrics.measures import MEASURES
from expost.metrics.reference import reference_features, reference_key
from expost.types import Data, Split
from expost.utils.store import read_json


def normal(n, seed, shift=0.0, dim=4):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed)) + shift


def by_name(scores, of="samples"):
    return {score.name: score for score in scores if score.of == of}


@pytest.fixture(scope="module")
def unit():
    return StandardizedValues(torch.tensor([[-1.0] * 4, [1.0] * 4]) / 2**0.5)  # mean 0, variance 1: leaves values alone


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    return expost.train("rae", "digits", folder, epochs=1, width=8, tensorboard=False)


def test_disjoint_sets(unit):
    found = by_name(score_examples(normal(400, 0), normal(400, 1, shift=50.0), unit))
    for name in ("precision", "recall", "density", "coverage"):
        assert found[name].value == 0
    assert found["f8"].value < 1e-6
    assert found["frechet-values"].value == pytest.approx(4 * 50**2, rel=0.01)


def test_precision_and_recall_do_not_change_places(unit):
    """Samples that cover half of a mixture are all good, and miss the other half."""
    reference = torch.cat([normal(300, 0), normal(300, 1, shift=40.0)])
    half = normal(600, 2)
    found, turned = (by_name(score_examples(*pair, unit)) for pair in ((half, reference), (reference, half)))
    assert found["precision"].value > 0.9
    assert found["recall"].value == pytest.approx(0.5, abs=0.05)
    assert found["f1/8"].value > 0.9  # weighs precision
    assert found["f8"].value == pytest.approx(0.5, abs=0.05)  # weighs recall
    assert turned["recall"].value > 0.9
    assert turned["precision"].value == pytest.approx(0.5, abs=0.05)


def test_the_interval_is_on_the_card_and_around_the_value(unit):
    found = by_name(score_examples(normal(200, 0), normal(300, 1), unit, Protocol(("frechet",), bootstrap=50)))
    one = found["frechet-values"]
    assert one.interval[0] <= one.value <= one.interval[1]
    assert one.card.settings["bootstrap resamples"] == 50


def test_every_score_says_how_it_was_computed(unit):
    for each in score_examples(normal(50, 0), normal(60, 1), unit, Protocol(seed=3), "a set"):
        assert (each.card.count, each.card.reference_count, each.card.seed) == (50, 60, 3)
        assert each.card.reference == "a set"
        assert len(each.card.reference_hash) == 64
        assert each.card.features == "values"


def test_an_evaluated_run_has_all_its_scores(run):
    scores = expost.evaluate(run)
    names = {(each.of, each.name) for each in scores}
    for subject in ("reconstruction", "gaussian", "gmm", "interpolation"):
        assert {(subject, n) for n in ("frechet-pixels", "precision", "recall", "f8", "kernel-distance")} <= names
    assert {("gaussian", "log-likelihood"), ("gmm", "copying"), ("gmm", "authenticity")} <= names
    assert ("codes", "participation-ratio") in names
    assert {name for _, name in names} <= set(DIRECTIONS)
    copies = next(s.card for s in scores if (s.of, s.name) == ("gmm", "copying"))
    assert (copies.reference, copies.reference_count) == ("digits train", 1_437)
    data, generator = run.data(), run.generator("cpu")
    likelihood = next(s for s in scores if (s.of, s.name) == ("gmm", "log-likelihood"))
    expected = generator.density("gmm").log_prob(generator.encode(data.test.x)).mean().item()
    assert likelihood.value == pytest.approx(expected, rel=1e-5)
    assert len(read_json(run.folder / "metrics.json")["scores"]) == len(scores)


def test_runs_are_ranked_by_what_was_saved(run, tmp_path, capsys):
    expost.evaluate(run, measures=("frechet",))
    other = expost.train("ae", "digits", tmp_path / "other", epochs=1, width=8, tensorboard=False)
    expost.evaluate(other, measures=("frechet",))
    ranking = rank((run.folder, other.folder), score="frechet-pixels")
    assert len(ranking) == 2
    assert ranking[0][1].value <= ranking[1][1].value
    third = expost.train("ae", "digits", tmp_path / "third", epochs=1, width=8, tensorboard=False)
    with pytest.raises(UsageError, match="third has no frechet-pixels of gmm; run expost evaluate .*third first"):
        rank((run.folder, third.folder), score="frechet-pixels")
    expost.evaluate(third, measures=("frechet",), samples=100)
    with pytest.raises(
        UsageError,
        match=r"no fcd of gmm \(fcd is a score of molecules\); choose another score, or evaluate it with other",
    ):
        rank((run.folder, third.folder), score="fcd")
    with pytest.raises(
        UsageError, match=r"protocols differ in count \(100 against 180 examples\); .* pass ignoring count"
    ):
        rank((run.folder, third.folder), score="frechet-pixels")
    assert len(rank((run.folder, third.folder), score="frechet-pixels", ignoring=("count",))) == 2
    with pytest.raises(UsageError, match=r"did you mean frechet-pixels\?"):
        rank((run.folder, other.folder), score="frechet-pixel")
    small = expost.train("ae", "digits", tmp_path / "small", epochs=1, width=8, size=16, tensorboard=False)
    expost.evaluate(small, measures=("frechet",))
    capsys.readouterr()
    three = rank((run.folder, third.folder, small.folder, other.folder), score="frechet-pixels")
    assert {each.label for each in three} == {str(run.folder), str(other.folder)}
    said = capsys.readouterr().err
    assert f"{small.folder} is left out: its examples are of another size (16 x 16 against 8 x 8)" in said
    assert f"{third.folder} is left out: protocols differ in count (100 against 180 examples)" in said
    assert all(each.score.error > 0 and each.score.deviations for each in three)
    capsys.readouterr()
    for each in rank((run.folder, other.folder)):  # by the first score that both have, of the best density of each
        taken = usual_density(expost.Run.open(each.label).densities())
        assert each.score.of == taken.name
        assert taken.name in capsys.readouterr().err or each.place > 1
    assert {each.score.of for each in rank((run.folder, other.folder), of="gmm")} == {"gmm"}
    expost.fit(other, "standard-normal")  # never scored, so never ranked
    assert {each.score.of for each in rank((run.folder, other.folder))} <= {"gaussian", "gmm"}
    expost.evaluate(run, measures=("latent",))
    expost.evaluate(other, measures=("latent",))
    with pytest.raises(UsageError, match="differ in reference_hash"):  # codes of another model are on another scale
        rank((run.folder, other.folder), score="log-likelihood")


@pytest.mark.parametrize(
    ("codes", "words"),
    [
        (normal(3, 0, dim=5), "3 codes span at most 2 of their 5 dimensions"),
        (torch.cat([normal(40, 0, dim=3), torch.ones(40, 2)], 1), "the codes use 3 of 5 dimensions"),
    ],
)
def test_a_distance_that_is_infinite_says_why(codes, words, capsys):
    data = Data("known", Split(codes), Split(codes[:2]), Split(codes))
    generator = Generator(lambda x: x, lambda z: z)
    scores = evaluate_generator(generator, data, pick_space("auto", data), ("codes",), Protocol(("latent",)))
    assert "frechet-from-normal" in by_name(scores, "codes")
    assert "kl-from-normal" not in by_name(scores, "codes")
    assert f"kl-from-normal of codes is infinite, and is left out: {words}" in capsys.readouterr().err


def test_memorization_is_seen():
    """A "generator" that returns training examples, and one that draws fresh ones."""
    train, test = normal(400, 0, dim=6), normal(300, 1, dim=6)
    data = Data("known", Split(train), Split(test[:2]), Split(test))
    found = {}
    for name, pool in (("copies", train[:300] + 1e-3), ("fresh", normal(300, 2, dim=6))):
        generator = Generator(lambda x: x, lambda z, pool=pool: pool[: len(z)])
        generator.fit("standard-normal", train)
        scores = evaluate_generator(
            generator, data, pick_space("auto", data), ("standard-normal",), Protocol(("memorization",))
        )
        found[name] = by_name(scores, "standard-normal")
    assert found["copies"]["copying"].value < -10
    assert abs(found["fresh"]["copying"].value) < 3
    assert found["copies"]["authenticity"].value < 0.05 < found["fresh"]["authenticity"].value


class Counting(InceptionFeatures):
    """Inception's features, counting the images they are asked for."""

    seen = 0

    def extract(self, images):
        self.seen += len(images)
        return super().extract(images)


def test_reference_features_are_kept_by_content(shared_data, tmp_path, monkeypatch):
    monkeypatch.setenv("EXPOST_WEIGHTS", str(shared_data / "inception"))
    features = Counting(768)
    x = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    first, digest = reference_features(features, x, tmp_path)
    again, _ = reference_features(features, x.clone(), tmp_path)
    assert features.seen == 3
    assert torch.equal(first, again)
    changed = x.clone()
    changed[0, 0, 0, 0] ^= 255
    other, _ = reference_features(features, changed, tmp_path)
    assert features.seen == 6
    assert not torch.equal(first, other)
    path = tmp_path / f"{reference_key(features, digest)}.safetensors"
    path.write_bytes(path.read_bytes()[:100])  # a damaged file is made again
    assert torch.equal(reference_features(features, x, tmp_path)[0], first)
    assert features.seen == 9


def test_the_precision_of_features_is_part_of_their_protocol(shared_data, monkeypatch):
    monkeypatch.setenv("EXPOST_WEIGHTS", str(shared_data / "inception"))
    full, half = (FEATURES[name].load("cpu") for name in ("inception-768", "inception-768-bf16"))
    assert full.protocol() | {"precision": "bfloat16"} == half.protocol()
    assert reference_key(full, "x") != reference_key(half, "x")


# --- input that is refused ---


def pictures(folder, sizes, mode="L", seed=0):
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for index, side in enumerate(sizes):
        channels = (3,) if mode == "RGB" else ()
        Image.fromarray(random.integers(0, 256, (side, side, *channels), dtype=np.uint8)).save(folder / f"{index}.png")
    return folder


def test_folders_of_pictures_are_scored(tmp_path):
    a, b = pictures(tmp_path / "a", [16] * 30), pictures(tmp_path / "b", [16] * 40, seed=1)
    found = by_name(score(a, b, measures=("frechet",), features="pixels", allow_few=True))
    assert found["frechet-pixels"].value > 0
    assert (found["frechet-pixels"].card.count, found["frechet-pixels"].card.reference_count) == (30, 40)
    assert found["frechet-pixels"].card.settings == {"fewer examples than features": True}


def test_images_of_several_sizes_are_resized_by_a_stated_rule(tmp_path, capsys):
    mixed, equal = pictures(tmp_path / "mixed", [20, 17, 30] * 12), pictures(tmp_path / "equal", [24] * 30, seed=1)
    options = {"measures": ("frechet",), "features": "pixels", "allow_few": True}
    for samples, reference, side in ((mixed, equal, 24), (equal, mixed, 17), (mixed, mixed, 17)):
        found = score(samples, reference, **options)[0]
        assert f"resized to {side} x {side}" in capsys.readouterr().err
        given = score(samples, reference, size=side, **options)[0]
        assert given.value == found.value
        assert "resized" not in capsys.readouterr().err
    score(equal, pictures(tmp_path / "other", [16] * 30), **options)
    assert "images of 24 x 24 against 16 x 16" in capsys.readouterr().err
    score(mixed, "digits", **options)
    assert "resized to 8 x 8" in capsys.readouterr().err


def test_features_auto_are_what_suits_the_reference(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("EXPOST_WEIGHTS", raising=False)
    monkeypatch.delenv("EXPOST_DATA", raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    images = pictures(tmp_path / "a", [28] * 80)
    assert score(images, images, measures=("kid",))[0].card.features == "pixels"
    assert score(images, "mnist-5k", measures=("kid",))[0].card.features == "digits"


#: What eight images on 192 features have.
SCORES_OF_EIGHT = (
    *("kernel-distance", "precision", "recall", "density", "coverage"),
    *("monge-distance", "vendi", "vendi-2", "vendi-inf", "gaussian-mmd"),
)


def test_what_few_examples_do_not_allow_is_left_out_and_the_rest_computed(tmp_path, capsys):
    few, many = pictures(tmp_path / "few", [16] * 8), pictures(tmp_path / "many", [16] * 30)
    names = {each.name for each in score(few, many, features="pixels")}
    assert names == set(SCORES_OF_EIGHT)
    said = capsys.readouterr().err
    assert "prd of samples is left out: it needs at least 10 examples on either side, and one side has 8" in said
    assert "frechet of samples is left out: 8 examples are too few" in said
    names = {
        each.name for each in score(pictures(tmp_path / "three", [16] * 3), many, features="pixels", allow_few=True)
    }
    assert names == {"frechet-pixels"}
    assert "kid of samples is left out: it needs at least 4" in capsys.readouterr().err
    with pytest.raises(DataError, match="prd of samples cannot be computed: it needs at least 10"):
        score(few, many, features="pixels", measures=("prd",))
    with pytest.raises(UsageError, match="allow no score"):
        score(pictures(tmp_path / "two", [16] * 2), many, features="pixels")


def test_strings_and_other_features_say_where_they_belong(tmp_path):
    strings = tmp_path / "a.smi"
    strings.write_text("CCO\nCCC\n")
    with pytest.raises(UsageError, match="strings are scored with their model: expost evaluate RUN"):
        score(strings, strings)
    np.save(tmp_path / "table.npy", np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32))
    with pytest.raises(UsageError, match="features 'pixels' are of images, and the samples are vectors"):
        score(tmp_path / "table.npy", tmp_path / "table.npy", features="pixels")
    found = score(tmp_path / "table.npy", tmp_path / "table.npy")
    assert {"frechet-values", "recall"} <= {each.name for each in found}


def test_a_reference_with_parts_is_taken_by_part(tmp_path):
    samples = pictures(tmp_path / "samples", [16] * 100)
    pictures(tmp_path / "data" / "train", [16] * 80, seed=1)
    pictures(tmp_path / "data" / "test", [16] * 90, seed=2)
    for split, count in (("train", 80), ("test", 90)):
        card = score(samples, tmp_path / "data", split, measures=("frechet",), features="pixels")[0].card
        assert card.reference_count == count
        assert card.reference.endswith(split)
    with pytest.raises(UsageError, match="not validation"):
        score(samples, tmp_path / "data", "validation", measures=("frechet",), features="pixels")


def test_too_few_and_odd_pictures(tmp_path):
    many = pictures(tmp_path / "many", [16] * 30)
    # gray pixels are 64 different features, three times over: 100 pictures are enough
    enough = pictures(tmp_path / "enough", [16] * 100)
    assert by_name(score(enough, enough, measures=("frechet",), features="pixels"))["frechet-pixels"].value == 0
    with pytest.raises(UsageError, match="30 examples are too few for frechet-pixels on 192 features"):
        score(many, many, measures=("frechet",), features="pixels")
    with pytest.raises((UsageError, DataError), match="1 example"):
        score(pictures(tmp_path / "one", [16]), many, features="pixels")
    with pytest.raises(UsageError, match="'fid' does not apply here: fid is a score of images, by the measure frechet"):
        score(many, many, measures=("fid",), features="pixels")


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.rand(30, 1, 8, 8) * 255, r"range from .* to 25\d"),
        (torch.randint(-1, 2, (30, 1, 8, 8)), "of type int64"),
        (torch.full((30, 1, 8, 8), float("nan")), "NaN"),
        (torch.rand(30, 1, 8, 8) * 2 - 1, "range from -"),
    ],
)
def test_pixels_of_another_range(x, message):
    reference = torch.randint(0, 256, (300, 1, 8, 8), dtype=torch.uint8)
    with pytest.raises((UsageError, DataError), match=message):
        score_examples(x, reference, PixelFeatures(), Protocol(("frechet",), allow_few=True))


def test_a_model_in_training_mode_is_never_scored(run):
    generator, data = run.generator("cpu"), run.data()
    space = pick_space("pixels", data)
    batch_norms = [m for m in generator.module.modules() if isinstance(m, nn.Linear | nn.BatchNorm2d)]
    batch_norms[0].train()  # one layer is enough to spoil a score
    with pytest.raises(UsageError, match=r"training mode.*model\.eval"):
        evaluate_generator(generator, data, space, ("reconstruction",), Protocol(("frechet",), allow_few=True))


def test_auto_features_need_enough_images(monkeypatch, shared_data):
    monkeypatch.setenv("EXPOST_WEIGHTS", str(shared_data / "inception"))
    few, enough = (Data("some", *[Split(torch.zeros(n, 1, 32, 32, dtype=torch.uint8))] * 3) for n in (768, 769))
    assert resolve_features("auto", few) == "pixels"
    assert resolve_features("auto", enough) == "inception-768"


def test_protocols_out_of_range():
    with pytest.raises(UsageError, match="samples is 1"):
        Protocol(samples=1)
    with pytest.raises(UsageError, match="bootstrap is 38; give 0, or at least 39"):
        Protocol(bootstrap=38)
    with pytest.raises(UsageError, match="interpolation"):
        Protocol(method="cubic")
    assert set(MEASURES) < set(ALL_MEASURES)


def test_what_is_left_out_is_told_once(capsys):
    omissions = Omissions(Protocol())
    for subject in ("reconstruction", "gmm"):
        omissions.add("frechet", subject, DataError("too few"))
    omissions.add("kid", "gmm", DataError("too few"))
    omissions.tell()
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["frechet of reconstruction, gmm is left out: too few", "kid of gmm is left out: too few"]
    with pytest.raises(DataError, match="too few"):
        Omissions(Protocol(measures=("frechet",))).add("frechet", "gmm", DataError("too few"))


def test_tables_are_compared_by_the_names_of_their_columns(tmp_path):
    rows = np.random.default_rng(0).normal([0, 9], [1, 2], (60, 2))
    header = {"reference": "a,b", "samples": "b,a", "other": "b,c"}
    for name, names in header.items():
        shown = rows if names == "a,b" else rows[:, ::-1]
        np.savetxt(tmp_path / f"{name}.csv", shown, delimiter=",", header=names, comments="")
    same, turned = (
        expost.score(tmp_path / f"{name}.csv", tmp_path / "reference.csv", measures=("frechet",), allow_few=True)[
            0
        ].value
        for name in ("reference", "samples")
    )
    assert turned == pytest.approx(same, abs=1e-4)
    with pytest.raises(UsageError, match="other.csv has other columns than .*: it lacks 'a' and has 'c' besides"):
        expost.score(tmp_path / "other.csv", tmp_path / "reference.csv", allow_few=True)
