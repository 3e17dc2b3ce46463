"""Molecules: a grammar autoencoder on the bundled drugs, and how many of its samples are molecules.

616 drugs are few, and half a minute is short: most samples are strings of the SMILES grammar but not molecules, and no
held-out drug is reconstructed exactly. With `--epochs 20` nearly half of the samples are molecules;
tens of thousands of training molecules do better still. RDKit, from the extra `molecules`, decides which strings are
molecules; without it, only finished derivations are counted.

    python examples/molecules.py --out runs/molecules
"""

from __future__ import annotations

import argparse
from pathlib import Path

import expost
from expost.data.drugs import DRUGS
from expost.utils.extras import installed


def main() -> None:
    """Train, fit, sample, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/molecules"), help="a new folder (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=10, help="passes over the drugs (default: %(default)s)")
    given = parser.parse_args()
    run = expost.train("grae", "drugs", given.out, epochs=given.epochs, tensorboard=False)
    expost.fit(run, "gaussian")

    data, strings = run.data(), run.string_generator()
    originals = strings.codec.decode(data.test.x)
    same = sum(a == b for a, b in zip(originals, strings.reconstruct(data.test.x), strict=True))
    print(f"held-out drugs that are reconstructed exactly: {same} of {len(originals)}")
    drawn = strings.sample(200, "gaussian", seed=0)
    ended = [text for text in drawn if text is not None]
    print(f"samples whose derivation ended, which are in the grammar: {len(ended)} of {len(drawn)}")
    if installed("rdkit"):
        from expost.metrics.molecules import canonical_smiles

        valid = [form for form in map(canonical_smiles, ended) if form is not None]
        known = {canonical_smiles(drug.smiles) for drug in DRUGS}
        print(f"samples that are molecules: {len(valid)} of {len(drawn)}, {len(set(valid))} different")
        print(f"of these not among the drugs: {len(set(valid) - known)}")
        ended = valid
    print(*ended[:5], sep="\n")


if __name__ == "__main__":
    main()
