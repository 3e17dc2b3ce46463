"""The commands, as Python functions with the same names and options as on the command line.

Each takes a run folder (or an open `Run`), does one thing, and returns its result; nothing is printed on stdout.
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from torch import Tensor, nn

from expost import __version__, pictures
from expost.config import DataConfig, Precision, RunConfig, to_json
from expost.data import DATASETS, load_data, load_examples
from expost.densities import DENSITIES
from expost.errors import DataError, UsageError
from expost.evaluation import (
    ALL_MEASURES,
    CODES,
    INTERPOLATION,
    RECONSTRUCTION,
    Protocol,
    evaluate_generator,
    pick_space,
    score_examples,
)
from expost.interpolation import INTERPOLATIONS
from expost.metrics import FEATURES, Space, StandardizedValues
from expost.metrics.measures import MEASURES
from expost.outputs import check_output, write_examples
from expost.presets import PRESETS, configure
from expost.registry import Part, construct
from expost.run import Run, load
from expost.scores import Score, score_from_json
from expost.scores import rank as rank_scores
from expost.store import read_json, write_json
from expost.training import pick_device
from expost.types import Split
from expost.zoo import ZOO

#: A run: its folder, or an open `Run`.
RunLike = Annotated[Run | Path | str, tyro.conf.Positional, tyro.conf.arg(constructor=Path, metavar="RUN")]
#: A data set: its name, or a path.
DataLike = Annotated[str | Path, tyro.conf.arg(constructor=str, metavar="NAME|PATH")]
#: An output: a file or a folder.
Output = Annotated[Path | str, tyro.conf.arg(constructor=Path, metavar="PATH")]
#: Options that have no name of their own, as NAME=VALUE.
Options = Annotated[tuple[str, ...], tyro.conf.arg(name="set", metavar="NAME=VALUE")]
Count = Annotated[int, tyro.conf.arg(aliases=["-n"])]
Networks = Annotated[tuple[nn.Module, nn.Module] | None, tyro.conf.Suppress]


def train(
    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")],
    data: DataLike,
    out: Output,
    preset: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    latent_dim: int | None = None,
    width: int | None = None,
    network: str | None = None,
    beta: float | None = None,
    regularizer_weight: float | None = None,
    seed: int | None = None,
    device: str | None = None,
    precision: Precision | None = None,
    size: int | None = None,
    limit: int | None = None,
    options: Options = (),
    tensorboard: bool = True,
    resume: bool = False,
    dry_run: bool = False,
    networks: Networks = None,
) -> Run:
    """Train a model of the zoo; the best weights on validation data are kept.

    Args:
        model: A row of the zoo, for example rae-l2; see `expost zoo`.
        data: A data set's name, or the path of an image folder or an .npz, .npy, .csv, parquet or IDX file.
        out: The run's folder, new or empty.
        preset: Where all the defaults below come from: small (for 2 cores; taken unless given) or paper (for a GPU).
            --dry-run prints what they come to.
        epochs: Passes over the training set.
        batch_size: Examples per step.
        lr: Initial learning rate.
        latent_dim: Dimension of the code.
        width: Channels of the first convolution, or units of a hidden layer.
        network: conv4, conv5 or mlp.
        beta: Weight of the latent penalty, in the paper's form (sums over an example, means over the batch).
        regularizer_weight: Weight lambda of the decoder regularizer, in the same form.
        seed: Seeds weights (of built-in networks), order and noise.
        device: auto, cpu, cuda or mps.
        precision: float32 or bf16.
        size: Side to which images are brought.
        limit: Use at most this many examples of each split.
        options: Options of the model's slots, for example regularizer.scope=both (rae-sn) or latent.sigma=0.5 (cv-vae).
        tensorboard: TensorBoard files are written, unless --no-tensorboard is given.
        resume: Go on with the run in `out`; its saved configuration rules, and only --epochs may grow.
        dry_run: Resolve and check the configuration, print it, and stop.
        networks: Own encoder and decoder modules (Python only).

    Returns:
        The run; after a dry run nothing of it is on disk.
    """
    training_options: dict[str, Any] = {
        "epochs": epochs, "batch_size": batch_size, "lr": lr, "seed": seed, "device": device,
        "precision": precision,
    }  # fmt: skip
    model_options: dict[str, Any] = {
        "latent_dim": latent_dim, "width": width, "network": network, "beta": beta,
        "regularizer_weight": regularizer_weight,
    }  # fmt: skip
    _ = ZOO[model], PRESETS[preset or "small"]  # unknown names are refused before any data is read
    slots = parse_options(options)
    if resume:
        asked: dict[str, Any] = {"model.name": model, "data.name": data_name(data), "preset": preset}
        asked |= {"data.size": size, "data.limit": limit}
        asked |= {f"training.{key}": value for key, value in training_options.items()}
        asked |= {f"model.{key}": value for key, value in model_options.items()}
        return _resume(Run.open(out, networks), asked, slots, dry_run)
    examples, data_config = load(DataConfig(data_name(data), size=size, limit=limit))
    training_options["tensorboard"] = tensorboard
    own = networks is not None
    config, training = configure(
        model, examples.shape, preset or "small", model_options, training_options, slots, own_networks=own
    )
    run = Run(Path(out), RunConfig(config, training, data_config, preset or "small", __version__, own), networks)
    run.fresh_model()  # what cannot work is refused before anything is written
    pick_device(training.device)
    if dry_run:
        return replace(run, dry=True)
    run.start()
    run.train(examples)
    return run


def data_name(data: str | Path) -> str:
    """Return a data set's name as it is, and a path in full, so that the run finds it from any working directory."""
    if isinstance(data, str) and data in DATASETS:
        return data
    path = Path(os.path.expanduser(data))  # Path.expanduser fails for an unknown user
    return str(path.resolve()) if path.exists() else str(data)


