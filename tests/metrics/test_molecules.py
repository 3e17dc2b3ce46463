import csv
import gzip
import io
import itertools
import json
import math
import random
import subprocess
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import networkx
import numpy as np
import pytest
import torch

pytest.importorskip("rdkit", reason="molecules need RDKit")

from rdkit import Chem, DataStructs, RDConfig
from rdkit.Chem import Crippen, Descriptors, rdFingerprintGenerator, rdMolDescriptors
from rdkit.Chem.Scaffolds import MurckoScaffold

from expost.data.drugs import DRUGS, FORMULAS
from expost.errors import DataError, UsageError
from expost.metrics.molecule_properties import (
    PROPERTIES,
    PenalizedLogP,
    largest_ring,
    logp,
    properties,
    qed,
    ring_penalty,
    sa_score,
)
from expost.metrics.molecules import (
    MAX_LENGTH,
    canonical_smiles,
    fingerprints,
    internal_diversity,
    parse_molecule,
    parse_molecules,
    scaffold_diversity,
    scaffolds,
)

SMILES = [smiles for _, smiles in DRUGS]
SOME = SMILES[::6]
NAMES = dict(DRUGS)


@pytest.fixture(scope="module")
def zinc(shared_data):
    with gzip.open(shared_data / "zinc250k" / "250k_rndm_zinc_drugs_clean.smi.gz", "rt") as file:
        return random.Random(0).sample(file.read().split(), 500)


HOSTILE = [
    "",
    " ",
    None,
    3,
    b"CC",
    "C C",
    "CC ethane",
    "CC\n",
    "CC\0",
    "C\tC",
    "CC |$a;b$|",
    "é",
    "С",  # a Cyrillic letter
    "\ud800",
    "🧪",
    "(",
    ")",
    "C(",
    "C)",
    "c1ccccc",
    "C1CC",
    "[",
    "[C",
    "]",
    "C==C",
    "F(C)(C)C",
    "C(C)(C)(C)(C)C",
    "c1cccc1",
    "[Xx]",
    "%",
    "C%(",
    "CC>>C",
    "InChI=1S/CH4/h1H4",
    "(" * 5000,
    "C(" * 5000 + ")" * 5000,
    "C" * (MAX_LENGTH + 1),
    "C" * 100_000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text)[:20])
def test_what_is_no_molecule_is_invalid_everywhere(text):
    assert parse_molecule(text) is None
    assert canonical_smiles(text) is None
    assert scaffolds([text]) == Counter()
    assert fingerprints([text]).shape == (0, 1024)
    assert all(np.isnan(values).all() for values in properties([text], list(PROPERTIES)).values())
    for score in (internal_diversity, scaffold_diversity):
        with pytest.raises(DataError, match="no valid molecule"):
            score([text])
    with pytest.raises(DataError, match="molecules are valid"):
        PenalizedLogP.fit([text, text])


def test_long_chains_and_odd_molecules_have_all_properties():
    odd = ["C" * MAX_LENGTH, "[H][H]", "*", "[Na+].[Cl-]", "[999U]", "C.C", "N" * 200, "[C@@](N)(O)" * 45]
    table = properties(odd, list(PROPERTIES))
    assert all(np.isfinite(values).all() for values in table.values())
    assert 0 < internal_diversity(odd) < 1


