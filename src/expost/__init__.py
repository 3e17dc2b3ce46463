"""expost: generative modelling with regularized autoencoders.

Train an autoencoder with a smooth decoder, estimate the density of its codes after training (ex post), sample:

    import expost

    run = expost.train("rae-l2", data="mnist-5k", out="runs/first")
    expost.fit(run, density="gmm", components=10)
    images = run.generator().sample(64)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from expost.lazy import lazy

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

__getattr__, __dir__ = lazy(
    __name__,
    {
        "autoencoder": ["Autoencoder", "build"],
        "commands.exploring": ["explore"],
        "commands.learning": ["fit", "train"],
        "commands.scoring": ["evaluate", "rank", "score"],
        "commands.searching": ["optimize"],
        "commands.showing": ["interpolate", "reconstruct", "sample"],
        "data": ["load_data"],
        "densities": ["load_density", "make_density"],
        "generator": ["Generator"],
        "presets": ["configure"],
        "run": ["Run"],
        "sharing": ["from_pretrained", "pull", "push", "save_pretrained"],
    },
)
