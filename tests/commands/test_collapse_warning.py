"""A model whose codes say nothing is warned of wherever somebody would build on them."""

import pytest

import expost
from expost.commands.reporting import report

SAID = "warning: the codes say next to nothing"


@pytest.fixture(scope="module")
def collapsed(tmp_path_factory):
    """A grammar VAE under a crushing weight of the divergence."""
    folder = tmp_path_factory.mktemp("runs") / "collapsed"
    return expost.train("gvae", "expressions", folder, epochs=2, limit=200, width=8, beta=100.0, tensorboard=False)


def test_training_fit_search_and_report_warn_of_codes_that_say_nothing(collapsed, capsys, tmp_path):
    expost.fit(collapsed, "gaussian")
    said = capsys.readouterr().err
    assert SAID in said
    assert "or take --preset published" in said
    expost.optimize(
        collapsed, density="gaussian", codes=50, rounds=1, batch=2, decodes=2, inducing=5, out=tmp_path / "search"
    )
    assert SAID in capsys.readouterr().err
    path = report((collapsed.folder,), out=tmp_path / "report.html")
    assert "The codes say next to nothing" in path.read_text(encoding="utf-8")


def test_a_model_that_uses_its_codes_is_not_warned_of(capsys, tmp_path):
    run = expost.train("rae-l2", "digits", tmp_path / "run", epochs=3, tensorboard=False)
    expost.fit(run, "gaussian")
    assert SAID not in capsys.readouterr().err


def test_training_says_so_at_its_end(capsys, tmp_path):
    expost.train("vae", "digits", tmp_path / "run", epochs=1, beta=1e4, tensorboard=False)
    said = capsys.readouterr().err.splitlines()[-1]
    assert SAID in said
    assert "train for longer, or lower --beta (see http" in said
    assert said.endswith("#samples-are-all-alike)")
