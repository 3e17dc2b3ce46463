"""Export: a run's encoder and decoder as ONNX files, which need neither expost nor torch to run.

| file | input | output |
|---|---|---|
| encoder.onnx | `x`, float32 (batch, *shape): images in [0, 1], vectors, one-hot symbols (L, V) | `z` (batch, d) |
| decoder.onnx | `z`, float32 (batch, d) | `y`, float32 (batch, *shape): as the input; for strings, logits |

A decoder that reads its own output is two files in place of decoder.onnx: the initial state, and one step.

| file | input | output |
|---|---|---|
| start.onnx | `z`, float32 (batch, d) | `state`, float32 (batch, S) |
| step.onnx | `z`, `state`, `previous` and `groups`, int64 (batch) | `y`, float32 (batch, V), `next_state` |

`previous` are the last symbols, V before the first, `groups` those of the symbols that may come next, `y` their logits.
For strings, the metadata give each symbol's group (`expost.groups`), and for a grammar also the groups that replace
each symbol's own on the stack (`expost.children`); the stack begins with group 0.
Where codes are symbols, z is the map (batch, d, h, w) before it is quantised, and the decoder first takes the nearest
symbols' vectors; vectors.onnx gives the map of a grid of symbols, which any prior may have drawn:

| file | input | output |
|---|---|---|
| vectors.onnx | `symbols`, int64 (batch, h, w) | `z_of_symbols`, float32 (batch, d, h, w) |

Densities are no part of an export: `run.generator().draw(n)` draws codes in Python. The batch axis is free. Weights
that training reparametrises (spectral norm) are written as the numbers they come to. The files say
what they are in their metadata, under names that begin with `expost.`.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from expost._version import __version__
from expost.config import RunConfig, to_json
from expost.errors import DataError, UsageError
from expost.grammar.codec import CODECS, GrammarCodec
from expost.models.autoencoder import Autoencoder
from expost.models.latents import Discrete
from expost.networks.autoregressive import AutoregressiveDecoder
from expost.registry import construct
from expost.run import Run
from expost.sharing.kinds import sharing_of
from expost.utils.extras import installed, missing
from expost.utils.progress import progress, say
from expost.utils.seeding import SAMPLES, generator
from expost.utils.store import filling, replacing, require_writable

#: Largest difference between the file's outputs and torch's, in units of max(1, |output|), that an export may have.
TOLERANCE = 1e-4
#: Batch sizes that are compared: the smallest, an odd one, and more than the exporter has seen.
CHECKED = (1, 3, 64)


@dataclass(frozen=True)
class Exported:
    """An ONNX file.

    Attributes:
        path: Where it is.
        input: Name, shape and meaning of its input; several are separated by "; ".
        output: The same of its output.
        difference: Largest |output - torch's| / max(1, |torch's|) over batches of 1, 3 and 64; None where onnxruntime
            is not installed, so that nothing was compared.
    """

    path: Path
    input: str
    output: str
    difference: float | None


def export_onnx(run: Run, folder: Path) -> list[Exported]:
    """Write a run's encoder and decoder as ONNX files, and compare their outputs with torch's.

    Args:
        run: The run.
        folder: For the files; those of their names are replaced.
    """
    _require("onnx", "onnxscript")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; give a folder")
    require_writable(folder)
    model, weights = run.loaded("cpu")
    checked = installed("onnxruntime")
    parts = _parts(model)
    others = {"decoder", "start", "step", "vectors"} - {part.name for part in parts}
    for stale in sorted(folder / f"{name}.onnx" for name in others if (folder / f"{name}.onnx").exists()):
        raise UsageError(f"{stale} is of another kind of model, and would stay beside this one's; give another folder")
    with progress("exporting", 2 + len(parts)) as bar, filling(folder) as temporary:  # all files, or none
        known = _known(run.config, model, parts)
        _bake(model)  # after torch's outputs are computed
        bar.advance()
        exported = []
        for part in parts:
            name = f"{part.name}.onnx"
            with replacing(temporary / name) as path:
                described = _write(part, known, path, run, weights)
                bar.advance()
                difference = _difference(path, part, known) if checked else None
            exported.append(Exported(folder / name, *described, difference))
        bar.advance()
    if not checked:
        say("onnxruntime is not installed, so the outputs were not compared; pip install 'expost[onnx]' to have it")
    return exported


class _Part(nn.Module):
    """One part of an autoencoder, as a function of tensors."""

    def __init__(
        self,
        name: str,
        inputs: tuple[str, ...],
        outputs: tuple[str, ...],
        function: Callable[..., Any],
        model: nn.Module,
    ):
        super().__init__()
        self.name, self.inputs, self.outputs = name, inputs, outputs
        self.function = function
        self.model = model  # so that the exporter finds the weights
        self.eval()

    def forward(self, *tensors: Tensor) -> Any:
        return self.function(*tensors)


def _parts(model: Autoencoder) -> list[_Part]:
    encoder = _Part("encoder", ("x",), ("z",), lambda x: model.code(x).mean, model)
    if not isinstance(model.decoder, AutoregressiveDecoder):
        parts = [encoder, _Part("decoder", ("z",), ("y",), model.decode, model)]
        if isinstance(model.latent, Discrete):
            parts.append(_Part("vectors", ("symbols",), ("z_of_symbols",), model.latent.vectors, model))
        return parts
    start = _Part("start", ("z",), ("state",), model.decoder.begin, model)
    inputs = ("z", "state", "previous", "groups")
    return [encoder, start, _Part("step", inputs, ("y", "next_state"), model.decoder.step, model)]


def _known(config: RunConfig, model: nn.Module, parts: Sequence[_Part]) -> dict[str, Tensor]:
    """Return random inputs and torch's outputs by name; the outputs of a part are inputs of the next."""
    shape, count = config.model.shape, max(CHECKED)
    known = {"x": sharing_of(config).inputs(count, shape, generator(0, SAMPLES))}
    if any("previous" in part.inputs for part in parts):  # a decoder that takes a symbol a step
        source = generator(0, SAMPLES, 1)
        known["previous"] = torch.randint(shape[-1] + 1, (count,), generator=source)
        known["groups"] = torch.randint(shape[-1], (count,), generator=source)
    if isinstance(model, Autoencoder) and isinstance(model.latent, Discrete):
        with torch.inference_mode():
            known["symbols"] = model.encode(known["x"]).long()
    for part in parts:
        with torch.inference_mode():
            outputs = part(*(known[name] for name in part.inputs))
        known |= zip(part.outputs, outputs if isinstance(outputs, tuple) else (outputs,), strict=True)
    return known


