"""What examples are: how they are drawn, written and shown. A kind is a module here and a line in `KINDS`."""

from __future__ import annotations

from collections.abc import Sequence

from expost.config import RunConfig
from expost.errors import UsageError
from expost.examples.images import Images
from expost.examples.kind import Examples, PanelWish, Wish
from expost.examples.sound import Sound
from expost.examples.strings import Strings
from expost.examples.vectors import Vectors
from expost.registry import Registry
from expost.types import Data

__all__ = ["KINDS", "Examples", "PanelWish", "Wish", "examples_of", "kind_of", "kind_of_data", "kind_of_run"]

#: The kinds of examples; the first that holds a shape has it.
KINDS: Registry[type[Examples]] = Registry(
    "kind of examples", {kind.name: kind for kind in (Strings, Sound, Images, Vectors)}
)


def kind_of(shape: Sequence[int], coded: bool = False, sound: bool = False) -> type[Examples]:
    """Return the kind of examples of a shape.

    Args:
        shape: Of one example, as a model sees it.
        coded: Whether a codec made it of something else.
        sound: Whether it is log-mel frames of a recording.

    Raises:
        UsageError: if no kind has such a shape.

    Example:
        >>> kind_of((1, 28, 28)).name, kind_of((15, 76), coded=True).name
        ('images', 'strings')
    """
    for kind in KINDS.values():
        if kind.holds(shape, coded, sound):
            return kind
    raise UsageError(f"examples of shape {tuple(shape)} are of no known kind: {', '.join(KINDS)}")


def kind_of_data(data: Data) -> type[Examples]:
    """Return the kind of a data set's examples."""
    return kind_of(data.shape, data.codec is not None, data.sound is not None)


def kind_of_run(config: RunConfig) -> type[Examples]:
    """Return the kind of a run's examples."""
    return kind_of(config.model.shape, config.data.codec is not None, config.data.sound is not None)


def examples_of(config: RunConfig) -> Examples:
    """Return what a run's examples are."""
    return kind_of_run(config)(config.data)
