"""Prove the contracts: break the sources in many small ways, one at a time, and check that tests fail.

    python scripts/mutate.py                # all mutants, two at a time; some minutes
    python scripts/mutate.py mmd kernel     # mutants with one of these words in their name or file
    python scripts/mutate.py --list

Each mutant changes one place in a temporary copy of `src`; the tests that should catch it run against the copy. The
checkout is not changed. The exit status is 1 if a mutant survives, and 2 if one could not be tried: its source text is
gone (then update the table below), or its tests fail, or do not run, without it.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path("src/expost")
#: Seconds for the tests of one mutant; a mutant may loop forever.
LIMIT = 180

SLOTS = "tests/models/test_slot_values.py"
MEASURES = "tests/metrics/test_measures.py"
SAMPLERS = "tests/densities/test_samplers.py"
FITS = "tests/densities/test_density_fits.py"
FLOWS = "tests/densities/test_flows.py"
FOREIGN = "tests/generators/test_foreign.py"
LABELLED_FLOWS = "tests/densities/test_labelled_flows.py"
MAPS = "tests/densities/test_maps.py"
PATHS = "tests/densities/test_paths.py"
UNET = "tests/densities/test_unet.py"
SYMBOLS = "tests/densities/test_symbols.py"


@dataclass(frozen=True)
class Mutant:
    """A wrong version.

    Attributes:
        name: What is wrong with it.
        file: Where, within `src/expost`.
        right: The source text; it occurs once.
        wrong: Its replacement.
        tests: Arguments of pytest: the tests that should catch it.
    """

    name: str
    file: str
    right: str
    wrong: str
    tests: str

    @property
    def path(self) -> Path:
        return PACKAGE / self.file

    def apply(self, source: str) -> str:
        """Return the source with the wrong text.

        Raises:
            LookupError: if the right text is not found once.
        """
        count = source.count(self.right)
        if count != 1:
            found = "is no longer there" if count == 0 else f"is there {count} times"
            raise LookupError(f"mutant '{self.name}': its source text {found} in {self.path}; mend scripts/mutate.py")
        return source.replace(self.right, self.wrong)


def mutants(file: str, tests: str, *rows: Sequence[str]) -> Iterator[Mutant]:
    """Make those of one file. A row is (name, right, wrong), and the words for pytest's -k where not all tests run."""
    for name, right, wrong, *words in rows:
        selection = f"{tests} -k {shlex.quote(words[0])}" if words else tests
        yield Mutant(name, file, right, wrong, selection)


