"""The run folder: everything that is needed to go on.

config.json               what was asked for, resolved
model.safetensors         the weights with the best validation loss
checkpoint.safetensors    what training needs to go on
metrics.jsonl             a line an epoch
tensorboard/              the same for TensorBoard
densities/NAME.*          fitted densities
metrics.json              scores
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from expost.autoencoder import Autoencoder, build
from expost.checkpoint import load_weights
from expost.config import DataConfig, RunConfig, run_config_from_json, to_json
from expost.data import load_data
from expost.densities import Density, load_density
from expost.errors import DataError, UsageError
from expost.generator import Generator
from expost.seeding import WEIGHTS, isolated, stream_seed
from expost.store import read_json, read_tensors, write_json
from expost.training import Training, pick_device, place
from expost.types import Data

Networks = tuple[nn.Module, nn.Module]


def load(data: DataConfig) -> Data:
    """Load the data that a configuration names."""
    return load_data(data.name, size=data.size, limit=data.limit, seed=data.seed)


@dataclass(frozen=True)
class Run:
    """A training run's folder.

    Attributes:
        folder: Where it is.
        config: What was asked for.
        networks: A person's own encoder and decoder, where the run uses them.
        dry: Whether it was only resolved and checked, by a dry run.
    """

    folder: Path
    config: RunConfig
    networks: Networks | None = None
    dry: bool = False

    @classmethod
    def open(cls, folder: str | Path, networks: Networks | None = None) -> Run:
        """Open an existing run.

        Args:
            folder: Its folder.
            networks: Own encoder and decoder, with which the run was trained.

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

    def start(self) -> None:
        """Make the folder of a new run.

        Raises:
            UsageError: if there is one already that holds anything.
        """
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise UsageError(f"{self.folder} exists already; go on with it by --resume, or choose another --out")
        self.save_config()

    def save_config(self) -> None:
        """Write the configuration to the folder."""
        write_json(self.folder / "config.json", to_json(self.config))

    def with_epochs(self, epochs: int) -> Run:
        """Return the run with another number of epochs."""
        return replace(self, config=replace(self.config, training=replace(self.config.training, epochs=epochs)))

    def data(self) -> Data:
        """Load the run's data.

        Raises:
            DataError: if its examples no longer have the shape the model was built for.
        """
        data = load(self.config.data)
        if data.shape != self.config.model.shape:
            raise DataError(
                f"data set '{data.name}' has examples of shape {data.shape}, the run in {self.folder} was trained on "
                f"{self.config.model.shape}; restore the data"
            )
        return data

    def fresh_model(self) -> Autoencoder:
        """Build the model with the initial weights that the seed gives."""
        with isolated(torch.device("cpu")):
            torch.manual_seed(stream_seed(self.config.training.seed, WEIGHTS))
            return build(self.config.model, copy.deepcopy(self.networks))

    def train(self, data: Data) -> Autoencoder:
        """Train, or go on training; return the model with its best weights."""
        model = self.fresh_model()
        Training(model, data, self.config.training, self.folder).run()
        return model

    def model(self, device: str = "auto") -> Autoencoder:
        """Load the trained model, in evaluation mode.

        Raises:
            DataError: if there are no weights yet, or their file is damaged.
        """
        path = self.folder / "model.safetensors"
        if not path.exists():
            raise DataError(f"{self.folder} has no trained weights yet; train it first: expost train ... --resume")
        model = self.fresh_model()
        load_weights(path, model, read_tensors(path)[0])
        place(model, pick_device(device), len(self.config.model.shape) == 3)
        return model.eval()

    def generator(self, device: str = "auto") -> Generator:
        """Load the trained model and every density fitted on its codes."""
        model = self.model(device)
        generator = Generator.of(model)
        for path in sorted((self.folder / "densities").glob("*.safetensors")):
            if not path.name.startswith("."):
                generator.densities[path.stem] = load_density(path).to(generator.device)
        return generator

    def save_density(self, name: str, density: Density) -> None:
        """Save a fitted density under its name."""
        density.save(self.folder / "densities" / f"{name}.safetensors")
