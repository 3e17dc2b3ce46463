"""Arithmetic expressions of x: a safe parser, vectorized values, and the distance to a target function.

The language is that of the grammar of Kusner et al. 2017,

    S -> S '+' T | S '*' T | S '/' T | T;   T -> '(' S ')' | 'sin(' S ')' | 'exp(' S ')' | 'x' | '1' | '2' | '3'

Its derivations are flat: '1+x*2' is derived as if it were '(1+x)*2'. The meaning of a string is nevertheless that of
ordinary mathematics, and of the published experiments, which gave strings to Python's `eval`: '*' and '/' bind tighter
than '+', and operators that bind equally tight group from the left. So the grammar decides only what is valid, never
its values. Here no string is ever given to `eval`: it becomes a sequence of operations (Dijkstra's shunting yard,
without recursion, so no nesting is too deep), and those run on NumPy arrays.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from expost.errors import UsageError
from expost.registry import Registry

Array = NDArray[np.float64]

MAX_LENGTH = 10_000
"""Strings with more characters than this count as invalid."""

_TOKENS = re.compile(r"\s*(sin\(|exp\(|[()+*/x123])")
_BINARY: dict[str, Callable[[Array, Array], Array]] = {"+": np.add, "*": np.multiply, "/": np.divide}
_UNARY: dict[str, Callable[[Array], Array]] = {"sin(": np.sin, "exp(": np.exp}
_WHOLE: dict[str, Callable[[int, int], int]] = {"+": operator.add, "*": operator.mul, "/": operator.floordiv}
_STRENGTH = {"+": 1, "*": 2, "/": 2}
_DIGITS: dict[str, Array] = {digit: np.array(float(digit)) for digit in "123"}


def parse_expression(text: str | None) -> tuple[str, ...] | None:
    """Return an expression in postfix (reverse Polish) order, None if it is not in the language.

    White space between tokens is ignored; 'sin(' and 'exp(' are one token each, as in the grammar. Numbers have one
    digit: '12' is invalid. Time and memory are linear in the length.

    Args:
        text: Anything; what is not a string, is empty or has more than `MAX_LENGTH` characters is invalid.

    Example:
        >>> parse_expression("1 / 3 + sin(x * x)")
        ('1', '3', '/', 'x', 'x', '*', 'sin(', '+')
        >>> parse_expression("x + * 1") is None
        True
    """
    if not isinstance(text, str) or len(text) > MAX_LENGTH:
        return None
    text = text.rstrip()
    output: list[str] = []
    waiting: list[str] = []
    operand = True  # whether an operand must come next
    position = 0
    while position < len(text):
        match = _TOKENS.match(text, position)
        if match is None:
            return None
        position, token = match.end(), match[1]
        opens = token[-1] == "("
        if operand != (opens or token in "x123"):
            return None
        if opens:
            waiting.append(token)
        elif operand:
            output.append(token)
            operand = False
        elif token == ")":
            while waiting and waiting[-1] in _STRENGTH:
                output.append(waiting.pop())
            if not waiting:
                return None
            if (opening := waiting.pop()) in _UNARY:
                output.append(opening)
        else:
            while waiting and _STRENGTH.get(waiting[-1], 0) >= _STRENGTH[token]:
                output.append(waiting.pop())
            waiting.append(token)
            operand = True
    if operand or any(token not in _STRENGTH for token in waiting):
        return None
    return (*output, *reversed(waiting))


def canonical_expression(text: str | None) -> str | None:
    """Return an expression without white space, None if it is not in the language: the `Canonical` of expressions.

    No algebra is done: 'x+1' and '1+x' stay two expressions, as in the published experiments.

    Example:
        >>> canonical_expression(" sin( x ) + 1"), canonical_expression("sin(x")
        ('sin(x)+1', None)
    """
    return None if text is None or parse_expression(text) is None else "".join(text.split())


def _run(postfix: tuple[str, ...], x: Array) -> Array:
    """Run the operations on a stack of arrays. NumPy warns of overflow unless `numpy.errstate` silences it."""
    # Keeping the values of sub-expressions that strings share would save a tenth to a fifth of the time: not worth it.
    stack: list[Array] = []
    for token in postfix:
        if token == "x":
            stack.append(x)
        elif token in _UNARY:
            stack.append(_UNARY[token](stack.pop()))
        elif token in _BINARY:
            right = stack.pop()
            stack.append(_BINARY[token](stack.pop(), right))
        else:
            stack.append(_DIGITS[token])
    return stack[0]


def _run_in_python2(postfix: tuple[str, ...], x: Array) -> Array:
    """Run the operations as Python 2 does, with integer division of whole numbers: 1/3 is 0.

    Raises:
        ZeroDivisionError: for a whole number divided by the whole number 0, as in 1/(1/2).
        OverflowError: for a whole number beyond float64's range.
    """
    stack: list[Any] = []
    for token in postfix:
        if token == "x":
            stack.append(x)
        elif token in _UNARY:
            stack.append(_UNARY[token](np.asarray(stack.pop(), dtype=np.float64)))
        elif token in _BINARY:
            right, left = stack.pop(), stack.pop()
            if isinstance(left, int) and isinstance(right, int):
                stack.append(_WHOLE[token](left, right))
            else:
                left, right = (np.asarray(value, dtype=np.float64) for value in (left, right))
                stack.append(_BINARY[token](left, right))
        else:
            stack.append(int(token))
    return np.asarray(stack[0], dtype=np.float64)


_DIVISIONS: Registry[Callable[[tuple[str, ...], Array], Array]] = Registry(
    "division", {"true": _run, "python2": _run_in_python2}
)


def evaluate(text: str | None, x: Array) -> Array | None:
    """Return an expression's values at the points x, None if it is invalid.

    Args:
        text: The expression.
        x: Points, shape (P,).

    Returns:
        Float64, shape (P,). Overflow gives infinities, 0/0, infinity/infinity and sin(infinity) NaN, all quietly.

    Example:
        >>> evaluate("1/2+x*x", np.array([0.0, 1.0, 2.0]))
        array([0.5, 1.5, 4.5])
    """
    postfix = parse_expression(text)
    if postfix is None:
        return None
    with np.errstate(all="ignore"):
        points = np.asarray(x, dtype=np.float64)
        return np.broadcast_to(_run(postfix, points), points.shape).copy()


@dataclass(frozen=True)
class ExpressionScore:
    """Distance of expressions f to a target function t, log(1 + MSE) with capped errors; lower is better.

        score(f) = log(1 + 1/P sum_p min((f(x_p) - t(x_p))^2, cap)),   x_1 ... x_P equally spaced from low to high,

    Kusner et al. 2017, section 4.1, and their code. There, as here, an expression that is undefined (NaN) anywhere on
    the grid has the worst score, log(1 + cap), while an infinite value costs `cap` at its point only.

    Attributes:
        target: The target t, itself an expression.
        low: The first point.
        high: The last.
        points: Their number P.
        cap: The largest squared error of a point.
        division: "true", or "python2": integer division of whole numbers, so that 1/3 is 0 and 1/(1/2) is undefined.
            The published search scored what it found in Python 2, but its training set and target by true division;
            here the target always has true division. A tenth of the published 100,000 strings have another score in
            Python 2.

    Raises:
        UsageError: on construction, for a target that is invalid or undefined somewhere on the grid, or a bad number.

    Example:
        >>> score = ExpressionScore()
        >>> [round(value, 3) for value in score(["x", "1/3+x+sin(x*x)", "not one"]).tolist()]
        [0.488, 0.0, nan]
        >>> ExpressionScore(division="python2")(["1/3+x+sin(x*x)"]).round(4)
        array([0.1054])
    """

    target: str = "1/3+x+sin(x*x)"
    low: float = -10.0
    high: float = 10.0
    points: int = 1000
    cap: float = 1000.0
    division: Literal["true", "python2"] = "true"

    def __post_init__(self) -> None:
        if not (np.isfinite([self.low, self.high]).all() and self.low < self.high):
            raise UsageError(f"points from low={self.low} to high={self.high}; give two numbers, the lower one first")
        if self.points < 2:
            raise UsageError(f"points={self.points}; give at least 2")
        if not (np.isfinite(self.cap) and self.cap > 0):
            raise UsageError(f"cap={self.cap}; give a positive number")
        _ = _DIVISIONS[self.division]
        if not np.isfinite(self._goal).all():
            raise UsageError(
                f"target '{self.target}' is infinite or undefined on the grid; choose another or other points"
            )

    @cached_property
    def grid(self) -> Array:
        """The points x, shape (P,)."""
        return np.linspace(self.low, self.high, self.points)

    @cached_property
    def _goal(self) -> Array:
        values = evaluate(self.target, self.grid)
        if values is None:
            raise UsageError(f"target '{self.target}' is no expression of x, 1, 2, 3, + * / ( ) sin( exp(; correct it")
        return values

    @property
    def worst(self) -> float:
        """The score of an expression that is undefined or far off everywhere, log(1 + cap)."""
        return float(np.log1p(self.cap))

    def __call__(self, texts: Sequence[str | None]) -> Array:
        """Return the scores of expressions, float64, shape (N,), in [0, worst]; NaN for invalid ones."""
        with np.errstate(all="ignore"):
            scores = {text: self._score(text) for text in dict.fromkeys(texts)}
        return np.array([scores[text] for text in texts], dtype=np.float64)

    def _score(self, text: str | None) -> float:
        postfix = parse_expression(text)
        if postfix is None:
            return math.nan
        try:
            values = _DIVISIONS[self.division](postfix, self.grid)
        except (ZeroDivisionError, OverflowError):
            return self.worst
        mse = float(np.minimum(np.square(values - self._goal), self.cap).mean())
        return math.log1p(mse) if math.isfinite(mse) else self.worst