def test_rdkit_is_silent_inside_and_not_afterwards():
    """In a fresh process, since RDKit writes to the file descriptor of stderr."""
    code = (
        "import sys; from rdkit import Chem; from expost.metrics.molecules import canonical_smiles, parse_molecules\n"
        "canonical_smiles('C('); parse_molecules(['c1cccc1', 'C(C)(C)(C)(C)C'])\n"
        "sys.stderr.write('between\\n'); sys.stderr.flush(); Chem.MolFromSmiles('C(')"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = run.stderr.split("between\n")
    assert before == ""
    assert "Parse Error" in after


def test_canonical_form_does_not_depend_on_how_a_molecule_is_written():
    for index, smiles in enumerate(SOME):
        molecule = Chem.MolFromSmiles(smiles)
        spellings = Chem.MolToRandomSmilesVect(molecule, 3, randomSeed=index + 1)
        assert {canonical_smiles(spelling) for spelling in spellings} == {canonical_smiles(smiles)}
        assert canonical_smiles(molecule) == canonical_smiles(smiles)


def test_values_that_rdkit_documents():
    assert logp(parse_molecule("c1ccccc1C(=O)O")) == pytest.approx(1.3848, abs=1e-4)
    documented = {  # docstring of rdkit.Chem.QED.qed
        "N=C(CCSCc1csc(N=C(N)N)n1)NS(N)(=O)=O": 0.253,
        "CNC(=NCCSCc1nc[nH]c1C)NC#N": 0.234,
        "CCCCCNC(=N)NN=Cc1c[nH]c2ccc(CO)cc12": 0.234,
    }
    for smiles, value in documented.items():
        assert qed(parse_molecule(smiles)) == pytest.approx(value, abs=1e-3)
    shipped = Path(RDConfig.RDContribDir) / "SA_Score" / "data" / "zim.100.txt"
    rows = list(csv.DictReader(io.StringIO(shipped.read_text()), delimiter="\t"))
    assert len(rows) == 100
    for row in rows:
        assert sa_score(parse_molecule(row["smiles"])) == pytest.approx(float(row["sa_score"]), abs=1e-3)


def test_properties_equal_rdkits_and_keep_order():
    items = [*SOME, "C(", None]
    table = properties(items, list(PROPERTIES))
    for index, smiles in enumerate(SOME):
        molecule = Chem.MolFromSmiles(smiles)
        assert table["logp"][index] == Crippen.MolLogP(molecule)
        assert table["weight"][index] == pytest.approx(Descriptors.MolWt(molecule), abs=1e-9)
    for values in table.values():
        assert values.dtype == np.float64
        assert np.isnan(values).tolist() == [False] * len(SOME) + [True, True]
    assert np.all((table["qed"][:-2] > 0) & (table["qed"][:-2] < 1))
    assert np.all((table["sa"][:-2] >= 1) & (table["sa"][:-2] <= 10))


def test_several_processes_give_the_same():
    items = [*SMILES[:40], "C("]
    one, two = (properties(items, ["logp", "sa"], workers=workers) for workers in (1, 2))
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])
    score = PenalizedLogP.fit(SMILES[:40])
    np.testing.assert_array_equal(score(items), score(items, workers=2))


def test_largest_ring_is_that_of_a_minimum_cycle_basis():
    """The sizes of the cycles are the same in every minimum basis, networkx' as well as RDKit's."""
    extra = ["C1C2CC3CC1CC(C2)C3", "C1CCCCCCCCC1", "C1CC2CCC1CC2", "c1ccc2ccccc2c1", "CCC"]
    for smiles in SOME[::3] + extra:
        molecule = parse_molecule(smiles)
        cycles = networkx.minimum_cycle_basis(networkx.Graph(Chem.GetAdjacencyMatrix(molecule)))
        assert largest_ring(molecule) == max(map(len, cycles), default=0), smiles
    assert [ring_penalty(parse_molecule(smiles)) for smiles in extra] == [0, 4, 0, 0, 0]


def by_published_code(smiles):
    """LogP, -SA and the ring term as Kusner et al. 2017 compute them."""
    molecule = Chem.MolFromSmiles(smiles)
    cycles = networkx.cycle_basis(networkx.Graph(Chem.GetAdjacencyMatrix(molecule)))
    return Crippen.MolLogP(molecule), -sa_score(molecule), -max(max(map(len, cycles), default=0) - 6, 0)


def test_rings_of_the_published_code(zinc):
    cages = ["C1C2CC3CC1CC(C2)C3", "CC1(C)C2CCC1(C)C(=O)C2", "C1CC2CCC1CC2"]
    for smiles in [*zinc, *cages, *SMILES]:
        molecule = parse_molecule(smiles)
        assert -ring_penalty(molecule, "basis") == by_published_code(smiles)[2]
    assert any(largest_ring(parse_molecule(s)) != largest_ring(parse_molecule(s), "basis") for s in cages)


def test_penalized_logp_is_the_published_formula(zinc):
    terms = np.array([by_published_code(smiles) for smiles in zinc])
    normalized = (terms - terms.mean(axis=0)) / terms.std(axis=0)
    score = PenalizedLogP.fit([*zinc, "C("], rings="basis")
    np.testing.assert_allclose(score(zinc), normalized.sum(axis=1), rtol=1e-10, atol=1e-10)
    assert score(zinc).mean() == pytest.approx(0, abs=1e-10)


