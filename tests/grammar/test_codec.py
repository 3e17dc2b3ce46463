"""One contract for all codecs, and what is particular to derivations and to characters."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from expost.errors import DataError, UsageError
from expost.grammar.cfg import Grammar
from expost.grammar.codec import CODECS, CharacterCodec, Codec, Encoded, GrammarCodec, Rejection, encode_cached
from expost.grammar.grammars import EXPRESSIONS, SMILES
from expost.registry import Part, construct

STRINGS = ["x", "x+1", "sin(x)/2", "exp(x*x)", "(1)"]
OPTIONS = {
    "grammar": {"grammar": EXPRESSIONS, "length": 12},
    "characters": {"alphabet": ["sin(", "exp(", "(", ")", "x", "1", "2", "+", "*", "/"], "length": 8},
}


@pytest.fixture(params=CODECS)
def codec(request: pytest.FixtureRequest) -> Codec:
    return construct(CODECS, Part(request.param, OPTIONS[request.param]))


def one_hot(codec: Codec, indices: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.one_hot(indices.long(), codec.size).float()


def test_strings_come_back_packed_in_order_and_padded(codec: Codec):
    encoded = codec.encode(STRINGS)
    assert encoded.indices.shape == (5, codec.length)
    assert encoded.indices.dtype == torch.uint8
    assert encoded.kept.tolist() == [0, 1, 2, 3, 4]
    assert encoded.rejected == []
    assert codec.decode(encoded.indices) == STRINGS
    padding = encoded.indices == codec.size - 1
    assert padding[:, -1].all()
    assert torch.equal(padding, padding.cummax(1).values)  # padding and nothing else after padding


def test_an_equal_codec_comes_from_the_options_by_way_of_json(codec: Codec):
    name = next(name for name, kind in CODECS.items() if isinstance(codec, kind))
    twin = construct(CODECS, Part(name, json.loads(json.dumps(codec.options()))))
    assert twin.options() == codec.options()
    assert (twin.length, twin.size) == (codec.length, codec.size)
    assert torch.equal(twin.encode(STRINGS).indices, codec.encode(STRINGS).indices)


def test_bad_strings_are_skipped_and_reported(codec: Codec):
    encoded = codec.encode(["x", "y", None, "", "1", "x+x*x+x*x+x*x", "x?"])  # type: ignore[list-item]
    assert codec.decode(encoded.indices) == ["x", "1"]
    assert encoded.kept.tolist() == [0, 4]
    assert [rejection.index for rejection in encoded.rejected] == [1, 2, 3, 5, 6]
    assert [rejection.text for rejection in encoded.rejected] == ["y", "None", "", "x+x*x+x*x+x*x", "x?"]
    assert [rejection.position for rejection in encoded.rejected] == [0, None, 0, None, 1]
    assert all("\n" not in str(rejection) for rejection in encoded.rejected)
    assert encoded.coverage == 2 / 7
    assert encoded.summary().startswith("2 of 7 strings encoded (28.57 %); ")


def test_one_string_is_no_list_of_strings(codec: Codec):
    with pytest.raises(UsageError, match="strings is one str; give a list of strings"):
        codec.encode("x+1")


def test_no_strings_are_no_rows_and_full_coverage(codec: Codec):
    encoded = codec.encode([])
    assert encoded.indices.shape == (0, codec.length)
    assert encoded.coverage == 1.0
    assert encoded.summary() == "0 of 0 strings encoded (100.00 %)"
    assert codec.decode(encoded.indices) == []


def test_greedy_generation_from_a_rows_own_logits_is_the_row(codec: Codec):
    indices = codec.encode(STRINGS).indices
    logits = one_hot(codec, indices) * 5
    assert torch.equal(codec.generate(logits), indices)
    assert codec.generate(logits).dtype == indices.dtype


def test_sampling_is_seeded_and_follows_the_temperature(codec: Codec):
    logits = torch.randn(64, codec.length, codec.size, generator=torch.Generator().manual_seed(1))

    def draw(seed: int, temperature: float = 1.0) -> torch.Tensor:
        return codec.generate(logits, temperature, torch.Generator().manual_seed(seed))

    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))
    assert torch.equal(draw(0, 1e-9), codec.generate(logits))


def test_logits_and_indices_that_do_not_fit_are_refused(codec: Codec):
    with pytest.raises(UsageError, match="shape"):
        codec.generate(torch.zeros(2, codec.length, codec.size + 1))
    with pytest.raises(UsageError, match="temperature"):
        codec.generate(torch.zeros(2, codec.length, codec.size), temperature=-1.0)
    with pytest.raises(DataError, match="NaN"):
        codec.generate(torch.full((2, codec.length, codec.size), math.nan))
    with pytest.raises(UsageError, match=f"the symbols are 0 to {codec.size - 1}: were they made with another"):
        codec.decode(torch.full((1, 3), codec.size))
    with pytest.raises(UsageError, match="go from -1"):
        codec.decode(torch.full((1, 3), -1))
    with pytest.raises(UsageError, match="give integers of shape"):
        codec.decode(torch.zeros(1, 3))


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("length", [0, -1, 2.5, True, 10**7])
def test_a_length_out_of_range_is_refused(name: str, length: object):
    with pytest.raises(UsageError, match="length="):
        CODECS[name](**(OPTIONS[name] | {"length": length}))


def test_groups_are_left_sides_and_padding_competes_with_nothing():
    codec = GrammarCodec(EXPRESSIONS, 15)
    assert codec.groups().tolist() == [0] * 4 + [1] * 7 + [2]
    assert CharacterCodec("xy", 3).groups().tolist() == [0, 0, 0]


def test_whatever_the_logits_finished_derivations_are_strings_of_the_language():
    codec = GrammarCodec(SMILES, 120)
    logits = torch.randn(200, 120, codec.size, generator=torch.Generator().manual_seed(0))
    made = codec.decode(codec.generate(logits, 1.0, torch.Generator().manual_seed(0)))
    finished = [text for text in made if text is not None]
    assert len(finished) > 20
    assert codec.encode(finished).coverage == 1.0
    # too short for the first choice: the derivation is cut, and there is no string
    greedy = torch.zeros(1, 2, GrammarCodec(EXPRESSIONS, 2).size)
    greedy[..., 0] = 1
    short = GrammarCodec(EXPRESSIONS, 2)
    assert short.generate(greedy).tolist() == [[0, 0]]
    assert short.decode(short.generate(greedy)) == [None]


def test_a_length_that_no_derivation_fits_is_refused():
    with pytest.raises(UsageError, match="length=1: the grammar's shortest derivation takes 2; give at least that"):
        GrammarCodec(EXPRESSIONS, 1)
    with pytest.raises(DataError, match="unterminated quote"):
        GrammarCodec("S -> 'a", 3)


def test_a_pruned_grammar_makes_an_equal_codec_from_its_text():
    grammar = Grammar.from_text("S -> 'a' | B | C\nB -> B 'b'\nC -> 'c'\nNothing -> None", prune=True)
    codec = GrammarCodec(grammar.text, 4)
    assert codec.grammar == grammar
    assert codec.encode(["a", "c"]).indices.tolist() == [[0, 3, 3, 3], [1, 2, 3, 3]]


def test_ambiguous_strings_are_encoded_and_counted():
    encoded = GrammarCodec("S -> S '+' S | 'x'", 9).encode(["x", "x+x+x", "x+x"])
    assert encoded.indices[1].tolist() == [0, 0, 1, 1, 1, 2, 2, 2, 2]
    assert encoded.summary() == "3 of 3 strings encoded (100.00 %); ambiguous: 1"


def test_the_summary_counts_reasons_and_says_what_length_would_do():
    codec = GrammarCodec(EXPRESSIONS, 6)
    summary = codec.encode(["x"] * 19_996 + ["x+x+x+x", "x+x+x+x+x", "x+", "a"]).summary()
    assert summary == (
        "19,996 of 20,000 strings encoded (99.98 %); takes more than 6 productions: 2 (the longest needs 10); "
        "does not parse: 2; first: string 19996, 'x+x+x+x': takes more than 6 productions: it needs 8"
    )


def test_a_percentage_of_100_means_all():
    rejected = [Rejection(0, "?", 0, ("x",), "does not parse")]
    many = Encoded(torch.zeros(1, 1, dtype=torch.uint8), torch.arange(1_000_000), rejected)
    assert "(99.99 %)" in many.summary()


def test_two_bytes_are_used_only_where_one_does_not_do():
    def characters(count: int) -> list[str]:
        return [chr(0x4E00 + index) for index in range(count)]

    for count, dtype in [(255, torch.uint8), (256, torch.int16)]:
        codec = CharacterCodec(characters(count), 2)
        encoded = codec.encode([characters(count)[-1]])
        assert encoded.indices.dtype == codec.generate(torch.zeros(1, 2, codec.size)).dtype == dtype
        assert encoded.indices.tolist() == [[count - 1, count]]
        text = "S -> " + " | ".join(repr(character) for character in characters(count))
        grammar = GrammarCodec(text, 2)
        encoded = grammar.encode([characters(count)[-1]])
        assert encoded.indices.dtype == grammar.generate(torch.zeros(1, 2, grammar.size)).dtype == dtype
        assert encoded.indices.tolist() == [[count - 1, count]]


def test_what_follows_the_first_padding_is_padding():
    codec = CharacterCodec("xy", 5)
    chosen = torch.tensor([[0, 1, 2, 0, 1], [2, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
    made = codec.generate(one_hot(codec, chosen))
    assert made.tolist() == [[0, 1, 2, 2, 2], [2, 2, 2, 2, 2], [1, 1, 1, 1, 1]]
    assert codec.decode(made) == ["xy", "", "yyyyy"]
    assert codec.decode(chosen) == codec.decode(made)


def test_characters_are_drawn_by_their_probabilities():
    codec = CharacterCodec("xy", 1)
    logits = torch.tensor([0.5, 0.3, 0.2]).log().expand(40_000, 1, 3)
    for temperature in (1.0, 2.0):
        drawn = codec.generate(logits, temperature, torch.Generator().manual_seed(0)).flatten().long()
        frequency = drawn.bincount(minlength=3) / len(drawn)
        expected = (logits[0, 0] / temperature).softmax(0)
        # five standard errors of a proportion
        assert (frequency - expected).abs().max() < 5 * math.sqrt(0.25 / len(drawn))


def test_infinite_logits_choose_where_they_can():
    codec = CharacterCodec("xy", 1)
    logits = torch.tensor([[[-math.inf, 0.0, -math.inf]], [[0.0, math.inf, 0.0]]])
    assert codec.generate(logits).tolist() == codec.generate(logits, 1.0).tolist() == [[1], [1]]


def test_the_longest_token_is_taken():
    codec = CharacterCodec(["C", "l", "Cl", "["], 4)
    assert codec.encode(["CClCl"]).indices.tolist() == [[0, 2, 2, 4]]
    assert codec.decode(codec.encode(["[CCl"]).indices) == ["[CCl"]


@pytest.mark.parametrize(
    ("alphabet", "message"),
    [([], "is empty"), (["x", "y", "x"], "'x' is in the alphabet twice"), (["x", ""], "'' in the"), ([1], "1 in the")],
)
def test_a_bad_alphabet_is_refused(alphabet: list[str], message: str):
    with pytest.raises(UsageError, match=message):
        CharacterCodec(alphabet, 3)


def test_an_alphabet_can_come_from_the_strings():
    codec = CharacterCodec.from_strings(["x+1", "sin(x)"])
    assert ("".join(codec.alphabet), codec.length) == ("()+1insx", 6)
    assert CharacterCodec.from_strings(["ab"], length=9).length == 9
    with pytest.raises(UsageError, match="None is no string"):
        CharacterCodec.from_strings(["x", None])  # type: ignore[list-item]
    with pytest.raises(UsageError):
        CharacterCodec.from_strings([])


@settings(deadline=None)
@given(st.lists(st.text(max_size=8), min_size=1).filter(lambda texts: any(texts)))
def test_any_strings_come_back_from_their_own_characters(texts: list[str]):
    codec = CharacterCodec.from_strings(texts)
    encoded = codec.encode(texts)
    assert codec.decode(encoded.indices) == [text for text in texts if text]


class TestCache:
    def test_what_was_encoded_is_read_again(self, codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        strings = ["x", None, "y", "x+x*x+x*x+x*x", "1", "\ud800", ""]
        first = encode_cached(codec, strings, tmp_path / "new")  # type: ignore[arg-type]
        assert len(list((tmp_path / "new").iterdir())) == 1

        def refuse(self: Codec, strings: object) -> Encoded:
            raise AssertionError

        monkeypatch.setattr(type(codec), "encode", refuse)
        again = encode_cached(codec, strings, str(tmp_path / "new"))  # type: ignore[arg-type]
        assert torch.equal(again.indices, first.indices)
        assert again.indices.dtype == first.indices.dtype
        assert torch.equal(again.kept, first.kept)
        assert (again.rejected, again.ambiguous) == (first.rejected, first.ambiguous)
        with pytest.raises(AssertionError):
            encode_cached(codec, ["x", *strings], tmp_path / "new")  # type: ignore[list-item]

    def test_other_strings_lengths_and_divisions_are_other_files(self, tmp_path: Path):
        for length in (3, 4):
            for strings in (["xx", "x"], ["x", "xx"], ["xxx"], ["xx", "x", ""]):
                codec = CharacterCodec("x", length)
                encoded = encode_cached(codec, strings, tmp_path)
                assert torch.equal(encoded.indices, codec.encode(strings).indices)
        assert len(list(tmp_path.iterdir())) == 8

    @pytest.mark.parametrize("damage", [b"", b"no tensors", None])
    def test_a_damaged_file_is_made_again(self, codec: Codec, tmp_path: Path, damage: bytes | None):
        first = encode_cached(codec, STRINGS, tmp_path)
        (path,) = tmp_path.iterdir()
        whole = path.read_bytes()
        path.write_bytes(whole[:-10] if damage is None else damage)
        assert torch.equal(encode_cached(codec, STRINGS, tmp_path).indices, first.indices)
        assert path.read_bytes() == whole

    def test_a_renamed_file_is_not_believed(self, tmp_path: Path):
        codec = CharacterCodec("xy", 2)
        encode_cached(codec, ["x"], tmp_path)
        (wrong,) = tmp_path.iterdir()
        encode_cached(codec, ["y"], tmp_path)
        (right,) = set(tmp_path.iterdir()) - {wrong}
        right.write_bytes(wrong.read_bytes())
        assert codec.decode(encode_cached(codec, ["y"], tmp_path).indices) == ["y"]
