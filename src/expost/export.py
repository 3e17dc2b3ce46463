"""Export: a run's encoder and decoder as ONNX files, which need neither expost nor torch to run.

| file | input | output |
|---|---|---|
| encoder.onnx | `x`, float32 (batch, *shape): images in [0, 1], vectors, one-hot symbols (L, V) | `z` (batch, d) |
| decoder.onnx | `z`, float32 (batch, d) | `y`, float32 (batch, *shape): as the input; of strings, logits |

Of vector-quantised models z is a map (batch, d, h, w), and the decoder first takes the nearest codebook vectors. The
batch axis is free. Weights that training reparametrises (spectral norm) are written as the numbers they come to. The
files say what they are in their metadata, under names that begin with `expost.`.
"""

from __future__ import annotations

import importlib.util
import json
import math
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from expost import __version__
from expost.commands.arguments import Output, RunLike, open_run
from expost.config import ModelConfig, to_json
from expost.errors import DataError, UsageError
from expost.progress import progress, say
from expost.run import Run
from expost.seeding import SAMPLES, generator
from expost.store import replacing

#: Largest difference between the file's outputs and torch's, in units of max(1, |output|), that an export may have.
TOLERANCE = 1e-4
#: Batch sizes that are compared: the smallest, an odd one, and more than the exporter has seen.
CHECKED = (1, 3, 64)


@dataclass(frozen=True)
class Exported:
    """An ONNX file.

    Attributes:
        path: Where it is.
        input: Its input's name, shape and meaning.
        output: Its output's.
        difference: Largest |output - torch's| / max(1, |torch's|) over batches of 1, 3 and 64; None where onnxruntime
            is not installed, so that nothing was compared.
    """

    path: Path
    input: str
    output: str
    difference: float | None


def export(run: RunLike, out: Output, format: Literal["onnx"] = "onnx") -> list[Exported]:
    """Write the run's encoder and decoder as ONNX files, and compare their outputs with torch's.

    Args:
        run: The run.
        out: Folder for encoder.onnx and decoder.onnx; files of these names are replaced.
        format: onnx.

    Returns:
        The two files, with the largest difference found.
    """
    if format != "onnx":
        raise UsageError(f"unknown format '{format}'; choose one of: onnx")
    _require("onnx", "onnxscript")
    opened, folder = open_run(run), Path(out)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; give a folder")
    model = opened.model("cpu")
    checked = _installed("onnxruntime")
    with progress("exporting", 4) as bar, ExitStack() as files:
        examples = _examples(opened.config.model, max(CHECKED))
        with torch.inference_mode():
            codes = model.encode(examples)
            decoded = model.decode(codes)
        _bake(model)  # after torch has computed what to compare with
        bar.advance()
        exported = []
        encoder = _Part("encoder", ("x", "z"), model.encode, model)
        decoder = _Part("decoder", ("z", "y"), model.decode, model)
        for part, inputs, expected in ((encoder, examples, codes), (decoder, codes, decoded)):
            path = folder / f"{part.name}.onnx"
            temporary = files.enter_context(replacing(path))  # both files are kept, or none
            described = _write(part, inputs, temporary, opened)
            bar.advance()
            difference = _difference(temporary, part, inputs, expected) if checked else None
            exported.append(Exported(path, *described, difference))
        bar.advance()
    if not checked:
        say("onnxruntime is not installed, so the outputs were not compared; pip install 'expost[onnx]' to have it")
    return exported


