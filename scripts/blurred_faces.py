"""Which bundled features tell blurred faces from sharp ones: the Frechet distance of each radius over that of none.

python scripts/blurred_faces.py --features pixels onet --count 1000 --draws 3
python scripts/blurred_faces.py --features inception-768 --count 300 --draws 1
"""

from __future__ import annotations

import numpy as np
import torch
import tyro
from PIL import Image, ImageFilter

from expost.data import load_data
from expost.metrics import FEATURES, Statistics, frechet_distance


def blurred(images: torch.Tensor, radius: float) -> torch.Tensor:
    """Return images (N, 3, H, W), uint8, through a Gaussian filter of this standard deviation, in pixels."""
    if not radius:
        return images
    filtered = [
        np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))
        for image in images.movedim(1, -1).numpy()
    ]
    return torch.from_numpy(np.stack(filtered)).movedim(-1, 1)


def main(
    data: str = "faces64",
    features: tuple[str, ...] = ("pixels", "onet"),
    radii: tuple[float, ...] = (0.5, 1.0, 2.0),
    count: int = 1000,
    draws: int = 3,
) -> None:
    """Print a Markdown table: the distance of blurred faces from others, relative to that of sharp ones.

    Args:
        data: Name of a data set of photos.
        features: Entries of `FEATURES`.
        radii: Standard deviations of the filter, in pixels.
        count: Images of either side.
        draws: Draws of both sides; the least and the largest ratio are printed.
    """
    images = load_data(data).train.x
    print(f"| radius | {' | '.join(features)} |\n|---{'|---' * len(features)}|")
    for radius in radii:
        cells = []
        for name in features:
            space = FEATURES[name].load("cpu")
            ratios = []
            for draw in range(draws):
                order = torch.randperm(len(images), generator=torch.Generator().manual_seed(draw))
                reference, faces = images[order[:count]], images[order[count : 2 * count]]
                against = Statistics.of(space(reference))
                sharp, soft = (
                    frechet_distance(against, Statistics.of(space(blurred(faces, each)))) for each in (0.0, radius)
                )
                ratios.append(soft / sharp)
            cells.append(f"{min(ratios):.3g} to {max(ratios):.3g}")
        print(f"| {radius:g} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
