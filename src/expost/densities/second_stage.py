"""The second-stage VAE: a small VAE on the codes of the first stage (Dai & Wipf 2019, section 4)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor
from torch.nn.functional import linear

from expost.densities.base import Fit
from expost.densities.checks import check_bool, check_compatible, check_depth, check_float, check_int, check_seed
from expost.densities.drawing import draw_normal
from expost.densities.staged import StagedDensity
from expost.densities.units import Units
from expost.errors import DataError, UsageError
from expost.utils.progress import progress

#: The weights that a fit keeps: all but those of log sigma, which only training needs.
_KEPT = ("encoder.", "mu.", "decoder.")
# Initial value of a learned gamma. From 1, the deviation of standardized codes, training on uncorrelated codes never
# leaves the trivial solution, a decoder that ignores u.
_FIRST_GAMMA = 0.3


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class SecondStageVAE(StagedDensity):
    """q(z) = integral of p(z | u) N(u; 0, I) du with p(z | u) Gaussian around a network's output.

    The codes are standardized per dimension, t = (z - mean) / deviation. Encoder and decoder are multilayer perceptrons
    (`depth` layers of `width`, ReLU) between t and u, which has as many dimensions; log sigma(t) is 5 tanh of its
    head, and the weights start as Glorot uniform, as in the experiments of Ghosh et al. 2020. The loss is
    the negative ELBO in nats, summed over dimensions and averaged over codes,

        || t - D(u) ||^2 / (2 gamma^2) + d/2 log(2 pi gamma^2) + KL(N(mu(t), sigma(t)^2) || N(0, I))

    with u drawn from N(mu(t), sigma(t)^2).

    With `kl_weight` "learned", gamma is a trained parameter and samples get its noise, as in Dai & Wipf. A number k
    fixes gamma^2 = k d / 2. Then, up to a constant and the factor 1/k, this is the loss of the experiments of Ghosh et
    al.: mean over dimensions of the squared error + k KL (in this library's convention, sums over dimensions,
    the KL's weight is k d). They sample without noise. A small k reconstructs codes well, but lets their u drift from
    N(0, I), where samples start; a learned gamma usually samples better.

    One tenth of the codes (at least one) is held out. After every epoch their ELBO is evaluated with the same noise
    each time; when it has not improved for `patience` epochs the learning rate is halved, and the weights of the best
    epoch are kept. Training is in float32. A dimension in which all codes agree is sampled as that constant. Log q(z)
    is intractable.

    The settings of Ghosh et al. are width 1024, lr 1e-4, patience 3, noise False, and kl_weight 1.5e-3 (MNIST), 1e-3
    (CIFAR-10) or 2e-3 (CelebA). Our defaults of these train in seconds on a CPU, and sample better from a few thousand
    codes; the other defaults are theirs.

    `encode` and `decode` go between the codes and the u of their own, without noise.

    Statistics: `seed`, `encoder` (that it is kept), `epochs`, `best_epoch` (from 1), `validation_loss` (of that epoch,
    nats), `gamma` (in units of the standardized codes), `lr` (the last).

    Attributes:
        width: Units of a hidden layer.
        depth: Hidden layers of the encoder, and of the decoder.
        epochs: Passes over the codes that are not held out.
        batch_size: Codes per step.
        lr: Initial learning rate of Adam.
        kl_weight: k, above 0, or "learned".
        noise: Whether samples get the observation noise N(0, gamma^2), as Dai & Wipf sample; without it they are the
            means D(u), as Ghosh et al. sample.
        patience: Epochs without improvement until the learning rate is halved.
        seed: Seed of the weights, the held-out part, the batches and the training noise.

    Example:
        >>> z = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> SecondStageVAE(width=16, epochs=2).fit(z).sample(3).shape
        torch.Size([3, 2])
    """

    name: ClassVar[str] = "second-stage-vae"
    words: ClassVar[str] = "the second stage"
    width: int = 256
    depth: int = 2
    epochs: int = 100
    batch_size: int = 64
    lr: float = 3e-3
    kl_weight: float | Literal["learned"] = "learned"
    noise: bool = True
    patience: int = 10
    seed: int = 0

    def _check(self) -> None:
        for name in ("width", "epochs", "batch_size", "patience"):
            check_int(name, getattr(self, name), minimum=1)
        check_float("lr", self.lr, minimum=0, above=True)
        check_depth("depth", self.depth)
        check_bool("noise", self.noise)
        check_seed(self.seed)
        if isinstance(self.kl_weight, str):
            if self.kl_weight != "learned":
                raise UsageError(f"kl_weight={self.kl_weight!r} is unknown; choose a number above 0 or 'learned'")
        else:
            check_float("kl_weight", self.kl_weight, minimum=0, above=True)

    def _fit(self, z: Tensor) -> Fit:
        units = Units.of_deviation(z)
        t = units.apply(z).masked_fill(units.constant, 0.0).float()
        with torch.enable_grad():
            weights, statistics = self._train(t)
        kept = {name: tensor for name, tensor in weights.items() if name.startswith(_KEPT)}
        deviation = units.scale.masked_fill(units.constant, 0.0)
        tensors = {"mean": units.center, "deviation": deviation, "log_gamma": weights["log_gamma"]}
        return Fit(tensors | kept, {"seed": self.seed, "encoder": True, **statistics})

    def _train(self, t: Tensor) -> tuple[dict[str, Tensor], dict[str, float | int]]:
        """Train on standardized codes, float32; return the best epoch's weights and the statistics."""
        generator = torch.Generator().manual_seed(self.seed)  # on the CPU: every device takes the same steps
        weights = self._initial_weights(t.shape[1], generator, t.device)
        order = torch.randperm(t.shape[0], generator=generator).to(t.device)
        n_held_out = max(1, t.shape[0] // 10)
        held_out, training = t[order[:n_held_out]], t[order[n_held_out:]]
        held_out_noise = torch.randn(held_out.shape, generator=generator).to(t.device)
        trained = [tensor.requires_grad_() for name, tensor in weights.items() if self._is_trained(name)]
        optimizer = torch.optim.Adam(trained, lr=self.lr, fused=True if t.is_cuda else None)
        best, best_epoch, waited = math.inf, 0, 0
        kept: dict[str, Tensor] = {}
        with progress("training the second stage", self.epochs) as bar:
            for epoch in range(1, self.epochs + 1):
                bar.advance()
                for batch, noise in self._batches(training, generator):
                    loss = self._loss(batch, noise, weights)
                    optimizer.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                with torch.no_grad():
                    validation = self._loss(held_out, held_out_noise, weights).item()
                if not math.isfinite(validation):
                    raise DataError(f"{self.name}: the loss is {validation} in epoch {epoch}; lower lr={self.lr:g}")
                waited += 1
                if validation < best:
                    best, best_epoch, waited = validation, epoch, 0
                    kept = {name: tensor.detach().clone() for name, tensor in weights.items()}
                elif waited >= self.patience:
                    optimizer.param_groups[0]["lr"] *= 0.5
                    waited = 0
        return kept, {
            "epochs": self.epochs,
            "best_epoch": best_epoch,
            "validation_loss": best,
            "gamma": kept["log_gamma"].exp().item(),
            "lr": optimizer.param_groups[0]["lr"],
        }

    def _batches(self, t: Tensor, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield one epoch's batches in random order, each with its noise; all of it is copied to the device at once."""
        order = torch.randperm(t.shape[0], generator=generator)
        sizes = [len(rows) for rows in torch.split(order, self.batch_size)]
        noise = torch.cat([torch.randn(size, t.shape[1], generator=generator) for size in sizes]).to(t.device)
        yield from zip(torch.split(t[order.to(t.device)], sizes), torch.split(noise, sizes), strict=True)

    def _loss(self, t: Tensor, noise: Tensor, weights: dict[str, Tensor]) -> Tensor:
        """Return the mean negative ELBO in nats of standardized codes, with u = mu + sigma noise."""
        hidden = _perceptron(t, weights, "encoder", self.depth).relu()
        mu = linear(hidden, weights["mu.weight"], weights["mu.bias"])
        log_sigma = 5 * linear(hidden, weights["log_sigma.weight"], weights["log_sigma.bias"]).tanh()
        output = self._decode(mu + log_sigma.exp() * noise, weights)
        log_gamma = weights["log_gamma"]
        squared_error = (t - output).square().sum(1)
        reconstruction = 0.5 * squared_error * (-2 * log_gamma).exp() + t.shape[1] * (
            log_gamma + 0.5 * math.log(2 * math.pi)
        )
        divergence = 0.5 * (mu.square() + (2 * log_sigma).exp() - 2 * log_sigma - 1).sum(1)
        return (reconstruction + divergence).mean()

    def _decode(self, u: Tensor, weights: dict[str, Tensor]) -> Tensor:
        return _perceptron(u, weights, "decoder", self.depth + 1)

    def _is_trained(self, name: str) -> bool:
        return name != "log_gamma" or self.kl_weight == "learned"

    def _initial_weights(self, d: int, generator: torch.Generator, device: torch.device) -> dict[str, Tensor]:
        """Return Glorot uniform weights, zero biases, and gamma."""
        weights = {}
        for name, (rows, columns) in self._matrices(d).items():
            limit = math.sqrt(6 / (rows + columns))
            uniform = torch.rand(rows, columns, generator=generator)
            weights[f"{name}.weight"] = ((2 * uniform - 1) * limit).to(device)
            weights[f"{name}.bias"] = torch.zeros(rows, device=device)
        gamma = _FIRST_GAMMA if isinstance(self.kl_weight, str) else math.sqrt(self.kl_weight * d / 2)
        weights["log_gamma"] = torch.tensor(math.log(gamma), device=device)
        return weights

    def _matrices(self, d: int) -> dict[str, tuple[int, int]]:
        """Return the weight matrices' shapes (outputs, inputs) by name."""
        hidden = [(self.width, d), *[(self.width, self.width)] * (self.depth - 1)]
        encoder = {f"encoder.{i}": shape for i, shape in enumerate(hidden)}
        heads = {"mu": (d, self.width), "log_sigma": (d, self.width)}
        return encoder | heads | {f"decoder.{i}": shape for i, shape in enumerate([*hidden, (d, self.width)])}

    def _draw(self, n: int, generator: torch.Generator | None, temperature: float) -> Tensor:
        fit = self.tensors
        u = draw_normal(n, self.dim, generator, fit["mean"].device, temperature)
        t = self._decode(u.float(), fit).double()
        if self.noise:
            t = t + fit["log_gamma"].exp() * draw_normal(n, self.dim, generator, t.device, temperature)
        return fit["mean"] + fit["deviation"] * t

    @property
    def encodes(self) -> bool:
        """Whether the fit has its encoder; fits of early versions kept the decoder alone."""
        return bool(self.statistics.get("encoder"))

    @torch.no_grad()
    def encode(self, z: Tensor) -> Tensor:
        """Return the means mu(t) of the codes' own codes u, float32, shape (N, d).

        Raises:
            DataError: if the codes are not finite or of another shape.
            UsageError: if the density was not fitted, or its file is of a version that did not keep the encoder.
        """
        if not self.encodes:
            raise UsageError("this second stage was saved without its encoder; fit it again")
        check_compatible(z, self.shape)
        fit = self.tensors
        deviation = fit["deviation"]
        t = (z.detach().to(deviation).flatten(1) - fit["mean"]) / deviation.masked_fill(deviation == 0, 1.0)
        hidden = _perceptron(t.float(), fit, "encoder", self.depth).relu()
        return linear(hidden, fit["mu.weight"], fit["mu.bias"]).to(z.device)

    @torch.no_grad()
    def decode(self, u: Tensor) -> Tensor:
        """Return the codes z = mean + deviation D(u), float32, of their shape, without observation noise."""
        check_compatible(u, (self.dim,))
        fit = self.tensors
        t = self._decode(u.detach().to(fit["mean"].device).float(), fit).double()
        return (fit["mean"] + fit["deviation"] * t).float().to(u.device).reshape(-1, *self.shape)

    def _layout(self, statistics: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        d = statistics["d"]
        layout: dict[str, tuple[int, ...]] = {"mean": (d,), "deviation": (d,), "log_gamma": ()}
        for name, (rows, columns) in self._matrices(d).items():
            if f"{name}.".startswith(_KEPT if statistics.get("encoder") else "decoder."):
                layout |= {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}
        return layout


def _perceptron(x: Tensor, weights: dict[str, Tensor], name: str, layers: int) -> Tensor:
    """Apply `layers` linear maps with ReLU between them."""
    for i in range(layers):
        x = linear(x if i == 0 else x.relu(), weights[f"{name}.{i}.weight"], weights[f"{name}.{i}.bias"])
    return x
