"""Decoders that read their own output: the chain rule, the walk through a grammar, what cannot be done with them."""

import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

import expost
from expost.config import ModelConfig
from expost.errors import DataError, UsageError
from expost.generators import strings as string_generator
from expost.grammar.codec import CharacterCodec, GrammarCodec
from expost.grammar.decode import finished, generate_indices, most_frequent
from expost.grammar.stepwise import Stepwise
from expost.models.autoencoder import Autoencoder, build
from expost.models.regularizers import GradientPenalty
from expost.networks.autoregressive import AutoregressiveGRU, TeacherForced
from expost.registry import Part
from expost.types import LatentCode
from grammar_cases import complete_by_loop, grammars, normal

SUMS = "S -> T '+' S | T '*' S | T\nT -> 'x' | '1' | '2' | '3'"


class Table(Stepwise):
    """Logits that are known: a walk must give what the table itself gives."""

    def __init__(self, logits):
        self.logits, self.shape, self.device = logits, tuple(logits.shape), logits.device
        self.read = []

    def walk(self):
        live = torch.arange(len(self))

        def following(previous, groups, kept):
            nonlocal live
            live = live if kept is None else live[kept]
            self.read.append((live, previous, groups))
            return self.logits[live, len(self.read) - 1]

        return following

    def rows(self, first, last, repeats=1):
        return Table(self.logits[first:last].repeat_interleave(repeats, 0))


def decoder(shape=(9, 6), d=3, width=4, groups=None, seed=0):
    torch.manual_seed(seed)
    made = AutoregressiveGRU(shape, d, width)
    made.compete(groups)
    return made


def model_of(codec, regularizer=("none", 0.0), width=8, d=4):
    config = ModelConfig(
        name="grae",
        shape=(codec.length, codec.size),
        latent=Part("deterministic"),
        penalty=Part("half-norm"),
        regularizer=Part(regularizer[0]),
        reconstruction=Part("masked-categorical", {"groups": codec.groups().tolist()}),
        prior=None,
        network="gru-autoregressive",
        width=width,
        latent_dim=d,
        beta=1e-3,
        regularizer_weight=regularizer[1],
    )
    torch.manual_seed(0)
    return build(config)


# --- one distribution over rows


def test_a_symbols_logits_depend_on_the_symbols_before_it_and_the_code_alone():
    made, z = decoder(), normal(0, 1, 3)
    rows = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 5, 5]])
    base = made(z, rows)
    for changed in range(7):
        other = rows.clone()
        other[0, changed] = (int(rows[0, changed]) + 1) % 5
        differs = (made(z, other) != base).any(2)[0]
        assert not differs[: changed + 1].any()
        assert differs[changed + 1 : 8].all()
    assert (made(z + 1, rows) != base)[:, :8].any(2).all()


def test_the_symbols_of_a_place_are_told_which_compete():
    """The group of x_t follows from what came before, and is read; other symbols of the group change nothing."""
    made = decoder(groups=[0, 0, 1, 1, 1, 2])
    z = normal(0, 1, 3)
    rows = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 5, 5]])
    same, other = rows.clone(), rows.clone()
    same[0, 2], other[0, 2] = 3, 1
    assert torch.equal(made(z, same)[:, 2], made(z, rows)[:, 2])
    assert not torch.equal(made(z, other)[:, 2], made(z, rows)[:, 2])


def test_step_by_step_it_gives_what_it_gives_at_once():
    groups = torch.tensor([0, 0, 1, 1, 1, 2])
    made, z = decoder(groups=groups.tolist()), normal(0, 4, 3)
    rows = torch.randint(5, (4, 9), generator=torch.Generator().manual_seed(1))
    at_once, walk = made(z, rows), made.stepwise(z).walk()
    previous = None
    for step in range(9):
        torch.testing.assert_close(walk(previous, groups[rows[:, step]], None), at_once[:, step], rtol=1e-5, atol=1e-6)
        previous = rows[:, step]


def test_probabilities_of_all_rows_add_up_to_one():
    """All strings of up to three tokens, by the chain rule: a distribution, whose padding after the end is certain."""
    made, z = decoder(shape=(3, 3), seed=3), normal(0, 1, 3)
    rows = [[a, b, c] for a in range(3) for b in range(3) for c in range(3)]
    rows = [row for row in rows if all(row[i + 1] == 2 for i in range(2) if row[i] == 2)]
    total = 0.0
    for row in rows:
        logs = made(z, torch.tensor([row])).detach().log_softmax(2)[0]
        total += math.exp(sum(float(logs[t, symbol]) for t, symbol in enumerate(row)))
    assert len(rows) == 1 + 2 + 4 + 8
    assert total == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    "make", [lambda length: GrammarCodec(SUMS, length), lambda length: CharacterCodec("x123+*", length)]
)
def test_a_batch_with_a_longer_row_has_the_same_loss(make):
    """What is left out behind the longest row of a batch costs nothing."""
    codec = make(12)
    model = model_of(codec)
    short, long = codec.encode(["x+1", "2"]).indices, codec.encode(["x+1", "2", "x*x+3*x+1"]).indices
    alone = model.loss(short).terms["reconstruction"] * 2
    both = model.loss(long).terms["reconstruction"] * 3
    last = model.loss(long[2:]).terms["reconstruction"]
    torch.testing.assert_close(both, alone + last)