MUTANTS: tuple[Mutant, ...] = (
    # ------------------------------------------------------------------------------------------------------- sound
    *mutants(
        "data/spectrogram.py",
        "tests/data/test_spectrogram.py",
        ("mels: linear to 2 kHz", "BREAK = 1000.0", "BREAK = 2000.0", "slaneys or librosa"),
        ("filters: not of area 1", "(high - middle))) * 2 / (high - low)", "(high - middle)))", "filters"),
        ("levels: 20 for 10", "1 + 10 / self.sound.decibels", "1 + 20 / self.sound.decibels", "decibels"),
        ("frames: loudness kept", "torch.where(loudest > 0, power / loudest, 0.0)", "power", "loudness"),
        ("back: powers taken for amplitudes", "clamp_min(0).sqrt()", "clamp_min(0)", "griffin"),
        ("back: bands upside down", "level = images[:, 0].flip(1).double()", "level = images[:, 0].double()", "pitch"),
        ("griffin-lim: no momentum", "MOMENTUM = 0.99", "MOMENTUM = 0.0", "griffin"),
    ),
    *mutants(
        "data/sound.py",
        "tests/data/test_sound.py",
        ("the first channel alone", "always_2d=True).mean(1)", "always_2d=True)[:, 0]", "channels"),
        ("resampled the other way", "sound.rate // common, rate // common", "rate // common, sound.rate // common",
         "channels or mixed"),
        ("the rarest rate", "key=lambda each: (-counts[each], each)", "key=lambda each: (counts[each], each)", "mixed"),
        ("a WAV that is cut short is read", "said > size", "said > 2**62", "bad_file"),
    ),
    # ------------------------------------------------------------------------------------------------------- the slots
    *mutants(
        "models/latents.py",
        SLOTS,
        ("deterministic: its mean without gradient", "LatentCode(z=z, mean=z)", "LatentCode(z=z, mean=z.detach())",
         "latent and deterministic"),
        ("gaussian: unbounded log sigma", "self.bound * torch.tanh(linear)", "self.bound * linear",
         "latent and gaussian"),
        ("gaussian: variance for deviation", "self.noise_scale * log_sigma.exp()",
         "self.noise_scale * (2 * log_sigma).exp()", "latent and gaussian"),
        ("gaussian: log sigma for log variance", "log_var=2 * log_sigma", "log_var=log_sigma", "latent and gaussian"),
        ("gaussian: another bound", "bound: float | None = 5.0", "bound: float | None = 4.0", "latent and gaussian"),
        ("gaussian: a missing 1/2 without a bound", "0.5 * linear if", "linear if", "latent and gaussian"),
        ("gaussian: bounded by 1 without a bound", "0.5 * linear if", "torch.tanh(linear) if", "latent and gaussian"),
        ("gaussian: noise scale ignored", "self.noise_scale * log_sigma.exp()", "log_sigma.exp()",
         "latent and gaussian"),
        ("gaussian: noise scale in the variance too", "log_var=2 * log_sigma",
         "log_var=2 * (log_sigma + math.log(self.noise_scale))", "latent and gaussian"),
        ("constant variance: variance for deviation", "self.sigma * normal_like", "self.sigma**2 * normal_like",
         "latent and constant"),
        ("constant variance: noise left out", "mean + self.noise_scale * self.sigma * normal_like(mean) if noise else",
         "", "latent and constant"),
        ("constant variance: a missing 2", "2 * math.log(self.sigma)", "math.log(self.sigma)", "latent and constant"),
        ("constant variance: noise scale ignored", "self.noise_scale * self.sigma * normal", "self.sigma * normal",
         "latent and constant"),
        ("constant variance: noise scale in the variance too", "math.log(self.sigma)",
         "math.log(self.noise_scale * self.sigma)", "latent and constant"),
        ("vector-quantized: a missing 2 in the distance", "alpha=-2).argmin(1)", "alpha=-1).argmin(1)",
         "latent and quantized"),
        ("vector-quantized: a mean for a sum", "codebook.square().sum(1), vectors",
         "codebook.square().mean(1), vectors", "latent and quantized"),
        ("vector-quantized: the farthest", ".argmin(1)", ".argmax(1)", "latent and quantized"),
        ("vector-quantized: no gradient through", "mean + (quantized - mean).detach()", "quantized",
         "latent and quantized"),
        ("vector-quantized: patience off by one", "self.unused >= self.patience", "self.unused > self.patience",
         "patience"),
        ("moving means: counts that do not decay", "self.counts.mul_(decay).add_", "self.counts.add_", "moving"),
        ("moving means: the codebook is the sums", "torch.where(kept, self.sums / self.counts[:, None], self.codebook)",
         "torch.where(kept, self.sums, self.codebook)", "moving"),
        ("moving means: held-out batches too", "tended = noise and self.training", "tended = noise", "moving"),
        ("finite-scalar: no shift for even levels", "(self.count % 2 == 0).to(x.dtype) / 2",
         "(self.count % 2 == 2).to(x.dtype) / 2", "latent and finite"),
        ("finite-scalar: the bound without its slack", "* (1 - 1e-3) / 2", "/ 2", "latent and finite"),
        ("finite-scalar: places from the last", "math.prod(self.levels[:j])", "math.prod(self.levels[j + 1 :])",
         "latent and finite"),
        ("finite-scalar: no gradient through", "mean + (rounded - mean).detach()", "rounded", "latent and finite"),
    ),
    *mutants(
        "densities/symbols.py",
        SYMBOLS,
        ("symbols: a temperature squared", "torch.softmax(logits / temperature, -1)",
         "torch.softmax(logits / temperature**2, -1)", "temperature"),
        ("symbols: one more than k", "logits.topk(top_k, -1)", "logits.topk(top_k + 1, -1)", "top_k"),
        ("categorical: a site's own count left in", "(occurred - 1).clamp_min(0)", "occurred", "shares_of_each_site"),
        ("categorical: the classes mixed", "grids[classes == c]", "grids", "labels_are_learned"),
        ("symbols: classes drawn alike", "torch.tensor(self.counts, dtype=torch.float64)",
         "torch.ones(len(self.counts), dtype=torch.float64)", "mass_function"),
    ),
    *mutants(
        "densities/transformer.py",
        SYMBOLS,
        ("transformer: it looks ahead", "is_causal=True", "is_causal=False", "before_it"),
        ("transformer: the symbol itself goes in", "torch.cat([start, grids[:, :-1]], 1)", "grids", "before_it"),
        ("transformer: rows left out", 'weights["row"][rows] + ', "", "before_it"),
        ("transformer: no class", ' + weights["class"][classes][:, None]', "", "before_it"),
        ("transformer: the cache one symbol short", "keys[:, :, : t + 1], values[:, :, : t + 1])",
         "keys[:, :, : max(t, 1)], values[:, :, : max(t, 1)])", "cached"),
    ),
    *mutants(
        "densities/autoregressive.py",
        SYMBOLS,
        ("autoregressive: drawn without the start", "logits = start[t] + network.step", "logits = network.step",
         "mass_function"),
        ("autoregressive: a mean for a sum", "found.append(logs.sum(1))", "found.append(logs.mean(1))", "sum_to_one"),
    ),
    *mutants(
        "models/penalties.py",
        SLOTS,
        ("half norm: a missing 1/2", "return 0.5 * code.mean.flatten(1)", "return code.mean.flatten(1)",
         "penalty and half"),
        ("half norm: a mean for a sum", "code.mean.flatten(1).square().sum(1)", "code.mean.flatten(1).square().mean(1)",
         "penalty and half"),
        ("half norm: a missing square", "code.mean.flatten(1).square()", "code.mean.flatten(1).abs()",
         "penalty and half"),
        ("half norm: of the noisy codes", "0.5 * code.mean.flatten(1)", "0.5 * code.z.flatten(1)", "penalty and half"),
        ("half norm: summed over the batch", "code.mean.flatten(1).square().sum(1).mean()",
         "code.mean.flatten(1).square().sum(1).sum()", "repeated and half"),
        ("kl: a flipped sign", "- log_var - 1", "+ log_var - 1", "penalty and kl"),
        ("kl: the constant left out", "- log_var - 1", "- log_var", "least and kl"),
        ("kl: a missing 1/2", "return 0.5 * terms", "return terms", "penalty and kl"),
        ("kl: deviation for variance", "+ log_var.exp()", "+ (0.5 * log_var).exp()", "penalty and kl"),
        ("kl: a mean for a sum", "terms.flatten(1).sum(1).mean()", "terms.mean()", "penalty and kl"),
        ("kl: the prior left out at a code", "return parts + 0.5 * z", "return parts + 0 * z", "divergence and kl"),
        ("posteriors: deviation for variance", "(-log_var).exp()", "(-0.5 * log_var).exp()", "penalty and posterior"),
        ("posteriors: a sum for their mean", " + math.log(each.shape[1])", "", "penalty and posterior"),
        ("posteriors: the nearest for the mean", "each.logsumexp(1)", "each.amax(1)", "penalty and posterior"),
        ("mmd: the dimension forgotten in the scale", "2.0 * dim * scale", "2.0 * scale", "penalty and mmd"),
        ("mmd: a missing 2", "- 2 * kernel[:n, n:].mean()", "- kernel[:n, n:].mean()", "discrepancy_is_least"),
        ("mmd: a flipped sign", "- 2 * kernel[:n, n:].mean()", "+ 2 * kernel[:n, n:].mean()", "penalty and mmd"),
        ("mmd: pairs off by one", "/ (m * (m - 1)) if unbiased", "/ (m * m) if unbiased", "penalty and mmd"),
        ("mmd: with the diagonal", "(values.sum() - values.diagonal().sum())", "values.sum()", "repeated and mmd"),
        ("mmd: distances off", "- 2 * points @ points.t()", "- points @ points.t()", "penalty and mmd"),
        ("mmd: a constant prior", "normal_for_all(z), self", "0 * normal_for_all(z), self", "penalty and mmd"),
        ("mmd: the biased estimate", "normal_for_all(z), self.scales)", "normal_for_all(z), self.scales, False)",
         "repeated and mmd"),
        ("mmd: one scale", "for scale in scales], dtype", "for scale in scales[:1]], dtype", "penalty and mmd"),
        ("vector quantization: a gradient too many", "code.quantized - code.mean.detach()",
         "code.quantized - code.mean",
         "gradients_of_a_penalty and quantization"),
        ("vector quantization: its weight left out", "codebook + self.commitment * commitment",
         "codebook + commitment", "penalty and quantization"),
        ("vector quantization: a mean for a sum", "code.mean.detach()).square().flatten(1).sum(1)",
         "code.mean.detach()).square().flatten(1).mean(1)", "penalty and quantization"),
    ),
    *mutants(
        "models/reconstructions.py",
        SLOTS,
        ("squared error: a missing square", "(x - output).square()", "(x - output).abs()", "reconstruction"),
        ("squared error: a mean for a sum", ".square().flatten(1).sum(1)", ".square().flatten(1).mean(1)",
         "reconstruction"),
        ("squared error: a factor 1/2", "return (x - output)", "return 0.5 * (x - output)", "reconstruction"),
        ("bernoulli: a mean for a sum", 'output, x, reduction="sum") / len(x)', 'output, x, reduction="mean")',
         "reconstruction"),
        ("bernoulli: arguments exchanged", 'binary_cross_entropy(output, x, reduction="sum")',
         'binary_cross_entropy(x, output, reduction="sum")', "reconstruction"),
        ("categorical: averaged over positions", "squeeze(-1)).sum() / len(x)", "squeeze(-1)).mean()",
         "reconstruction"),
        ("categorical: the wrong count", "squeeze(-1)).sum() / len(x)", "squeeze(-1)).sum() / x.shape[1]",
         "reconstruction"),
        ("categorical: all compete", "self._competes[true], -math.inf)", "self._competes[true], 0.0)",
         "reconstruction"),
        ("categorical: groups the wrong way round", "group.unsqueeze(1) == group", "group.unsqueeze(1) <= group",
         "reconstruction"),
        ("masked bernoulli: nothing for absent symbols", 'functional.binary_cross_entropy(p, present, reduction="sum")',
         "-(present * p.log()).sum()", "reconstruction and masked-bernoulli"),
        ("masked bernoulli: all compete", "of(x, output)\n        p = competing.softmax(-1)",
         "of(x, output)\n        true = x.argmax(-1)\n        p = output.softmax(-1)",
         "reconstruction and masked-bernoulli"),
        ("masked bernoulli: a mean for a sum", 'present, reduction="sum") / len(x)', 'present, reduction="mean")',
         "reconstruction and masked-bernoulli"),
        ("masked bernoulli: a mean over symbols", 'present, reduction="sum") / len(x)',
         'present, reduction="sum") / len(x) / x.shape[-1]', "reconstruction and masked-bernoulli"),
        ("perceptual: lengths not taken away", "torch.rsqrt(features.square().sum(1, keepdim=True) + _TINY)", "1.0",
         "reconstruction and perceptual"),
        ("perceptual: whatever the size", "self.weight * x[0].numel() * self", "self.weight * self",
         "reconstruction and perceptual"),
        ("perceptual: the error left out", "return self._error.each(x, output) + self", "return self",
         "reconstruction and perceptual"),
        ("masked bernoulli: each on its own", "competing.softmax(-1)", "competing.sigmoid()",
         "reconstruction and masked-bernoulli"),
        ("masked bernoulli: another clip", "_CLIP = 1e-7", "_CLIP = 1e-6", "reconstruction and masked-bernoulli"),
    ),
    *mutants(
        "models/regularizers.py",
        SLOTS,
        ("tikhonov: a missing square", "for weight in self._weights(decoder)]).square().sum()",
         "for weight in self._weights(decoder)]).sum()", "regularizer and tikhonov"),
        ("tikhonov: a mean for a sum", "self._weights(decoder)]).square().sum()",
         "self._weights(decoder)]).square().mean()", "regularizer and tikhonov"),
        ("tikhonov: biases too", '"kernels": lambda module, weight: weight.dim() >= 2',
         '"kernels": lambda module, weight: weight.dim() >= 1', "regularizer and tikhonov"),
        ("gradient penalty: a missing square", "return product.square().sum()", "return product.abs().sum()",
         "regularizer and gradient"),
        ("gradient penalty: summed over the batch", "return self._squared_norm(decoder, z) / count",
         "return self._squared_norm(decoder, z)", "regularizer and gradient"),
        ("gradient penalty: along one direction", "jvp(decoder, z, random_signs(z))",
         "jvp(decoder, z, torch.ones_like(z))",
         "regularizer and gradient"),
        ("gradient penalty: a dimension left out", "for direction in directions])", "for direction in directions[1:]])",
         "regularizer and gradient"),
        ("gradient penalty: no gradient of its own", "random_signs(output), create_graph=True)",
         "random_signs(output))",
         "gradient_of_a_regularizer and gradient-penalty"),
        ("spectral norm: of both by default", '"decoder": False', '"decoder": True', "regularizer and spectral"),
        ("spectral norm: estimators exchanged", '"matrix": False, "operator": True',
         '"matrix": True, "operator": False', "regularizer and spectral"),
    ),
    *mutants(
        "models/regularizers.py",
        "tests/models/test_slots.py",
        ("tikhonov: a shared weight counted twice", " and id(weight) not in seen", "", "shared_weight"),
        ("gradient penalty: of the whole batch for a part of it", "head(code.z.detach(), self.fraction)",
         "head(code.z.detach(), 1.0)", "fraction"),
    ),
    *mutants(
        "models/spectral_norm.py",
        SLOTS,
        ("spectral norm: the wrong axis", "iterations, dim=0)", "iterations, dim=1)", "regularizer and spectral"),
        ("operator norm: a missing root", "weight / torch.linalg.vector_norm(self._map(self._v.clone(), weight))",
         "weight / self._map(self._v.clone(), weight).square().sum()", "regularizer and spectral"),
        ("operator norm: no adjoint of the map's output", "grad(output, v, output.detach())",
         "grad(output, v, torch.ones_like(output))", "regularizer and spectral"),
        ("operator norm: a vector of another norm", "self._v.copy_(_unit(pulled))",
         "self._v.copy_(0.5 * _unit(pulled))", "regularizer and spectral"),
        ("operator norm: of an affine map", "        plain.bias = None\n", "", "regularizer and spectral"),
    ),
    *mutants(
        "models/spectral_norm.py",
        "tests/models/test_slots.py",
        ("operator norm: iterations in evaluation too", "            if self.training:\n", "            if True:\n",
         "operator_norm_is"),
        ("operator norm: a constant to its gradient", "self._map(self._v.clone(), weight))",
         "self._map(self._v.clone(), weight.detach()))", "operator_norm_has_the_gradient"),
    ),
    # ----------------------------------------------------------------------------------- published weights and training
    *mutants(
        "models/official.py",
        "tests/models/test_zoo.py",
        ("official rae: a missing 2", "2 * official.b * scale", "official.b * scale", "official_loss"),
        ("official rae: the dimension forgotten", "* scale / latent_dim", "* scale", "official_loss"),
        ("official rae: channels for pixels", '"rae": pixels,', '"rae": channels,', "official_loss"),
        ("official vae: pixels for channels", '"vae": channels,', '"vae": pixels,', "official_loss"),
        ("official wae: the scale upside down", "1 / official.s if", "official.s if", "official_loss"),
    ),
    *mutants(
        "models/presets.py",
        "tests/models/test_published_values.py",
        ("paper: the threshold in the official scaling", "KERAS_MIN_DELTA * loss_scale(official, row.family, shape)",
         "KERAS_MIN_DELTA", "threshold_of_its_plateau"),
        ("paper: validation without the regularizer", '        watch="objective",\n', "", "threshold_of_its_plateau"),
    ),
    *mutants(
        "models/string_presets.py",
        "tests/models/test_published_values.py",
        ("strings: the threshold in the published scaling", "_MIN_DELTA * _symbols(shape)", "_MIN_DELTA", "strings"),
        ("strings: unused symbols not counted", "shape[1] + _UNUSED.get((shape[0], shape[1]), 0)", "shape[1]",
         "strings"),
        ("strings: the dimension forgotten", "symbols / model.latent_dim if", "symbols if", "strings"),
        ("strings: no least rate", "            min_lr=_MIN_LR,\n", "", "strings"),
        ("strings: a bound under the published objective", 'Gaussian: {"bound": None, ', "Gaussian: {", "strings"),
    ),
    *mutants(
        "training/loop.py",
        "tests/training/test_plateau.py",
        ("plateau: a relative threshold", 'threshold_mode="abs"', 'threshold_mode="rel"', "rate_is_cut"),
        ("plateau: no threshold", "threshold=config.min_delta", "threshold=0.0", "rate_is_cut"),
        ("plateau: patience off by one", "patience=config.patience - 1", "patience=config.patience", "rate_is_cut"),
        ("plateau: half for any factor", "factor=config.factor", "factor=0.5", "rate_is_cut"),
        ("plateau: no least rate", "min_lr=config.min_lr", "min_lr=0.0", "not_below"),
        ("plateau: by the loss in training", '_cut_rate(validation["total"])', '_cut_rate(found["total"])',
         "rate_is_cut"),
        ("validation: the objective not watched", 'self.config.watch == "objective"', "False", "watch"),
        ("validation: the objective always watched", 'self.config.watch == "objective"', "True", "watch"),
        ("validation: a sum over batches for a mean", "len(batch) / len(x)))", "1.0))", "watch"),
        ("validation: noise anew each time", "Noise(stream_seed(self.config.seed, VALIDATION), self.device)",
         "Noise(stream_seed(self.config.seed, VALIDATION, self.position.steps), self.device)", "same_noise"),
    ),
    *mutants(
        "evaluation/collapse.py",
        "tests/evaluation/test_collapse.py",
        ("use of codes: each its own code", "z.roll(max(1, len(z) // 2), 0)", "z", "use_of_codes_is"),
        ("use of codes: upside down", "1 - own / other if", "1 - other / own if", "use_of_codes_is"),
        ("use of codes: the share that is left", "1 - own / other if", "own / other if", "use_of_codes_is"),
        ("use of codes: noisy codes", "model.code(x).z", "model.code(x, noise=True).z", "every_kind"),
        ("use of codes: warns of a good model", ">= LEAST_USE", "< LEAST_USE", "warned"),
    ),
    *mutants(
        "distributed/shards.py",
        SLOTS,
        ("gradient penalty: signs of 0 and 2", ".mul_(2).sub_(1)", ".mul_(2)", "regularizer and gradient"),
        ("gaussian: uniform noise", "return torch.randn(x.shape, device=x.device).to(x.dtype)",
         "return torch.rand(x.shape, device=x.device).to(x.dtype)", "latent and gaussian"),
    ),
    # ---------------------------------------------------------------------------------------------------- the measures
    *mutants(
        "metrics/frechet.py",
        MEASURES,
        ("frechet: a missing 2", "2.0 * _trace_root(a, b)", "_trace_root(a, b)", "frechet"),
        ("frechet: a missing square", "(a.mean - b.mean).square().sum()", "(a.mean - b.mean).abs().sum()", "frechet"),
        ("frechet: a missing root", "np.sqrt(squares.clip(min=0.0)).sum()", "squares.clip(min=0.0).sum()", "frechet"),
        ("frechet: rows in the wrong order", "np.argsort(order_b)[order_a]", "order_b[order_a]", "frechet"),
        ("frechet: degrees of freedom off by one", "2 * (self.n - 1)", "2 * self.n", "frechet"),
        ("frechet: a scale forgotten", "np.sqrt(scale_a) * np.sqrt(scale_b)", "np.sqrt(scale_a)", "frechet"),
        ("frechet: the mean left in", "_gram(centred)", "_gram(x)", "frechet"),
    ),
    *mutants(
        "metrics/frechet.py",
        "tests/metrics/test_metrics.py",
        ("frechet: parts joined with a wrong weight", "alpha=self.n * n / total", "alpha=n / total",
         "batches_do_not_matter"),
    ),
    *mutants(
        "metrics/sparse_gp.py",
        "tests/metrics/test_sparse_gp.py",
        ("sparse process: the noise forgotten", "precision += a @ a.mT / noise", "precision += a @ a.mT", "titsias"),
        ("sparse process: a covariance for I less it", "identity - torch.cholesky_inverse(root)",
         "torch.cholesky_inverse(root)", "titsias"),
    ),
    *mutants(
        "metrics/kernel.py",
        MEASURES,
        ("kernel distance: a square for a cube", ".mul_(t).add_(3).mul_(t)", ".mul_(t)", "kid"),
        ("kernel distance: the dimension forgotten", ".div_(x.shape[1])", "", "kid"),
        ("kernel distance: a missing 2", "- 2 * xy.mean())", "- xy.mean())", "kid"),
        ("kernel distance: with the diagonals", "xx.sum() - xx.trace() + yy.sum() - yy.trace()", "xx.sum() + yy.sum()",
         "kid"),
        ("kernel distance: pairs off by one", "within / (m * (m - 1))", "within / (m * m)", "kid"),
    ),
    *mutants(
        "metrics/kernel.py",
        "tests/metrics/test_kernel_distance.py",
        ("kernel distance: degrees of freedom off", "/ (m * (m - 3))", "/ (m * (m - 2))", "bias_in_small"),
        ("kernel distance: effects off by one", "(sums - (m - 1) * mean) / (m - 2)",
         "(sums - (m - 1) * mean) / (m - 1)",
         "bias_in_small"),
        ("kernel distance: a part of the variance forgotten", "+ within + 4 * self.second_xy / (n * m)", "+ within",
         "closed_form"),
    ),
    *mutants(
        "metrics/sliced.py",
        MEASURES,
        ("monge: a missing 3", "scale = 3.0 * d / projections", "scale = d / projections", "mind"),
        ("monge: the dimension forgotten", "scale = 3.0 * d / projections", "scale = 3.0 / projections", "mind"),
        ("monge: of order 1", "total += (gap.square() @", "total += (gap.abs() @", "mind"),
        ("monge: directions of any length", "drawn / drawn.norm(dim=1, keepdim=True).clamp_min(1e-12)", "drawn",
         "mind"),
        ("monge: pieces of equal length", "((ends - starts).double() / (n * m))",
         "torch.full((len(ends),), 1 / len(ends), dtype=torch.float64)", "mind"),
    ),
    *mutants(
        "metrics/sliced.py",
        "tests/metrics/test_sliced.py",
        ("monge: half a potential", "pairs = gap[:, 1:] + gap[:, :-1]", "pairs = gap[:, 1:]", "influence"),
        ("monge: a potential in the sorted order", "scatter_(1, order, centred)",
         "scatter_(1, torch.arange(order.shape[1]).expand_as(order), centred)", "influence"),
        ("monge: a potential of the wrong sign", "_potential(-y.diff(dim=1)", "_potential(y.diff(dim=1)", "influence"),
    ),
    *mutants(
        "metrics/vendi.py",
        MEASURES,
        ("vendi: the trace forgotten", "u.T @ u / n", "u.T @ u", "vendi"),
        ("vendi: an entropy without its exponential", "torch.exp(-(values * values.log()).sum())",
         "-(values * values.log()).sum()", "vendi"),
        ("vendi: the least eigenvalue", "score = 1 / float(values.max())", "score = 1 / float(values.min())", "vendi"),
    ),
    *mutants(
        "metrics/vendi.py",
        "tests/metrics/test_vendi.py",
        ("vendi: another power", "total ** (1 / (1 - order))", "total ** (1 - order)", "unequal_groups"),
        ("vendi: the other matrix without its trace", "u @ u.T / n", "u @ u.T", "more_features"),
        ("vendi: a missing n in the shares", "vectors.square() * (n * values)", "vectors.square() * values",
         "more_features"),
        ("vendi: a slope without the logarithm", "-score * (values.log() + 1)", "-score * values", "influence"),
    ),
    *mutants(
        "metrics/vit.py",
        "tests/metrics/test_vision.py",
        ("vit: an exact activation in CLIP", "if self.quick else functional", "if False else functional",
         "clip_is_that"),
        ("vit: a scale forgotten", "x + self.ls1(self.attn(self.norm1(x)))", "x + self.attn(self.norm1(x))",
         "dinov2_is_that"),
        ("vit: tokens not normalized first", "tokens = self.norm_pre(tokens)", "pass", "clip_is_that"),
        ("vit: the step of transformers", "_OFFSET = 0.1", "_OFFSET = 0.0", "positions"),
        ("vit: queries for keys", "q, k, v = self.qkv", "k, q, v = self.qkv", "dinov2_is_that"),
    ),
    *mutants(
        "metrics/vision.py",
        "tests/metrics/test_vision.py",
        ("vision: not antialiased", "antialias=True", "antialias=False", "dgm_eval"),
        ("vision: not cut off at 255", "resized.clamp(0, 255)", "resized", "dgm_eval"),
        ("vision: channels of another network", "shape, *_CLIP, PublicFile", "shape, *_IMAGENET, PublicFile",
         "rounding"),
    ),
    *mutants(
        "metrics/gaussian.py",
        MEASURES,
        ("gaussian kernel: another bandwidth", "SIGMA, SCALE = 10.0", "SIGMA, SCALE = 5.0", "cmmd"),
        ("gaussian kernel: a missing 2", "- 2 * xy.total", "- xy.total", "cmmd"),
        ("gaussian kernel: pairs without themselves", "xx.total / n**2", "xx.total / (n * (n - 1))", "cmmd"),
    ),
    *mutants(
        "metrics/gaussian.py",
        "tests/metrics/test_gaussian_kernel.py",
        ("gaussian kernel: a part of the variance forgotten", "second_xx / (n - 2) - second_xy / m",
         "second_xx / (n - 2)", "components"),
        ("gaussian kernel: degrees of freedom off", "rest / (m * (m - 3))", "rest / (m * (m - 2))", "components"),
        ("gaussian kernel: pairs across blocks once", "own[:size].sum() + 2 * own[size:]",
         "own[:size].sum() + own[size:]", "blocks"),
        ("gaussian kernel: rows of a later block forgotten", "sums[start + size :] += kernel[:, size:].sum(dim=0)",
         "pass", "blocks"),
        ("gaussian kernel: a missing 2 in the influence", "samples=2 * SCALE", "samples=SCALE", "influence"),
    ),
    *mutants(
        "metrics/prd.py",
        MEASURES,
        ("prd: a slope the wrong way", "q / angle.tan()", "q * angle.tan()", "prd"),
        ("prd: a missing square", "(1 + beta**2) * precision", "(1 + beta) * precision", "prd"),
        ("prd: another beta", "BETA = 8.0", "BETA = 4.0", "prd"),
        ("prd: sets exchanged", "(part.bincount(minlength=clusters) for part in (labels[:n], labels[n:]))",
         "(part.bincount(minlength=clusters) for part in (labels[n:], labels[:n]))", "prd"),
        ("prd: copies fall apart", "int(state))[first]", "int(state))", "prd and itself"),
        ("prd: a run not counted", "precision / runs, recall / runs", "precision / (runs + 1), recall / (runs + 1)",
         "prd"),
    ),
    *mutants(
        "metrics/neighbours.py",
        MEASURES,
        ("neighbours: itself as its first", "points.nearest(reference, k, skip_self=True)",
         "points.nearest(reference, k, skip_self=False)", "neighbours"),
        ("neighbours: k forgotten in the density", "of_reference.of_sample.sum()) / (k * m)",
         "of_reference.of_sample.sum()) / m", "neighbours"),
        ("neighbours: of the wrong number", "precision=int(realistic.sum()) / m",
         "precision=int(realistic.sum()) / n", "neighbours"),
        ("neighbours: coverage along the wrong axis", "of_reference.of_example > 0, of_samples.of_example",
         "of_reference.of_sample > 0, of_samples.of_example",
         "neighbours"),
    ),
    *mutants(
        "metrics/distances.py",
        MEASURES,
        ("neighbours: a missing square", "squares = radii.square()", "squares = radii", "neighbours"),
        ("neighbours: unsorted", "distances, order = exact.sort(dim=1, stable=True)\n        distances, indices",
         "distances, order = exact, torch.arange(width).expand_as(exact)\n        distances, indices", "neighbours"),
    ),
    *mutants(
        "metrics/image.py",
        MEASURES,
        ("psnr: a flipped direction", "PixelScore(psnr, HIGHER)", "PixelScore(psnr, LOWER)", "better"),
    ),
    *mutants(
        "examples/domains.py",
        MEASURES,
        ("synthetic accessibility: a flipped direction", '"mean-sa": LOWER', '"mean-sa": HIGHER', "molecules"),
    ),
    *mutants(
        "metrics/measures.py",
        MEASURES,
        ("neighbours: four of them", "NEIGHBOURS = 5", "NEIGHBOURS = 4", "neighbours"),
        ("neighbours: sets exchanged", "neighbour_scores(reference.features, samples.features",
         "neighbour_scores(samples.features, reference.features", "neighbours"),
        ("neighbours: a flipped direction", "NEIGHBOUR_SCORES, HIGHER)", "NEIGHBOUR_SCORES, LOWER)", "neighbours"),
        ("prd: a flipped direction", '"f8": HIGHER, "f1/8": HIGHER', '"f8": HIGHER, "f1/8": LOWER', "prd"),
        ("frechet: no direction on vectors", "[StandardizedValues.score_name, *(each.score_name",
         "[*(each.score_name", "frechet"),
        ("kid: its name on other features", 'context.score_name, "kernel-distance")', 'context.score_name, "kid")',
         "kid"),
        ("prd: scores exchanged", "(found.f8, found.f1_8)", "(found.f1_8, found.f8)", "prd"),
    ),
    *mutants(
        "metrics/expressions.py",
        "tests/metrics/test_expressions.py",
        ("python2: rounded up", '"/": operator.floordiv', '"/": lambda a, b: -(-a // b)', "whole_quotient"),
        ("python2: true division", '"/": operator.floordiv', '"/": operator.truediv', "whole_quotient"),
        ("python2: never asked for", "_DIVISIONS[self.division](postfix", '_DIVISIONS["true"](postfix',
         "whole_quotient"),
        ("python2: the whole quotient of any number", "if isinstance(left, int) and isinstance(right, int):",
         "if token == '/':", "whole_quotient"),
        ("python2: the target too", "values = evaluate(self.target, self.grid)",
         "values = _run_in_python2(parse_expression(self.target) or (), self.grid)", "target_is_divided_truly"),
        ("python2: invalid for undefined", "            return self.worst\n", "            return math.nan\n",
         "whole_quotient"),
        ("expressions: a missing cap", "np.minimum(np.square(values - self._goal), self.cap)",
         "np.square(values - self._goal)", "capped"),
    ),
    *mutants(
        "metrics/bootstrap.py",
        "tests/metrics/test_bootstrap.py",
        ("bootstrap: degrees of freedom off by one", "(2 * (n - 1))", "(2 * n)", "moments_of_the_rows"),
        ("bootstrap: the mean left in", "- n * torch.outer(shift, shift)", "", "moments_of_the_rows"),
    ),
    *mutants(
        "generators/foreign/decoders.py",
        FOREIGN,
        ("decoder: noise in other units", "noise * codes.std(", "noise * codes.var(", "shrinks"),
        ("decoder: pixels in the encoder's range", "((output - low) / (high - low) - x)", "(output - x)", "frozen"),
        ("decoder: the last epoch for the best", "if value < best:", "if True:", "like_best"),
    ),
    # --------------------------------------------------------------------------------------------------- the densities
    *mutants(
        "densities/base.py",
        MAPS,
        ("maps: samples stay flattened", ".reshape(-1, *self.shape)", "", "keep_the_shape"),
        ("maps: a shape that a file does not hold", 'statistics["shape"] = list(z.shape[1:])', "pass",
         "keep_the_shape"),
    ),
    *mutants(
        "densities/drawing.py",
        SAMPLERS,
        ("draws: uniform noise of the same variance", "noise = torch.randn(n, d, generator=generator, device=source, "
         "dtype=torch.float32)", "noise = (torch.rand(n, d, generator=generator, device=source) - 0.5) * 12**0.5",
         "log_density and 1-gaussian"),
        ("draws: weights not added up", "weights.double().cumsum(0)", "weights.double()", "log_density and 1-gmm"),
        ("draws: off by one", "right=True).clamp_(max=last)", "right=True).add_(1).clamp_(max=last)",
         "log_density and 1-gmm"),
    ),
    *mutants(
        "densities/drawing.py",
        "tests/densities/test_densities.py",
        ("temperature: of the deviation", "mul_(math.sqrt(temperature))", "mul_(temperature)", "temperature_scales"),
    ),
    *mutants(
        "densities/gaussian.py",
        SAMPLERS,
        ("standard normal: a dimension for all", "z.shape[1] * LOG_2PI", "LOG_2PI", "2-standard"),
        ("standard normal: a missing 1/2", "return -0.5 * (z.square()", "return -1.0 * (z.square()", "1-standard"),
        ("gaussian: transposed", "@ factor.T", "@ factor", "log_density and 2-gaussian"),
        ("gaussian: the mean left out", "return mean + draw_normal", "return draw_normal",
         "log_density and 1-gaussian"),
    ),
    *mutants(
        "densities/linalg.py",
        SAMPLERS,
        ("gaussian: the log-determinant forgotten", " - factor.diagonal().log().sum()", "",
         "log_density and 1-gaussian"),
        ("gaussian: not whitened about the mean", "(z - mean).T, upper", "z.T, upper", "log_density and 1-gaussian"),
    ),
    *mutants(
        "densities/linalg.py",
        FITS,
        ("gaussian: degrees of freedom off by one", "/ z.shape[0]\n", "/ (z.shape[0] - 1)\n", "maximum_likelihood"),
        ("gaussian: the ridge left out", "covariance.diagonal().add_(eps)\n    return mean, covariance",
         "return mean, covariance", "ridge"),
    ),
    *mutants(
        "densities/units.py",
        FITS,
        ("units: the deviation, which one far code sets", "bulk = torch.where(quartiles > 0, quartiles,",
         "bulk = torch.where(quartiles < 0, quartiles,", "bulk"),
        ("units: one for all dimensions", "return cls.from_scale(spread.center, bulk,",
         "return cls.from_scale(spread.center, bulk.mean().expand_as(bulk),", "ridge_is_added"),
        ("units: constants as wide as all", "torch.where(constant, typical, scale)",
         "torch.where(constant, 0 * typical + 1, scale)", "ridge_is_added"),
    ),
    *mutants(
        "densities/em.py",
        SAMPLERS,
        ("mixture: the log-determinant forgotten", " - covariance.log_det(components.scale)", "",
         "log_density and 1-gmm"),
        ("mixture: a dimension for all", "0.5 * d * LOG_2PI", "0.5 * LOG_2PI", "log_density and 2-gmm"),
        ("mixture: the weights forgotten", "components.weights.log() - covariance", "-covariance",
         "log_density and 1-gmm"),
        ("mixture: the largest for the sum", ".logsumexp(1)\n        for chunk", ".amax(1)\n        for chunk",
         "log_density and 1-gmm"),
    ),
    *mutants(
        "densities/em.py",
        "tests/densities/test_mixture.py",
        ("mixture: responsibilities not normalized", "        r /= total\n", "", "same_start and not diag"),
        ("mixture: counts for weights", "Components(moments.counts / moments.counts.sum(),",
         "Components(torch.full_like(moments.counts, 1 / len(moments.counts)),", "one_m_step"),
    ),
    *mutants(
        "densities/covariances.py",
        SAMPLERS,
        ("full covariance: a missing logarithm", "dim2=-1).log().sum(-1)", "dim2=-1).sum(-1)", "log_density and 1-gmm"),
        ("full covariance: transposed", "return noise @ scale.T", "return noise @ scale", "log_density and 2-gmm"),
        ("diagonal covariance: variance for deviation", "return noise * scale", "return noise * scale.square()",
         "log_density and 1-gmm"),
        ("diagonal covariance: twice the logarithm", "return scale.log().sum(-1)", "return 2 * scale.log().sum(-1)",
         "log_density and 1-gmm"),
    ),
    *mutants(
        "densities/covariances.py",
        "tests/densities/test_mixture.py",
        ("full covariance: the mean left in", "(second - first[:, :, None] * first[:, None])", "second",
         "same_start and full and not diag"),
        ("diagonal covariance: a missing root", "return covariances.sqrt()", "return covariances",
         "log_prob_is_scipys and diag"),
    ),
    *mutants(
        "densities/mixture.py",
        SAMPLERS,
        ("mixture: components drawn alike", "draw_index(n, mixture.weights, generator)",
         "draw_index(n, torch.ones_like(mixture.weights), generator)", "log_density and 1-gmm"),
        ("mixture: the mixing left out", "labels = draw_index(n, mixture.weights, generator)",
         "labels = draw_index(n, mixture.weights, generator) * 0", "log_density and 1-gmm"),
        ("mixture: the noise of one for all", "mixture.scale[k])", "mixture.scale[0])", "log_density and 1-gmm"),
    ),
    *mutants(
        "densities/bayesian.py",
        FITS,
        ("bayesian mixture: covariances for scales", "self._structure.scale_from(covariances))", "covariances)",
         "plug_in"),
    ),
    *mutants(
        "densities/kde.py",
        SAMPLERS,
        ("kde: the bandwidth forgotten", 'fit["bandwidth"] * noise)', "noise)", "log_density and 1-kde"),
        ("kde: the log-determinant forgotten", 'fit["cholesky"].diagonal().log().sum() + d *', "d *",
         "log_density and 1-kde"),
        ("kde: a dimension for all", '+ d * (fit["bandwidth"].log()', '+ (fit["bandwidth"].log()', "2-kde"),
        ("kde: a missing square", '-0.5 / fit["bandwidth"] ** 2 *', '-0.5 / fit["bandwidth"] *', "1-kde"),
        ("kde: always the same code", "centers[rows] +", "centers[:1] +", "log_density and 1-kde"),
    ),
    *mutants(
        "densities/kde.py",
        FITS,
        ("kde: another degree of freedom", "covariance * (n / (n - 1))", "covariance * 1.0", "covariance_is_scipys"),
        ("kde: scott's rule off by one", "return float(n ** (-1 / (d + 4)))", "return float(n ** (-1 / (d + 5)))",
         "covariance_is_scipys"),
        ("kde: a code left out, and still counted", "math.log(n - without_nearest)", "math.log(n)", "left_out"),
    ),
    *mutants(
        "densities/choice.py",
        "tests/densities/test_choice.py",
        ("choice: the least likely", "first = max(means, key=means.__getitem__)", "first = min(means, key=means.get)"),
        ("choice: the larger of equals", "(sizes[name], -means[name])", "(-sizes[name], -means[name])"),
        ("choice: one error for two", "CLEAR, ROUNDING = 2.0, 1e-6", "CLEAR, ROUNDING = 1.0, 1e-6"),
        ("choice: the spread of the codes for that of the difference", "float(difference.std())", "float(a.std())"),
        ("choice: splits mixed", "if (each.split, len(each.values)) == common}", "}"),
        ("choice: NaN is likely", "nan_to_num(nan=-math.inf)", "nan_to_num(nan=0.0)"),
    ),
    *mutants(
        "generators/selection.py",
        "tests/generators/test_selection.py",
        ("auto: what memorises is kept", "trial.memorisation > allowed", "trial.memorisation > 2", "memorises"),
        ("auto: compared on what was fitted", "(turn == k).nonzero()[:, 0])", "(turn != k).nonzero()[:, 0])",
         "grid_search"),
        ("auto: the parts of a search overlap", "turn[order] = torch.arange(count) % parts",
         "turn[order] = torch.arange(count) % parts * 0", "grid_search"),
        ("auto: never fitted on all", "fitted = taken.fitted if task.whole else", "fitted = taken.fitted if True else",
         "like_held_out or classes or grid_search or table"),
    ),
    *mutants(
        "metrics/memorization.py",
        "tests/generators/test_selection.py",
        ("closer: the other way round", "return 1 - _u(a, b) /", "return _u(a, b) /", "memory or memorises"),
    ),
    *mutants(
        "densities/reduced.py",
        SAMPLERS,
        ("reduced: variance for deviation", 'fit["residual"].sqrt() * draw_normal', 'fit["residual"] * draw_normal',
         "2-reduced"),
        ("reduced: noise along the axes too", '(u - noise @ fit["basis"])', "u", "2-reduced"),
        ("reduced: the log-determinant forgotten", ' - fit["scale"].log().sum()', "", "1-reduced"),
        ("reduced: dimensions off by one", "left_out = t.shape[1] - u.shape[1]", "left_out = t.shape[1]", "2-reduced"),
        ("reduced: the scale forgotten", 'fit["mean"] + fit["scale"] * (noise', 'fit["mean"] + (noise', "1-reduced"),
    ),
    *mutants(
        "densities/flow_matching.py",
        FLOWS,
        ("flow matching: the divergence's sign", "+= float(weight)", "-= float(weight)",
         "density_is_that_of_the_path"),
        ("flow matching: a probe counts whole", " / math.sqrt(self.probes)", "", "estimated_divergence"),
        ("flow matching: the log-determinant's sign", " - standard.log_volume", " + standard.log_volume",
         "starts_from"),
        ("flow matching: the path's scale left out", "velocity.evaluate(y, t, fit) / _scale(t, _ONE)",
         "velocity.evaluate(y, t, fit)", "planted_density_is and matching-banana"),
        ("flow matching: the Gaussian's share with the wrong sign", "return (t * s - (1 - t))",
         "return ((1 - t) - t * s)", "planted_density_is and matching-banana"),
        ("flow matching: the temperature left out", "fit[\"mean\"].device, temperature).float()",
         "fit[\"mean\"].device, 1.0).float()", "temperature"),
    ),
    *mutants(
        "densities/paths.py",
        PATHS,
        ("paths: Euler for Runge and Kutta", "y + h / 6 * (first + 2 * second + 2 * third + fourth)", "y + h * first",
         "fourth_order"),
        ("paths: a stage's time forgotten", "(at + time * h)", "(at + h)", "known_path"),
        ("paths: one step for all rows", "(_SAFETY * error.clamp(min=1e-10) ** -0.2)",
         "(_SAFETY * error.max().clamp(min=1e-10) ** -0.2)", "no_row_changes"),
        ("paths: every step taken", "good = error <= 1 ", "good = error <= 1e9 ", "price"),
        ("paths: backwards as forwards", "sign = 1.0 if end > start else -1.0", "sign = 1.0", "known_path"),
    ),
    *mutants(
        "densities/flow_matching.py",
        LABELLED_FLOWS,
        ("guidance: no label as the class's mean", "(scale * y + t * here) / of_all", "(scale * y) / of_all",
         "untrained"),
        ("guidance: the spread of all codes forgotten", "_of_gaussian(x, t, spread)", "_of_gaussian(x, t, _ONE)",
         "untrained"),
        ("guidance: the class's mean forgotten", "labelled = here + ", "labelled = ", "untrained"),
        ("guidance: a weight of 1 guides", "(self.guidance - 1) *", "self.guidance *", "untrained"),
        ("guidance: codes without a label about their class", "codes = codes + dropped * centers[index]",
         "pass", "closed_form"),
        ("guidance: no code loses its label", "generator=generator) < self.unlabelled", "generator=generator) < 0",
         "closed_form"),
    ),
    *mutants(
        "densities/grouped.py",
        LABELLED_FLOWS,
        ("classes: bins without an order", "learned.cumsum(0) if classes.edges else learned", "learned", "sums_steps"),
        ("classes: where they are within all codes", "shares @ means / shares.sum()", "means[0]",
         "closed_form"),
    ),
    *mutants(
        "densities/standards.py",
        LABELLED_FLOWS,
        ("classes: their covariance over N", "scaled.T @ scaled / spare", "scaled.T @ scaled / (10 * spare)",
         "about_every_class"),
    ),
    *mutants(
        "densities/standards.py",
        UNET,
        ("per channel: one deviation for all", ".mean(1)", ".mean().expand(channels)", "channels_are"),
        ("per channel: channels last", ".repeat_interleave(positions)", ".repeat(positions)", "channels_are"),
        ("per channel: the volume of one position a channel", "return self.scale.log().sum()",
         "return self.scale.unique().log().sum()", "channels_are"),
        ("per channel: the ridge forgotten", " + regularization * unit.square()", "", "constant_channel"),
    ),
    *mutants(
        "densities/unet.py",
        UNET,
        ("unet: no way back but through the coarsest grid", ' + kept[level]', "", "finest_grid"),
        ("unet: patches put back transposed", "permute(0, 1, 4, 2, 5, 3)", "permute(0, 1, 4, 3, 5, 2)", "put_back"),
        ("unet: patches from far apart", "rows, high, columns, wide).permute(0, 1, 3, 5, 2, 4)",
         "high, rows, wide, columns).permute(0, 1, 2, 4, 3, 5)", "two_by_two"),
        ("unet: attention across the batch", "query @ key.mT", "query @ key.mT.mean(0)", "one_by_one"),
        ("unet: shift and scale exchanged", "(1 + scale) * inner + shift", "(1 + scale) * inner", "every_weight"),
        ("unet: the condition unheard", "embed_time(t, weights, condition)", "embed_time(t, weights, None)",
         "every_weight"),
    ),
    *mutants(
        "densities/flow.py",
        FLOWS,
        ("flow: a missing 1/2", "return -0.5 * (u.square()", "return -1.0 * (u.square()", "inverted"),
        ("flow: the log-determinant of the map left out", "log_determinant + base", "0 * log_determinant + base",
         "inverted"),
        ("flow: a mixture of held-out codes too", "self._base(x[training.to(x.device)]", "self._base(x",
         "starts_from"),
        ("flow: the mixture kept whatever it says", "if gained is not None and gained.clearly > 0", "if True",
         "as_many"),
        ("flow: samples from N(0, I)", "generator=generator, temperature=temperature", "generator=generator",
         "starts_from"),
        ("flow: the log-determinant's sign", ' - fit["cholesky"].diagonal().log().sum()',
         ' + fit["cholesky"].diagonal().log().sum()', "starts_from"),
        ("flow: orders that all agree", "random.permutation(d)", "np.arange(d)", "every_dimension"),
    ),
    *mutants(
        "densities/training.py",
        FLOWS,
        ("training: the last weights for the best", "if loss < self.loss and lead.mean().item() > 2 * error:",
         "if True:", "ten_codes"),
        ("training: chance taken for a lead", " and lead.mean().item() > 2 * error", "", "beyond_chance"),
        ("training: the mean of weights forgets", "1 - decay)", "1.0)", "mean_of_weights"),
        ("training: held-out codes trained on", "order[:held], order[held:]", "order[:held], order", "held_out"),
    ),
    *mutants(
        "densities/second_stage.py",
        SAMPLERS,
        ("second stage: its noise left out", "        if self.noise:\n", "        if not self.noise:\n", "another_way"),
        ("second stage: the scale forgotten", 'return fit["mean"] + fit["deviation"] * t', 'return fit["mean"] + t',
         "another_way"),
        ("second stage: gamma for its logarithm", 't + fit["log_gamma"].exp() *', 't + fit["log_gamma"] *',
         "another_way"),
    ),
    *mutants(
        "densities/second_stage.py",
        FITS,
        ("second stage: a missing 1/2", "0.5 * squared_error", "squared_error", "negative_elbo"),
        ("second stage: the log-determinant forgotten", "            log_gamma + 0.5 * math.log(2 * math.pi)",
         "            0.5 * math.log(2 * math.pi)", "negative_elbo"),
    ),
    *mutants(
        "densities/labelled.py",
        SAMPLERS,
        ("conditional: the classes' weights forgotten",
         "return values + (counts / counts.sum()).log().to(values.device)", "return values",
         "log_density and conditional"),
    ),
    *mutants(
        "densities/conditional.py",
        SAMPLERS,
        ("conditional: classes drawn alike", "torch.tensor(self.counts, dtype=torch.float64), generator)",
         "torch.ones(len(self.counts)), generator)", "log_density and conditional"),
    ),
    *mutants(
        "densities/conditional.py",
        "tests/densities/test_conditional.py",
        ("conditional: degrees of freedom off by one", "/ (n + d + 1)", "/ (n + d)", "shrinks"),
        ("conditional: pooled over all codes", "centered.T @ centered / spare", "centered.T @ centered / n", "shrinks"),
    ),
    *mutants(
        "densities/kmeans.py",
        "tests/densities/test_mixture.py",
        ("k-means: a missing 1/2 in the distance", "half_norms = 0.5 * centers", "half_norms = centers", "lloyd_is"),
    ),
    *mutants(
        "training/averaging.py",
        "tests/training/test_schedules.py",
        ("mean of weights: the start lingers", "min(decay, (step - 1) / (step + 8))", "decay", "weighted_sum"),
        ("mean of weights: statistics of the last weights", "for layer in layers:\n        layer.train()", "pass",
         "batch_norm_has"),
        ("mean of weights: left in place", "self._load(before)", "pass", "training_itself"),
    ),
    *mutants(
        "training/schedules.py",
        "tests/training/test_schedules.py",
        ("cosine: begins before the warm-up ends", "(step - warm) / max(1, total - warm)", "step / total",
         "cosine_with"),
        ("cosine: falls to 0 whatever the floor", "config.min_lr + (base - config.min_lr) * share", "base * share",
         "cosine_with"),
        ("warm-up: a step late", "(step + 1) / steps", "step / steps", "warm_up or beta_rises"),
    ),
    *mutants(
        "models/autoencoder.py",
        "tests/models/test_bounds.py",
        ("bound: a sum for the mean", "math.log(k) - (-errors", "-(-errors", "exact_posterior"),
        ("bound: errors not divided by beta", "(-errors / beta - ratios)", "(-errors - ratios)", "exact_posterior"),
        ("bound: a mean of logarithms", ".logsumexp(0)  # in nats", ".mean(0) + math.log(k)  # in nats", "rises"),
        ("prior: by the batch's own statistics", "self.encoder.eval()", "pass", "no_batch_changes"),
    ),
    *mutants(
        "networks/residual.py",
        "tests/networks/test_networks.py",
        ("residual: attention to other positions", "v @ weights.transpose(1, 2)", "v @ weights", "residual_block"),
        ("residual: scores not scaled", " * x.shape[1] ** -0.5", "", "residual_block"),
    ),
)  # fmt: skip


