"""Protocol cards: scores are compared only where they were computed alike."""

from dataclasses import fields, replace

import pytest

from expost.commands.scoring import _first_in_common
from expost.config import to_json
from expost.errors import DataError, UsageError
from expost.evaluation.catalog import DIRECTIONS
from expost.evaluation.ranking import rank
from expost.evaluation.scores import SUBJECT, Card, Score, differences, in_rows, score_from_json
from expost.metrics import FEATURES
from expost.metrics.direction import LOWER

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
    assert [label for label, _ in rank({"a": fid(3.0), "b": fid(1.0), "c": fid(2.0)})] == ["b", "c", "a"]
    assert [label for label, _ in rank({"a": fid(3.0, name="recall"), "b": fid(1.0, name="recall")})] == ["a", "b"]
    assert rank({}) == []


@pytest.mark.parametrize("field", [each.name for each in fields(Card)])
def test_every_field_of_protocol_stops_a_comparison_and_is_named(field):
    changed = fid(1.0, replace(CARD, **{field: OTHER[field]}))
    if field in SUBJECT:  # what is compared, not how
        assert len(rank({"a": fid(2.0), "b": changed})) == 2
        return
    with pytest.raises(UsageError, match=f"a and b cannot be ranked by fid: their protocols differ in {field}"):
        rank({"a": fid(2.0), "b": changed})
    assert [label for label, _ in rank({"a": fid(2.0), "b": changed}, ignoring=(field,))] == ["b", "a"]
    assert differences(CARD, changed.card) == {field: (getattr(CARD, field), OTHER[field])}


def test_the_third_score_is_looked_at_too():
    with pytest.raises(UsageError, match="a and c cannot be ranked .* seed"):
        rank({"a": fid(1.0), "b": fid(2.0), "c": fid(3.0, replace(CARD, seed=5))})


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
    assert score_from_json(to_json(score)) == score
    broken = to_json(score)
    del broken["card"]["seed"]
    with pytest.raises(DataError, match="card.seed"):
        score_from_json(broken)


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
    subject = saved["a"][0].of
    assert _first_in_common(saved, subject) == "unique-valid"
    with pytest.raises(UsageError, match="no score of .* to rank by"):
        _first_in_common({run: scores[:2] for run, scores in saved.items()}, subject)
