"""Runs of strings, from the command line: the same commands as for images, with a codec in between."""

import contextlib
import gzip
import json
import re
import sys
from typing import Any

import pytest
import torch
from PIL import Image

import expost
from expost.cli import main
from expost.commands import optimize
from expost.data.drugs import DRUGS
from expost.data.encoding import encode_strings, suit_codec
from expost.data.strings import Strings, read_strings
from expost.errors import DataError, UsageError
from expost.evaluation.protocol import Protocol, chosen_examples
from expost.evaluation.strings import evaluate_strings
from expost.examples.strings import ALIKE, remark_on_alike
from expost.generators.generator import Generator
from expost.generators.strings import StringGenerator
from expost.metrics.expressions import parse_expression
from expost.metrics.molecules import parse_molecule
from expost.run import Run
from expost.search import read_search
from expost.types import to_unit
from expost.utils.store import read_json


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A grammar autoencoder of expressions that reconstructs well."""
    folder = tmp_path_factory.mktemp("strings") / "grae"
    run = expost.train("grae", "expressions", folder, epochs=4, limit=6_000, lr=1e-3, tensorboard=False)
    for density in ("gaussian", "gmm"):
        expost.fit(run, density)
    return run


@pytest.fixture(scope="module")
def scores(run):
    return expost.evaluate(run, samples=1_000)


def cli(*words):
    main([str(word) for word in words])


def test_symbols_are_no_pixels():
    symbols = torch.tensor([[3, 255]], dtype=torch.uint8)
    assert torch.equal(to_unit(symbols), symbols)


def test_data_are_packed_and_one_hot_only_in_the_model(run):
    data = run.data()
    assert data.train.x.dtype == torch.uint8
    assert data.shape == (15, 12)
    model = run.model("cpu")
    x = data.test.x[:4]
    one_hot = torch.nn.functional.one_hot(x.long(), 12).float()
    assert torch.equal(model.encode(x), model.encode(one_hot))
    with pytest.raises(UsageError, match=r"examples have shape \(15, 11\)"):
        model.encode(one_hot[..., :11])


def test_held_out_strings_come_back_and_samples_are_in_the_language(run, scores):
    values = {(s.of, s.name): s.value for s in scores}
    assert values["reconstruction", "accuracy"] > 0.5
    for density in ("gaussian", "gmm"):
        assert values[density, "validity-greedy"] > 0.8
        # what ends is valid: there is no other way to fail
        assert values[density, "validity-greedy"] == pytest.approx(1 - values[density, "truncated"])
        assert values[density, "validity-best-of-k"] >= values[density, "validity-sampled"]
        assert 0 < values[density, "uniqueness"] <= 1
        assert 0 < values[density, "novelty"] <= 1
    strings = run.string_generator("cpu")
    drawn = [s for s in strings.sample(300, "gmm", seed=1) if s is not None]
    assert len(drawn) > 200
    assert all(parse_expression(s) is not None for s in drawn)
    assert strings.sample(50, "gmm", seed=1) == strings.sample(50, "gmm", seed=1)
    assert strings.sample(50, "gmm", seed=1) != strings.sample(50, "gmm", seed=2)
    hot = strings.sample(200, "gmm", seed=1, temperature=1.0)
    assert hot != strings.sample(200, "gmm", seed=1)


def test_accuracy_is_the_share_of_exact_strings(run, scores):
    data, strings = run.data(), run.string_generator("cpu")
    originals = strings.codec.decode(chosen_examples(data.test.x, Protocol(samples=1_000)))
    back = strings.reconstruct(originals)
    expected = sum(a == b for a, b in zip(originals, back, strict=True)) / 1_000
    assert next(s.value for s in scores if s.name == "accuracy") == expected


def test_the_codec_is_on_every_card(scores):
    for score in scores:
        if score.card.features == "strings":
            assert score.card.preprocessing["codec"]["name"] == "grammar"
            assert "sin(" in score.card.preprocessing["codec"]["options"]["grammar"]


def test_commands_write_lines(run, tmp_path):
    path = expost.sample(run, n=30, out=tmp_path / "s.txt", density="gmm")
    lines = path.read_text().splitlines()
    assert 0 < len(lines) <= 30
    assert all(parse_expression(line) for line in lines)
    pairs = [line.split("\t") for line in expost.reconstruct(run, tmp_path / "r.txt", n=10).read_text().splitlines()]
    assert len(pairs) == 10
    test = run.data().test
    assert [first for first, _ in pairs] == run.string_generator("cpu").codec.decode(test.x[test.spread(10)])
    rows = [r.split("\t") for r in expost.interpolate(run, tmp_path / "i.txt", n=3, steps=5).read_text().splitlines()]
    assert [len(row) for row in rows] == [5, 5, 5]
    with pytest.raises(UsageError, match=r"cannot write this as 's\.png'"):
        expost.sample(run, out=tmp_path / "s.png")


def test_a_search_goes_on_where_it_was(run, tmp_path, capsys):
    options = {"codes": 400, "batch": 5, "inducing": 30, "decodes": 3, "out": tmp_path / "search", "seed": 1}
    first = optimize(run, rounds=1, **options)
    assert len(first.rounds) == 1
    whole = optimize(run, rounds=2, **options)
    assert len(whole.rounds) == 2
    assert whole.rounds[0].strings == first.rounds[0].strings
    assert whole.minimize
    table = (tmp_path / "search" / "table.md").read_text()
    best = whole.best(1)[0]
    assert best.string in table.replace("\\*", "*")
    training = set(run.string_generator("cpu").codec.decode(run.data().train.x))
    assert whole.known == training.intersection(whole.strings)
    assert read_search(tmp_path / "search").known == whole.known
    record = json.loads((tmp_path / "search" / "search.json").read_text())
    del record["known"]
    (tmp_path / "search" / "search.json").write_text(json.dumps(record))
    assert read_search(tmp_path / "search").new is None
    assert optimize(run, rounds=2, **options).known == whole.known  # looked up, though no round was left to do
    assert read_search(tmp_path / "search").known == whole.known
    (tmp_path / "search" / "search.json").write_text(json.dumps(record | {"known": [1]}))
    with pytest.raises(DataError, match="is no record of a search, or damaged"):
        read_search(tmp_path / "search")
    (tmp_path / "search" / "search.json").write_text(json.dumps(record))
    assert (tmp_path / "search" / "best.png").stat().st_size > 5_000
    with pytest.raises(UsageError, match="seed|batch"):
        optimize(run, rounds=2, **options | {"batch": 6})


def test_a_search_that_finds_nothing_still_ends(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(StringGenerator, "best_of", lambda self, z, *rest, **options: ([None] * len(z), 0.0))
    result = optimize(run, rounds=1, codes=200, batch=3, inducing=20, decodes=2, out=tmp_path / "s")
    assert result.best(1) == []
    assert "nothing valid was found" in capsys.readouterr().err
    assert (tmp_path / "s" / "table.md").exists()
    with pytest.raises(UsageError, match="decodes"):
        optimize(run, decodes=0, out=tmp_path / "t")


def test_an_objective_of_ones_own(run, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("def short(strings):\n    return [float(len(s)) for s in strings]\n")
    monkeypatch.chdir(tmp_path)
    result = optimize(
        run, "mine:short", region="box", rounds=1, codes=300, batch=4, inducing=20, decodes=3,
        options=("minimize=true",), out=tmp_path / "s",
    )  # fmt: skip
    assert all(found.score == len(found.string) for found in result.best(3))


@pytest.mark.parametrize("model", ["gvae", "gcvvae", "character-vae", "wae-mmd", "rae-gp", "rae-sn"])
def test_every_other_row_trains_on_strings(model, tmp_path):
    run = expost.train(model, "expressions", tmp_path / "run", epochs=1, limit=500, width=16, tensorboard=False)
    codec = read_json(run.folder / "config.json")["data"]["codec"]
    assert codec["name"] == ("characters" if model == "character-vae" else "grammar")
    strings = run.string_generator("cpu")
    prior = run.config.model.prior.name
    strings.generator.fit(prior, run.data().train.x)
    assert len(strings.sample(5, prior)) == 5


def test_published_networks_are_one_word_away(tmp_path):
    run = expost.train("grae", "expressions", tmp_path / "run", preset="paper", dry_run=True)
    model = run.config.model
    assert (model.network, model.width, model.latent_dim) == ("gru-expressions", 100, 25)
    drugs = expost.train("gvae", "drugs", tmp_path / "run", preset="paper", dry_run=True)
    assert (drugs.config.model.network, drugs.config.model.width, drugs.config.model.latent_dim) == (
        "gru-molecules", 501, 56,
    )  # fmt: skip
    assert drugs.config.training.batch_size == 500
    assert drugs.config.model.beta == 1.0


def test_molecules_from_a_file(tmp_path):
    smiles = [smiles for _, smiles in DRUGS]
    with gzip.open(tmp_path / "mine.smi.gz", "wt") as file:
        file.write("\n".join([*smiles, "not a molecule", "C1CC"]))
    run = expost.train("grae", tmp_path / "mine.smi.gz", tmp_path / "run", epochs=1, width=16, tensorboard=False)
    data = run.data()
    assert data.domain == "molecules"
    assert "left out" in data.note
    known = set(run.string_generator("cpu").codec.decode(data.train.x))
    assert known <= {*smiles, "C1CC"}
    with pytest.raises(UsageError, match="features and bootstrap are for images"):
        expost.evaluate(run, bootstrap=50)


class Parrot:
    """A "model" whose codes are places in a list of known molecules, which it decodes to."""

    def __init__(self, codec, smiles):
        self.rows = codec.encode(smiles).indices
        self.size = codec.size

    def decode(self, z):
        rows = self.rows[z[:, 0].round().long().clamp(0, len(self.rows) - 1)]
        return 50.0 * torch.nn.functional.one_hot(rows.long(), self.size).float()


def test_molecule_scores_are_those_of_the_molecules(monkeypatch):
    """Samples that are known: every score can be computed by hand."""
    from rdkit.Chem import Crippen, MolFromSmiles

    smiles = ["CCO", "CCO", "c1ccccc1", "CC(=O)O", "C1CC1"]
    everything = ["CCO", "OCC", "CC(=O)O", "CCN", "CCCC", "c1ccncc1"] * 20
    strings = Strings("known", everything, ["CCO"] * 3, ["CCO", "CCN"] * 5, "", "molecules")
    codec = suit_codec(strings, "grammar", length=60)
    data = encode_strings(strings, codec)
    parrot = Parrot(data.codec, smiles)
    generator = Generator(lambda x: torch.arange(len(x)).float()[:, None].expand(-1, 2), parrot.decode)
    generator.fit("gaussian", codes=torch.randn(50, 2))
    wrapped = StringGenerator(generator, data.codec)
    places = torch.tensor([[0.0, 0], [1, 0], [2, 0], [3, 0], [4, 0]])
    monkeypatch.setattr(wrapped, "codes", lambda n, density, seed: places)
    scores = evaluate_strings(wrapped, data, codec, ("gaussian",), Protocol(("properties",), samples=5))
    found = {score.name: score for score in scores}
    assert found["validity-greedy"].value == 1
    assert found["uniqueness"].value == found["unique-valid"].value == pytest.approx(4 / 5)
    assert found["novelty"].value == pytest.approx(2 / 4)  # benzene and cyclopropane are not in the training set
    logp = sum(Crippen.MolLogP(MolFromSmiles(each)) for each in smiles) / 5
    assert found["mean-logp"].value == pytest.approx(logp)
    assert found["scaffold-diversity"].value == pytest.approx(len({"c1ccccc1", "C1CC1"}) / 5)
    assert found["validity-sampled"].value > 0.99
    assert "normalization" in found["mean-plogp"].card.settings


def test_a_grammar_of_ones_own(tmp_path):
    (tmp_path / "g.txt").write_text("S -> 'a' S 'b' | 'c'\n")
    lines = ["a" * n + "c" + "b" * n for n in range(12)] * 1 + ["a" * n + "c" + "b" * n for n in range(12, 40)]
    (tmp_path / "words.txt").write_text("\n".join(lines))
    options: dict[str, Any] = {
        "grammar": str(tmp_path / "g.txt"),
        "length": 50,
        "epochs": 2,
        "width": 8,
        "latent_dim": 4,
    }
    run = expost.train("grae", tmp_path / "words.txt", tmp_path / "run", tensorboard=False, **options)
    strings = run.string_generator("cpu")
    strings.generator.fit("gaussian", run.data().train.x)
    drawn = [s for s in strings.sample(50, seed=0, temperature=1.0) if s is not None]
    assert drawn
    assert all(s.count("a") == s.count("b") and s.count("c") == 1 for s in drawn)
    assert Run.open(run.folder).data().codec.options() == strings.codec.options()  # the file is not needed again


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("grae", "mnist-5k", {}), "model 'grae' is for strings, data set 'mnist-5k' has none"),
        (("rae", "mnist-5k", {"grammar": "smiles"}), "grammar is for strings"),
        (("rae", "mnist-5k", {"codec": "grammar"}), "codec is for strings"),
        (("grae", "expressions", {"codec": "characters"}), "works on grammar, not on characters"),
        (("character-vae", "expressions", {"grammar": "smiles"}), "of no use to a model of characters"),
        (("vq-vae", "expressions", {}), "codes on a map"),
        (("grae", "expressions", {"grammar": "smiles", "limit": 50}), "can be encoded"),
        (("grae", "expressions", {"length": 1, "limit": 50}), "shortest derivation"),
        (("grae", "expressions", {"grammar": "nowhere.txt"}), "no grammar and no file 'nowhere.txt'"),
    ],
)
def test_what_does_not_go_together(words, message, tmp_path):
    model, data, options = words
    with pytest.raises((UsageError, DataError), match=message):
        expost.train(model, data, tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_what_is_left_out_is_told_by_its_reason_with_the_length_that_keeps_it(tmp_path, capsys):
    good = [f"{a}{op}{b}" for a in "x123" for op in "+*/" for b in "x123"]
    long = ["+".join("x" * terms) for terms in range(9, 13)]  # 18 to 24 productions
    path = tmp_path / "mine.txt"
    path.write_text("\n".join([*good, *long, "formula", "x**2"]) + "\n")
    with contextlib.suppress(SystemExit):
        main(["train", "grae", "--data", str(path), "--out", str(tmp_path / "run"), "--dry-run"])
    note = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("data: "))
    parts = re.search(r"(\d+)/(\d+)/(\d+) for training/validation/test", note)
    assert parts is not None
    assert sum(map(int, parts.groups())) == len(good) + 6  # before some are left out
    assert re.search(r"takes more than 15 productions: 4, e.g. 'x.*': it needs \d+ \(--length 24 keeps them\)", note)
    assert "does not parse: 2, e.g. '" in note
    assert sum(int(number) for number in re.findall(r"(\d+) of \d+ (?:train|validation|test)", note)) == 6
    assert "most of them" not in note
    strings = read_strings(str(path))
    kept = encode_strings(strings, suit_codec(strings, length=24))
    assert sum(map(len, (kept.train, kept.validation, kept.test))) == len(good) + len(long)
    with pytest.raises(UsageError, match=r"mine.txt holds strings; read them with expost\.data\.strings\.read_strings"):
        expost.load_data(str(path))
    (tmp_path / "one.csv").write_text("name\nx\ny\n")
    with pytest.raises(UsageError, match=r"one.csv holds strings"):
        expost.load_data(tmp_path / "one.csv")
    path.write_text("\n".join([*good, *(f"y{n}" for n in range(200))]) + "\n")
    strings = read_strings(str(path))
    coded = encode_strings(strings, suit_codec(strings, grammar="expressions"))
    assert "strings, which is most of them: does not parse: 200" in coded.note


def test_words_of_another_language(tmp_path):
    (tmp_path / "w.txt").write_text("\n".join(f"word number {n}" for n in range(50)))
    with pytest.raises(UsageError, match="no grammar is known"):
        expost.train("grae", tmp_path / "w.txt", tmp_path / "run")
    run = expost.train("character-vae", tmp_path / "w.txt", tmp_path / "run", epochs=1, width=8, tensorboard=False)
    assert run.data().domain == "text"
    with pytest.raises(UsageError, match="no usual objective"):
        optimize(run)


def test_images_have_no_strings(tmp_path):
    run = expost.train("ae", "digits", tmp_path / "run", epochs=1, width=8, tensorboard=False)
    with pytest.raises(UsageError, match="holds a model of images or vectors, and this is for strings"):
        optimize(run)
    with pytest.raises(UsageError, match="temperature"):
        expost.sample(run, temperature=1.0)


def test_on_the_command_line(run, tmp_path, capsys):
    cli("evaluate", run.folder, "--samples", 200, "--measures", "latent", "--json")
    names = {score["name"] for score in json.loads(capsys.readouterr().out)}
    assert {"accuracy", "validity-sampled"} <= names
    with pytest.raises(SystemExit, match="2"):
        cli("evaluate", run.folder, "--measures", "frechet")
    assert "frechet is a measure of images and of vectors; choose of: properties" in capsys.readouterr().err


def test_samples_of_molecules_can_be_drawn(tmp_path, capsys):
    pytest.importorskip("rdkit", reason="the molecules extra is not installed")
    chains = ["C" * length + end for length in range(1, 21) for end in ("", "O", "N", "F", "Cl")]
    chains[10::10] = [f"~{index}" for index in range(len(chains[10::10]))]
    (tmp_path / "chains.smi").write_text("\n".join(chains) + "\n")
    run = expost.train("grae", tmp_path / "chains.smi", tmp_path / "run", epochs=20, width=16, length=80, batch_size=20)
    note = capsys.readouterr().err
    assert re.search(r"left out \d+ of \d+ train.* strings: does not parse: \d+, e.g. '~\d' at position 0", note)
    expost.fit(run, "gaussian")
    expost.sample(run, 12, tmp_path / "drawn.png", "gaussian", title="")
    with Image.open(tmp_path / "drawn.png") as picture:
        size = picture.size
    drawn = int(re.search(r"(\d+) of 12 samples are molecules", capsys.readouterr().err)[1])
    assert size == (min(4, drawn) * 280, -(-drawn // 4) * 260)
    with pytest.raises(UsageError, match=r"give one of: .txt, .smi, .csv, .png"):
        expost.sample(run, 12, tmp_path / "drawn.npy", "gaussian")


def test_few_strings_still_make_an_epoch_of_several_steps(tmp_path):
    run = expost.train("grae", "drugs", tmp_path / "few", width=8, epochs=1, limit=200, tensorboard=False)
    record = json.loads((run.folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert run.config.training.batch_size == 16
    assert record["step"] == 12  # 8 of 200 strings are left out
    asked = expost.train(
        "grae", "drugs", tmp_path / "asked", width=8, epochs=1, limit=200, batch_size=50, tensorboard=False
    )
    assert asked.config.training.batch_size == 50


def test_how_many_samples_are_molecules_and_how_many_differ_is_said(tmp_path, capsys, monkeypatch):
    pytest.importorskip("rdkit", reason="the molecules extra is not installed")
    run = expost.train("grae", "drugs", tmp_path / "run", width=8, epochs=1, limit=200, tensorboard=False)
    expost.fit(run, "gaussian")
    capsys.readouterr()
    path = expost.sample(run, 30, tmp_path / "drawn.smi")
    lines = path.read_text().splitlines()
    valid = [each for each in lines if parse_molecule(each) is not None]
    assert f"{len(valid)} of 30 samples are molecules, {len(set(valid))} different" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "rdkit", None)  # as where it is not installed
    again = expost.sample(run, 30, tmp_path / "again.smi")
    assert again.read_text().splitlines() == lines
    assert "are molecules" not in capsys.readouterr().err


def test_invalid_samples_that_differ_are_not_said_to_be_alike(tmp_path, capsys):
    pytest.importorskip("rdkit", reason="the molecules extra is not installed")
    run = expost.train("character-vae", "drugs", tmp_path / "run", width=8, epochs=1, limit=200, tensorboard=False)
    scores = expost.evaluate(run, samples=60, measures=("properties",))
    valid = next(each.value for each in scores if (each.name, each.of) == ("validity-greedy", "standard-normal"))
    strings = run.string_generator()
    different = set(strings.decode(strings.codes(60, "standard-normal", 0))) - {None}
    assert valid < ALIKE <= len(different) / 60
    assert "samples of standard-normal" not in capsys.readouterr().err


def test_where_few_strings_differ_that_is_said(capsys):
    remark_on_alike(["a", "a", None, None], "samples")
    assert "samples: 1 different strings among 4; train longer, or on more strings" in capsys.readouterr().err
    remark_on_alike([None, None], "samples")  # what did not end is no string
    assert "samples: 0 different strings among 2" in capsys.readouterr().err
    remark_on_alike(["a"] * 7 + ["b", "c", None], "samples")  # 3 of 10
    assert capsys.readouterr().err == ""
    remark_on_alike(["a"] * 8 + ["b", None], "samples")
    assert "samples: 2 different strings among 10" in capsys.readouterr().err
    remark_on_alike(["a", "b", None, None], "samples")
    assert capsys.readouterr().err == ""
