"""Which of several fitted densities to take: the one under which held-out codes are likeliest.

`fit` records with a density the log-likelihoods l_i = log q(z_i) of codes that it was not fitted on. Two densities are
compared by the paired difference of the same codes,

    lead(a, b) = mean_i (a_i - b_i),   error = sd_i(a_i - b_i) / sqrt(n).

The likeliest is taken; but of those that it leads by no more than `CLEAR` errors (or by `ROUNDING`, rounding), the
simplest, which is the one with the fewest fitted numbers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from expost.errors import DataError, UsageError

if TYPE_CHECKING:
    from expost.densities.base import Density

#: A difference of no more standard errors than this is none, nor is one of so few nats.
CLEAR, ROUNDING = 2.0, 1e-6
#: What is taken where no density has a record of held-out codes, as those of early versions: the paper's mixture.
UNRECORDED = "gmm"
#: Log-likelihoods that are kept with a density, and their digits after the point.
KEPT, DIGITS = 2_000, 4


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Log-likelihoods of held-out codes under a fitted density.

    Attributes:
        split: A hash of what was held out: densities are compared where it is the same.
        values: log q(z_i) in nats, shape (n,), float64; minus infinity for a code that is impossible.
    """

    split: str
    values: Tensor

    @classmethod
    def of(cls, split: str, values: Tensor) -> Self:
        """Keep `KEPT` of the values at most, evenly spaced, rounded as they are written."""
        rows = spaced(len(values), KEPT)
        kept = values.detach().to("cpu", torch.float64)
        return cls(split, (kept if rows is None else kept[rows]).nan_to_num(nan=-math.inf).round(decimals=DIGITS))

    @property
    def mean(self) -> float:
        """Mean over the codes, nats a code."""
        return float(self.values.mean())

    @property
    def standard_error(self) -> float:
        """Standard error of the mean; infinite for fewer than two codes, or if the mean is."""
        if len(self.values) < 2 or not math.isfinite(self.mean):
            return math.inf
        return float(self.values.std()) / math.sqrt(len(self.values))

    def record(self) -> dict[str, Any]:
        """Return it as JSON can hold it: the values as one line of text."""
        return {"split": self.split, "values": " ".join(f"{value:.{DIGITS}f}" for value in self.values.tolist())}

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Self:
        """Read what `record` returns.

        Raises:
            ValueError, LookupError, TypeError, AttributeError: if it is none.
        """
        split, values = (
            record["split"],
            torch.tensor([float(each) for each in record["values"].split()], dtype=torch.float64),
        )
        if not isinstance(split, str) or not len(values) or bool((values.isnan() | (values == math.inf)).any()):
            raise ValueError("its held-out log-likelihoods are no numbers")
        return cls(split, values)


def spaced(count: int, most: int) -> Tensor | None:
    """Return at most `most` of `count` positions, evenly spaced, for files are often sorted; None for all."""
    return None if count <= most else torch.linspace(0, count - 1, most, dtype=torch.float64).round().long()


def log_likelihoods(density: Density, codes: Tensor) -> Tensor | None:
    """Return log q(z_i) of codes, shape (n,), float64, on the CPU; None for a density that can only be sampled.

    A density that fails at one of the codes, being too far off, makes them impossible: minus infinity, all of them.
    """
    from expost.densities.tractable import TractableDensity  # derives from the class that this module serves

    if not isinstance(density, TractableDensity):
        return None
    try:
        return density.log_prob(codes.to(density.device)).cpu()
    except UsageError:  # fitted by label, of a kind that cannot be evaluated
        return None
    except DataError:
        return torch.full((len(codes),), -math.inf, dtype=torch.float64)


@dataclass(frozen=True)
class Lead:
    """By how much codes are likelier under one density than under another, nats a code: mean, standard error."""

    mean: float
    error: float

    @property
    def clearly(self) -> int:
        """1 if it is clearly above 0, -1 if clearly below, else 0."""
        if abs(self.mean) <= max(CLEAR * self.error, ROUNDING):
            return 0
        return 1 if self.mean > 0 else -1


