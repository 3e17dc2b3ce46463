"""Tables of scores, cards of their protocols, and the ranking of runs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from expost.evaluation.catalog import direction_of
from expost.evaluation.protocol import CODES, INTERPOLATION, RECONSTRUCTION
from expost.evaluation.ranking import Ranked, comparable, rank
from expost.evaluation.scores import Card as Protocol
from expost.evaluation.scores import Score, in_rows, saved_scores, score_from_json
from expost.metrics.measures import MEASURES
from expost.metrics.neighbours import expected_coverage
from expost.report.blocks import Block, Card, Cards, Cell, Fact, Facts, Note, Section, Table
from expost.report.verdict import bracket, decisive, interval

#: Name of a run's own density where runs are compared: the paper's column N, whichever density it is.
OWN = "own density"


def read_scores(folder: Path) -> list[Score]:
    """Return a run's saved scores; none if it was not evaluated.

    Raises:
        DataError: if they cannot be read.
    """
    path = folder / "metrics.json"
    return [score_from_json(each, path) for each in saved_scores(path)]


def arrow(name: str) -> str:
    """Return an arrow in a score's direction; empty where none is better.

    Example:
        >>> arrow("fid"), arrow("recall"), arrow("copying")
        ('↓', '↑', '')
    """
    return {1: "↑", -1: "↓", 0: ""}[direction_of(name).sign]


def shown(score: Score) -> Cell:
    """Return a score's value, its standard error and its interval."""
    spread = f"± {score.error:.2g}" if score.error is not None else ""
    if score.interval is not None:
        spread = f"{spread} [{score.interval[0]:.4g}, {score.interval[1]:.4g}]".strip()
    return Cell(f"{score.value:.4g}".replace("-", "−"), spread, "number")


def name_cell(name: str) -> Cell:
    """Return a score's name with an arrow in its direction."""
    return Cell(name, arrow(name))


def headline(scores: Sequence[Score]) -> Facts | None:
    """Return one score of every subject but the codes, large, with its interval and an arrow; densities best first.

    It is the score that stands for samples, see `verdict.decisive`, where a subject has it, else its first that ranks.
    """
    name = decisive(scores)
    chosen: dict[str, Score] = {}
    for score in scores:
        if score.of != CODES and (score.name == name or score.of not in chosen):
            chosen[score.of] = score
    sign = direction_of(name).sign if name is not None else 0
    order = sorted(
        chosen.values(),
        key=lambda score: (score.of in (RECONSTRUCTION, INTERPOLATION), score.name != name, -sign * score.value),
    )
    items = tuple(_tile(score) for score in order)
    return Facts(items, "tiles") if items else None


def _tile(score: Score) -> Fact:
    ends = interval(score)
    spread = "no interval" if ends is None else f"95 % {bracket(ends)}"
    return Fact(f"{score.name} {arrow(score.name)}".strip() + f", {score.of}", shown(score).text, spread)


def score_blocks(scores: Sequence[Score], folder: Path) -> list[Block]:
    """Return the table of scores, and the cards of the protocols."""
    if not scores:
        return [Note("This run has no scores yet. To make them:", f"expost evaluate {folder}")]
    table = [score for score in scores if score.of != CODES]
    subjects = list(dict.fromkeys(score.of for score in table))
    blocks: list[Block] = []
    if table:
        rows = [
            (name_cell(name), *(shown(row[subject]) if subject in row else Cell("") for subject in subjects))
            for name, row in in_rows(table)
        ]
        note = f"↑ more is better, ↓ less.{_below_0(table)}{_full_coverage(table)}"
        blocks.append(Table("Scores of what the run makes", ("score", *subjects), tuple(rows), note))
    of_codes = [score for score in scores if score.of == CODES]
    if of_codes:
        rows = [(name_cell(score.name), shown(score)) for score in of_codes]
        blocks.append(Table("Scores of the codes", ("score", "codes"), tuple(rows)))
    return [*blocks, protocol_cards(scores)]


