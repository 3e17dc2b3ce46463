"""Masked decoding: every finished row is a derivation, by an independent stack and by NLTK's parser."""

import math
import time
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk import CFG, ChartParser, Nonterminal

from expost.errors import DataError, UsageError
from expost.grammar.codec import CharacterCodec, GrammarCodec
from expost.grammar.decode import finished, generate_indices, most_frequent, shortest_derivations
from expost.grammar.grammars import EXPRESSIONS, load_grammar
from grammar_cases import complete_by_loop, grammars, normal

# S -> '(' S ')' | S S | 'x'
BRACKETS: dict[str, Any] = {"left": [0, 0, 0], "children": [[0], [0, 0], []], "start": 0, "pad": 3}


def greedy_by_loop(logits, grammar, steps):
    """One example at a time, with a list for a stack: what the tensors must reproduce."""
    rows = []
    for example in logits.tolist():
        stack, row = [grammar["start"]], []
        for step in range(steps):
            if not stack:
                row.append(grammar["pad"])
                continue
            symbol = stack.pop()
            allowed = [i for i, own in enumerate(grammar["left"]) if own == symbol]
            best = max(allowed, key=lambda i: example[step][i])
            stack.extend(reversed(grammar["children"][best]))
            row.append(best)
        rows.append(row)
    return rows


@settings(max_examples=120, deadline=None)
@given(grammars(), st.integers(0, 12), st.integers(0, 2**32))
def test_greedy_decoding_equals_a_stack_of_python_lists(grammar, steps, seed):
    logits = normal(seed, 5, steps, grammar["pad"] + 1)
    indices = generate_indices(logits, **grammar)
    assert indices.tolist() == greedy_by_loop(logits, grammar, steps)
    expected = [complete_by_loop(row, grammar) for row in indices.tolist()]
    assert finished(indices, **grammar).tolist() == expected


@settings(max_examples=100, deadline=None)
@given(grammars(), st.integers(1, 12), st.integers(0, 2**32), st.sampled_from([0.0, 0.5, 3.0]))
def test_with_complete_every_derivation_ends(grammar, steps, seed, temperature):
    logits = normal(seed, 6, steps, grammar["pad"] + 1)
    generator = torch.Generator().manual_seed(seed)
    shortest = shortest_derivations(grammar["left"], grammar["children"])[1][grammar["start"]]
    if shortest > steps:
        with pytest.raises(UsageError, match="no derivation fits"):
            generate_indices(logits, **grammar, complete=True)
        return
    indices = generate_indices(logits, **grammar, temperature=temperature, generator=generator, complete=True)
    assert all(complete_by_loop(row, grammar) for row in indices.tolist())
    if temperature == 0:  # what ends by itself is left as it is
        free = generate_indices(logits, **grammar)
        ended = finished(free, **grammar)
        assert torch.equal(indices[ended], free[ended])


@settings(max_examples=40, deadline=None)
@given(grammars(), st.integers(0, 2**32))
def test_finished_derivations_of_random_grammars_are_recognised_by_nltk(grammar, seed):
    """Each right side gets one of two terminals, in front of its non-terminals."""
    rules = [
        f"N{own} -> '{'ab'[i % 2]}' " + " ".join(f"N{child}" for child in right)
        for i, (own, right) in enumerate(zip(grammar["left"], grammar["children"], strict=True))
    ]
    parser = ChartParser(CFG(Nonterminal(f"N{grammar['start']}"), CFG.fromstring("\n".join(rules)).productions()))
    indices = generate_indices(normal(seed, 4, 6, grammar["pad"] + 1), **grammar)
    for row, ended in zip(indices.tolist(), finished(indices, **grammar).tolist(), strict=True):
        if ended:  # the terminals of a leftmost derivation come in its order, here
            tokens = ["ab"[symbol % 2] for symbol in row if symbol != grammar["pad"]]
            assert next(iter(parser.parse(tokens)), None) is not None


@settings(max_examples=150, deadline=None)
@given(grammars(), st.data())
def test_finished_agrees_with_a_stack_on_any_rows(grammar, data):
    steps = data.draw(st.integers(0, 8))
    symbols = st.integers(-2, grammar["pad"] + 2)
    rows = data.draw(st.lists(st.lists(symbols, min_size=steps, max_size=steps), min_size=1, max_size=8))
    expected = [complete_by_loop(row, grammar) for row in rows]
    assert finished(torch.tensor(rows, dtype=torch.int16).reshape(len(rows), steps), **grammar).tolist() == expected