def lead(a: Tensor, b: Tensor) -> Lead | None:
    """Return the lead of a over b, log-likelihoods of the same n codes; None if it is not finite or n is below 2.

    Example:
        >>> lead(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 0.0]))
        Lead(mean=2.0, error=1.0)
    """
    difference = (a - b).double()
    if len(difference) < 2 or not bool(difference.isfinite().all()):
        return None
    return Lead(float(difference.mean()), float(difference.std()) / math.sqrt(len(difference)))


def best(values: Mapping[str, Tensor], sizes: Mapping[str, int]) -> str:
    """Return the name to take: see this module's first lines.

    Args:
        values: Log-likelihoods of the same codes by name, at least one of them with a finite mean.
        sizes: The number of fitted numbers by name.

    Example:
        >>> values = {"mixture": torch.tensor([0.1, -0.1, 0.1]), "gaussian": torch.zeros(3), "prior": -torch.ones(3)}
        >>> best(values, {"mixture": 9, "gaussian": 3, "prior": 0})
        'gaussian'
    """
    means = {name: float(each.mean()) for name, each in values.items() if math.isfinite(float(each.mean()))}
    first = max(means, key=means.__getitem__)
    tied = [name for name in means if (ahead := lead(values[first], values[name])) is not None and not ahead.clearly]
    return min(tied or [first], key=lambda name: (sizes[name], -means[name]))


@dataclass(frozen=True)
class Choice:
    """The density that is taken where none is named.

    Attributes:
        name: Its name.
        why: A clause.
    """

    name: str
    why: str

    @property
    def line(self) -> str:
        """What is said of it."""
        return f"density {self.name} is taken: {self.why}"


def usual_density(fitted: Mapping[str, Density]) -> Choice | None:
    """Return which of the fitted densities is taken where none is named, None if there is none.

    It is the `best` of those with records of the same held-out codes. Where none has a record, as from early versions
    or from codes alone, it is `gmm` if it is among them, else the last that can be evaluated, else the last.

    Args:
        fitted: Fitted densities by name, in the order of their fits.

    Example:
        >>> from expost.densities import make_density
        >>> z = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
        >>> usual_density({name: make_density(name).fit(z) for name in ("gaussian", "standard-normal")})
        Choice(name='standard-normal', why='the last fitted; held-out codes to compare by were not given')
    """
    records = {name: density.held_out for name, density in fitted.items() if density.held_out is not None}
    found = Counter((each.split, len(each.values)) for each in records.values() if math.isfinite(each.mean))
    if len(fitted) == 1:
        return Choice(next(iter(fitted)), "the only one fitted")
    if not found:
        return _unrecorded(fitted)
    common = found.most_common(1)[0][0]
    values = {name: each.values for name, each in records.items() if (each.split, len(each.values)) == common}
    taken = best(values, {name: fitted[name].size for name in values})
    others = [name for name in fitted if name not in values]
    return Choice(taken, _why(taken, values) + (f"; not compared: {', '.join(others)}" if others else ""))


def _why(taken: str, values: Mapping[str, Tensor]) -> str:
    means = {name: float(each.mean()) for name, each in values.items()}
    likeliest = max(means, key=means.__getitem__)
    if likeliest != taken:
        return f"held-out codes are as likely under it as under {likeliest}, and it is simpler"
    rest = {name: mean for name, mean in means.items() if name != taken}
    if not rest:
        return "the only one with a record of held-out codes"
    second = max(rest, key=rest.__getitem__)
    return f"held-out codes are likeliest under it, {means[taken]:.2f} nats a code ({second}: {rest[second]:.2f})"


def _unrecorded(fitted: Mapping[str, Density]) -> Choice | None:
    from expost.densities.tractable import TractableDensity  # derives from the class that this module serves

    if not fitted:
        return None
    why = "held-out codes to compare by were not given"
    if UNRECORDED in fitted:
        return Choice(UNRECORDED, f"the paper's; {why}")
    tractable = [name for name, density in fitted.items() if isinstance(density, TractableDensity)]
    return Choice((tractable or list(fitted))[-1], f"the last fitted; {why}")
