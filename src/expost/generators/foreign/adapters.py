"""Functions that encode and decode, whoever trained them, in this library's form."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from expost.errors import UsageError
from expost.generators.generator import Generator

#: Range of the pixels of most diffusion models; ours is [0, 1].
SIGNED = (-1.0, 1.0)


@dataclass(frozen=True)
class Adapter:
    """A foreign pair of functions in this library's form: codes are float32 of one shape, images lie in [0, 1].

    Attributes:
        encode_examples: Maps examples (B, ...) to codes (B, *code_shape).
        decode_codes: Maps codes (B, *code_shape) to examples.
        modules: The networks behind them; each is put into evaluation mode before every use.
        code_shape: Shape of one code as the functions have it.
        pixels: Range of the functions' pixel values: examples in [0, 1] are mapped to it, decoded ones back and
            clamped. None leaves examples as they are.

    Example:
        >>> def halve(x):
        ...     return x[:, :, ::2, ::2]
        >>> def double(z):
        ...     return z.repeat_interleave(2, 2).repeat_interleave(2, 3)
        >>> adapter = Adapter(halve, double, (), code_shape=(1, 2, 2))
        >>> adapter.encode(torch.ones(3, 1, 4, 4)).shape, adapter.decode(torch.ones(3, 4)).shape
        (torch.Size([3, 1, 2, 2]), torch.Size([3, 1, 4, 4]))
    """

    encode_examples: Callable[[Tensor], Tensor]
    decode_codes: Callable[[Tensor], Tensor]
    modules: Sequence[nn.Module]
    code_shape: tuple[int, ...]
    pixels: tuple[float, float] | None = None

    def features(self, x: Tensor) -> Tensor:
        """Return what the encoder gives, of whatever shape.

        Raises:
            UsageError: if the function returns anything but a tensor with a row for each example.
        """
        self._evaluate()
        if self.pixels is not None:
            low, high = self.pixels
            x = low + (high - low) * x
        return _tensor(self.encode_examples(x), "encode", len(x))

    def encode(self, x: Tensor) -> Tensor:
        """Return codes, shape (B, *code_shape).

        Raises:
            UsageError: if the function returns anything but a tensor of codes of that shape.
        """
        codes = self.features(x)
        if tuple(codes.shape[1:]) != self.code_shape:
            raise UsageError(
                f"codes have shape {tuple(codes.shape[1:])}, not {self.code_shape}; examples must have the size that "
                "the generator was made for"
            )
        return codes.float()

    def decode(self, z: Tensor) -> Tensor:
        """Return decoded codes, shape (B, *code_shape) or flattened; images in [0, 1].

        Raises:
            UsageError: if codes have another shape, or the function returns anything but a tensor of examples.
        """
        if tuple(z.shape[1:]) not in (self.code_shape, (math.prod(self.code_shape),)):
            raise UsageError(
                f"codes have shape {tuple(z.shape[1:])}, this model's {self.code_shape}; "
                "use a density fitted on codes of this generator"
            )
        self._evaluate()
        output = _tensor(self.decode_codes(z.reshape(-1, *self.code_shape)), "decode", len(z)).float()
        if self.pixels is None:
            return output
        low, high = self.pixels
        return ((output - low) / (high - low)).clamp(0, 1)

    def _evaluate(self) -> None:
        for module in self.modules:
            module.eval()


def wrap(
    encode: Callable[[Tensor], Tensor],
    decode: Callable[[Tensor], Tensor],
    *modules: nn.Module,
    code_shape: int | Sequence[int],
    pixels: tuple[float, float] | None = None,
    batch_size: int = 64,
) -> Generator:
    """Make a generator from any trained encoder and decoder; they run in evaluation mode and without gradients.

    If a function returns something other than a tensor, unpack it with a lambda:

        vit = ViTModel.from_pretrained(...)                                  # transformers
        generator = wrap(lambda x: vit(pixel_values=x).pooler_output, decoder, vit, decoder, code_shape=768)

    Args:
        encode: Maps examples (B, ...), floats, to codes (B, *code_shape).
        decode: Maps codes (B, *code_shape) to examples.
        *modules: The networks behind the functions. Batches are moved to the device of the first one's weights (the CPU
            without one), so move models first; floating-point batches are converted to the weights' precision.
        code_shape: Shape of one code: d, or (C, h, w) for maps, which codes stay.
        pixels: Range of pixel values that the model was trained with, for example (-1, 1): images in [0, 1] are mapped
            to it and back. None leaves values as they are.
        batch_size: Examples per batch.

    Raises:
        UsageError: if an option is outside its range.

    Example:
        >>> basis = torch.linalg.qr(torch.randn(8, 2, generator=torch.Generator().manual_seed(0)))[0]
        >>> generator = wrap(lambda x: x @ basis, lambda z: z @ basis.T, code_shape=2)
        >>> _ = generator.fit("gaussian", torch.randn(50, 8))
        >>> generator.sample(3).shape
        torch.Size([3, 8])
    """
    shape = (code_shape,) if isinstance(code_shape, int) else tuple(code_shape)
    if not shape or min(shape) < 1:
        raise UsageError(f"code_shape={code_shape!r} must be a dimension, or the shape (C, h, w) of a map, all above 0")
    if batch_size < 1:
        raise UsageError(f"batch_size={batch_size} must be at least 1")
    if pixels is not None and not (len(pixels) == 2 and -math.inf < pixels[0] < pixels[1] < math.inf):
        raise UsageError(f"pixels={pixels!r} must be a range (low, high), for example (-1, 1)")
    like = next((weight for module in modules for weight in module.parameters()), torch.zeros(0))
    adapter = Adapter(lambda x: encode(x.to(like.dtype)), lambda z: decode(z.to(like.dtype)), modules, shape, pixels)
    return Generator(adapter.encode, adapter.decode, device=like.device, batch_size=batch_size)


def from_diffusers(
    vae: Any,
    size: int | tuple[int, int],
    pixels: tuple[float, float] | None = SIGNED,
    batch_size: int = 16,
) -> Generator:
    """Make a generator of a KL autoencoder of diffusers: `AutoencoderKL`, or one that has its `encode` and `decode`.

    The code is the posterior's mean, `vae.encode(x).latent_dist.mean`, a map (C, h, w) in the model's own units:
    without its `scaling_factor`, which a density does not need. A sample is `vae.decode(z).sample`. The code's shape
    is found by encoding one empty image.

    Codes have thousands of dimensions: fit "flow-matching", which learns maps, or "reduced", which takes seconds.

    Args:
        vae: The model, on the device where it shall run.
        size: Side of the (square) images, or (height, width), in pixels.
        pixels: Range of the pixel values that it was trained with.
        batch_size: Images per batch.

    Raises:
        UsageError: if the model does not take images of this size.
    """
    height, width = (size, size) if isinstance(size, int) else size
    vae.eval()
    weight = next(vae.parameters())
    empty = torch.zeros(1, vae.config.in_channels, height, width, device=weight.device, dtype=weight.dtype)

    def encode(x: Tensor) -> Tensor:
        return vae.encode(x).latent_dist.mean

    try:
        with torch.inference_mode():
            code_shape = tuple(encode(empty).shape[1:])
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"the model does not take images of {height}x{width} pixels: {reason}") from error
    return wrap(
        encode, lambda z: vae.decode(z).sample, vae, code_shape=code_shape, pixels=pixels, batch_size=batch_size
    )


def from_pythae(model: Any, pixels: tuple[float, float] | None = None, batch_size: int = 500) -> Generator:
    """Make a generator of a Pythae model whose code is a vector (AE, VAE, WAE_MMD, RAE_L2, ...).

    The code is `model.encoder(x).embedding` (of a variational model the posterior's mean), a sample
    `model.decoder(z).reconstruction`.

    Args:
        model: The model, on the device where it shall run.
        pixels: Range of the pixel values that it was trained with, if not [0, 1].
        batch_size: Examples per batch.
    """
    return wrap(
        lambda x: model.encoder(x).embedding,
        lambda z: model.decoder(z).reconstruction,
        model,
        code_shape=int(model.latent_dim),
        pixels=pixels,
        batch_size=batch_size,
    )


def _tensor(output: object, function: str, count: int) -> Tensor:
    if not isinstance(output, Tensor):
        raise UsageError(
            f"{function} returned {type(output).__name__}; return the tensor in it, e.g. `lambda x: model(x).embedding`"
        )
    if output.dim() == 0 or output.shape[0] != count:
        raise UsageError(f"{function} returned shape {tuple(output.shape)} for {count} examples; keep the first axis")
    return output
