"""The command that searches: strings of good score, in the latent space of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from expost.commands.arguments import Options, Output, RunLike, parse_options, prior_options
from expost.errors import DataError, UsageError
from expost.evaluation.strings import training_forms
from expost.examples.domains import DOMAINS
from expost.metrics.strings import canonicalize
from expost.run import Run, open_run
from expost.search import (
    Objective,
    SearchConfig,
    SearchResult,
    draw,
    make_objective,
    markdown,
)
from expost.search import optimize as search
from expost.utils.progress import say
from expost.utils.seeding import PAIRS, generator
from expost.utils.store import write_text

#: The part of the training set that a search begins with, as the paper has it.
BEGUN_WITH = 0.9
#: What is searched for unless something else is asked for.
OBJECTIVE_OF = {"expressions": "expression", "molecules": "plogp"}


def optimize(
    run: RunLike,
    objective: str | None = None,
    region: Literal["density", "box"] = "density",
    density: str = "gmm",
    rounds: int = 5,
    batch: int = 50,
    decodes: int | None = None,
    inducing: int = 500,
    codes: int | None = None,
    out: Output | None = None,
    options: Options = (),
    seed: int = 0,
    device: str = "auto",
) -> SearchResult:
    """Search the latent space of a run for strings that score well, by Bayesian optimisation.

    A search that was interrupted goes on when the command is given again; more --rounds go on with a finished one.

    Args:
        run: A run of strings.
        objective: expression (distance from a target formula), plogp (its terms normalized on ZINC 250k, unless options
            say otherwise), qed, or MODULE:FUNCTION, a function of your own of a list of strings, found in the working
            directory; default: expression or plogp.
        region: density, where the fitted density has mass; or box, the smallest that holds all training codes, as in
            the paper.
        density: The density that bounds the region; fitted if it is not.
        rounds: Batches.
        batch: Codes a round.
        decodes: Decodes of each code, of which the most frequent valid one counts; default: 25 for expressions,
            500 for molecules.
        inducing: Inducing points of the Gaussian process.
        codes: Begin with at most this many training codes; default: 90 % of all.
        out: The search's folder; default: one in the run's.
        options: Options of the objective, for example target=sin(x)*x, or minimize=true for a function of your own.
        seed: Seeds everything.
        device: auto, cpu, cuda or mps.

    Returns:
        The search: table.md and best.png in its folder show it.
    """
    opened = open_run(run)
    strings = opened.string_generator(device)
    data = opened.data()
    domain = DOMAINS[data.domain]
    wanted = objective or OBJECTIVE_OF.get(data.domain)
    if wanted is None:
        raise UsageError(f"there is no usual objective for {data.domain}; give --objective MODULE:FUNCTION")
    if codes is not None and codes < 2:
        raise UsageError(f"codes is {codes}; a search begins with at least 2")
    count = len(data.train)
    chosen = torch.randperm(count, generator=generator(seed, PAIRS, 1))
    chosen = chosen[: min(count if codes is None else codes, max(2, int(BEGUN_WITH * count)))]
    texts = [text or "" for text in strings.codec.decode(data.train.x[chosen])]
    goal = make_objective(wanted, **parse_options(options))
    config = SearchConfig(
        rounds=rounds,
        batch=batch,
        decodes=domain.decodes if decodes is None else decodes,
        region=region,
        seed=seed,
        inducing=inducing,
    )
    z, scores = _begin(strings.generator.encode(data.train.x[chosen]), texts, goal)
    if region == "density" and density not in strings.generator.densities:
        fitted = strings.generator.fit(density, data.train.x, **prior_options(opened, density))
        opened.save_density(density, fitted)
    bound = strings.generator.density(density) if region == "density" else None

    def decode(points: Tensor, k: int, source: torch.Generator) -> list[str | None]:
        return strings.best_of(points, k, domain.valid, source=source)[0]

    def known(found: Sequence[str]) -> set[str]:
        forms = canonicalize(found, domain.canonical)
        there = set(training_forms(strings.codec.decode(data.train.x), forms, domain))
        return {string for string, form in zip(found, forms, strict=True) if form is not None and form in there}

    folder = Path(out) if out is not None else _folder(opened, wanted, region, seed)
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


def _begin(codes: Tensor, texts: list[str], objective: Objective) -> tuple[Tensor, Tensor]:
    """Return the codes that have a score, and their scores."""
    scored = objective.for_training().score(texts)
    kept = [index for index, value in enumerate(scored.values) if value is not None]
    if len(kept) < 2:
        raise DataError(f"the objective scored {len(kept)} of {len(texts)} training strings: {scored.message}")
    if scored.skipped:
        say(f"{scored.skipped} of {len(texts)} training strings have no score and are left out: {scored.message}")
    return codes[kept], torch.tensor([scored.values[index] for index in kept], dtype=torch.float64)


def _folder(run: Run, objective: str, region: str, seed: int) -> Path:
    return run.folder / "search" / f"{objective.replace(':', '.')}-{region}-{seed}"
