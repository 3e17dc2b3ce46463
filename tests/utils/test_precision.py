"""bf16 where the machine computes it in hardware, float32 elsewhere; and how a run goes on where there is none."""

import json
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import expost
from expost.cli import main
from expost.commands import train
from expost.commands.doctor import doctor
from expost.commands.reporting import report
from expost.errors import UsageError
from expost.evaluation.protocol import pick_space
from expost.experiments.cells import refuse_another
from expost.models.autoencoder import Autoencoder
from expost.models.presets import configure
from expost.sharing import save_pretrained
from expost.training.devices import pick_device
from expost.utils import precision
from expost.utils.precision import bf16_cost, choose, full_float32
from expost.utils.store import read_tensors

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {"data": "mnist-5k", "epochs": 1, "width": 2, "limit": 60, "tensorboard": False}


def machine(monkeypatch, *instructions, architecture="x86_64"):
    """Let torch say that the CPU has some instructions, and nothing else of the kind."""
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(precision.platform, "machine", lambda: architecture)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(instructions, True), raising=False)


@pytest.fixture(params=[True, False], ids=["bf16 in hardware", "no bf16"])
def hardware(request, monkeypatch):
    machine(monkeypatch, "avx2", *(["avx512_bf16"] if request.param else ["avx512_f"]))
    return request.param


def resolved(folder):
    return json.loads((folder / "config.json").read_text())["training"]["precision"]


@pytest.mark.parametrize(
    ("architecture", "instructions", "expected"),
    [
        ("x86_64", ("avx2",), "float32"),
        ("x86_64", ("avx2", "avx512_f", "avx512_vnni"), "float32"),  # oneDNN's own answer is yes: it emulates
        ("x86_64", ("avx512_bf16",), "bf16"),
        ("AMD64", ("amx_bf16",), "bf16"),
        ("x86_64", ("bf16",), "float32"),  # Arm's name
        ("aarch64", ("neon",), "float32"),
        ("aarch64", ("neon", "bf16"), "bf16"),
        ("arm64", ("sve_bf16",), "bf16"),
    ],
)
def test_auto_is_bf16_on_cpus_with_its_instructions_alone(architecture, instructions, expected, monkeypatch):
    machine(monkeypatch, *instructions, architecture=architecture)
    chosen = choose("auto", CPU)
    assert chosen.arithmetic == expected
    assert chosen.hardware == (expected == "bf16")
    assert ("no bf16 instructions" in chosen.reason) == (expected == "float32")


@pytest.mark.parametrize("name", ["avx512_bf16", "amx_bf16"])
def test_older_releases_of_torch_are_asked_in_their_way(name, monkeypatch):
    machine(monkeypatch)
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: name == "avx512_bf16")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: name == "amx_bf16")
    assert str(choose("auto", CPU)) == f"bf16 (the CPU has {name})"
    monkeypatch.setattr(torch.cpu, f"_is_{name.replace('amx_bf16', 'amx_tile')}_supported", lambda: False)
    assert str(choose("auto", CPU)) == "float32 (the CPU has no bf16 instructions: no amx_bf16 or avx512_bf16)"


@pytest.mark.parametrize("architecture", ["arm64", "x86_64"])
def test_builds_of_torch_that_cannot_be_asked_compute_in_float32(architecture, monkeypatch):
    """As those for Macs of before 2.11."""
    machine(monkeypatch, architecture=architecture)
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())
    for asked in ("auto", "float32"):
        assert choose(asked, CPU).arithmetic == "float32"
    assert not choose("bf16", CPU).hardware


@pytest.mark.parametrize(
    ("cap", "expected"),
    [("AVX2", "float32"), ("avx512_core", "float32"), ("AVX512_CORE_BF16", "bf16"), ("AVX512_CORE_AMX", "bf16")],
)
def test_a_cap_on_onednns_instructions_counts(cap, expected, monkeypatch):
    machine(monkeypatch, "avx512_bf16")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", cap)
    assert choose("auto", CPU).arithmetic == expected


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "float32"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_cuda_computes_bf16_from_ampere_on(capability, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: capability >= (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    chosen = choose("auto", torch.device("cuda"))
    assert (chosen.arithmetic, "a card" in chosen.reason) == (expected, True)


def test_of_several_gpus_the_one_that_is_meant_is_asked(monkeypatch):
    current = [0]

    @contextmanager
    def device(wanted):
        before, current[0] = current[0], wanted.index
        yield
        current[0] = before

    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: current[0] == 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"card {device.index}")
    assert choose("auto", torch.device("cuda:0")).arithmetic == "float32"
    assert str(choose("auto", torch.device("cuda:1"))) == "bf16 (card 1 computes bf16 in hardware)"


def _nested(name):
    found = torch.backends
    for part in name.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="these settings came with torch 2.9")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cuda.matmul", "tf32"), ("cudnn.conv", "ieee"), ("cudnn.rnn", "ieee"), ("mkldnn.matmul", "bf16"),
        ("mkldnn.conv", "tf32"), (None, None),
    ],
)  # fmt: skip
def test_float32_is_float32_whatever_torch_was_told_and_its_settings_stay(name, value):
    parts = ("cuda.matmul", "cudnn.conv", "cudnn.rnn", "mkldnn.matmul", "mkldnn.conv", "mkldnn.rnn")
    first = [_nested(each).fp32_precision for each in parts]
    try:
        if name is not None:
            _nested(name).fp32_precision = value
        before = [_nested(each).fp32_precision for each in parts]
        with full_float32():
            assert {_nested(each).fp32_precision for each in parts} == {"ieee"}
            if name is None:  # else torch refuses to tell
                assert torch.get_float32_matmul_precision() == "highest"
                assert torch.backends.cudnn.allow_tf32 is False
        assert [_nested(each).fp32_precision for each in parts] == before
    finally:
        for each, found in zip(parts, first, strict=True):
            _nested(each).fp32_precision = found


