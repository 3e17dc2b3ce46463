"""Masked decoding: from a decoder's logits to derivations of a grammar, many at a time.

A derivation is the sequence of productions of a leftmost expansion: the left side of each is the non-terminal on top of
a stack, which its right side's non-terminals then replace, the first of them on top. Decoding walks that stack and lets
only the productions of the popped non-terminal compete, so that every finished sequence is a string of the language
(Kusner, Paige & Hernandez-Lobato 2017, section 3.2, algorithm 1). The stacks of all examples live in one tensor: a step
costs a few tensor operations, whatever the number of examples.

A grammar comes here as plain numbers, the attributes of `expost.grammar.cfg.Grammar`: `left` (the non-terminal of each
production's left side), `children` (the non-terminals of its right side, in order), `start` and `pad`, the index after
the last production, which fills a sequence once its stack is empty.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from expost.errors import DataError, UsageError
from expost.grammar.stacks import Stacks, prepare, shortest_derivations
from expost.grammar.stepwise import Stepwise, check_logits, rows, walk

if TYPE_CHECKING:
    from expost.grammar.codec import Codec

#: Rows that have ended are dropped once at most this share goes on.
_WORTH_DROPPING = 0.8

__all__ = ["MostFrequent", "finished", "generate_indices", "most_frequent", "shortest_derivations"]


def generate_indices(
    logits: Tensor | Stepwise,
    left: Sequence[int],
    children: Sequence[Sequence[int]],
    start: int,
    pad: int,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
    complete: bool = False,
) -> Tensor:
    """Turn logits into derivations: at each step the best, or a drawn, production of the popped non-terminal.

    p(production i of A at step t) = exp(logits[t, i] / temperature) / sum of the same over all productions of A.

    A derivation that is not finished after L steps stays truncated, as in the paper; `finished` tells. With `complete`
    no production is chosen whose shortest completion would not fit the steps left, and every derivation finishes;
    p is then renormalised over the productions that fit.

    Args:
        logits: Decoder outputs, floating point, shape (N, L, V), or computed step by step from the symbols before; no
            NaN. Infinities are allowed.
        left: Non-terminal of each production's left side, V - 1 numbers from 0.
        children: Non-terminals of each production's right side, in order, V - 1 lists.
        start: Non-terminal that derivations start from.
        pad: V - 1, the symbol that follows when the stack is empty.
        temperature: 0 takes the most likely production (the first of equals); otherwise productions are drawn, by the
            Gumbel-max trick, and a higher temperature makes them more alike. At least 0.
        generator: Source of the draws, on any device; None is torch's global one.
        complete: Whether every derivation must finish within L steps.

    Returns:
        Symbols, shape (N, L), on the device of `logits`: uint8 where V is at most 256, else int16 (int32 above 32,768).

    Raises:
        UsageError: for a shape that does not fit the grammar, a temperature below 0, a grammar that is none, or one
            whose shortest derivation is longer than L with `complete`.
        DataError: if a NaN is met among the logits.

    Example:
        S -> '(' S ')' | 'x': the second production is preferred at the third step only.

        >>> logits = torch.tensor([[[2.0, 1, 9], [2, 1, 9], [1, 2, 9], [2, 1, 9]]])
        >>> generate_indices(logits, left=[0, 0], children=[[0], []], start=0, pad=2)
        tensor([[0, 0, 1, 2]], dtype=torch.uint8)
    """
    tables = prepare(left, children, start, pad)
    check_logits(logits, pad + 1, f"a grammar of {pad} productions")
    if not 0 <= temperature < math.inf:
        raise UsageError(f"temperature is {temperature}; give 0 for the most likely production, or a positive number")
    following = walk(logits)
    examples, steps, size = logits.shape
    if complete and (tables.shortest is None or tables.shortest > steps):
        shortest = "never ends" if tables.shortest is None else f"takes {tables.shortest}"
        raise UsageError(f"no derivation fits {steps} steps: the shortest {shortest}; give a greater length")
    device = logits.device
    # index_select, on rows or on a flat view, is several times faster than gather and indexing on the CPU
    choices, barred, extra = tables.choices.to(device), tables.barred.to(device), tables.extra.to(device)
    starts = torch.arange(examples, device=device).unsqueeze(1) * size
    stacks = Stacks(tables, examples, steps, device)
    slack = torch.full((examples,), steps - tables.shortest if complete and tables.shortest else 0, device=device)
    dtype = torch.uint8 if size <= 256 else torch.int16 if size <= 32768 else torch.int32
    indices = torch.full((examples, steps), pad, dtype=dtype, device=device)
    symbols, live = None, torch.arange(examples, device=device)
    poisoned = torch.zeros(examples, dtype=torch.bool, device=device)
    for step in range(steps):
        top = stacks.top()
        kept = None
        if isinstance(logits, Stepwise):  # where logits have to be computed, few are for the padding
            going = top != tables.end
            count = int(going.sum())
            if count == 0:
                break
            if count <= _WORTH_DROPPING * len(live):
                kept = going.nonzero().squeeze(1)
                stacks.keep(kept)
                top, live, slack, starts = top[kept], live[kept], slack[kept], starts[:count]
                symbols = None if symbols is None else symbols[kept]
        candidates = choices.index_select(0, top)  # (N, P): only these compete, which is cheaper than masking all V
        every = following(symbols, top, kept).reshape(-1)
        given = every.index_select(0, (starts + candidates).view(-1)).view_as(candidates)
        # within finite bounds an allowed logit of -inf still wins over the barred ones
        scores = given.float().clamp(-3e38, 3e38) + barred.index_select(0, top)
        if complete:
            needed = extra[candidates]
            scores = scores.masked_fill((needed < 0) | (needed > slack.unsqueeze(1)), -math.inf)
        if temperature > 0:
            # the smallest number keeps the noise finite: a barred score would turn into a NaN
            source = device if generator is None else generator.device
            uniform = torch.rand(scores.shape, generator=generator, device=source).to(device).clamp_(min=2**-25)
            noise = uniform.log_().neg_().clamp_(min=2**-25).log_().neg_()
            # without the largest score nothing overflows, however low the temperature
            scores = (scores - scores.amax(1, keepdim=True)) / max(temperature, 1e-30) + noise
        best, choice = scores.max(1)
        poisoned[live] |= best.isnan()
        symbols = candidates.gather(1, choice.unsqueeze(1)).squeeze(1)
        if complete:
            slack -= extra[symbols]
        if len(live) == examples:
            indices[:, step] = symbols
        else:
            indices[live, step] = symbols.to(dtype)
        stacks.replace(symbols)
    if poisoned.any():
        first = int(poisoned.nonzero()[0])
        raise DataError(f"logits of example {first} hold NaN; the decoder, or the code given to it, is broken")
    return indices


def finished(indices: Tensor, left: Sequence[int], children: Sequence[Sequence[int]], start: int, pad: int) -> Tensor:
    """Return which sequences are complete derivations, followed by nothing but padding.

    Args:
        indices: Symbols, integer, shape (N, L); a number that is no symbol makes its sequence invalid.
        left: Non-terminal of each production's left side.
        children: Non-terminals of each production's right side, in order.
        start: Non-terminal that derivations start from.
        pad: The padding symbol, the index after the last production.

    Returns:
        Boolean, shape (N,).

    Raises:
        UsageError: if `indices` is not a table of integers, or the grammar is none.

    Example:
        S -> '(' S ')' | 'x': (x); truncated; padding before the end.

        >>> indices = torch.tensor([[0, 1, 2], [0, 0, 0], [0, 2, 1]])
        >>> finished(indices, left=[0, 0], children=[[0], []], start=0, pad=2)
        tensor([ True, False, False])
    """
    tables = prepare(left, children, start, pad)
    if indices.dim() != 2 or indices.is_floating_point() or indices.dtype == torch.bool:
        raise UsageError(f"indices have shape {tuple(indices.shape)} and type {indices.dtype}; give integers (N, L)")
    examples, steps = indices.shape
    device = indices.device
    own_left = tables.left.to(device)
    stacks = Stacks(tables, examples, steps, device)
    valid = torch.ones(examples, dtype=torch.bool, device=device)
    for step in range(steps):
        given = indices[:, step].long()
        symbols = given.clamp(0, pad)
        valid &= (given == symbols) & (own_left[symbols] == stacks.top())
        stacks.replace(symbols)
    return valid & (stacks.top() == tables.end)


@dataclass(frozen=True)
class MostFrequent:
    """What `most_frequent` found for N codes.

    Attributes:
        strings: The most frequent valid string of each code, or None where no draw was valid.
        valid: Fraction of the k draws of each code that gave a valid string, float64, shape (N,).
    """

    strings: list[str | None]
    valid: Tensor


def most_frequent(
    logits: Tensor | Stepwise,
    k: int,
    codec: Codec,
    valid: Callable[[str], bool],
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
    chunk: int = 512,
) -> MostFrequent:
    """Draw k strings for each code and return the valid one that came most often (the first drawn of equals).

    (Kusner, Paige & Hernandez-Lobato 2017, section 4.2: of 500 decodes a molecule.) `valid` is asked once per distinct
    string and code.

    Args:
        logits: Decoder outputs, shape (N, L, V), once per code: the decoder runs once, the draws differ. Where they
            depend on the symbols before, the decoder runs for every draw.
        k: Draws per code, at least 1.
        codec: Turns logits into symbols and symbols into strings; an unfinished derivation, None, is not valid.
        valid: Whether a string counts, for example whether RDKit parses it.
        temperature: Of the draws, positive.
        generator: Source of the draws, on any device; None is torch's global one.
        chunk: Sequences drawn at a time, at least 1: bounds the memory, whatever N and k are.

    Raises:
        UsageError: for k or chunk below 1, or a temperature that is not positive.
    """
    if k < 1 or chunk < 1:
        raise UsageError(f"k is {k} and chunk is {chunk}; give at least 1 each")
    if not 0 < temperature < math.inf:
        raise UsageError(f"temperature is {temperature}; k draws would all be the same: give a positive number")
    counts: list[Counter[str]] = [Counter() for _ in range(len(logits))]
    together = max(1, chunk // k)
    for first in range(0, len(logits), together):
        last = min(first + together, len(logits))
        for drawn in range(0, k, chunk):
            repeats = min(chunk, k - drawn)
            strings = codec.decode(codec.generate(rows(logits, first, last, repeats), temperature, generator))
            for i, string in enumerate(strings):
                if string is not None:
                    counts[first + i // repeats][string] += 1
    best: list[str | None] = []
    fraction: list[float] = []
    for counter in counts:
        kept = [(string, count) for string, count in counter.most_common() if valid(string)]
        best.append(kept[0][0] if kept else None)
        fraction.append(sum(count for _, count in kept) / k)
    return MostFrequent(best, torch.tensor(fraction, dtype=torch.float64))
