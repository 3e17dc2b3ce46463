"""Commands that score runs or any images, and that rank runs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from expost.commands.arguments import (
    DataLike,
    RunLike,
    data_name,
    prior_options,
    together,
)
from expost.commands.groups import takes
from expost.config import to_json
from expost.errors import DataError, UsageError
from expost.evaluation.scores import Score, score_from_json
from expost.utils.progress import say

if TYPE_CHECKING:
    from expost.evaluation.protocol import Protocol
    from expost.generators.generator import Generator
    from expost.metrics import Space
    from expost.run import Run


@takes()
def evaluate(
    run: RunLike,
    densities: tuple[str, ...] = (),
    measures: tuple[str, ...] = (),
    samples: int | None = None,
    features: str = "auto",
    method: str = "linear",
    bootstrap: int = 0,
    allow_few: bool = False,
    seed: int = 0,
    device: str = "auto",
) -> list[Score]:
    """Score reconstructions, samples, interpolations and codes against the test split, and save the scores.

    Densities that are not fitted yet are fitted first.

    Args:
        run: The run.
        densities: Which densities to sample from; default: the model's own (the paper's column N) and gmm.
        measures: frechet (FID and its kin), kid, prd (F8 and F1/8), neighbours (precision, recall, density, coverage),
            memorization (are samples copies?), latent (held-out log-likelihood, use of the code). Strings have
            others: properties (of molecules, or expressions), distance (Frechet ChemNet), regression (a Gaussian
            process on the codes), latent. Default: all.
        samples: Samples from each density; default: as many as there are test examples, at most 10,000.
        features: inception-2048 (FID) or inception-768 (FID-768), the same in bf16 (inception-2048-bf16,
            inception-768-bf16), digits, or pixels; or auto: Inception's if its weights are on this machine and there
            are enough test images, else the bundled ones that suit the data.
        method: Interpolation between codes: linear, linear-rescaled or spherical.
        bootstrap: Resamples for a 95 % interval of the Frechet distance, 100 for example; 0 for none.
        allow_few: Compute Frechet distances even from fewer examples than features.
        seed: Seed of samples, pairs, clusters, subsets and resamples.
        device: auto, cpu, cuda or mps.

    Returns:
        The scores, each with its protocol.
    """
    from expost.densities import DENSITIES
    from expost.evaluation.protocol import CODES, INTERPOLATION, RECONSTRUCTION, Protocol
    from expost.run import open_run

    protocol = Protocol(measures, samples, method, seed, bootstrap, allow_few)
    opened = open_run(run)
    for name in densities:
        _ = DENSITIES[name]
    prior = opened.config.model.prior
    names = densities or (() if prior is None else tuple(dict.fromkeys((prior.name, "gmm"))))
    subjects = (RECONSTRUCTION, *names, INTERPOLATION, *([] if prior is None else [CODES]))
    return score_run(opened, subjects, features, protocol, device)


@together
def score_run(
    run: Run, subjects: Sequence[str], features: str = "auto", protocol: Protocol | None = None, device: str = "auto"
) -> list[Score]:
    """Score a run, and save the scores with it; densities that are not fitted yet are fitted first.

    Args:
        run: The run.
        subjects: "reconstruction", "interpolation", "codes", and names of densities.
        features: As `evaluate` takes them.
        protocol: What to compute, and how.
        device: Where.
    """
    import torch

    from expost.densities import DENSITIES
    from expost.evaluation.protocol import Protocol
    from expost.evaluation.scoring import Request, scorer_of, stage_of
    from expost.utils.store import update_json

    path = run.folder / "metrics.json"
    _ = saved_scores(path)  # what is damaged is said before any work
    data, protocol = run.data(), protocol or Protocol()
    stage = stage_of(run.config.model, subjects)
    score_with = scorer_of(Request(data, run.config.data.codec, features, protocol, device, stage))
    generator = run.generator(device)
    wanted = [name for name in dict.fromkeys((*subjects, *([stage] if stage else []))) if name in DENSITIES]
    missing = [name for name in wanted if name not in generator.densities or _cannot_encode(generator, name, stage)]
    codes = generator.encode(data.train.x) if missing else torch.empty(0)
    for name in missing:
        options = prior_options(run, name)
        if name in generator.densities:
            options = generator.densities[name].options
            say(f"density {name} was saved without its encoder, through which it reconstructs; it is fitted again")
        if "seed" in inspect.signature(DENSITIES[name]).parameters:
            options.setdefault("seed", protocol.seed)
        run.save_density(name, generator.fit(name, codes=codes, **options))
    scores = score_with(generator, subjects, run.weights_hash(), "test")
    new, weights = [to_json(score) for score in scores], run.weights_hash()
    # read again: another process may have scored meanwhile
    update_json(path, lambda _: {"format": 1, "scores": _merged(saved_scores(path), new, weights)})
    return scores


def _cannot_encode(generator: Generator, name: str, stage: str | None) -> bool:
    """Return whether a fitted second stage is of a version that did not keep its encoder."""
    from expost.densities.staged import StagedDensity

    density = generator.densities[name]
    return name == stage and isinstance(density, StagedDensity) and not density.encodes


@takes()
def rank(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN")],
    score: str | None = None,
    of: str = "gmm",
    ignoring: tuple[str, ...] = (),
) -> list[tuple[str, Score]]:
    """Rank runs by a saved score; refuse if they were not scored in the same way.

    Args:
        runs: Evaluated runs.
        score: Which score, for example fid or recall; default: the first that all runs have (for strings never validity
            or novelty, which a collapsed model wins).
        of: What was scored: reconstruction, interpolation, or a density.
        ignoring: Fields of the protocol that may differ, for example version.

    Returns:
        Runs with their scores, best first.
    """
    from expost.evaluation.ranking import rank as rank_scores
    from expost.run import open_run

    if not runs:
        raise UsageError("no runs to rank; give at least one")
    saved = {
        str(folder): [score_from_json(each) for each in saved_scores(open_run(folder).folder / "metrics.json")]
        for folder in runs
    }
    score = score or _first_in_common(saved, of)
    found: dict[str, Score] = {}
    for label, scores in saved.items():
        mine = [each for each in scores if each.of == of and each.name == score]
        if not mine:
            have = ", ".join(sorted({f"{each.name} of {each.of}" for each in scores})) or "none"
            remedy = f"run expost evaluate {label} first"
            if any(each.of == of for each in scores):  # then the same once more would not help
                remedy = "choose another --score, or evaluate it with other measures"
            raise UsageError(f"{label} has no {score} of {of}; {remedy} (it has: {have})")
        found[label] = mine[-1]
    return rank_scores(found, ignoring)


def _ranks(name: str) -> bool:
    """Return whether a ranking may be by this score without being asked to."""
    from expost.evaluation.ranking import direction_of

    direction = direction_of(name)
    return direction.sign != 0 and not direction.gameable


def _first_in_common(saved: Mapping[str, Sequence[Score]], of: str) -> str:
    """Return the first score that all runs have and that has a preferred direction.

    Raises:
        UsageError: if there is none; the message names the first run that shares none with those before it.
    """
    names = {label: [s.name for s in scores if s.of == of and _ranks(s.name)] for label, scores in saved.items()}
    first, *_ = names
    common = list(dict.fromkeys(names[first]))
    for label, mine in names.items():
        if not mine:
            raise UsageError(f"{label} has no score of {of} to rank by; run: expost evaluate {label}")
        if not any(name in mine for name in common):
            have = f"{', '.join(common)}, against {', '.join(dict.fromkeys(mine))}"
            raise UsageError(f"{label} has no score of {of} in common with the runs before it ({have}); evaluate alike")
        common = [name for name in common if name in mine]
    return common[0]


@takes()
def score(
    samples: Annotated[DataLike, tyro.conf.Positional],
    reference: DataLike,
    split: Literal["train", "validation", "test"] = "test",
    measures: tuple[str, ...] = (),
    features: str = "inception-2048",
    bootstrap: int = 0,
    allow_few: bool = False,
    seed: int = 0,
    device: str = "auto",
) -> list[Score]:
    """Score images of any origin, a folder or an array, against a data set.

    Args:
        samples: An image folder, or an .npy, .npz, parquet or IDX file; all its splits are taken together.
        reference: A data set's name, or a path.
        split: The split of the reference; a path without splits is taken whole.
        measures: frechet, kid, prd or neighbours; default: all.
        features: inception-2048 (FID) or inception-768 (FID-768), the same in bf16 (inception-2048-bf16,
            inception-768-bf16), digits, or pixels.
        bootstrap: Resamples for a 95 % interval of the Frechet distance; 0 for none.
        allow_few: Compute Frechet distances even from fewer examples than features.
        seed: Seed of clusters, subsets and resamples.
        device: auto, cpu, cuda or mps.

    Returns:
        The scores, each with its protocol.
    """
    from expost.data import DATASETS, load_data, load_examples, load_part
    from expost.evaluation.evaluate import score_examples
    from expost.evaluation.protocol import Protocol
    from expost.examples import kind_of
    from expost.metrics import FEATURES, StandardizedValues
    from expost.metrics.measures import MEASURES
    from expost.training.devices import pick_device

    protocol = Protocol(measures or tuple(MEASURES), seed=seed, bootstrap=bootstrap, allow_few=allow_few)
    drawn = load_examples(samples)
    if data_name(reference) in DATASETS:
        against, name = getattr(load_data(data_name(reference)), split).x, f"{reference} {split}"
    else:
        against, part = load_part(reference, split)
        name = f"{reference} {part}".rstrip()
    space: Space
    if kind_of(drawn.shape[1:]).pixels:
        space = FEATURES[features].load(pick_device(device))
    else:
        space = StandardizedValues(against, "reference")
    return score_examples(drawn, against, space, protocol, name)


def saved_scores(path: Path) -> list[dict[str, Any]]:
    """Return what a run's `metrics.json` holds, nothing if there is none.

    Raises:
        DataError: if it holds something else.
    """
    from expost.utils.store import read_json

    if not path.exists():
        return []
    record = read_json(path)
    scores = record.get("scores") if isinstance(record, dict) else None
    if not isinstance(scores, list) or not all(
        isinstance(s, dict) and {"name", "of", "card"} <= s.keys() for s in scores
    ):
        raise DataError(f"{path} does not hold scores; move it away to evaluate anew")
    return scores


def _merged(old: list[dict[str, Any]], fresh: list[dict[str, Any]], model: str) -> list[dict[str, Any]]:
    """Return old and fresh scores, without old ones that were recomputed or belong to other weights."""
    done = [(each["name"], each["of"], each["card"]) for each in fresh]
    kept = [s for s in old if (s["name"], s["of"], s["card"]) not in done and s["card"].get("model") == model]
    return kept + fresh
