"""The model card of a published run, generated from the run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from expost.config import RunConfig, to_json
from expost.data import DATASETS
from expost.data.named_strings import STRING_DATASETS
from expost.densities import Density
from expost.errors import UsageError
from expost.evaluation.scores import Score, in_rows
from expost.generators.generator import Generator
from expost.models.zoo import ZOO
from expost.registry import Part
from expost.run import Run
from expost.sharing.kinds import Shown, sharing_of
from expost.sharing.layout import public_name
from expost.utils.extras import require

#: Licences are written as the Hub has them, for example apache-2.0 or cc-by-nc-4.0.
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]*")


@dataclass(frozen=True)
class CardOptions:
    """Options of the card.

    Attributes:
        license: Licence of the weights, as the Hub writes it, for example apache-2.0; None states none.
        show_data: Whether test examples are shown beside their reconstructions.
        densities: Which fitted densities are published; empty: all.
    """

    license: str | None = None
    show_data: bool = False
    densities: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check that the licence is a word, because it goes into the card's YAML header."""
        if self.license is not None and not _LICENSE.fullmatch(self.license):
            raise UsageError(f"license '{self.license}' is not written as on the Hub; for example apache-2.0, mit")


def model_card(
    run: Run, generator: Generator, scores: Sequence[Score], shown: Shown, options: CardOptions, source: str
) -> str:
    """Return the card's text, Markdown with a YAML header.

    Args:
        run: The run, its configuration as it is published.
        generator: Its model, with the densities that are published.
        scores: The scores of its weights.
        shown: Pictures and samples.
        options: Options of the card.
        source: The argument of `expost.from_pretrained` in the card's example.
    """
    config = run.config
    sections = [
        _header(config, options),
        _title(config),
        _shown(shown),
        _loading(config, generator, source),
        _scores(scores),
        _model(config, run.precision(), generator),
        _densities(generator.densities),
        _data(config),
    ]
    return "\n\n".join(section.strip() for section in sections if section) + "\n"


def _header(config: RunConfig, options: CardOptions) -> str:
    kind = sharing_of(config)
    tags = ["expost", "autoencoder", "regularized-autoencoder", "ex-post-density-estimation", config.model.name]
    name = config.data.name
    repositories = [DATASETS[name].origin.repository] if name in DATASETS else []
    hub = require("huggingface_hub", "hub", "a model card needs huggingface_hub")
    data = hub.ModelCardData(
        library_name="expost",
        license=options.license,
        tags=[*tags, kind.tag],
        datasets=[repository for repository in repositories if repository] or None,
        pipeline_tag=kind.task,
    )
    return f"---\n{data.to_yaml()}\n---"


def _title(config: RunConfig) -> str:
    model = config.model.name
    summary = f" ({ZOO[model].summary})" if model in ZOO else ""
    return (
        f"# {_plain(model)} on {_plain(public_name(config.data.name))}\n\n"
        f"An autoencoder{summary}, and densities fitted on its codes after training (ex post), from which new examples "
        "are drawn: Ghosh, Sajjadi, Vergari, Black and Schölkopf, *From Variational to Deterministic Autoencoders*, "
        "ICLR 2020."
    )


def _shown(shown: Shown) -> str:
    parts = [f"![{caption}]({name})\n\n*{caption}*" for name, caption in shown.pictures]
    if shown.text:
        fence = "`" * max(3, 1 + max(len(run) for run in re.findall("`*", "\n".join(shown.text))))
        parts.append("\n".join([fence, *(line.replace("\n", " ") for line in shown.text), fence]))
    return "\n\n".join([*parts, *([shown.note] if shown.note else [])])


def _loading(config: RunConfig, generator: Generator, source: str) -> str:
    name = sharing_of(config).noun
    last = f"{name} = generator.sample(64)" if generator.densities else f"{name} = generator.decode(codes)"
    code = f"import expost\ngenerator = expost.from_pretrained({source!r})\n{last}"
    return f"## How to load\n\n`pip install expost`, then\n\n```python\n{code}\n```"


