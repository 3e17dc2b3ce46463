"""Commands that learn: train a model, fit a density."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from numpy.typing import ArrayLike
from torch import Tensor

from expost import distributed
from expost._version import __version__
from expost.commands.arguments import (
    DataLike,
    Networks,
    Options,
    Output,
    RunLike,
    data_name,
    parse_options,
    prior_options,
)
from expost.config import DataConfig, RunConfig, TrainingConfig, to_json
from expost.data import DATASETS
from expost.data.encoding import CodecName, suit_codec
from expost.data.named_strings import STRING_DATASETS
from expost.data.strings import is_strings, read_strings
from expost.densities import DENSITIES, Density, MixtureDensity
from expost.errors import UsageError
from expost.metrics.molecule_properties import properties
from expost.models.presets import PRESETS, configure
from expost.models.zoo import ZOO
from expost.registry import Part, construct
from expost.run import Run, load, open_run
from expost.training.devices import pick_device
from expost.types import Data
from expost.utils.arithmetic import Precision
from expost.utils.extras import installed, require
from expost.utils.precision import Choice, bf16_warning, choose
from expost.utils.progress import say

#: With standard deviations of columns further apart than this, a remark is made.
UNEQUAL_SCALES = 30
#: Of few strings preset `small` takes smaller batches, so that an epoch has so many steps, down to this size.
STEPS_AN_EPOCH, SMALLEST_BATCH = 20, 10


def _begun(out: str | Path) -> str:
    return f"begun {Path(out).resolve()}"


@distributed.together()
def train(
    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")],
    data: DataLike,
    out: Output,
    preset: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    clip: float | None = None,
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
    codec: Literal["grammar", "characters"] | None = None,
    grammar: str | None = None,
    length: int | None = None,
    options: Options = (),
    checkpoint_seconds: float | None = None,
    tensorboard: bool | None = None,
    resume: bool = False,
    dry_run: bool = False,
    networks: Networks = None,
) -> Run:
    """Train a model of the zoo; the best weights on validation data are kept.

    Args:
        model: A row of the zoo, for example rae-l2; see `expost zoo`.
        data: A data set's name, or the path of an image folder, an .npz, .npy, .csv, parquet or IDX file, or a file of
            strings: .smi, .txt or .csv, also gzipped.
        out: The run's folder, new or empty.
        preset: Where all the defaults below come from: small (for 2 cores; the default) or paper (for a GPU).
            --dry-run prints what they come to.
        epochs: Passes over the training set.
        batch_size: Examples per step.
        lr: Initial learning rate.
        clip: Largest norm of the gradient of all weights together; larger ones are scaled down to it.
        latent_dim: Dimension of the code.
        width: Channels of the first convolution, or units of a hidden layer.
        network: Of images conv4, conv5; of anything mlp; of strings convnext-1d, transformer, gru-autoregressive,
            gru-expressions, gru-molecules.
        beta: Weight of the latent penalty, in the paper's form (sums over an example, means over the batch).
        regularizer_weight: Weight lambda of the decoder regularizer, in the same form.
        seed: Seeds weights (of built-in networks), order and noise.
        device: auto, cpu, cuda or mps.
        precision: float32, bf16, or auto: bf16 where the device has instructions for it, else float32.
        size: Side to which images are brought.
        limit: Use at most this many examples of each split.
        codec: How strings become rows of symbols: grammar (productions) or characters; default: the model's.
        grammar: Name or file of the grammar of the strings: smiles, expressions, or a text file of rules.
        length: Symbols a row at most; longer strings are left out, and counted.
        options: Options of the model's slots, for example regularizer.scope=both (rae-sn) or latent.sigma=0.5 (cv-vae).
        checkpoint_seconds: How much work a kill may cost at most; a checkpoint is also written after an epoch, unless
            that would take more than a twentieth of the time.
        tensorboard: Whether to write TensorBoard files; unless said, they are where TensorBoard is installed.
        resume: Go on with the run in `out`; its saved configuration rules. --epochs may grow, --device and --precision
            may change.
        dry_run: Resolve and check the configuration, print it, and stop.
        networks: Own encoder and decoder modules (Python only).

    Returns:
        The run; after a dry run nothing of it is on disk.
    """
    training_options: dict[str, Any] = {
        "epochs": epochs, "batch_size": batch_size, "lr": lr, "clip": clip, "seed": seed, "device": device,
        "precision": precision, "checkpoint_seconds": checkpoint_seconds,
    }  # fmt: skip
    model_options: dict[str, Any] = {
        "latent_dim": latent_dim, "width": width, "network": network, "beta": beta,
        "regularizer_weight": regularizer_weight,
    }  # fmt: skip
    _ = ZOO[model], PRESETS[preset or "small"]  # unknown names are refused before any data is read
    if tensorboard:
        require("tensorboard", "tensorboard", "writing event files needs TensorBoard")
    slots = parse_options(options)
    # started again by the launcher, which goes on with the run that it has begun itself, and with no other
    again = distributed.remembers(_begun(out)) and (Path(out) / "config.json").is_file()
    if resume:
        for option, value in (("codec", codec), ("grammar", grammar), ("length", length)):
            if value is not None:
                raise UsageError(f"{option} cannot change in a run that is resumed; leave it out, or start a new run")
    if resume or again:
        asked: dict[str, Any] = {"model.name": model, "data.name": data_name(data), "preset": preset}
        asked |= {"data.size": size, "data.limit": limit}
        asked |= {f"training.{key}": value for key, value in training_options.items()}
        asked |= {f"model.{key}": value for key, value in model_options.items()}
        return _resume(Run.open(out, networks), asked, slots, dry_run)
    with distributed.main_first():
        suited = _codec(model, data, codec, grammar, length, limit)
    wanted = DataConfig(data_name(data), size, limit, codec=suited)
    examples, data_config = load(wanted)
    training_options["tensorboard"] = installed("tensorboard") if tensorboard is None else tensorboard
    if examples.codec is not None:
        slots.setdefault("reconstruction.groups", examples.codec.groups().tolist())
    own = networks is not None
    config, training = configure(
        model, examples.shape, preset or "small", model_options, training_options, slots, own_networks=own
    )
    if examples.codec is not None and preset in (None, "small") and batch_size is None:
        training = replace(training, batch_size=_batch_for(len(examples.train), training.batch_size))
    chosen = choose(training.precision, pick_device(training.device))
    said = _precision_note(training, chosen)
    training = replace(training, precision=chosen.arithmetic)
    run = Run(Path(out), RunConfig(config, training, data_config, preset or "small", __version__, own), networks)
    run.fresh_model()  # what cannot work is refused before anything is written
    if dry_run:
        return replace(run, dry=True, note=said or f"precision: {chosen}")
    run.start()
    distributed.remember(_begun(out))
    if said:
        say(said)
    if examples.note:
        say(f"data: {examples.note}")
    _remark_on_scales(examples)
    run.train(examples)
    return run


def _batch_for(examples: int, batch_size: int) -> int:
    """Return a batch size by which few examples still make an epoch of several steps."""
    return min(batch_size, max(SMALLEST_BATCH, examples // STEPS_AN_EPOCH))


def _remark_on_scales(data: Data) -> None:
    """Say where the columns of a table have such different scales that the losses are those of the largest."""
    if not data.train.x.is_floating_point():
        return
    scales = data.train.x.std(dim=0)
    varying = scales[scales > 0]
    if len(varying) > 1 and varying.max() > UNEQUAL_SCALES * varying.min():
        names = data.columns or tuple(f"number {index}" for index in range(len(scales)))
        say(
            f"the standard deviation of {names[int(scales.argmax())]} is {float(varying.max() / varying.min()):,.0f} "
            "times that of the smallest column, and the model will learn little else; standardize the columns first "
            "(the estimator RegularizedAutoencoder does)"
        )


def _codec(
    model: str, data: str | Path, codec: CodecName | None, grammar: str | None, length: int | None, limit: int | None
) -> Part | None:
    """Return the codec of a data set of strings, None for another.

    Raises:
        UsageError: if the data and what is asked for do not go together.
    """
    own = ZOO[model].codec
    if not is_strings(data_name(data)):
        if data_name(data) not in DATASETS and not Path(data_name(data)).exists():
            names = [*DATASETS, *STRING_DATASETS]
            close = difflib.get_close_matches(data_name(data), names, n=1)
            hint = f", did you mean '{close[0]}'?" if close else ";"
            raise UsageError(f"no file, folder or data set '{data}'{hint} names: {', '.join(names)}")
        for name, value in (("codec", codec), ("grammar", grammar), ("length", length)):
            if value is not None:
                raise UsageError(f"{name} is for strings, data set '{data}' has none; leave it out")
        if own is not None:
            raise UsageError(
                f"model '{model}' is for strings, data set '{data}' has none; name the column of strings in a table "
                "smiles or string, give a file of strings, or train rae-l2 or vae on numbers or images"
            )
        return None
    if own is not None and codec not in (None, own):
        raise UsageError(f"model '{model}' works on {own}, not on {codec}; leave --codec out, or take another model")
    return suit_codec(read_strings(data_name(data), limit), codec or own or "grammar", grammar, length)


def _precision_note(training: TrainingConfig, chosen: Choice) -> str:
    """Return what to say of the arithmetic of a training; nothing where it was asked for and is in hardware."""
    if training.precision == "auto":
        return f"precision: {chosen}"
    if chosen.arithmetic == "bf16" and not chosen.hardware:
        slow = bf16_warning(pick_device(training.device))
        return f"precision: bf16, as asked for; {slow}; --precision auto is faster"
    return ""


def _resumed_precision(run: Run, asked: Precision | None) -> tuple[Run, str]:
    """Return a run with the arithmetic to go on in, and what to say of it.

    A run goes on as it was trained, except where it was trained in bf16 and this device has no instructions for it.
    """
    training = run.config.training
    device = pick_device(training.device)
    chosen = choose(asked or training.precision, device)
    if asked is None and not chosen.hardware:
        chosen = choose("auto", device)
    if chosen.arithmetic == training.precision:
        return run, _precision_note(replace(training, precision=asked or training.precision), chosen)
    return (
        run.with_training(precision=chosen.arithmetic),
        f"precision: {run.folder} was trained in {run.precision()} and goes on in {chosen}; the weights and the "
        "optimizer's state are float32 in both",
    )


def _resume(run: Run, asked: dict[str, Any], slots: Mapping[str, Any], dry_run: bool) -> Run:
    epochs, device = asked.pop("training.epochs"), asked.pop("training.device")
    precision = asked.pop("training.precision")
    saved = to_json(run.config)
    for key, value in asked.items():
        part, _, name = key.partition(".")
        old = saved[part][name] if name else saved[part]
        _refuse_change(run, key, old, value if value is not None else old)
    for key, value in slots.items():
        slot, _, option = key.partition(".")
        _refuse_change(run, key, saved["model"].get(slot, {}).get("options", {}).get(option), value)
    if epochs is not None and epochs < run.config.training.epochs:
        _refuse_change(run, "training.epochs", run.config.training.epochs, epochs)
    run = run.with_training(epochs=epochs or run.config.training.epochs, device=device or run.config.training.device)
    run, said = _resumed_precision(run, precision)
    if dry_run:
        return replace(run, dry=True, note=said or f"precision: {run.config.training.precision}, as it was trained")
    if said:
        say(said)
    examples = run.data()
    run.save_config()
    run.train(examples)
    return run


def _refuse_change(run: Run, key: str, old: Any, new: Any) -> None:
    if new != old:
        raise UsageError(f"{run.folder} was trained with {key} {old}, not {new}; drop that option, or start a new run")


@distributed.together()
def fit(
    run: RunLike,
    density: str,
    components: int | None = None,
    by: str | None = None,
    bins: int | None = None,
    options: Options = (),
    device: str = "auto",
) -> Path:
    """Fit a density on the codes of the run's training set, and save it with the run.

    Args:
        run: The run.
        density: standard-normal, gaussian, gmm, bayesian-gmm, kde, second-stage-vae or reduced.
        components: Components of a mixture; default: 10, fewer for small classes.
        by: Fit one density a class: "label", or a property of molecules: logp, qed, sa, ring-penalty, weight. Then
            `expost sample RUN --label` asks for one class, or for a value of the property.
        bins: Into how many bins of equal counts a property is cut; default: 5.
        options: Other options of the density, for example covariance=diag.
        device: auto, cpu, cuda or mps.

    Returns:
        Where it was saved.
    """
    opened = open_run(run)
    given = prior_options(opened, density) | parse_options(options)
    if components is not None:
        given["components"] = components
    construct(DENSITIES, Part(density, given))  # wrong words are refused before the codes are computed
    data = opened.data()
    if by is None:
        if bins is not None:
            raise UsageError(f"bins is {bins}, but there is no property to cut; give --by too")
        fitted = opened.generator(device).fit(density, data.train.x, **given)
        _remark_on_components(fitted, len(data.train), opened.config.model.latent_dim)
        return opened.save_density(density, fitted)
    labels, kept, bins = _labels(data, by, bins)
    generator = opened.generator(device)
    x = data.train.x if len(kept) == len(data.train) else data.train.x[kept]  # not copied where all are taken
    classes = generator.fit_by_label(density, labels, generator.encode(x), bins, **given)
    return opened.save_density(f"by_label/{density}", classes)


def _remark_on_components(density: Density, codes: int, d: int) -> None:
    """Say where a mixture has so few codes a component that its covariances follow single ones."""
    if not isinstance(density, MixtureDensity) or density.covariance != "full":
        return
    if density.components > 1 and codes < 2 * density.components * d:
        say(
            f"{density.components} full covariances of {d} dimensions from {codes:,} codes are likely to overfit: "
            "compare the log-likelihoods that expost evaluate prints; give fewer --components, or --set covariance=diag"
        )


def _labels(data: Data, by: str, bins: int | None) -> tuple[ArrayLike, Tensor, int | None]:
    """Return labels or values of a property, of which training examples they are, and into how many bins they go."""
    if by == "label":
        labels = data.labels(data.train)
        if labels is None:
            raise UsageError(f"data set '{data.name}' has no labels to fit by; leave --by out")
        if bins is not None:
            raise UsageError(f"bins is {bins}, but labels are classes; leave --bins out")
        return labels, torch.arange(len(data.train)), None
    if data.codec is None or data.domain != "molecules":
        raise UsageError(f"cannot fit by '{by}': data set '{data.name}' has no molecules; give --by label")
    texts = data.codec.decode(data.train.x)
    values = torch.from_numpy(properties(texts, (by,))[by])
    kept = values.isfinite().nonzero().flatten()
    return values[kept], kept, 5 if bins is None else bins