def test_growing_stacks_keep_what_they_still_need():
    """S -> S S S T | 'a', T -> 'b': 60 steps down, up to 180 on the stack, then as many up as fit."""
    grammar: dict[str, Any] = {"left": [0, 0, 1], "children": [[0, 0, 0, 1], [], []], "start": 0, "pad": 3}
    for depth in (1, 5, 13, 14, 30):
        logits = torch.zeros(1, 60, 4)
        logits[:, :depth, 0] = 1
        logits[:, depth:, 1] = 1
        indices = generate_indices(logits, **grammar)
        assert indices.tolist() == greedy_by_loop(logits, grammar, 60)
        # n expansions take n steps, 2 n + 1 'a' and n 'b'
        assert finished(indices, **grammar).item() == (4 * depth + 1 <= 60)


def test_every_finished_expression_is_recognised_by_nltk():
    codec = GrammarCodec(EXPRESSIONS, 15)
    parser = ChartParser(CFG.fromstring(EXPRESSIONS))
    grammar: dict[str, Any] = {
        "left": codec.grammar.left,
        "children": codec.grammar.children,
        "start": 0,
        "pad": codec.grammar.pad,
    }
    logits = normal(0, 300, 15, codec.size)
    generator = torch.Generator().manual_seed(0)
    indices = torch.cat([codec.generate(logits), codec.generate(logits, 1.0, generator)])
    ended = finished(indices, **grammar)
    strings = codec.decode(indices)
    assert [string is not None for string in strings] == ended.tolist()
    assert 50 < ended.sum() < 600
    for string in {string for string in strings if string is not None}:
        tokens = string.replace("sin(", " sin( ").replace("exp(", " exp( ")
        for mark in "+*/)":
            tokens = tokens.replace(mark, f" {mark} ")
        parts = [t for word in tokens.split() for t in ([word] if word in ("sin(", "exp(") else list(word))]
        assert next(iter(parser.parse(parts)), None) is not None, string


def test_draws_have_the_stated_probabilities():
    """The first step of the bracket grammar: softmax(logits / 2) over its three productions, the padding left out."""
    logits = torch.tensor([1.0, 0.0, -1.0, 50.0]).expand(40_000, 1, 4)
    indices = generate_indices(logits, **BRACKETS, temperature=2.0, generator=torch.Generator().manual_seed(0))
    counts = np.bincount(indices[:, 0].numpy(), minlength=4)
    expected = torch.softmax(torch.tensor([1.0, 0.0, -1.0]) / 2, 0).numpy()
    assert counts[3] == 0
    error = np.sqrt(expected * (1 - expected) / 40_000)
    assert np.all(np.abs(counts[:3] / 40_000 - expected) < 4.5 * error)


def test_complete_renormalises_over_what_fits():
    """With one step left only 'x' fits; with three, S -> S S and '(' S ')' fit as well."""
    logits = torch.zeros(30_000, 3, 4)
    generator = torch.Generator().manual_seed(0)
    indices = generate_indices(logits, **BRACKETS, temperature=1.0, generator=generator, complete=True)
    found = Counter(map(tuple, indices.tolist()))
    # (x): then x or one more bracket; S S: two x; x: padding
    expected = {(2, 3, 3): 1 / 3, (1, 2, 2): 1 / 3, (0, 2, 3): 1 / 6, (0, 0, 2): 1 / 6}
    assert set(found) == set(expected)
    for row, p in expected.items():
        assert found[row] / 30_000 == pytest.approx(p, abs=4.5 * math.sqrt(p * (1 - p) / 30_000))


def test_draws_are_seeded_and_low_temperatures_are_greedy():
    logits = normal(0, 50, 12, 4)

    def draw(seed, temperature):
        return generate_indices(
            logits, **BRACKETS, temperature=temperature, generator=torch.Generator().manual_seed(seed)
        )

    assert torch.equal(draw(1, 1.0), draw(1, 1.0))
    assert not torch.equal(draw(1, 1.0), draw(2, 1.0))
    for temperature in (1e-5, 1e-40, 5e-324):
        assert torch.equal(draw(3, temperature), generate_indices(logits, **BRACKETS))


def test_the_result_does_not_depend_on_the_rest_of_the_batch_or_on_the_logits_layout():
    logits = normal(0, 20, 12, 4)
    together = generate_indices(logits, **BRACKETS)
    assert torch.equal(together, torch.cat([generate_indices(row[None], **BRACKETS) for row in logits]))
    assert torch.equal(together, generate_indices(logits.transpose(0, 1).contiguous().transpose(0, 1), **BRACKETS))
    assert torch.equal(together, generate_indices(logits.double(), **BRACKETS))


