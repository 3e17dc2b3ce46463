"""The autoencoder: encoder + decoder + latent + latent penalty + decoder regularizer + reconstruction."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from expost.config import MOST_NUMBERS, ModelConfig
from expost.distributed import world
from expost.distributed.shards import normal_like
from expost.errors import UsageError
from expost.grammar.stepwise import Stepwise
from expost.models.latents import LATENTS, Discrete, Latent
from expost.models.penalties import PENALTIES, Divergence, Penalty
from expost.models.pseudo_inputs import PseudoInputs
from expost.models.reconstructions import RECONSTRUCTIONS, Reconstruction
from expost.models.regularizers import REGULARIZERS, Regularizer
from expost.models.standardization import Standardization
from expost.networks import NETWORKS
from expost.networks.autoregressive import AutoregressiveDecoder, TeacherForced
from expost.networks.convolution import differentiated_twice
from expost.registry import construct
from expost.types import LatentCode, Loss, to_unit


class Autoencoder(nn.Module):
    """One row of choices, trained by one objective (Ghosh et al. 2020, eq. 9).

    L = L_REC(x, D(z)) + beta * L_Z(code) + lambda * L_REG(D, code), with the code from the latent applied to E(x);
    every term is summed over an example's dimensions and averaged over the batch.

    A latent that draws k > 1 codes z_1 ... z_k of an example has the importance-weighted bound (Burda et al. 2016,
    eq. 8) in place of the first two terms. With r_i the reconstruction term from z_i, it is

        -beta log 1/k sum_i w_i,    log w_i = -r_i / beta - log q(z_i | x) + log p(z_i)

    since -r / beta is, but for a constant, the log-likelihood of the decoder of which r + beta KL is the bound, times
    beta (squared error: a normal one of variance beta / 2). Its term "reconstruction" is the mean of the r_i, and
    "penalty" what is left, divided by beta; with k = 1 that is the divergence at the code that was drawn.

    Args:
        encoder: Maps examples (B, *shape) to features.
        latent: Maps features to codes.
        decoder: Maps codes to examples.
        penalty: The term L_Z.
        regularizer: The term L_REG, or a reparametrisation, already prepared.
        reconstruction: The term L_REC.
        beta: Weight of the penalty, at least 0.
        regularizer_weight: lambda, at least 0.
        input_noise: Standard deviation of Gaussian noise on the encoder's input while training, cut off at one standard
            deviation, as in the official code; the clean examples are the target.
        shape: Shape of one example.
        standardization: Columns of vectors in standard units: examples come and go in the units of the data, and all
            terms are computed in standard ones. None computes on examples as they are.

    Raises:
        UsageError: if the latent draws several codes, and the penalty is no divergence, or beta is 0.
    """

    def __init__(
        self,
        encoder: nn.Module,
        latent: Latent,
        decoder: nn.Module,
        penalty: Penalty,
        regularizer: Regularizer,
        reconstruction: Reconstruction,
        beta: float,
        regularizer_weight: float,
        shape: Sequence[int],
        input_noise: float = 0.0,
        standardization: Standardization | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.latent = latent
        self.decoder = decoder
        self.penalty = penalty
        self.regularizer = regularizer
        self.reconstruction = reconstruction
        self.beta = beta
        self.regularizer_weight = regularizer_weight
        self.shape = tuple(shape)
        self.input_noise = input_noise
        self.standardization = standardization
        count = penalty.pseudo_inputs
        self.pseudo_inputs = PseudoInputs(count, self.shape) if count else None
        if latent.samples > 1 and not (isinstance(penalty, Divergence) and beta > 0):
            raise UsageError(
                f"samples is {latent.samples}: the bound of several codes needs penalty kl or posterior-mixture and "
                f"beta above 0 (it is {beta:g}); leave samples at 1"
            )

    def code(self, x: Tensor, noise: bool = False) -> LatentCode:
        """Return the codes of `x`, without the decoder.

        Args:
            x: Examples, float, shape (B, *shape); images in [0, 1]. Strings: symbols (B, L), or one-hot (B, L, V).
            noise: Whether a stochastic latent draws z from its posterior.

        Raises:
            UsageError: if the examples have another shape than the model was built for.
        """
        return self._code_of(self._inside(x), noise)

    def _inside(self, x: Tensor) -> Tensor:
        """Return examples as the networks see them: one-hot, or columns in standard units."""
        x = self._one_hot(x)
        if tuple(x.shape[1:]) != self.shape:
            raise UsageError(
                f"examples have shape {tuple(x.shape[1:])}, the model was built for {self.shape}; "
                f"{_remedy(tuple(x.shape), self.shape)}"
            )
        return x if self.standardization is None else self.standardization.standardize(x)

    def _outside(self, output: Tensor) -> Tensor:
        """Return what the decoder gives in the units of the data."""
        return output if self.standardization is None else self.standardization.restore(output)

    def _code_of(self, x: Tensor, noise: bool) -> LatentCode:
        """Return the codes of examples as the networks see them."""
        return self._code_from(self._features(x), noise)

    def _features(self, x: Tensor) -> Tensor:
        features = self.encoder(x)
        return features if self.latent.spatial else features.flatten(1)

    def _code_from(self, features: Tensor, noise: bool) -> LatentCode:
        with torch.autocast(features.device.type, enabled=False):
            code: LatentCode = self.latent(features.float(), noise)
        return code

    def _one_hot(self, x: Tensor) -> Tensor:
        """Turn symbols into one-hot vectors, batch by batch: those of a whole data set may not fit into memory."""
        if not _are_symbols(x):
            return x
        return functional.one_hot(x.long(), self.shape[-1]).float()

    def learn(self, x: Tensor, source: torch.Generator) -> None:
        """Take from training examples what the model is to know of them: units of columns, the first pseudo-inputs.

        Args:
            x: As `Split.x` has them.
            source: Chooses the examples at which pseudo-inputs start.
        """
        if self.standardization is not None:
            self.standardization.learn(x)
        if self.pseudo_inputs is not None:
            count = len(self.pseudo_inputs.values)
            rows = torch.randperm(len(x), generator=source)[torch.arange(count) % len(x)]
            self.pseudo_inputs.start(self._inside(to_unit(x[rows])).to(self.pseudo_inputs.values.device))

    @torch.no_grad()
    def posteriors(self) -> tuple[Tensor, Tensor] | None:
        """Return means and standard deviations of the pseudo-inputs' posteriors, shape (K, d); None without any."""
        prior = self._prior()
        return None if prior is None else (prior[0], (0.5 * prior[1]).exp())

    def _prior(self) -> tuple[Tensor, Tensor] | None:
        """Return means and log-variances of the pseudo-inputs' posteriors, encoded as in evaluation mode.

        So the prior of training is that of sampling, and no other example of the batch, on any process, changes it.
        """
        if self.pseudo_inputs is None:
            return None
        modes = [(module, module.training) for module in self.encoder.modules()]
        self.encoder.eval()
        try:
            code = self._code_of(self.pseudo_inputs(), noise=False)
        finally:
            for module, training in modes:
                module.training = training
        if code.log_var is None:
            raise UsageError("pseudo-inputs need a latent with a variance; use gaussian or constant-variance")
        return code.mean, code.log_var.expand_as(code.mean)

    def encode(self, x: Tensor) -> Tensor:
        """Return the noiseless codes E(x), float32, shape (B, d), or symbols (B, h, w) of a discrete latent."""
        code = self.code(x)
        return code.mean if code.indices is None else code.indices.to(code.mean.dtype)

    def decode(self, z: Tensor) -> Tensor:
        """Return D(z), float32, shape (B, *shape); logits for strings.

        Codes of a discrete latent are symbols (B, h, w), or vectors (B, d, h, w), of which the nearest are taken.

        Raises:
            UsageError: if the decoder reads its own output, so that there is no D(z); use `stepwise`.
        """
        if self.autoregressive:
            raise UsageError(
                "the decoder reads the symbols that it has written, so a code alone gives no logits; decode by a "
                "StringGenerator, which run.string_generator() gives"
            )
        return self._outside(self.decoder(self.latent.decodable(z)))

    @property
    def autoregressive(self) -> bool:
        """Whether the decoder reads its own output."""
        return isinstance(self.decoder, AutoregressiveDecoder)

    def stepwise(self, z: Tensor) -> Stepwise:
        """Return an autoregressive decoder's logits for codes (B, d), for `Codec.generate` to walk through."""
        if not isinstance(self.decoder, AutoregressiveDecoder):
            raise UsageError("the decoder does not read its own output; use decode")
        return self.decoder.stepwise(self.latent.decodable(z))

    def _decoder(self, x: Tensor) -> nn.Module:
        """Return the decoder as a function of codes; an autoregressive one is given the true symbols of `x`."""
        if isinstance(self.decoder, AutoregressiveDecoder):
            return TeacherForced(self.decoder, x.long() if _are_symbols(x) else x.argmax(-1))
        return self.decoder

    def forward(self, x: Tensor) -> Tensor:
        """Return the noiseless reconstructions D(E(x)); an autoregressive decoder is given the true symbols."""
        return self._outside(self._decoder(x)(self.code(x).z))

    def reconstruction_of(self, x: Tensor, z: Tensor) -> Tensor:
        """Return the reconstruction term of examples `x` and what is decoded from codes `z`, a scalar."""
        output = self._decoder(x)(self.latent.decodable(z))
        return self.reconstruction(self._inside(x), output.float())

    def loss(self, x: Tensor, regularize: bool = True, beta_share: Tensor | None = None) -> Loss:
        """Return the objective on a batch, with the latent's noise (drawn from torch's global generator).

        Args:
            x: Examples, as `code` takes them.
            regularize: Whether to compute L_REG; zero otherwise. It says nothing about held-out examples.
            beta_share: Share of beta that the penalty has now, a scalar in (0, 1]; None: all of it.
        """
        given, decoder = x, self._decoder(x)
        x = self._inside(x)
        noisy = x
        if self.input_noise and self.training:
            noisy = x + self.input_noise * normal_like(x).clamp(-1, 1)
        features, prior = self._features(noisy), self._prior()
        codes = [self._code_from(features, noise=True) for _ in range(self.latent.samples)]
        if prior is not None:
            codes = [replace(code, prior_mean=prior[0], prior_log_var=prior[1]) for code in codes]
        beta = self.beta if beta_share is None else self.beta * beta_share
        # a term without weight is not computed: the gradient penalty would cost as much as the rest
        regularized = bool(self.regularizer_weight) and regularize
        # the gradient below ignores the share of the batch that each of several processes has
        shared = regularized and self.regularizer.wants_output and torch.is_grad_enabled() and world() == 1
        shared = shared and len(codes) == 1
        # the regularizer trains the decoder alone: where it reads the output, codes are cut off from the encoder
        code, output = codes[0], None
        decoded = replace(code, z=code.z.detach().requires_grad_()) if shared else code
        if len(codes) > 1:
            reconstruction, penalty = self._bound(given, x, codes, beta)
        else:
            with differentiated_twice() if shared else nullcontext():
                output = decoder(decoded.z)
            with torch.autocast(x.device.type, enabled=False):
                reconstruction = self.reconstruction(x, output.float())
                penalty = self.penalty(code)
        regularizer = (
            self.regularizer.penalty(decoder, decoded, output if shared else None)
            if regularized
            else reconstruction.new_zeros(())
        )
        total = reconstruction + beta * penalty + self.regularizer_weight * regularizer
        if shared:
            total = total + _gradient_of(reconstruction, decoded.z, code.z)
        terms = {"reconstruction": reconstruction, "penalty": penalty, "regularizer": regularizer}
        return Loss(total, terms, None if self.training else self._occurrences(code))

    def _occurrences(self, code: LatentCode) -> Tensor | None:
        """Return how often each symbol occurs in discrete codes, shape (K,); None for other codes."""
        if code.indices is None or not isinstance(self.latent, Discrete):
            return None
        return torch.bincount(code.indices.flatten(), minlength=self.latent.symbols)

    def _bound(
        self, given: Tensor, x: Tensor, codes: Sequence[LatentCode], beta: float | Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the two terms of the importance-weighted bound, whose weighted sum it is; see the class.

        Args:
            given: Examples, as `loss` takes them.
            x: The same, as the networks see them.
            codes: Draws from the posterior of each example.
            beta: Weight of the penalty.
        """
        assert isinstance(self.penalty, Divergence)  # which the constructor has seen to
        k = len(codes)
        output = self._decoder(torch.cat([given] * k))(torch.cat([code.z for code in codes]))
        with torch.autocast(x.device.type, enabled=False):
            errors = self.reconstruction.each(torch.cat([x] * k), output.float()).view(k, -1)
            ratios = torch.stack([self.penalty.log_ratio(code) for code in codes])
            bound = math.log(k) - (-errors / beta - ratios).logsumexp(0)  # in nats, of each example
            reconstruction = errors.mean()
            return reconstruction, bound.mean() - reconstruction / beta


def _remedy(given: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    """Return what brings a batch of examples into the shape that a model was built for.

    Example:
        >>> _remedy((5, 28, 30, 3), (3, 28, 30)), _remedy((5, 28, 28), (1, 28, 28))
        ('move their axes with x.permute(0, 3, 1, 2)', 'add the axis of channels with x[:, None]')
    """
    if len(given) == len(wanted) + 1:
        for order in itertools.permutations(range(1, len(given))):
            if tuple(given[axis] for axis in order) == wanted:
                return f"move their axes with x.permute({', '.join(map(str, (0, *order)))})"
    if (given[0], 1, *given[1:]) == (given[0], *wanted):
        return "add the axis of channels with x[:, None]"
    if given == wanted:
        return "a batch has one axis more: give x[None]"
    return "give examples of that shape"


def _are_symbols(x: Tensor) -> bool:
    """Return whether examples are rows of symbols (B, L), not yet one-hot."""
    return x.dim() == 2 and not x.is_floating_point()


def _gradient_of(term: Tensor, leaf: Tensor, z: Tensor) -> Tensor:
    """Return a zero whose gradient by `z` is that of `term` by the leaf that stands for it."""
    (gradient,) = torch.autograd.grad(term, leaf, retain_graph=True)
    along = (gradient * z).sum()
    return along - along.detach()


def refuse_more(config: ModelConfig, most: int) -> None:
    """Refuse a model by the number of its weights, which its shapes tell before memory is asked for.

    Args:
        config: The model, with networks of `NETWORKS`.
        most: Most weights of networks and latent.

    Raises:
        UsageError: if it has more; also if its parts cannot be built, see `build`.
    """
    latent_class = LATENTS[config.latent.name]
    try:
        with torch.device("meta"):
            networks = NETWORKS[config.network](
                config.shape, config.latent_dim, config.width, latent_class.spatial, config.depth
            )
            features = _probe(networks[0], "encoder", torch.zeros(2, *config.shape))
            wide = features if latent_class.spatial else features.flatten(1)
            latent = construct(LATENTS, config.latent, in_features=wide.shape[1], latent_dim=config.latent_dim)
            count = sum(weight.numel() for part in (*networks, latent) for weight in part.parameters())
            count += construct(PENALTIES, config.penalty).pseudo_inputs * math.prod(config.shape)
    except (RuntimeError, OverflowError, TypeError) as error:  # sizes beyond what can be counted, say
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"network {config.network} of width {config.width} cannot be built: {reason}") from None
    if count > most:
        raise UsageError(f"the model has {count:,} weights, more than {most:,}; take a smaller width or size")


def build(config: ModelConfig, networks: tuple[nn.Module, nn.Module] | None = None) -> Autoencoder:
    """Build the autoencoder that a configuration describes, with fresh weights from torch's global generator.

    Args:
        config: The choices; see `expost.configure`.
        networks: A pair (encoder, decoder) of your own. The encoder maps (B, *shape) to (B, F) features (anything with
            more axes is flattened); the decoder maps (B, latent_dim) codes to (B, *shape), or is an
            `AutoregressiveDecoder`. None builds `config.network`.

    Raises:
        UsageError: if a name or an option is unknown, or shapes cannot work together; the message has the reason.
    """
    latent_class = LATENTS[config.latent.name]
    if networks is None:
        refuse_more(config, MOST_NUMBERS)
        networks = NETWORKS[config.network](
            config.shape, config.latent_dim, config.width, latent_class.spatial, config.depth
        )
    encoder, decoder = networks
    regularizer = construct(REGULARIZERS, config.regularizer)
    features = _probe(encoder, "encoder", torch.zeros(2, *config.shape))
    if not latent_class.spatial:
        features = features.flatten(1)
    elif features.dim() != 4:
        raise UsageError(
            f"latent {config.latent.name} needs a map (B, F, h, w), the encoder gives {tuple(features.shape)}"
        )
    latent = construct(LATENTS, config.latent, in_features=features.shape[1], latent_dim=config.latent_dim)
    reconstruction = construct(RECONSTRUCTIONS, config.reconstruction)
    function = decoder
    if isinstance(decoder, AutoregressiveDecoder):
        decoder.compete(reconstruction.groups)
        function = TeacherForced(decoder, torch.zeros(2, *config.shape[:1], dtype=torch.int64))
    code = torch.zeros(2, config.latent_dim, *features.shape[2:])
    output = _probe(function, "decoder", code)
    if tuple(output.shape[1:]) != tuple(config.shape):
        raise UsageError(f"the decoder gives shape {tuple(output.shape[1:])} for examples of shape {config.shape}")
    regularizer.prepare(encoder, function, (torch.zeros(2, *config.shape), code))
    return Autoencoder(
        encoder,
        latent,
        decoder,
        construct(PENALTIES, config.penalty),
        regularizer,
        reconstruction,
        config.beta,
        config.regularizer_weight,
        config.shape,
        config.input_noise,
        Standardization(*config.shape) if config.standardize else None,
    )


def _probe(network: nn.Module, name: str, x: Tensor) -> Tensor:
    """Return a network's output, computed in evaluation mode, which changes nothing in it."""
    modes = [(module, module.training) for module in network.modules()]
    try:
        with torch.inference_mode():
            output = network.eval()(x)
    except (RuntimeError, IndexError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"the {name} does not accept shape {tuple(x.shape)}: {reason}") from error
    finally:
        for module, training in modes:
            module.training = training
    return output
