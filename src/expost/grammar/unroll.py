"""From derivations to strings, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from expost.grammar.compiled import compiled
from expost.grammar.tables import Tables

NONE = -1


@compiled
def unroll(t: Tables, indices: NDArray[Any], out: NDArray[np.uint32], count: NDArray[np.int64]) -> None:
    """Turn derivations into strings.

    Args:
        t: The grammar of P productions; P pads.
        indices: Productions, integers 0..P, shape (N, L).
        out: Receives the code points of row n at `out[n]`, shape (N, L times the most characters of a production).
        count: Receives how many there are, or NONE for a row that is not a whole derivation followed by padding;
            shape (N,).
    """
    padding = len(t.dots)
    stack = np.empty(indices.shape[1] + 1, np.int32)
    for row in range(len(indices)):
        first = indices[row, 0]
        count[row] = NONE
        if first == padding or t.left[first] != 0:
            continue
        stack[0] = t.dots[first]
        top, step, written, whole = 1, 1, 0, True
        while top > 0:
            symbol = t.symbol[stack[top - 1]]
            stack[top - 1] += 1
            if symbol == NONE:
                top -= 1
            elif symbol < NONE:
                for place in range(t.characters_at[-2 - symbol], t.characters_at[-1 - symbol]):
                    out[row, written] = t.alphabet[t.characters[place]]
                    written += 1
            else:
                if step == indices.shape[1] or indices[row, step] == padding:
                    whole = False
                    break
                choice = indices[row, step]
                if t.left[choice] != symbol:
                    whole = False
                    break
                stack[top] = t.dots[choice]
                top += 1
                step += 1
        while whole and step < indices.shape[1]:
            whole = indices[row, step] == padding
            step += 1
        if whole:
            count[row] = written
