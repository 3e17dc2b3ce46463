"""Publishing runs: the folder, its pictures and its card, and the upload."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from expost.config import to_json
from expost.densities import DENSITIES
from expost.errors import DataError, UsageError
from expost.evaluation.scores import FORMAT, Score, saved_scores, score_from_json
from expost.run import Run, open_run
from expost.sharing.card import CardOptions, model_card
from expost.sharing.kinds import sharing_of
from expost.sharing.layout import (
    CARD,
    CONFIG,
    FITTED_ON,
    SCORES,
    WEIGHTS,
    density_file,
    public_name,
)
from expost.utils.extras import require
from expost.utils.progress import progress, say
from expost.utils.store import replacing, sealed, write_json, write_text


def save_pretrained(
    run: Run | Path | str,
    out: Path | str,
    license: str | None = None,
    show_data: bool = False,
    densities: tuple[str, ...] = (),
) -> Path:
    """Write a run as a folder to share, with its model card; nothing is uploaded.

    Args:
        run: The run.
        out: Folder, new or empty.
        license: Licence of the weights, spelled as on the Hub, for example apache-2.0.
        show_data: Show test examples beside their reconstructions, if the data may be shown.
        densities: Which fitted densities to publish; default: all but those by label.

    Returns:
        The folder.
    """
    folder = _fresh(out)
    write_published(open_run(run), folder, CardOptions(license, show_data, densities), folder.name)
    return folder


def _fresh(out: Path | str) -> Path:
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists already; choose another folder")
    return folder


def publish(run: Run, repository: str, private: bool, options: CardOptions, out: Path | str | None = None) -> str:
    """Upload a run to the Hub, or write the same files to a folder; return the address, or the folder."""
    require("huggingface_hub", "hub", "publishing needs huggingface_hub")
    from expost.sharing.hub import check_name, upload  # huggingface_hub takes a while to import

    check_name(repository)
    if out is not None:
        folder = _fresh(out)
        write_published(run, folder, options, repository)
        return str(folder)
    check_publishable(run, options)
    return upload(run, repository, private, options)


def check_publishable(run: Run, options: CardOptions) -> None:
    """Check that others could load the run, and that it has the chosen densities.

    Raises:
        UsageError: for a run with networks of one's own, or a density that is not fitted.
        DataError: if there are no weights.
    """
    if run.config.own_networks:
        raise UsageError(
            f"{run.folder} was trained with your own networks, and loading never runs code from a download; "
            "share their code and the folder in another way"
        )
    if not (run.folder / WEIGHTS).is_file():
        raise DataError(f"{run.folder} has no trained weights yet; train it first: expost train ... --resume")
    for name in options.densities:
        _ = DENSITIES[name]
        if not (run.folder / density_file(name)).is_file():
            raise UsageError(f"density '{name}' is not fitted; fit it first: expost fit {run.folder} --density {name}")


def write_published(run: Run, folder: Path, options: CardOptions, source: str) -> None:
    """Write everything of a published run to a folder.

    Args:
        run: The run.
        folder: Where to.
        options: Options of the card.
        source: The name or folder that the card tells others to load.

    Raises:
        UsageError: as `check_publishable`, or if the folder is the run's own.
        DataError: if data are to be shown and are not here.
    """
    require("huggingface_hub", "hub", "publishing needs huggingface_hub")  # for the card
    check_publishable(run, options)
    if folder.resolve() == run.folder.resolve():
        raise UsageError(f"{folder} is the run's own folder; choose another")
    generator = run.generator("cpu")
    if generator.by_label:
        names = ", ".join(generator.by_label)
        say(f"densities by label are not published: {names}; anyone with the labels can fit them again")
    chosen = [name for name in generator.densities if name in (options.densities or DENSITIES)]
    generator.densities = {name: generator.densities[name] for name in chosen}
    for name in options.densities:
        if name not in chosen:
            raise UsageError(f"density '{name}' was fitted before the weights changed; fit it again")
    data = run.config.data
    parts = tuple(f"{part}={public_name(place)}" for part, _, place in (each.partition("=") for each in data.parts))
    shared = replace(run.config, data=replace(data, name=public_name(data.name), parts=parts))
    scores = _scores(run, generator.weights)
    with progress("writing", 4) as bar:
        shown = sharing_of(run.config).show(run, generator, options.show_data, folder)
        bar.advance()
        _copy(run.folder / WEIGHTS, folder / WEIGHTS)
        if replace(run, folder=folder).weights_hash() != generator.weights:
            raise DataError(f"{run.folder} was trained on while it was published; publish it again")
        bar.advance()
        for name in chosen:
            _copy(run.folder / density_file(name), folder / density_file(name))
        if chosen:
            write_json(folder / FITTED_ON, dict.fromkeys(chosen, generator.weights))
        bar.advance()
        if scores:
            write_json(folder / SCORES, sealed({"format": FORMAT, "scores": [to_json(score) for score in scores]}))
        write_text(folder / CARD, model_card(replace(run, config=shared), generator, scores, shown, options, source))
        write_json(folder / CONFIG, sealed(to_json(shared)))  # last: with it the folder is a run
        bar.advance()


def _copy(source: Path, target: Path) -> None:
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)


def _scores(run: Run, weights: str) -> list[Score]:
    """Return the saved scores of these weights, with paths of data removed."""
    path = run.folder / SCORES
    name = run.config.data.name
    scores = [score_from_json(_renamed(each, name, public_name(name)), path) for each in saved_scores(path)]
    return [score for score in scores if score.card.model == weights]


def _renamed(value: Any, old: str, new: str) -> Any:
    if isinstance(value, str):
        return value.replace(old, new) if old != new else value
    if isinstance(value, dict):
        return {key: _renamed(each, old, new) for key, each in value.items()}
    return [_renamed(each, old, new) for each in value] if isinstance(value, list) else value
