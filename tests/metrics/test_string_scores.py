import pytest

from expost.errors import DataError, UsageError
from expost.metrics.strings import (
    canonicalize,
    novelty,
    reconstruction_accuracy,
    unique_valid,
    uniqueness,
)


def letters(text):
    """Lower case; only letters are valid."""
    return text.lower() if text.isalpha() else None


def test_reconstruction_accuracy_counts_exact_strings():
    originals = ["abc", "abd", "x", ""]
    assert reconstruction_accuracy(originals, originals) == 1
    assert reconstruction_accuracy(originals, ["abc", "abD", None, ""]) == 0.5
    assert reconstruction_accuracy(originals, [None] * 4) == 0


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


def test_nothing_to_score_is_refused():
    for score in (
        lambda: reconstruction_accuracy([], []),
        lambda: uniqueness([]),
        lambda: novelty([], ["a"]),
    ):
        with pytest.raises(DataError, match="give at least one"):
            score()
