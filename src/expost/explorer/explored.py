"""A loaded run, and the requests that the page makes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from expost.config import DataConfig
from expost.data.single import Form
from expost.densities import Density, LabelledDensity, TractableDensity
from expost.errors import UsageError
from expost.examples import kind_of_data
from expost.explorer.images import Images
from expost.explorer.kinds import Compared, File, Given, Kind, Neighbours, codes_file
from expost.explorer.space import Space
from expost.explorer.strings import Texts
from expost.explorer.token_store import TokenStore
from expost.explorer.vectors import Vectors
from expost.generators.generator import Generator, usual_density
from expost.generators.interpolation import INTERPOLATIONS
from expost.generators.strings import StringGenerator
from expost.report.codes import Codes
from expost.run import Run
from expost.types import Data
from expost.utils.progress import say
from expost.utils.seeding import PAIRS, SAMPLES, generator


def _images(model: Generator, data: Data, x: Tensor, config: DataConfig) -> Images:
    channels, height, width = data.shape
    form = Form.of(config.name, (channels, height, width), config.size, config.range, config.layout)
    return Images(model, form, x)


def _texts(model: Generator, data: Data, x: Tensor, _: DataConfig) -> Texts:
    assert data.codec is not None
    return Texts(StringGenerator(model, data.codec), data.domain, x)


#: What the page shows, by the kind of examples: gets the model, the data, the examples to compare with, and how
#: the run's data are read.
VIEWS: dict[str, Callable[[Generator, Data, Tensor, DataConfig], Kind[Any]]] = {
    "images": _images,
    "strings": _texts,
    "vectors": lambda model, data, x, _: Vectors(model, x, data.columns),
}
#: Most bytes kept of uploads, and of results that can be saved.
KEPT_UPLOADS, KEPT_RESULTS = 64_000_000, 256_000_000
#: Most numbers in the training examples that are compared: 512 MB.
MOST_NUMBERS = 2**27
#: Limits of one request: samples, steps of a path, temperature.
MOST_SAMPLES, MOST_STEPS = 100, 20
HOTTEST = 4.0


@dataclass(frozen=True)
class Drawn:
    """Examples and the codes that they were decoded from.

    Attributes:
        items: The examples.
        z: Their codes, shape (N, ...).
    """

    items: Any
    z: Tensor


@dataclass(frozen=True, eq=False)
class Explored:
    """A run with its model, its data, and the codes of training examples.

    Attributes:
        title: The run's name.
        run: The run.
        data: Its data.
        generator: Its model, with the densities that belong to its weights.
        kind: What its examples are.
        chosen: Which training examples are on the map and compared, shape (N,).
        codes: Their codes, shape (N, d), maps flattened, with labels.
        code_shape: Shape of one code.
        space: Coordinates of the codes.
        uploads: Examples that were uploaded or typed.
        results: Results that can be saved.
        drawn: Samples from which one can be picked.
    """

    title: str
    run: Run
    data: Data
    generator: Generator
    kind: Kind[Any]
    chosen: Tensor
    codes: Codes
    code_shape: tuple[int, ...]
    space: Space
    uploads: TokenStore[Given[Any]] = field(default_factory=lambda: TokenStore("example", KEPT_UPLOADS))
    results: TokenStore[File] = field(default_factory=lambda: TokenStore("file", KEPT_RESULTS))
    drawn: TokenStore[Drawn] = field(default_factory=lambda: TokenStore("sample", KEPT_RESULTS))

    @classmethod
    def of(cls, run: Run, examples: int, device: str = "auto") -> Explored:
        """Load a run.

        Args:
            run: The run, trained.
            examples: Most training examples on the map and compared; a random choice if there are more.
            device: auto, cpu, cuda or mps.

        Raises:
            DataError: if it has no weights yet, or its data have changed.
        """
        data = run.data()
        model = run.generator(device)
        train = data.train
        numbers = max(1, train.x[0].numel())
        most = max(2, min(examples, MOST_NUMBERS // numbers))
        chosen = torch.randperm(len(train), generator=generator(0, PAIRS, 2))[:most]
        if len(chosen) < len(train):
            say(f"{len(chosen):,} of {len(train):,} training examples are on the map and compared")
        x = train.x[chosen]
        z = model.encode(x)
        kind = VIEWS[kind_of_data(data).like](model, data, x, run.config.data)
        labels = data.labels(train)
        codes = Codes(z.flatten(1), None if labels is None else labels[chosen.numpy()])
        title = run.folder.resolve().name or str(run.folder)
        return cls(title, run, data, model, kind, chosen, codes, tuple(z.shape[1:]), Space.of(codes.z))

    @cached_property
    def _compared(self) -> Compared:
        return Compared(self.codes.z.float())

    @property
    def densities(self) -> dict[str, Density]:
        """The fitted densities by name."""
        return self.generator.densities

    @property
    def choices(self) -> list[str]:
        """Names of all that can be sampled: densities, then densities by label."""
        return [*self.densities, *(f"{name} by label" for name in self.generator.by_label)]

    @property
    def density(self) -> str | None:
        """The default choice: gmm if it is fitted, else the last."""
        return usual_density(self.choices)

    def conditional(self, choice: str | None) -> LabelledDensity | None:
        """Return the densities by label of a choice, None if it names a plain density."""
        name = str(choice or "").removesuffix(" by label")
        return self.generator.by_label.get(name) if name != choice else None

    def item(self, reference: str) -> Any:
        """Return the example that "test:NUMBER", or the token of an upload, refers to.

        Raises:
            UsageError: if there is none.
        """
        place, colon, number = reference.partition(":")
        if not colon:
            return self.uploads[reference].items
        if place != "test" or not number.isdecimal() or not int(number) < len(self.data.test):
            raise UsageError(f"there is no test example {number[:20]}; choose one from 0 to {len(self.data.test) - 1}")
        return self.kind.of_rows(self.data.test.x[int(number) : int(number) + 1])

    def said(self, reference: str) -> str:
        """Return how the upload that a token refers to was understood; nothing of a test example."""
        return "" if ":" in reference else self.uploads[reference].said

    def upload(self, body: bytes, name: str) -> str:
        """Read an upload, keep it, and return its token.

        Raises:
            DataError, UsageError: if it is unusable.
        """
        if not self.kind.accept:
            raise UsageError(f"nothing can be uploaded here; choose a {self.kind.noun} of the data set")
        given = self.kind.read(body, name)
        return self.uploads.keep(given, self.kind.size(given.items))

    def typed(self, text: str) -> str:
        """Read a typed example, keep it, and return its token.

        Raises:
            DataError: if it is unusable.
        """
        item = self.kind.parse(text)
        return self.uploads.keep(Given(item), self.kind.size(item))

    def decode(self, z: Tensor, temperature: float = 0.0, seed: int = 0) -> Any:
        """Return decoded codes; flat codes are first given the shape of the model's codes."""
        return self.kind.decode(z.reshape(-1, *self.code_shape), temperature, seed)

    def encode(self, item: Any) -> Tensor:
        """Return codes, flat, shape (N, d)."""
        return self.kind.encode(item).flatten(1)

    def sample(
        self, choice: str | None, n: int, temperature: float = 1.0, seed: int = 0, label: str | None = None,
        symbol_temperature: float = 0.0,
    ) -> Drawn:  # fmt: skip
        """Draw codes and decode them.

        Args:
            choice: One of `choices`.
            n: How many, 1 to `MOST_SAMPLES`.
            temperature: Of the density, see `Density.sample`, 0 to `HOTTEST`.
            seed: Seeds the draws, at least 0.
            label: With densities by label, which; None for all.
            symbol_temperature: Strings only: 0 takes the most likely symbols, otherwise they are drawn.

        Raises:
            UsageError: if one of them is out of its range.
        """
        n, seed = whole("the number of samples", n, 1, MOST_SAMPLES), whole("the seed", seed, 0, 2**32 - 1)
        temperature = between("the temperature", temperature, 0, HOTTEST)
        symbol_temperature = between("the temperature of symbols", symbol_temperature, 0, HOTTEST)
        if not self.choices:
            raise UsageError(f"no density is fitted; run: expost fit {self.run.folder} --density gmm")
        if choice not in self.choices:
            raise UsageError(f"unknown density '{str(choice)[:40]}'; choose one of: {', '.join(self.choices)}")
        assert choice is not None
        by_label = self.conditional(choice)
        source = generator(seed, SAMPLES)
        if by_label is None:
            z = self.densities[choice].sample(n, generator=source, temperature=temperature)
        else:
            z = by_label.sample(n, label, generator=source, temperature=temperature)
        z = z.cpu()
        return Drawn(self.decode(z, symbol_temperature, seed), z)

    def path(self, a: str, b: str, method: str, steps: int) -> Drawn:
        """Decode points between the codes of two examples; arguments are references, a method and a number of points.

        Raises:
            UsageError: if the method is unknown or the number out of its range.
        """
        steps = whole("the number of steps", steps, 2, MOST_STEPS)
        between_ends = INTERPOLATIONS[method]
        first, last = self.encode(self.item(a)), self.encode(self.item(b))
        z = torch.cat([between_ends(first, last, t) for t in torch.linspace(0, 1, steps)])
        return Drawn(self.decode(z), z)

    def near_codes(self, z: Tensor, n: int) -> Neighbours:
        """Return the training examples whose codes are nearest to one code, shape (1, d)."""
        return Neighbours("distance of codes", *self._compared.nearest(z.reshape(1, -1).float(), n))

    def train_items(self, indices: Sequence[int]) -> Any:
        """Return training examples of those that are compared."""
        return self.kind.of_rows(self.data.train.x[self.chosen[list(indices)]])

    def log_density(self, z: Tensor) -> tuple[str, float] | None:
        """Return the name of a density that can be evaluated, and its logarithm at a code; None if there is none."""
        names = [name for name, density in self.densities.items() if isinstance(density, TractableDensity)]
        name = usual_density(names)
        if name is None:
            return None
        density = self.densities[name]
        assert isinstance(density, TractableDensity)
        return name, float(density.log_prob(z.to(density.device))[0])

    def keep(self, drawn: Drawn, stem: str) -> list[tuple[str, str]]:
        """Keep examples and codes so that they can be saved; return labels and addresses of the files."""
        size = self.kind.size(drawn.items) + 4 * drawn.z.numel()
        files = {file.name.rpartition(".")[2].upper(): file for file in self.kind.files(drawn.items, stem)}
        files["codes (NPY)"] = codes_file(drawn.z, stem)
        return [(label, f"save/{self.results.keep(file, size)}/{file.name}") for label, file in files.items()]


def whole(name: str, value: object, low: int, high: int) -> int:
    """Return a whole number in a range.

    Raises:
        UsageError: if it is none, or outside.

    Example:
        >>> whole("the seed", 7.0, 0, 9)
        7
    """
    number = between(name, value, low, high)
    if number != int(number):
        raise UsageError(f"{name} is {number:g}; give a whole number from {low} to {high}")
    return int(number)


def between(name: str, value: object, low: float, high: float) -> float:
    """Return a number in a range.

    Raises:
        UsageError: if it is none, or outside; NaN is.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        shown = str(value)[:20] if value is not None else "empty"
        raise UsageError(f"{name} is {shown}; give a number from {low:g} to {high:g}")
    return float(value)