def test_training_and_encoding_are_float32(tmp_path, monkeypatch):
    seen = []
    code = Autoencoder.code

    def watched(self, x, noise=False):
        seen.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
        return code(self, x, noise)

    monkeypatch.setattr(Autoencoder, "code", watched)
    torch.set_float32_matmul_precision("medium")
    try:
        run = train("rae-l2", out=tmp_path / "run", **SMALL)
        steps = len(seen)
        run.generator("cpu").encode(run.data().test.x[:4])
    finally:
        torch.set_float32_matmul_precision("highest")
    assert len(seen) > steps > 0
    assert set(seen) == {("highest", False)}


def test_of_epochs_without_a_record_of_it_the_precision_is_not_claimed(tmp_path):
    run = train("rae-l2", out=tmp_path / "run", precision="float32", **SMALL)
    path = tmp_path / "run" / "metrics.jsonl"
    line = json.loads(path.read_text())
    del line["precision"]
    path.write_text(json.dumps(line) + "\n")
    assert run.precision() == "float32"  # as configured, and nothing says otherwise
    path.write_text("".join(json.dumps(each) + "\n" for each in (line, {**line, "epoch": 2, "precision": "bf16"})))
    assert run.precision() == "not recorded, from epoch 2 bf16"


def test_what_is_asked_for_is_taken(hardware):
    assert choose("float32", CPU).arithmetic == "float32"
    assert choose("bf16", CPU).arithmetic == "bf16"
    assert choose("bf16", CPU).hardware is hardware
    with pytest.raises(UsageError, match="unknown precision 'half'"):
        choose("half", CPU)  # type: ignore[arg-type]


def test_presets_leave_it_to_the_machine_and_perceptrons_are_float32():
    assert configure("rae-l2", (1, 32, 32))[1].precision == "auto"
    assert configure("rae-l2", (10,))[1].precision == "float32"
    assert configure("rae-l2", (1, 32, 32), "paper")[1].precision == "float32"


