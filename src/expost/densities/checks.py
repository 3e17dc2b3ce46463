"""Checks of a density's options and codes: each error is one line that names the value and the remedy."""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from torch import Tensor

from expost.errors import DataError, UsageError

# Squares of larger float32 codes overflow; no working encoder comes near.
LARGEST_CODE = 1e18
#: Most layers of a network, so that no damaged or hostile file can ask for a billion of them.
DEEPEST = 100
#: Most axes of codes: those of maps, (N, C, H, W).
MOST_AXES = 4
#: Most numbers of a code: what a file says is drawn from.
MOST_NUMBERS = 2**24
#: Dimensions from which a full covariance must be one that the codes determine.
_LARGE = 1_024
#: What codes may be stored as; narrower floats are for weights, and PyTorch does not compute in them.
_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def check_int(name: str, value: object, minimum: int, maximum: int | None = None) -> None:
    """Refuse an option that is not a whole number of at least `minimum`, and at most `maximum`, if that is given.

    Raises:
        UsageError: if it is a bool, not integral, too small or too large.

    Example:
        >>> check_int("components", 0, minimum=1)
        Traceback (most recent call last):
        ...
        expost.errors.UsageError: components=0 must be a whole number, at least 1
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise UsageError(f"{name}={value!r} must be a whole number, at least {minimum}")
    if maximum is not None and value > maximum:
        raise UsageError(f"{name}={value!r} must be a whole number, at most {maximum:,}")


def check_seed(value: object) -> None:
    """Refuse a seed that is not a whole number in [0, 2^32), the range that PyTorch, NumPy and scikit-learn share.

    Raises:
        UsageError: if it is outside that range.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**32:
        raise UsageError(f"seed={value!r} must be a whole number from 0 to {2**32 - 1}")


def check_depth(name: str, value: object) -> None:
    """Refuse a number of layers that is not a whole number from 1 to `DEEPEST`.

    Raises:
        UsageError: if it is not.
    """
    check_int(name, value, minimum=1)
    assert isinstance(value, int)
    if value > DEEPEST:
        raise UsageError(f"{name}={value} is too deep; give at most {DEEPEST}")


def check_float(name: str, value: object, minimum: float, *, above: bool = False, below: float = math.inf) -> None:
    """Refuse an option that is not a finite number of at least `minimum` (or above it), and below `below`.

    Raises:
        UsageError: if it is a bool, not a number, not finite, or outside the range.

    Example:
        >>> check_float("lr", -1, minimum=0, above=True)
        Traceback (most recent call last):
        ...
        expost.errors.UsageError: lr=-1 must be a finite number, above 0
    """
    try:
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number that no float holds
        number = False
    if not number or not _inside(float(value), minimum, above, below):  # type: ignore[arg-type]
        start = "above" if above else "at least"
        end = "" if math.isinf(below) else f" and below {below:g}"
        raise UsageError(f"{name}={value!r} must be a finite number, {start} {minimum:g}{end}")


def _inside(value: float, minimum: float, above: bool, below: float) -> bool:
    return (value > minimum if above else value >= minimum) and value < below


def check_bool(name: str, value: object) -> None:
    """Refuse an option that is neither True nor False.

    Raises:
        UsageError: if it is anything else.
    """
    if not isinstance(value, bool):
        raise UsageError(f"{name}={value!r} must be True or False")


def check_choice(name: str, value: object, choices: Collection[str]) -> None:
    """Refuse an option that is not one of `choices`.

    Raises:
        UsageError: if it is not; the message lists them.

    Example:
        >>> check_choice("covariance", "fulll", ["full", "diag"])
        Traceback (most recent call last):
        ...
        expost.errors.UsageError: covariance='fulll' is unknown; choose one of: full, diag
    """
    if not isinstance(value, str) or value not in choices:
        raise UsageError(f"{name}={value!r} is unknown; choose one of: {', '.join(choices)}")