def test_it_works_inside_and_outside_of_inference_mode_and_on_logits_with_gradients():
    grammar: dict[str, Any] = {
        "left": [0, 0, 0, 0],
        "children": [[0], [], [], [0, 0]],
        "start": 0,
        "pad": 4,
    }  # used by no other test
    logits = normal(0, 20, 12, 5)
    with torch.inference_mode():
        inside = generate_indices(logits, **grammar)
    outside = generate_indices(logits.requires_grad_(), **grammar, complete=False)
    assert torch.equal(inside, outside)
    assert not outside.is_inference()
    drawn = generate_indices(logits, **grammar, temperature=1.0, complete=True)
    assert finished(drawn, **grammar).all()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_infinite_logits_still_give_allowed_symbols(temperature):
    generator = torch.Generator().manual_seed(0)
    for value in (-math.inf, math.inf):
        logits = torch.full((4, 6, 4), value)
        logits[..., 3] = math.inf
        indices = generate_indices(logits, **BRACKETS, temperature=temperature, generator=generator)
        assert (indices[:, 0] < 3).all()
    logits = torch.full((4, 6, 4), -math.inf)
    logits[..., 2] = 0
    drawn = generate_indices(logits, **BRACKETS, temperature=temperature, generator=generator)
    assert drawn.tolist() == [[2, 3, 3, 3, 3, 3]] * 4


@pytest.mark.parametrize(("symbols", "dtype"), [(255, torch.uint8), (256, torch.int16)])
def test_symbols_come_packed(symbols, dtype):
    grammar = {"left": [0] * symbols, "children": [[]] * symbols, "start": 0, "pad": symbols}
    logits = torch.zeros(1, 2, symbols + 1)
    logits[..., symbols - 1] = 1
    indices = generate_indices(logits, **grammar)
    assert indices.dtype == dtype
    assert indices.tolist() == [[symbols - 1, symbols]]


def test_empty_batches_and_lengths():
    assert generate_indices(torch.zeros(0, 5, 4), **BRACKETS).shape == (0, 5)
    empty = generate_indices(torch.zeros(2, 0, 4), **BRACKETS)
    assert empty.shape == (2, 0)
    assert finished(empty, **BRACKETS).tolist() == [False, False]


def test_shortest_derivations_of_a_grammar_that_doubles():
    """A_i -> A_i+1 A_i+1: 2^(i + 1) - 1 steps, more than an integer of 64 bits holds."""
    levels = 80
    left = list(range(levels))
    children = [[i + 1, i + 1] for i in range(levels - 1)] + [[]]
    through, steps = shortest_derivations(left, children)
    assert steps == [2 ** (levels - i) - 1 for i in range(levels)]
    assert through == steps
    logits = torch.zeros(1, 10, levels + 1)
    assert generate_indices(logits, left, children, 0, levels).tolist() == [list(range(10))]
    with pytest.raises(UsageError, match=f"takes {2**80 - 1}"):
        generate_indices(logits, left, children, 0, levels, complete=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": torch.zeros(2, 3, 5)}, r"\(2, 3, 5\).*give floating-point numbers of shape \(N, L, 4\)"),
        ({"logits": torch.zeros(3, 4)}, "give floating-point"),
        ({"logits": torch.zeros(2, 3, 4, dtype=torch.int64)}, "torch.int64"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"temperature": math.inf}, "temperature is inf"),
        ({"start": 7}, "non-terminal 7 is used but has no production"),
        ({"children": [[0], [0, 2], []]}, "non-terminal 2 is used"),
        ({"pad": 2}, "padding 2"),
        ({"left": [], "children": [], "pad": 0}, "at least one production"),
        ({"left": [0, 0, 0], "children": [[0], [0, 0], [0]], "complete": True}, "the shortest never ends"),
    ],
)
def test_what_cannot_be_decoded_is_refused(change, message):
    arguments = {"logits": torch.zeros(2, 3, 4), **BRACKETS, **change}
    with pytest.raises(UsageError, match=message):
        generate_indices(**arguments)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_nan_is_reported_with_its_example(temperature):
    logits = torch.zeros(3, 4, 4)
    logits[1, 0, 2] = math.nan
    with pytest.raises(DataError, match="example 1 hold NaN"):
        generate_indices(logits, **BRACKETS, temperature=temperature)


def test_finished_refuses_what_is_no_table_of_integers():
    for indices in (torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64), torch.zeros(2, 3, dtype=torch.bool)):
        with pytest.raises(UsageError, match="give integers"):
            finished(indices, **BRACKETS)


