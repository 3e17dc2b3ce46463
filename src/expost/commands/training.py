"""The command that trains a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Unpack

import tyro

from expost._version import __version__
from expost.commands.arguments import (
    DataLike,
    Networks,
    Options,
    Output,
    data_name,
    parse_options,
    refuse_for_strings,
    together,
)
from expost.commands.groups import takes
from expost.commands.outputs import label_of, new_run
from expost.commands.train_options import DATA, MODEL, STRINGS, TRAINING, TrainOptions
from expost.config import DataConfig, ModelConfig, RunConfig
from expost.errors import UsageError, suggestion
from expost.models.zoo import ZOO
from expost.registry import Part
from expost.utils.extras import installed, require
from expost.utils.progress import say

if TYPE_CHECKING:
    from expost.run import Run
    from expost.types import Data

#: Most columns that are named.
LISTED = 5


def _begun(out: str | Path) -> str:
    return f"begun {Path(out).resolve()}"


@takes(data=DATA, string=STRINGS, model=MODEL, training=TRAINING)
@together
def train(
    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")],
    data: DataLike,
    out: Output | None = None,
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
        data: A data set's name (`expost data` lists them), or a path: a folder of images or of sound, an .npz, .npy,
            .csv, parquet or IDX file, or a file of strings (.smi, .txt or .csv, also gzipped).
        out: The run's folder, new or empty; default: runs/DATA-MODEL-N, with N the first number that is free.
        preset: Source of all other defaults: small (for 2 cores; the default), paper (the paper's, for a GPU),
            published (strings only: as paper, with the loss of the published code), residual (images: the residual
            network with a cosine and averaged weights, for 2 cores) or residual-gpu; --dry-run prints them.
        options: Options of the model's slots, for example regularizer.scope=both (rae-sn) or latent.sigma=0.5 (cv-vae).
        resume: Resume the run in `out`, which has to be given, with its saved configuration; --epochs may grow,
            --device and --precision may change.
        dry_run: Resolve and check the configuration, print it, and stop.
        networks: Your own encoder and decoder modules (Python only).
        **given: Options of the data, of strings, of the model and of training, for example `epochs=50`; listed in
            `expost.commands.train_options`.

    Returns:
        The run; a dry run writes nothing to disk.

    Raises:
        UsageError: for an unknown option or name, a value out of range, or options that exclude each other.
    """
    from expost import distributed
    from expost.commands.resuming import as_saved, go_on, precision_note
    from expost.examples import kind_of_data
    from expost.models.presets import PRESETS, configure
    from expost.run import Run, load
    from expost.training.devices import pick_device
    from expost.utils.precision import choose

    of_data, of_strings, of_model, of_training = (group.of(given) for group in (DATA, STRINGS, MODEL, TRAINING))
    _ = ZOO[model], PRESETS[preset or "small"]  # unknown names are refused before any data is read
    tensorboard = of_training.pop("tensorboard", None)
    if tensorboard:
        require("tensorboard", "tensorboard", "writing event files needs TensorBoard")
    slots = parse_options(options)
    if resume and out is None:
        raise UsageError("a run that is resumed has to be named; give its folder with --out")
    if out is None:
        out = new_run(f"{label_of(data)}-{model}", lambda folder: distributed.remembers(_begun(folder)))
        say(f"run: {out}")
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
    with distributed.main_first():
        published = PRESETS[preset or "small"].published
        suited = _codec(model, data, of_data, of_strings, published)
    examples, data_config = load(DataConfig(data_name(data), codec=suited, **of_data))
    of_training["tensorboard"] = installed("tensorboard") if tensorboard is None else tensorboard
    kind = kind_of_data(examples)
    for option, value in kind.slots(examples).items():
        slots.setdefault(option, value)
    own = networks is not None
    config, training = configure(
        model, examples.shape, preset or "small", of_model, of_training, slots, own, len(examples.train)
    )
    chosen = choose(training.precision, pick_device(training.device))
    said = precision_note(training, chosen)
    training = replace(training, precision=chosen.arithmetic)
    run = Run(Path(out), RunConfig(config, training, data_config, preset or "small", __version__, own), networks)
    run.fresh_model()  # what cannot work is refused before anything is written
    if dry_run:
        return replace(run, dry=True, note=said or f"precision: {chosen}")
    with run.started():
        distributed.remember(_begun(out))
        if said:
            say(said)
        if examples.note:
            say(f"data: {examples.note}")
        if columns := _columns_note(config, examples):
            say(columns)
        run.train(examples)
    return run


def _columns_note(model: ModelConfig, data: Data) -> str:
    """Return how the columns of a table are trained on; empty for other data."""
    from expost.data.standardization import Columns

    if not model.standardize:
        return ""
    constant = (~Columns.of(data.train.x.numpy()).varying).nonzero()[0]
    names = ", ".join(data.columns[index] if data.columns else f"number {index}" for index in constant[:LISTED])
    left = f"; {len(constant)} of {model.shape[0]} do not vary ({names}{', ...' if len(constant) > LISTED else ''})"
    return f"columns: standardized for training, samples are in the data's units{left if len(constant) else ''}"


def _codec(
    model: str, data: str | Path, of_data: Mapping[str, Any], given: Mapping[str, Any], published: bool
) -> Part | None:
    """Return the codec of a data set of strings, None for another.

    Raises:
        UsageError: if the data and what is asked for do not go together.
    """
    from expost.data import DATASETS
    from expost.data.encoding import suit_codec
    from expost.data.hub import on_hub
    from expost.data.named_strings import STRING_DATASETS
    from expost.data.strings import is_strings, read_strings

    own = ZOO[model].codec
    column = of_data.get("column")
    if not is_strings(data_name(data), column, asked=own is not None or bool(given)):
        known = data_name(data) in DATASETS or Path(data_name(data)).exists() or on_hub(data_name(data)) is not None
        if not known:
            names = [*DATASETS, *STRING_DATASETS]
            hint = suggestion(data_name(data), names)
            raise UsageError(f"no file, folder or data set '{data}'{hint} names: {', '.join(names)}")
        for name in [*given, *(["column"] if column is not None else [])]:
            raise UsageError(f"{name} is for strings, data set '{data}' has none; leave it out")
        if own is not None:
            raise UsageError(
                f"model '{model}' is for strings, data set '{data}' has none; name the column of strings by --column, "
                "give a file of strings, or train rae-l2 or vae on numbers or images"
            )
        return None
    refuse_for_strings(data, of_data)
    codec = given.get("codec", own)
    if own not in (None, codec):
        raise UsageError(f"model '{model}' works on {own}, not on {codec}; leave --codec out, or take another model")
    if of_data.get("label_column") is not None:
        raise UsageError(f"label_column is for tables of numbers, data set '{data}' holds strings; leave it out")
    strings = read_strings(data_name(data), of_data.get("limit"), column=column)
    return suit_codec(strings, codec or "grammar", given.get("grammar"), given.get("length"), published)
