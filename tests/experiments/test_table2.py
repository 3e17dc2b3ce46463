"""The search table as a command: every row, both aggregations, nothing done twice."""

import contextlib
import json
import shutil
import sys
from dataclasses import replace

import pytest

from expost.errors import DataError, UsageError
from expost.experiments import reproduce, table2
from expost.experiments.engines import LocalEngine
from expost.experiments.published import TABLE2
from expost.experiments.table2 import TABLE
from expost.experiments.table2_report import as_csv, markdown
from expost.registry import Registry
from expost.search import aggregate_corrected, aggregate_original, read_search
from expost.search.result import Round, SearchResult
from expost.utils.store import write_json

ROWS = ("grae", "grae, our decoder", "grae, ours")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    pytest.importorskip("botorch", reason="the molecules extra is not installed")
    out = tmp_path_factory.mktemp("table2")
    return reproduce("table2", scale="smoke", models=ROWS, out=out, workers=1)


def test_rows_have_both_aggregations_beside_the_papers(table):
    record = json.loads((table / "table.json").read_text())
    assert list(record["rows"]) == list(ROWS)
    for row in record["rows"].values():
        assert 0 <= row["corrected"]["valid"]["mean"] <= 1
        # leaving out the worst points can only flatter
        assert row["original"]["score"]["mean"] <= row["corrected"]["score"]["mean"]
        assert row["repetitions"][0]["points"] == 10
        strings = [text for found in row["repetitions"] for text in [found["different"], found["new"]]]
        assert [row["different"], row["new"]] == strings
        assert 0 <= row["new"] <= row["different"] <= 10
        assert row["starts"] == [row["repetitions"][0]["training"]["best"]]
    text = (table / "table.md").read_text()
    assert "[3.22 ± 0.03]" in next(line for line in text.splitlines() if line.startswith("| grae |"))
    assert "[" not in next(line for line in text.splitlines() if line.startswith("| grae, ours |"))


def test_a_row_tells_what_was_begun_with_and_what_is_new(table):
    record = json.loads((table / "table.json").read_text())
    row = record["rows"]["grae"]
    row |= {"starts": [0.5, 0.25], "improved": 1, "different": 9.5, "new": 2.0}
    row["best"] = {"string": "x", "score": 0.125, "new": True}
    cells = [cell.strip() for cell in markdown(record).splitlines()[-3].split("|")[1:-1]]
    assert cells[-9:-4] == ["9.5", "2", "0.125: `x`, new", "0.25 to 0.5", "1 of 2"]
    row |= {"starts": [0.5], "improved": 0, "new": None}
    row["best"]["new"] = False
    cells = [cell.strip() for cell in markdown(record).splitlines()[-3].split("|")[1:-1]]
    assert cells[-8:-4] == ["-", "0.125: `x`, a training string", "0.5", "0 of 1"]
    line = as_csv(record).splitlines()[1]
    assert "9.5,,0.125,x,False,0.5,0.5,0," in line


def test_a_row_tells_what_its_codes_say_and_how_found_strings_are_scored(table):
    record = json.loads((table / "table.json").read_text())
    codes = [row["codes"] for row in record["rows"].values()]
    assert codes[1] == codes[2]  # of one run
    for found in codes:
        assert -0.5 < found["use"] <= 1
        assert found["kl"] is None  # a deterministic code has no variance
        assert 1 / 25 <= found["mode"] <= 1
        assert found["surrogate"] > 0
    assert [row["model"]["scoring"] for row in record["rows"].values()] == [{"division": "python2"}, {}, {}]
    text = (table / "table.md").read_text()
    assert "Found strings are scored as in the published scripts (division=python2) in the rows grae." in text
    row = record["rows"]["grae"]
    row["codes"] = {"use": 0.97, "kl": 0.355, "mode": 0.82, "surrogate": 0.5}
    cells = [cell.strip() for cell in markdown(record).splitlines()[-3].split("|")[1:-1]]
    assert cells[-4:] == ["0.97", "0.35", "0.82", "0.5"]


def test_rows_of_one_model_and_preset_share_a_run(table):
    assert sorted(path.name for path in (table / "runs").iterdir()) == ["grae-published", "grae-small"]
    record = json.loads((table / "table.json").read_text())
    first, second = (record["rows"][name]["training seconds"] for name in ROWS[1:])
    assert first == second > 0


def test_a_deleted_search_is_redone_alone(table):
    def times():
        files = [*table.glob("runs/*/model.safetensors"), *table.glob("searches/*/search.json")]
        return {path: path.stat().st_mtime_ns for path in files}

    before = times()
    gone = table / "searches" / "grae-published-0" / "search.json"
    old = json.loads((table / "table.json").read_text())["rows"]["grae"]["corrected"]
    for path in gone.parent.iterdir():
        path.unlink()
    (table / "table.json").unlink()  # what is read below has been written anew
    reproduce("table2", scale="smoke", models=ROWS, out=table, workers=1)
    assert [path for path, time in times().items() if time != before[path]] == [gone]
    assert json.loads((table / "table.json").read_text())["rows"]["grae"]["corrected"] == old