def run_tests(source: Path, selections: Iterable[str], scratch: Path) -> subprocess.CompletedProcess[str]:
    """Run pytest on a copy of `src`, from the checkout's tests."""
    words = [word for selection in selections for word in shlex.split(selection)]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "--tb=line", "-p", "no:cacheprovider"]
    command += ["-p", "pytest_timeout", *words]  # which pyproject.toml sets; the other plugins take half a second
    environment = os.environ | {
        "PYTHONPATH": str(source),
        "OMP_NUM_THREADS": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "TMPDIR": str(scratch),
    }
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False
    )


def last_lines(done: subprocess.CompletedProcess[str]) -> str:
    return "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])


def attempt(mutant: Mutant) -> tuple[str, float]:
    """Return the verdict on a mutant ("caught", "survived", or why it could not be tried), and the seconds it took."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        source = Path(folder) / "src"
        shutil.copytree(ROOT / "src", source)
        target = source / mutant.path.relative_to("src")
        target.write_text(mutant.apply(target.read_text()))
        for compiled in (target.parent / "__pycache__").glob(f"{target.stem}.*"):
            compiled.unlink()
        try:
            done = run_tests(source, [mutant.tests], Path(folder))
            verdict = {0: "survived", 1: "caught"}.get(
                done.returncode, f"not tried: {mutant.tests}\n{last_lines(done)}"
            )
        except subprocess.TimeoutExpired:
            verdict = "caught"  # an endless test is noticed
    return verdict, time.monotonic() - begun


def unbroken(chosen: Sequence[Mutant]) -> str:
    """Run the tests on the unchanged sources; return the first failure, or an empty string."""
    by_file: dict[str, set[str]] = {}
    for mutant in chosen:
        file, *rest = shlex.split(mutant.tests)
        by_file.setdefault(file, set()).add(rest[1] if rest else "")
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        for file, words in by_file.items():
            either = "" if "" in words else f" -k {shlex.quote(' or '.join(f'({each})' for each in sorted(words)))}"
            done = run_tests(ROOT / "src", [file + either], Path(folder))
            if done.returncode != 0:
                return f"{file} does not pass as it is:\n{last_lines(done)}"
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description="Break the sources in small ways, and check that tests fail.")
    parser.add_argument("words", nargs="*", help="only mutants with one of these in their name or file")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time (default 2)")
    parser.add_argument("--list", action="store_true", help="print the table and run nothing")
    given = parser.parse_args()
    chosen = [m for m in MUTANTS if not given.words or any(word in f"{m.name} {m.file}" for word in given.words)]
    if not chosen:
        print(f"no mutant has {' or '.join(given.words)} in its name or file; see --list", file=sys.stderr)
        return 2
    try:
        for mutant in chosen:
            mutant.apply((ROOT / mutant.path).read_text())
    except (LookupError, OSError) as error:
        print(error.args[0] if isinstance(error, LookupError) else error, file=sys.stderr)
        return 2
    if given.list:
        for mutant in chosen:
            print(f"{mutant.file:28} {mutant.name:52} {mutant.tests}")
        return 0
    begun = time.monotonic()
    if wrong := unbroken(chosen):
        print(wrong, file=sys.stderr)
        return 2
    counts = {"caught": 0, "survived": 0}
    with ThreadPoolExecutor(given.jobs) as pool:
        for mutant, (verdict, seconds) in zip(chosen, pool.map(attempt, chosen), strict=True):
            word, _, reason = verdict.partition(":")
            print(f"{word:9} {seconds:5.1f} s  {mutant.file:28} {mutant.name}{reason}", flush=True)
            counts[word] = counts.get(word, 0) + 1
    listing = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    print(f"{len(chosen)} mutants: {listing}; {time.monotonic() - begun:.0f} s")
    return 2 if "not tried" in counts else int(counts["survived"] > 0)


if __name__ == "__main__":
    sys.exit(main())
