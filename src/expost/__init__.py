"""expost: generative modelling with regularized autoencoders.

Train an autoencoder with a smooth decoder, estimate the density of its codes after training (ex post), sample:

    import expost

    run = expost.train("rae-l2", data="mnist-5k", out="runs/first")
    expost.fit(run, density="gmm", components=10)
    images = run.generator().sample(64)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from expost.autoencoder import Autoencoder, build
    from expost.commands import evaluate, explore, fit, interpolate, optimize, rank, reconstruct, sample, score, train
    from expost.data import load_data
    from expost.densities import load_density, make_density
    from expost.generator import Generator
    from expost.presets import configure
    from expost.run import Run
    from expost.sharing import from_pretrained, pull, push, save_pretrained

_HOMES = {
    "Autoencoder": "autoencoder",
    "build": "autoencoder",
    "evaluate": "commands",
    "explore": "commands",
    "fit": "commands",
    "interpolate": "commands",
    "optimize": "commands",
    "rank": "commands",
    "reconstruct": "commands",
    "sample": "commands",
    "score": "commands",
    "train": "commands",
    "load_data": "data",
    "load_density": "densities",
    "make_density": "densities",
    "Generator": "generator",
    "configure": "presets",
    "Run": "run",
    "from_pretrained": "sharing",
    "pull": "sharing",
    "push": "sharing",
    "save_pretrained": "sharing",
}

__all__ = [
    "Autoencoder",
    "Generator",
    "Run",
    "build",
    "configure",
    "evaluate",
    "explore",
    "fit",
    "from_pretrained",
    "interpolate",
    "load_data",
    "load_density",
    "make_density",
    "optimize",
    "pull",
    "push",
    "rank",
    "reconstruct",
    "sample",
    "save_pretrained",
    "score",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import expost` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'expost' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"expost.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """List the public names."""
    return [*globals(), *__all__]