def check_compatible(z: object, shape: tuple[int, ...] | None = None) -> None:
    """Refuse what are not finite floating-point codes of one shape: vectors (d,), sequences (C, L), maps (C, H, W).

    Args:
        z: Codes, shape (N, *shape).
        shape: Of a code; any of the three if None.

    Raises:
        DataError: if they are not.

    Example:
        >>> check_compatible(torch.zeros(3, 2), shape=(16,))
        Traceback (most recent call last):
        ...
        expost.errors.DataError: codes have 2 dimensions, but the density was fitted on 16; encode with the same model
    """
    if not isinstance(z, Tensor):
        raise DataError(f"codes must be a torch tensor, got {type(z).__name__}; convert them with torch.as_tensor")
    if not 2 <= z.dim() <= MOST_AXES or 0 in z.shape[1:]:
        raise DataError(
            f"codes must have shape (examples, dimensions), or be maps (examples, channels, height, width), got "
            f"{tuple(z.shape)}; give each code one row, or one map"
        )
    kind = str(z.dtype).removeprefix("torch.") if z.layout == torch.strided else str(z.layout).removeprefix("torch.")
    if z.dtype not in _DTYPES or z.layout != torch.strided:
        remedy = ".float()" if z.layout == torch.strided else ".to_dense()"
        raise DataError(f"codes must be dense and floating point, got {kind}; convert them with {remedy}")
    if z.is_meta:
        raise DataError("codes are on device meta, which holds no numbers; encode on cpu or a device of this machine")
    if shape is not None and tuple(z.shape[1:]) != shape:
        vectors = z.dim() == 2 and len(shape) == 1
        found = f"{z.shape[1]} dimensions" if vectors else f"shape {tuple(z.shape[1:])}"
        fitted = shape[0] if vectors else f"codes of shape {shape}"
        raise DataError(f"codes have {found}, but the density was fitted on {fitted}; encode with the same model")
    finite = z.isfinite().flatten(1).all(1)
    if not bool(finite.all()):
        row = int((~finite).nonzero()[0])
        raise DataError(f"codes contain NaN or infinity, first in row {row}; check the inputs and the encoder")


def check_codes(z: object) -> None:
    """Refuse codes that no density can be fitted on.

    Raises:
        DataError: if they are no finite floating-point codes of one shape, absurdly large, or all equal in float32, the
            precision of samples.

    Example:
        >>> check_codes(torch.ones(100, 16))
        Traceback (most recent call last):
        ...
        expost.errors.DataError: all 100 codes are equal; a density needs two that differ (has the encoder collapsed?)
    """
    check_compatible(z)
    assert isinstance(z, Tensor)
    if z.shape[0] < 2:
        raise DataError(f"a density needs at least two different codes, got {z.shape[0]}; encode more examples")
    largest = float(z.detach().abs().max())
    if largest > LARGEST_CODE:
        raise DataError(f"codes reach {largest:.3g}, above {LARGEST_CODE:g}; standardize them or check the encoder")
    if torch.equal(z, z[:1].expand_as(z)):
        raise DataError(
            f"all {z.shape[0]} codes are equal; a density needs two that differ (has the encoder collapsed?)"
        )
    if torch.equal(z.float(), z[:1].float().expand_as(z)):
        differ = float((z.detach().amax(0) - z.detach().amin(0)).max())
        raise DataError(
            f"all {z.shape[0]} codes are equal in float32, the precision of samples: they differ by at most "
            f"{differ:.3g} at a size of {largest:.3g}; center and scale them first"
        )


def check_determined(name: str, n: int, d: int) -> None:
    """Refuse a full covariance of many dimensions that the codes leave singular: it would be the ridge's, not theirs.

    Args:
        name: The density's.
        n: Number of codes.
        d: Their dimensions.

    Raises:
        DataError: for more than 1,024 dimensions and at most as many codes as dimensions.

    Example:
        >>> check_determined("gaussian", n=500, d=4096)
        Traceback (most recent call last):
        ...
        expost.errors.DataError: gaussian: 500 codes cannot determine a full covariance of 4096 dimensions (8.4e+06 \
numbers); use density reduced (base=gaussian), or give more than 4096 codes
    """
    if d > _LARGE and n <= d:
        raise DataError(
            f"{name}: {n} codes cannot determine a full covariance of {d} dimensions ({d * (d + 1) / 2:.2g} numbers); "
            f"use density reduced (base={name}), or give more than {d} codes"
        )