def test_the_loss_is_the_negative_log_likelihood_of_the_walk():
    codec = GrammarCodec(SUMS, length=12)
    model = model_of(codec).eval()
    rows = codec.encode(["x+1*2", "3"]).indices
    walk, groups = model.stepwise(model.encode(rows)).walk(), codec.groups()
    previous, log_likelihood = None, torch.zeros(2)
    for step in range(12):
        symbol = rows[:, step].long()
        logits = walk(previous, groups[symbol], None).masked_fill(groups[symbol][:, None] != groups, -math.inf)
        log_likelihood += logits.log_softmax(1).gather(1, symbol[:, None])[:, 0]
        previous = symbol
    torch.testing.assert_close(model.loss(rows).terms["reconstruction"], -log_likelihood.mean())


@pytest.mark.parametrize("given", ["packed", "one-hot"])
def test_a_decoder_reads_symbols_as_indices_of_an_embedding_however_they_are_packed(given):
    codec = GrammarCodec(SUMS, length=12)
    model, rows, read = model_of(codec), codec.encode(["x+1*2", "3"]).indices, []
    model.decoder.register_forward_pre_hook(lambda decoder, inputs: read.append(inputs[1]))
    assert rows.dtype == torch.uint8
    model.loss(rows if given == "packed" else torch.nn.functional.one_hot(rows.long(), codec.size).float())
    assert [each.dtype for each in read] == [torch.int64]
    assert torch.equal(read[0], rows.long())


# --- codecs walk


@settings(max_examples=60, deadline=None)
@given(grammars(), st.integers(1, 12), st.integers(0, 2**32), st.booleans())
def test_a_walk_through_a_table_gives_what_the_table_gives(grammar, steps, seed, complete):
    logits = normal(seed, 9, steps, grammar["pad"] + 1)
    found = []
    for each in (logits, Table(logits)):
        try:
            found.append(generate_indices(each, **grammar, complete=complete))
        except UsageError as error:
            found.append(torch.tensor([len(str(error))]))
    assert torch.equal(*found)


def test_drawn_walks_have_the_tables_probabilities():
    """Rows of several lengths, some dropped on the way: the strings come as often as their probabilities say."""
    codec = GrammarCodec("S -> 'a' S | 'b'", length=4)
    logits = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0.5, 0, 0], [0, 2, 0]])
    rows = codec.generate(Table(logits.expand(8000, -1, -1)), 1.0, torch.Generator().manual_seed(0))
    go = logits[:, :2].double().softmax(1)[:, 0].tolist()
    counts = Counter(codec.decode(rows))
    reached = 1.0
    for steps in range(4):
        assert counts["a" * steps + "b"] / 8000 == pytest.approx(reached * (1 - go[steps]), abs=0.02)
        reached *= go[steps]
    assert counts[None] / 8000 == pytest.approx(reached, abs=0.02)


@settings(max_examples=60, deadline=None)
@given(grammars(), st.integers(0, 2**32), st.sampled_from([0.0, 1.0]))
def test_every_finished_walk_of_a_random_grammar_is_a_derivation(grammar, seed, temperature):
    size = grammar["pad"] + 1
    made = decoder((10, size), groups=[*grammar["left"], max(grammar["left"]) + 1], seed=seed % 1000)
    rows = generate_indices(made.stepwise(3 * normal(seed, 4, 3)), **grammar, temperature=temperature)
    assert [complete_by_loop(row, grammar) for row in rows.tolist()] == finished(rows, **grammar).tolist()


