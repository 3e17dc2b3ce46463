"""Whether codes say anything: a decoder that ignores them reconstructs as well from the code of another example.

A model can reach a low loss with codes that carry next to no information (posterior collapse, Bowman et al. 2016): its
decoder then gives the average of the data, or a draw from it, whatever the code. Samples, interpolations and searches
of such a model have nothing to do with their codes. The divergence from the prior does not tell: where the noise of the
code is scaled down, as in the code of the Grammar VAE, codes of a fraction of a nat determine the example.
"""

from __future__ import annotations

import torch
from torch import Tensor

from expost.models.autoencoder import Autoencoder
from expost.types import to_unit
from expost.utils.precision import full_float32

#: Below it, codes say next to nothing. As measured: 0.003 for the Grammar VAE under the evidence bound, 0.98 under the
#: published objective, 0.9 and above for models of images.
LEAST_USE = 0.05
#: Examples that are looked at.
EXAMPLES = 200


@torch.no_grad()
def use_of_codes(model: Autoencoder, x: Tensor) -> float:
    """Return how much worse the reconstruction gets with the code of another example.

    With L the model's reconstruction term, summed over examples x_1 ... x_n, and E the noiseless encoder,

        u = 1 - sum_i L(x_i, D(E(x_i))) / sum_i L(x_i, D(E(x_(i+1)))),   x_(n+1) = x_1:

    1 where the codes decide everything, about 0 where they say nothing.

    Args:
        model: In evaluation mode.
        x: Examples, shape (n, ...), in no order that has to do with what they are; at least 2, of which at most
            `EXAMPLES` are taken.
    """
    device = next(model.parameters()).device
    x = to_unit(x[:EXAMPLES].to(device))
    with full_float32():
        z = model.code(x).z
        own, other = model.reconstruction_of(x, z).item(), model.reconstruction_of(x, z.roll(1, 0)).item()
    return 1 - own / other if other > 0 else 0.0


def warning(model: Autoencoder, x: Tensor) -> str | None:
    """Return a line for a person if the codes of a model say next to nothing about held-out examples, else None.

    Args:
        model: In evaluation mode.
        x: Held-out examples.
    """
    if len(x) < 2 or (use := use_of_codes(model, x)) >= LEAST_USE:
        return None
    return (
        f"warning: the codes say next to nothing: with the code of another example the reconstruction is {use:.1%} "
        "worse; samples and searches will not depend on codes. Lower --beta, train for longer, or, of strings, take "
        "--preset published"
    )
