import pytest

from expost.errors import DataError, UsageError
from expost.metrics.strings import (
    canonicalize,
    most_frequent_valid,
    novelty,
    reconstruction_accuracy,
    unique_valid,
    uniqueness,
    validity,
)


def letters(text):
    """Lower case; only letters are valid."""
    return text.lower() if text.isalpha() else None


def test_reconstruction_accuracy_counts_exact_strings():
    originals = ["abc", "abd", "x", ""]
    assert reconstruction_accuracy(originals, originals) == 1
    assert reconstruction_accuracy(originals, ["abc", "abD", None, ""]) == 0.5
    assert reconstruction_accuracy(originals, [None] * 4) == 0


def test_validity_three_ways_by_hand():
    greedy = ["a", "?", None, "d"]
    sampled = [["a", "?", "?", None], ["?", "?", "c", None], ["a", "?", "c", "d"]]
    found = validity(greedy, sampled, letters)
    assert (found.greedy, found.sampled, found.best_of_k) == (2 / 4, 5 / 12, 3 / 4)
    assert (found.n, found.k) == (4, 3)


def test_best_of_k_never_falls_as_k_grows_and_matches_its_expectation():
    """Every sample is valid with probability p, so that best of k is 1 - (1 - p)^k."""
    import numpy as np

    p, n = 0.3, 20_000
    draws = np.random.default_rng(0).random((5, n)) < p
    rounds = [["a" if hit else "?" for hit in row] for row in draws]
    values = [validity(["a"] * n, rounds[:k], letters).best_of_k for k in range(1, 6)]
    assert values == sorted(values)
    for k, value in enumerate(values, start=1):
        assert value == pytest.approx(1 - (1 - p) ** k, abs=4 * (0.25 / n) ** 0.5)


def test_most_frequent_valid_pools_spellings_and_breaks_ties_by_order():
    sampled = [["b", "b", "?"], ["A", "a", None], ["a", "?", "?"]]
    assert most_frequent_valid(sampled, letters) == ["a", "b", None]


def test_uniqueness_and_novelty_by_hand():
    forms = ["a", "a", "b", None, "c"]
    assert uniqueness(forms) == 3 / 4
    assert novelty(forms, {"a", "z", None}) == 2 / 3
    assert novelty(forms, ["a", "b", "c"]) == 0
    assert uniqueness([None, None]) == novelty([None], []) == unique_valid([None]) == 0
    assert unique_valid(forms) == 3 / 5
    assert unique_valid(["a"] + [None] * 99) == unique_valid(["a"] * 100) == 0.01


def test_canonicalize_asks_once_for_each_distinct_string():
    asked = []

    def canonical(text):
        asked.append(text)
        return letters(text)

    assert canonicalize(["A", None, "A", "?", 3], canonical) == ["a", None, "a", None, None]  # type: ignore[list-item]
    assert asked == ["A", "?"]


def test_lengths_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match="2 originals but 1 reconstructions"):
        reconstruction_accuracy(["a", "b"], ["a"])
    with pytest.raises(UsageError, match="round 1 of the samples has 1 strings, not 2"):
        validity(["a", "b"], [["a", "b"], ["a"]], letters)
    with pytest.raises(UsageError, match="round 0 of the samples has 3 strings, not 2"):
        validity(["a", "b"], [["a", "b", "c"]], letters)


def test_nothing_to_score_is_refused():
    for score in (
        lambda: reconstruction_accuracy([], []),
        lambda: uniqueness([]),
        lambda: novelty([], ["a"]),
        lambda: validity([], [[]], letters),
        lambda: validity(["a"], [], letters),
        lambda: most_frequent_valid([], letters),
    ):
        with pytest.raises(DataError, match="give at least one"):
            score()
