"""Which arithmetic networks compute in: bfloat16 where the device has instructions for it, float32 elsewhere.

Where a CPU has none, a bf16 convolution is emulated and takes 3 to 100 times as long as one in float32.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.nn import functional

from expost.registry import Registry
from expost.utils.arithmetic import Arithmetic, Precision

#: Caps on oneDNN's instructions (`ONEDNN_MAX_CPU_ISA`) under which its bf16 products are emulated.
_CAPS_WITHOUT_BF16 = frozenset({"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI"})


@dataclass(frozen=True)
class Choice:
    """The arithmetic of a device, and why.

    Attributes:
        arithmetic: "float32" or "bf16".
        reason: In words.
        hardware: Whether the device computes bf16 in hardware.
    """

    arithmetic: Arithmetic
    reason: str
    hardware: bool

    def __str__(self) -> str:
        """Return it as one line."""
        return f"{self.arithmetic} ({self.reason})"


def choose(asked: Precision, device: torch.device) -> Choice:
    """Return the arithmetic to compute in on a device.

    Args:
        asked: auto takes bf16 where the device has instructions for it, else float32; the others are taken as given.
        device: Where networks run.

    Raises:
        UsageError: for any other value.

    Example:
        >>> choose("float32", torch.device("cpu")).arithmetic
        'float32'
    """
    hardware, what = _bf16_hardware(device)
    choices: Registry[Callable[[], Choice]] = Registry(
        "precision",
        {
            "auto": lambda: Choice("bf16" if hardware else "float32", what, hardware),
            "float32": lambda: Choice("float32", "as configured", hardware),
            "bf16": lambda: Choice("bf16", f"as configured; {what}", hardware),
        },
    )
    return choices[asked]()


@contextmanager
def full_float32() -> Iterator[None]:
    """Disable TF32 in the block: on a GPU, torch uses it for float32 convolutions and recurrent layers by default.

    TF32 rounds factors to 10 bits, which moves a score's third digit. Autocast to bfloat16 is not touched.
    """
    settings = [each for each in _fp32_settings() if hasattr(each, "fp32_precision")]
    before = [each.fp32_precision for each in settings]
    older: list[tuple[Callable[[Any], None], Any]] = []  # older names of the same settings
    with suppress(RuntimeError):  # torch refuses to read these after only the newer names were set
        older.append((torch.set_float32_matmul_precision, torch.get_float32_matmul_precision()))
        torch.set_float32_matmul_precision("highest")
    with suppress(RuntimeError):
        older.append((partial(setattr, torch.backends.cudnn, "allow_tf32"), torch.backends.cudnn.allow_tf32))
        torch.backends.cudnn.allow_tf32 = False
    for each in settings:
        each.fp32_precision = "ieee"
    try:
        yield
    finally:
        for put_back, value in older:
            put_back(value)
        for each, value in zip(settings, before, strict=True):
            each.fp32_precision = value


def _fp32_settings() -> list[Any]:
    """Return torch's settings of the precision of float32 products; before 2.9 they have no `fp32_precision`."""
    cudnn, mkldnn = torch.backends.cudnn, torch.backends.mkldnn
    parts = [getattr(home, name, None) for home in (cudnn, mkldnn) for name in ("conv", "rnn", "matmul")]
    return [torch.backends.cuda.matmul, *(each for each in parts if each is not None)]


def _bf16_hardware(device: torch.device) -> tuple[bool, str]:
    """Return whether a device computes bf16 in hardware, and the reason in words."""
    if device.type == "cuda":
        with torch.cuda.device(device):  # torch answers for the current GPU
            found = torch.cuda.is_bf16_supported(including_emulation=False)
        name = torch.cuda.get_device_name(device)
        return found, f"{name} {'computes' if found else 'does not compute'} bf16 in hardware"
    if device.type != "cpu":
        return False, f"bf16 on {device.type} is used only if asked for"
    found, what = _cpu_instructions()
    if not found:
        return False, f"the CPU has no bf16 instructions: no {what}"
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        if os.environ.get(name, "").upper() in _CAPS_WITHOUT_BF16:
            return False, f"the CPU has {what}, but {name}={os.environ[name]} keeps torch from using it"
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False, f"the CPU has {what}, but this build of torch has no oneDNN to use it"
    return True, f"the CPU has {what}"


def _cpu_instructions() -> tuple[bool, str]:
    """Return whether the CPU has instructions for bf16 products, and the names found, or else those looked for.

    On x86, oneDNN's own answer does not help: it is also yes on AVX-512 without such instructions, where it emulates
    them.
    """
    arm = platform.machine().lower() in ("arm64", "aarch64")
    wanted = ("bf16", "sve_bf16") if arm else ("amx_bf16", "avx512_bf16")
    capabilities = _capabilities(arm)
    found = [name for name in wanted if capabilities.get(name)]
    return bool(found), " and ".join(found) if found else " or ".join(wanted)


def _capabilities(arm: bool) -> Mapping[str, Any]:
    """Return what torch says of the CPU, by the names of `torch.cpu.get_capabilities`, which older releases lack."""
    query = torch.cpu.__dict__.get("get_capabilities")
    if query is not None:
        found: Mapping[str, Any] = query()
        return found
    homes = {"bf16": (torch.ops.mkldnn, "_is_mkldnn_bf16_supported")} if arm else {
        "amx_bf16": (torch.cpu, "_is_amx_tile_supported"), "avx512_bf16": (torch.cpu, "_is_avx512_bf16_supported"),
    }  # fmt: skip
    # builds without oneDNN, as on Macs, lack the function
    return {name: getattr(home, question, bool)() for name, (home, question) in homes.items()}


def bf16_cost(device: torch.device) -> float:
    """Measure how many times longer a layer takes to train in bf16 than in float32.

    The layer is a transposed convolution, of which decoders are made; the measurement takes less than a second.
    """
    x = torch.ones(8, 128, 8, 8, device=device).to(memory_format=torch.channels_last)
    weight = torch.ones(128, 64, 4, 4, device=device)

    def seconds(dtype: torch.dtype) -> float:
        inputs, best = [each.to(dtype).requires_grad_() for each in (x, weight)], float("inf")
        for _ in range(3):
            started = time.perf_counter()
            y = functional.conv_transpose2d(inputs[0], inputs[1], stride=2, padding=1)
            _ = torch.autograd.grad(y.sum(), inputs)[1].sum().item()  # waits for the device
            best = min(best, time.perf_counter() - started)
        return best

    with torch.enable_grad():
        return seconds(torch.bfloat16) / seconds(torch.float32)


def bf16_warning(device: torch.device) -> str:
    """Return a warning for bf16 on a device that emulates it."""
    what = _bf16_hardware(device)[1]
    return f"{what}; a layer takes {bf16_cost(device):,.1f} times as long as in float32, measured now"
