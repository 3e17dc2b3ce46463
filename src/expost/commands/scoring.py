"""Commands that score runs or any images, and that rank runs."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
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
from expost.errors import UsageError
from expost.evaluation.scores import FORMAT, Score, differences, saved_scores, score_from_json
from expost.utils.progress import say

if TYPE_CHECKING:
    from torch import Tensor

    from expost.data.examples import Preprocess
    from expost.evaluation.protocol import Protocol
    from expost.evaluation.ranking import Ranked
    from expost.generators.generator import Generator
    from expost.metrics import Space
    from expost.run import Run

#: Images of several sizes are made no larger: Inception's input.
LARGEST = 299


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
        densities: Which densities to sample from; default: the model's own (the paper's column N), and of the others
            that are fitted the one under which held-out codes are likeliest, gmm if there is none.
        measures: frechet (FID and its kin), kid, prd (F8 and F1/8), neighbours (precision, recall, density, coverage),
            mind (sliced Wasserstein, for few examples), vendi (variety), cmmd (Gaussian kernel), memorization (are
            samples copies?), latent (held-out log-likelihood, use of the code). Strings have others: properties (of
            molecules, or expressions), distance (Frechet ChemNet), regression (a Gaussian process on the codes),
            latent. Default: all.
        samples: Samples from each density; default: as many as there are test examples, at most 10,000.
        features: inception-2048 (FID) or inception-768 (FID-768), the same in bf16 (inception-2048-bf16,
            inception-768-bf16), dinov2, dinov2-s, dinov2-l, clip, clip-l-336 (photos of all kinds; large downloads),
            digits, pixels, onet (photos) or spoken-digits, which are bundled; or auto: Inception's if its weights are
            on this machine and there are enough test images, else the bundled ones that suit the data.
        method: Interpolation between codes: linear, linear-rescaled or spherical.
        bootstrap: Resamples for a 95 % interval of the Frechet distance, 100 for example; 0 for none.
        allow_few: Compute Frechet distances even from fewer examples than features.
        seed: Seed of samples, pairs, clusters, subsets, directions and resamples.
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
    names = densities or _usual(opened)
    subjects = (RECONSTRUCTION, *names, INTERPOLATION, CODES)
    scores = score_run(opened, subjects, features, protocol, device)
    from expost.report.verdict import symptoms

    for words, symptom in symptoms(scores):
        say(f"{words} (see {symptom.address})")
    return scores


def _usual(run: Run) -> tuple[str, ...]:
    """Return what is sampled from unless asked: the model's own density, and the best of the others that are fitted."""
    from expost.densities import usual_density
    from expost.generators.generator import own_densities

    own, *more = own_densities(run.config.model)
    others = {name: each for name, each in run.densities().items() if name != own}
    taken = usual_density(others)
    if taken is None:
        return (own, *more)
    if len(others) == 1:
        taken = replace(taken, why="the only other one fitted")
    say(f"beside {own}, the model's own, {taken.line}")
    return own, taken.name


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
    from expost.evaluation.held_out import Judge
    from expost.evaluation.protocol import Protocol
    from expost.evaluation.scoring import Request, scorer_of, stage_of
    from expost.utils.store import sealed, update_json

    path = run.folder / "metrics.json"
    _ = saved_scores(path)  # what is damaged is said before any work, and what cannot be written
    run.require_writable(path.name)
    data, protocol = run.data(), protocol or Protocol()
    stage = stage_of(run.config.model, subjects)
    score_with = scorer_of(Request(data, run.config.data.codec, features, protocol, device, stage))
    generator = run.generator(device)
    wanted = [name for name in dict.fromkeys((*subjects, *([stage] if stage else []))) if name in DENSITIES]
    missing = [name for name in wanted if name not in generator.densities or _cannot_encode(generator, name, stage)]
    codes = generator.encode(data.train.x) if missing else torch.empty(0)
    judge = Judge.of(generator, data) if missing else None
    for name in missing:
        options = prior_options(run, name)
        if name in generator.densities:
            options = generator.densities[name].options
            say(f"density {name} was saved without its encoder, through which it reconstructs; it is fitted again")
        if "seed" in inspect.signature(DENSITIES[name]).parameters:
            options.setdefault("seed", protocol.seed)
        fitted = generator.fit(name, codes=codes, **options)
        if judge is not None:
            judge.judge(fitted)
        run.save_density(name, fitted)
    scores = score_with(generator, subjects, generator.weights, "test")
    new, weights = [to_json(score) for score in scores], generator.weights
    # read again: another process may have scored meanwhile
    now = run.weights_hash()
    update_json(path, lambda _: sealed({"format": FORMAT, "scores": _merged(saved_scores(path), new, {weights, now})}))
    if now != weights:
        say(f"warning: {run.folder} was trained on meanwhile: these scores are of earlier weights; evaluate it again")
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
    of: str | None = None,
    ignoring: tuple[str, ...] = (),
) -> list[Ranked]:
    """Rank runs by a saved score, with ties; leave out, with the reason, runs that were scored in another way.

    A place is one more than the number of runs that are better beyond chance: the 95 % interval of the difference,
    paired by their common examples, does not reach 0. It is about these runs, not about training them again.

    Args:
        runs: Evaluated runs.
        score: Which score, for example fid or recall; default: the first that all runs have (for strings never validity
            or novelty, which a collapsed model wins).
        of: What was scored: reconstruction, interpolation, or a density; default: of each run, among the densities that
            it has scores of, the one under which held-out codes are likeliest.
        ignoring: Fields of the protocol that may differ, for example version.

    Returns:
        Runs with their scores and places, best first.
    """
    from expost.evaluation.ranking import comparable
    from expost.evaluation.ranking import rank as rank_scores
    from expost.run import open_run

    if not runs:
        raise UsageError("no runs to rank; give at least one")
    opened = {str(folder): open_run(folder) for folder in runs}
    saved = {
        label: [score_from_json(each, path) for path in (run.folder / "metrics.json",) for each in saved_scores(path)]
        for label, run in opened.items()
    }
    subjects = {label: of or _scored(opened[label], scores) for label, scores in saved.items()}
    if of is None:
        listing = {name: [label for label in saved if subjects[label] == name] for name in subjects.values()}
        each_of = "; ".join(f"{name} of {', '.join(labels)}" for name, labels in listing.items())
        best = each_of if len(listing) > 1 else next(iter(listing))
        say(f"ranked by samples of the best fitted density: {best}; --of names another")
    score = score or _first_in_common(saved, subjects)
    found: dict[str, Score] = {}
    lacking: dict[str, str] = {}
    for label, scores in saved.items():
        mine = [each for each in scores if each.of == subjects[label] and each.name == score]
        if mine:
            found[label] = mine[-1]
        else:
            lacking[label] = _lack(label, scores, score, subjects[label])
    if len(found) < min(len(runs), 2):
        raise UsageError(next(iter(lacking.values())))
    alike, odd = comparable(found, ignoring, {label: opened[label].config.model.shape for label in found})
    if odd and len(alike) < 2:
        label, reason = next(iter(odd.items()))
        raise UsageError(
            f"{next(iter(alike))} and {label} cannot be ranked by {score}: {reason}; evaluate both in the same way"
            + (f", or pass --ignoring {' '.join(_fields(odd, found, alike, ignoring))}" if "size" not in reason else "")
        )
    for label, reason in odd.items():
        say(f"{label} is left out: {reason}; evaluate it as the others")
    for reason in lacking.values():
        say(f"left out: {reason}")
    ranking = rank_scores(alike, ignoring)
    unknown = [each.label for each in ranking if each.score.uncertainty is None]
    if unknown and len(ranking) > 1:
        say(f"no standard error is saved for {', '.join(unknown)}: ties with them cannot be told; evaluate again")
    return ranking


