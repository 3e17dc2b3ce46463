"""The commands, as Python functions with the same names and options as on the command line.

Each takes a run folder (or an open `Run`), does one thing, and returns its result; nothing is printed on stdout.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from torch import Tensor, nn

from expost import __version__, pictures
from expost.config import DataConfig, Precision, RunConfig, to_json
from expost.data import DATASETS
from expost.densities import DENSITIES
from expost.errors import UsageError
from expost.evaluation import evaluate_generator, pick_features
from expost.interpolation import INTERPOLATIONS
from expost.outputs import check_output, write_examples
from expost.presets import PRESETS, configure
from expost.run import Run, load
from expost.scores import Score
from expost.store import write_json
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
    preset: str = "small",
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
        data: A data set's name, or the path of an image folder, .npz, .npy, parquet or IDX file; see `expost data`.
        out: The run's folder, new or empty.
        preset: Where the defaults come from: small (2 cores) or paper (the paper's settings, for a GPU).
        epochs: Passes over the training set.
        batch_size: Examples per step.
        lr: Initial learning rate.
        latent_dim: Dimension of the code.
        width: Channels of the first convolution, or units of a hidden layer.
        network: conv4, conv5 or mlp.
        beta: Weight of the latent penalty, in the paper's form (sums over an example, means over the batch).
        regularizer_weight: Weight lambda of the decoder regularizer, in the same form.
        seed: Seeds weights, order and noise.
        device: auto, cpu, cuda or mps.
        precision: float32 or bf16.
        size: Side to which images are brought.
        limit: Use at most this many examples of each split.
        options: Options of slots, for example regularizer.scope=both or latent.sigma=0.5.
        tensorboard: Write TensorBoard files.
        resume: Go on with the run in `out`; its saved configuration rules, and only --epochs may change.
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
    _ = ZOO[model], PRESETS[preset]  # unknown names are refused before any data is read
    data = data_name(data)
    if resume:
        asked: dict[str, Any] = {"data.size": size, "data.limit": limit}
        asked |= {f"training.{key}": value for key, value in training_options.items()}
        asked |= {f"model.{key}": value for key, value in model_options.items()}
        return _resume(Path(out), model, data, asked, networks, dry_run)
    data_config = DataConfig(data, size=size, limit=limit)
    examples = load(data_config)
    slots = dict(parse_option(text) for text in options)
    training_options["tensorboard"] = tensorboard
    config, training = configure(model, examples.shape, preset, model_options, training_options, slots)
    run = Run(Path(out), RunConfig(config, training, data_config, preset, __version__, networks is not None), networks)
    run.fresh_model()  # what cannot work is refused before anything is written
    pick_device(training.device)
    if dry_run:
        return replace(run, dry=True)
    run.start()
    run.train(examples)
    return run


def data_name(data: str | Path) -> str:
    """Return a data set's name as it is, and a path in full, so that the run finds it from any working directory."""
    named = isinstance(data, str) and data in DATASETS
    path = Path(data).expanduser()
    return str(path.resolve()) if not named and path.exists() else str(data)


def _resume(
    out: Path, model: str, data: str, asked: dict[str, Any], networks: tuple[nn.Module, nn.Module] | None, dry_run: bool
) -> Run:
    run = Run.open(out, networks)
    saved = {
        f"{part}.{key}": value
        for part in ("model", "training", "data")
        for key, value in to_json(getattr(run.config, part)).items()
    }
    epochs = asked.pop("training.epochs")
    for key, value in {"model.name": model, "data.name": data, **asked}.items():
        if value is not None and value != saved[key]:
            raise UsageError(
                f"{out} was trained with {key} {saved[key]}, not {value}; drop that option, or start a new run"
            )
    if epochs is not None and epochs != run.config.training.epochs:
        run = run.with_epochs(epochs)
    if dry_run:
        return replace(run, dry=True)
    run.save_config()
    run.train(run.data())
    return run


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
    given = dict(parse_option(text) for text in options)
    if components is not None:
        given["components"] = components
    _ = DENSITIES[density]
    generator = opened.generator(device)
    opened.save_density(
        density, generator.fit(density, opened.data().train.x, **_prior_options(opened, density), **given)
    )
    return opened.folder / "densities" / f"{density}.safetensors"


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
    samples: int | None = None,
    features: str = "auto",
    method: str = "linear",
    seed: int = 0,
    device: str = "auto",
) -> list[Score]:
    """Score reconstructions, samples and interpolations against the test split, and save the scores with the run.

    Densities that are not fitted yet are fitted first.

    Args:
        run: The run.
        densities: Which densities to sample from; unless given, the model's own (the paper's column N) and gmm.
        samples: Samples from each density; unless given, as many as there are test images, at most 10,000.
        features: inception-2048 (FID), inception-768 (FID-768), digits, or auto: the first of these that is there.
        method: Interpolation between codes: linear, linear-rescaled or spherical.
        seed: Seeds samples and pairs.
        device: auto, cpu, cuda or mps.

    Returns:
        The scores, each with its protocol.
    """
    opened = _open(run)
    _ = INTERPOLATIONS[method]
    for name in densities:
        _ = DENSITIES[name]
    if samples is not None and samples < 2:
        raise UsageError(f"samples is {samples}; a distance between distributions needs at least 2")
    data = opened.data()
    extractor = pick_features(features, data, device)
    generator = opened.generator(device)
    prior = opened.config.model.prior
    names = densities or (() if prior is None else tuple(dict.fromkeys((prior.name, "gmm"))))
    missing = [name for name in names if name not in generator.densities]
    codes = generator.encode(data.train.x) if missing else torch.empty(0)
    for name in missing:
        opened.save_density(name, generator.fit(name, codes=codes, **_prior_options(opened, name)))
    scores = evaluate_generator(generator, data, extractor, names, samples, method, seed)
    _merge_scores(opened.folder / "metrics.json", scores)
    return scores


def _merge_scores(path: Path, scores: Sequence[Score]) -> None:
    """Add scores to the run's, replacing those of the same name, subject and protocol."""
    fresh = [to_json(score) for score in scores]
    old = json.loads(path.read_text(encoding="utf-8"))["scores"] if path.exists() else []
    kept = [score for score in old if not any(_same(score, each) for each in fresh)]
    write_json(path, {"format": 1, "scores": kept + fresh})


def _same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return all(a[key] == b[key] for key in ("name", "of", "card"))


def _open(run: Run | Path | str) -> Run:
    return run if isinstance(run, Run) else Run.open(run)


def _prior_options(run: Run, density: str) -> dict[str, Any]:
    """Return the options that the run's configuration sets for its own density."""
    prior = run.config.model.prior
    return dict(prior.options) if prior is not None and prior.name == density else {}


def parse_option(text: str) -> tuple[str, Any]:
    """Split NAME=VALUE; the value is JSON where it is that, and otherwise a string.

    Example:
        >>> parse_option("latent.sigma=0.5"), parse_option("covariance=diag")
        (('latent.sigma', 0.5), ('covariance', 'diag'))
    """
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise UsageError(f"option '{text}' has no value; write NAME=VALUE")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def _first(split: Split, n: int) -> Tensor:
    if n < 1:
        raise UsageError(f"n is {n}; ask for at least 1 image")
    return split.x[:n]
