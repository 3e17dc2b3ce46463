"""Vision transformers whose class token describes an image: DINOv2's and CLIP's, and how their weights are named."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from expost.errors import DataError

#: What DINOv2's authors add to the side of a grid of positions when they resize it.
_OFFSET = 0.1


@dataclass(frozen=True)
class Shape:
    """The shape of a vision transformer.

    Attributes:
        width: Length of a token.
        depth: Number of blocks.
        heads: Attention heads; they divide the width.
        patch: Side of a patch, in pixels.
        side: Side of an image, in pixels.
        grid: Side of the grid of positions that the weights have, in patches.
        dim: Length of the result.
        projected: Whether the class token is mapped linearly to the result (CLIP), or is the result (DINOv2).
        scaled: Whether blocks scale what they add, channel by channel (DINOv2).
        normed_first: Whether tokens are normalized before the first block (CLIP).
        quick: Whether the activation is x sigmoid(1.702 x) (CLIP), or the exact x Phi(x) (DINOv2).
        epsilon: What normalization adds to the variance.
    """

    width: int
    depth: int
    heads: int
    patch: int
    side: int
    grid: int
    dim: int
    projected: bool
    scaled: bool
    normed_first: bool
    quick: bool
    epsilon: float


def dinov2(width: int, depth: int, heads: int, side: int = 224) -> Shape:
    """Return the shape of a DINOv2 network of patches of 14 pixels (Oquab et al. 2023)."""
    return Shape(width, depth, heads, 14, side, 37, width, False, True, False, False, 1e-6)


def clip(width: int, depth: int, heads: int, patch: int, side: int, dim: int) -> Shape:
    """Return the shape of a CLIP network for images (Radford et al. 2021)."""
    return Shape(width, depth, heads, patch, side, side // patch, dim, True, False, True, True, 1e-5)


class _Attention(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.qkv = nn.Linear(shape.width, 3 * shape.width)
        self.proj = nn.Linear(shape.width, shape.width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).view(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))


class _Mlp(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.fc1 = nn.Linear(shape.width, 4 * shape.width)
        self.fc2 = nn.Linear(4 * shape.width, shape.width)
        self.quick = shape.quick

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        return self.fc2(x * torch.sigmoid(1.702 * x) if self.quick else functional.gelu(x))


class _Scale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class _Block(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(shape.width, eps=shape.epsilon) for _ in range(2))
        self.attn, self.mlp = _Attention(shape), _Mlp(shape)
        self.ls1, self.ls2 = (_Scale(shape.width) if shape.scaled else nn.Identity() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class VisionTransformer(nn.Module):
    """Patches, a class token and positions through blocks of attention; the class token is what is returned.

    Parameters are named as DINOv2's authors name them. Positions are those of an image of `side` pixels: see
    `resized_positions`.

    Args:
        shape: Its shape.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        tokens = (shape.side // shape.patch) ** 2 + 1
        self.cls_token = nn.Parameter(torch.zeros(1, 1, shape.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, shape.width))
        self.patch_embed = nn.ModuleDict(
            {"proj": nn.Conv2d(3, shape.width, shape.patch, stride=shape.patch, bias=not shape.projected)}
        )
        self.norm_pre = nn.LayerNorm(shape.width, eps=shape.epsilon) if shape.normed_first else nn.Identity()
        self.blocks = nn.ModuleList(_Block(shape) for _ in range(shape.depth))
        self.norm = nn.LayerNorm(shape.width, eps=shape.epsilon)
        self.head = nn.Linear(shape.width, shape.dim, bias=False) if shape.projected else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map normalized images, shape (B, 3, side, side), to vectors, shape (B, dim)."""
        patches = self.patch_embed["proj"](x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), patches], dim=1) + self.pos_embed
        tokens = self.norm_pre(tokens)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens[:, 0]))


def resized_positions(positions: Tensor, side: int) -> Tensor:
    """Resize a square grid of positions, behind that of the class token, as DINOv2's authors do.

    The grid is sampled bicubically at a step of grid / (side + 0.1), without smoothing. (transformers has a step of
    grid / side, and thus other features.) A grid of that side already is returned as it is.

    Args:
        positions: Shape (1, 1 + grid^2, width).
        side: The side that is wanted, in patches.
    """
    grid = round((positions.shape[1] - 1) ** 0.5)
    if grid == side:
        return positions
    token, rest = positions[:, :1], positions[:, 1:].reshape(1, grid, grid, -1).permute(0, 3, 1, 2)
    scale = (side + _OFFSET) / grid
    resized = functional.interpolate(rest.float(), scale_factor=(scale, scale), mode="bicubic", antialias=False)
    return torch.cat([token, resized.flatten(2).transpose(1, 2)], dim=1)


#: How transformers names what DINOv2's authors call otherwise; the first that fits is taken.
_RENAMED: tuple[tuple[str, str], ...] = (
    (r"(?:vision_model\.)?embeddings\.(?:cls_token|class_embedding)", "cls_token"),
    (r"(?:vision_model\.)?embeddings\.(?:position_embeddings|position_embedding\.weight)", "pos_embed"),
    (
        r"(?:vision_model\.)?embeddings\.(?:patch_embeddings\.projection|patch_embedding)\.(weight|bias)",
        r"patch_embed.proj.\1",
    ),
    (r"(?:vision_model\.)?pre_layrnorm\.(weight|bias)", r"norm_pre.\1"),
    (r"(?:vision_model\.)?(?:post_layernorm|layernorm)\.(weight|bias)", r"norm.\1"),
    (r"visual_projection\.weight", "head.weight"),
    (r"(?:vision_model\.)?encoder\.layers?\.(\d+)\.(?:layer_norm|norm)([12])\.(weight|bias)", r"blocks.\1.norm\2.\3"),
    (r"encoder\.layer\.(\d+)\.layer_scale([12])\.lambda1", r"blocks.\1.ls\2.gamma"),
    (r"(?:vision_model\.)?encoder\.layers?\.(\d+)\.mlp\.(fc[12])\.(weight|bias)", r"blocks.\1.mlp.\2.\3"),
    (
        r"(?:vision_model\.)?encoder\.layers?\.(\d+)\.(?:attention\.output\.dense|\w+\.o(?:ut)?_proj)\.(weight|bias)",
        r"blocks.\1.attn.proj.\2",
    ),
    (
        r"(?:vision_model\.)?encoder\.layers?\.(\d+)\.(?:self_attn|attention(?:\.attention)?)\."
        r"(q|k|v)(?:uery|ey|alue|_proj)\.(weight|bias)",
        r"blocks.\1.attn.\2.\3",
    ),
)


def adapted(state: Mapping[str, Tensor], shape: Shape, where: str) -> dict[str, Tensor]:
    """Return the weights of a `VisionTransformer` from a state dictionary of its authors' or of transformers.

    Names of transformers are mapped to the authors', queries, keys and values joined, and positions resized. What the
    network lacks (a text encoder, the token of masked patches) is ignored.

    Args:
        state: The state dictionary.
        shape: Shape of the network.
        where: The file, for messages.

    Raises:
        DataError: for a missing parameter, another shape, or values that are not finite.
    """
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        for pattern, ours in _RENAMED:
            if match := re.fullmatch(pattern, name):
                name = match.expand(ours)
                break
        found[name] = value
    for name in [each for each in found if re.fullmatch(r"blocks\.\d+\.attn\.q\.(weight|bias)", each)]:
        parts = [name.replace(".attn.q.", f".attn.{part}.") for part in "qkv"]
        if all(part in found for part in parts):
            found[name.replace(".attn.q.", ".attn.qkv.")] = torch.cat([found[part] for part in parts])
    with torch.device("meta"):
        wanted = {name: value.shape for name, value in VisionTransformer(shape).state_dict().items()}
    result = {}
    for name, size in wanted.items():
        if name not in found:
            raise DataError(f"{where} has no {name}; it is another network")
        value = found[name]
        if name == "pos_embed":
            full = torch.Size([1, shape.grid**2 + 1, shape.width])
            if value.numel() == full.numel():
                value = resized_positions(value.reshape(full), shape.side // shape.patch)
        elif name == "cls_token":
            value = value.reshape(1, 1, -1)
        if value.shape != size:
            raise DataError(f"{where}: {name} has shape {tuple(value.shape)}, not {tuple(size)}; it is another network")
        if not value.is_floating_point() or not bool(value.isfinite().all()):
            raise DataError(f"{where}: {name} holds NaN or infinity, or no floating-point numbers; fetch it again")
        result[name] = value.float().contiguous()
    return result
