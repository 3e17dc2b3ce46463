"""The arithmetic expressions of the Grammar VAE (Kusner et al. 2017): the published set, remade, and random draws.

The grammar, univariate in x:

    S -> S '+' T | S '*' T | S '/' T | T
    T -> '(' S ')' | 'sin(' S ')' | 'exp(' S ')' | 'x' | '1' | '2' | '3'

The published file `equation2_15_dataset.txt` is no random sample. It is the beginning of an enumeration: of all strings
whose derivation has no path of more than five productions, in the order of the grammar as written above with the last
symbol changing fastest, it holds the first 100,000 of 1,205,920. `published_expressions` gives them string for string:
with the file's spaces between tokens their SHA-256 is the file's, `PUBLISHED_SHA256`.
So the outermost operator is always '+', the second from the right too, and the set ends in the midst of '1/3+...'; one
of its strings, '1/3+(x)+sin(x*x)', is the very function that the paper's optimization looks for.

`sample_expressions` draws from the whole of that language, uniformly. Of the ways to draw 100,000 strings of at most
15 productions it comes closest to the published set, in total variation distance from it of the distributions of

    | way to draw                                  | productions a string | characters a string | productions |
    |----------------------------------------------|----------------------|---------------------|-------------|
    | uniform over derivations of depth 5 (chosen) | 0.056                | 0.058               | 0.116       |
    | uniform over derivations of 15 productions   | 0.278                | 0.325               | 0.121       |
    | random expansion, distinct strings           | 0.482                | 0.522               | 0.122       |
    | random expansion, repeated strings kept      | 0.867                | 0.864               | 0.182       |

the last column being frequencies of the eleven productions. There, the published set's liking for '+' (20% of its
productions, '*' 5% and '/' 4%) outweighs all else; in the draws the three operators are equally frequent.
"""

from __future__ import annotations

import re
from functools import cache

import numpy as np

from expost.data.examples import Indices
from expost.data.splits import permutation
from expost.errors import UsageError

OPERATORS = "+*/"
OPENINGS = ("(", "sin(", "exp(")
ATOMS = ("x", "1", "2", "3")

LANGUAGE = 1_205_920
"""How many strings have a derivation with at most five productions on every path."""

PUBLISHED = 100_000
"""How many of them the published set has."""

PUBLISHED_SHA256 = "ae9850311e884f888491f56dca57ef3c2f9880899e63d26b5da3b71840591ca2"
"""SHA-256 of the published file, unpacked: a space between tokens, a line feed after each string."""

TARGET = "1/3+x+sin(x*x)"
"""The target function of the paper's search."""

SOLUTIONS = (TARGET, "1/3+(x)+sin(x*x)", "x+1/3+sin(x*x)", "x+1/(3)+sin(x*x)")
"""All strings of that language that equal `TARGET` as functions of x, by the usual precedence of the operators."""

_TOKEN = re.compile(r"sin\(|exp\(|[()+*/x123]")


def count_productions(expression: str) -> int | None:
    """Count the productions in the derivation of an expression, which is unique; None if the grammar lacks it.

    With n operators and b pairs of parentheses (those of sin and exp too) there are 2 (n + b + 1).

    Args:
        expression: Without spaces.

    Example:
        >>> [count_productions(text) for text in ("x", "1/3+x+sin(x*x)", "x+", "x-1")]
        [2, 12, None, None]
    """
    tokens = _TOKEN.findall(expression)
    if sum(map(len, tokens)) != len(expression):
        return None
    depth, productions, term_is_due = 0, 1, True
    for token in tokens:
        if term_is_due and token in OPENINGS:  # T -> '(' S ')' and, at the end of S's left recursion, S -> T
            depth, productions = depth + 1, productions + 2
        elif term_is_due and token in ATOMS:
            productions, term_is_due = productions + 1, False
        elif not term_is_due and token == ")" and depth:
            depth -= 1
        elif not term_is_due and token in OPERATORS:
            productions, term_is_due = productions + 1, True
        else:
            return None
    return None if depth or term_is_due else productions


def published_expressions() -> list[str]:
    """Return the Grammar VAE's data set: 100,000 distinct strings, in its order, without the file's spaces.

    Example:
        >>> strings = published_expressions()
        >>> strings[0], strings[-1], len(set(strings))
        ('x+x+(x)+(x+x)', '1/3+(x)+3', 100000)
    """
    return _at(np.arange(PUBLISHED))


def sample_expressions(n: int = 100_000, seed: int = 0) -> list[str]:
    """Draw distinct expressions uniformly from those with at most five productions on every path of their derivation.

    They have at most 14 productions and 19 characters. `SOLUTIONS` are left out, so that a search cannot look its
    target up in the data.

    Args:
        n: How many, 1 to 1,205,916.
        seed: Of the draw, 0..2^32 - 1; smaller draws of one seed begin larger ones, the same on every platform.

    Raises:
        UsageError: for numbers out of range.

    Example:
        >>> sample_expressions(3)
        ['x*3*exp(3)/exp(3/2)', 'x/x*2/x', '3+3*exp(x)*exp(2+2)']
    """
    most = LANGUAGE - len(SOLUTIONS)
    if type(n) is not int or not 1 <= n <= most:
        raise UsageError(f"n is {n!r}; give a whole number of expressions from 1 to {most:,}")
    if type(seed) is not int or not 0 <= seed < 2**32:
        raise UsageError(f"seed is {seed!r}; give a whole number from 0 to {2**32 - 1}")
    drawn = _at(permutation(LANGUAGE, seed)[: n + len(SOLUTIONS)])
    return [expression for expression in drawn if expression not in SOLUTIONS][:n]


@cache
def _sums(depth: int) -> tuple[str, ...]:
    """List what S derives with at most `depth` productions on every path, in the order of the enumeration."""
    left, right = (_sums(depth - 1), _terms(depth - 1)) if depth > 1 else ((), ())
    return (*(a + operator + b for operator in OPERATORS for a in left for b in right), *right)


@cache
def _terms(depth: int) -> tuple[str, ...]:
    """List what T derives, likewise."""
    inner = _sums(depth - 1) if depth > 1 else ()
    return (*(opening + a + ")" for opening in OPENINGS for a in inner), *ATOMS)


def _at(indices: Indices) -> list[str]:
    """Return the strings at some places of the enumeration of `_sums(5)`, without making all of it."""
    left, right = _sums(4), _terms(4)
    one = len(left) * len(right)  # strings with one outermost operator
    return [
        left[i % one // len(right)] + OPERATORS[i // one] + right[i % len(right)] if i < 3 * one else right[i - 3 * one]
        for i in indices.tolist()
    ]