def _write(part: _Part, known: Mapping[str, Tensor], path: Path, run: Run, weights: str) -> tuple[str, str]:
    """Export one part to `path`; return descriptions of its inputs and its outputs."""
    import onnx

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter trips over deprecations within torch, which nobody here can mend
        try:
            program = torch.onnx.export(
                part,
                tuple(known[name][:2].clone() for name in part.inputs),
                dynamo=True,
                input_names=list(part.inputs),
                output_names=list(part.outputs),
                dynamic_shapes=(tuple({0: torch.export.Dim("batch")} for _ in part.inputs),),
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            reason = _last_line(error)
            raise UsageError(f"the {part.name} of {run.folder} cannot be exported to ONNX: {reason}") from error
    assert program is not None
    words = _meanings(run.config)
    described = {
        name: f"{name}: {str(known[name].dtype).removeprefix('torch.')} "
        f"({', '.join(['batch', *map(str, known[name].shape[1:])])}), {words[name]}"
        for name in (*part.inputs, *part.outputs)
    }
    summaries = tuple("; ".join(described[name] for name in names) for names in (part.inputs, part.outputs))
    model: Any = program.model_proto
    _strip(model.graph)
    for function in model.functions:
        _strip(function)
    model.producer_name, model.producer_version = "expost", __version__
    model.doc_string = f"{part.name} of expost model {run.config.model.name}; {'; '.join(summaries)}"
    onnx.helper.set_model_props(model, _metadata(run, weights, part.name, summaries))
    for value in (*model.graph.input, *model.graph.output):
        value.doc_string = described[value.name]
    onnx.save_model(model, str(path))
    return summaries[0], summaries[1]


def _strip(graph: Any) -> None:
    """Remove the exporter's notes on nodes: their stack traces contain local paths."""
    for node in graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.HasField("g") else list(attribute.graphs):
                _strip(inner)
    del graph.metadata_props[:]
    for value in graph.value_info:
        del value.metadata_props[:]


def _meanings(config: RunConfig) -> dict[str, str]:
    kind = sharing_of(config)
    return {
        "x": kind.input,
        "z": "codes",
        "symbols": "whole numbers from 0",
        "z_of_symbols": "the vectors of these symbols, as codes",
        "y": kind.output,
        "state": "what the decoder keeps between symbols",
        "previous": f"the last symbols, {config.model.shape[-1]} before the first",
        "groups": "groups of the symbols that may come next",
        "next_state": "what the decoder keeps after these symbols",
    }


def _metadata(run: Run, weights: str, name: str, described: tuple[str, ...]) -> dict[str, str]:
    config = run.config.model
    record = {
        "version": __version__,
        "part": name,
        "model": config.name,
        "network": config.network,
        "shape": json.dumps(list(config.shape)),
        "latent_dim": str(config.latent_dim),
        "weights": weights,
        "input": described[0],
        "output": described[1],
    }
    if run.config.data.codec is not None:  # converts strings to rows of symbols, and logits back
        record["codec"] = json.dumps(to_json(run.config.data.codec))
        codec = construct(CODECS, run.config.data.codec)
        record["groups"] = json.dumps(codec.groups().tolist())
        if isinstance(codec, GrammarCodec):
            record["children"] = json.dumps(codec.grammar.children)
    return {f"expost.{key}": value for key, value in record.items()}


def _bake(model: nn.Module) -> None:
    """Replace reparametrised weights by their values, in place."""
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            for name in list(module.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)


def _difference(path: Path, part: _Part, known: Mapping[str, Tensor]) -> float:
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
        found = session.run(list(part.outputs), {name: known[name][:size].contiguous().numpy() for name in part.inputs})
        for name, output in zip(part.outputs, found, strict=True):
            wanted = known[name][:size]
            difference = (torch.from_numpy(output) - wanted).abs() / wanted.abs().clamp_min(1)
            largest = max(largest, difference.max().item())
        if not largest <= TOLERANCE:
            raise DataError(
                f"{part.name}.onnx differs from torch by {largest:.2g} in a batch of {size}, more than {TOLERANCE:g}; "
                "nothing was written: try another version of onnxruntime"
            )
    return largest


def _require(*names: str) -> None:
    absent = [name for name in names if not installed(name)]
    if absent:
        raise missing("onnx", f"export needs {' and '.join(absent)}")


def _last_line(error: BaseException) -> str:
    """Return the first line of the exception at the root of an exporter's error."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