def _resume(run: Run, asked: dict[str, Any], slots: Mapping[str, Any], dry_run: bool) -> Run:
    saved = to_json(run.config)
    epochs = asked.pop("training.epochs")
    for key, value in asked.items():
        part, _, name = key.partition(".")
        old = saved[part][name] if name else saved[part]
        _refuse_change(run, key, old, value if value is not None else old)
    for key, value in slots.items():
        slot, _, option = key.partition(".")
        _refuse_change(run, key, saved["model"].get(slot, {}).get("options", {}).get(option), value)
    if epochs is not None and epochs < run.config.training.epochs:
        _refuse_change(run, "training.epochs", run.config.training.epochs, epochs)
    run = run.with_epochs(epochs or run.config.training.epochs)
    if dry_run:
        return replace(run, dry=True)
    examples = run.data()
    run.save_config()
    run.train(examples)
    return run


def _refuse_change(run: Run, key: str, old: Any, new: Any) -> None:
    if new != old:
        raise UsageError(f"{run.folder} was trained with {key} {old}, not {new}; drop that option, or start a new run")


def fit(
    run: RunLike,
    density: str,
    components: int | None = None,
    options: Options = (),
    device: str = "auto",
) -> Path:
    """Fit a density on the codes of the run's training set, and save it with the run.

    Args:
        run: The run.
        density: standard-normal, gaussian, gmm, bayesian-gmm, kde or second-stage-vae.
        components: Components of a mixture; 10 unless given.
        options: Other options of the density, for example covariance=diag.
        device: auto, cpu, cuda or mps.

    Returns:
        Where it was saved.
    """
    opened = _open(run)
    given = _prior_options(opened, density) | parse_options(options)
    if components is not None:
        given["components"] = components
    construct(DENSITIES, Part(density, given))  # wrong words are refused before the codes are computed
    generator = opened.generator(device)
    return opened.save_density(density, generator.fit(density, opened.data().train.x, **given))


def sample(
    run: RunLike,
    n: Count = 64,
    out: Output = Path("samples.png"),
    density: str | None = None,
    seed: int = 0,
    device: str = "auto",
) -> Path:
    """Draw from a fitted density and decode.

    Args:
        run: The run.
        n: How many samples.
        out: FILE.png (or .jpg, .webp: a grid), FILE.npy (uint8 images N x C x H x W, or float32 vectors), or a folder
            (an image a sample).
        density: A fitted density; gmm if it is fitted, else the other one.
        seed: Seeds the draws.
        device: auto, cpu, cuda or mps.

    Returns:
        Where the samples are.
    """
    path = check_output(Path(out))
    generator = _open(run).generator(device)
    write_examples(generator.sample(n, density, seed), path)
    return path