def test_the_cost_of_bf16_is_the_ratio_of_two_measured_times(monkeypatch):
    ticks = iter([0.0, 6.0, 0.0, 5.0, 0.0, 9.0, 0.0, 2.0, 0.0, 4.0, 0.0, 3.0])  # bf16 first, then float32
    monkeypatch.setattr(precision, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    assert bf16_cost(CPU) == 2.5


def test_a_run_keeps_what_auto_came_to_and_says_why(hardware, tmp_path, capsys):
    run = train("rae-l2", out=tmp_path / "run", **SMALL)
    expected = "bf16" if hardware else "float32"
    assert run.config.training.precision == resolved(run.folder) == run.precision() == expected
    assert f"precision: {expected} (the CPU has " in capsys.readouterr().err
    assert json.loads((run.folder / "metrics.jsonl").read_text())["precision"] == expected


def test_a_dry_run_says_what_the_machine_gets_and_why(hardware, tmp_path, capsys):
    main(["train", "rae-l2", "--data", "mnist-5k", "--out", str(tmp_path / "run"), "--dry-run"])
    shown = capsys.readouterr()
    expected = ("bf16", "has avx512_bf16") if hardware else ("float32", "has no bf16 instructions")
    assert json.loads(shown.out)["training"]["precision"] == expected[0]
    assert f"precision: {expected[0]} (the CPU {expected[1]}" in shown.err


def test_bf16_by_hand_warns_where_it_is_emulated(hardware, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(precision, "bf16_cost", lambda device: 21.5)
    run = train("rae-l2", out=tmp_path / "run", precision="bf16", dry_run=True, **SMALL)
    assert run.config.training.precision == "bf16"
    assert ("21.5 times as long as in float32" in run.note) is not hardware


def test_a_run_of_bf16_goes_on_in_float32_where_there_is_none(tmp_path, capsys, monkeypatch):
    machine(monkeypatch, "avx512_bf16")
    folder = tmp_path / "run"
    train("rae-l2", out=folder, **SMALL)
    before = read_tensors(folder / "checkpoint.safetensors")[0]
    machine(monkeypatch, "avx2")
    capsys.readouterr()
    run = train("rae-l2", out=folder, resume=True, **{**SMALL, "epochs": 2})
    assert f"{folder} was trained in bf16 and goes on in float32 (the CPU has no bf16" in capsys.readouterr().err
    assert resolved(folder) == "float32"
    assert run.precision() == "bf16, from epoch 2 float32"
    assert all(value.dtype != torch.bfloat16 for value in before.values())
    page = report((folder,), tmp_path / "report.html").read_text()
    assert "bf16, from epoch 2 float32" in page
    save_pretrained(run, tmp_path / "shared")
    assert "| precision | bf16, from epoch 2 float32 |" in (tmp_path / "shared" / "README.md").read_text()


def test_a_resumed_run_computes_in_what_it_says(tmp_path, monkeypatch):
    """The same steps as a run of float32 alone that begins from the same checkpoint."""
    machine(monkeypatch, "avx512_bf16")
    folder = tmp_path / "run"
    train("rae-l2", out=folder, **SMALL)
    other = tmp_path / "other"
    other.mkdir()
    for path in folder.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    machine(monkeypatch, "avx2")
    train("rae-l2", out=folder, resume=True, **{**SMALL, "epochs": 2})
    train("rae-l2", out=other, resume=True, precision="float32", **{**SMALL, "epochs": 2})
    a, b = (read_tensors(each / "checkpoint.safetensors")[0] for each in (folder, other))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_of_float32_stays_float32_and_bf16_can_be_kept(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(precision, "bf16_cost", lambda device: 21.5)
    machine(monkeypatch, "avx2")
    folder = tmp_path / "run"
    train("rae-l2", out=folder, **SMALL)
    machine(monkeypatch, "avx512_bf16")
    capsys.readouterr()
    assert train("rae-l2", out=folder, resume=True, **{**SMALL, "epochs": 2}).precision() == "float32"
    assert "precision" not in capsys.readouterr().err
    changed = train("rae-l2", out=folder, resume=True, precision="auto", **{**SMALL, "epochs": 3})
    assert changed.precision() == "float32, from epoch 3 bf16"
    machine(monkeypatch, "avx2")
    kept = train("rae-l2", out=folder, resume=True, precision="bf16", **{**SMALL, "epochs": 4})
    assert kept.precision() == "float32, from epoch 3 bf16"
    assert "21.5 times as long" in capsys.readouterr().err


@pytest.mark.parametrize("trained_on", ["cuda:7", "mps", "cuda:31"])
@pytest.mark.parametrize("asked", [None, "cpu"])
def test_where_a_run_is_trained_can_change(trained_on, asked, tmp_path, capsys):
    if trained_on == "mps" and torch.backends.mps.is_available():
        trained_on = "cuda"
    folder = tmp_path / "run"
    train("rae", "digits", folder, epochs=1, limit=60, tensorboard=False)
    path = folder / "config.json"
    written = path.read_text()
    path.write_text(written.replace('"device": "auto"', f'"device": "{trained_on}"'))  # as another machine has it
    expost.fit(folder, "gaussian")
    capsys.readouterr()
    run = train("rae", "digits", folder, epochs=2, limit=60, resume=True, device=asked)
    assert run.config.training.device == (asked or "auto")
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("device: ")]
    here = pick_device(asked or "auto")
    assert said == [f"device: {folder} was trained on {trained_on}, not found here, and goes on on {here}"]
    with pytest.raises(UsageError, match="cannot be used here"):
        train("rae", "digits", folder, epochs=3, limit=60, resume=True, device=trained_on)


def test_a_table_goes_on_on_another_machine_unless_its_precision_was_asked_for(tmp_path, monkeypatch):
    options: dict[str, Any] = {key: value for key, value in SMALL.items() if key != "data"}
    machine(monkeypatch, "avx512_bf16")
    train("rae", "mnist-5k", tmp_path / "run", **options)
    machine(monkeypatch, "avx2")
    refuse_another("rae", "mnist-5k", tmp_path / "run", options)
    with pytest.raises(UsageError, match="other settings"):
        refuse_another("rae", "mnist-5k", tmp_path / "run", options | {"precision": "float32"})
    with pytest.raises(UsageError, match="other settings"):
        refuse_another("rae", "mnist-5k", tmp_path / "run", options | {"seed": 1})


def test_the_doctor_says_what_each_device_gets(hardware):
    (row,) = [row for row in doctor(self_test=False)["devices"] if row["device"] == "cpu"]
    assert row["precision"] == ("bf16" if hardware else "float32")
    assert "bf16" in row["because"]


def test_features_in_bf16_warn_where_they_are_emulated(hardware, shared_data, capsys, monkeypatch):
    monkeypatch.setattr(precision, "bf16_cost", lambda device: 21.5)
    monkeypatch.setenv("EXPOST_WEIGHTS", str(shared_data / "inception"))
    data = expost.load_data("mnist-5k", limit=20)
    assert pick_space("inception-768-bf16", data, "cpu").protocol()["precision"] == "bfloat16"
    assert ("21.5 times as long" in capsys.readouterr().err) is not hardware
    assert pick_space("inception-768", data, "cpu").protocol()["precision"] == "float32"
    assert not capsys.readouterr().err