def test_statistics_of_zinc_are_the_published_ones(zinc):
    """Those of all 249,456, as many later papers' code has them; a sample's must lie within its error."""
    found, published = PenalizedLogP.fit(zinc, rings="basis"), PenalizedLogP.zinc250k()
    n = len(zinc)
    for term in ("logp", "sa", "ring"):
        deviation = asdict(published)[f"{term}_std"]
        error = 4 * deviation / math.sqrt(n)
        assert asdict(found)[f"{term}_mean"] == pytest.approx(asdict(published)[f"{term}_mean"], abs=error)
    assert found.logp_std == pytest.approx(published.logp_std, rel=0.15)
    assert found.sa_std == pytest.approx(published.sa_std, rel=0.15)
    assert published.rings == "basis"


def test_penalized_logp_travels_as_json_and_survives_a_set_without_large_rings():
    score = PenalizedLogP.fit(["CCO", "c1ccccc1", "CCCCCC", None])
    assert (score.ring_mean, score.ring_std) == (0, 1)
    again = PenalizedLogP(**json.loads(json.dumps(asdict(score))))
    assert again == score
    values = again(["CCO", "C1CCCCCCC1", "C("])
    assert np.isnan(values).tolist() == [False, False, True]
    cyclooctane = parse_molecule("C1CCCCCCC1")
    expected = (logp(cyclooctane) - score.logp_mean) / score.logp_std - 2
    expected += (-sa_score(cyclooctane) - score.sa_mean) / score.sa_std
    assert values[1] == pytest.approx(expected)


def test_bad_arguments_are_refused():
    good = asdict(PenalizedLogP(1, 1, -3, 1, 0, 1))
    for change, message in (
        ({"sa_std": 0.0}, "give positive ones"),
        ({"logp_mean": math.nan}, "not all finite"),
        ({"rings": "largest"}, "choose 'smallest' or 'basis'"),
    ):
        with pytest.raises(UsageError, match=message):
            PenalizedLogP(**{**good, **change})
    with pytest.raises(UsageError, match="unknown property 'logP', did you mean 'logp'"):
        properties(["C"], ["logP"])
    with pytest.raises(UsageError, match="workers=0"):
        properties(["C"], workers=0)
    with pytest.raises(UsageError, match="put it into a list"):
        properties("CCO")
    with pytest.raises(UsageError, match="put it into a list"):
        parse_molecules("CCO")
    with pytest.raises(UsageError, match="rings='sssr'"):
        largest_ring(parse_molecule("C"), "sssr")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="power=0"):
        internal_diversity(["C"], power=0)
    with pytest.raises(UsageError, match="bits=0"):
        fingerprints(["C"], bits=0)


@pytest.mark.parametrize(("power", "bits"), [(1, 1024), (2, 1024), (1, 2048)])
def test_internal_diversity_equals_rdkits_similarities(power, bits):
    molecules = [Chem.MolFromSmiles(smiles) for smiles in [*SOME, SOME[0]]]
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=bits)
    prints = [generator.GetFingerprint(molecule) for molecule in molecules]
    similarities = np.array([DataStructs.BulkTanimotoSimilarity(one, prints) for one in prints])
    expected = 1 - (similarities**power).mean() ** (1 / power)
    assert internal_diversity([*SOME, SOME[0], None, "C("], power, bits) == pytest.approx(expected, rel=1e-9)


def test_internal_diversity_has_its_extremes():
    assert internal_diversity(["CCO"] * 3) == 0
    assert internal_diversity(["CCO"]) == 0
    assert internal_diversity(["CC", "O"]) == 0.5  # nothing in common but with themselves


def test_scaffolds_equal_rdkits_by_name():
    expected = Counter()
    for smiles in SOME:
        scaffold = MurckoScaffold.MurckoScaffoldSmiles(smiles)
        if scaffold:
            expected[scaffold] += 1
    assert scaffolds(SOME) == expected
    assert 0 < sum(expected.values()) < len(SOME)  # acyclic molecules have none


def test_scaffold_diversity_by_hand():
    benzenes, naphthalene = ["Cc1ccccc1", "Oc1ccccc1"], "Cc1ccc2ccccc2c1"
    assert scaffold_diversity([*benzenes, naphthalene, "CCO", "C("]) == 2 / 4


