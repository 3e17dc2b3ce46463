"""Who goes into which part."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expost.data.arrays import Vectors
from expost.data.examples import Found, Part
from expost.data.splits import part_named, permutation, plan_official, plan_split, stratified_order, subset
from expost.errors import DataError


def part(n, labels=None):
    return Part(Vectors(np.arange(n, dtype=np.float32)[:, None], "test"), labels)


def found(**parts):
    return Found(parts, "somewhere")


def indices(plan):
    return [chosen[1].tolist() for chosen in (plan.train, plan.validation, plan.test)]


def test_permutation_is_the_frozen_legacy_stream():
    # The well-known first draw of NumPy's legacy generator, which NEP 19 guarantees: splits never move with versions.
    assert permutation(10, 0).tolist() == [2, 8, 4, 9, 1, 6, 7, 3, 0, 5]
    assert permutation(0, 0).tolist() == []


@settings(max_examples=60, deadline=None)
@given(st.integers(3, 300), st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_a_drawn_split_covers_everything_once_in_proportion(n, seed, classes):
    labels = np.random.default_rng(seed).integers(0, classes, n)
    train, validation, test = indices(plan_split(found(all=part(n, labels)), seed))
    assert sorted(train + validation + test) == list(range(n))
    tenth = max(1, round(n / 10))
    assert (len(validation), len(test)) == (tenth, tenth)
    for chosen in (train, validation, test):
        for label in range(classes):
            expected = (labels == label).sum() * len(chosen) / n
            assert abs((labels[chosen] == label).sum() - expected) <= 2


def test_every_stretch_of_a_stratified_order_is_balanced():
    labels = np.repeat(np.arange(5), [100, 50, 30, 15, 5])
    order = stratified_order(200, labels, 4)
    assert sorted(order.tolist()) == list(range(200))
    for cut in range(1, 201):
        counts = np.bincount(labels[order[:cut]], minlength=5)
        assert np.abs(counts - np.array([100, 50, 30, 15, 5]) * cut / 200).max() <= 1.5
    assert not np.array_equal(order, stratified_order(200, labels, 5))


def test_given_parts_are_kept_in_order():
    plan = plan_split(found(train=part(5), validation=part(2), test=part(3)), 7)
    assert indices(plan) == [[0, 1, 2, 3, 4], [0, 1], [0, 1, 2]]
    assert plan.how == "parts as given"


@pytest.mark.parametrize("given_part", ["validation", "test"])
def test_a_missing_part_is_carved_from_training_only(given_part):
    parts = {"train": part(40), given_part: part(6)}
    plan = plan_split(Found(parts, "somewhere"), 0)
    carved, kept = (plan.test, plan.validation) if given_part == "validation" else (plan.validation, plan.test)
    assert kept[0] is parts[given_part]
    assert kept[1].tolist() == list(range(6))
    assert carved[0] is plan.train[0] is parts["train"]
    assert len(carved[1]) == 4
    assert sorted(plan.train[1].tolist() + carved[1].tolist()) == list(range(40))


def test_training_alone_is_divided():
    train, validation, test = indices(plan_split(found(train=part(20)), 0))
    assert sorted(train + validation + test) == list(range(20))
    assert (len(validation), len(test)) == (2, 2)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"all": part(2)}, "2 examples to divide into 3 parts; add some, at least 3 are needed"),
        ({"all": part(1)}, "1 example to divide"),
        ({"all": part(0)}, "the all part is empty"),
        ({"train": part(1), "test": part(5)}, "1 example to divide into 2 parts"),
        ({"train": part(9), "test": part(0)}, "the test part is empty; fill or remove it"),
        ({"test": part(9)}, "has a test part but no training part"),
        ({"validation": part(9), "test": part(9)}, "has a validation and test part but no training part"),
    ],
)
def test_parts_that_cannot_be_used(parts, message):
    with pytest.raises(DataError, match=message):
        plan_split(Found(parts, "somewhere"), 0)


def test_three_examples_are_enough():
    assert [len(chosen) for chosen in indices(plan_split(found(all=part(3)), 0))] == [1, 1, 1]


def test_official_validation_is_the_end_of_training_and_only_that():
    train, validation, test = indices(plan_official(found(train=part(60), test=part(10)), (50, 10, 10), shuffled=False))
    assert train == list(range(50))  # unlike the official code, whose validation images are trained on
    assert validation == list(range(50, 60))
    assert test == list(range(10))


def test_official_three_parts_and_pools():
    three = found(train=part(6), validation=part(2), test=part(2))
    assert indices(plan_official(three, (6, 2, 2), shuffled=False)) == [list(range(6)), [0, 1], [0, 1]]
    pool = plan_official(found(all=part(10)), (6, 2, 2), shuffled=False)
    assert indices(pool) == [list(range(6)), [6, 7], [8, 9]]
    drawn = indices(plan_official(found(all=part(10)), (6, 2, 2), shuffled=True))
    assert sorted(drawn[0] + drawn[1] + drawn[2]) == list(range(10))
    assert drawn != indices(pool)


def test_a_source_sorted_by_class_is_never_cut_at_its_end():
    labels = np.repeat(np.arange(4), 15)
    plan = plan_official(found(train=part(60, labels), test=part(8)), (48, 12, 8), shuffled=False)
    train, validation, _ = indices(plan)
    assert np.bincount(labels[validation]).tolist() == [3, 3, 3, 3]
    assert sorted(train + validation) == list(range(60))
    assert "sorted by class" in plan.how


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"train": part(59), "test": part(10)}, "59 examples in part 'train' where the set has 60"),
        ({"train": part(60), "test": part(9)}, "9 examples in part 'test' where the set has 10"),
        ({"train": part(60)}, "has only the parts: train; add the missing ones"),
        ({"all": part(71)}, "71 examples in part 'all' where the set has 70"),
    ],
)
def test_named_sets_must_be_whole(parts, message):
    with pytest.raises(DataError, match=message):
        plan_official(Found(parts, "somewhere"), (50, 10, 10), shuffled=False)


def test_subsets_are_nested_and_keep_the_order():
    whole = np.arange(100, 200)
    small, large = subset(whole, 10, 3), subset(whole, 40, 3)
    assert set(small) < set(large) < set(whole)
    assert (np.diff(small) > 0).all()
    assert subset(whole, None, 3) is whole


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train-00000-of-00003", "train"),
        ("X_Train", "train"),
        ("svhn-test", "test"),
        ("t10k-images", "test"),
        ("valid-00000-of-00003", "validation"),
        ("dev", "validation"),
        ("trainer", None),
        ("contest", None),
        ("extra-00000", None),
    ],
)
def test_names_of_parts(name, expected):
    assert part_named(name) == expected
