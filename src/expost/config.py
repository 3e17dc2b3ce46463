"""Configuration: frozen dataclasses own the defaults; the command line, saved JSON and the docs derive from them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from expost.errors import DataError, UsageError
from expost.registry import Part
from expost.utils.arithmetic import Precision

#: Version of the run folder's layout; increased when an older expost could not read it.
FORMAT = 2
#: Most blocks on a map.
MOST_BLOCKS = 64
#: How the learning rate falls; see `training.schedules`.
ScheduleName = Literal["plateau", "cosine", "constant"]
#: Largest part of the training examples that an epoch leaves out as its incomplete last batch.
MOST_LEFT_OUT = 0.05
#: Largest product of the numbers of an example and a layer's width, and largest number of a model's weights.
MOST_NUMBERS = 2**32


@dataclass(frozen=True)
class ModelConfig:
    """What an autoencoder is.

    Attributes:
        name: The zoo row it came from; a label, nothing depends on it.
        shape: Shape of one example, (C, H, W) or (d,).
        latent: Entry of the latent slot.
        penalty: Entry of the penalty slot.
        regularizer: Entry of the regularizer slot.
        reconstruction: Entry of the reconstruction slot.
        prior: The density that the model's own samples come from.
        network: Entry of the network slot.
        width: Channels of the first convolution, or units of a hidden layer.
        latent_dim: Dimension d of a code.
        beta: Weight of the penalty, paper form (sums, not means), at least 0.
        regularizer_weight: Weight lambda of the regularizer, paper form, at least 0.
        input_noise: Standard deviation of noise on the encoder's input in training, at least 0.
        depth: Blocks on each map of network residual, 1 to 64; None: one, and for all other networks.
        standardize: Whether columns of vectors are brought to mean 0 and deviation 1 before the encoder, and back after
            the decoder; statistics are those of the training split, and are kept with the weights.
    """

    name: str
    shape: tuple[int, ...]
    latent: Part
    penalty: Part
    regularizer: Part
    reconstruction: Part
    prior: Part | None
    network: str
    width: int
    latent_dim: int
    beta: float
    regularizer_weight: float
    input_noise: float = 0.0
    depth: int | None = None
    standardize: bool = False

    def __post_init__(self) -> None:
        """Check the ranges."""
        _at_least("latent_dim", self.latent_dim, 1)
        _at_least("width", self.width, 1)
        if self.depth is not None:
            _at_least("depth", self.depth, 1)
            if self.depth > MOST_BLOCKS:
                raise UsageError(f"depth is {self.depth}; give at most {MOST_BLOCKS} blocks")
        if not self.shape or min(self.shape) < 1:
            raise UsageError(f"shape is {self.shape}; give at least one number an axis")
        if math.prod(self.shape) * self.width > MOST_NUMBERS:
            raise UsageError(
                f"width is {self.width:,} and the shape of an example {self.shape}: more than {MOST_NUMBERS:,} numbers "
                "a layer; give a smaller --width or --size"
            )
        for name in ("beta", "regularizer_weight", "input_noise"):
            _at_least(name, getattr(self, name), 0)
        if self.standardize and len(self.shape) != 1:
            raise UsageError(
                f"standardize is for tables and vectors, not for examples of shape {self.shape}; leave it out"
            )
        if self.latent_dim > math.prod(self.shape):
            raise UsageError(
                f"latent_dim is {self.latent_dim}, more than the {math.prod(self.shape)} numbers of an example; "
                "a code that large can copy its input: give a smaller --latent-dim"
            )


@dataclass(frozen=True)
class TrainingConfig:
    """How an autoencoder is trained.

    Attributes:
        epochs: Passes over the training set, at least 1.
        batch_size: Examples per step; a smaller data set is one batch. An incomplete last batch of an epoch is left
            out, or divided among the others, see `batches`; every epoch shuffles again.
        lr: Adam's initial learning rate, positive.
        seed: Seeds weights, order and noise, at least 0.
        device: auto (cuda, else mps, else cpu) or a torch device.
        precision: float32; or bf16: bfloat16 networks under autocast, with float32 weights, codes and losses; or auto:
            bf16 where the device has instructions for it. A run's `config.json` records which one auto chose.
        patience: Epochs without a better validation loss after which the learning rate is cut, at least 1.
        factor: The learning rate is multiplied by this when it is cut; between 0 and 1.
        min_delta: Least decrease of the validation loss that counts as better for `patience`, at least 0.
        min_lr: Smallest learning rate, at least 0.
        watch: The validation loss that decides on the learning rate and the best weights: "reconstruction and penalty",
            without the decoder's regularizer, which says nothing about held-out examples; or "objective", with it, as
            the official code has it.
        clip: Largest norm of the gradient of all weights together; a larger one is scaled down to it. None: no
            clipping.
        schedule: plateau: the learning rate is cut as `patience`, `factor` and `min_delta` say; cosine: it falls along
            half a cosine over all epochs, to `min_lr`; constant: it stays.
        lr_warmup: Epochs over which the learning rate rises linearly from 0 to `lr`, at least 0; a fraction will do.
        beta_warmup: Epochs over which the weight of the penalty rises linearly from 0 to the model's beta, at least 0.
            Terms are logged unweighted, and validation has the whole beta, all the while. The plateau waits until
            both warm-ups are over.
        ema: Decay of the mean of the weights over steps, which is validated, saved and used in their place, between 0
            and 1; see `training.averaging`. None: the weights as they are.
        tensorboard: Whether to write TensorBoard event files.
        checkpoint_seconds: Seconds without a checkpoint after which one is written within the epoch, so that a killed
            run loses no more than that; positive.
    """

    epochs: int = 25
    batch_size: int = 100
    lr: float = 1e-3
    seed: int = 0
    device: str = "auto"
    precision: Precision = "float32"
    patience: int = 5
    factor: float = 0.5
    min_delta: float = 0.0
    min_lr: float = 0.0
    watch: Literal["reconstruction and penalty", "objective"] = "reconstruction and penalty"
    clip: float | None = None
    schedule: ScheduleName = "plateau"
    lr_warmup: float = 0.0
    beta_warmup: float = 0.0
    ema: float | None = None
    tensorboard: bool = True
    checkpoint_seconds: float = 300.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        _at_least("epochs", self.epochs, 1)
        _at_least("batch_size", self.batch_size, 2)
        _at_least("seed", self.seed, 0)
        _at_least("patience", self.patience, 1)
        _at_least("min_delta", self.min_delta, 0)
        _at_least("min_lr", self.min_lr, 0)
        if not (0 < self.lr < math.inf):
            raise UsageError(f"lr is {self.lr}; give a positive learning rate")
        if not (0 < self.checkpoint_seconds < math.inf):
            raise UsageError(f"checkpoint_seconds is {self.checkpoint_seconds}; give a positive number of seconds")
        if not 0 < self.factor < 1:
            raise UsageError(f"factor is {self.factor}; give a number between 0 and 1")
        for name in ("lr_warmup", "beta_warmup"):
            _at_least(name, getattr(self, name), 0)
        if self.ema is not None and not 0 < self.ema < 1:
            raise UsageError(f"ema is {self.ema}; give a decay between 0 and 1, such as 0.999, or None")
        if self.clip is not None and not 0 < self.clip < math.inf:
            raise UsageError(f"clip is {self.clip}; give a positive norm, or None")

    def batches(self, examples: int) -> tuple[int, int]:
        """Return the size and the number of the batches of an epoch, all of one size.

        An incomplete last batch is left out where it holds at most a twentieth of the examples. Elsewhere the epoch is
        divided into one batch more, each smaller than `batch_size`; fewer examples than there are batches are left out.

        Args:
            examples: Number of training examples, at least 1.

        Example:
            >>> TrainingConfig(batch_size=100).batches(50_049), TrainingConfig(batch_size=100).batches(384)
            ((100, 500), (96, 4))
        """
        size = min(self.batch_size, examples)
        count = examples // size
        if (examples - size * count) > MOST_LEFT_OUT * examples and examples // (count + 1) > 1:
            count += 1
            size = examples // count
        return size, count


@dataclass(frozen=True)
class SoundConfig:
    """How recordings become log-mel frames, images of shape (1, mels, frames), and come back.

    A recording has (frames - 1) hop samples. Its frames are centered on every hop-th sample, silence lying before the
    first and after the last.

    Attributes:
        rate: Samples a second.
        frames: Frames of a recording, at least 2.
        mels: Bands, evenly spaced on Slaney's mel scale from 0 to half the rate; at least 1.
        hop: Samples from a frame to the next.
        window: Samples of the Hann window and of the Fourier transform, at least 2 hops.
        decibels: What is quieter than a recording's loudest band and frame by more than this is silence; positive.
        iterations: Of the Griffin-Lim algorithm, which finds the phases that frames do not hold.
    """

    rate: int
    frames: int
    mels: int
    hop: int
    window: int
    decibels: float = 60.0
    iterations: int = 64

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, least in (("rate", 100), ("frames", 2), ("mels", 1), ("hop", 1), ("iterations", 1)):
            _at_least(name, getattr(self, name), least)
        _at_least("window", self.window, 2 * self.hop)
        if not 0 < self.decibels < math.inf:
            raise UsageError(f"decibels is {self.decibels}; give a positive number")

    @property
    def samples(self) -> int:
        """Samples of a recording."""
        return (self.frames - 1) * self.hop

    @property
    def seconds(self) -> float:
        """Length of a recording."""
        return self.samples / self.rate


@dataclass(frozen=True)
class DataConfig:
    """Which data a run uses.

    Attributes:
        name: Name or path, as `expost.load_data` takes it.
        size: Side that images are resized to, or None to leave them as they are.
        limit: Largest number of examples of each split, or None for all.
        seed: Seeds the split of data that come without one.
        codec: Entry of the codecs with its options, for strings; None for images and vectors.
        fingerprint: SHA-256 of the three splits. A run refuses data that have changed since it was started: new splits
            could score it on examples that it was trained on.
        columns: Names of a vector's entries, which samples get too; empty where there are none.
        domain: What strings are, for example "molecules"; empty for images and vectors.
        resized_by: Version of Pillow that resized the images; empty if none were.
        range: Values of pixels that become 0 and 255; None for the type's usual ones.
        layout: Axes of an array, a letter each; None to tell them from the shape.
        parts: Folders, files or arrays of the parts, as "train=a"; empty to tell them by their names.
        label_column: Tables: the column of the labels that was asked for, or "none"; None to find it.
        column: Tables: the column of strings that was asked for; None to find it.
        rate: Sound: samples a second that were asked for; None takes the commonest of the recordings.
        seconds: Sound: the length that was asked for; None takes what holds most recordings.
        mels: Sound: the bands that were asked for; None takes 64.
        sound: How recordings became log-mel frames, which is what turns samples into sound; None for other examples.
    """

    name: str
    size: int | None = None
    limit: int | None = None
    seed: int = 0
    codec: Part | None = None
    fingerprint: str = ""
    columns: tuple[str, ...] = ()
    domain: str = ""
    resized_by: str = ""
    range: tuple[float, float] | None = None
    layout: str | None = None
    parts: tuple[str, ...] = ()
    label_column: str | None = None
    column: str | None = None
    rate: int | None = None
    seconds: float | None = None
    mels: int | None = None
    sound: SoundConfig | None = None


@dataclass(frozen=True)
class RunConfig:
    """Everything a run was asked for, resolved; saved as `config.json`.

    Attributes:
        model: The model.
        training: How it is trained.
        data: What it is trained on.
        preset: Where the defaults came from.
        own_networks: Whether encoder and decoder are the user's own modules, which `Run.open` needs again.
        format: Version of the run folder's layout.
        version: The expost version that made the run.
    """

    model: ModelConfig
    training: TrainingConfig
    data: DataConfig
    preset: str
    version: str
    own_networks: bool = False
    format: int = FORMAT


def _at_least(name: str, value: float, least: float) -> None:
    if not (least <= value < math.inf):
        raise UsageError(f"{name} is {value}; give a number of at least {least}")


def to_json(config: Any) -> dict[str, Any]:
    """Return a configuration as plain JSON values."""
    return TypeAdapter(type(config)).dump_python(config, mode="json")


def run_config_from_json(value: Any, path: Path) -> RunConfig:
    """Read a run's configuration back, refusing unknown keys and newer formats.

    Args:
        value: Parsed JSON.
        path: Where it came from, for messages.

    Raises:
        DataError: if it is of a newer format, or not a run's configuration.
    """
    if not isinstance(value, dict):
        raise DataError(f"{path} does not hold a run's configuration; give a folder that expost train made")
    version = value.get("format", FORMAT)
    if type(version) is not int or version < 1:
        raise DataError(f"{path} has no valid format version ({version!r}); restore it")
    if version > FORMAT:
        raise DataError(
            f"{path} has format {version}, newer than this expost reads ({FORMAT}); upgrade with: pip install -U expost"
        )
    try:
        # its checksum is for `expost doctor`: who edits a configuration by hand may
        return TypeAdapter(RunConfig).validate_python({key: each for key, each in value.items() if key != "sha256"})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{path} is not a run's configuration: {where}: {first['msg']}; restore or remake it") from None


for _config in (Part, ModelConfig, TrainingConfig, SoundConfig, DataConfig, RunConfig):
    setattr(_config, "__pydantic_config__", ConfigDict(extra="forbid"))  # noqa: B010 (pydantic looks for it on the class)
