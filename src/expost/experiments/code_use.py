"""What the codes of a model of strings say: whether a search of them can find anything.

| | |
|---|---|
| use of codes | how much worse the reconstruction gets with another example's code (see `evaluation.collapse`) |
| KL | divergence of the posterior from N(0, I), nats an example; of models with a variance |
| mode | mean share of the most frequent among 25 decodes of a code: 1/25 where all differ |
| surrogate | error of the search's surrogate on held-out codes over that of the mean of the scores: 1 says nothing |
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch

from expost.evaluation.collapse import use_of_codes
from expost.models.autoencoder import Autoencoder
from expost.models.penalties import KullbackLeibler
from expost.run import Run
from expost.search import SearchConfig, make_objective
from expost.search.surrogate import fit_surrogate
from expost.utils.seeding import PAIRS, generator

#: Codes that are decoded, and how often each.
DECODED, DECODES = 100, 25
#: Codes that the surrogate is fitted on, and held-out ones that it predicts.
FITTED, PREDICTED = 5_000, 1_000


@dataclass(frozen=True)
class CodeUse:
    """What codes say; see above.

    Attributes:
        use: Use of codes.
        kl: KL divergence in nats; None where the latent has no variance.
        mode: Share of the most frequent decode.
        surrogate: Relative error of the surrogate.
    """

    use: float
    kl: float | None
    mode: float
    surrogate: float


def code_use(run: Run, objective: str, inducing: int, device: str) -> CodeUse:
    """Measure what the codes of a run of strings say, on its validation strings.

    Args:
        run: A trained run of strings.
        objective: What is searched for.
        inducing: Inducing points of the surrogate.
        device: Where the model runs.
    """
    strings, data = run.string_generator(device), run.data()
    model = strings.generator.module
    assert isinstance(model, Autoencoder)
    with torch.no_grad():
        code = model.code(data.validation.x[:DECODED].to(strings.generator.device))
        kl = None if code.log_var is None else KullbackLeibler()(code).item()
    codes = code.mean.cpu()
    decodes = [strings.decode(codes, temperature=1.0, seed=seed) for seed in range(DECODES)]
    shares = [Counter(column).most_common(1)[0][1] / DECODES for column in zip(*decodes, strict=True)]
    return CodeUse(
        use=use_of_codes(model, data.validation.x),
        kl=kl,
        mode=sum(shares) / len(shares),
        surrogate=_surrogate_error(run, objective, inducing, device),
    )


def _surrogate_error(run: Run, objective: str, inducing: int, device: str) -> float:
    """Return the root mean squared error on held-out codes over the deviation of their scores from the mean."""
    strings, data = run.string_generator(device), run.data()
    goal, search = make_objective(objective).for_training(), SearchConfig()

    def scored(x: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = torch.randperm(len(x), generator=generator(0, PAIRS, 3))[:count]
        values = goal.score([text or "" for text in strings.codec.decode(x[chosen])]).values
        kept = [index for index, value in enumerate(values) if value is not None]
        known = torch.tensor([values[index] for index in kept], dtype=torch.float64)
        return strings.generator.encode(x[chosen][kept]), known

    z, y = scored(data.train.x, FITTED)
    held_out, wanted = scored(data.validation.x, PREDICTED)
    surrogate = fit_surrogate(z, y, inducing, search.steps, search.minibatch, search.lr, generator(0, PAIRS, 4))
    predicted, _ = surrogate.predict(held_out)
    return ((predicted - wanted).square().mean().sqrt() / (y.mean() - wanted).square().mean().sqrt()).item()
