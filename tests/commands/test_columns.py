"""The columns that were asked for are kept in a run, and codes and rows fit short strings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import expost
from expost.errors import UsageError
from expost.run import Run

FAST: dict[str, Any] = {"epochs": 1, "precision": "float32", "tensorboard": False, "latent_dim": 2}


@pytest.fixture
def table(tmp_path):
    rng = np.random.default_rng(0)
    lines = [f"{a:.3f},{b:.3f},{'uv'[i % 2]},w{i} x" for i, (a, b) in enumerate(rng.normal(size=(40, 2)))]
    (tmp_path / "x.csv").write_text("\n".join(["a,b,kind,words", *lines]))
    return tmp_path / "x.csv"


def test_a_run_keeps_the_column_of_labels(table, tmp_path, capsys):
    expost.train("rae", table, tmp_path / "run", label_column="kind", **FAST)
    assert "labels: column 'kind', 2 classes" in capsys.readouterr().err
    run = Run.open(tmp_path / "run")
    assert run.config.data.label_column == "kind"
    assert run.data().classes == ("u", "v")
    expost.train("rae", table, tmp_path / "run", label_column="kind", resume=True, epochs=2)
    with pytest.raises(UsageError, match="was trained with data.label_column kind, not none"):
        expost.train("rae", table, tmp_path / "run", label_column="none", resume=True, epochs=3)


def test_a_run_keeps_the_column_of_strings(table, tmp_path):
    run = expost.train("character-vae", table, tmp_path / "run", column="words", **FAST)
    assert run.config.data.column == "words"
    data = Run.open(tmp_path / "run").data()
    strings = [string for part in (data.train, data.validation, data.test) for string in data.codec.decode(part.x)]
    assert sorted(strings) == sorted(f"w{i} x" for i in range(40))
    with pytest.raises(UsageError, match="was trained with data.column words, not kind"):
        expost.train("character-vae", table, tmp_path / "run", column="kind", resume=True)


def test_columns_where_there_are_none_are_refused(table, tmp_path):
    with pytest.raises(UsageError, match="column is for strings, data set 'digits' has none; leave it out"):
        expost.train("rae", "digits", tmp_path / "run", column="a", dry_run=True)
    with pytest.raises(UsageError, match="label_column is for files and folders, and digits is a named set"):
        expost.train("rae", "digits", tmp_path / "run", label_column="a", dry_run=True)
    with pytest.raises(UsageError, match="label_column is for tables of numbers, .* holds strings; leave it out"):
        expost.train("character-vae", table, tmp_path / "run", column="words", label_column="kind", dry_run=True)
    with pytest.raises(UsageError, match="has none; name the column of strings by column, give a file of strings"):
        expost.train("grae", table, tmp_path / "run", dry_run=True)


def test_the_code_of_short_strings_is_cut_with_a_remark_or_as_given(tmp_path, capsys):
    (tmp_path / "x.txt").write_text("\n".join(["1+2", "2+1", "1+1", "2+2", "1", "2", "1+1+2", "2+1+2"]))
    given = expost.train("character-vae", tmp_path / "x.txt", tmp_path / "run", dry_run=True, **FAST)
    assert given.config.model.latent_dim == 2
    assert "latent_dim" not in capsys.readouterr().err
    options: Any = {key: value for key, value in FAST.items() if key != "latent_dim"}
    cut = expost.train("character-vae", tmp_path / "x.txt", tmp_path / "run", dry_run=True, **options)
    assert cut.config.model.shape == (5, 4)
    assert cut.config.model.latent_dim == 10
    assert "latent_dim: 10 instead of 25, since an example has 20 numbers" in capsys.readouterr().err
    with pytest.raises(UsageError, match="latent_dim is 21, more than the 20 numbers of an example"):
        expost.train("character-vae", tmp_path / "x.txt", tmp_path / "run", dry_run=True, **options, latent_dim=21)


def test_the_weight_of_a_code_that_was_cut_is_that_of_the_dimension(tmp_path):
    from expost.models.presets import configure

    cut = configure("rae-l2", (5, 4))[0]
    assert cut.latent_dim == 10
    asked = configure("rae-l2", (5, 4), model_overrides={"latent_dim": 5})[0]
    assert asked.beta * 5 == pytest.approx(cut.beta * 10)
    whole = configure("rae-l2", (10, 4))[0]
    assert whole.latent_dim == 25
    assert whole.beta * 25 == pytest.approx(cut.beta * 10)
