"""Images, to be explored."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from io import BytesIO

import torch
from markupsafe import Markup
from PIL import Image
from torch import Tensor

from expost.data.decoding import header
from expost.data.images import SUFFIXES
from expost.data.single import Form
from expost.errors import DataError
from expost.examples.pictures import grid, to_bytes, to_pil
from expost.explorer.kinds import Compared, File, Given, Neighbours, TensorKind, array_of, npy, suffix_of
from expost.explorer.markup import facts, join, number
from expost.generators.generator import Generator
from expost.types import to_unit

#: Most pixels of an upload; files of a few megabytes can hold billions.
LARGEST_UPLOAD = 25_000_000
#: Suffixes of most uploads, which are named first.
USUAL = (".png", ".jpg", ".webp", ".gif", ".tif")
#: About the sides at which images are shown.
LARGE, MEDIUM, SMALL = 280, 128, 64
#: Up to this side images are shown pixel by pixel.
PIXEL_ART = 48


class Images(TensorKind):
    """Images: floats in [0, 1], shape (N, C, H, W).

    Args:
        generator: From the trained model.
        form: What the run's images are, and how they are read.
        train: Training images that others are compared with, uint8, shape (N, C, H, W).
    """

    noun = "image"

    def __init__(self, generator: Generator, form: Form, train: Tensor) -> None:
        super().__init__(generator)
        self.shape = form.shape
        self.accept = (*USUAL, *sorted(SUFFIXES - set(USUAL)), ".npy") if form.shape[0] in (1, 3) else ()
        self._form = form
        self._train = Compared(to_unit(train).flatten(1))

    def of_rows(self, x: Tensor) -> Tensor:
        """Return images of a data set as floats."""
        return to_unit(x)

    def read(self, body: bytes, name: str) -> Given[Tensor]:
        """Read an image file, or an image saved as .npy, in the way that the run's data are read.

        Raises:
            DataError: if it is no image, damaged, or has so many pixels that it is not safe to decode.
        """
        if suffix_of(name, self.accept) == ".npy":
            single = self._form.read_array("the array", array_of(body))
        else:
            head = header("the file", body)
            if head.width * head.height > LARGEST_UPLOAD:
                raise DataError(
                    f"the image has {head.width} x {head.height} pixels, and more than "
                    f"{LARGEST_UPLOAD // 10**6} million are too many to be safe to decode; shrink it first"
                )
            single = self._form.read("the file", body)
        return Given(torch.tensor(single.pixels, dtype=torch.float32).div(255)[None], single.said)

    def parse(self, text: str) -> Tensor:
        """Refuse: images are not typed."""
        raise DataError("an image cannot be typed; upload one")

    def text(self, items: Tensor) -> str:
        """Return nothing: images are not typed."""
        return ""

    def size(self, items: Tensor) -> int:
        """Return the bytes of the floats."""
        return items.numel() * 4

    def one(self, items: Tensor) -> Markup:
        """Show an image, large."""
        return self._picture(items[0], LARGE, f"The decoded {self.noun}")

    def small(self, items: Tensor) -> Markup:
        """Show an image at half that size."""
        return self._picture(items[0], MEDIUM, f"The chosen {self.noun}")

    def sheet(self, items: Tensor) -> Markup:
        """Show images in a grid."""
        cells = (
            Markup('<button type="button" data-index="{}" aria-label="Sample {}">{}</button>').format(
                index, index + 1, self._picture(item, SMALL, "")
            )
            for index, item in enumerate(items)
        )
        return Markup('<div class="sheet">{}</div>').format(join(cells))

    def pair(self, item: Tensor, back: Tensor) -> Markup:
        """Show an image and its reconstruction side by side, with the mean squared error of pixels in [0, 1]."""
        sides = join(
            Markup("<figure>{}<figcaption>{}</figcaption></figure>").format(
                self._picture(each[0], 220, caption), caption
            )
            for each, caption in ((item, f"{self.noun}"), (back, "reconstruction"))
        )
        error = float((item - back).square().mean())
        return join(
            [Markup('<div class="sides">{}</div>').format(sides), facts([("mean squared error", number(error))])]
        )

    def path(self, items: Tensor) -> Markup:
        """Show the steps in a row."""
        steps = join(
            Markup("<li>{}</li>").format(self._picture(each, 110, f"Step {i}")) for i, each in enumerate(items)
        )
        return Markup('<ol class="strip">{}</ol>').format(steps)

    def row(self, items: Tensor, captions: Sequence[str]) -> Markup:
        """Show a few images with captions."""
        figures = join(
            Markup("<figure>{}<figcaption>{}</figcaption></figure>").format(
                self._picture(each, SMALL, caption), caption
            )
            for each, caption in zip(items, captions, strict=True)
        )
        return Markup('<div class="few">{}</div>').format(figures)

    def nearest(self, item: Tensor, n: int) -> Neighbours:
        """Return the training images that are nearest pixel by pixel, by Euclidean distance."""
        return Neighbours("distance of pixels", *self._train.nearest(item.flatten(1), n))

    def files(self, items: Tensor, stem: str) -> list[File]:
        """Return a PNG, where there are channels to make one of, and uint8 pixels as .npy."""
        array = File(f"{stem}.npy", "application/octet-stream", lambda: npy(to_bytes(items)))
        if self.shape[0] not in (1, 3, 4):
            return [array]
        return [File(f"{stem}.png", "image/png", lambda: _png(grid(items), 6)), array]

    def _picture(self, image: Tensor, side: int, alt: str) -> Markup:
        if image.shape[0] not in (1, 3, 4):  # of other channels the mean is drawn
            image = image.mean(0, keepdim=True)
        picture = to_pil(image)
        style = "pixelated" if max(picture.size) <= PIXEL_ART else "smooth"
        scale = side / max(picture.size)
        if scale < 0.5:  # more detail would not be visible
            picture = picture.resize((round(2 * scale * picture.width), round(2 * scale * picture.height)))
        address = f"data:image/png;base64,{base64.b64encode(_png(picture, 1)).decode()}"
        width = round(side * picture.width / max(picture.size))
        return Markup('<img class="{}" src="{}" alt="{}" style="width:{}px">').format(style, address, alt, width)


def _png(picture: Image.Image, level: int) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, "PNG", compress_level=level)
    return buffer.getvalue()