def _scored(run: Run, scores: Sequence[Score]) -> str:
    """Return which density of a run is ranked unless asked: the best of those that it has scores of."""
    from expost.densities import DENSITIES, usual_density
    from expost.densities.choice import UNRECORDED

    names = [name for name in dict.fromkeys(each.of for each in scores) if name in DENSITIES]
    taken = usual_density({name: each for name, each in run.densities().items() if name in names})
    if taken is not None:
        return taken.name
    return UNRECORDED if UNRECORDED in names or not names else names[-1]


def _lack(label: str, scores: Sequence[Score], name: str, of: str) -> str:
    """Say that a run lacks a score, and what to do."""
    from expost.evaluation.catalog import DIRECTIONS, no_such_score

    mine = list(dict.fromkeys(each.name for each in scores if each.of == of))
    have = ", ".join(sorted({f"{each.name} of {each.of}" for each in scores})) or "none"
    if not mine and name in DIRECTIONS:
        return f"{label} has no {name} of {of}; run expost evaluate {label} first (it has: {have})"
    reason = no_such_score(name, mine)
    return (
        f"{label} has no {name} of {of} ({reason}); choose another --score, or evaluate it with other measures "
        f"(it has: {have})"
    )


def _fields(
    odd: Mapping[str, str], found: Mapping[str, Score], alike: Mapping[str, Score], ignoring: Sequence[str]
) -> list[str]:
    """Return the fields that would have to be ignored to rank the first odd run with the others."""
    (one, *_), (other, *_) = alike.values(), odd
    return [*ignoring, *differences(one.card, found[other].card, ignoring)]


