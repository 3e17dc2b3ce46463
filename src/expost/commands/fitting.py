"""The command that fits a density on the codes of a run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from expost.commands.arguments import Options, RunLike, parse_options, prior_options, together
from expost.commands.groups import takes
from expost.errors import UsageError
from expost.registry import Part, construct
from expost.utils.progress import say

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from torch import Tensor

    from expost.densities import Density
    from expost.evaluation.held_out import Judge, Learned
    from expost.generators.generator import Generator
    from expost.run import Run
    from expost.types import Data


@dataclass(frozen=True)
class Fitted:
    """A fitted density: where it is saved, and what it has learned. As a path, it is its file.

    Attributes:
        path: Its file.
        density: Its name.
        codes: How many codes of the validation split it was compared on; 0 if it was not.
        log_likelihoods: Its log-likelihood on them, beside those of the other densities.
        selection: Of what it was chosen and why, if it was: the record that `selection.json` keeps.
    """

    path: Path
    density: str
    codes: int
    log_likelihoods: tuple[Learned, ...]
    selection: Mapping[str, Any] | None = None

    def __fspath__(self) -> str:
        """Return the file's path."""
        return str(self.path)


@takes()
@together
def fit(
    run: RunLike,
    density: str,
    components: int | Literal["auto"] | None = None,
    by: str | None = None,
    bins: int | None = None,
    options: Options = (),
    device: str = "auto",
) -> Fitted:
    """Fit a density on the codes of the run's training set, and save it with the run.

    Says on stderr how likely the codes of the validation split are under it, beside one Gaussian and N(0, I).

    Args:
        run: The run.
        density: standard-normal, gaussian, gmm, bayesian-gmm, kde, second-stage-vae, flow, flow-matching,
            reduced, categorical, autoregressive or posterior-mixture; or auto: those that suit the codes and can be
            evaluated are fitted side by side, and the one is kept under which codes of the validation split are
            likeliest, unless it memorises. categorical and autoregressive are for symbols (vq-vae, fsq-vae), the others
            for numbers; posterior-mixture is the prior that vamp-vae has learned; with --by there is also conditional,
            a density of the kind base=NAME for every class.
        components: Components of a mixture, or auto for the likeliest of 1, 2, 5, 10, 20, 50; default: 10, fewer for
            small classes.
        by: Fit by class: label, or a property of molecules: logp, qed, sa, ring-penalty, weight. Then
            `expost sample RUN --label` draws from one class, or for one value of the property. flow, flow-matching,
            categorical and autoregressive learn all classes together; with the others each class has a density of its
            own.
        bins: Number of bins of equal counts that a property is cut into; default: 5.
        options: Other options of the density, for example covariance=diag, or bandwidth=auto; with density auto those
            of candidates, for example gmm.covariance=diag flow.steps=300.
        device: auto, cpu, cuda or mps.

    Returns:
        Where it was saved, and its log-likelihood on held-out codes beside that of other densities.
    """
    import torch

    from expost.densities import DENSITIES, make_labelled
    from expost.evaluation.held_out import Judge
    from expost.evaluation.selecting import distance_to
    from expost.generators.generator import of_symbols
    from expost.generators.selection import asked, check_candidates
    from expost.generators.selection_table import in_words
    from expost.run import open_run

    opened = open_run(run)
    if warning := opened.unfinished():
        say(f"warning: {warning}")
    given = prior_options(opened, density) | parse_options(options)
    if components is not None:
        given["components"] = components
    # wrong words are refused before the codes are computed
    if choose := asked(density, given):
        check_candidates(density, given, of_symbols(opened.config.model))
    elif by is None:
        _ = construct(DENSITIES, Part(density, given))
    else:
        _ = make_labelled(density, **given)
    opened.require_writable("densities/fitted_on.json")
    data = opened.data()
    labels: ArrayLike | None = None
    kept = torch.arange(len(data.train))
    if by is not None:
        labels, kept, bins = _labels(data, by, bins)
    elif bins is not None:
        raise UsageError(f"bins is {bins}, but there is no property to cut; give --by too")
    generator = opened.generator(device)
    if not choose:
        _ = generator.make(density, **given) if by is None else generator.make_by_label(density, **given)
    opened.warn_of_trouble(generator.module, data)
    x = data.train.x if len(kept) == len(data.train) else data.train.x[kept]  # not copied where all are taken
    codes, judge = generator.encode(x), Judge.of(generator, data)
    record, asked_for = None, density if by is None else f"{density} by {by}"
    if choose:
        distance = distance_to(generator, data)
        selection = generator.select(density, codes, judge.enough, labels, bins, distance, **given)
        density, record = selection.name, selection.record()
        fitted = selection.density
    elif labels is None:
        fitted = generator.fit(density, codes=codes, **given)
    else:
        fitted = generator.fit_by_label(density, labels, codes, bins, **given)
    _remark_on_components(fitted, len(codes))
    judge.judge(fitted)
    path = opened.save_density(density if by is None else f"by_label/{density}", fitted)
    if record is not None:
        opened.save_selection(asked_for, record)
        for line in in_words(record):
            say(line)
    name = density if by is None else f"{density} by {by}"
    learned = _learned(opened, name, fitted, generator, judge, codes)
    return Fitted(path, name, len(judge.codes) if learned else 0, learned, record)


def _learned(
    run: Run, name: str, density: Density, generator: Generator, judge: Judge, codes: Tensor
) -> tuple[Learned, ...]:
    """Return what a density has learned, and say it: its log-likelihood on held-out codes beside others'."""
    from expost.evaluation.held_out import compare, in_words

    if judge.enough is None:
        say(f"the validation split has {len(judge.codes)} examples, too few to compare densities on")
        return ()
    z = judge.codes
    found = compare(name, {**generator.densities, name: density}, codes, z, judge.split)
    kind = "symbols" if density.of_symbols else "dimensions"
    say(f"mean log-likelihood of {len(z):,} held-out codes (validation), of {density.dim} {kind}, in nats:")
    for line in in_words(name, found, f"fit that: expost fit {shlex.quote(str(run.folder))} --density {{density}}"):
        say(line)
    return tuple(found)


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
