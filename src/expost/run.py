"""The run folder: configuration, weights, training state, densities and scores.

config.json               the resolved configuration
model.safetensors         the weights with the best validation loss
checkpoint.safetensors    the state from which training resumes
checkpoint.previous...    the one before it, should it be damaged
metrics.jsonl             one line per epoch
tensorboard/              the same for TensorBoard
densities/NAME.*          fitted densities, and the weights they were fitted on
densities/by_label/NAME.* densities fitted with labels
selection.json            of what a density was chosen (`--density auto`), and why
metrics.json              scores
source.json               of a run that was pulled: the repository and its commit
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import shlex
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from expost import distributed
from expost.config import DataConfig, RunConfig, run_config_from_json, to_json
from expost.data import load_data
from expost.data.encoding import encode_strings
from expost.data.strings import read_strings
from expost.densities import DENSITIES, Density, LabelledDensity, load_density
from expost.errors import DataError, Symptom, UsageError
from expost.evaluation.collapse import collapse
from expost.evaluation.divergence import divergence
from expost.examples import examples_of, kind_of_run
from expost.examples.strings import Strings
from expost.generators.generator import Generator
from expost.generators.strings import StringGenerator
from expost.models.autoencoder import Autoencoder, build, refuse_more
from expost.registry import construct
from expost.training.checkpoint import load_weights
from expost.training.devices import pick_device, place
from expost.training.history import lines_in, record_of
from expost.training.lock import LOCK, in_training, training_lock
from expost.training.trainer import Training, few_steps, measure_steps, plan
from expost.types import Data
from expost.utils.hashing import hash_tensors
from expost.utils.progress import duration, say
from expost.utils.seeding import WEIGHTS, isolated, stream_seed
from expost.utils.store import (
    clear_leftovers,
    exclusively,
    leftovers,
    read_json,
    read_tensor_file,
    require_writable,
    sealed,
    update_json,
    write_json,
)

Networks = tuple[nn.Module, nn.Module]


@dataclass(frozen=True)
class Trouble:
    """What is wrong with a trained model.

    Attributes:
        name: In a few words, a clause.
        text: A sentence, with figures and a remedy.
        symptom: Where the page on troubles says more.
    """

    name: str
    text: str
    symptom: Symptom


#: Of what densities were chosen.
SELECTION = "selection.json"
#: The precision of epochs whose record does not name one.
UNRECORDED = "not recorded"


def load(config: DataConfig) -> tuple[Data, DataConfig]:
    """Load the configured data; with several processes, the first fills the cache before the others read it.

    Returns:
        The data, and the configuration with their fingerprint.

    Raises:
        DataError: if the configuration has another fingerprint than the data, or processes have different data.
    """
    with distributed.main_first():
        data, found = _load(config)
    distributed.require_same(found.fingerprint, f"data set '{config.name}'")
    return data, found


def _load(config: DataConfig) -> tuple[Data, DataConfig]:
    if config.codec is None:
        data = load_data(
            config.name,
            size=config.size,
            range=config.range,
            layout=config.layout,
            parts=config.parts,
            limit=config.limit,
            seed=config.seed,
            label_column=config.label_column,
            rate=config.rate,
            seconds=config.seconds,
            mels=config.mels,
        )
    else:
        data = encode_strings(read_strings(config.name, config.limit, config.seed, config.column), config.codec)
    fingerprint = hash_tensors({"train": data.train.x, "validation": data.validation.x, "test": data.test.x})
    if config.fingerprint not in ("", fingerprint):
        then, now = config.resized_by, data.resized_by
        if then and now and then != now:
            raise DataError(
                f"data set '{config.name}' differs from what the run was started on: Pillow {then} resized its images "
                f"then, Pillow {now} does now, and versions resize differently; pip install pillow=={then} to go on, "
                "or start a new run"
            )
        raise DataError(
            f"data set '{config.name}' has changed since the run was started: its splits would mix what was trained on "
            "with what is scored; restore the data, or start a new run"
        )
    # a run keeps the version that it was started with, as long as another one gives the same images
    resized_by = config.resized_by if config.fingerprint else data.resized_by
    config = replace(config, fingerprint=fingerprint, resized_by=resized_by)
    return data, replace(config, columns=data.columns, domain=data.domain, sound=data.sound)


@dataclass(frozen=True)
class Run:
    """A training run's folder.

    Attributes:
        folder: Where it is.
        config: The resolved configuration.
        networks: The user's own encoder and decoder, if the run uses them.
        dry: Whether it was only resolved and checked, by a dry run.
        note: What a dry run reports.
    """

    folder: Path
    config: RunConfig
    networks: Networks | None = None
    dry: bool = False
    note: str = ""

    @classmethod
    def open(cls, folder: str | Path, networks: Networks | None = None) -> Run:
        """Open an existing run.

        Args:
            folder: Its folder.
            networks: The user's own encoder and decoder that the run was trained with.

        Raises:
            DataError: if it is no run, or a newer expost made it.
            UsageError: if it was trained with networks of one's own and they are not given.
        """
        path = Path(folder)
        if not (path / "config.json").is_file():
            raise DataError(f"{path} is not a run folder (no config.json); give a folder that expost train made")
        config = run_config_from_json(read_json(path / "config.json"), path / "config.json")
        if config.own_networks and networks is None:
            raise UsageError(f"{path} was trained with your own networks; pass networks=(encoder, decoder)")
        return cls(path, config, networks)

    @contextlib.contextmanager
    def started(self) -> Iterator[None]:
        """Make the folder of a new run, locked against other trainings; a training that is refused leaves none behind.

        Raises:
            UsageError: if there is one already that holds anything, or another process is making it.
        """
        distributed.on_main(self._refuse_used)
        with training_lock(self.folder):
            distributed.on_main(self._start)
            if not distributed.everywhere((self.folder / "config.json").is_file()):
                raise DataError(f"{self.folder} is not seen by all processes; choose a folder that all machines share")
            try:
                yield
            except UsageError:
                if distributed.is_main() and not self._contents() - {"config.json", "tensorboard"}:
                    shutil.rmtree(self.folder, ignore_errors=True)
                raise

    def _start(self) -> None:
        self._refuse_used()  # another process may have made it meanwhile
        clear_leftovers(self.folder)
        self.save_config()

    def _refuse_used(self) -> None:
        if self.folder.exists() and (not self.folder.is_dir() or self._contents()):
            raise UsageError(f"{self.folder} exists already; continue it with --resume, or choose another --out")

    def _contents(self) -> set[str]:
        """Return the names in the folder, without what a process that was killed in its first write leaves."""
        ignored = {LOCK, *(path.name for path in leftovers(self.folder))}
        return {path.name for path in self.folder.iterdir()} - ignored

    def save_config(self) -> None:
        """Write the configuration to the folder."""
        write_json(self.folder / "config.json", sealed(to_json(self.config)))

    def with_training(self, **changes: Any) -> Run:
        """Return the run with other settings of training."""
        return replace(self, config=replace(self.config, training=replace(self.config.training, **changes)))

    def precision(self) -> str:
        """Return in words what the run was trained in, for example "bf16, from epoch 7 float32".

        Runs of early versions did not record it; then this is the precision of the configuration.
        """
        parts: list[str] = []
        last = None
        for record in self._records():
            found = str(record.get("precision", UNRECORDED))
            if found != last:
                parts.append(f"from epoch {record['epoch']} {found}" if parts else found)
                last = found
        return ", ".join(parts) if parts not in ([], [UNRECORDED]) else self.config.training.precision

    def finished_epochs(self) -> int:
        """Return how many epochs of training are recorded."""
        return max((int(record["epoch"]) for record in self._records()[-1:]), default=0)

    def _records(self) -> list[dict[str, Any]]:
        """Return the records of the epochs; a damaged line is said where it matters."""
        records = map(record_of, lines_in(self.folder / "metrics.jsonl"))
        return [record for record in records if record is not None]

    def unfinished(self) -> str | None:
        """Return what to say if the weights may still change: the run is in training, or was stopped; else None."""
        done, epochs = self.finished_epochs(), self.config.training.epochs
        if in_training(self.folder):
            return (
                f"{self.folder} is being trained ({done} of {epochs} epochs): what is fitted now is left out when its "
                "weights change; wait for it, and fit again"
            )
        if done < epochs and (self.folder / "checkpoint.safetensors").exists():
            words = ["train", self.config.model.name, "--data", self.config.data.name, "--out", str(self.folder)]
            again = shlex.join(["expost", *words, "--resume"])
            return f"{self.folder} is unfinished ({done} of {epochs} epochs); finish it first: {again}"
        return None

    def data(self) -> Data:
        """Load the run's data.

        Raises:
            DataError: if they have changed since the run was started.
        """
        return load(self.config.data)[0]

    def fresh_model(self) -> Autoencoder:
        """Build the model with the initial weights that the seed gives."""
        with isolated():
            torch.manual_seed(stream_seed(self.config.training.seed, WEIGHTS))
            if self.config.model.prior is not None:
                construct(DENSITIES, self.config.model.prior)  # refused now rather than after training
            return build(self.config.model, copy.deepcopy(self.networks))

    def train(self, data: Data) -> Autoencoder:
        """Train, or go on training; return the model with its best weights."""
        model = self.fresh_model()
        Training(model, data, self.config.training, self.folder).run()
        if distributed.is_main():
            self.warn_of_trouble(model, data)
        return model

    def pace(self, data: Data) -> str:
        """Return in words how long training would take here, from a few steps of a model that is thrown away."""
        training, count = self.config.training, len(data.train)
        if count < 2 or len(data.validation) < 1:
            return "training: too few examples"
        step = measure_steps(self.fresh_model(), data, training)
        _, batches = training.batches(count)
        whole = f"{duration(step * batches * training.epochs)} in all, without validation"
        said = f"training: {plan(training, count)}, {duration(step)} a step, {whole}"
        return "\n".join(filter(None, (said, few_steps(training, count))))

    def trouble(self, model: nn.Module | None, data: Data) -> Trouble | None:
        """Return what to say if training diverged, or the codes say next to nothing, with a remedy; else None."""
        if not isinstance(model, Autoencoder):
            return None  # a model of another package, of which the start is not known
        if said := divergence(model, self.fresh_model(), data.validation.x):
            remedy = f"train again with a smaller --lr than {self.config.training.lr:g}"
            return Trouble("training diverged", f"{said}; {remedy}", Symptom.LOSS)
        said = collapse(model, data.validation.x)
        if said is None:
            return None
        other = kind_of_run(self.config).symbols and self.config.preset != "published"
        remedy = "lower --beta, or take --preset published" if other else "or lower --beta"
        return Trouble("the codes say next to nothing", f"{said}; train for longer, {remedy}", Symptom.ALIKE)

    def warn_of_trouble(self, model: nn.Module | None, data: Data) -> None:
        """Say on stderr if training diverged, or the codes of the trained model say next to nothing."""
        if found := self.trouble(model, data):
            say(f"warning: {found.text} (see {found.symptom.address})")

    def model(self, device: str = "auto") -> Autoencoder:
        """Load the trained model, in evaluation mode.

        Raises:
            DataError: if there are no weights yet, or their file is damaged.
        """
        return self.loaded(device)[0]

    def loaded(self, device: str = "auto") -> tuple[Autoencoder, str]:
        """Load the trained model, and return it with the SHA-256 of the very bytes that its weights were read from.

        A training may replace the file at any time: what is derived from the model is filed under this hash.

        Raises:
            DataError: if there are no weights yet, or their file is damaged.
        """
        path = self.folder / "model.safetensors"
        if not path.exists():
            raise DataError(f"{self.folder} has no trained weights yet; train it first: expost train ... --resume")
        file = read_tensor_file(path)
        model = self._built(sum(tensor.numel() for tensor in file.tensors.values()))
        load_weights(path, model, file.tensors)
        place(model, pick_device(device))
        return model.eval(), file.sha256

    def _built(self, numbers: int) -> Autoencoder:
        """Build the model of the configuration, after comparing it with the numbers in the file of its weights."""
        if self.networks is not None:
            return self.fresh_model()
        try:
            refuse_more(self.config.model, numbers)
            return self.fresh_model()
        except UsageError as error:
            raise DataError(
                f"{self.folder / 'config.json'} does not fit model.safetensors: {error}; restore both"
            ) from None

    def generator(self, device: str = "auto") -> Generator:
        """Load the trained model and every density fitted on its codes.

        A density that was fitted on codes of earlier weights is left out, with a message on stderr.
        """
        model, weights = self.loaded(device)
        generator = Generator.of(model, weights=weights)
        for folder, words in (("", ""), ("by_label/", " by label")):
            for name, density in self._saved(weights, folder, words):
                if isinstance(density, LabelledDensity) and density.labelled:
                    generator.by_label[name] = density.to(generator.device)
                else:
                    generator.densities[name] = density.to(generator.device)
        return generator

    def densities(self) -> dict[str, Density]:
        """Read the densities that describe codes of the weights, on the CPU, without the model; none by label."""
        saved = self._saved(self.weights_hash(), "", "", quiet=True)
        return {name: each for name, each in saved if not (isinstance(each, LabelledDensity) and each.labelled)}

    def _saved(self, weights: str, folder: str, words: str, quiet: bool = False) -> Iterator[tuple[str, Density]]:
        """Yield the densities in a folder that are of the weights, with their names; say which are not."""
        fitted_on = self._fitted_on()
        for path in sorted((self.folder / "densities" / folder).glob("[!.]*.safetensors")):
            stale = "was fitted before the weights changed" if fitted_on.get(folder + path.stem) != weights else ""
            density = None if stale else load_density(path)
            if density is not None and density.weights in ("", weights):  # early versions did not record them there
                yield path.stem, density.of_weights(weights)
            elif not quiet:
                why = stale or "is of another model's codes"
                say(f"density {path.stem}{words} {why}, and is left out; fit it again")

    def string_generator(self, device: str = "auto") -> StringGenerator:
        """Load the trained model of strings, its densities, and the codec it was trained with.

        Raises:
            UsageError: if the run is not of strings.
        """
        examples = examples_of(self.config)
        if not isinstance(examples, Strings):
            raise UsageError(f"{self.folder} holds a model of images or vectors, and this is for strings")
        return examples.string_generator(self.generator(device))

    def save_density(self, name: str, density: Density) -> Path:
        """Save a fitted density under its name, with the weights whose codes it describes; return the file.

        A density that was not fitted by the run's generator is taken to be of the weights as they are now.
        """
        weights = density.weights or self.weights_hash()
        path = self.folder / "densities" / f"{name}.safetensors"
        with exclusively(self._fitted_path):  # of two processes one saves both, then the other
            # without a hash while the file is replaced: a kill in between leaves a density that counts as stale
            write_json(self._fitted_path, self._fitted_on(but=name))
            density.of_weights(weights).save(path)
            write_json(self._fitted_path, self._fitted_on() | {name: weights})
        if self.weights_hash() != weights:
            say(f"warning: {self.folder} was trained on meanwhile: {name} is of codes of earlier weights; fit it again")
        return path

    def save_selection(self, asked: str, record: Mapping[str, Any]) -> None:
        """Keep of what a density was chosen, with the weights whose codes it is about.

        Args:
            asked: What was asked for: "auto", or "gmm by label"; an earlier answer is replaced.
            record: From `Selection.record`.
        """
        weights, path = self.weights_hash(), self.folder / SELECTION

        def with_this(_: Any) -> dict[str, Any]:  # read where no other process writes meanwhile
            return sealed({"format": 1, "weights": weights, "selections": self.selections() | {asked: dict(record)}})

        update_json(path, with_this)

    def selections(self) -> dict[str, Any]:
        """Return of what densities were chosen, as `save_selection` kept it, for the weights as they are.

        Raises:
            DataError: if the file is damaged.
        """
        path = self.folder / SELECTION
        record = read_json(path) if path.exists() else {"weights": "", "selections": {}}
        if not isinstance(record, dict) or not isinstance(found := record.get("selections"), dict):
            raise DataError(f"{path} is damaged; remove it, and fit with --density auto again")
        return found if record.get("weights") == self.weights_hash() else {}

    def require_writable(self, name: str) -> None:
        """Refuse, before any work, a run that this process cannot write a file to.

        Args:
            name: The file's path in the run's folder.

        Raises:
            OSError: with the path and a remedy.
        """
        distributed.on_main(lambda: require_writable(self.folder / name))

    def weights_hash(self) -> str:
        """Return the SHA-256 of the file of the trained weights as it is now; see `loaded`."""
        with (self.folder / "model.safetensors").open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @property
    def _fitted_path(self) -> Path:
        return self.folder / "densities" / "fitted_on.json"

    def _fitted_on(self, but: str = "") -> dict[str, str]:
        """Return the weights that each density was fitted on, but for one."""
        path = self._fitted_path
        record = read_json(path) if path.exists() else {}
        if not isinstance(record, dict):
            raise DataError(f"{path} is damaged; remove it, and fit the densities again")
        return {name: weights for name, weights in record.items() if name != but}


def open_run(run: Run | Path | str) -> Run:
    """Return a run; a folder is opened."""
    return run if isinstance(run, Run) else Run.open(run)
