"""Stage `zinc`: the grammar autoencoder with the paper's networks and with ours, as many epochs as fit."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator
from functools import partial

from expost.commands import score_run
from expost.data.drugs import DRUGS
from expost.data.named_strings import STRING_DATASETS
from expost.evaluation.protocol import RECONSTRUCTION, Protocol
from expost.run import Run
from gpu_stages.bench import Bench, LeaveOut, Stage, Unit
from gpu_stages.trained import progress, train_until

#: The data set.
ZINC = "zinc250k"
#: Presets: the paper's networks, and ours.
PRESETS = ("paper", "small")
#: Scoring 1,000 samples of each density, in seconds; and what training is given at least.
SCORING, LEAST = 60.0, 60.0
#: What a run of an hour's length gets of the time that is left, so that the second gets something too.
HALF = 0.5


def units(bench: Bench) -> Iterator[Unit]:
    """Yield a unit for each preset."""
    data, limit = ZINC, 300 if bench.tiny else None
    if STRING_DATASETS[ZINC].origin.find(ZINC) is None:
        if not bench.tiny:
            raise LeaveOut(f"{ZINC} is not on this machine; put it into EXPOST_DATA/{ZINC}")
        path = bench.work / "tiny-zinc.smi"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(smiles for _, smiles in DRUGS) + "\n", encoding="utf-8")
        data = str(path)
    for preset in PRESETS:
        work = partial(_train, data=data, limit=limit, preset=preset)
        yield Unit(f"grae, {preset}", work, 5.0 if bench.tiny else SCORING + LEAST)


def _train(bench: Bench, data: str, limit: int | None, preset: str) -> bool:
    """Train as far as the time goes, and count valid molecules."""
    folder = bench.work / "runs" / f"zinc-grae-{preset}"
    share = HALF if preset == PRESETS[0] else 1.0
    ends = time.time() + (bench.left - SCORING * (not bench.tiny)) * share
    before, device = progress(folder), str(bench.device)
    sizes = {"width": 8, "epochs": 1, "limit": limit} if bench.tiny else {}
    precision = bench.precision if preset == "small" else "float32"  # cuDNN's recurrent layers, as published
    now = train_until(ends, "grae", data, folder, preset=preset, precision=precision, device=device, **sizes)
    settings = {"model": "grae", "preset": preset, "epochs": now.epochs, "of": now.of, "precision": precision}
    if not now.epochs:
        bench.figure("no epoch was finished", None, "", **settings)
        return False
    if now.epochs > before.epochs:
        epoch = (now.seconds - before.seconds) / (now.epochs - before.epochs)
        bench.figure("an epoch", epoch, "s", **settings)
        bench.figure("training", now.seconds, "s", **settings)
    if importlib.util.find_spec("rdkit") is None:
        raise LeaveOut("validity needs RDKit, which is not installed here")
    started = time.time()
    protocol = Protocol(("latent",), samples=16 if bench.tiny else 1_000)
    for score in score_run(Run.open(folder), (RECONSTRUCTION, "gaussian", "gmm"), "auto", protocol, device):
        bench.figure(f"{score.of}, {score.name}", score.value, "", **settings, strings=score.card.count)
    samples = Run.open(folder).string_generator(device).sample(4 if bench.tiny else 100, "gmm", seed=0)
    text = "\n".join(str(sample) for sample in samples)
    (bench.out / f"zinc-{preset}.txt").write_text(f"{settings}\n{text}\n", encoding="utf-8")
    bench.figure("scoring", time.time() - started, "s", preset=preset)
    return now.whole


def expected(bench: Bench) -> float:
    """Return what it is given at least."""
    return 10.0 if bench.tiny else 2 * (SCORING + LEAST)


STAGE = Stage(
    "zinc", "grae on zinc250k with the paper's networks and with ours, as many epochs as fit", units, expected
)