def _ranks(name: str) -> bool:
    """Return whether a ranking may be by this score without being asked to."""
    from expost.evaluation.catalog import direction_of

    direction = direction_of(name)
    return direction.sign != 0 and not direction.gameable


def _first_in_common(saved: Mapping[str, Sequence[Score]], subjects: Mapping[str, str]) -> str:
    """Return the first score that all runs have and that has a preferred direction.

    Raises:
        UsageError: if there is none; the message names the first run that shares none with those before it.
    """
    names = {
        label: [each.name for each in scores if each.of == subjects[label] and _ranks(each.name)]
        for label, scores in saved.items()
    }
    first, *_ = names
    common = list(dict.fromkeys(names[first]))
    for label, mine in names.items():
        of = subjects[label]
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
    features: str = "auto",
    size: int | None = None,
    bootstrap: int = 0,
    allow_few: bool = False,
    seed: int = 0,
    device: str = "auto",
) -> list[Score]:
    """Score images of any origin, a folder or an array, against a data set.

    Images of several sizes are cut to their central squares and resized, in both sets alike: to --size, else to the
    shortest side of the reference's images, at most 299. Sets of one size each go to the features as they are.

    Args:
        samples: An image folder, or an .npy, .npz, parquet or IDX file; all its splits are taken together.
        reference: A data set's name, or a path.
        split: The split of the reference; a path without splits is taken whole.
        measures: frechet, kid, prd, neighbours, mind, vendi, cmmd.
        features: inception-2048 (FID) or inception-768 (FID-768), the same in bf16 (inception-2048-bf16,
            inception-768-bf16), dinov2, dinov2-s, dinov2-l, clip, clip-l-336 (photos of all kinds; large downloads),
            digits, pixels, onet (photos) or spoken-digits, which are bundled; or auto: Inception's if its weights are
            on this machine and there are enough images in both sets, else the bundled ones that suit the reference.
        size: Cut the largest central square out of each image of both sets, and resize it to this side, in pixels.
        bootstrap: Resamples for a 95 % interval of the Frechet distance; 0 for none.
        allow_few: Compute Frechet distances even from fewer examples than features.
        seed: Seed of clusters, subsets, directions and resamples.
        device: auto, cpu, cuda or mps.

    Returns:
        The scores, each with its protocol.
    """
    from expost.data import DATASETS, load_examples
    from expost.data.examples import Preprocess
    from expost.data.named_strings import STRING_DATASETS
    from expost.data.string_files import holds_strings
    from expost.evaluation.catalog import check_measures
    from expost.evaluation.evaluate import score_examples
    from expost.evaluation.protocol import Protocol, suitable_features
    from expost.examples import kind_of
    from expost.metrics import FEATURES, StandardizedValues
    from expost.metrics.measures import MEASURES
    from expost.training.devices import pick_device

    protocol = Protocol(measures, seed=seed, bootstrap=bootstrap, allow_few=allow_few)
    check_measures(measures, tuple(MEASURES))
    for what, path in (("samples", samples), ("reference", reference)):
        if path in STRING_DATASETS or holds_strings(Path(path)):
            raise UsageError(
                f"the {what}, {path}, are strings; expost score compares images and vectors, and strings are scored "
                "with their model: expost evaluate RUN"
            )
    if size is None:
        size = _common_side(samples, reference, split)
    prep = Preprocess(size=size)
    drawn = load_examples(samples, prep)
    against, name = _reference(reference, split, prep)
    if drawn.dim() == against.dim() == 2:
        drawn = _in_order(drawn, samples, reference)
    if drawn.dim() == against.dim() == 4 and drawn.shape[2:] != against.shape[2:]:
        sizes = " against ".join(f"{x.shape[3]} x {x.shape[2]}" for x in (drawn, against))
        say(f"images of {sizes}: the features resize each as they are; --size makes them equal before")
    space: Space
    if kind_of(drawn.shape[1:]).pixels:
        named = data_name(reference)
        bundled = DATASETS[named].features if named in DATASETS else "pixels"
        chosen = suitable_features(features, min(len(drawn), len(against)), bundled)
        space = FEATURES[chosen].load(pick_device(device))
    elif features != "auto":
        raise UsageError(f"features '{features}' are of images, and the samples are vectors; leave --features out")
    else:
        space = StandardizedValues(against, "reference")
    return score_examples(drawn, against, space, protocol, name)


