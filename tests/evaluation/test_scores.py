"""Protocol cards: scores are compared only where they were computed alike."""

from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from expost.commands.scoring import _first_in_common
from expost.config import to_json
from expost.errors import DataError, UsageError
from expost.evaluation.catalog import DIRECTIONS, check_measures, no_such_score, where
from expost.evaluation.ranking import comparable, rank
from expost.evaluation.scores import SUBJECT, Card, Score, differences, headline, in_rows, score_from_json
from expost.metrics import FEATURES
from expost.metrics.direction import LOWER
from expost.metrics.influence import Influence

CARD = Card(
    model="aa", features="inception-2048", weights="ff", reference="mnist test", reference_hash="cc",
    reference_count=10_000, count=10_000, preprocessing={"resize": "299", "precision": "float32"},
    density={"name": "gmm"}, seed=0, version="1", settings={},
)  # fmt: skip
OTHER = {
    "model": "bb", "features": "inception-768", "weights": "ee", "reference": "mnist train", "reference_hash": "dd",
    "reference_count": 500, "count": 5_000, "preprocessing": {"resize": "299", "precision": "bfloat16"},
    "density": {"name": "gaussian"}, "seed": 1, "version": "2", "settings": {"neighbours": 3},
}  # fmt: skip


def fid(value, card=CARD, name="fid"):
    return Score(name, "gmm", value, card)


def test_scores_are_ordered_from_best_to_worst():
    assert [each.label for each in rank({"a": fid(3.0), "b": fid(1.0), "c": fid(2.0)})] == ["b", "c", "a"]
    assert [each.label for each in rank({n: fid(v, name="recall") for n, v in (("a", 3.0), ("b", 1.0))})] == ["a", "b"]
    assert rank({}) == []


@pytest.mark.parametrize("field", [each.name for each in fields(Card)])
def test_every_field_of_protocol_stops_a_comparison_and_is_named(field):
    changed = fid(1.0, replace(CARD, **{field: OTHER[field]}))
    if field in (*SUBJECT, "reference"):  # what is compared, not how; the same examples under another name
        assert len(rank({"a": fid(2.0), "b": changed})) == 2
        return
    with pytest.raises(UsageError, match=f"b cannot be ranked with the others: protocols differ in {field}"):
        rank({"a": fid(2.0), "b": changed})
    assert [each.label for each in rank({"a": fid(2.0), "b": changed}, ignoring=(field,))] == ["b", "a"]
    assert differences(CARD, changed.card) == {field: (getattr(CARD, field), OTHER[field])}


def test_references_of_unknown_examples_are_compared_by_their_names():
    unknown = replace(CARD, reference_hash="")
    assert list(differences(unknown, replace(unknown, reference="other"))) == ["reference"]
    assert not differences(unknown, unknown)


def test_a_card_names_no_folder_of_the_machine():
    for path, name in (
        ("/home/me/secret/cats.npz test", "cats.npz test"),
        ("../../me/cats test", "cats test"),
        ("~me/cats test", "cats test"),
        ("data/cats test", "data/cats test"),
        ("owner/name test", "owner/name test"),
        ("mnist test", "mnist test"),
    ):
        assert replace(CARD, reference=path).reference == name


def test_the_third_score_is_looked_at_too():
    with pytest.raises(UsageError, match=r"c cannot be ranked .* seed \(5 against 0\)"):
        rank({"a": fid(1.0), "b": fid(2.0), "c": fid(3.0, replace(CARD, seed=5))})


def test_the_odd_one_is_named_in_words_and_the_others_are_ranked():
    other = replace(CARD, reference_hash="zz", count=500, preprocessing={"resize": "none", "precision": "float32"})
    scores = {"a": fid(1.0), "odd": fid(2.0, other), "c": fid(3.0)}
    group, odd = comparable(scores)
    assert list(group) == ["a", "c"]
    assert "reference_hash (other examples" in odd["odd"]
    assert "count (500 against 10,000 examples)" in odd["odd"]
    assert "preprocessing (resize none against 299)" in odd["odd"]
    assert "zz" not in odd["odd"]
    _, odd = comparable(scores, shapes={"a": (3, 64, 64), "odd": (3, 32, 32), "c": (3, 64, 64)})
    assert odd == {"odd": "its examples are of another size (32 x 32 against 64 x 64)"}
    _, odd = comparable(scores, shapes={"a": (3, 64, 64), "odd": (3, 64, 64), "c": (3, 64, 64)})
    assert "size (" not in odd["odd"]


