"""The README's Python runs as it stands."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import expost

README = Path(__file__).resolve().parents[2] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_fifteen_lines_run(tmp_path, monkeypatch, capsys):
    """Word for word, but for a budget of seconds."""
    monkeypatch.chdir(tmp_path)
    code = BLOCKS[0].replace("epochs=10", 'epochs=1, width=2, limit=300, precision="float32"')
    assert code != BLOCKS[0]
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert (tmp_path / "samples.png").stat().st_size > 1000
    assert (tmp_path / "paths.png").stat().st_size > 1000
    assert "frechet-digits gmm" in capsys.readouterr().out
    assert names["images"].shape == (16, 1, 32, 32)
    assert names["log_q"].isfinite().all()


def test_a_foreign_pair_is_wrapped_as_the_readme_says():
    names: dict[str, Any] = {
        "expost": expost,
        "my_encoder": torch.nn.Linear(8, 2),
        "my_decoder": torch.nn.Linear(2, 8),
        "x_train": torch.randn(100, 8),
    }
    exec(compile(BLOCKS[1], "README.md", "exec"), names)
    assert names["samples"].shape == (64, 8)


def test_strings_as_the_readme_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = expost.train("grae", "expressions", "runs/grae", epochs=1, limit=1_000, width=16, tensorboard=False)
    expost.fit(run, "gmm", components=2)
    block = BLOCKS[2].replace("strings.sample(10", "drawn = strings.sample(10")
    names: dict[str, Any] = {"expost": expost}
    exec(compile(block, "README.md", "exec"), names)
    assert len(names["drawn"]) == 10


def test_tables_as_the_readme_says():
    names: dict[str, Any] = {}
    exec(compile(BLOCKS[3].replace("epochs=50", "epochs=2"), "README.md", "exec"), names)
    assert names["more"].shape == (100, 13)
    assert 0 <= names["unusual"] < 178


def test_the_blocks_are_the_ones_tested():
    assert len(BLOCKS) == 4


@pytest.mark.parametrize(
    "command", re.findall(r"^    expost (\w+)", README.read_text(encoding="utf-8"), flags=re.MULTILINE)
)
def test_the_commands_of_the_readme_exist(command):
    from expost.cli.parsing import COMMANDS

    assert command in COMMANDS
