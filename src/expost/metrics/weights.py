"""The weights of the 2015 Inception network: finding, reading and folding them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from expost.errors import DataError, UsageError
from expost.utils.downloads import PublicFile, cache_folder, download
from expost.utils.store import read_tensors

VARIABLE = "EXPOST_WEIGHTS"
"""The environment variable that names the weight file, or a folder that holds it."""

BATCH_NORM_EPSILON = 1e-3
"""What TensorFlow's network adds to the variance before the root (torch's default is 1e-5)."""


#: TensorFlow's `inception-2015-12-05`, converted for pytorch-fid; torch-fidelity publishes the same bytes.
PUBLIC = PublicFile(
    name="pt_inception-2015-12-05-6726825d.pth",
    urls=(
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    ),
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    size=95_628_359,
    aliases=("weights-inception-2015-12-05-6726825d.pth",),
)

#: Names that are looked for in a folder, best first. The last holds only the layers up to Mixed_6e, for 768 features.
NAMES = (PUBLIC.name, *PUBLIC.aliases, "inception-2015-12-05.safetensors", "inception-2015-trunk.safetensors")


def find_weights(last_layer: str) -> Path | None:
    """Return the first weight file that holds the network up to `last_layer`, or None; nothing is downloaded.

    Places, in this order: `$EXPOST_WEIGHTS` (a file or a folder), `cache_folder()`, `$EXPOST_DATA/inception/`, and
    the folder where pytorch-fid and torch-fidelity keep theirs (`torch.hub`'s). In a folder, names in `NAMES` count.

    Args:
        last_layer: "Mixed_6e" or "Mixed_7c".

    Raises:
        UsageError: if `$EXPOST_WEIGHTS` is set to what does not exist.
    """
    for place in weight_places("inception"):
        for path in [place] if place.is_file() else [place / name for name in NAMES]:
            if path.is_file() and _reaches(path, last_layer):
                return path
    return None


def weight_places(kind: str) -> list[Path]:
    """Return where weights are looked for, best first: folders, and the file that `$EXPOST_WEIGHTS` may name.

    Args:
        kind: Name of the folder below `$EXPOST_DATA`.

    Raises:
        UsageError: if `$EXPOST_WEIGHTS` is set to what does not exist.
    """
    given = os.environ.get(VARIABLE)
    if given and not Path(given).expanduser().exists():
        raise UsageError(f"{VARIABLE} is {given}, which does not exist; set it to the weight file or its folder")
    places = [Path(given).expanduser()] if given else []
    places.append(cache_folder())
    if data := os.environ.get("EXPOST_DATA"):
        places.append(Path(data).expanduser() / kind)
    places.append(Path(torch.hub.get_dir()) / "checkpoints")
    return places


def find_or_download(last_layer: str, public: PublicFile = PUBLIC) -> Path:
    """Return the weight file that `find_weights` finds, or else download the public one to `cache_folder()`, once.

    Raises:
        UsageError: as `find_weights`.
        DataError: if there is none and the download fails; the message says which file to put where.
    """
    otherwise = f"or set {VARIABLE} to it, or take features that need none (--features digits, pixels or onet)"
    return find_weights(last_layer) or download(cache_folder(), public, otherwise)


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dictionary from a safetensors file or a `.pth` file of tensors only; no code in it is ever run.

    Raises:
        DataError: if the file is corrupt or holds anything but tensors.
    """
    if path.suffix == ".safetensors":
        return read_tensors(path)[0]
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a corrupt archive makes the zip reader and the restricted unpickler fail in any way
        reason = str(error).partition("\n")[0][:120]
        raise DataError(f"cannot read {path}: truncated, or not a file of tensors ({reason}); fetch it again") from None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DataError(f"{path} is not a state dictionary (names to tensors); give the published weight file")
    return dict(state)


def fold(state: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], where: str) -> dict[str, Tensor]:
    """Return the weights and biases of convolutions, with batch normalisation folded in, in float32.

        w' = w gamma / sqrt(var + 1e-3),   b' = beta - mean gamma / sqrt(var + 1e-3)

    computed in float64. Layers that are folded already (`NAME.conv.bias` is there and `NAME.bn.*` is not) are taken as
    they are. What `shapes` does not name (the classifier, the last blocks) is ignored.

    Args:
        state: `NAME.conv.weight` with `NAME.bn.{weight,bias,running_mean,running_var}`, or with `NAME.conv.bias`.
        shapes: Shape by name of what is wanted, `NAME.conv.weight` and `NAME.conv.bias`.
        where: The file, for messages.

    Raises:
        DataError: for a missing layer, another shape, or values that are not finite.
    """
    folded: dict[str, Tensor] = {}
    for key in shapes:
        layer = key.removesuffix(".conv.weight")
        if layer == key:
            continue
        weight, bias = _folded(state, layer, where)
        for name, value in ((key, weight), (f"{layer}.conv.bias", bias)):
            if value.shape != shapes[name]:
                raise DataError(
                    f"{where}: {name} has shape {tuple(value.shape)}, not {tuple(shapes[name])}; it is another network"
                )
            if not bool(value.isfinite().all()):
                raise DataError(f"{where}: {name} holds NaN or infinity, or its variance is negative; fetch it again")
            folded[name] = value.float().contiguous()
    return folded


def _folded(state: Mapping[str, Tensor], layer: str, where: str) -> tuple[Tensor, Tensor]:
    try:
        weight = state[f"{layer}.conv.weight"].double()
        if f"{layer}.bn.running_var" not in state:
            return weight, state[f"{layer}.conv.bias"].double()
        gamma, beta, mean, var = (
            state[f"{layer}.bn.{part}"].double() for part in ("weight", "bias", "running_mean", "running_var")
        )
    except KeyError as error:
        raise DataError(f"{where} has no {error.args[0]}; give the whole Inception network of 2015-12-05") from None
    if weight.dim() != 4 or {len(weight)} != {part.numel() for part in (gamma, beta, mean, var)}:
        raise DataError(f"{where}: the parts of {layer} do not fit each other; it is another network")
    scale = gamma / (var + BATCH_NORM_EPSILON).sqrt()
    return weight * scale.view(-1, 1, 1, 1), beta - mean * scale


def _reaches(path: Path, last_layer: str) -> bool:
    """Return whether a file has that layer; what is not safetensors is taken to be whole, to spare reading it."""
    if path.suffix != ".safetensors":
        return True
    try:
        with safe_open(path, framework="pt") as file:
            return any(name.startswith(f"{last_layer}.") for name in file.keys())  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError):
        return True  # reading it gives a proper error, better than skipping it in silence
