"""Compare weights beta and lambda, and left- and right-recursive lists of the grammar, on molecules.

python scripts/molecule_weights.py

For each setting, trains a grammar autoencoder of preset `small` for one epoch on random molecules of ZINC. Prints the
share of 200 validation molecules that are reconstructed exactly, and the share of 200 greedily decoded samples that
are valid.
"""

from __future__ import annotations

import re
from pathlib import Path

import tyro
from validity import share

import expost
from expost.data.notations import NOTATIONS
from expost.grammar.grammars import GRAMMARS

RIGHT, LEFT = "right", "left"
#: beta, lambda, and the side on which lists of the SMILES grammar recurse.
TRIALS = ((0.1, 1e-4, RIGHT), (1.0, 1e-4, RIGHT), (0.01, 1e-5, RIGHT), (0.1, 1e-4, LEFT))


def left_recursive(grammar: str) -> str:
    """Return the grammar's text with every list reversed: A -> x A becomes A -> A x, A -> x s A becomes A -> A s x.

    The language stays the same for lists of equal items, A -> x | x A, such as all those of the SMILES grammar.

    Example:
        >>> left_recursive("list -> item | item ',' list")
        "list -> item | list ',' item"
    """
    lines = []
    for rule in re.sub(r"\n\s+\|", " |", grammar).strip().splitlines():
        left, _, right = rule.partition(" -> ")
        sides = [re.findall(r"'[^']*'|[^\s|]+", side) for side in re.split(r"\|(?=(?:[^']*'[^']*')*[^']*$)", right)]
        turned = [side[::-1] if len(side) > 1 and side[-1] == left else side for side in sides]
        lines.append(f"{left} -> {' | '.join(' '.join(side) for side in turned)}")
    return "\n".join(lines) + "\n"


def main(data: str = "zinc250k", limit: int = 50_000, samples: int = 200, out: Path = Path("runs/weights")) -> None:
    """Print a Markdown table with a row for each trial.

    Args:
        data: A data set of molecules.
        limit: Molecules to train on.
        samples: Samples of each density, and validation molecules.
        out: Folder of the runs; runs that are there are not trained again.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "left.txt").write_text(left_recursive(GRAMMARS["smiles"]), encoding="utf-8")
    print(
        "| beta | lambda | lists recurse | come back exactly | valid of them | valid, gaussian | valid, gmm |\n"
        "|---|---|---|---|---|---|---|"
    )
    for beta, weight, direction in TRIALS:
        folder = out / f"{beta:g}-{weight:g}-{direction}"
        if (folder / "config.json").exists():
            run = expost.train("grae", data, folder, resume=True)
        else:
            grammar = "smiles" if direction == RIGHT else str(out / "left.txt")
            run = expost.train(
                "grae", data, folder, epochs=1, limit=limit, beta=beta, regularizer_weight=weight, grammar=grammar,
                length=NOTATIONS["molecules"].length,  # the default where no grammar is named
            )  # fmt: skip
        examples, strings = run.data(), run.string_generator()
        held_out = examples.validation.x[:samples]
        back, truth = strings.reconstruct(held_out), strings.codec.decode(held_out)
        equal = sum(a == b for a, b in zip(back, truth, strict=True)) / len(truth)
        codes = strings.generator.encode(examples.train.x)
        found = [equal, share(back)]
        for density in ("gaussian", "gmm"):
            strings.generator.fit(density, codes=codes)
            found.append(share(strings.sample(samples, density, seed=0)))
        print(f"| {beta:g} | {weight:g} | {direction} | {' | '.join(f'{each:.2f}' for each in found)} |", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
