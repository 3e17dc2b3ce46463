"""Codecs: strings as rows of symbols, one-hot in the autoencoder, and from a decoder's logits back to strings."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from expost.errors import DataError, UsageError
from expost.grammar.cfg import Grammar
from expost.grammar.encoded import Encoded, encode_cached
from expost.grammar.packing import (
    END_OF_STRING,
    Rejection,
    as_strings,
    check_indices,
    check_length,
    index_type,
)
from expost.grammar.parser import Parser
from expost.grammar.stepwise import Stepwise, check_logits, walk
from expost.registry import Registry

__all__ = ["CODECS", "CharacterCodec", "Codec", "Encoded", "GrammarCodec", "Rejection", "encode_cached"]


class Codec(ABC):
    """Turns strings into rows of L symbols out of V, and back; the last symbol, V - 1, pads.

    Attributes:
        length: L, symbols a row.
        size: V, symbols with padding.
    """

    length: int
    size: int

    @abstractmethod
    def encode(self, strings: Iterable[str]) -> Encoded:
        """Return the rows of the strings that can be encoded, and the others with their reasons.

        Raises:
            UsageError: if `strings` is one string or no collection.
        """

    @abstractmethod
    def decode(self, indices: Tensor) -> list[str | None]:
        """Return the strings of rows of symbols, integers, shape (N, L'); None for a row that is no whole string.

        Raises:
            UsageError: if `indices` is not a table of symbols of this codec.
        """

    @abstractmethod
    def groups(self) -> Tensor:
        """Return a group number for each symbol, int64, shape (V,): symbols of one group compete at a step."""

    @abstractmethod
    def generate(
        self, logits: Tensor | Stepwise, temperature: float = 0.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """Choose symbols by a decoder's logits, among those that are allowed at each place.

        Args:
            logits: Floating point, shape (N, L', V), or computed step by step from the symbols before; no NaN.
            temperature: 0 takes the most likely symbols; otherwise they are drawn from softmax(logits / temperature).
            generator: Source of the draws, on any device; None is torch's global one.

        Returns:
            Symbols, shape (N, L'), in the type of `Encoded.indices`, on the device of `logits`.

        Raises:
            UsageError: for logits of another shape, or a temperature that is negative or not finite.
            DataError: for a NaN among the logits.
        """

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """Return the JSON-able arguments by which `CODECS[name](**options)` makes an equal codec."""


class GrammarCodec(Codec):
    r"""Strings as leftmost derivations: a row holds the numbers of the productions, in order, then padding.

    (Kusner, Paige & Hernandez-Lobato 2017, section 3.1.) Which derivation an ambiguous string gets is `Parser`'s rule.

    Args:
        grammar: The text of a grammar, as `Grammar.from_text` reads it; `load_grammar(name).text` for one by name.
        length: L, productions a row. Longer derivations are rejected.

    Raises:
        DataError: if the text is no usable grammar, or exceeds a budget of `expost.grammar.budgets`.
        UsageError: if no derivation is as short as `length`.

    Example:
        >>> codec = GrammarCodec("S -> S '+' T | T\nT -> 'x' | '1'", length=6)
        >>> encoded = codec.encode(["x+1", "x", "x+"])
        >>> encoded.indices.tolist(), codec.decode(encoded.indices)
        ([[0, 1, 2, 3, 4, 4], [1, 2, 4, 4, 4, 4]], ['x+1', 'x'])
        >>> print(encoded.rejected[0])
        string 2, 'x+': does not parse at position 2, its end: expected 'x' or '1'
    """

    def __init__(self, grammar: str, length: int) -> None:
        from expost.grammar.stacks import check_tables, shortest_derivations

        self.grammar = Grammar.from_text(grammar)
        self.length = check_length(length)
        self.size = self.grammar.size
        check_tables(self.grammar.left, self.grammar.children)
        self.parser = Parser(self.grammar)
        shortest = shortest_derivations(self.grammar.left, self.grammar.children)[1][0]
        if shortest > length:
            raise UsageError(f"length={length}: the grammar's shortest derivation takes {shortest}; give at least that")

    def encode(self, strings: Iterable[str]) -> Encoded:
        """Parse the strings on all cores; see `Codec.encode`."""
        found = self.parser.parse_many(as_strings(strings), self.length)
        ambiguous = int(found.ambiguous.sum())
        return Encoded(torch.from_numpy(found.indices), torch.from_numpy(found.kept), found.rejected, ambiguous)

    def decode(self, indices: Tensor) -> list[str | None]:
        """Return the strings of derivations; None where one is not finished or breaks the grammar."""
        return self.parser.unparse(indices.detach().cpu().numpy())

    def groups(self) -> Tensor:
        """Return the nonterminal of each production's left side; padding is a group of its own."""
        return torch.tensor([*self.grammar.left, len(self.grammar.nonterminals)])

    def generate(
        self, logits: Tensor | Stepwise, temperature: float = 0.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """Walk the stack of nonterminals, letting only productions of the topmost compete; see `Codec.generate`.

        A derivation that does not end within L' steps stays truncated, and `decode` gives None for it.
        """
        from expost.grammar.decode import generate_indices

        left, children = self.grammar.left, self.grammar.children
        return generate_indices(logits, left, children, 0, self.grammar.pad, temperature, generator)

    def options(self) -> dict[str, Any]:
        """Return the grammar's text and the length."""
        return {"grammar": self.grammar.text, "length": self.length}


class CharacterCodec(Codec):
    """Strings as tokens of one or more characters: at each place the longest token that fits is taken.

    Args:
        alphabet: The tokens, distinct and not empty; symbol i is `alphabet[i]`, and one more symbol pads.
        length: L, tokens a row. Longer strings are rejected.

    Raises:
        UsageError: if the alphabet is empty, or holds a token twice, an empty one, or what is not a string.

    Example:
        >>> codec = CharacterCodec(["C", "l", "Cl"], length=4)
        >>> encoded = codec.encode(["CCl", "CN"])
        >>> encoded.indices.tolist(), codec.decode(encoded.indices)
        ([[0, 2, 3, 3]], ['CCl'])
        >>> print(encoded.rejected[0])
        string 1, 'CN': is outside the alphabet at position 1, 'N': expected 'C', 'l', 'Cl' or end of string
    """

    def __init__(self, alphabet: Sequence[str], length: int) -> None:
        self.alphabet = tuple(alphabet)
        self.length = check_length(length)
        self.size = len(self.alphabet) + 1
        if not self.alphabet:
            raise UsageError("the alphabet is empty; give at least one token")
        for token in self.alphabet:
            if not isinstance(token, str) or not token:
                raise UsageError(f"{token!r} in the alphabet is no token; give strings of one character or more")
        if len(set(self.alphabet)) < len(self.alphabet):
            twice = next(token for token in self.alphabet if self.alphabet.count(token) > 1)
            raise UsageError(f"{twice!r} is in the alphabet twice; give distinct tokens")
        self._numbers = {token: number for number, token in enumerate(self.alphabet)}
        longest_first = sorted(self.alphabet, key=len, reverse=True)
        self._token = re.compile("|".join(map(re.escape, longest_first)))

    @classmethod
    def from_strings(cls, strings: Iterable[str], length: int | None = None) -> CharacterCodec:
        """Return a codec for the characters of `strings`, in order of code point.

        Args:
            strings: The strings.
            length: L; None for the longest string's.

        Raises:
            UsageError: if there is no character in them, or one of them is not a string.
        """
        texts = as_strings(strings)
        for text in texts:
            if not isinstance(text, str):
                raise UsageError(f"{text!r} is no string; leave it out")
        longest = max(map(len, texts), default=0)
        return cls(sorted(set().union(*texts)), longest if length is None else length)

    def encode(self, strings: Iterable[str]) -> Encoded:
        """Split the strings into tokens; see `Codec.encode`."""
        texts = as_strings(strings)
        rows = np.full((len(texts), self.length), self.size - 1, dtype=index_type(self.size))
        kept: list[int] = []
        rejected: list[Rejection] = []
        for index, text in enumerate(texts):
            tokens = self._token.findall(text) if isinstance(text, str) else []
            if found := self._fault(index, text, tokens):
                rejected.append(found)
                continue
            rows[len(kept), : len(tokens)] = [self._numbers[token] for token in tokens]
            kept.append(index)
        indices = torch.from_numpy(rows[: len(kept)].copy() if rejected else rows)
        return Encoded(indices, torch.tensor(kept, dtype=torch.int64), rejected)

    def _fault(self, index: int, text: Any, tokens: list[str]) -> Rejection | None:
        if not isinstance(text, str):
            return Rejection(index, repr(text), None, (), "is no string")
        if not text:
            return Rejection(index, text, 0, self.alphabet, "is empty")
        if sum(map(len, tokens)) < len(text):
            position = 0
            while match := self._token.match(text, position):
                position = match.end()
            expected = (*self.alphabet, END_OF_STRING) if position else self.alphabet
            return Rejection(index, text, position, expected, "is outside the alphabet")
        if len(tokens) > self.length:
            return Rejection(index, text, None, (), f"takes more than {self.length} tokens", len(tokens))
        return None

    def decode(self, indices: Tensor) -> list[str | None]:
        """Return the strings up to the first padding; every row is a string, perhaps an empty one."""
        table = indices.detach().cpu().numpy()
        check_indices(table, self.size)
        pad = self.size - 1
        ends = np.where((table == pad).any(1), (table == pad).argmax(1), table.shape[1])
        return ["".join([self.alphabet[i] for i in row[:end].tolist()]) for row, end in zip(table, ends, strict=True)]

    def groups(self) -> Tensor:
        """Return zeros: all symbols are one group."""
        return torch.zeros(self.size, dtype=torch.int64)

    def generate(
        self, logits: Tensor | Stepwise, temperature: float = 0.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """Choose symbols; what follows the first padding becomes padding. See `Codec.generate`."""
        check_logits(logits, self.size, f"{self.size - 1} tokens")
        if not 0 <= temperature < math.inf:
            raise UsageError(f"temperature is {temperature}; give 0 for the most likely symbol, or a positive number")
        dtype = torch.from_numpy(np.empty(0, index_type(self.size))).dtype
        if not isinstance(logits, Stepwise):
            symbols = self._choose(logits, temperature, generator)
            ended = (symbols == self.size - 1).cummax(1).values if symbols.shape[1] else symbols.bool()
            return symbols.masked_fill(ended, self.size - 1).to(dtype)
        numbers = torch.full(logits.shape[:2], self.size - 1, dtype=dtype, device=logits.device)
        following, groups = walk(logits), torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
        ended, last = torch.zeros_like(groups, dtype=torch.bool), None
        for step in range(logits.shape[1]):
            last = self._choose(following(last, groups, None), temperature, generator).masked_fill(ended, self.size - 1)
            numbers[:, step] = last
            ended |= last == self.size - 1
            if ended.all():
                break
        return numbers

    def _choose(self, logits: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
        """Return a symbol for each vector of logits in the last axis."""
        if logits.isnan().any():
            raise DataError("the logits hold NaN; the decoder, or the code given to it, is broken")
        # within finite bounds differences stay numbers, whatever infinities the logits hold
        scores = logits.float().clamp(-3e38, 3e38)
        if temperature > 0:  # the Gumbel-max trick; without the largest score nothing overflows at low temperatures
            source = scores.device if generator is None else generator.device
            noise = torch.empty_like(scores, device=source).exponential_(generator=generator).to(scores.device)
            noise = noise.clamp_(min=1e-38).log_()
            scores = (scores - scores.amax(-1, keepdim=True)) / max(temperature, 1e-30) - noise
        return scores.argmax(-1)

    def options(self) -> dict[str, Any]:
        """Return the alphabet and the length."""
        return {"alphabet": list(self.alphabet), "length": self.length}


CODECS: Registry[type[Codec]] = Registry("codec", {"grammar": GrammarCodec, "characters": CharacterCodec})
