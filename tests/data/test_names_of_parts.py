"""Folders and files as archives unpack and as other languages call them."""

from __future__ import annotations

import pytest

from expost.data.folders import sort_files
from expost.data.splits import part_named


def sort(*names):
    return sort_files([tuple(name.split("/")) for name in names])


def pairs(train, test, classes=("rose", "tulip")):
    """Return three files of each class in two folders."""
    return [f"{folder}/{name}/{name}{i}.png" for folder in (train, test) for name in classes for i in range(3)]


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("alphabet_train/alphabet_train", "alphabet_test/alphabet_test"),
        ("training_set/training_set", "test_set/test_set"),
        ("training_set/Training", "test_set"),
        ("Trainingsdaten", "Testdaten"),
        ("entraînement", "test"),
        ("apprentissage", "test"),
        ("entrenamiento", "prueba"),
        ("treino", "teste"),
        ("训练集", "测试集"),
        ("学習データ", "テストデータ"),
        ("학습", "테스트"),
        ("обучение", "тест"),
    ],
)
def test_parts_are_known_twice_over_and_in_other_languages(train, test):
    found = sort(*pairs(train, test))
    assert {part: len(files) for part, files in found.parts.items()} == {"train": 6, "test": 6}
    assert {part: set(labels) for part, labels in found.labels.items()} == {
        "train": {"rose", "tulip"},
        "test": {"rose", "tulip"},
    }


def test_a_class_that_is_called_like_a_part_stays_one():
    found = sort(*pairs("train", "test", ("train", "bus")))
    assert set(found.labels["train"]) == {"train", "bus"}


@pytest.mark.parametrize("names", [("fold_0", "fold_1"), ("data_batch_1", "data_batch_2"), ("part1", "part2", "part3")])
def test_folders_that_count_pieces_are_no_classes(names):
    found = sort(*(f"{name}/{i}.png" for name in names for i in range(6)))
    assert found.labels == {"all": None}
    assert f"no labels, since the subfolders count pieces ({', '.join(names)})" in found.remarks
    assert set(sort("fold_1/a.png", "fold_1/b.png", "cat/a.png", "cat/b.png").labels["all"]) == {"fold_1", "cat"}


@pytest.mark.parametrize(
    ("images", "masks"),
    [("ISIC_Input", "ISIC_GroundTruth"), ("lung_images", "lung_masks"), ("CXR-imgs", "CXR-annotations")],
)
def test_masks_are_known_below_a_name_that_all_folders_share(images, masks):
    found = sort(*(f"{folder}/p{7 * i}.png" for folder in (images, masks) for i in range(6)))
    assert found.parts == {"all": list(range(6))}
    assert found.labels == {"all": None}
    assert f"left out 6 images in {masks} (masks or labels beside the images)" in found.remarks


@pytest.mark.parametrize(
    ("name", "part"),
    [("Validación", "validation"), ("données-d-entraînement", "train"), ("검증", "validation"), ("Prüfung", None)],
)
def test_words_of_parts_lose_their_accents(name, part):
    assert part_named(name) == part
