"""The training loop: Adam, a scheduled learning rate, best weights kept in memory, in one process or several.

`trainer` runs it over a folder, with checkpoints and records; the estimators run it in memory. Every draw is addressed
by (seed, stream, step), so on a CPU the weights after so many steps are the same bits, however often training was
stopped and resumed (with the same number of threads and of processes). Several processes take each step together, each
on its part of the batch; see `distributed.shards`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from expost import distributed
from expost.config import TrainingConfig
from expost.distributed.gradients import Gradients, replicated
from expost.distributed.shards import Noise, split
from expost.errors import DataError
from expost.metrics.latent import symbol_use
from expost.models.autoencoder import Autoencoder
from expost.models.latents import Discrete
from expost.training.averaging import BATCHES, Averaged, measures_inputs, measuring
from expost.training.batches import Batches
from expost.training.cuda_graph import Recorded, recordable
from expost.training.devices import pick_device, place
from expost.training.schedules import SCHEDULES, ramp, rate, warming
from expost.types import Loss, to_unit
from expost.utils.precision import choose, full_float32
from expost.utils.seeding import NOISE, ORDER, VALIDATION, WEIGHTS, generator, isolated, stream_seed


class NonFiniteLossError(DataError):
    """A loss or a weight is infinite or NaN; the message says in which epoch and step, and which one."""


@dataclass
class Position:
    """How far a training has come.

    Attributes:
        epoch: Finished epochs.
        step: Steps taken in the current epoch.
        steps: Steps taken in all.
        best: Lowest validation loss so far; None before the first.
        sums: Sums of the training terms over the steps of the current epoch.
        seconds: Time spent training, in all.
        plateau: State of what cuts the learning rate.
        lr: Learning rate, as far as it has been cut; the schedule and the warm-up go by `steps`.
    """

    epoch: int = 0
    step: int = 0
    steps: int = 0
    best: float | None = None
    sums: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    plateau: dict[str, Any] = field(default_factory=dict)
    lr: float = 0.0


@dataclass(frozen=True)
class Epoch:
    """The result of one epoch.

    Attributes:
        number: From 1.
        lr: Learning rate of its last step.
        train: Mean loss ("total") and terms over its training batches.
        validation: Mean loss and terms on the validation examples after it.
        best: Whether its validation loss is the lowest so far.
        symbols: Number of symbols of a discrete code; None for other codes. Then `validation` has their "perplexity"
            exp(H), with H the entropy of the symbols in nats, and their "usage", the share of them that occur.
    """

    number: int
    lr: float
    train: Mapping[str, float]
    validation: Mapping[str, float]
    best: bool
    symbols: int | None = None


@dataclass(frozen=True)
class BestWeights:
    """The weights of the lowest validation loss.

    Attributes:
        tensors: The model's state dictionary.
        epoch: The epoch after which they were taken.
        validation: Its validation loss.
    """

    tensors: dict[str, Tensor]
    epoch: int
    validation: float


class Loop:
    """Trains a model epoch by epoch, in memory.

    Args:
        model: Moved to the device of the configuration, and trained there.
        x: Training examples, as `Split.x` has them, at least one batch.
        held_out: Validation examples; by their loss the learning rate is cut and the best weights are chosen.
        config: How to train. `epochs` is up to the caller, who may stop sooner.

    Attributes:
        position: How far the training has come.
        best: The best weights of this call; None before the first epoch, and once a caller has stored them elsewhere.
        averaged: The mean of the weights over the steps; None where there is to be none.
    """

    def __init__(self, model: Autoencoder, x: Tensor, held_out: Tensor, config: TrainingConfig) -> None:
        self.model, self.held_out, self.config = model, held_out, config
        self.device = pick_device(config.device)
        self.arithmetic = choose(config.precision, self.device).arithmetic
        self.batch_size, self.steps_per_epoch = config.batches(len(x))
        model.learn(x, generator(config.seed, WEIGHTS, 1))
        place(model, self.device)
        self.optimizer = torch.optim.Adam(model.parameters(), lr=config.lr, fused=self.device.type in ("cpu", "cuda"))
        self.scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self.optimizer,
            factor=config.factor,
            patience=config.patience - 1,  # torch counts the epochs that it lets pass, Keras those that it takes
            threshold=config.min_delta,
            threshold_mode="abs",
            min_lr=config.min_lr,
        )
        self.batches = Batches(x, self.device)
        self.averaged = Averaged(model, config.ema) if config.ema is not None else None
        # on the device, where a recorded graph finds its value of each step; None: the whole beta
        self.beta_share = torch.ones((), device=self.device) if config.beta_warmup else None
        self.recorded = Recorded(self._passes, list(model.parameters())) if recordable(model, self.device) else None
        self.gradients = Gradients([])
        self.position = Position(lr=config.lr)
        self.best: BestWeights | None = None
        self._since = 0.0

    def resume(self, position: Position) -> None:
        """Continue from a position, of which the weights and the optimizer's state are loaded already."""
        self.position = position
        self.scheduler.load_state_dict(position.plateau)

    def snapshot(self, sums: Mapping[str, float]) -> Position:
        """Return the position to resume from, given the sums of the current epoch's terms over all processes."""
        self.position.sums = dict(sums)
        self.position.plateau = {
            key: value
            for key, value in self.scheduler.state_dict().items()
            if isinstance(value, int | float) and _finite(value)
        }
        return self.position

    @contextmanager
    def running(self) -> Iterator[None]:
        """Train inside this block: the global generators are isolated, float32 is exact, and processes are in step."""
        with isolated(), full_float32(), replicated(self.model) as self.gradients:
            yield

    def epoch(self, after_step: Callable[[Mapping[str, Tensor]], None] = lambda sums: None) -> Epoch:
        """Finish the current epoch: its steps, then the validation loss.

        Args:
            after_step: Called after each step with the sums of the terms over the epoch so far, on the device.

        Raises:
            NonFiniteLossError: if a term, or a weight of the best weights, is infinite or NaN.
        """
        position = self.position
        self._since = time.perf_counter()
        self.model.train()
        order = torch.randperm(len(self.batches), generator=generator(self.config.seed, ORDER, position.epoch))
        order = order.to(self.batches.home)
        sums = self._first_sums()
        while position.step < self.steps_per_epoch:
            loss = self.step(order)
            for name, value in [("total", loss.total), *loss.terms.items()]:
                sums[name] = sums.get(name, 0) + value
            after_step(sums)
        found, _ = self.agree(sums)
        weights: dict[str, Tensor] = {}
        with self._used_weights(order):
            validation = self.validate()
            self._check_finite(validation)
            best = position.best is None or validation["total"] < position.best
            if best:
                weights = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        lr = self._rate(position.steps - 1)
        self._cut_rate(validation["total"])
        position.epoch, position.step, position.sums = position.epoch + 1, 0, {}
        self.count_time()
        if best:
            self._check_weights(weights)
            position.best = validation["total"]
            self.best = BestWeights(weights, position.epoch, position.best)
        train = {name: value / self.steps_per_epoch for name, value in found.items()}
        symbols = self.model.latent.symbols if isinstance(self.model.latent, Discrete) else None
        return Epoch(position.epoch, lr, train, validation, best, symbols)

    def step(self, order: Tensor) -> Loss:
        """Take a step; the losses of all processes add up to the batch's.

        Args:
            order: Indices of the training examples, in the order of this epoch.
        """
        self._set_rate(self._rate(self.position.steps))
        if self.beta_share is not None:
            self.beta_share.fill_(ramp(self.position.steps, self._warming(self.config.beta_warmup)))
        start, size = self.position.step * self.batch_size, self.batch_size
        noise = Noise(stream_seed(self.config.seed, NOISE, self.position.steps), self.device)
        with split(size, noise) as part:
            batch, then = order[start : start + size], order[start + size : start + 2 * size]
            x = self.batches.take(batch[part.rows], then[part.rows])
            if self.recorded is None:
                self.optimizer.zero_grad()
                loss = self._passes(x, part.share)
            else:
                loss = self.recorded(x)
            self.gradients.finish()
        if self.config.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimizer.step()
        self.position.step += 1
        self.position.steps += 1
        if self.averaged is not None:
            self.averaged.add(self.position.steps)
        return loss

    def validate(self) -> dict[str, float]:
        """Return the mean loss and terms on the validation examples, with the same noise every time.

        Where codes are discrete, also the perplexity and usage of their symbols, see `Epoch`.
        """
        self.model.eval()
        regularize = self.config.watch == "objective"
        # the gradient penalty differentiates, which what was made in inference mode does not allow
        with torch.no_grad() if regularize else torch.inference_mode():
            return self._validation(regularize)

    def _validation(self, regularize: bool) -> dict[str, float]:
        noise = Noise(stream_seed(self.config.seed, VALIDATION), self.device)
        x = self.held_out
        found: list[tuple[Loss, float]] = []
        for batch in x.tensor_split(max(1, len(x) // self.batch_size)):  # nearly equal parts, none of one example
            with split(len(batch), noise) as part, self._autocast():
                loss = self.model.loss(to_unit(batch[part.rows].to(self.device)), regularize).times(part.share)
            found.append((loss.detach(), len(batch) / len(x)))
        sums: dict[str, float] = {}
        symbols = [loss.symbols for loss, _ in found if loss.symbols is not None]
        occurred = torch.stack(symbols).sum(0).cpu().double() if symbols else torch.empty(0, dtype=torch.float64)
        for loss, share in found:  # looked at when all are under way: each look waits for the device
            for name, value in [("total", loss.total), *loss.terms.items()]:
                sums[name] = sums.get(name, 0.0) + value.item() * share
        values, occurred = distributed.total(torch.tensor(list(sums.values()), dtype=torch.float64), occurred)
        return dict(zip(sums, values.tolist(), strict=True)) | (asdict(symbol_use(occurred)) if symbols else {})

    def agree(self, sums: Mapping[str, Tensor], flags: Sequence[bool] = ()) -> tuple[dict[str, float], list[bool]]:
        """Exchange what all processes must decide alike; it waits for the device.

        Returns:
            The sums over all processes, and whether each flag is set in any of them.

        Raises:
            NonFiniteLossError: if a sum is infinite or NaN.
        """
        mine = [*map(float, flags), *(value.item() for value in sums.values())]
        (exchanged,) = distributed.total(torch.tensor(mine, dtype=torch.float64))
        values = exchanged.tolist()
        found = dict(zip(sums, values[len(flags) :], strict=True))
        self._check_finite(found)
        return found, [value > 0 for value in values[: len(flags)]]

    def count_time(self) -> None:
        """Add the time since the epoch began, or since it was counted last, to the training time."""
        now = time.perf_counter()
        self.position.seconds += now - self._since
        self._since = now

    def load_best(self) -> None:
        """Load the best weights into the model, and put it in evaluation mode; after at least one epoch."""
        if self.best is not None:
            self.model.load_state_dict(self.best.tensors)
        self.model.eval()

    def _passes(self, x: Tensor, share: float = 1.0) -> Loss:
        """Return the loss of a batch, or of a share of one, and leave its gradients in the parameters."""
        with self._autocast(), parametrize.cached():  # layers may ask for their weights several times
            loss = self.model.loss(x, beta_share=self.beta_share).times(share)
        loss.total.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _rate(self, step: int) -> float:
        """Return the learning rate of the step after `step` others."""
        return rate(self.config, self.position.lr, step, self.steps_per_epoch)

    def _set_rate(self, lr: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    def _cut_rate(self, loss: float) -> None:
        """Cut the learning rate if the validation loss has not got better for long enough after the warm-ups."""
        warm = max(self._warming(self.config.lr_warmup), self._warming(self.config.beta_warmup))
        if SCHEDULES[self.config.schedule].plateau and self.position.steps >= warm:
            self._set_rate(self.position.lr)
            self.scheduler.step(loss)
            self.position.lr = self.optimizer.param_groups[0]["lr"]

    def _warming(self, epochs: float) -> int:
        return warming(epochs, self.steps_per_epoch)

    @contextmanager
    def _used_weights(self, order: Tensor) -> Iterator[None]:
        """Have the weights that are validated and saved in the model: their mean over the steps, if one is taken.

        Args:
            order: Indices of the training examples, in the order of this epoch; some measure the layers' statistics.
        """
        if self.averaged is None:
            yield
            return
        with self.averaged.in_place():
            if measures_inputs(self.model):
                self._measure(order)
            yield

    @torch.no_grad()
    def _measure(self, order: Tensor) -> None:
        noise = Noise(stream_seed(self.config.seed, VALIDATION, 1), self.device)
        count, size = min(BATCHES, self.steps_per_epoch), self.batch_size
        with measuring(self.model):
            for number in range(count):
                with split(size, noise) as part, self._autocast(), parametrize.cached():
                    batch = order[number * size : (number + 1) * size]
                    self.model.loss(self.batches.take(batch[part.rows]), regularize=False)

    def _autocast(self) -> torch.autocast:
        # casts of the weights that a graph has recorded must not outlive the step
        cached = self.recorded is None
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.arithmetic == "bf16", cache_enabled=cached)

    def _first_sums(self) -> dict[str, Tensor]:
        """Return the sums of the terms so far in the epoch; of several processes the first has them."""
        mine = float(distributed.is_main())
        return {name: torch.tensor(mine * value, device=self.device) for name, value in self.position.sums.items()}

    def _check_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Refuse weights that the validation loss does not look at, and that an overflow in a gradient has spoiled."""
        for name, tensor in weights.items():
            if not bool(tensor.isfinite().all()):
                raise NonFiniteLossError(f"weights '{name}' stopped being finite in epoch {self.position.epoch}")

    def _check_finite(self, values: Mapping[str, float]) -> None:
        bad = ", ".join(f"{name} is {value}" for name, value in values.items() if not _finite(value))
        if bad:
            at = f"epoch {self.position.epoch + 1}, step {self.position.step}"
            raise NonFiniteLossError(f"the loss stopped being finite in {at} ({bad})")


def _finite(value: float) -> bool:
    return value - value == 0
