"""The command that trains a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Unpack

import tyro

from expost import distributed
from expost._version import __version__
from expost.commands.arguments import DataLike, Networks, Options, Output, data_name, parse_options, refuse_for_strings
from expost.commands.groups import takes
from expost.commands.resuming import as_saved, go_on, precision_note
from expost.commands.train_options import DATA, MODEL, STRINGS, TRAINING, TrainOptions
from expost.config import DataConfig, RunConfig
from expost.data import DATASETS
from expost.data.encoding import suit_codec
from expost.data.named_strings import STRING_DATASETS
from expost.data.strings import is_strings, read_strings
from expost.errors import UsageError, suggestion
from expost.examples import kind_of_data
from expost.models.presets import PRESETS, configure
from expost.models.zoo import ZOO
from expost.registry import Part
from expost.run import Run, load
from expost.training.devices import pick_device
from expost.types import Data
from expost.utils.extras import installed, require
from expost.utils.precision import choose
from expost.utils.progress import say

#: Warn where the standard deviations of columns differ by more than this factor.
UNEQUAL_SCALES = 30
#: On few strings, preset `small` shrinks the batch until an epoch has this many steps, but not below this size.
STEPS_AN_EPOCH, SMALLEST_BATCH = 20, 10


def _begun(out: str | Path) -> str:
    return f"begun {Path(out).resolve()}"


@takes(data=DATA, string=STRINGS, model=MODEL, training=TRAINING)
@distributed.together()
def train(
    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")],
    data: DataLike,
    out: Output,
    *,
    preset: str | None = None,
    options: Options = (),
    resume: bool = False,
    dry_run: bool = False,
    networks: Networks = None,
    **given: Unpack[TrainOptions],
) -> Run:
    """Train a model of the zoo; the best weights on validation data are kept.

    Args:
        model: Name of a model, for example rae-l2; `expost zoo` lists them.
        data: A data set's name (`expost data` lists them), or a path: an image folder, an .npz, .npy, .csv, parquet or
            IDX file, or a file of strings (.smi, .txt or .csv, also gzipped).
        out: The run's folder, new or empty.
        preset: Source of all other defaults: small (for 2 cores; the default), paper (the paper's, for a GPU), or
            published (strings only: as paper, with the loss of the published code); --dry-run prints them.
        options: Options of the model's slots, for example regularizer.scope=both (rae-sn) or latent.sigma=0.5 (cv-vae).
        resume: Resume the run in `out` with its saved configuration; --epochs may grow, --device and --precision may
            change.
        dry_run: Resolve and check the configuration, print it, and stop.
        networks: Your own encoder and decoder modules (Python only).
        **given: Options of the data, of strings, of the model and of training, for example `epochs=50`; listed in
            `expost.commands.train_options`.

    Returns:
        The run; a dry run writes nothing to disk.

    Raises:
        UsageError: for an unknown option or name, a value out of range, or options that exclude each other.
    """
    of_data, of_strings, of_model, of_training = (group.of(given) for group in (DATA, STRINGS, MODEL, TRAINING))
    _ = ZOO[model], PRESETS[preset or "small"]  # unknown names are refused before any data is read
    tensorboard = of_training.pop("tensorboard", None)
    if tensorboard:
        require("tensorboard", "tensorboard", "writing event files needs TensorBoard")
    slots = parse_options(options)
    # started again by the launcher, which goes on with the run that it has begun itself, and with no other
    again = distributed.remembers(_begun(out)) and (Path(out) / "config.json").is_file()
    if resume:
        for option in of_strings:
            raise UsageError(f"{option} cannot change in a run that is resumed; leave it out, or start a new run")
    if resume or again:
        asked = {"model.name": model, "data.name": data_name(data)} | ({"preset": preset} if preset else {})
        for part, options_of_part in (("data", of_data), ("training", of_training), ("model", of_model)):
            asked |= {f"{part}.{key}": as_saved(value) for key, value in options_of_part.items()}
        return go_on(Run.open(out, networks), asked, slots, dry_run)
    if is_strings(data_name(data)):
        refuse_for_strings(data, of_data)
    with distributed.main_first():
        published = PRESETS[preset or "small"].published
        suited = _codec(model, data, of_data.get("limit"), of_strings, published)
    examples, data_config = load(DataConfig(data_name(data), codec=suited, **of_data))
    of_training["tensorboard"] = installed("tensorboard") if tensorboard is None else tensorboard
    kind = kind_of_data(examples)
    for option, value in kind.slots(examples).items():
        slots.setdefault(option, value)
    own = networks is not None
    config, training = configure(
        model, examples.shape, preset or "small", of_model, of_training, slots, own_networks=own
    )
    if kind.symbols and preset in (None, "small") and "batch_size" not in of_training:
        training = replace(training, batch_size=_batch_for(len(examples.train), training.batch_size))
    chosen = choose(training.precision, pick_device(training.device))
    said = precision_note(training, chosen)
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
    """Return a batch size that leaves several steps to an epoch of few examples."""
    return min(batch_size, max(SMALLEST_BATCH, examples // STEPS_AN_EPOCH))


def _remark_on_scales(data: Data) -> None:
    """Warn if the columns of a table differ so much in scale that the largest alone decides the loss."""
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


def _codec(model: str, data: str | Path, limit: int | None, given: Mapping[str, Any], published: bool) -> Part | None:
    """Return the codec of a data set of strings, None for another.

    Raises:
        UsageError: if the data and what is asked for do not go together.
    """
    own = ZOO[model].codec
    if not is_strings(data_name(data)):
        if data_name(data) not in DATASETS and not Path(data_name(data)).exists():
            names = [*DATASETS, *STRING_DATASETS]
            hint = suggestion(data_name(data), names)
            raise UsageError(f"no file, folder or data set '{data}'{hint} names: {', '.join(names)}")
        for name in given:
            raise UsageError(f"{name} is for strings, data set '{data}' has none; leave it out")
        if own is not None:
            raise UsageError(
                f"model '{model}' is for strings, data set '{data}' has none; name the column of strings in a table "
                "smiles or string, give a file of strings, or train rae-l2 or vae on numbers or images"
            )
        return None
    codec = given.get("codec", own)
    if own not in (None, codec):
        raise UsageError(f"model '{model}' works on {own}, not on {codec}; leave --codec out, or take another model")
    strings = read_strings(data_name(data), limit)
    return suit_codec(strings, codec or "grammar", given.get("grammar"), given.get("length"), published)
