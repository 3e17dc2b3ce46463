"""Parse strings into derivations, against NLTK's chart parser, on the same molecules in one process.

    python benchmarks/parse.py [--data FOLDER] [--molecules N] [--rounds R] [--full] [--json]

FOLDER holds `zinc250k/` and `grammars/zinc_smiles.cfg`. Both parsers get the original ZINC grammar and one core. They
run in turns, so that other load on the machine slows both; the median of R rounds counts.
"""

from __future__ import annotations

import gzip
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nltk
import tyro

from expost.grammar.cfg import Grammar
from expost.grammar.codec import GrammarCodec
from expost.grammar.grammars import load_grammar
from expost.grammar.parser import Parser
from expost.utils.process import cores


@dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
        data: Folder of the data.
        molecules: Molecules, evenly spaced in the set.
        repeats: How often ours parses them in a round; NLTK once.
        rounds: Rounds, of which the median counts.
        full: Also encode and decode the whole of ZINC with the library's SMILES grammar, on all cores.
        json: Print the ratios as JSON on the last line.
    """

    data: Path = Path(__file__).resolve().parents[2] / "shared" / "data"
    molecules: int = 30
    repeats: int = 200
    rounds: int = 5
    full: bool = False
    json: bool = False


def cpu_seconds(call: Callable[[], object]) -> float:
    """Return how long a call keeps a core busy, which other programs disturb less than the time that passes."""
    begin = time.process_time()
    call()
    return time.process_time() - begin


def nltk_parser(grammar: Grammar) -> nltk.ChartParser:
    """Return NLTK's parser for the grammar, its terminals split into characters, which are NLTK's tokens."""
    productions = []
    for production in grammar.productions:
        right: list[object] = []
        for symbol in production.right:
            right += list(symbol.name) if symbol.terminal else [nltk.Nonterminal(symbol.name)]
        productions.append(nltk.Production(nltk.Nonterminal(production.left), right))
    return nltk.ChartParser(nltk.CFG(nltk.Nonterminal(grammar.start), productions))


def versus_nltk(options: Options, strings: list[str], grammar: Grammar) -> float:
    """Print molecules a second of both; return their ratio."""
    ours, peer = Parser(grammar), nltk_parser(grammar)
    some = strings[:: max(len(strings) // options.molecules, 1)][: options.molecules]
    numbers = {production: number for number, production in enumerate(peer.grammar().productions())}
    for text in some:  # also compiles ours, or reads it from numba's cache, before the clock starts
        tree = next(peer.parse(list(text)))
        if ours.parse(text) != tuple(numbers[production] for production in tree.productions()):
            sys.exit(f"the parsers disagree on {text}")
    again = some * options.repeats
    rates: list[tuple[float, float]] = []
    for _ in range(options.rounds):
        theirs = len(some) / cpu_seconds(lambda: [next(peer.parse(list(text))) for text in some])
        rates.append((len(again) / cpu_seconds(lambda: ours.parse_many(again, 277, workers=1)), theirs))
    ratio = statistics.median(a / b for a, b in rates)
    print(f"{'parser':<28}{'molecules per CPU second':>24}")
    print(f"{'expost Parser':<28}{statistics.median(a for a, _ in rates):>24,.0f}")
    print(f"{f'NLTK {nltk.__version__} ChartParser':<28}{statistics.median(b for _, b in rates):>24,.0f}")
    print(f"{'ratio (median of rounds)':<28}{ratio:>24,.0f}\n")
    return ratio


def whole_set(strings: list[str]) -> None:
    """Print what encoding and decoding all strings takes, in seconds and bytes, and that they come back."""
    codec = GrammarCodec(load_grammar("smiles").text, 277)
    codec.encode(strings[:1])
    begin = time.perf_counter()
    encoded = codec.encode(strings)
    encoding = time.perf_counter() - begin
    begin = time.perf_counter()
    decoded = codec.decode(encoded.indices)
    decoding = time.perf_counter() - begin
    print(f"smiles grammar: {codec.grammar.describe()}")
    print(encoded.summary())
    print(f"encoded in {encoding:.1f} s on {cores()} cores, decoded in {decoding:.1f} s on one")
    print(f"packed in {encoded.indices.nbytes:,} bytes; {'all' if decoded == strings else 'NOT all'} strings came back")
    print(f"longest derivation: {int((encoded.indices != codec.grammar.pad).sum(1).max())} productions\n")


def start_up() -> None:
    """Print what the first parse of a process costs with the machine code in numba's cache, and importing the codec."""
    code = (
        "import time; a = time.perf_counter(); import torch; b = time.perf_counter()\n"
        "from expost.grammar.codec import GrammarCodec; from expost.grammar.grammars import EXPRESSIONS\n"
        "c = time.perf_counter(); GrammarCodec(EXPRESSIONS, 9).encode(['x']); d = time.perf_counter()\n"
        "print(f'{c - b:.2f} s to import the codec after torch, {d - c:.2f} s to the end of the first parse')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    print(f"a new process, machine code cached: {done.stdout.strip()}\n")


def main(options: Options) -> None:
    """Measure and print."""
    path = options.data / "zinc250k" / "250k_rndm_zinc_drugs_clean.smi.gz"
    if not path.is_file():
        sys.exit(f"no {path}; give the folder of the data with --data")
    with gzip.open(path, "rt") as file:
        strings = file.read().split()
    grammar = load_grammar(options.data / "grammars" / "zinc_smiles.cfg")
    ratio = versus_nltk(options, strings, grammar)
    start_up()
    if options.full:
        whole_set(strings)
    if options.json:
        print(json.dumps({"ratios": {"parse-vs-nltk": round(ratio, 1)}}))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
