"""How runs are shared, by the kind of their examples: what a card shows, and test inputs of an export."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from expost.config import RunConfig
from expost.errors import DataError
from expost.examples import kind_of_run
from expost.examples.pictures import grid, pairs, to_bytes
from expost.generators.generator import Generator
from expost.generators.strings import StringGenerator
from expost.run import Run
from expost.sharing.layout import CONFIG, INTERPOLATIONS, RECONSTRUCTIONS, SAMPLES
from expost.utils.store import replacing

#: Bytes of a picture at most.
LARGEST_PICTURE = 300_000
#: Sampled strings on a card.
STRINGS = 20


@dataclass(frozen=True)
class Shown:
    """What a card shows beside its words.

    Attributes:
        pictures: File name and caption of each picture, in order.
        text: Lines of sampled strings.
        note: Why there is nothing to show, or what is left out.
    """

    pictures: tuple[tuple[str, str], ...] = ()
    text: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Sharing:
    """How runs of one kind are shared.

    Attributes:
        noun: What samples are called, in code too.
        tag: The Hub's tag.
        task: The Hub's task, None where it has none.
        load: Loads a run's model onto a device.
        show: Gets a run, its model, whether test examples may be shown, and the folder for pictures.
        inputs: Makes random inputs of the model, float32, from their number, the shape of one, and a source.
        input: What an exported encoder takes, in words.
        output: What an exported decoder gives, in words.
    """

    noun: str
    tag: str
    task: str | None
    load: Callable[[Run, str], Generator | StringGenerator]
    show: Callable[[Run, Generator, bool, Path], Shown]
    inputs: Callable[[int, Sequence[int], torch.Generator], Tensor]
    input: str
    output: str


def sharing_of(config: RunConfig) -> Sharing:
    """Return how a run is shared."""
    return SHARED[kind_of_run(config).like]


def _load(run: Run, device: str) -> Generator:
    return run.generator(device)


def _load_strings(run: Run, device: str) -> StringGenerator:
    strings, shape = run.string_generator(device), run.config.model.shape
    if (strings.codec.length, strings.codec.size) != shape:
        raise DataError(
            f"{run.folder / CONFIG}: the codec makes rows of shape {(strings.codec.length, strings.codec.size)}, the "
            f"model takes {shape}; restore it"
        )
    return strings


def _usual(generator: Generator) -> str | None:
    return generator.density().name if generator.densities else None


def _show_images(run: Run, generator: Generator, show_data: bool, folder: Path) -> Shown:
    if run.config.model.shape[0] not in (1, 3, 4):
        return Shown()
    name, pictures = _usual(generator), []
    if name is not None:
        images = generator.sample(64, name, seed=0)
        save_fitting(lambda n: grid(images[:n]), (64, 49, 36, 25, 16, 9, 4, 1), folder / SAMPLES)
        pictures.append((SAMPLES, f"Samples from {name}, the first of seed 0"))
        ends = generator.density(name).sample(16, generator=torch.Generator().manual_seed(0)).cpu()
        paths = generator.decode(codes_between(ends[:8], ends[8:], 8))
        save_fitting(lambda n: grid(paths[: 8 * n], 8), (8, 6, 4, 2, 1), folder / INTERPOLATIONS)
        pictures.append((INTERPOLATIONS, f"Paths between codes drawn from {name}, a row each"))
    if show_data:
        test = run.data().test.across(40).x
        back = to_bytes(generator.reconstruct(test))
        save_fitting(lambda n: pairs(test[:n], back[:n], min(n, 10)), (40, 20, 10, 5, 2, 1), folder / RECONSTRUCTIONS)
        pictures.append((RECONSTRUCTIONS, "Test examples, and below each its reconstruction"))
    return Shown(tuple(pictures), note="" if pictures else "No density is fitted on the codes.")


def _show_strings(run: Run, generator: Generator, show_data: bool, folder: Path) -> Shown:
    name, lines = _usual(generator), list[str]()
    strings = StringGenerator(generator, run.string_generator("cpu").codec)
    if name is not None:
        drawn = (text for text in strings.sample(3 * STRINGS, name) if text is not None)
        lines += [f"sampled from {name}:", *list(dict.fromkeys(drawn))[:STRINGS]]
    if show_data:
        test = run.data().test.across(STRINGS).x
        back = zip(strings.codec.decode(test), strings.reconstruct(test), strict=True)
        lines += ["test examples -> their reconstructions:", *(f"{a} -> {b or '(no end)'}" for a, b in back)]
    return Shown(text=tuple(lines))


def _show_vectors(run: Run, generator: Generator, show_data: bool, folder: Path) -> Shown:
    return Shown(note="Examples are vectors; there is nothing to picture.")


def _images(count: int, shape: Sequence[int], source: torch.Generator) -> Tensor:
    return torch.rand(count, *shape, generator=source)


def _one_hot(count: int, shape: Sequence[int], source: torch.Generator) -> Tensor:
    length, size = shape
    return functional.one_hot(torch.randint(size, (count, length), generator=source), size).float()


def _vectors(count: int, shape: Sequence[int], source: torch.Generator) -> Tensor:
    return math.sqrt(12) * (torch.rand(count, *shape, generator=source) - 0.5)  # of variance 1


#: How runs are shared, by the kind of their examples.
SHARED: dict[str, Sharing] = {
    "images": Sharing(
        "images",
        "image-generation",
        "unconditional-image-generation",
        _load,
        _show_images,
        _images,
        "images in [0, 1], channels first",
        "images in [0, 1], channels first",
    ),
    "sound": Sharing(
        "spectrograms",
        "audio",
        None,
        _load,
        _show_images,
        _images,
        "log-mel frames in [0, 1], channels first",
        "log-mel frames in [0, 1], channels first",
    ),
    "strings": Sharing(
        "strings", "strings", None, _load_strings, _show_strings, _one_hot, "one-hot symbols", "logits of symbols"
    ),
    "vectors": Sharing("rows", "tabular", None, _load, _show_vectors, _vectors, "vectors", "vectors"),
}


def codes_between(a: Tensor, b: Tensor, steps: int) -> Tensor:
    """Return points from each row of `a` to that of `b`, both ends included, shape (N * steps, d).

    Example:
        >>> codes_between(torch.zeros(1, 1), torch.ones(1, 1), 3).flatten().tolist()
        [0.0, 0.5, 1.0]
    """
    weights = torch.linspace(0, 1, steps)[None, :, None]
    return torch.lerp(a[:, None], b[:, None], weights).flatten(0, 1)


def save_fitting(draw: Callable[[int], Image.Image], counts: tuple[int, ...], path: Path) -> None:
    """Write the picture of as many examples as fit into `LARGEST_PICTURE` bytes."""
    for data in _encoded(draw, counts):
        if len(data) <= LARGEST_PICTURE:
            break
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def _encoded(draw: Callable[[int], Image.Image], counts: tuple[int, ...]) -> Iterator[bytes]:
    for count in counts:
        buffer = io.BytesIO()
        draw(count).save(buffer, "PNG", optimize=True)
        yield buffer.getvalue()
