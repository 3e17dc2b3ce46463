"""CUDA graphs: the forward and backward pass of a training step, launched as a whole.

At batch 100 a GPU finishes a layer before Python has launched the next. A step launches the same kernels every time,
so they are recorded once and launched together. Random numbers are those of the ordinary step: a graph reads torch's
seed when it is launched.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from expost import distributed
from expost.types import Loss

#: Calls before the one that is recorded: libraries set themselves up in them.
FIRST_CALLS = 3
#: Packages whose layers decide nothing in Python by anything but shapes.
KNOWN = frozenset({"torch", "expost"})
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def recordable(model: nn.Module, device: torch.device) -> bool:
    """Return whether a model's passes may be recorded: on one GPU, with layers of torch and of this library only.

    Other layers, penalties and regularizers may branch in Python, which a graph would not repeat.
    """
    if device.type != "cuda" or distributed.world() > 1:
        return False
    slots = [each for name, each in vars(model).items() if not name.startswith("_")]  # those that are no layers
    known = all(type(each).__module__.partition(".")[0] in {*KNOWN, "builtins"} for each in (*model.modules(), *slots))
    hooked = any(getattr(each, name) or "forward" in vars(each) for each in model.modules() for name in _HOOKS)
    return known and not hooked and not any(each._backward_hooks for each in model.parameters())


class Recorded:
    """A forward and a backward pass, recorded and launched as one from the fourth call on.

    Gradients are written, not added to what is there. They and the loss are overwritten by the next call.

    Args:
        passes: Takes a batch, always of one shape, returns its loss without a graph of derivatives, and leaves
            gradients in the parameters.
        parameters: Of the model.
    """

    def __init__(self, passes: Callable[[Tensor], Loss], parameters: Sequence[nn.Parameter]) -> None:
        self._passes = passes
        self._parameters = parameters
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._stream: torch.cuda.Stream | None = None
        self._x = torch.empty(0)
        self._loss: Loss | None = None

    def __call__(self, x: Tensor) -> Loss:
        """Return the loss of a batch, and leave its gradients in the parameters."""
        if self._calls == FIRST_CALLS:
            self._record(x)
        self._calls += 1
        if self._graph is None or self._loss is None:
            return self._aside(x)
        self._x.copy_(x)
        self._graph.replay()
        return self._loss

    def _aside(self, x: Tensor) -> Loss:
        """Run the passes on a separate stream, as recording requires."""
        self._stream = self._stream or torch.cuda.Stream(x.device)  # type: ignore[no-untyped-call]
        here = torch.cuda.current_stream(x.device)
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            loss = self._run(x)
        here.wait_stream(self._stream)
        return loss

    def _run(self, x: Tensor) -> Loss:
        for parameter in self._parameters:
            parameter.grad = None
        return self._passes(x)

    def _record(self, x: Tensor) -> None:
        """Record the passes without running them; warn where that fails."""
        self._x = x.clone()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):  # one thread gathers
                self._loss = self._run(self._x)
        except RuntimeError as error:  # a graph has its own memory, which may be too little where that of a step is not
            self._loss = None
            _end(x.device)
            torch.cuda.empty_cache()
            reason = str(error).splitlines()[0]
            warnings.warn(f"steps are launched kernel by kernel, since they cannot be recorded: {reason}", stacklevel=2)
            return
        self._graph = graph


def _end(device: torch.device) -> None:
    """Reset the state of torch's generator: after a failed recording it still counts as being recorded."""
    generator = torch.cuda.default_generators[device.index or 0]
    generator.graphsafe_set_state(generator.clone_state())
