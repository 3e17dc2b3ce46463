"""Other people's autoencoders: a `Generator` around any pair of functions that encode and decode.

    from diffusers import AutoencoderKL
    from expost import foreign

    generator = foreign.from_diffusers(AutoencoderKL.from_pretrained(...), size=64)
    generator.fit("flow-matching", images)
    samples = generator.sample(16)

`wrap` takes any two functions, and handles evaluation mode, the shape of codes, and pixel ranges. `from_diffusers` and
`from_pythae` adapt the documented models of one package, without importing it. `train_decoder` makes an autoencoder of
an encoder that has no decoder.
"""

from __future__ import annotations

from expost.generators.foreign.adapters import SIGNED, Adapter, from_diffusers, from_pythae, wrap
from expost.generators.foreign.decoders import load_decoder, save_decoder, train_decoder

__all__ = [
    "SIGNED",
    "Adapter",
    "from_diffusers",
    "from_pythae",
    "load_decoder",
    "save_decoder",
    "train_decoder",
    "wrap",
]
