"""The sections of a run. A note replaces what cannot be shown, with the command that makes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from expost.config import DataConfig, ModelConfig, RunConfig
from expost.errors import DataError
from expost.evaluation.scores import Score
from expost.examples import kind_of_data
from expost.generators.generator import own_densities
from expost.generators.selection_table import HEAD, in_words, rows
from expost.models.latents import LATENTS
from expost.registry import Part
from expost.report.blocks import Block, Cell, Fact, Facts, Note, RunPage, Section, Table
from expost.report.codes import code_map
from expost.report.glance import Glance
from expost.report.images import IMAGES
from expost.report.scoring import headline, read_scores, score_blocks
from expost.report.searches import search_blocks
from expost.report.sound import SOUND
from expost.report.strings import STRINGS
from expost.report.subject import Maker, Makers, Subject
from expost.report.training import History, loss_curves
from expost.report.vectors import VECTORS
from expost.report.verdict import fidelity, verdict
from expost.run import Run, Trouble
from expost.types import Data
from expost.utils.progress import duration

T = TypeVar("T")
#: Errors that data, a model or a file can cause; any other is a bug, and is not hidden.
FAILURES = (ValueError, OSError, RuntimeError)


@dataclass(frozen=True)
class Source:
    """Where the sections of a run come from.

    Attributes:
        run: The run.
        label: What it is called on the page.
        anchor: Its anchor on the page.
        load: Returns the data of a configuration.
        device: Where the model runs.
        seed: Seeds samples and pairs.
        scale: Pixels of the page for each pixel of an image, a side; None for a size that suits the page.
    """

    run: Run
    label: str
    anchor: str
    load: Callable[[DataConfig], Data]
    device: str
    seed: int
    scale: int | None = None


@dataclass(frozen=True)
class Reported:
    """A run on a page.

    Attributes:
        page: All about it.
        scores: Its scores.
        glance: What stands beside other runs; None where it cannot be drawn.
    """

    page: RunPage
    scores: list[Score]
    glance: Glance | None


def run_page(source: Source) -> Reported:
    """Return all about a run."""
    run, config = source.run, source.run.config
    history, damage = _history(run.folder)
    epochs = len(history.epochs)
    sections = [Section("choices", "Choices", tuple(_choices(config, run.precision())))]
    subject = _subject(source)
    trouble = _trouble(subject)
    curves = [*_note_of(trouble), *(damage or loss_curves(history))]
    sections.append(Section("training", "Training", tuple(curves), _training_lead(config, history)))
    scores, old, broken = _scores(run)
    count, kept, glance = "", None, None
    if isinstance(subject, Subject):
        kept, glance = _tried(fidelity, subject), _tried(_makers(subject).glance, subject)
        if subject.generator.module is not None:
            count = f"{sum(p.numel() for p in subject.generator.module.parameters()):,} parameters"
        sections += _example_sections(subject)
    else:
        sections.append(Section("pictures", "What it makes", (subject,)))
    if searches := search_blocks(run.folder):
        sections.append(Section("searches", "Searches", tuple(searches)))
    blocks = broken or [*old, *(score_blocks(scores, run.folder) if scores or not old else [])]
    sections.append(Section("scores", "Scores", tuple(blocks)))
    status = "" if epochs >= config.training.epochs else f"unfinished: {epochs} of {config.training.epochs} epochs"
    said = verdict(scores, kept, trouble)
    subtitle = _subtitle(config, count)
    page = RunPage(source.label, source.anchor, subtitle, status, headline(scores), tuple(sections), said)
    return Reported(page, scores, glance)


def _tried(maker: Callable[[Subject], T | None], subject: Subject) -> T | None:
    """Return what is made of a run, None if its model or data do not allow it; its section says why."""
    try:
        return maker(subject)
    except FAILURES:
        return None


def _trouble(subject: Subject | Note) -> Trouble | None:
    return None if isinstance(subject, Note) else subject.run.trouble(subject.generator.module, subject.data)


def _note_of(trouble: Trouble | None) -> list[Block]:
    return [Note(f"{trouble.text[0].upper()}{trouble.text[1:]}.")] if trouble else []


def _history(folder: Path) -> tuple[History, list[Block]]:
    try:
        return History.read(folder / "metrics.jsonl"), []
    except (DataError, OSError) as error:
        return History([]), [Note(f"No loss curves: {_reason(error)}.")]


def _subtitle(config: RunConfig, count: str) -> str:
    model = config.model
    spatial = LATENTS[model.latent.name].spatial
    dims = "codes on a map" if spatial else f"{model.latent_dim} latent dimensions"
    name = Path(config.data.name).name or config.data.name
    return " · ".join(part for part in (f"{model.name} on {name}", dims, count) if part)


def _training_lead(config: RunConfig, history: History) -> str:
    if not history.epochs:
        return ""
    seconds = history.epochs[-1]["seconds"]
    best = f", epoch {history.best} is kept" if history.best is not None else ""
    return f"{len(history.epochs)} of {config.training.epochs} epochs in {duration(seconds)}{best}."


def _choices(config: RunConfig, precision: str) -> list[Block]:
    """Return the row of choices of the design space."""
    model, training = config.model, config.training
    slots = [
        _slot("latent", model.latent, f"{model.latent_dim} dimensions"),
        _slot("latent penalty", model.penalty, f"weight β = {model.beta:.4g}"),
        _slot("decoder regularizer", model.regularizer, f"weight λ = {model.regularizer_weight:.4g}"),
        _slot("reconstruction", model.reconstruction),
        _slot("own samples from", model.prior)
        if model.prior
        else Fact("own samples from", "none", "no prior was named"),
        _network(config),
        Fact(
            "training",
            f"Adam, {training.lr:.4g}",
            f"batches of {training.batch_size}, {precision}, seed {training.seed}",
        ),
        Fact("data", Path(config.data.name).name or config.data.name, _data_words(config.data, model)),
    ]
    return [Facts(tuple(slots))]


def _slot(label: str, part: Part, detail: str = "") -> Fact:
    options = ", ".join(f"{name} {_brief(value)}" for name, value in part.options.items())
    return Fact(label, part.name, "; ".join(text for text in (detail, options) if text))


def _network(config: RunConfig) -> Fact:
    if config.own_networks:
        return Fact("networks", "own modules", "passed from Python")
    return Fact("networks", config.model.network, f"width {config.model.width}")


def _brief(value: object) -> str:
    if isinstance(value, list | tuple) and len(value) > 4:
        return f"({len(value)} values)"
    text = str(value)
    return text if len(text) <= 40 else f"{text[:39]}…"


def _data_words(data: DataConfig, model: ModelConfig) -> str:
    words = [" × ".join(map(str, model.shape))]
    if len(model.shape) == 1:
        words = [f"{model.shape[0]:,} columns" if data.columns else f"{model.shape[0]:,} entries"]
    if data.codec is not None:
        words.append(f"codec {data.codec.name}")
    if data.sound is not None:
        words.append(f"log-mel frames of {data.sound.seconds:g} s at {data.sound.rate:,} Hz")
    if data.limit is not None:
        words.append(f"at most {data.limit:,} a split")
    return ", ".join(words)


def _subject(source: Source) -> Subject | Note:
    """Return model and data, or a note why they cannot be loaded."""
    run = source.run
    if run.config.own_networks and run.networks is None:
        return Note(
            "This run was trained with your own networks, which are not saved with it. To see what it makes, pass an "
            "open run from Python:",
            f"expost.report.report((Run.open({str(run.folder)!r}, networks=(encoder, decoder)),))",
        )
    if not (run.folder / "model.safetensors").exists():
        return Note("There are no trained weights yet, so nothing can be drawn. To go on:", "expost train … --resume")
    try:
        return Subject(run, source.load(run.config.data), run.generator(source.device), source.seed, source.scale)
    except FAILURES as error:
        return Note(f"What the run makes cannot be drawn: {_reason(error)}.")


#: What makes the sections of examples, by their kind.
MAKERS = {"images": IMAGES, "sound": SOUND, "strings": STRINGS, "vectors": VECTORS}


def _makers(subject: Subject) -> Makers:
    return MAKERS[kind_of_data(subject.data).like]


def _example_sections(subject: Subject) -> list[Section]:
    folder, makers = subject.run.folder, _makers(subject)
    usual = own_densities(subject.run.config.model)[-1]
    absent: list[Block] = [
        Note("No density is fitted on this run's codes yet. To fit one:", f"expost fit {folder} --density {usual}")
    ]
    stale = _stale(subject)
    fitted = bool(subject.generator.densities)
    return [
        Section("reconstructions", "Reconstructions", _made(makers.reconstructions, subject)),
        Section(
            "samples",
            "Samples",
            (*stale, *(_made(makers.samples, subject) if fitted else absent), *_made(_selections, subject)),
            "" if subject.choice is None else f"Where one density is shown, {subject.choice.line}.",
        ),
        *([Section("columns", "Columns", _made(makers.columns, subject))] if makers.columns is not None else []),
        Section(
            "neighbours",
            "Nearest training neighbours",
            _made(makers.neighbours, subject) if fitted else tuple(absent),
            "Whether samples are copies: a distance well below that of test examples is suspicious.",
        )
        if fitted
        else Section(
            "neighbours", "Nearest training neighbours", (Note("There are no samples yet to find neighbours of."),)
        ),
        Section("interpolations", "Interpolations", _made(makers.interpolations, subject)),
        Section(
            "codes",
            "Map of the codes",
            _made(lambda each: code_map(each.codes, each.generator.densities, each.seed), subject),
        ),
    ]


def _selections(subject: Subject) -> list[Block]:
    """Return tables of what densities were chosen from; all candidates, the choice first in words."""
    tables: list[Block] = []
    for asked, record in subject.run.selections().items():
        *_, why = in_words(record)
        named = f"What {asked} was chosen from"
        body = tuple(tuple(map(Cell, row)) for row in rows(record, full=True))
        tables.append(Table(f"{named}: {why}", HEAD, body, folded=True))
    return tables


def _made(maker: Maker, subject: Subject) -> tuple[Block, ...]:
    try:
        return tuple(maker(subject))
    except FAILURES as error:
        return (Note(f"This cannot be drawn: {_reason(error)}."),)


def _stale(subject: Subject) -> tuple[Block, ...]:
    """Say which fitted densities belong to earlier weights."""
    files = sorted((subject.run.folder / "densities").glob("*.safetensors"))
    names = [
        file.stem for file in files if not file.name.startswith(".") and file.stem not in subject.generator.densities
    ]
    if not names:
        return ()
    command = f"expost fit {subject.run.folder} --density {names[0]}"
    return (
        Note(f"Densities fitted on codes of earlier weights are left out: {', '.join(names)}. To fit again:", command),
    )


def _scores(run: Run) -> tuple[list[Score], list[Block], list[Block]]:
    """Return the scores of the run's weights, a note on scores of other weights, and an error of reading."""
    try:
        scores = read_scores(run.folder)
        weights = run.weights_hash() if (run.folder / "model.safetensors").exists() else ""
    except FAILURES as error:
        return [], [], [Note(f"The scores cannot be read: {_reason(error)}.")]
    current = [score for score in scores if score.card.model == weights]
    old: list[Block] = []
    if len(current) < len(scores):
        count = len(scores) - len(current)
        old = [
            Note(f"Scores of earlier weights are left out: {count}. To score again:", f"expost evaluate {run.folder}")
        ]
    return current, old, []


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def anchors(labels: Sequence[str]) -> list[str]:
    """Return a unique anchor for every run."""
    return [f"run-{number}" for number, _ in enumerate(labels, 1)]
