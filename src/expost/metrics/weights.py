"""The weights of the 2015 Inception network: finding, downloading, reading and folding them."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from expost.errors import DataError, UsageError
from expost.progress import progress
from expost.store import read_tensors, replacing

VARIABLE = "EXPOST_WEIGHTS"
"""The environment variable that names the weight file, or a folder that holds it."""

BATCH_NORM_EPSILON = 1e-3
"""What TensorFlow's network adds to the variance before the root (torch's default is 1e-5)."""


@dataclass(frozen=True)
class PublicFile:
    """A file that is published under a fixed hash.

    Attributes:
        name: File name.
        urls: Where it is to be had; tried in order.
        sha256: Its SHA-256 in hex.
        size: Its size in bytes.
        aliases: Other names under which the same file is published.
    """

    name: str
    urls: tuple[str, ...]
    sha256: str
    size: int
    aliases: tuple[str, ...] = ()


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


def cache_folder() -> Path:
    """Return the folder for downloads: `$XDG_CACHE_HOME/expost`, by default `~/.cache/expost`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "expost"


def find_weights(last_layer: str) -> Path | None:
    """Return the first weight file that holds the network up to `last_layer`, or None; nothing is downloaded.

    Looked at, in this order: `$EXPOST_WEIGHTS` (a file or a folder), `cache_folder()`, `$EXPOST_DATA/inception/`, and
    the folder where pytorch-fid and torch-fidelity keep theirs (`torch.hub`'s). In a folder, names in `NAMES` count.

    Args:
        last_layer: "Mixed_6e" or "Mixed_7c".

    Raises:
        UsageError: if `$EXPOST_WEIGHTS` is set to what does not exist.
    """
    given = os.environ.get(VARIABLE)
    if given and not Path(given).expanduser().exists():
        raise UsageError(f"{VARIABLE} is {given}, which does not exist; set it to the weight file or its folder")
    places = [Path(given).expanduser()] if given else []
    places.append(cache_folder())
    if data := os.environ.get("EXPOST_DATA"):
        places.append(Path(data).expanduser() / "inception")
    places.append(Path(torch.hub.get_dir()) / "checkpoints")
    for place in places:
        for path in [place] if place.is_file() else [place / name for name in NAMES]:
            if path.is_file() and _reaches(path, last_layer):
                return path
    return None


def find_or_download(last_layer: str, public: PublicFile = PUBLIC) -> Path:
    """Return the weight file that `find_weights` finds, or else download the public one to `cache_folder()`, once.

    Raises:
        UsageError: as `find_weights`.
        DataError: if there is none and the download fails; the message says which file to put where.
    """
    return find_weights(last_layer) or download(cache_folder(), public)


def download(folder: Path, public: PublicFile = PUBLIC, timeout: float = 30.0) -> Path:
    """Download a public file to `folder` and check its size and SHA-256; what fails the check is not kept.

    Args:
        folder: Where to; made if need be.
        public: What, and from where.
        timeout: Seconds without an answer after which a server is given up.

    Returns:
        Its path.

    Raises:
        DataError: if no URL gives the file; the message says why, and which file to put where by hand.
    """
    reasons = []
    for url in public.urls:
        try:
            with replacing(folder / public.name) as temporary:
                digest, size = hashlib.sha256(), 0
                with temporary.open("wb") as file, progress(f"downloading {public.name}", public.size) as bar:
                    for block in _blocks(url, timeout):
                        bar.advance(len(block))
                        size += len(block)
                        if size > public.size:
                            raise DataError(f"more than the published {public.size} bytes")
                        digest.update(block)
                        file.write(block)
                _compare(digest.hexdigest(), size, public)
            return folder / public.name
        except DataError as error:
            reasons.append(f"{url}: {error}")
    raise DataError(
        f"cannot download {public.name} ({'; '.join(reasons)}); fetch it on another machine and put it into {folder}, "
        f"or set {VARIABLE} to it"
    )


def verify(path: Path, public: PublicFile = PUBLIC) -> bool:
    """Check a file that bears the public file's name (or an alias) against its size and hash.

    Returns:
        True if it is that file; False if it has another name, so that nothing is known of it.

    Raises:
        DataError: if it has the name but not the contents.
    """
    if path.name not in (public.name, *public.aliases):
        return False
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        _compare(digest, path.stat().st_size, public)
    except DataError as error:
        raise DataError(f"{path} is not the published file: {error}; delete it and fetch it again") from None
    return True


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dictionary from a safetensors file, or a `.pth` file of tensors only: no code in it is ever run.

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
        return True  # reading it gives the proper error, which beats passing over it in silence


def _blocks(url: str, timeout: float) -> Iterator[bytes]:
    try:
        with urllib.request.urlopen(url, timeout=timeout) as response:
            while block := response.read(1 << 20):
                yield block
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise DataError(str(error) or type(error).__name__) from None


def _compare(digest: str, size: int, public: PublicFile) -> None:
    if size != public.size:
        raise DataError(f"{size} bytes, published are {public.size}; it is truncated or another file")
    if digest != public.sha256:
        raise DataError(f"SHA-256 {digest[:16]}..., published is {public.sha256[:16]}...; its contents are altered")
