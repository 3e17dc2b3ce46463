"""Random grammars, and derivations followed by a loop: for the tests of decoding and of decoders."""

import torch
from hypothesis import strategies as st


@st.composite
def grammars(draw):
    """Left sides and children of a random grammar in which every non-terminal has a production; not all end."""
    symbols = draw(st.integers(1, 4))
    extra = draw(st.lists(st.integers(0, symbols - 1), max_size=6))
    left = draw(st.permutations([*range(symbols), *extra]))
    children = [draw(st.lists(st.integers(0, symbols - 1), max_size=4)) for _ in left]
    return {"left": list(left), "children": children, "start": draw(st.integers(0, symbols - 1)), "pad": len(left)}


def complete_by_loop(row, grammar):
    """Whether a row is a complete leftmost derivation, then padding."""
    stack = [grammar["start"]]
    for position, symbol in enumerate(row):
        if not stack:
            return all(rest == grammar["pad"] for rest in row[position:])
        if not 0 <= symbol < grammar["pad"] or grammar["left"][symbol] != stack.pop():
            return False
        stack.extend(reversed(grammar["children"][symbol]))
    return not stack


def normal(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
