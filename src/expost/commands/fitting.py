"""The command that fits a density on the codes of a run."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from expost.commands.arguments import Options, RunLike, parse_options, prior_options, together
from expost.commands.groups import takes
from expost.errors import UsageError
from expost.registry import Part, construct
from expost.utils.progress import say

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from torch import Tensor

    from expost.densities import Density
    from expost.evaluation.held_out import Learned
    from expost.generators.generator import Generator
    from expost.run import Run
    from expost.types import Data

#: Most held-out codes that densities are compared on.
MOST_HELD_OUT = 10_000


@dataclass(frozen=True)
class Fitted:
    """A fitted density: where it is saved, and what it has learned. As a path, it is its file.

    Attributes:
        path: Its file.
        density: Its name.
        codes: How many codes of the validation split it was compared on; 0 if it was not.
        log_likelihoods: Its log-likelihood on them, beside those of the other densities.
    """

    path: Path
    density: str
    codes: int
    log_likelihoods: tuple[Learned, ...]

    def __fspath__(self) -> str:
        """Return the file's path."""
        return str(self.path)


@takes()
@together
def fit(
    run: RunLike,
    density: str,
    components: int | None = None,
    by: str | None = None,
    bins: int | None = None,
    options: Options = (),
    device: str = "auto",
) -> Fitted:
    """Fit a density on the codes of the run's training set, and save it with the run.

    Says on stderr how likely the codes of the validation split are under it, beside one Gaussian and N(0, I).

    Args:
        run: The run.
        density: standard-normal, gaussian, gmm, bayesian-gmm, kde, second-stage-vae, flow, flow-matching or
            reduced; with --by also conditional: a density of the kind base=NAME for every class.
        components: Components of a mixture; default: 10, fewer for small classes.
        by: Fit by class: label, or a property of molecules: logp, qed, sa, ring-penalty, weight. Then
            `expost sample RUN --label` draws from one class, or for one value of the property. flow and flow-matching
            learn all classes together; with the others each class has a density of its own.
        bins: Number of bins of equal counts that a property is cut into; default: 5.
        options: Other options of the density, for example covariance=diag.
        device: auto, cpu, cuda or mps.

    Returns:
        Where it was saved, and its log-likelihood on held-out codes beside that of other densities.
    """
    from expost.densities import DENSITIES, make_labelled
    from expost.run import open_run

    opened = open_run(run)
    if warning := opened.unfinished():
        say(f"warning: {warning}")
    given = prior_options(opened, density) | parse_options(options)
    if components is not None:
        given["components"] = components
    # wrong words are refused before the codes are computed
    _ = construct(DENSITIES, Part(density, given)) if by is None else make_labelled(density, **given)
    if opened.config.model.prior is None:
        raise UsageError(
            f"codes of {opened.config.model.name} are maps of codebook vectors, which these densities do not draw; "
            "fit a model with a continuous code"
        )
    opened.require_writable("densities/fitted_on.json")
    data = opened.data()
    if by is None:
        if bins is not None:
            raise UsageError(f"bins is {bins}, but there is no property to cut; give --by too")
        generator = opened.generator(device)
        opened.warn_of_trouble(generator.module, data)
        codes = generator.encode(data.train.x)
        fitted = generator.fit(density, codes=codes, **given)
        _remark_on_components(fitted, len(data.train))
        path = opened.save_density(density, fitted)
        return _learned(opened, Fitted(path, density, 0, ()), fitted, generator, data, codes)
    labels, kept, bins = _labels(data, by, bins)
    generator = opened.generator(device)
    opened.warn_of_trouble(generator.module, data)
    x = data.train.x if len(kept) == len(data.train) else data.train.x[kept]  # not copied where all are taken
    codes = generator.encode(x)
    classes = generator.fit_by_label(density, labels, codes, bins, **given)
    path = opened.save_density(f"by_label/{density}", classes)
    return _learned(opened, Fitted(path, f"{density} by {by}", 0, ()), classes, generator, data, codes)


def _learned(run: Run, fitted: Fitted, density: Density, generator: Generator, data: Data, codes: Tensor) -> Fitted:
    """Return what a density has learned, and say it: its log-likelihood on held-out codes beside others'."""
    from expost.evaluation.held_out import compare, in_words

    held_out = data.validation.x[:MOST_HELD_OUT]
    if len(held_out) < 2:
        say(f"the validation split has {len(held_out)} examples, too few to compare densities on")
        return fitted
    z = generator.encode(held_out)
    found = compare(fitted.density, {**generator.densities, fitted.density: density}, codes, z)
    say(f"mean log-likelihood of {len(z):,} held-out codes (validation), of {density.dim} dimensions, in nats:")
    for line in in_words(
        fitted.density, found, f"fit that: expost fit {shlex.quote(str(run.folder))} --density {{density}}"
    ):
        say(line)
    return Fitted(fitted.path, fitted.density, len(z), tuple(found))


def _remark_on_components(density: Density, codes: int) -> None:
    """Warn if a mixture has too few codes per component to estimate full covariances."""
    from expost.densities import MixtureDensity

    if not isinstance(density, MixtureDensity) or density.covariance != "full":
        return
    if density.components > 1 and codes < 2 * density.components * density.dim:
        say(
            f"{density.components} full covariances of {density.dim} dimensions from {codes:,} codes are likely to "
            "overfit: compare the log-likelihoods that expost evaluate prints; give fewer --components, or --set "
            "covariance=diag"
        )


def _labels(data: Data, by: str, bins: int | None) -> tuple[ArrayLike, Tensor, int | None]:
    """Return labels or values of a property, of which training examples they are, and into how many bins they go."""
    import torch

    from expost.examples import kind_of_data

    if by == "label":
        labels = data.labels(data.train)
        if labels is None:
            raise UsageError(f"data set '{data.name}' has no labels to fit by; leave --by out")
        if bins is not None:
            raise UsageError(f"bins is {bins}, but labels are classes; leave --bins out")
        return labels, torch.arange(len(data.train)), None
    values = kind_of_data(data).values(data, data.train.x, by)
    if values is None:
        raise UsageError(f"cannot fit by '{by}': data set '{data.name}' has no molecules; give --by label")
    kept = values.isfinite().nonzero().flatten()
    return values[kept], kept, 5 if bins is None else bins