def _scores(scores: Sequence[Score]) -> str:
    if not scores:
        return ""
    subjects = list(dict.fromkeys(score.of for score in scores))
    found = in_rows(scores)
    several = {name for name, _ in found if sum(name == other for other, _ in found) > 1}
    rows = []
    for name, row in found:
        label = _plain(name)
        if name in several:  # scored in several ways
            how = next(iter(row.values())).card
            label += f" ({how.count:,} against {how.reference_count:,}, seed {how.seed})"
        rows.append([label, *(_value(row[subject]) if subject in row else "" for subject in subjects)])
    protocols: dict[str, list[str]] = {}
    for score in scores:
        card = json.dumps(to_json(score.card), indent=2, ensure_ascii=False)
        protocols.setdefault(card, []).append(f"{score.name} of {score.of}")
    details = [f"{_plain(', '.join(names))}:\n\n```json\n{card}\n```" for card, names in protocols.items()]
    return "\n\n".join(
        [
            "## Scores",
            _table(["score", *map(_plain, subjects)], rows),
            "Scores of other models compare with these only if they were computed in the same way (`expost rank`).",
            "<details>\n<summary>How each score was computed</summary>",
            *details,
            "</details>",
        ]
    )


def _value(score: Score) -> str:
    spread = f" ± {score.error:.2g}" if score.error is not None else ""
    interval = f" [{score.interval[0]:.4g}, {score.interval[1]:.4g}]" if score.interval is not None else ""
    return f"{score.value:.4g}{spread}{interval}"


def _model(config: RunConfig, precision: str, generator: Generator) -> str:
    model, training = config.model, config.training
    assert generator.module is not None
    parameters = sum(parameter.numel() for parameter in generator.module.parameters())
    rows: list[tuple[str, Any]] = [
        ("shape of an example", "x".join(map(str, model.shape))),
        ("dimensions of a code", model.latent_dim),
        ("network", f"{model.network}, width {model.width}, {parameters:,} parameters"),
        ("latent", _part(model.latent)),
        ("penalty", f"{_part(model.penalty)}, weight {model.beta:g}"),
        ("decoder regularizer", f"{_part(model.regularizer)}, weight {model.regularizer_weight:g}"),
        ("reconstruction", model.reconstruction.name),
        ("training", f"at most {training.epochs} epochs in batches of {training.batch_size}, Adam, lr {training.lr:g}"),
        ("seed", training.seed),
        ("precision", precision),
        ("preset", config.preset),
        ("expost", config.version),
    ]
    if config.data.codec is not None:
        rows.insert(1, ("codec", f"{config.data.codec.name}, {model.shape[0]} symbols a row"))
    return f"## Model\n\n{_table(['', ''], [[name, _plain(str(value))] for name, value in rows])}"


def _part(part: Part) -> str:
    options = {name: value for name, value in part.options.items() if not isinstance(value, list | dict)}
    return part.name + (f" ({', '.join(f'{name} {value}' for name, value in options.items())})" if options else "")


def _densities(densities: dict[str, Density]) -> str:
    if not densities:
        return ""
    rows = []
    for name, density in densities.items():
        facts = density.statistics
        fit = facts.get("log_likelihood")
        rows.append([name, f"{facts['n']:,}", f"{fit:.4g}" if isinstance(fit, float) else ""])
    table = _table(["density", "fitted on codes", "mean log-likelihood of them, nats"], rows)
    return f"## Densities\n\n{table}"


def _data(config: RunConfig) -> str:
    name = config.data.name
    terms = _terms(name)
    limit = f", at most {config.data.limit:,} examples of each split" if config.data.limit is not None else ""
    digest = f" SHA-256 of the splits: `{config.data.fingerprint}`." if config.data.fingerprint else ""
    lines = [f"## Data\n\n{_plain(public_name(name))}{limit}.{digest}"]
    if terms:
        lines.append(f"Licence of the data, which may also apply to what the model makes: {_plain(terms)}.")
    return "\n\n".join(lines)


def _terms(name: str) -> str:
    if name in DATASETS:
        return DATASETS[name].licence
    return STRING_DATASETS[name].licence if name in STRING_DATASETS else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: str) -> str:
    """Escape Markdown, HTML and the separators of table cells."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))
