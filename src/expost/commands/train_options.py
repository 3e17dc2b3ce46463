"""The options of `expost.train`: of the data, of strings, of the model, and of the training itself."""

from __future__ import annotations

from typing import TypedDict

from expost.commands.groups import Group
from expost.data.encoding import CodecName
from expost.utils.arithmetic import Precision


class DataOptions(TypedDict, total=False):
    """Which examples are trained on.

    Attributes:
        size: Side to which images are brought.
        limit: Use at most this many examples of each split.
    """

    size: int | None
    limit: int | None


class StringOptions(TypedDict, total=False):
    """How strings become rows of symbols; strings only.

    Attributes:
        codec: How strings become rows of symbols: grammar (productions) or characters; default: the model's.
        grammar: Name or file of the grammar of the strings: smiles, expressions, or a text file of rules.
        length: Symbols a row at most; longer strings are left out, and counted.
    """

    codec: CodecName | None
    grammar: str | None
    length: int | None


class ModelOptions(TypedDict, total=False):
    """Sizes and weights of the model.

    Attributes:
        latent_dim: Dimension of the code.
        width: Channels of the first convolution, or units of a hidden layer.
        network: Of images conv4, conv5; of anything mlp; of strings convnext-1d, transformer, gru-autoregressive,
            gru-expressions, gru-molecules.
        beta: Weight of the latent penalty, in the paper's form (sums over an example, means over the batch).
        regularizer_weight: Weight lambda of the decoder regularizer, in the same form.
    """

    latent_dim: int | None
    width: int | None
    network: str | None
    beta: float | None
    regularizer_weight: float | None


class TrainingOptions(TypedDict, total=False):
    """How the model is trained.

    Attributes:
        epochs: Passes over the training set.
        batch_size: Examples per step.
        lr: Initial learning rate.
        clip: Largest norm of the gradient of all weights together; larger ones are scaled down to it.
        seed: Seeds weights (of built-in networks), order and noise.
        device: auto, cpu, cuda or mps.
        precision: float32, bf16, or auto: bf16 where the device has instructions for it, else float32.
        checkpoint_seconds: How much work a kill may cost at most; a checkpoint is also written after an epoch, unless
            that would take more than a twentieth of the time.
        tensorboard: Whether to write TensorBoard files; unless said, they are where TensorBoard is installed.
    """

    epochs: int | None
    batch_size: int | None
    lr: float | None
    clip: float | None
    seed: int | None
    device: str | None
    precision: Precision | None
    checkpoint_seconds: float | None
    tensorboard: bool | None


class TrainOptions(DataOptions, StringOptions, ModelOptions, TrainingOptions, total=False):
    """All options of `expost.train` that the groups declare; None leaves one to the preset."""


DATA, STRINGS, MODEL, TRAINING = map(Group, (DataOptions, StringOptions, ModelOptions, TrainingOptions))
