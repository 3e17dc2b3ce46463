"""ONNX files: their outputs are torch's for any batch, and they say what they are."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from packaging.version import Version

from expost._version import __version__
from expost.commands import publishing
from expost.config import DataConfig, RunConfig
from expost.errors import DataError, UsageError
from expost.grammar.codec import CODECS
from expost.grammar.grammars import load_grammar
from expost.models.latents import Discrete
from expost.models.presets import configure
from expost.registry import Part, construct
from expost.run import Run
from expost.sharing import onnx as export
from expost.utils.store import write_tensors

onnx = pytest.importorskip("onnx", reason="ONNX is not installed: pip install 'expost[onnx]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'expost[onnx]'")
pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install 'expost[onnx]'")

if Version(torch.__version__).release < (2, 7):
    pytest.skip(
        "torch 2.6 exports neither batch norm nor GRUs, and fixes the size of some batches: take a newer one",
        allow_module_level=True,
    )

EXPRESSIONS = Part("grammar", {"grammar": load_grammar("expressions").text, "length": 15})

#: Model, shape, options, options of its slots.
Entry = tuple[str, tuple[int, ...], dict[str, Any], dict[str, Any]]
#: One of each network and latent, spectral norm on both sides, and the vector-quantised model.
MODELS: dict[str, Entry] = {
    "conv4, vector-quantized": ("vq-vae", (3, 28, 32), {"width": 4, "network": "conv4"}, {}),
    "conv4, finite-scalar": ("fsq-vae", (1, 28, 32), {"width": 4, "network": "conv4"}, {}),
    "conv5, spectral norm": ("rae-sn", (1, 32, 33), {"width": 4, "network": "conv5"}, {"regularizer.scope": "both"}),
    "residual, spectral norm": (
        "rae-sn",
        (2, 17, 12),
        {"width": 3, "network": "residual"},
        {"regularizer.scope": "both"},
    ),
    "mlp, gaussian": ("vae", (6,), {"width": 16, "latent_dim": 3}, {}),
    "gru": ("grae", (15, 12), {"width": 20, "network": "gru-expressions"}, {}),
    "convnext": ("grae", (15, 12), {"width": 16, "network": "convnext-1d"}, {}),
    "transformer, constant variance": ("gcvvae", (15, 12), {"width": 16, "network": "transformer"}, {}),
}
#: Its decoder reads its own output, and comes in other files.
AUTOREGRESSIVE: dict[str, Entry] = {
    "gru-autoregressive": ("grae", (15, 12), {"width": 8, "network": "gru-autoregressive"}, {})
}


def examples(shape, count, seed=1):
    source = torch.Generator().manual_seed(seed)
    if len(shape) == 2:
        return torch.nn.functional.one_hot(
            torch.randint(shape[1], (count, shape[0]), generator=source), shape[1]
        ).float()
    return torch.rand(count, *shape, generator=source)


def make_run(folder: Path, kind: str) -> Run:
    """A run whose weights, batch statistics and singular vectors have moved away from where they started."""
    name, shape, options, slots = (MODELS | AUTOREGRESSIVE)[kind]
    codec = EXPRESSIONS if len(shape) == 2 else None
    if codec is not None:
        slots = slots | {"reconstruction.groups": construct(CODECS, codec).groups().tolist()}
    config, training = configure(name, shape, "small", options, {}, slots)
    run = Run(folder, RunConfig(config, training, DataConfig("nowhere", codec=codec), "small", __version__))
    with run.started():
        pass
    model = run.fresh_model().train()
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(5):
        optimizer.zero_grad()
        model.loss(examples(shape, 16, step)).total.backward()
        optimizer.step()
    write_tensors(folder / "model.safetensors", model.state_dict())
    return run


@pytest.fixture(scope="module", params=MODELS)
def exported(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    run = make_run(folder / "run", request.param)
    return run, folder / "onnx", publishing.export(run, folder / "onnx")


def session(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def test_outputs_are_those_of_torch_for_any_batch(exported):
    run, folder, records = exported
    model = run.model("cpu")
    encoder, decoder = session(folder / "encoder.onnx"), session(folder / "decoder.onnx")
    for size in (1, 2, 7, 100):
        x = examples(run.config.model.shape, size, seed=size)
        with torch.inference_mode():
            codes = model.code(x).mean
            points = codes + 10 * torch.randn(codes.shape, generator=torch.Generator().manual_seed(size))
            decoded = model.decode(points)
        (z,) = encoder.run(["z"], {"x": x.numpy()})
        (y,) = decoder.run(["y"], {"z": points.numpy()})
        assert z.dtype == y.dtype == np.float32
        np.testing.assert_allclose(z, codes.numpy(), atol=1e-4, rtol=0)
        np.testing.assert_allclose(y, decoded.numpy(), atol=1e-4, rtol=0)
        assert np.ptp(decoded.numpy(), axis=0).max() > 1e-2 or size == 1  # outputs depend on codes
    symbols = isinstance(model.latent, Discrete)
    names = ["encoder.onnx", "decoder.onnx", *(["vectors.onnx"] if symbols else [])]
    assert [record.path.name for record in records] == names
    assert all(record.difference is not None and 0 < record.difference < 1e-4 for record in records[:2])
    if symbols:  # a grid from any source, looked up and decoded, is what torch makes of it
        with torch.inference_mode():
            grid = model.encode(x)
            decoded = model.decode(grid)
        (z,) = session(folder / "vectors.onnx").run(["z_of_symbols"], {"symbols": grid.long().numpy()})
        (y,) = decoder.run(["y"], {"z": z})
        np.testing.assert_allclose(y, decoded.numpy(), atol=1e-4, rtol=0)


def test_files_say_what_they_are(exported):
    run, _, records = exported
    for record in records:
        model = onnx.load(str(record.path))
        onnx.checker.check_model(model)
        props = {each.key: each.value for each in model.metadata_props}
        assert props["expost.version"] == __version__
        assert props["expost.model"] == run.config.model.name
        assert tuple(json.loads(props["expost.shape"])) == run.config.model.shape
        assert props["expost.weights"] == run.weights_hash()
        assert props["expost.part"] == record.path.stem
        assert (props["expost.input"], props["expost.output"]) == (record.input, record.output)
        assert model.producer_name == "expost"
        for place in (Path.cwd(), Path(torch.__file__).parent, Path.home() / "."):  # the exporter's traces name folders
            assert f"{place}/".encode() not in record.path.read_bytes()
    kind = {3: "images in [0, 1]", 2: "one-hot symbols", 1: "vectors"}[len(run.config.model.shape)]
    assert kind in records[0].input
    assert ("logits" in records[1].output) == (len(run.config.model.shape) == 2)
    if run.config.data.codec is not None:  # the strings can be had back with the file alone
        codec = json.loads(props["expost.codec"])
        assert construct(CODECS, Part(codec["name"], codec["options"])).encode(["sin(x)"]).indices.shape == (1, 15)


def test_a_file_that_computes_something_else_is_refused_and_not_kept(tmp_path, monkeypatch):
    run = make_run(tmp_path / "run", "mlp, gaussian")
    monkeypatch.setattr(export, "TOLERANCE", 0.0)  # below what rounding alone makes of it
    with pytest.raises(DataError, match="encoder.onnx differs from torch by"):
        publishing.export(run, tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


def test_without_onnxruntime_the_files_are_written_and_nothing_is_claimed(tmp_path, monkeypatch, capsys):
    run = make_run(tmp_path / "run", "mlp, gaussian")
    installed = export.installed
    monkeypatch.setattr(export, "installed", lambda name: name != "onnxruntime" and installed(name))
    records = publishing.export(run, tmp_path / "onnx")
    assert [record.difference for record in records] == [None, None]
    assert "were not compared" in capsys.readouterr().err
    assert all(record.path.is_file() for record in records)
    monkeypatch.setattr(export, "installed", lambda name: False)
    with pytest.raises(UsageError, match=r"pip install 'expost\[onnx\]'"):
        publishing.export(run, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_wrong_requests(tmp_path):
    run = make_run(tmp_path / "run", "mlp, gaussian")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        publishing.export(run, tmp_path / "file")
    with pytest.raises(UsageError, match="unknown format 'tflite'"):
        publishing.export(run, tmp_path / "out", format="tflite")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no config.json"):
        publishing.export(tmp_path / "nothing", tmp_path / "out")


def test_networks_that_onnx_cannot_express_are_refused_in_one_line(tmp_path):
    class Branching(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(6, 6)

        def forward(self, x):
            return self.layer(x) if x.sum().item() > 1e9 else self.layer(x) * 2  # a branch on a value

    networks = (Branching(), torch.nn.Linear(3, 6))
    config, training = configure("ae", (6,), "small", {"latent_dim": 3}, {}, {}, own_networks=True)
    run = Run(tmp_path, RunConfig(config, training, DataConfig("x"), "small", __version__, True), networks)
    write_tensors(tmp_path / "model.safetensors", run.fresh_model().state_dict())
    with pytest.raises(UsageError, match=r"^the encoder of .* cannot be exported to ONNX: .+") as refused:
        publishing.export(run, tmp_path / "onnx")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "onnx").exists()


def test_a_decoder_that_reads_its_own_output_is_exported_as_a_step(tmp_path):
    """Strings decoded by the files alone, with a stack of the grammar, are those that the library decodes."""
    run = make_run(tmp_path / "run", "gru-autoregressive")
    records = publishing.export(run, tmp_path / "onnx")
    assert [record.path.name for record in records] == ["encoder.onnx", "start.onnx", "step.onnx"]
    assert all(record.difference is not None and record.difference < 1e-4 for record in records)
    assert "previous: int64 (batch), the last symbols, 12 before the first" in records[2].input
    assert "y: float32 (batch, 12), logits of symbols" in records[2].output
    strings = run.string_generator("cpu")
    z = 3 * torch.randn(20, run.config.model.latent_dim, generator=torch.Generator().manual_seed(0))
    (state,) = session(tmp_path / "onnx" / "start.onnx").run(["state"], {"z": z.numpy()})
    step = session(tmp_path / "onnx" / "step.onnx")
    told = {each.key: each.value for each in onnx.load(str(tmp_path / "onnx" / "step.onnx")).metadata_props}
    groups, children = np.array(json.loads(told["expost.groups"])), json.loads(told["expost.children"])
    stacks, rows, previous = [[0] for _ in z], [[] for _ in z], np.full(20, 12)
    for _ in range(15):
        coming = np.array([stack.pop() if stack else groups[-1] for stack in stacks])
        inputs = {"z": z.numpy(), "state": state, "previous": previous, "groups": coming}
        logits, state = step.run(["y", "next_state"], inputs)
        previous = np.where(groups == coming[:, None], logits, -np.inf).argmax(1)
        for stack, row, symbol in zip(stacks, rows, previous.tolist(), strict=True):
            row.append(symbol)
            stack.extend(reversed(children[symbol] if symbol < len(children) else []))
    assert strings.codec.decode(torch.tensor(rows)) == strings.decode(z)
    assert len(set(strings.decode(z))) > 1


def test_files_of_another_kind_of_model_are_not_mixed_with_this_ones(tmp_path):
    publishing.export(make_run(tmp_path / "run", "gru-autoregressive"), tmp_path / "onnx")
    before = {path.name: path.read_bytes() for path in (tmp_path / "onnx").iterdir()}
    with pytest.raises(UsageError, match=r"start.onnx is of another kind of model"):
        publishing.export(make_run(tmp_path / "other", "mlp, gaussian"), tmp_path / "onnx")
    assert {path.name: path.read_bytes() for path in (tmp_path / "onnx").iterdir()} == before
