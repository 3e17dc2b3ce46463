"""The command that searches the latent space of a run for strings that score well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack

from expost.commands.arguments import Options, Output, RunLike, parse_options, prior_options
from expost.commands.groups import Group, takes
from expost.errors import DataError, UsageError
from expost.search.config import SearchConfig
from expost.utils.progress import say

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from expost.densities import Density
    from expost.generators.generator import Generator
    from expost.run import Run
    from expost.search import Objective, SearchResult
    from expost.types import Data

#: Largest share of the training set that a search starts from, as in the paper.
BEGUN_WITH = 0.9


class SearchOptions(TypedDict, total=False):
    """How to search.

    Attributes:
        region: Where to search: density (where the fitted density has mass) or box (the smallest that holds all
            training codes, as in the paper).
        rounds: Rounds of the search; each proposes one batch of codes.
        batch: Codes per round.
        decodes: Decodes of each code; the most frequent valid string counts. Default: 25 for expressions, 500 for
            molecules.
        inducing: Inducing points of the Gaussian process.
        incumbent: The value to improve on: the best "observed" score, or the best "mean" of the Gaussian process at an
            observed code. Default: observed in the box, mean in the density's region.
        seed: Seed of everything random.
    """

    region: Literal["density", "box"]
    rounds: int
    batch: int
    decodes: int | None
    inducing: int
    incumbent: Literal["observed", "mean"] | None
    seed: int


#: The domain of the strings decides how many decodes a code gets.
SEARCH = Group(SearchOptions, {each.name: each.default for each in fields(SearchConfig)} | {"decodes": None})


@takes(search=SEARCH)
def optimize(
    run: RunLike,
    objective: str | None = None,
    *,
    density: str | None = None,
    codes: int | None = None,
    out: Output | None = None,
    options: Options = (),
    device: str = "auto",
    **given: Unpack[SearchOptions],
) -> SearchResult:
    """Search the latent space of a run for strings that score well, by Bayesian optimisation.

    The same command goes on with an interrupted search; more --rounds go on with a finished one.

    Args:
        run: A run of strings.
        objective: What to search for: expression (a small distance from a target formula), plogp (high penalized logP,
            its terms normalized on ZINC 250k unless options say otherwise), qed (high drug-likeness), or
            MODULE:FUNCTION, your own function of a list of strings, found in the working directory. Default: expression
            for expressions, plogp for molecules.
        density: The density of region density, fitted first if it is not; default: the fitted one under which held-out
            codes are likeliest, of those that can be evaluated, else gmm.
        codes: Start from at most this many training codes; default: 90 % of all.
        out: The search's folder; default: one in the run's.
        options: Options of the objective, for example target=sin(x)*x, or minimize=true for a function of your own.
        device: auto, cpu, cuda or mps.
        **given: How to search, for example `rounds=10`: the keys of `SearchOptions`.

    Returns:
        The search: table.md and best.png in its folder show it.
    """
    import torch

    from expost.evaluation.strings import training_forms
    from expost.examples.domains import DOMAINS
    from expost.metrics.strings import canonicalize
    from expost.run import open_run
    from expost.search import draw, make_objective, markdown
    from expost.search import optimize as search
    from expost.utils.seeding import PAIRS, generator
    from expost.utils.store import require_writable, write_text

    opened = open_run(run)
    strings = opened.string_generator(device)
    data = opened.data()
    opened.warn_of_trouble(strings.generator.module, data)
    domain = DOMAINS[data.domain]
    wanted = objective or domain.objective
    if wanted is None:
        raise UsageError(f"there is no usual objective for {data.domain}; give --objective MODULE:FUNCTION")
    if codes is not None and codes < 2:
        raise UsageError(f"codes is {codes}; a search begins with at least 2")
    config = SearchConfig(**{"decodes": domain.decodes} | SEARCH.of(given))
    folder = Path(out) if out is not None else _folder(opened, wanted, config.region, config.seed)
    require_writable(folder / "search.json")
    count = len(data.train)
    chosen = torch.randperm(count, generator=generator(config.seed, PAIRS, 1))
    chosen = chosen[: min(count if codes is None else codes, max(2, int(BEGUN_WITH * count)))]
    texts = [text or "" for text in strings.codec.decode(data.train.x[chosen])]
    goal = make_objective(wanted, **parse_options(options))
    z, scores = _begin(strings.generator.encode(data.train.x[chosen]), texts, goal)
    bound = _region(opened, strings.generator, data, density) if config.region == "density" else None

    def decode(points: Tensor, k: int, source: torch.Generator) -> list[str | None]:
        return strings.best_of(points, k, domain.valid, source=source)[0]

    def known(found: Sequence[str]) -> set[str]:
        forms = canonicalize(found, domain.canonical)
        there = set(training_forms(strings.codec.decode(data.train.x), forms, domain))
        return {string for string, form in zip(found, forms, strict=True) if form is not None and form in there}

    result = search(z, scores, decode, goal, config, bound, folder, known)
    write_text(folder / "table.md", markdown(result))
    best = result.best(1)
    if best and not result.improved:
        say(f"the best found, {best[0].score:.4g}, is no better than the best it began with, {result.start:.4g}")
    if best:
        draw(result, goal, folder / "best.png")
        say(f"table and picture: {folder / 'table.md'}, {folder / 'best.png'}")
    else:
        say(f"nothing valid was found, so there is no picture; the table: {folder / 'table.md'}")
    return result


def _region(run: Run, generator: Generator, data: Data, density: str | None) -> Density:
    """Return the density whose mass is searched: as asked, else the best fitted, else gmm; fit it if it is not."""
    from expost.densities import TractableDensity, usual_density
    from expost.densities.choice import UNRECORDED
    from expost.evaluation.held_out import Judge

    if density is None:
        tractable = {name: each for name, each in generator.densities.items() if isinstance(each, TractableDensity)}
        taken = usual_density(tractable)
        if taken is not None:
            say(taken.line)
            return tractable[taken.name]
        density = UNRECORDED
    if density not in generator.densities:
        fitted = generator.fit(density, data.train.x, **prior_options(run, density))
        Judge.of(generator, data).judge(fitted)
        run.save_density(density, fitted)
    return generator.density(density)


def _begin(codes: Tensor, texts: list[str], objective: Objective) -> tuple[Tensor, Tensor]:
    """Return the codes that have a score, and their scores."""
    import torch

    scored = objective.for_training().score(texts)
    kept = [index for index, value in enumerate(scored.values) if value is not None]
    if len(kept) < 2:
        raise DataError(f"the objective scored {len(kept)} of {len(texts)} training strings: {scored.message}")
    if scored.skipped:
        say(f"{scored.skipped} of {len(texts)} training strings have no score and are left out: {scored.message}")
    return codes[kept], torch.tensor([scored.values[index] for index in kept], dtype=torch.float64)


def _folder(run: Run, objective: str, region: str, seed: int) -> Path:
    return run.folder / "search" / f"{objective.replace(':', '.')}-{region}-{seed}"
