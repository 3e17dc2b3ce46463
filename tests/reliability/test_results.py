"""`results/` is made again by the command beside each table: its cheapest row is, in `make torture`."""

import re
from pathlib import Path

import pytest
from torture import LONG, count

from expost.experiments import reproduce
from expost.experiments.table1_report import columns
from expost.utils.store import read_json

RESULTS = Path(__file__).resolve().parents[2] / "results"
#: Another run lies within so many standard deviations of three seeds' mean, with 95 %: t of two degrees of freedom.
SPREADS = 4.30 * (1 + 1 / 3) ** 0.5


def committed(table: str, row: str, column: str) -> tuple[float, float]:
    """Return the value of a committed table, and its standard deviation over seeds."""
    lines = [line for line in (RESULTS / table).read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    header = next(line for line in lines if f" {column} " in line)
    names = [cell.strip() for cell in header.strip("|").split("|")]
    cells = next(line for line in lines if line.startswith(f"| {row} |")).strip("|").split("|")
    found = re.fullmatch(r"([\d.e-]+) ± ([\d.e-]+)", cells[names.index(column)].strip())
    assert found
    return float(found[1]), float(found[2])


@pytest.mark.skipif(LONG is None, reason="it trains for five minutes; make torture runs it")
def test_the_cheapest_row_of_the_paper_s_table_is_made_again(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXPOST_DATA", str(shared_data))
    mean, spread = committed("table1-mnist-small/three_seeds.md", "rae-l2", "MSE")
    out = reproduce(
        "table1", scale="small", models=("rae-l2",), features="digits", columns=("Rec",), out=tmp_path / "r"
    )
    (found,) = columns(read_json(out / "table.json")["rows"]["rae-l2"], "mse")["Rec"]
    lost = abs(found - mean) > SPREADS * spread
    count("a row of results/ is made again within its spread", 1, int(lost))
    assert not lost, (found, mean, spread)


def test_tables_state_their_spread_over_seeds() -> None:
    mean, spread = committed("table1-mnist-small/three_seeds.md", "rae-l2", "MSE")
    assert 0 < spread < mean / 10
