"""Measure how often samples of a run of molecules are valid: decoded greedily, and at least once in many decodes.

python scripts/validity.py runs/table2-molecules-small/runs/grae-small

The paper's Table 2 calls a code valid if at least one of 500 decodes, drawn symbol by symbol, parses. A density is
passed with its options: "gmm components=10", "kde bandwidth=cross-validated".
"""

from __future__ import annotations

from pathlib import Path

import torch
import tyro

from expost.commands.arguments import parse_options
from expost.evaluation.strings import letters
from expost.metrics.molecules import canonical_smiles, parse_molecule
from expost.run import Run

DENSITIES = ("standard-normal", "gaussian", "gmm components=10", "kde", "kde bandwidth=cross-validated")


def main(
    run: tyro.conf.Positional[Path],
    densities: tuple[str, ...] = DENSITIES,
    codes: int = 20_000,
    samples: int = 300,
    decoded: int = 100,
    decodes: int = 500,
) -> None:
    """Print a Markdown table with a row for each density.

    Args:
        run: The run.
        densities: Each with its options.
        codes: Training codes that the densities are fitted on.
        samples: Samples that are decoded greedily, and as many test molecules.
        decoded: Samples that are decoded many times.
        decodes: Decodes of each of them.
    """
    opened = Run.open(run)
    data, strings = opened.data(), opened.string_generator()
    z = strings.generator.encode(data.train.x[:codes])
    test = data.test.x[:samples]
    back = strings.reconstruct(test)
    equal = sum(a == b for a, b in zip(back, strings.codec.decode(test), strict=True))
    print(f"{len(test)} test molecules: {equal / len(test):.2f} come back exactly, {share(back):.2f} are valid\n")
    noise = z.std(0) * torch.randn(len(test), z.shape[1], generator=torch.Generator().manual_seed(2))
    for part in (0.05, 0.1, 0.2):
        moved = strings.decode(strings.generator.encode(test) + part * noise)
        print(f"with noise of {part} standard deviations on their codes {share(moved):.2f} are valid\n")
    known = {text for text in strings.codec.decode(data.train.x) if text is not None}
    print(
        f"| density | valid, greedy | different and valid | different, valid and new | valid decodes | valid, one of "
        f"{decodes} |\n|---|---|---|---|---|---|"
    )
    for words in densities:
        name, *options = words.split()
        density = strings.generator.fit(name, codes=z, **parse_options(options))
        drawn = strings.sample(samples, name, seed=0)
        good = {string for string in drawn if string is not None and valid(string)}
        new = {canonical_smiles(string) for string in good} - canonical(known, good)
        points = density.sample(decoded, generator=torch.Generator().manual_seed(1))
        best, each = strings.best_of(points, decodes, valid, source=torch.Generator().manual_seed(0))
        shares = (share(drawn), len(good) / samples, len(new) / samples, each, share(best))
        print(f"| {words} | {' | '.join(f'{each:.2f}' for each in shares)} |", flush=True)


def canonical(known: set[str], good: set[str]) -> set[str | None]:
    """Return the canonical SMILES of the known molecules that have the same letters as a good one."""
    wanted = {letters(each) for each in good}
    return {canonical_smiles(each) for each in known if letters(each) in wanted}


def valid(string: str) -> bool:
    """Return whether RDKit accepts a string."""
    return parse_molecule(string) is not None


def share(strings: list[str | None]) -> float:
    """Return the share of valid molecules."""
    return sum(each is not None and valid(each) for each in strings) / len(strings)


if __name__ == "__main__":
    tyro.cli(main)
