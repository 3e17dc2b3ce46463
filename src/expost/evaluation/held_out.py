"""What a density has learned of codes: its log-likelihood on held-out ones, beside those of plainer densities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from expost.densities import Categorical, Density, Gaussian, HeldOut, StandardNormal, SymbolDensity, TractableDensity
from expost.densities.choice import CLEAR, KEPT, Lead, lead, log_likelihoods, spaced
from expost.errors import DataError, Symptom
from expost.generators.generator import Generator
from expost.types import Data
from expost.utils.hashing import hash_tensors
from expost.utils.progress import say

#: Densities that a fitted one has to beat, by name.
PLAIN: dict[str, type[TractableDensity]] = {"gaussian": Gaussian, "standard-normal": StandardNormal}
#: The same of symbols.
SYMBOLS = Categorical.name
#: Densities are compared on so many numbers of codes, as a flow's likelihood of a large map takes a second a code, but
#: on no fewer codes than this.
NUMBERS, FEWEST = 2**19, 100


@dataclass(frozen=True)
class Learned:
    """The log-likelihood of held-out codes under one density, in nats, and its difference from the fitted one's.

    With l_i = log q(z_i) and f_i that of the density that was fitted, both for the same n codes,

        mean = sum_i l_i / n,   ahead = sum_i (l_i - f_i) / n,   error = sd(l - f) / sqrt(n).

    Attributes:
        density: Its name.
        mean: Mean over the codes; minus infinity if one of them is impossible.
        standard_error: Of the mean.
        ahead: By how much it is better than the fitted one, nats a code; 0 for that itself, None where one of the two
            is not finite.
        ahead_error: Standard error of `ahead`.
    """

    density: str
    mean: float
    standard_error: float
    ahead: float | None
    ahead_error: float | None

    @property
    def clearly(self) -> int:
        """1 if it is clearly better than the fitted density, -1 if clearly worse, else 0."""
        return 0 if self.ahead is None or self.ahead_error is None else Lead(self.ahead, self.ahead_error).clearly


def compare(
    name: str, fitted: Mapping[str, Density], codes: Tensor, held_out: Tensor, split: str = ""
) -> list[Learned]:
    """Compare a density with one Gaussian, N(0, I) and the others that are fitted, on held-out codes.

    Args:
        name: The density in question, a key of `fitted`.
        fitted: Fitted densities by name; those without a log-likelihood are left out.
        codes: Codes that a Gaussian is fitted on, if none is, (N, d) or maps.
        held_out: Codes of their shape that no density was fitted on, n at least 2.
        split: Hash of what they are codes of: a density that has their log-likelihoods on record is not asked again.

    Returns:
        The density in question first, if it has a log-likelihood.
    """
    densities = dict(fitted)
    for plain, fresh in _plain(fitted[name]).items():
        if plain not in densities:
            try:
                densities[plain] = fresh.fit(codes)
            except DataError as error:
                say(f"not compared with {plain}: {error}")
    names = [name, *(each for each in densities if each != name)]
    found = {each: values for each in names if (values := _values(densities[each], held_out, split)) is not None}
    own = found.get(name)
    return [_learned(each, HeldOut(split, values), own) for each, values in found.items()]


def _plain(density: Density) -> dict[str, TractableDensity]:
    """Return densities that one has to beat, by name, not fitted."""
    if isinstance(density, SymbolDensity):
        return {SYMBOLS: Categorical(symbols=density.known)}
    return {name: kind() for name, kind in PLAIN.items()}


def _values(density: Density, codes: Tensor, split: str) -> Tensor | None:
    known = density.held_out
    if known is not None and known.split == split and len(known.values) == len(codes):
        return known.values
    return log_likelihoods(density, codes)


def _learned(name: str, likelihood: HeldOut, own: Tensor | None) -> Learned:
    ahead = None if own is None else lead(likelihood.values, own)
    return Learned(
        name,
        likelihood.mean,
        likelihood.standard_error,
        None if ahead is None else ahead.mean,
        None if ahead is None else ahead.error,
    )


@dataclass(frozen=True, eq=False)
class Judge:
    """Codes of validation examples, on which densities of one model are compared.

    Attributes:
        codes: Shape (n, ...), at most `KEPT`, of large ones fewer, evenly spaced over the split.
        split: Hash of the examples.
    """

    codes: Tensor
    split: str

    @classmethod
    def of(cls, generator: Generator, data: Data) -> Judge:
        """Encode validation examples."""
        size = generator.encode(data.validation.x[:1]).numel() if len(data.validation) else 1
        rows = spaced(len(data.validation), min(KEPT, max(FEWEST, NUMBERS // size)))
        x = data.validation.x if rows is None else data.validation.x[rows]
        return cls(generator.encode(x) if len(x) else torch.empty(0), hash_tensors({"x": x}))

    @property
    def enough(self) -> Tensor | None:
        """The codes, None if there are too few to compare on."""
        return self.codes if len(self.codes) > 1 else None

    def judge(self, density: Density) -> None:
        """Note with a fitted density how likely these codes are under it; nothing if there are fewer than two."""
        values = log_likelihoods(density, self.codes) if len(self.codes) > 1 else None
        density.judged(None if values is None else HeldOut.of(self.split, values))


def in_words(name: str, learned: list[Learned], remedy: str) -> list[str]:
    """Return lines for a person: the log-likelihoods, and how the density in question compares with the plain ones.

    Args:
        name: The density in question.
        learned: From `compare`.
        remedy: How to fit another density, with {density} for its name.
    """
    width = max(len(each.density) for each in learned)
    lines = [f"  {each.density:<{width}}  {each.mean:9.3f} ± {each.standard_error:.2g}" for each in learned]
    if learned[0].density != name:
        return [*lines, f"{name} has no log-likelihood to compare; expost evaluate scores its samples"]
    for each in learned[1:]:
        if each.density not in (*PLAIN, SYMBOLS) or each.ahead is None or each.ahead_error is None:
            continue
        by = f"by {abs(each.ahead):.3g} ± {each.ahead_error:.1g} nats a code"
        if each.clearly > 0:
            other = remedy.format(density=each.density)
            lines.append(f"warning: {each.density} describes held-out codes better than {name}, {by}; {other}")
            lines.append(f"  why: {Symptom.GAUSSIAN.address}")
        elif each.clearly < 0:
            lines.append(f"{name} is better than {each.density}, {by}")
        else:
            lines.append(f"{name} is as good as {each.density}, to within {CLEAR * each.ahead_error:.1g} nats a code")
    return lines
