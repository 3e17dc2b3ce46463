"""Make the small run folders of this version that later ones must still read (tests/reliability/test_compatibility.py).

python scripts/run_fixture.py tests/reliability/run_folders/format-N

Run it, with the released version installed, at the first release of a format.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from torch import Tensor

import expost
import expost.search
from expost.densities import TractableDensity
from expost.utils.store import write_tensors

SMALL: dict[str, Any] = {"width": 8, "latent_dim": 2, "tensorboard": False, "device": "cpu"}
OPTIONS: dict[str, dict[str, Any]] = {
    "gmm": {"components": 2},
    "second-stage-vae": {"options": {"epochs": 2, "width": 8}},
}


def record(folder: Path) -> None:
    """Write what this version computes from the folder: `expected.json`."""
    run = expost.Run.open(folder)
    generator, x = run.generator("cpu"), run.data().test.x[:4]
    z = generator.encode(x)
    densities = {name: d for name, d in generator.densities.items() if isinstance(d, TractableDensity)}
    found = {
        "codes": z.tolist(),
        "decoded": generator.decode(z).flatten(1)[:, :8].tolist(),
        "log_prob": {name: density.log_prob(z).tolist() for name, density in densities.items()},
    }
    (folder / "expected.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def search(run: expost.Run) -> None:
    """Search for a round, and keep what the search began with: a later machine's codes differ by rounding."""
    search, began = expost.search.optimize, run.folder / "began_with.safetensors"

    def noting(codes: Tensor, scores: Tensor, *rest: Any) -> Any:
        write_tensors(began, {"codes": codes, "scores": scores})
        return search(codes, scores, *rest)

    expost.search.optimize = noting
    expost.optimize(run, rounds=1, batch=2, decodes=2, inducing=4, region="box")


def main(folder: Path) -> int:
    """Make a run of vectors and one of strings, with every kind of file."""
    run = expost.train("rae-l2", "digits", folder / "vectors", limit=300, batch_size=20, epochs=6, **SMALL)
    for name in ("gaussian", "gmm", "second-stage-vae"):
        expost.fit(run, name, **OPTIONS.get(name, {}))
    expost.fit(run, "gaussian", by="label")
    expost.evaluate(run, ("gmm",), features="pixels", allow_few=True, samples=20)
    strings = expost.train("gvae", "expressions", folder / "strings", limit=300, batch_size=20, epochs=6, **SMALL)
    expost.fit(strings, "gaussian")
    expost.evaluate(strings, samples=8)
    search(strings)
    for path in [*folder.rglob("*.lock"), *folder.rglob("best.png")]:
        path.unlink()  # what says nothing to a later version
    for kind in ("vectors", "strings"):
        record(folder / kind)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
