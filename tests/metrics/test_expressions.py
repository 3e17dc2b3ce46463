import ast
import gzip
import math
import operator
import warnings
from typing import Any, cast

import numpy as np
import pytest

from expost.errors import UsageError
from expost.metrics.expressions import (
    MAX_LENGTH,
    ExpressionScore,
    canonical_expression,
    evaluate,
    parse_expression,
)

OPERATIONS = {ast.Add: operator.add, ast.Mult: operator.mul, ast.Div: operator.truediv}


def by_python(text, x, whole=False):
    """The value by Python's own parser, its tree walked here: an independent reference for precedence.

    With `whole`, of a Python in which numerals are whole and a quotient of whole numbers is rounded down.
    """

    def walk(node):
        match node:
            case ast.BinOp(left, op, right):
                operands = walk(left), walk(right)
                if whole and isinstance(op, ast.Div) and all(isinstance(each, int) for each in operands):
                    return operator.floordiv(*operands)
                return OPERATIONS[type(op)](*operands)
            case ast.Call(ast.Name("sin"), [argument], []):
                return np.sin(walk(argument))
            case ast.Call(ast.Name("exp"), [argument], []):
                return np.exp(walk(argument))
            case ast.Name("x"):
                return x
            case ast.Constant(int(value)):
                return value if whole else np.float64(value)
        raise ValueError(ast.dump(node))

    with np.errstate(all="ignore"):
        return np.broadcast_to(walk(ast.parse(text, mode="eval").body), x.shape)


def random_expression(rng, depth):
    """A string of the language, by random expansion of the grammar."""
    if depth == 0:
        return str(rng.choice(list("x123")))
    kind = rng.integers(6)
    inside = random_expression(rng, depth - 1)
    if kind < 3:
        return inside + "+*/"[kind] + random_expression(rng, depth - 1)
    return ("(", "sin(", "exp(")[kind - 3] + inside + ")"


@pytest.fixture(scope="module")
def published(shared_data):
    path = shared_data / "expressions" / "equation2_15_dataset.txt.gz"
    with gzip.open(path, "rt") as file:
        lines = [line.strip() for line in file]
    return [lines[i] for i in np.random.default_rng(0).permutation(len(lines))[:4000]]


def test_values_of_published_expressions_equal_pythons(published):
    x = np.linspace(-10, 10, 1000)
    for text in published:
        np.testing.assert_allclose(evaluate(text, x), by_python(text, x), rtol=1e-12, atol=1e-12)


def test_scores_of_published_expressions_equal_the_published_formula(published):
    score = ExpressionScore()
    x = np.linspace(-10, 10, 1000)
    target = 1 / 3 + x + np.sin(x * x)
    with np.errstate(all="ignore"):
        expected = [math.log(1 + np.minimum((by_python(text, x) - target) ** 2, 1000).mean()) for text in published]
    np.testing.assert_allclose(score(published), expected, rtol=1e-9)
    assert len(set(expected)) > 1000


def test_scores_with_whole_quotients_equal_those_of_the_published_script(published):
    x = np.linspace(-10, 10, 1000)
    target = 1 / 3 + x + np.sin(x * x)

    def expected(text):
        try:
            score = math.log(1 + np.minimum((by_python(text, x, whole=True) - target) ** 2, 1000).mean())
        except ZeroDivisionError:
            return math.log(1001)
        return score if math.isfinite(score) else math.log(1001)

    texts = [*published, "1/3+x+sin(x*x)", "1/(1/2)", "3*3/2", "x/2", "1/sin(2)", "sin(3/2)"]
    with np.errstate(all="ignore"):
        wanted = [expected(text) for text in texts]
    found = ExpressionScore(division="python2")(texts)
    np.testing.assert_allclose(found, wanted, rtol=1e-9)
    assert found[-6] == pytest.approx(0.1054, abs=5e-5)
    assert found[-5] == math.log(1001)
    assert 0.05 < (found != ExpressionScore()(texts)).mean() < 0.2
    with pytest.raises(UsageError, match="python2"):
        ExpressionScore(division=cast(Any, "python3"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3/2", 1),
        ("1/3", 0),
        ("3*3/2", 4),
        ("3*(3/2)", 3),
        ("(1+2*3)/2", 3),
        ("1/3+3/2", 1),
        ("sin(3/2)", math.sin(1)),
        ("3/sin(2)", 3 / math.sin(2)),
        ("sin(3)/2", math.sin(3) / 2),
        ("exp(1/2)/2", 1 / 2),
        ("x/2", 7 / 2),
        ("1/x", 1 / 7),
        ("3/2/x", 1 / 7),
        ("x*(3/2)", 7),
    ],
)
def test_in_python2_whole_numbers_have_a_whole_quotient_and_no_others(text, value):
    score = ExpressionScore("1", low=7 - 1e-9, high=7 + 1e-9, points=2, division="python2")
    assert score([text]) == pytest.approx([math.log(1 + (value - 1) ** 2)], abs=1e-7)


@pytest.mark.parametrize("text", ["1/(1/2)", "x+1/(2/3)", "*".join(["3"] * 700) + "+x"])
def test_what_has_no_whole_quotient_or_is_too_large_is_worst(text):
    score = ExpressionScore(division="python2")
    assert score([text]) == pytest.approx([math.log(1001)])


def test_the_target_is_divided_truly_in_python2_too():
    score = ExpressionScore("3/2", division="python2")
    assert score(["3/2"]) == pytest.approx([math.log(1 + 0.5**2)])