def drawn(label, shift, noise=1.0, count=400):
    """A score that is the mean of `count` draws about `shift`, with examples that all runs share."""
    common = torch.randn(count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    own = torch.randn(count, generator=torch.Generator().manual_seed(label), dtype=torch.float64) * noise
    values = common * 5 + own + shift
    return Score.measured("mse", "reconstruction", float(values.mean()), CARD, Influence(values))


def places(scores):
    return {each.label: each.shown for each in rank(scores)}


def test_runs_that_chance_cannot_tell_apart_share_a_place():
    scores = {
        "best": drawn(1, 0.0),
        "second": drawn(2, 0.5),
        "as good": drawn(3, 0.5),
        "last": drawn(4, 1.0),
    }
    assert places(scores) == {"best": "1", "second": "2=", "as good": "2=", "last": "4"}
    # the standard errors alone, 0.26 each, would tie the first two: what is common cancels
    pair = {label: scores[label] for label in ("best", "second")}
    assert set(places(pair).values()) == {"1", "2"}
    assert set(places({label: replace(score, deviations="") for label, score in pair.items()}).values()) == {"1="}


def test_a_noisy_run_is_never_placed_before_a_better_value():
    scores = {
        label: Score("mse", "x", value, CARD, error)
        for label, value, error in (("a", 1.0, 0.01), ("b", 2.0, 0.01), ("vague", 2.5, 5.0), ("d", 9.0, 0.01))
    }
    assert places(scores) == {"a": "1", "b": "2=", "vague": "2=", "d": "3"}


def test_an_interval_alone_serves_and_no_error_at_all_ranks_by_value():
    near = {label: replace(fid(v), interval=(v - 1, v + 1)) for label, v in (("a", 10.0), ("b", 10.5), ("c", 14.0))}
    assert places(near) == {"a": "1=", "b": "1=", "c": "3"}
    assert places({"a": fid(1.0), "b": fid(1.1)}) == {"a": "1", "b": "2"}
    assert places({"a": fid(1.0), "b": fid(1.0)}) == {"a": "1=", "b": "1="}


def test_equal_runs_are_told_apart_as_often_as_the_level_says():
    """Simulated pairs of equal runs: at 95 %, about 5 of 100 are told apart."""
    pairs = [{"a": drawn(2 * s + 10, 0.0), "b": drawn(2 * s + 11, 0.0)} for s in range(200)]
    assert 2 <= sum(set(places(pair).values()) != {"1="} for pair in pairs) <= 20


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fcd", "fcd is a score of molecules"),
        ("fid", "fid is a score of images, by the measure frechet on inception-2048"),
        ("validity", "validity-greedy, validity-sampled, validity-best-of-k are scores of strings"),
        ("recall", "recall is a score of images and of vectors, by the measure neighbours"),
        ("regression", "regression is a measure of strings"),
        ("latent", "latent is a measure of images and of vectors and of strings"),
        ("nonsense", ""),
    ],
)
def test_it_is_said_where_a_score_exists(name, said):
    assert where(name) == said


def test_a_misspelt_score_gets_the_nearest_and_one_of_elsewhere_its_place():
    assert no_such_score("recal", ["recall", "density"]) == "no measure gives it; did you mean recall?"
    assert "its kin here: frechet-pixels" in no_such_score("fid", ["frechet-pixels", "recall"])
    assert no_such_score("fcd", ["recall"]).startswith("fcd is a score of molecules")
    with pytest.raises(UsageError, match=r"there is no such measure; did you mean neighbours\?"):
        check_measures(("neighbors",), ("frechet", "neighbours"))


def test_one_line_says_how_many_and_what_the_features_do_not_see():
    few = replace(CARD, features="pixels", count=60, reference_count=60, reference="photos test")
    assert headline([fid(1.0, few)]).startswith(
        "60 images, 8 x 8 thumbnails: blind to detail; against photos test (60)"
    )
    assert "few" in headline([fid(1.0, few)])
    assert "few" not in headline([fid(1.0)])
    assert headline([fid(1.0)]).startswith("10,000 images, inception-2048 features; against mnist test (10,000)")


def test_what_has_no_better_end_is_not_ranked():
    for name in ("copying", "participation-ratio", "made-up"):
        with pytest.raises(UsageError, match=f"{name} has no preferred direction"):
            rank({"a": fid(1.0, name=name), "b": fid(2.0, name=name)})


def test_the_frechet_distance_of_all_features_is_better_when_lower():
    assert {each.score_name for each in FEATURES.values()} > {"fid", "fid-768"}
    assert all(DIRECTIONS[each.score_name] == LOWER for each in FEATURES.values())


def test_scores_of_different_names_are_not_ranked():
    with pytest.raises(UsageError, match="a has fid, b has kid"):
        rank({"a": fid(1.0), "b": fid(1.0, name="kid")})
    with pytest.raises(UsageError, match="no field 'colour'"):
        rank({"a": fid(1.0), "b": fid(2.0)}, ignoring=("colour",))


def test_a_score_survives_its_file():
    score = Score("kid", "gmm", 0.1, CARD, error=0.01, interval=(0.0, 0.2))
    assert score_from_json(to_json(score), Path("metrics.json")) == score
    broken = to_json(score)
    del broken["card"]["seed"]
    with pytest.raises(DataError, match="card.seed"):
        score_from_json(broken, Path("metrics.json"))


def test_a_row_holds_scores_of_one_protocol():
    def made(of, value, count):
        return replace(fid(value), of=of, card=replace(CARD, count=count, density={"name": of}))

    scores = [made("gmm", 5.0, 10_000), made("gaussian", 9.0, 10_000), made("gmm", 77.0, 50)]
    rows = [(name, {of: each.value for of, each in row.items()}) for name, row in in_rows(scores)]
    assert rows == [("fid", {"gmm": 5.0, "gaussian": 9.0}), ("fid", {"gmm": 77.0})]
    other = replace(scores[0], value=6.0, card=replace(scores[0].card, settings={"k": 3}))
    rows = [[each.value for each in row.values()] for _, row in in_rows([*scores[:2], other])]
    assert rows == [[5.0, 9.0], [6.0]]


def test_a_default_ranking_is_not_by_what_a_collapsed_model_wins():
    names = ("validity-greedy", "truncated", "uniqueness", "unique-valid", "novelty")
    saved = {run: [fid(0.5, name=name) for name in names] for run in ("a", "b")}
    subject = {run: scores[0].of for run, scores in saved.items()}
    assert _first_in_common(saved, subject) == "unique-valid"
    with pytest.raises(UsageError, match="no score of .* to rank by"):
        _first_in_common({run: scores[:2] for run, scores in saved.items()}, subject)
