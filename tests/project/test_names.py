"""Names stand in registries; wherever a help text or a page lists them, it lists all of them, and no others."""

import inspect
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, get_args

import docstring_parser
import pytest

from expost.cli.catalog import COMMANDS
from expost.cli.parsing import load
from expost.commands.groups import groups_of
from expost.data import DATASETS, FORMATS
from expost.data.named_strings import STRING_DATASETS
from expost.data.names import CodecName
from expost.data.notations import NOTATIONS
from expost.densities import DENSITIES
from expost.densities.covariances import COVARIANCES
from expost.densities.kde import BANDWIDTHS, KERNELS
from expost.evaluation.catalog import ALL_MEASURES, STRING_MEASURES
from expost.examples.domains import DOMAINS
from expost.experiments import sound, table1, table2
from expost.experiments.engines import ENGINES
from expost.experiments.published import COLUMNS
from expost.generators.interpolation import INTERPOLATIONS
from expost.grammar.codec import CODECS
from expost.grammar.grammars import GRAMMARS
from expost.metrics import FEATURES
from expost.metrics.measures import MEASURES
from expost.metrics.molecule_properties import PROPERTIES
from expost.models.latents import LATENTS
from expost.models.penalties import PENALTIES
from expost.models.presets import PRESETS
from expost.models.reconstructions import RECONSTRUCTIONS
from expost.models.regularizers import REGULARIZERS
from expost.models.zoo import ZOO
from expost.networks import NETWORKS
from expost.registry import Registry
from expost.search.objectives import OBJECTIVES

ROOT = Path(__file__).resolve().parents[2]

#: Which names the help of an option lists.
HELPS: dict[tuple[str, str], Collection[str]] = {
    ("train", "preset"): PRESETS,
    ("train", "network"): NETWORKS,
    ("train", "codec"): CODECS,
    ("train", "grammar"): GRAMMARS,
    ("fit", "density"): DENSITIES,
    ("fit", "by"): PROPERTIES,
    ("interpolate", "method"): INTERPOLATIONS,
    ("evaluate", "measures"): (*ALL_MEASURES, *STRING_MEASURES),
    ("evaluate", "features"): FEATURES,
    ("evaluate", "method"): INTERPOLATIONS,
    ("score", "measures"): MEASURES,
    ("score", "features"): FEATURES,
    ("optimize", "objective"): OBJECTIVES,
    ("reproduce", "domain"): table2.PUBLISHED,
    ("reproduce", "scale"): {**table1.SCALES, **table2.SCALES, **sound.SCALES},
    ("reproduce", "columns"): COLUMNS,
    ("reproduce", "features"): FEATURES,
    ("reproduce", "engine"): ENGINES,
}

#: Which names a page of the documentation lists.
PAGES: list[tuple[str, Collection[str]]] = [
    (
        "howto/data.md",
        [suffix.lstrip(".") for each in FORMATS for suffix in each.suffixes.split() if suffix.startswith(".")],
    ),
    ("howto/density.md", [*DENSITIES, *COVARIANCES, *BANDWIDTHS]),
    ("howto/grammar.md", GRAMMARS),
    ("howto/networks.md", NETWORKS),
    ("howto/scores.md", [*FEATURES, *MEASURES]),
    ("howto/strings.md", [*STRING_DATASETS, *OBJECTIVES]),
    ("math.md", [*LATENTS, *PENALTIES, *REGULARIZERS, *RECONSTRUCTIONS, *INTERPOLATIONS]),
    ("zoo.md", ZOO),
]

#: Whose names begin the rows of tables.
REGISTRIES: list[Registry[Any]] = [
    ZOO,
    NETWORKS,
    DENSITIES,
    KERNELS,
    FEATURES,
    MEASURES,
    DATASETS,
    STRING_DATASETS,
    LATENTS,
    REGULARIZERS,
]


def stands_in(name, text):
    return re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text) is not None


def helps(command):
    """Return what the help says of each option of a command."""
    function, _ = load(command)
    texts = [inspect.getdoc(function), *(inspect.getdoc(group.record) for group in groups_of(function).values())]
    return {each.arg_name: each.description for text in texts for each in docstring_parser.parse(text).params}


@pytest.mark.parametrize(("command", "option"), HELPS, ids=lambda word: word)
def test_a_help_text_names_every_entry(command, option):
    said = helps(command)[option]
    assert [name for name in HELPS[command, option] if name != "none" and not stands_in(name, said)] == []


@pytest.mark.parametrize(
    ("command", "option"), [("fit", "density"), ("score", "measures"), ("interpolate", "method")], ids=lambda word: word
)
def test_a_help_text_that_is_a_list_names_nothing_else(command, option):
    said = " ".join(helps(command)[option].split()).partition(";")[0].rstrip(".")
    assert re.split(r", | or ", said) == list(HELPS[command, option])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_a_command_has_a_help_text(command):
    function, _ = load(command)
    own = [each.name for each in inspect.signature(function).parameters.values() if each.kind is not each.VAR_KEYWORD]
    own += [name for group in groups_of(function).values() for name in group.names]
    assert set(own) <= helps(command).keys()


@pytest.mark.parametrize(("page", "names"), PAGES, ids=[page for page, _ in PAGES])
def test_a_page_names_every_entry(page, names):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert [name for name in names if name != "none" and not stands_in(name, text)] == []


def first_cells(text):
    """Yield the names in code that begin the rows of each table of a page."""
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        rows = [re.match(r"\| *`([^`]+)` *\|", line) for line in table.splitlines()[2:]]
        yield [row[1] for row in rows if row]


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda page: page.stem)
def test_a_table_of_names_has_no_others(page):
    for names in first_cells(page.read_text(encoding="utf-8")):
        for registry in REGISTRIES:
            known = set(names) & set(registry)
            if len(known) >= max(2, len(names) / 2):
                assert set(names) <= set(registry), f"{page.name}: a table of {registry.kind} names"


def test_literals_of_the_command_line_are_the_names_of_registries():
    assert set(get_args(CodecName)) == set(CODECS)
    assert set(NOTATIONS) == set(DOMAINS)
    assert set(table2.PUBLISHED) == set(get_args(table2.Domain)) <= set(DOMAINS)
    assert {notation.grammar for notation in NOTATIONS.values()} - {None} <= set(GRAMMARS)
    assert {domain.objective for domain in DOMAINS.values()} - {None} <= set(OBJECTIVES)
