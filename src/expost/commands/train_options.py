"""The options of `expost.train`: of the data, of strings, of the model, and of the training itself."""

from __future__ import annotations

from typing import Literal, TypedDict

from expost.commands.groups import Group
from expost.config import ScheduleName
from expost.data.names import CodecName
from expost.utils.arithmetic import Precision


class DataOptions(TypedDict, total=False):
    """Which examples are trained on.

    Attributes:
        size: Resize images (their largest central square) to this side, in pixels.
        limit: Use at most this many examples of each split.
        range: Pixels: the two values that become black and white, such as 0 4095 for 12 bits; default: the type's.
        layout: Arrays: the axes, a letter each: N (examples), H, W, C (channels), as NCHW, NHWC, HWN; default: told
            by the shape.
        parts: Folders, files or arrays of the parts, as train=a test=b (all=a: one part, to be divided); default: told
            by the names.
        label_column: Tables only: the column of the labels, or none; default: label, class, species, or a target of few
            values. Of fsdd: digit (default) or speaker.
        column: Tables only: the column of strings; default: one called SMILES or that holds them, or the only text.
        rate: Sound only: samples a second that recordings are brought to; default: the commonest of them.
        seconds: Sound only: length that they are cut or padded to; default: what holds most of them, at most 1.27.
        mels: Sound only: bands of their log-mel frames; default: 64.
    """

    size: int | None
    limit: int | None
    range: tuple[float, float] | None
    layout: str | None
    parts: tuple[str, ...] | None
    label_column: str | None
    column: str | None
    rate: int | None
    seconds: float | None
    mels: int | None


class StringOptions(TypedDict, total=False):
    """Strings only: how they become rows of symbols.

    Attributes:
        codec: The symbols: grammar (productions) or characters; default: the model's.
        grammar: Grammar of the strings: smiles, smiles-published, expressions, or a text file of rules.
        length: Longest row, in symbols; longer strings are left out and counted.
    """

    codec: CodecName | None
    grammar: str | None
    length: int | None


class ModelOptions(TypedDict, total=False):
    """Sizes and weights of the model.

    Attributes:
        latent_dim: Dimension of a code.
        width: Channels of the first convolution, or units of a hidden layer.
        depth: Blocks on each map of network residual; default: 1.
        network: Architecture of encoder and decoder. Images: conv4, conv5, conv5-celeba, residual; strings:
            convnext-1d, transformer, gru-autoregressive, gru-expressions, gru-molecules; any data: mlp.
        reconstruction: Reconstruction term. Images: squared-error, bernoulli, perceptual; numbers: squared-error;
            strings: masked-categorical, masked-bernoulli. Default: the preset's.
        beta: Weight of the latent penalty, in the paper's form (sums over an example, means over the batch).
        regularizer_weight: Weight lambda of the decoder regularizer, in the same form.
        standardize: Tables and vectors only: train on columns of mean 0 and deviation 1; samples and reconstructions
            come back in the units of the data. Default: yes.
    """

    latent_dim: int | None
    width: int | None
    depth: int | None
    network: str | None
    reconstruction: str | None
    beta: float | None
    regularizer_weight: float | None
    standardize: bool | None


class TrainingOptions(TypedDict, total=False):
    """How the model is trained.

    Attributes:
        epochs: Passes over the training set.
        batch_size: Examples per step.
        lr: Initial learning rate.
        patience: Epochs without a better validation loss until the learning rate is cut.
        factor: The learning rate is then multiplied by this.
        min_lr: The learning rate is not cut below this.
        min_delta: By how much a validation loss has to be lower to count as better for this.
        watch: Validation loss that is watched: "reconstruction and penalty", or "objective", with the regularizer, as
            the official code does.
        clip: Clip the norm of the whole gradient to this value.
        schedule: How the learning rate falls: plateau (cut when the validation loss does not get better; the default),
            cosine (to --min-lr over all epochs) or constant.
        lr_warmup: Epochs over which the learning rate rises from 0; 0.5 is half an epoch.
        beta_warmup: Epochs over which the weight of the latent penalty rises from 0 to --beta.
        ema: Use the mean of the weights over steps, with this decay, such as 0.999; default: the last weights.
        seed: Seed of the weights (of built-in networks), the order of examples and the noise.
        device: auto, cpu, cuda or mps.
        precision: float32, bf16, or auto: bf16 where the device has instructions for it, else float32.
        checkpoint_seconds: Longest time between checkpoints, which is the work that a kill may cost. One is also
            written after each epoch, unless that would take more than a twentieth of the time.
        tensorboard: Whether to write TensorBoard files; default: if TensorBoard is installed.
    """

    epochs: int | None
    batch_size: int | None
    lr: float | None
    patience: int | None
    factor: float | None
    min_lr: float | None
    min_delta: float | None
    watch: Literal["reconstruction and penalty", "objective"] | None
    clip: float | None
    schedule: ScheduleName | None
    lr_warmup: float | None
    beta_warmup: float | None
    ema: float | None
    seed: int | None
    device: str | None
    precision: Precision | None
    checkpoint_seconds: float | None
    tensorboard: bool | None


class TrainOptions(DataOptions, StringOptions, ModelOptions, TrainingOptions, total=False):
    """All options of `expost.train` that the groups declare; None leaves one to the preset."""


DATA, STRINGS, MODEL, TRAINING = map(Group, (DataOptions, StringOptions, ModelOptions, TrainingOptions))