def test_values_of_random_expressions_equal_pythons():
    rng = np.random.default_rng(1)
    x = np.linspace(-3, 3, 50)
    texts = {random_expression(rng, int(rng.integers(7))) for _ in range(2000)}
    undefined = 0
    for text in texts:
        expected = by_python(text, x)
        undefined += not np.isfinite(expected).all()
        np.testing.assert_allclose(evaluate(text, x), expected, rtol=1e-12, atol=1e-12, err_msg=text)
    assert len(texts) > 500
    assert undefined > 10  # infinities and NaN are among them, and agree


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1+2*3", 7),
        ("2*3+1", 7),
        ("3/2/3", 0.5),
        ("3/2*2", 3),
        ("1+3/2", 2.5),
        ("(1+3)/2", 2),
        ("2*(1+2)*3", 18),
        ("exp(1+1)*2", 2 * math.exp(2)),
        ("sin(x)/x+1", math.sin(0.5) / 0.5 + 1),
        (" 1\t+ x ", 1.5),
        ("((((x))))", 0.5),
    ],
)
def test_usual_precedence_and_grouping_from_the_left(text, value):
    assert evaluate(text, np.array([0.5])) == pytest.approx([value], rel=1e-14)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        None,
        3,
        b"x",
        "y",
        "12",
        "1 2",
        "x x",
        "+",
        "x+",
        "+x",
        "x++1",
        "x-1",
        "(",
        ")",
        "()",
        "(x",
        "x)",
        "x)(",
        "(x))(",
        "sin x",
        "sin",
        "sin()",
        "sin(x",
        "sin (x)",
        "x(1)",
        "1sin(x)",
        "4",
        "x**2",
        "x//2",
        "1.5",
        "__import__('os')",
        "x\0",
        "х",  # a Cyrillic letter
        "ｘ",
        "x" * (MAX_LENGTH + 1),
        "x+" * 10**6 + "x",
    ],
)
def test_what_is_not_in_the_language_is_invalid(text):
    assert parse_expression(text) is None
    assert canonical_expression(text) is None
    assert evaluate(text, np.zeros(3)) is None
    assert np.isnan(ExpressionScore()([text])).all()


def test_random_characters_are_valid_only_if_python_agrees():
    rng = np.random.default_rng(2)
    accepted = 0
    for _ in range(20_000):
        tokens = ["x", "1", "2", "3", "+", "*", "/", "(", ")", "sin(", "exp("]
        text = "".join(rng.choice(tokens, size=rng.integers(1, 8)))
        if parse_expression(text) is not None:
            accepted += 1
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SyntaxWarning)
                x = np.array([0.7])
                np.testing.assert_allclose(evaluate(text, x), by_python(text, x), rtol=1e-12)
    assert accepted > 500


def test_nesting_of_any_depth_is_no_trouble():
    depth = MAX_LENGTH // 2 - 2
    x = np.array([0.25, 2.0])
    assert evaluate("(" * depth + "x" + ")" * depth, x).tolist() == x.tolist()
    assert evaluate("(" * depth + "x" + ")" * (depth - 1), x) is None
    right = "x+(" * 2000 + "x" + ")" * 2000
    np.testing.assert_allclose(evaluate(right, x), 2001 * x)
    assert np.isfinite(evaluate("sin(" * 1500 + "x" + ")" * 1500, x)).all()


def test_overflow_and_undefined_values_are_quiet():
    x = np.array([-1.0, 0.0, 1000.0])
    assert evaluate("1/x", x).tolist() == [-1, np.inf, 0.001]
    assert evaluate("exp(x)", x)[2] == np.inf
    assert np.isnan(evaluate("x/x", x)).tolist() == [False, True, False]
    assert np.isnan(evaluate("sin(exp(x))", x)).tolist() == [False, False, True]


def test_constants_have_a_value_at_every_point_and_results_are_fresh():
    x = np.zeros(4)
    assert evaluate("1/2", x).tolist() == [0.5] * 4
    values = evaluate("x", x)
    values += 1
    assert x.tolist() == [0] * 4


def test_squared_errors_are_capped_one_by_one():
    score = ExpressionScore("x", low=0, high=1, points=2, cap=10)
    # errors of 2 + x at 0 and 1: 2 and 2; of 3*3*3*x: 0 and 26, whose square is capped
    assert score(["2+x", "3*3*3*x"]) == pytest.approx([math.log(5), math.log(1 + 10 / 2)])


def test_infinite_at_one_point_costs_the_cap_there_but_undefined_costs_all():
    score = ExpressionScore("x", low=0, high=1, points=2, cap=10)
    assert score(["1/x"]) == pytest.approx([math.log(1 + (10 + 0) / 2)])
    assert score(["x/x"]) == pytest.approx([score.worst])
    assert score.worst == pytest.approx(math.log(11))


def test_the_target_scores_zero_however_it_is_written():
    assert ExpressionScore()(["1/3+x+sin(x*x)", "sin( x * x ) + x + 1 / 3"]) == pytest.approx([0, 0], abs=1e-12)
    assert ExpressionScore()([]).shape == (0,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "y"}, "target 'y' is no expression"),
        ({"target": "x/x", "low": -1.0, "high": 1.0, "points": 3}, "infinite or undefined"),
        ({"low": 1.0, "high": 1.0}, "the lower one first"),
        ({"high": math.inf}, "give two numbers"),
        ({"points": 1}, "points=1; give at least 2"),
        ({"cap": 0.0}, "cap=0.0; give a positive number"),
        ({"cap": math.nan}, "cap=nan"),
    ],
)
def test_bad_options_are_refused_in_one_line(options, message):
    with pytest.raises(UsageError, match=message) as caught:
        ExpressionScore(**options)
    assert "\n" not in str(caught.value)