def _reference(reference: str | Path, split: str, prep: Preprocess) -> tuple[Tensor, str]:
    """Load the split of a named data set or of a path, and return it with its name on the cards."""
    from expost.data import DATASETS, load_data, load_part

    if data_name(reference) in DATASETS:
        return getattr(load_data(data_name(reference), size=prep.size), split).x, f"{reference} {split}"
    against, part = load_part(reference, split, prep)
    return against, f"{reference} {part}".rstrip()


def _in_order(drawn: Tensor, samples: str | Path, reference: str | Path) -> Tensor:
    """Return rows of samples with their columns in the order of the reference's, by name where both have names.

    Raises:
        UsageError: if they have other columns.
    """
    from expost.data import DATASETS, load_data
    from expost.data.load import columns_of
    from expost.data.tables import differences, places

    named = data_name(reference)
    theirs = load_data(named).columns if named in DATASETS else columns_of(reference)
    mine = columns_of(samples)
    if not (mine and theirs) or mine == theirs:
        return drawn
    order = places(theirs, mine)
    if order is None:
        raise UsageError(f"{samples} has other columns than {reference}: it {differences(theirs, mine)}")
    return drawn[:, list(order)]


def _common_side(samples: str | Path, reference: str | Path, split: str) -> int | None:
    """Return the side for images of several sizes, by the reference alone so that other samples compare, and say it.

    None where each set has one size.
    """
    from expost.data import DATASETS, shortest_side
    from expost.data.examples import Preprocess

    side = None if data_name(reference) in DATASETS else shortest_side(reference, split)
    if side is None:
        if shortest_side(samples) is None:
            return None
        side = min(_reference(reference, split, Preprocess())[0].shape[2:], default=0)
        if not side:  # of vectors, which are refused beside images
            return None
    side = min(side, LARGEST)
    say(
        f"images of several sizes: the central square of each is resized to {side} x {side}, after the shortest side "
        f"of the reference (at most {LARGEST}); --size sets another"
    )
    return side


def _merged(old: list[dict[str, Any]], fresh: list[dict[str, Any]], models: Collection[str]) -> list[dict[str, Any]]:
    """Return old and fresh scores, without old ones that were recomputed or belong to other weights."""
    done = [(each["name"], each["of"], each["card"]) for each in fresh]
    kept = [s for s in old if (s["name"], s["of"], s["card"]) not in done and s["card"].get("model") in models]
    return kept + fresh
