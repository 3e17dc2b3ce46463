"""expost: generative modelling with regularized autoencoders.

Train an autoencoder with a smooth decoder, estimate the density of its codes after training (ex post), sample:

    import expost

    run = expost.train("rae-l2", data="mnist-5k", out="runs/first")
    expost.fit(run, density="gmm", components=10)
    images = run.generator().sample(64)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from expost._version import __version__
from expost.utils.lazy import lazy

if TYPE_CHECKING:
    from expost.commands import (
        evaluate,
        explore,
        fit,
        interpolate,
        optimize,
        panel,
        rank,
        reconstruct,
        sample,
        score,
        train,
    )
    from expost.commands.checking import check_run
    from expost.commands.publishing import pull, push
    from expost.data import load_data
    from expost.densities import load_density, make_density
    from expost.densities.conditional import ConditionalDensity
    from expost.examples.pictures import save_picture
    from expost.generators import foreign
    from expost.generators.generator import Generator
    from expost.models.autoencoder import Autoencoder, build
    from expost.models.presets import configure
    from expost.run import Run
    from expost.sharing import from_pretrained, save_pretrained

__all__ = [
    "Autoencoder",
    "ConditionalDensity",
    "Generator",
    "Run",
    "__version__",
    "build",
    "check_run",
    "configure",
    "evaluate",
    "explore",
    "fit",
    "foreign",
    "from_pretrained",
    "interpolate",
    "load_data",
    "load_density",
    "make_density",
    "optimize",
    "panel",
    "pull",
    "push",
    "rank",
    "reconstruct",
    "sample",
    "save_picture",
    "save_pretrained",
    "score",
    "train",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "models.autoencoder": ["Autoencoder", "build"],
        "commands.checking": ["check_run"],
        "commands.exploring": ["explore"],
        "commands.fitting": ["fit"],
        "commands.training": ["train"],
        "commands.scoring": ["evaluate", "rank", "score"],
        "commands.searching": ["optimize"],
        "commands.showing": ["interpolate", "panel", "reconstruct", "sample"],
        "data": ["load_data"],
        "densities": ["load_density", "make_density"],
        "densities.conditional": ["ConditionalDensity"],
        "examples.pictures": ["save_picture"],
        "generators": ["foreign"],
        "generators.generator": ["Generator"],
        "models.presets": ["configure"],
        "run": ["Run"],
        "commands.publishing": ["pull", "push"],
        "sharing": ["from_pretrained", "save_pretrained"],
    },
)