def reconstruct(run: RunLike, out: Output, n: Count = 40, device: str = "auto") -> Path:
    """Draw test images in rows, and below each row its reconstructions.

    Args:
        run: The run.
        out: FILE.png.
        n: How many test images.
        device: auto, cpu, cuda or mps.

    Returns:
        Where the picture is.
    """
    path = check_output(Path(out), pictures_only=True)
    opened = _open(run)
    x = _first(opened.data().test, n)
    pictures.save_picture(pictures.pairs(x, pictures.to_bytes(opened.generator(device).reconstruct(x)), 10), path)
    return path


def interpolate(
    run: RunLike,
    out: Output,
    method: str = "linear",
    n: Count = 8,
    steps: int = 10,
    seed: int = 0,
    device: str = "auto",
) -> Path:
    """Draw paths between the codes of random pairs of test images, a row each.

    Args:
        run: The run.
        out: FILE.png.
        method: linear, linear-rescaled or spherical.
        n: How many pairs.
        steps: Images in a row, both ends included.
        seed: Seeds the choice of pairs.
        device: auto, cpu, cuda or mps.

    Returns:
        Where the picture is.
    """
    path = check_output(Path(out), pictures_only=True)
    _ = INTERPOLATIONS[method]
    if steps < 2:
        raise UsageError(f"steps is {steps}; a path has at least its 2 ends")
    opened = _open(run)
    x = opened.data().test.x
    chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    half = min(max(n, 1), len(x) // 2)
    a, b = x[chosen[:half]], x[chosen[half : 2 * half]]
    rows = opened.generator(device).interpolate(a, b, torch.linspace(0, 1, steps), method)
    pictures.save_picture(pictures.grid(rows.flatten(0, 1), steps), path)
    return path


def evaluate(
    run: RunLike,
    densities: tuple[str, ...] = (),
    measures: tuple[str, ...] = ALL_MEASURES,
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
        densities: Which densities to sample from; unless given, the model's own (the paper's column N) and gmm.
        measures: frechet (FID and its kin), kid, prd (F8 and F1/8), neighbours (precision, recall, density, coverage),
            memorization (are samples copies?), latent (held-out log-likelihood, use of the code); unless given, all.
        samples: Samples from each density; unless given, as many as there are test images, at most 10,000.
        features: inception-2048 (FID), inception-768 (FID-768), either with -bf16, digits, pixels; or auto: Inception's
            if its weights are on this machine and there are enough test images, else the bundled ones that suit the
            data.
        method: Interpolation between codes: linear, linear-rescaled or spherical.
        bootstrap: Resamples for a 95 % interval of the Frechet distance, 100 for example; 0 for none.
        allow_few: Take fewer examples than features all the same.
        seed: Seeds samples, pairs, clusters, subsets and resamples.
        device: auto, cpu, cuda or mps.

    Returns:
        The scores, each with its protocol.
    """
    protocol = Protocol(measures, samples, method, seed, bootstrap, allow_few)
    opened = _open(run)
    for name in densities:
        _ = DENSITIES[name]
    prior = opened.config.model.prior
    names = densities or (() if prior is None else tuple(dict.fromkeys((prior.name, "gmm"))))
    subjects = (RECONSTRUCTION, *names, INTERPOLATION, *([] if prior is None else [CODES]))
    return score_run(opened, subjects, features, protocol, device)


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
    path = run.folder / "metrics.json"
    old = _saved_scores(path)
    data = run.data()
    space = pick_space(features, data, device)
    generator = run.generator(device)
    missing = [name for name in subjects if name in DENSITIES and name not in generator.densities]
    codes = generator.encode(data.train.x) if missing else torch.empty(0)
    for name in missing:
        options = _prior_options(run, name)
        if "seed" in inspect.signature(DENSITIES[name]).parameters:
            options.setdefault("seed", (protocol or Protocol()).seed)
        run.save_density(name, generator.fit(name, codes=codes, **options))
    scores = evaluate_generator(generator, data, space, subjects, protocol, run.weights_hash())
    write_json(path, {"format": 1, "scores": _merged(old, [to_json(score) for score in scores])})
    return scores


def rank(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN")],
    score: str | None = None,
    of: str = "gmm",
    ignoring: tuple[str, ...] = (),
) -> list[tuple[str, Score]]:
    """Order runs by a saved score, and refuse if they were not scored in the same way.

    Args:
        runs: Evaluated runs.
        score: Which score, for example fid or recall; the first that was saved unless given.
        of: Of what: reconstruction, interpolation, or a density.
        ignoring: Fields of the protocol that may differ, for example version.

    Returns:
        Runs with their scores, best first.
    """
    found: dict[str, Score] = {}
    for folder in runs:
        scores = [score_from_json(each) for each in _saved_scores(_open(folder).folder / "metrics.json")]
        mine = [each for each in scores if each.of == of and each.name == (score or each.name)]
        if not mine:
            have = ", ".join(sorted({f"{each.name} of {each.of}" for each in scores})) or "none"
            raise UsageError(
                f"{folder} has no {score or 'score'} of {of}; run expost evaluate {folder} first (it has: {have})"
            )
        score = score or mine[0].name
        found[str(folder)] = mine[-1]
    return rank_scores(found, ignoring)


def score(
    samples: Annotated[DataLike, tyro.conf.Positional],
    reference: DataLike,
    split: Literal["train", "validation", "test"] = "test",
    measures: tuple[str, ...] = tuple(MEASURES),
    features: str = "inception-2048",
    bootstrap: int = 0,
    allow_few: bool = False,
    seed: int = 0,
    device: str = "auto",
) -> list[Score]:
    """Score images that anything has made: a folder or array of pictures against a data set.

    Args:
        samples: An image folder, or an .npy, .npz, parquet or IDX file; all of it is taken, whatever its splits.
        reference: A data set's name, or a path.
        split: Which of its splits; a path without splits is taken whole.
        measures: frechet, kid, prd, neighbours.
        features: inception-2048 (FID), inception-768 (FID-768), either with -bf16, digits, pixels.
        bootstrap: Resamples for a 95 % interval of the Frechet distance; 0 for none.
        allow_few: Take fewer examples than features all the same.
        seed: Seeds clusters, subsets and resamples.
        device: auto, cpu, cuda or mps.

    Returns:
        The scores, each with its protocol.
    """
    protocol = Protocol(measures, seed=seed, bootstrap=bootstrap, allow_few=allow_few)
    drawn = load_examples(samples)
    if data_name(reference) in DATASETS:
        against, name = getattr(load_data(data_name(reference)), split).x, f"{reference} {split}"
    else:
        against, name = load_examples(reference), str(reference)
    space: Space = FEATURES[features].load(pick_device(device)) if drawn.dim() == 4 else StandardizedValues(against)
    return score_examples(drawn, against, space, protocol, name)


def _saved_scores(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    record = read_json(path)
    scores = record.get("scores") if isinstance(record, dict) else None
    if not isinstance(scores, list) or not all(
        isinstance(s, dict) and {"name", "of", "card"} <= s.keys() for s in scores
    ):
        raise DataError(f"{path} does not hold scores; move it away to evaluate anew")
    return scores


def _merged(old: list[dict[str, Any]], fresh: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return old and fresh scores, without the old ones that were done again or are of other weights."""
    model = fresh[0]["card"]["model"]
    done = [(each["name"], each["of"], each["card"]) for each in fresh]
    kept = [s for s in old if (s["name"], s["of"], s["card"]) not in done and s["card"].get("model") == model]
    return kept + fresh


def _open(run: Run | Path | str) -> Run:
    return run if isinstance(run, Run) else Run.open(run)


def _prior_options(run: Run, density: str) -> dict[str, Any]:
    """Return the options that the run's configuration sets for its own density."""
    prior = run.config.model.prior
    return dict(prior.options) if prior is not None and prior.name == density else {}


def parse_options(options: Sequence[str] | Mapping[str, Any]) -> dict[str, Any]:
    """Read options as NAME=VALUE; a value is JSON where it is that, else a string. A mapping is taken as it is.

    Example:
        >>> parse_options(["latent.sigma=0.5", "covariance=diag"])
        {'latent.sigma': 0.5, 'covariance': 'diag'}
    """
    if isinstance(options, Mapping):
        return dict(options)
    parsed: dict[str, Any] = {}
    for text in options:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise UsageError(f"option '{text}' has no value; write NAME=VALUE")
        try:
            parsed[name] = json.loads(value)
        except json.JSONDecodeError:
            parsed[name] = value
    return parsed


def _first(split: Split, n: int) -> Tensor:
    if n < 1:
        raise UsageError(f"n is {n}; ask for at least 1 image")
    return split.x[:n]
