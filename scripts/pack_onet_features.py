"""Pack the first three convolutions of MTCNN's output network, for `expost.metrics.onet`.

The weights are those of the wheel facenet-pytorch 2.6.0 (MIT), which `pip download --no-deps facenet-pytorch==2.6.0`
fetches. Its package itself needs an old torch, so the layers are kept here, without the rest.

    python scripts/pack_onet_features.py facenet_pytorch-2.6.0-py3-none-any.whl
"""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

import torch

from expost.metrics.onet import WEIGHTS
from expost.utils.store import write_tensors


def main(wheel: Path) -> None:
    """Write the weights beside the module that reads them."""
    with zipfile.ZipFile(wheel) as archive:
        state = torch.load(io.BytesIO(archive.read("facenet_pytorch/data/onet.pt")), weights_only=True)
    wanted = [f"{layer}{number}" for number in (1, 2, 3) for layer in ("conv", "prelu")]
    chosen = {name: value.float().contiguous() for name, value in state.items() if name.partition(".")[0] in wanted}
    write_tensors(WEIGHTS, chosen, {"from": "facenet-pytorch 2.6.0, onet.pt", "license": "MIT"})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
