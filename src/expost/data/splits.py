"""Three disjoint parts: as the source gives them, carved off the end, or a seeded stratified 80/10/10."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from expost.data.examples import POOL, Array, Found, Indices, Part
from expost.errors import DataError

PART_WORDS = {
    word: part
    for part, words in {
        "train": (
            "train training trainset trainingset traindata trainval trainingsdaten trainingssatz entrainement "
            "apprentissage entrenamiento treino treinamento addestramento trening обучение обучающая 训练 训练集 訓練 "
            "训练数据 訓練データ 学習 学習データ 학습 훈련"
        ),
        "validation": (
            "valid validation val dev eval evaluation validset validationset valset devset validierung "
            "validierungsdaten validacion validacao validazione walidacja валидация 验证 验证集 検証 검증"
        ),
        "test": (
            "test testing t10k holdout testset testingset testdata testdaten testsatz prueba pruebas teste testes тест "
            "тестовая 测试 测试集 测试数据 テスト テストデータ 테스트 시험"
        ),
    }.items()
    for word in words.split()
}
"""The words that name a part in file and folder names, lower case, without accents; also of other languages."""

SPLIT_WORDS = frozenset(("split", "part", "partition", "subset", "set"))
"""Words in the names of columns that may say which part a row belongs to."""

_TRUTH = {"true": True, "t": True, "yes": True, "1": True, "false": False, "f": False, "no": False, "0": False}
_ACCENTS = re.compile("[\u0300-\u036f]")
_WORDS = re.compile(r"t10k|[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W\d_a-zA-Z]+")


def words_of(name: str) -> list[str]:
    """Return the words of a file or folder name, lower case, without accents: cut at signs, digits and capitals.

    Example:
        >>> words_of("trainA"), words_of("val2017"), words_of("Training_Set"), words_of("Entraînement")
        (['train', 'a'], ['val', '2017'], ['training', 'set'], ['entrainement'])
    """
    plain = unicodedata.normalize("NFC", _ACCENTS.sub("", unicodedata.normalize("NFD", name)))
    return [word.lower() for word in _WORDS.findall(plain)]


def part_named(name: str) -> str | None:
    """Tell which part a file or folder name stands for.

    Example:
        >>> part_named("train-00000-of-00003"), part_named("X_val"), part_named("train2017"), part_named("cats")
        ('train', 'validation', 'train', None)
    """
    return next((PART_WORDS[word] for word in words_of(name) if word in PART_WORDS), None)


def parts_in_column(name: str, values: Iterable[str]) -> dict[str, str | None] | None:
    """Return the part that each value of a table's column stands for; None unless the column divides the rows.

    It does if its name has a word of `SPLIT_WORDS` and one of its values is the training part, where a value with other
    words, as `test_scaffolds`, is no part; or if all of its values name parts, at least two. A column of yes and no
    does that is called `is_train` or the like, or `train` alone if it does not hold numbers.

    Args:
        name: The column's name.
        values: Its different values.

    Example:
        >>> parts_in_column("Usage", ["Training", "PublicTest"]), parts_in_column("is_train", ["0", "1"])
        ({'Training': 'train', 'PublicTest': 'test'}, {'0': 'test', '1': 'train'})
        >>> parts_in_column("split", ["Train", "test_2"]), parts_in_column("vehicle", ["train", "bus"])
        ({'Train': 'train', 'test_2': None}, None)
    """
    values = list(values)
    words = words_of(name)
    divides = not SPLIT_WORDS.isdisjoint(words)
    parts = {value: _part_alone(value) if divides else part_named(value) for value in values}
    named = set(parts.values()) - {None}
    if "train" in named and (divides or (len(named) > 1 and None not in parts.values())):
        return parts
    truth = {value: _TRUTH.get(value.strip().lower()) for value in parts}
    asks = len(words) == 2 and words[0] in ("is", "in")
    tells = len(words) == 1 and not any(map(str.isdecimal, parts))
    if not (asks or tells) or words[-1] not in PART_WORDS or set(truth.values()) != {True, False}:
        return None
    part = PART_WORDS[words[-1]]
    return {value: part if yes else "test" if part == "train" else "train" for value, yes in truth.items()}


def _part_alone(value: str) -> str | None:
    """Return the part that a value names, if it says nothing else: `Train`, `test_set`."""
    words = [word for word in words_of(value) if word not in SPLIT_WORDS and word != "data"]
    return PART_WORDS.get(words[0]) if len(words) == 1 else None


def permutation(n: int, seed: int) -> Indices:
    """Return a random order of 0..n-1 that depends on `n` and `seed` alone: on no platform, process or library version.

    NumPy guarantees the stream of its legacy generator for good (NEP 19), which it does not for the newer ones.
    """
    return np.random.RandomState(seed).permutation(n).astype(np.int64)


def stratified_order(n: int, labels: Array | None, seed: int) -> Indices:
    """Return a random order of 0..n-1 in which every stretch holds the classes in proportion, to within one example.

    The k-th of a class's m examples, in random order, stands at (k + 1/2) / m; ties stay in random order. Cutting the
    order anywhere therefore gives a stratified split, and its first n/10 are as balanced as the whole.
    """
    base = permutation(n, seed)
    if labels is None or n == 0:
        return base
    classes = np.unique(labels, return_inverse=True)[1][base]
    by_class = np.argsort(classes, kind="stable")
    counts = np.bincount(classes)
    rank = np.empty(n)
    rank[by_class] = np.arange(n) - np.repeat(np.cumsum(counts) - counts, counts)
    return base[np.argsort((rank + 0.5) / counts[classes], kind="stable")]


@dataclass(frozen=True)
class Plan:
    """Which examples go where.

    Attributes:
        train, validation, test: A part of the source and the indices into it that were chosen.
        how: One clause that says by which rule.
    """

    train: tuple[Part, Indices]
    validation: tuple[Part, Indices]
    test: tuple[Part, Indices]
    how: str


def plan_split(found: Found, seed: int) -> Plan:
    """Divide what was found on disk: respect the given parts, and draw the missing ones.

    Without parts (or with "train" alone) a stratified 80/10/10 is drawn; a missing validation or test part is a
    stratified tenth of the training part. Every part has at least one example.

    Args:
        found: Examples in an order that does not depend on the disk (readers sort).
        seed: Of the draw, 0..2^32 - 1.

    Raises:
        DataError: if there is no training part, a given part is empty, or there are too few examples to divide.
    """
    parts = dict(found.parts)
    where = found.where + (f" ({'; '.join(found.remarks)})" if found.remarks else "")
    for name, part in parts.items():
        if len(part) == 0:
            raise DataError(f"{found.where}: the {name} part is empty; fill or remove it")
    if set(parts) == {"train"}:
        parts = {POOL: parts["train"]}
    if POOL in parts:
        pool = parts[POOL]
        tenth = max(1, round(len(pool) / 10))
        order = _drawn(pool, 3, where, seed)
        train, validation, test = _cut(order, (len(pool) - 2 * tenth, tenth, tenth))
        how = f"80/10/10 drawn {_evenly(pool)}with seed {seed}"
        return Plan((pool, train), (pool, validation), (pool, test), how)
    if "train" not in parts:
        given = " and ".join(parts)
        raise DataError(f"{found.where} has a {given} part but no training part; add one, or pass that part's path")
    if len(parts) == 3:
        how = "parts as given"
        return Plan(_whole(parts["train"]), _whole(parts["validation"]), _whole(parts["test"]), how)
    missing = "test" if "validation" in parts else "validation"
    source = parts["train"]
    tenth = max(1, round(len(source) / 10))
    train, carved = _cut(_drawn(source, 2, where, seed), (len(source) - tenth, tenth))
    how = f"{missing} is a tenth of the training part, drawn {_evenly(source)}with seed {seed}"
    if missing == "validation":
        return Plan((source, train), (source, carved), _whole(parts["test"]), how)
    return Plan((source, train), _whole(parts["validation"]), (source, carved), how)


def plan_official(found: Found, counts: tuple[int, int, int], *, shuffled: bool) -> Plan:
    """Divide a named set as its literature does; the result never depends on a seed.

    Three parts are taken as they are. Of train and test, the last of the training part become the validation part
    and are kept out of training. One pool is cut in order. Where the source is sorted by class (a folder a class,
    say), its order is not the published one and an end would be one class: a fixed stratified draw replaces the end.

    Args:
        found: The whole set.
        counts: Examples for training, validation, test.
        shuffled: Draw a pool even if it is not sorted by class (for sets with no published split).

    Raises:
        DataError: if the numbers of examples are not the official ones.
    """
    parts = found.parts
    n_train, n_validation, n_test = counts
    wanted = {
        frozenset({"train", "validation", "test"}): {"train": n_train, "validation": n_validation, "test": n_test},
        frozenset({"train", "test"}): {"train": n_train + n_validation, "test": n_test},
        frozenset({POOL}): {POOL: sum(counts)},
    }.get(frozenset(parts))
    if wanted is None:
        given = ", ".join(parts)
        raise DataError(f"{found.where} has only the parts: {given}; add the missing ones (train and test at least)")
    for name, part in parts.items():
        if len(part) != wanted[name]:
            raise DataError(
                f"{found.where}: {len(part):,} examples in part '{name}' where the set has {wanted[name]:,}; "
                "complete the files, or load the folder by its path to use them as they are"
            )
    if len(parts) == 3:
        how = "official parts"
        return Plan(_whole(parts["train"]), _whole(parts["validation"]), _whole(parts["test"]), how)
    source = parts[POOL] if POOL in parts else parts["train"]
    by_class = _sorted_by_class(source.labels)
    ordered = not by_class and not (shuffled and POOL in parts)
    order = np.arange(len(source), dtype=np.int64) if ordered else stratified_order(len(source), source.labels, 0)
    if POOL in parts:
        train, validation, test = _cut(order, counts)
        how = "cut in order" if ordered else "fixed stratified draw"
        return Plan((source, train), (source, validation), (source, test), how)
    train, validation = _cut(order, (n_train, n_validation))
    taken = "the last" if ordered else "a fixed stratified draw (the files are sorted by class) of"
    how = f"validation is {taken} {n_validation:,} of the training part, test the official one"
    return Plan((source, train), (source, validation), _whole(parts["test"]), how)


def subset(indices: Indices, limit: int | None, seed: int) -> Indices:
    """Draw `limit` of `indices` at random, in their order; draws of one seed are nested (10 are among 100)."""
    if limit is None or limit >= len(indices):
        return indices
    return indices[np.sort(permutation(len(indices), seed)[:limit])]


def _drawn(part: Part, least: int, where: str, seed: int) -> Indices:
    if len(part) < least:
        raise DataError(
            f"{where}: {len(part)} example{'s' * (len(part) != 1)} to divide into {least} parts; "
            f"add some, at least {least} are needed"
        )
    return stratified_order(len(part), part.labels, seed)


def _evenly(part: Part) -> str:
    return "" if part.labels is None else "evenly over the classes "


def _cut(order: Indices, counts: Sequence[int]) -> list[Indices]:
    return np.split(order, np.cumsum(counts)[:-1])


def _whole(part: Part) -> tuple[Part, Indices]:
    return part, np.arange(len(part), dtype=np.int64)


def _sorted_by_class(labels: Array | None) -> bool:
    if labels is None or len(labels) < 2 or labels[0] == labels[-1]:
        return False
    return bool(np.all(labels[1:] >= labels[:-1]))
