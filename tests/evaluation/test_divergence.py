"""A training whose losses stay finite, but far above those of the untrained model, is warned of wherever it is used."""

from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch

import expost
from expost.commands.reporting import report
from expost.errors import DataError
from expost.evaluation.divergence import divergence, held_out_loss
from expost.run import Run
from expost.types import to_unit

SAID = "warning: training diverged: the loss on held-out examples is"
TINY: Any = {"epochs": 2, "width": 8, "tensorboard": False, "device": "cpu"}


@pytest.mark.parametrize("model", ["vae", "rae-l2"])
def test_training_fit_and_report_warn_of_a_rate_that_left_a_huge_finite_loss(model, tmp_path, capsys):
    run = expost.train(model, "digits", tmp_path / "run", lr=1e3, **TINY)
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(SAID)
    assert "train again with a smaller --lr than 1000 (see http" in last
    assert last.endswith("#the-loss-rises)")
    with suppress(DataError):  # the codes of such a model may all be equal
        expost.fit(run, "gaussian")
    assert SAID in capsys.readouterr().err
    page = report((run.folder,), out=tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Training diverged: the loss on held-out examples is" in page


def test_the_figures_are_the_losses_of_the_trained_and_of_the_untrained_model(tmp_path, capsys):
    run = expost.train("rae-l2", "digits", tmp_path / "run", **TINY)
    assert SAID not in capsys.readouterr().err
    x, trained, fresh = run.data().validation.x, run.model("cpu"), run.fresh_model().eval()
    before = held_out_loss(fresh, x)
    few = to_unit(x[torch.linspace(0, len(x) - 1, min(200, len(x))).round().long()])
    z = fresh.encode(few)
    squared = (few - fresh.decode(z)).square().flatten(1).sum(1) + fresh.beta * 0.5 * z.square().sum(1)
    assert before == pytest.approx(squared.mean().item(), rel=1e-4)
    assert divergence(trained, run.fresh_model(), x) is None
    worse = Run.open(run.folder).model("cpu")
    with torch.no_grad():
        next(worse.encoder.parameters()).mul_(1e6)
    after = held_out_loss(worse, x)
    assert after > 2 * before
    said = divergence(worse, run.fresh_model(), x)
    assert said == (
        f"training diverged: the loss on held-out examples is {after:.3g}, and that of the untrained model {before:.3g}"
    )
    assert divergence(worse, run.fresh_model(), x[:1]) is None


def test_a_table_in_large_units_is_compared_in_the_model_s_own(tmp_path, capsys):
    """The untrained model knows no columns' scales; without them its loss would hide any divergence."""
    generator = torch.Generator().manual_seed(0)
    rows = 1e6 * torch.randn(300, 5, generator=generator).numpy()
    np.save(tmp_path / "rows.npy", rows)
    expost.train("rae-l2", tmp_path / "rows.npy", tmp_path / "good", standardize=True, **TINY)
    assert SAID not in capsys.readouterr().err
    expost.train("rae-l2", tmp_path / "rows.npy", tmp_path / "bad", standardize=True, lr=3.0, **TINY)
    assert SAID in capsys.readouterr().err
