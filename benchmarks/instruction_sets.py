"""How far the same seed drifts between instruction sets of one machine: weights, codes and scores of a small training.

python benchmarks/instruction_sets.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

import expost
from expost.utils.store import read_tensors

#: What torch and oneDNN are told; the last is what torch does without either.
SETS: dict[str, dict[str, str]] = {
    "this machine's": {},
    "again": {},
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "none beyond SSE": {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    },
}
#: Small trainings by name: data and options.
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "vectors": ("digits", {"width": 64, "epochs": 20, "latent_dim": 8}),
    "convolutions": ("mnist-5k", {"width": 8, "epochs": 3, "latent_dim": 8, "limit": 1000}),
}


def train(folder: Path) -> None:
    """Train the runs, and write their scores."""
    for name, (data, options) in RUNS.items():
        run = expost.train(
            "rae-l2", data, folder / name, precision="float32", device="cpu", tensorboard=False, **options
        )
        scores = expost.evaluate(run, ("gmm",), features="pixels", allow_few=True, measures=("frechet",))
        found = {f"{score.name} of {score.of}": [score.value, score.error] for score in scores}
        (folder / f"{name}.json").write_text(json.dumps(found), encoding="utf-8")


def drift(one: Path, other: Path, name: str) -> tuple[float, float, float]:
    """Return the largest and the mean difference of weights, and the largest of scores.

    Returns:
        Differences of weights relative to the mean absolute weight of the tensor, and of scores in standard errors.
    """
    a, b = (read_tensors(folder / name / "model.safetensors")[0] for folder in (one, other))
    far = torch.cat(
        [
            ((a[key] - b[key]).abs() / a[key].abs().mean().clamp_min(1e-12)).flatten()
            for key in a
            if a[key].is_floating_point()
        ]
    )
    scores = [json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for folder in (one, other)]
    moved = [abs(value - scores[1][key][0]) / error for key, (value, error) in scores[0].items() if error]
    return float(far.max()), float(far.mean()), max(moved)


def main() -> int:
    """Print the table."""
    with tempfile.TemporaryDirectory() as temporary:
        folders = {name: Path(temporary) / str(number) for number, name in enumerate(SETS)}
        for name, settings in SETS.items():
            folders[name].mkdir()
            command = [sys.executable, __file__, str(folders[name])]
            subprocess.run(command, env=os.environ | settings, check=True, stderr=subprocess.DEVNULL)
        print(
            f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads\n"
        )
        print("| instructions | training | largest difference of a weight | mean | scores, in standard errors |")
        print("|---|---|---|---|---|")
        first, *others = SETS
        for other in others:
            for name in RUNS:
                largest, mean, moved = drift(folders[first], folders[other], name)
                print(f"| {other} | {name} | {largest:.2g} | {mean:.2g} | {moved:.2g} |")
    return 0


if __name__ == "__main__":
    if len(sys.argv) > 1:
        train(Path(sys.argv[1]))
    else:
        sys.exit(main())