def test_the_decoder_reads_what_was_chosen_and_what_may_come():
    codec = GrammarCodec(SUMS, length=12)
    table = Table(normal(0, 3, 12, codec.size))
    rows = codec.generate(table)
    for step, (live, previous, groups) in enumerate(table.read):
        assert previous is None if step == 0 else torch.equal(previous, rows[live, step - 1].long())
        assert torch.equal(groups, codec.groups()[rows[live, step].long()])
        going = (rows[:, step] != codec.size - 1).nonzero().squeeze(1)
        assert set(going.tolist()) <= set(live.tolist())  # nobody is dropped who goes on
        assert len(going) > 0.8 * len(live) or len(going) == len(live)  # nor many kept who do not
    longest = int((rows != codec.size - 1).sum(1).max())
    assert len(table.read) == longest  # nothing is computed for the padding after all have ended


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_characters_are_walked_through_too(temperature):
    codec = CharacterCodec("abc", 8)
    logits = normal(0, 200, 8, 4)
    if temperature == 0:
        assert torch.equal(codec.generate(Table(logits)), codec.generate(logits))
    rows = codec.generate(Table(logits), temperature, torch.Generator().manual_seed(0))
    ended = (rows == 3).long().cummax(1).values
    assert torch.equal(rows == 3, ended.bool())
    expected = (logits[:, 0] / temperature).softmax(1).mean(0) if temperature else None
    if expected is not None:
        shares = torch.bincount(rows[:, 0].long(), minlength=4) / 200
        torch.testing.assert_close(shares, expected, rtol=0, atol=0.12)


def test_the_most_frequent_of_many_walks_is_the_likeliest_string():
    codec = GrammarCodec("S -> 'a' | 'b' | 'c'", length=1)
    logits = torch.tensor([[[2.0, 0, -2, 0]], [[-2.0, 0, 2, 0]]])
    found = most_frequent(
        Table(logits), 300, codec, lambda text: text != "c", generator=torch.Generator().manual_seed(0)
    )
    assert found.strings == ["a", "b"]
    expected = 1 - logits[:, 0, :3].double().softmax(1)[:, 2]
    torch.testing.assert_close(found.valid, expected, rtol=0, atol=0.08)


def test_a_broken_decoder_is_told():
    codec = GrammarCodec(SUMS, length=6)
    with pytest.raises(DataError, match="logits of example 1 hold NaN"):
        codec.generate(Table(torch.stack([normal(0, 6, codec.size), torch.full((6, codec.size), math.nan)])))
    with pytest.raises(DataError, match="logits hold NaN"):
        CharacterCodec("ab", 3).generate(Table(torch.full((1, 3, 3), math.nan)))
    with pytest.raises(UsageError, match=r"shape \(1, 6, 4\)"):
        codec.generate(Table(normal(0, 1, 6, 4)))


# --- in an autoencoder


def test_it_learns_to_give_strings_back_by_its_code():
    codec = GrammarCodec(SUMS, length=8)
    source = torch.Generator().manual_seed(0)
    texts = sorted(
        {
            "".join("x123"[c] + "+*"[c % 2] for c in row)[:-1]
            for row in torch.randint(4, (400, 4), generator=source).tolist()
        }
    )
    rows = codec.encode(texts).indices
    model = model_of(codec, width=16, d=8)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(150):
        loss = model.loss(rows[torch.randint(len(rows), (64,), generator=source)]).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    back = codec.decode(codec.generate(model.stepwise(model.encode(rows))))
    assert sum(a == b for a, b in zip(back, texts, strict=True)) > 0.9 * len(texts)
    # of other codes it makes other strings: they are not read off the true symbols
    shifted = codec.decode(codec.generate(model.stepwise(model.encode(rows).roll(1, 0))))
    assert sum(a == b for a, b in zip(shifted, texts, strict=True)) < 0.1 * len(texts)


@pytest.mark.parametrize("regularizer", ["tikhonov", "gradient-penalty"])
def test_regularizers_reach_the_decoder(regularizer):
    codec = GrammarCodec(SUMS, length=8)
    model = model_of(codec, (regularizer, 0.1))
    rows = codec.encode(["x+1", "2*3", "x"]).indices
    loss = model.loss(rows)
    if regularizer == "tikhonov":
        weights = [p for p in model.decoder.parameters() if p.dim() >= 2]
        torch.testing.assert_close(loss.terms["regularizer"], sum(p.square().sum() for p in weights))
    else:  # the Jacobian of the logits by the code, the true symbols given; in expectation over the signs
        estimates = torch.stack([model.loss(rows).terms["regularizer"].detach() for _ in range(300)])
        z, function = model.encode(rows).detach(), TeacherForced(model.decoder, rows)
        jacobian = torch.autograd.functional.jacobian(lambda z: function(z).sum(0), z)  # examples are independent
        exact = jacobian.square().sum() / len(rows)
        assert abs(estimates.mean() - exact) < 4 * estimates.std() / 300**0.5
    loss.total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.decoder.parameters())