def test_the_table_is_there_from_the_first_repetition_and_never_shrinks(table, tmp_path, monkeypatch):
    out, done, stop_after = tmp_path / "table", [], 3  # the first repetition, and one row of the second
    shutil.copytree(table, out)
    twice = {**table2.SCALES["smoke"], "expressions": replace(table2.SCALES["smoke"]["expressions"], repetitions=2)}
    monkeypatch.setattr(table2, "SCALES", Registry("scale", {"smoke": twice}))
    search = table2.optimize

    def interrupted(run, **settings):
        if len(done) == stop_after:
            raise KeyboardInterrupt
        done.append(settings["out"].name)
        return search(run, **settings)

    monkeypatch.setattr(table2, "optimize", interrupted)

    def go_on():
        done.clear()
        with contextlib.suppress(KeyboardInterrupt):
            reproduce("table2", scale="smoke", models=ROWS, out=out, workers=1)
        record = json.loads((out / "table.json").read_text())
        return {record["searches"], *(row["corrected"]["repetitions"] for row in record["rows"].values())}

    assert go_on() == {1}
    assert "1 of 2 searches a row" in (out / "table.md").read_text()
    stop_after = 6
    assert go_on() == {2}
    assert done == [f"{row.replace(', ', '-')}-{TABLE[row].preset}-{seed}" for seed in (0, 1) for row in ROWS]
    assert "2 searches a row" in (out / "table.md").read_text()
    stop_after = 4
    assert go_on() == {2}  # the finished ones were read again, and the table of both stands
    shutil.rmtree(out / "searches")
    stop_after = 3
    assert go_on() == {1}  # what is gone is no longer in the table
    (out / "table.json").write_text("[]")
    with pytest.raises(DataError, match="table.json is no table, or damaged; move it away"):
        go_on()
    assert not done


def test_repetitions_may_be_done_in_any_order(table, tmp_path, monkeypatch):
    """As with several workers, where a later repetition may be whole before an earlier one."""
    out = tmp_path / "table"
    shutil.copytree(table, out)
    first = json.loads((table / "table.json").read_text())
    twice = {**table2.SCALES["smoke"], "expressions": replace(table2.SCALES["smoke"]["expressions"], repetitions=2)}
    monkeypatch.setattr(table2, "SCALES", Registry("scale", {"smoke": twice}))
    tables = []

    def kept(path, record):
        write_json(path, record)
        tables.append(json.loads(path.read_text())["rows"])

    class Backwards(LocalEngine):
        def run(self, function, tasks, devices, logs=None):
            return super().run(function, tasks[::-1], devices, logs)

    monkeypatch.setattr(table2, "write_json", kept)
    monkeypatch.setattr(table2, "open_engine", Backwards)
    reproduce("table2", scale="smoke", models=ROWS, out=out, workers=1)
    second, both = tables
    for name in ROWS:
        (summary,) = second[name]["repetitions"]
        assert summary == read_search(out / "searches" / f"{name.replace(', ', '-')}-{TABLE[name].preset}-1").summary()
        assert both[name]["repetitions"] == [*first["rows"][name]["repetitions"], summary]
        assert len({row["rounds"][0]["average"] for row in both[name]["repetitions"]}) == 2
        starts = [row["training"]["best"] for row in both[name]["repetitions"]]
        bests = [row["best"]["score"] for row in both[name]["repetitions"]]
        assert both[name]["starts"] == starts
        assert both[name]["improved"] == sum(best < start for best, start in zip(bests, starts, strict=True))


def test_published_rows_are_rows_of_the_table():
    assert set(TABLE2["expressions"]) == set(TABLE2["molecules"]) < set(TABLE)


def test_wrong_words(tmp_path, table):
    with pytest.raises(UsageError, match="unknown row 'vae'"):
        reproduce("table2", models=("vae",), out=tmp_path)
    with pytest.raises(UsageError, match="unknown scale 'huge'"):
        reproduce("table2", scale="huge", out=tmp_path)
    with pytest.raises(UsageError, match="other settings"):
        reproduce("table2", scale="small", models=("grae",), out=table, workers=1)


def test_the_two_aggregations_differ_where_points_are_invalid():
    """Three points: scores 1 and 3, and an invalid one at the worst training score, 10."""
    import torch

    one = Round(torch.zeros(3, 2), ["a", "b", None], [1.0, 3.0, 10.0], ["valid", "valid", "invalid"], None, {})
    runs = [SearchResult("expression", "box", True, 10.0, 1.0, [one])] * 2
    assert aggregate_corrected(runs).score.mean == pytest.approx(14 / 3)
    assert aggregate_original(runs).score.mean == pytest.approx(2)
    assert aggregate_corrected(runs).valid.mean == pytest.approx(2 / 3)


def test_without_botorch_nothing_is_trained_before_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "botorch", None)
    with pytest.raises(UsageError, match=r"search needs BoTorch; install it with: pip install 'expost\[molecules\]'"):
        reproduce("table2", domain="expressions", scale="smoke", out=tmp_path / "table")
    assert not list((tmp_path / "table").glob("runs/*"))