class _Part(nn.Module):
    """One half of an autoencoder, as a function of one tensor."""

    def __init__(self, name: str, names: tuple[str, str], function: Callable[[Tensor], Tensor], model: nn.Module):
        super().__init__()
        self.name, self.names = name, names
        self.function = function
        self.model = model  # so that the exporter finds the weights
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def _write(part: _Part, inputs: Tensor, path: Path, run: Run) -> tuple[str, str]:
    """Export one part to `path`; return what goes in and what comes out, in words."""
    import onnx

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter trips over deprecations within torch, which nobody here can mend
        try:
            program = torch.onnx.export(
                part,
                (inputs[:2].clone(),),
                dynamo=True,
                input_names=[part.names[0]],
                output_names=[part.names[1]],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            reason = _last_line(error)
            raise UsageError(f"the {part.name} of {run.folder} cannot be exported to ONNX: {reason}") from error
        output = part(inputs[:1]).shape[1:]
    assert program is not None
    words = _meanings(run.config.model, part.name == "encoder")
    described = tuple(
        f"{name}: float32 ({', '.join(['batch', *map(str, shape)])}), {meaning}"
        for name, shape, meaning in zip(part.names, (inputs.shape[1:], output), words, strict=True)
    )
    model: Any = program.model_proto
    _strip(model.graph)
    for function in model.functions:
        _strip(function)
    model.producer_name, model.producer_version = "expost", __version__
    model.doc_string = f"{part.name} of expost model {run.config.model.name}; {'; '.join(described)}"
    onnx.helper.set_model_props(model, _metadata(run, part.name, described))
    for value, text in zip((model.graph.input[0], model.graph.output[0]), described, strict=True):
        value.doc_string = text
    onnx.save_model(model, str(path))
    return described[0], described[1]


def _strip(graph: Any) -> None:
    """Remove what the exporter notes on every node: its stack traces name the folders of this machine."""
    for node in graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.HasField("g") else list(attribute.graphs):
                _strip(inner)
    del graph.metadata_props[:]
    for value in graph.value_info:
        del value.metadata_props[:]


def _meanings(config: ModelConfig, encoder: bool) -> tuple[str, str]:
    kinds = {3: "images in [0, 1], channels first", 2: "one-hot symbols", 1: "vectors"}
    example = kinds[len(config.shape)]
    decoded = "logits of symbols" if len(config.shape) == 2 else example
    return (example, "noiseless codes") if encoder else ("codes", decoded)


def _metadata(run: Run, name: str, described: tuple[str, ...]) -> dict[str, str]:
    config = run.config.model
    record = {
        "version": __version__,
        "part": name,
        "model": config.name,
        "network": config.network,
        "shape": json.dumps(list(config.shape)),
        "latent_dim": str(config.latent_dim),
        "weights": run.weights_hash(),
        "input": described[0],
        "output": described[1],
    }
    if run.config.data.codec is not None:  # what turns strings into the rows of symbols, and logits back
        record["codec"] = json.dumps(to_json(run.config.data.codec))
    return {f"expost.{key}": value for key, value in record.items()}


def _examples(config: ModelConfig, count: int) -> Tensor:
    """Return random inputs of the kind that the model takes, float32 (count, *shape)."""
    source = generator(0, SAMPLES)
    if len(config.shape) == 2:
        symbols = torch.randint(config.shape[1], (count, config.shape[0]), generator=source)
        return functional.one_hot(symbols, config.shape[1]).float()
    uniform = torch.rand(count, *config.shape, generator=source)
    return uniform if len(config.shape) == 3 else math.sqrt(12) * (uniform - 0.5)  # of variance 1


def _bake(model: nn.Module) -> None:
    """Replace reparametrised weights by what they come to, in place."""
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            for name in list(module.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)


def _difference(path: Path, part: _Part, inputs: Tensor, expected: Tensor) -> float:
    """Run the file on batches of the inputs.

    Raises:
        DataError: if an output differs by more than the tolerance.
    """
    import onnxruntime  # type: ignore[import-untyped]

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    largest = 0.0
    for size in CHECKED:
        (found,) = session.run(None, {part.names[0]: inputs[:size].contiguous().numpy()})
        wanted = expected[:size]
        difference = (torch.from_numpy(found) - wanted).abs() / wanted.abs().clamp_min(1)
        largest = max(largest, difference.max().item())
        if not largest <= TOLERANCE:
            raise DataError(
                f"{part.name}.onnx differs from torch by {largest:.2g} in a batch of {size}, more than {TOLERANCE:g}; "
                "nothing was written: try another version of onnxruntime"
            )
    return largest


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _require(*names: str) -> None:
    missing = [name for name in names if not _installed(name)]
    if missing:
        raise UsageError(f"export needs {' and '.join(missing)}; install it with: pip install 'expost[onnx]'")


def _last_line(error: BaseException) -> str:
    """Return the reason of an exporter's error, which comes as a page with the reason at its root."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