def test_a_code_alone_has_no_logits():
    codec = GrammarCodec(SUMS, length=8)
    model = model_of(codec)
    with pytest.raises(UsageError, match="reads the symbols that it has written"):
        model.decode(torch.zeros(1, 4))
    rows = codec.encode(["x+1", "2*3"]).indices
    forced = model(rows)
    one_hot = functional.one_hot(rows.long(), codec.size).float()
    assert torch.equal(model(one_hot), forced)


def test_groups_that_do_not_fit_are_refused():
    for groups in ([0, 1], [0, 1, 2, 3, 4, 6], [0, 1, 2, 3, 4, -1]):
        with pytest.raises(UsageError, match="groups of competing symbols for 6 symbols"):
            decoder(groups=groups)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("autoregressive") / "run"
    expost.train("grae", "expressions", folder, network="gru-autoregressive", width=16, epochs=2, limit=2000)
    expost.fit(folder, "gaussian")
    return folder


def test_a_run_of_it_does_what_other_runs_of_strings_do(run):
    strings = expost.Run.open(run).string_generator()
    sampled = strings.sample(20, seed=0)
    assert sampled == strings.sample(20, seed=0)
    assert len(set(sampled)) > 3
    z = strings.codes(20, seed=0)
    assert strings.decode(z) == sampled
    # many codes are walked through at once; alone each gives the same
    assert [strings.decode(each[None])[0] for each in z[:5]] == sampled[:5]
    # nearly without chance all draws of a code are its greedy decode: of each code, in its place
    best, shares = strings.best_of(z, 5, lambda text: True, temperature=1e-6, source=torch.Generator().manual_seed(0))
    assert best == sampled
    assert shares.tolist() == pytest.approx([float(text is not None) for text in sampled])
    model, codec = strings.generator.module, strings.codec
    assert isinstance(model, Autoencoder)
    in_parts = most_frequent(
        model.stepwise(z), 5, codec, lambda text: True, temperature=1e-6, chunk=10
    )  # two codes each
    assert in_parts.strings == sampled
    scores = {score.name: score for score in expost.evaluate(run, samples=50)}
    assert scores["validity-sampled"].value > 0.5


def test_codes_are_walked_through_in_batches_and_checked_as_other_decoders_codes_are(run, monkeypatch):
    strings = expost.Run.open(run).string_generator()
    z = strings.codes(10, seed=0)
    whole = strings.decode(z)
    monkeypatch.setattr(string_generator, "BATCH_STEPWISE", 3)
    assert strings.decode(z) == strings.decode(z.double()) == whole
    for decode in (strings.decode, lambda codes: strings.best_of(codes, 2, bool)):
        with pytest.raises(UsageError, match="nothing to do for decoding"):
            decode(z[:0])
        strings.generator.module.train()
        with pytest.raises(UsageError, match="training mode"):
            decode(z)
        strings.generator.module.eval()


def test_under_bf16_the_loss_is_computed_in_float32():
    codec = GrammarCodec(SUMS, length=8)
    model, rows = model_of(codec), GrammarCodec(SUMS, length=8).encode(["x+1", "2*3", "x"]).indices
    exact = model.loss(rows)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model.loss(rows)
        output = TeacherForced(model.decoder, rows)(model.encode(rows))
    assert output.dtype == rounded.total.dtype == torch.float32
    assert rounded.total.item() == pytest.approx(exact.total.item(), rel=0.02)


def test_the_penalty_on_a_part_of_the_batch_reads_that_part_of_the_symbols():
    codec = GrammarCodec(SUMS, length=8)
    rows = codec.encode(["x+1", "2*3", "x", "1*1+1"]).indices
    model = model_of(codec)
    decoder, code = TeacherForced(model.decoder, rows), model.code(rows)
    half = GradientPenalty("exact", fraction=0.5).penalty(decoder, code)
    first = LatentCode(code.z[:2], code.mean[:2])
    alone = GradientPenalty("exact").penalty(TeacherForced(model.decoder, rows[:2]), first)
    torch.testing.assert_close(half, alone)


def test_recurrent_layers_do_without_kernels_that_cannot_be_differentiated_twice():
    """The switch is torch's; that the kernels need it shows on CUDA alone."""
    codec = GrammarCodec(SUMS, length=8)
    model, rows = model_of(codec), codec.encode(["x+1"]).indices
    seen = []
    model.decoder.gru.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.enabled))
    decoder, code = TeacherForced(model.decoder, rows), model.code(rows)
    GradientPenalty().penalty(decoder, code)
    decoder(code.z)
    assert seen == [False, True]


def test_no_examples_have_no_logits():
    model = model_of(GrammarCodec(SUMS, length=8))
    assert model.decoder(torch.zeros(0, 4), torch.zeros(0, 8, dtype=torch.int64)).shape == (0, 8, model.shape[1])