def _below_0(scores: Iterable[Score]) -> str:
    """Return an explanation if a kernel distance is negative, else an empty string."""
    if not any(score.name in MEASURES["kid"].directions and score.value < 0 for score in scores):
        return ""
    return " A kernel distance is estimated without bias, so the estimate may be negative."


def _full_coverage(scores: Iterable[Score]) -> str:
    """Return a sentence on the coverage expected of the test distribution itself; empty if no coverage was scored."""
    cards = [score.card for score in scores if score.name == "coverage" and "neighbours" in score.card.settings]
    expected = [expected_coverage(card.reference_count, card.count, card.settings["neighbours"]) for card in cards]
    values = " or ".join(dict.fromkeys(f"{value:.3f}" for value in expected))
    return f" Samples of the test examples' own distribution have a coverage of {values} on average." if values else ""


def protocol_cards(scores: Sequence[Score]) -> Cards:
    """Return a card of the protocol that all scores share, and cards of the differences."""
    cards = [_fields(score.card) for score in scores]
    names = [each.name for each in fields(Protocol)]
    shared = [name for name in names if all(card[name] == cards[0][name] for card in cards)]
    groups: dict[str, tuple[dict[str, str], list[Score]]] = {}
    subjects = {score.of: _of_subject(score.of, scores) for score in scores}
    for score, card in zip(scores, cards, strict=True):
        own = {name: card[name] for name in names if name not in shared and name != "density"}
        if "settings" in own:
            own["settings"] = _words({k: v for k, v in score.card.settings.items() if k not in subjects[score.of]})
        groups.setdefault(json.dumps(own), (own, []))[1].append(score)
    found = [Card("All scores", tuple((name, cards[0][name]) for name in shared))] if shared else []
    for own, mine in groups.values():
        measured = ", ".join(dict.fromkeys(score.name for score in mine))
        of = ", ".join(dict.fromkeys(score.of for score in mine))
        if own:
            found.append(Card(f"{measured} — of {of}", tuple(own.items())))
    described = tuple((subject, _words(details)) for subject, details in subjects.items() if details)
    if described:
        found.append(Card("What was scored", described))
    return Cards(tuple(found), "Protocol cards")


def _of_subject(subject: str, scores: Sequence[Score]) -> dict[str, Any]:
    """Return the density behind a subject, and the settings that only its scores have, such as an interpolation's."""
    mine = [score.card for score in scores if score.of == subject]
    others = {key for score in scores if score.of != subject for key in score.card.settings}
    found = dict(mine[0].density)
    for key, value in mine[0].settings.items():
        if key not in others and all(card.settings.get(key) == value for card in mine):
            found[key] = value
    return found


def _fields(card: Protocol) -> dict[str, str]:
    return {each.name: _words(getattr(card, each.name)) for each in fields(Protocol)}


def _words(value: Any) -> str:
    """Return a value of a card in words."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_short(json.dumps(each, default=str))}" for key, each in value.items()) or "none"
    return str(value) if value != "" else "none"


def _short(text: str, length: int = 200) -> str:
    plain = text.strip('"')
    return plain if len(plain) <= length else f"{plain[: length - 1]}…"


@dataclass(frozen=True)
class Comparison:
    """Runs by one score of one subject.

    Attributes:
        name: The score.
        subject: Of what.
        scores: By run.
        places: By run; runs share a place where chance may have decided.
    """

    name: str
    subject: str
    scores: Mapping[str, Score]
    places: Mapping[str, Ranked]

    @property
    def firm(self) -> bool:
        """Whether every score has an interval."""
        return all(interval(score) is not None for score in self.scores.values())

    def cell(self, label: str) -> Cell:
        """Return a run's score with its interval and its place."""
        if label not in self.scores:
            return Cell("–", "", "missing")
        score, place = self.scores[label], self.places[label]
        ends = interval(score)
        detail = f"{'' if ends is None else bracket(ends)} #{place.shown}".strip()
        return Cell(shown(score).text, detail, "number best" if place.place == 1 else "number")