# --- best of k


class Recorded(CharacterCodec):
    """A codec that notes how many sequences it is asked for at a time, and whether they were copied."""

    def __init__(self, alphabet, length):
        super().__init__(alphabet, length)
        self.sizes, self.storages = [], []

    def generate(self, logits, temperature=0.0, generator=None):
        self.sizes.append(len(logits))
        self.storages.append(logits.untyped_storage().nbytes())
        return super().generate(logits, temperature, generator)


def test_the_most_frequent_valid_string_is_found_with_its_share():
    """One token of p = .5, .3, .2 by position 0, the rest padding: the most likely is not valid, the second is."""
    codec = CharacterCodec(["a", "b", "c"], 2)
    logits = torch.full((2, 2, 4), -math.inf)
    logits[:, 0, :3] = torch.tensor([0.5, 0.3, 0.2]).log()
    logits[:, 1, 3] = 0
    logits[1, 0, 1:3] = -math.inf  # the second code only ever says "a"
    result = most_frequent(logits, 4000, codec, lambda s: s != "a", generator=torch.Generator().manual_seed(0))
    assert result.strings == ["b", None]
    assert result.valid[0].item() == pytest.approx(0.5, abs=4.5 * math.sqrt(0.25 / 4000))
    assert result.valid[1].item() == 0


def test_unfinished_derivations_are_not_valid():
    codec = GrammarCodec("S -> '(' S ')' | 'x'", 3)
    logits = torch.zeros(1, 3, 3)  # each step ends with probability 1/2
    result = most_frequent(logits, 4000, codec, lambda s: True, generator=torch.Generator().manual_seed(0))
    assert result.strings == ["x"]
    assert result.valid.item() == pytest.approx(7 / 8, abs=4.5 * math.sqrt(7 / 64 / 4000))


@pytest.mark.parametrize(("k", "chunk"), [(5, 512), (7, 20), (50, 16), (1, 1)])
def test_memory_is_bounded_by_the_chunk_and_every_code_gets_k_draws(k, chunk):
    codec = Recorded(["a", "b"], 3)
    logits = normal(0, 9, 3, 3)
    asked = []

    def valid(string):
        asked.append(string)
        return True

    result = most_frequent(logits, k, codec, valid, chunk=chunk, generator=torch.Generator().manual_seed(0))
    assert sum(codec.sizes) == 9 * k
    assert max(codec.sizes) <= max(chunk, 1)
    assert result.valid.tolist() == [1.0] * 9
    assert len(asked) <= 9 * min(k, 15)  # at most once per distinct string and code
    if k >= chunk:  # one code at a time is never copied
        assert set(codec.storages) == {logits.untyped_storage().nbytes()}


def test_draws_do_not_change_with_equal_seeds_and_no_code_is_needed():
    codec = GrammarCodec(EXPRESSIONS, 15)
    logits = normal(0, 6, 15, codec.size)

    def draw(seed):
        return most_frequent(logits, 20, codec, lambda s: "x" in s, generator=torch.Generator().manual_seed(seed))

    assert draw(0).strings == draw(0).strings
    assert torch.equal(draw(0).valid, draw(0).valid)
    assert all("x" in s for s in draw(0).strings if s is not None)
    assert most_frequent(logits[:0], 20, codec, lambda s: True).strings == []


@pytest.mark.parametrize("change", [{"k": 0}, {"chunk": 0}, {"temperature": 0.0}, {"temperature": math.nan}])
def test_best_of_k_refuses_what_makes_no_draws(change):
    arguments = {"k": 3, **change}
    with pytest.raises(UsageError, match="give"):
        most_frequent(torch.zeros(1, 2, 3), codec=CharacterCodec(["a", "b"], 2), valid=bool, **arguments)


def test_a_thousand_molecule_derivations_take_well_under_two_seconds(shared_data):
    grammar = load_grammar(shared_data / "grammars" / "zinc_smiles.cfg")
    logits = normal(0, 1000, 277, grammar.size)
    start = time.process_time()
    indices = generate_indices(logits, grammar.left, grammar.children, 0, grammar.pad)
    assert time.process_time() - start < 2
    ended = finished(indices, grammar.left, grammar.children, 0, grammar.pad)
    arguments = {"left": grammar.left, "children": grammar.children, "start": 0, "pad": grammar.pad}
    assert indices[:20].tolist() == greedy_by_loop(logits[:20], arguments, 277)
    assert ended[:20].tolist() == [complete_by_loop(row, arguments) for row in indices[:20].tolist()]
