"""Decoders for encoders that stay as they are: trained on features, saved and loaded.

A pretrained encoder (of timm or transformers, say) has no way back from its features to examples. `train_decoder`
learns one; together they are an autoencoder, and with a density of the features a generative model.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from expost.errors import DataError, UsageError
from expost.generators.foreign.adapters import Adapter
from expost.generators.generator import Generator
from expost.networks.features import FeatureDecoder
from expost.types import to_unit
from expost.utils.precision import full_float32
from expost.utils.progress import progress, say
from expost.utils.seeding import HELD_OUT, NOISE, ORDER, WEIGHTS, generator, isolated, stream_seed
from expost.utils.store import read_tensors, write_tensors

_FORMAT, _VERSION = "expost-decoder", 1
#: Most weights of a decoder that a file may ask for.
_MOST_WEIGHTS = 2**31


def train_decoder(
    encode: Callable[[Tensor], Tensor],
    examples: Tensor,
    *modules: nn.Module,
    pixels: tuple[float, float] | None = None,
    decoder: nn.Module | None = None,
    width: int = 32,
    epochs: int = 20,
    batch_size: int = 64,
    lr: float = 1e-3,
    weight_decay: float = 0.0,
    noise: float = 0.0,
    seed: int = 0,
) -> nn.Module:
    """Train a decoder on the features of a frozen encoder, by the squared error of its reconstructions.

    The encoder runs once, in evaluation mode and without gradients; its features z are kept. Then AdamW minimizes

        || x - D(z + noise s e) ||^2 + penalty,    e ~ N(0, I),

    summed over an example, averaged over a batch, with x the example and s the deviation of each channel of z; the
    penalty is AdamW's decoupled decay. The rate falls from `lr` to 0 by half a cosine. One tenth of the examples (at
    least one) is held out, and the weights of the epoch with the least error on it are kept. The same arguments give
    the same decoder; torch's global random state is neither used nor changed.

    Args:
        encode: Maps examples (B, ...), floats, to codes (B, d), (B, C, L) or (B, C, h, w).
        examples: Images, uint8 or floats in [0, 1], or others, shape (N, ...), N at least 2.
        *modules: The networks behind `encode`; batches are moved to the device of the first one's weights.
        pixels: Range of pixel values that `encode` takes, as for `wrap`; the decoder gives pixels in it, too.
        decoder: A network of your own, from codes to examples, trained in place; None makes a `FeatureDecoder`.
        width: Its channels at the image's size.
        epochs: Passes over the examples that are not held out.
        batch_size: Examples of a step.
        lr: Largest learning rate.
        weight_decay: Decay of the weights, at least 0; with it the decoder is regularized as that of RAE-L2 is.
        noise: Deviation of the noise on codes while training, in units of each channel; above 0 the decoder is
            smoother, and forgives samples that are not quite codes.
        seed: Of the weights, the held-out part, batches and noise.

    Returns:
        The decoder, in evaluation mode, on the encoder's device. Give it to `wrap` with the same `pixels`.

    Raises:
        UsageError: if an option is outside its range, or the functions do not fit.
        DataError: if there are fewer than two examples, codes are not finite, or the loss is not.

    Example:
        >>> basis = torch.linalg.qr(torch.randn(8, 2, generator=torch.Generator().manual_seed(0)))[0]
        >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(1)) @ basis.T
        >>> decoder = train_decoder(lambda x: x @ basis, x, epochs=30, lr=1e-2, width=4)
        >>> bool((decoder(x @ basis) - x).square().mean() < 0.1 * x.square().mean())
        True
    """
    _check(epochs, batch_size, lr, weight_decay, noise, seed)
    if len(examples) < 2:
        raise DataError(f"{len(examples)} example(s) are too few to train on one and look at another; give more")
    like = next((weight for module in modules for weight in module.parameters()), torch.zeros(0))
    adapter = Adapter(lambda x: encode(x.to(like.dtype)), encode, modules, (), pixels)
    codes = Generator(adapter.features, adapter.decode, device=like.device, batch_size=batch_size).encode(examples)
    if codes.dim() not in (2, 3, 4):
        raise UsageError(f"codes have shape {tuple(codes.shape[1:])}; return vectors (B, d) or maps (B, C, h, w)")
    if not bool(codes.isfinite().all()):
        row = int((~codes.flatten(1).isfinite().all(1)).nonzero()[0])
        raise DataError(f"the encoder gives NaN or infinity, first for example {row}; check that example")
    if decoder is None:
        with isolated():
            torch.manual_seed(stream_seed(seed, WEIGHTS))
            decoder = FeatureDecoder(codes.shape[1:], examples.shape[1:], width, pixels or (0.0, 1.0))
    return _train(
        decoder.to(like.device), codes, examples, pixels, epochs, batch_size, lr, weight_decay, noise, seed
    ).eval()


def _check(epochs: int, batch_size: int, lr: float, weight_decay: float, noise: float, seed: int) -> None:
    for name, value in (("epochs", epochs), ("batch_size", batch_size)):
        if value < 1:
            raise UsageError(f"{name}={value} must be at least 1")
    if not 0 < lr < math.inf:
        raise UsageError(f"lr={lr} must be a finite number above 0")
    for name, number in (("weight_decay", weight_decay), ("noise", noise)):
        if not 0 <= number < math.inf:
            raise UsageError(f"{name}={number} must be a finite number, at least 0")
    if seed < 0:
        raise UsageError(f"seed={seed} must be at least 0")


def _train(
    decoder: nn.Module,
    codes: Tensor,
    examples: Tensor,
    pixels: tuple[float, float] | None,
    epochs: int,
    batch_size: int,
    lr: float,
    weight_decay: float,
    noise: float,
    seed: int,
) -> nn.Module:
    device = next(decoder.parameters()).device
    low, high = pixels or (0.0, 1.0)
    order = torch.randperm(len(codes), generator=generator(seed, HELD_OUT))
    held_out, training = order[: max(1, len(codes) // 10)], order[max(1, len(codes) // 10) :]
    axes = (0, *range(2, codes.dim()))
    scale = noise * codes.std(axes, keepdim=True, correction=0)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=lr, weight_decay=weight_decay)
    steps, done = epochs * math.ceil(len(training) / batch_size), 0

    def error(rows: Tensor, jitter: Tensor | float = 0.0) -> Tensor:
        """Return the squared error of each example, in units of [0, 1] for pixels."""
        x = to_unit(examples[rows]).to(device).float()
        output = decoder((codes[rows] + jitter).to(device))
        if output.shape != x.shape:
            raise UsageError(f"the decoder gives shape {tuple(output.shape[1:])} for examples {tuple(x.shape[1:])}")
        return ((output - low) / (high - low) - x).square().flatten(1).sum(1)

    best, kept, kept_at = math.inf, decoder.state_dict(), 0
    with full_float32(), progress("training the decoder", steps) as bar:
        for epoch in range(1, epochs + 1):
            decoder.train()
            shuffled = training[torch.randperm(len(training), generator=generator(seed, ORDER, epoch))]
            for rows in shuffled.split(batch_size):  # type: ignore[no-untyped-call]
                for group in optimizer.param_groups:
                    group["lr"] = lr * 0.5 * (1 + math.cos(math.pi * done / steps))
                source = generator(seed, NOISE, done)
                jitter = scale * torch.randn(codes[rows].shape, generator=source) if noise else 0.0
                loss = error(rows, jitter).mean()
                if not math.isfinite(loss.item()):
                    raise DataError(f"the decoder's loss is {loss.item()} at step {done + 1}; lower lr={lr:g}")
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                done += 1
                bar.advance()
            decoder.eval()
            with torch.no_grad():
                parts = [error(rows) for rows in held_out.split(batch_size)]  # type: ignore[no-untyped-call]
                value = torch.cat(parts).mean().item()
            if value < best:
                best, kept_at = value, epoch
                kept = {name: weight.detach().clone() for name, weight in decoder.state_dict().items()}
    decoder.load_state_dict(kept)
    mean = best / examples[0].numel()
    say(f"the decoder of epoch {kept_at} of {epochs} is kept: mean squared error of held-out examples {mean:.3g}")
    return decoder


def save_decoder(decoder: nn.Module, path: str | Path) -> Path:
    """Write the decoder that `train_decoder` made to one safetensors file, and return the file.

    Raises:
        UsageError: if it is a network of your own, of which only you know how to make it again.
        OSError: if it cannot be written.
    """
    if not isinstance(decoder, FeatureDecoder):
        raise UsageError(f"{type(decoder).__name__} is no decoder of train_decoder's; save its state_dict yourself")
    target = Path(path)
    record = {
        "format": _FORMAT,
        "version": _VERSION,
        "code_shape": list(decoder.code_shape),
        "shape": list(decoder.shape),
        "width": decoder.width,
        "pixels": list(decoder.pixels),
    }
    write_tensors(target, decoder.state_dict(), record)
    return target


def load_decoder(path: str | Path) -> FeatureDecoder:
    """Read what `save_decoder` wrote, onto the CPU, in evaluation mode.

    Raises:
        DataError: if the file is missing, damaged, no decoder, or of a newer version.
    """
    target = Path(path)
    tensors, record = read_tensors(target)
    if record.get("format") != _FORMAT:
        raise DataError(f"{target} holds no decoder; choose a file that save_decoder wrote")
    if record.get("version") != _VERSION:
        raise DataError(
            f"{target} has format version {record.get('version')!r}, not {_VERSION}; update expost to read it"
        )
    code_shape, shape, width, pixels = (record.get(name) for name in ("code_shape", "shape", "width", "pixels"))
    sizes, limits = [_numbers(each, int) for each in (code_shape, shape, [width])], _numbers(pixels, float)
    sound = all(each and 0 < min(each) <= max(each) < _MOST_WEIGHTS for each in sizes)
    if not sound or len(limits) != 2:
        raise DataError(f"{target} has an incomplete record; restore the file or train again")
    try:
        with torch.device("meta"):
            decoder = FeatureDecoder(code_shape, shape, width, (limits[0], limits[1]))  # type: ignore[arg-type]
    except (UsageError, RuntimeError, OverflowError) as error:
        raise DataError(f"{target} describes no decoder ({str(error).splitlines()[0]}); restore the file") from None
    expected = {name: tuple(weight.shape) for name, weight in decoder.state_dict().items()}
    found = {name: tuple(weight.shape) for name, weight in tensors.items()}
    if expected != found or not all(weight.dtype == torch.float32 for weight in tensors.values()):
        raise DataError(f"{target}: the weights are not those of its record; restore the file or train again")
    decoder.load_state_dict(tensors, assign=True)
    return decoder.eval()


def _numbers(found: object, kind: type) -> list[int | float]:
    """Return a list of numbers of a kind, or an empty one if it is none."""
    numbers = found if isinstance(found, list) else []
    kinds = (int,) if kind is int else (int, float)
    return numbers if all(isinstance(each, kinds) and not isinstance(each, bool) for each in numbers) else []