def ranking(
    runs: Mapping[str, Sequence[Score]],
    own: Mapping[str, str | None],
    beside: Sequence[Block] = (),
    taken: Sequence[str] = (),
) -> Section:
    """Return the section that compares runs, by every score that may be compared.

    Args:
        runs: Scores of the runs by label.
        own: The name of each run's own density.
        beside: What else stands side by side: blocks between the first table and the long one.
        taken: The best fitted density of each run that has one; the runs are in the order of the most frequent.
    """
    found, refused = _compare({label: _with_own(scores, own.get(label)) for label, scores in runs.items()})
    blocks: list[Block] = []
    unscored = [label for label, scores in runs.items() if not scores]
    if unscored:
        text = f"Without scores, and not ranked: {', '.join(unscored)}. To score a run:"
        blocks.append(Note(text, "expost evaluate RUN"))
    # a score that a trivial model wins, or without intervals, stands for a subject only where there is no other
    first: dict[str, Comparison] = {}
    for each in sorted(found, key=lambda each: (direction_of(each.name).gameable, not each.firm)):
        first.setdefault(each.subject, each)
    columns = [each for each in found if first[each.subject] is each]
    if columns:
        usual = [name for name, _ in Counter(taken).most_common() if name in first]
        decisive = first[usual[0]] if usual else first.get(OWN) or columns[0]
        best_first = list(decisive.places)
        order = sorted(runs, key=lambda label: best_first.index(label) if label in best_first else len(runs))
        rows = tuple((Cell(label), *(each.cell(label) for each in columns)) for label in order)
        head = ("run", *(f"{each.subject}, {each.name} {arrow(each.name)}" for each in columns))
        caption = f"Runs in the order of {decisive.name} of {decisive.subject}; the best of each column is bold"
        note = "Places are given only where protocols agree; = is a tie, within the 95 % interval of the difference."
        if not all(each.firm for each in columns):
            note += " Where a score has no interval in brackets, its place is by value alone, and may be chance."
        note += _below_0(score for each in columns for score in each.scores.values())
        if any(each.subject == OWN for each in columns):
            note += " The own density is what a model's samples come from in its paper, without an ex-post fit."
        blocks.append(Table(caption, head, rows, note))
    blocks += beside
    if len(found) > len(columns):
        rows = tuple((Cell(f"{each.name} {arrow(each.name)}", each.subject), *map(each.cell, runs)) for each in found)
        blocks.append(Table("Runs by every score", ("score", *runs), rows, folded=True))
    for reason, what in refused.items():
        names = ", ".join(dict.fromkeys(what))
        text = f"Not ranked, because their protocols differ: {names}. {reason[:1].upper()}{reason[1:]}."
        blocks.append(Note(text))
    if not found and not refused and not unscored:
        blocks.append(Note("These runs have no score in common, so nothing can be ranked."))
    return Section("ranking", "Side by side", tuple(blocks))


def _compare(runs: Mapping[str, Mapping[tuple[str, str], Score]]) -> tuple[list[Comparison], dict[str, list[str]]]:
    """Return the comparisons, and what is refused, by reason."""
    found: list[Comparison] = []
    refused: dict[str, list[str]] = {}
    for name, subject in dict.fromkeys(place for scores in runs.values() for place in scores):
        having = {label: scores[name, subject] for label, scores in runs.items() if (name, subject) in scores}
        direction = direction_of(name)
        # the codes of two models lie in different spaces
        if len(having) < 2 or subject == CODES or direction.within_model or not direction.sign:
            continue
        alike, odd = comparable(having)
        for label, reason in odd.items():
            refused.setdefault(f"of {label}, {reason}", []).append(name)
        if len(alike) > 1:
            found.append(Comparison(name, subject, alike, {each.label: each for each in rank(alike)}))
    return found, refused


def _with_own(scores: Sequence[Score], own: str | None) -> dict[tuple[str, str], Score]:
    found = {}
    for score in scores:
        found[score.name, score.of] = score
        if score.of == own:
            found[score.name, OWN] = score
    return found