def test_drugs_have_the_formulas_that_were_written_down():
    assert len(DRUGS) > 300
    assert len(set(SMILES)) == len({canonical_smiles(smiles) for smiles in SMILES}) == len(NAMES) == len(DRUGS)
    for name, smiles in DRUGS:
        molecule = Chem.MolFromSmiles(smiles)
        assert rdMolDescriptors.CalcMolFormula(molecule) == FORMULAS[name], name
        assert Chem.GetFormalCharge(molecule) == 0
        assert not any(character in smiles for character in ".@/\\%9")


@pytest.mark.parametrize(
    ("name", "weight"),
    [("aspirin", 180.16), ("caffeine", 194.19), ("imatinib", 493.6), ("sildenafil", 474.6), ("atorvastatin", 558.6)],
)
def test_drugs_have_their_known_weights(name, weight):
    assert properties([NAMES[name]], ["weight"])["weight"][0] == pytest.approx(weight, abs=0.1)


def test_drugs_are_in_the_published_grammar(shared_data):
    from expost.grammar.cfg import Grammar
    from expost.grammar.parser import Parser

    text = (shared_data / "grammars" / "zinc_smiles.cfg").read_text()
    parses = Parser(Grammar.from_text(text, prune=True)).parse_many(SMILES, 400)
    assert [SMILES[rejection.index] for rejection in parses.rejected] == []


@pytest.fixture(scope="module")
def fcd():
    return pytest.importorskip("fcd", reason="the Frechet ChemNet distance needs fcd")


class TestChemNet:
    def test_features_equal_those_of_the_package(self, fcd):
        from fcd.utils import SmilesDataset

        from expost.metrics.chemnet import _chemnet, chemnet_features

        forms = [canonical_smiles(smiles) for smiles in SMILES[:24]]
        inputs = torch.from_numpy(np.stack(list(map(SmilesDataset(forms).__getitem__, range(24)))))
        with torch.no_grad():
            expected = _chemnet()(inputs.transpose(1, 2).float())
        found = chemnet_features([*forms, "C(", None, forms[3]], batch_size=7)
        torch.testing.assert_close(found, torch.cat([expected, expected[3:4]]), rtol=1e-4, atol=1e-5)
        assert float(expected.std(0).median()) > 0.01

    def test_distance_equals_that_of_the_package(self, fcd):
        from expost.metrics.chemnet import chemnet_features, chemnet_statistics, frechet_chemnet_distance

        a, b = SMILES[0:60], SMILES[60:120]
        x, y = (chemnet_features(part).double().numpy() for part in (a, b))
        expected = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(np.cov(x.T)) + np.trace(np.cov(y.T))
        eigenvalues = np.linalg.eigvals(np.cov(x.T) @ np.cov(y.T))
        expected -= 2 * np.sqrt(eigenvalues.real.clip(min=0)).sum()
        found = frechet_chemnet_distance(a, b)
        assert found == pytest.approx(expected, rel=1e-3)
        assert found == frechet_chemnet_distance(a, chemnet_statistics(b))
        assert frechet_chemnet_distance(a, a) == 0

    def test_too_few_molecules_are_refused(self, fcd):
        from expost.metrics.chemnet import chemnet_features, frechet_chemnet_distance

        assert chemnet_features(["C(", None]).shape == (0, 512)
        with pytest.raises(DataError, match="1 of 3 molecules are valid"):
            frechet_chemnet_distance(["CCO", "C(", None], SOME)
        with pytest.raises(UsageError, match="batch_size=0"):
            chemnet_features(["CCO"], batch_size=0)


def test_a_missing_package_is_named_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "rdkit", None)
    with pytest.raises(UsageError, match=r"pip install 'expost\[molecules\]'"):
        canonical_smiles("CCO")


def test_random_mutations_of_drugs_never_crash():
    rng = random.Random(0)
    alphabet = "CNOcnos()[]=#+-123456789%@/\\.FlBrISPH"
    valid = 0
    for smiles in itertools.islice(itertools.cycle(SMILES), 3000):
        text = list(smiles)
        for _ in range(rng.randint(1, 3)):
            text[rng.randrange(len(text))] = rng.choice(alphabet)
        form = canonical_smiles("".join(text))
        if form is not None:
            valid += 1
            if valid % 20 == 0:
                table = properties([form], list(PROPERTIES))
                assert all(np.isfinite(values).all() for values in table.values()), form
    assert 100 < valid < 2900
