"""Masked decoding against a stack of Python lists per example, on the same logits in one process, alternately.

python benchmarks/decode.py [--examples 1000] [--length 277] [--grammar FILE] [--repeats 3] [--json]

The peer is a plain loop: for each example and step, NumPy's argmax over the logits with the forbidden productions
masked. Without --grammar both use the library's SMILES grammar. --json ends with a line {"ratios": {...}, ...}: how
many times ours is faster. For a decoder that reads its own output, the time beyond the network's own is printed too,
for codes whose derivations do not end early.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from expost.grammar.cfg import Grammar
from expost.grammar.codec import GrammarCodec
from expost.grammar.decode import finished, generate_indices, most_frequent
from expost.grammar.grammars import load_grammar
from expost.networks.autoregressive import AutoregressiveGRU


def loop(logits: np.ndarray, grammar: Grammar, temperature: float, rng: np.random.Generator) -> np.ndarray:
    """Decode one example after the other with a list for a stack."""
    left = np.array([*grammar.left, -1])
    masks = {symbol: np.where(left == symbol, 0.0, -np.inf) for symbol in set(grammar.left)}
    indices = np.full(logits.shape[:2], grammar.pad)
    for row, example in zip(indices, logits, strict=True):
        stack = [0]
        for step, scores in enumerate(example):
            if not stack:
                break
            masked = scores + masks[stack.pop()]
            if temperature:
                masked = masked / temperature + rng.gumbel(size=len(masked))
            row[step] = masked.argmax()
            stack.extend(reversed(grammar.children[row[step]]))
    return indices


class Timed(AutoregressiveGRU):
    """A decoder that counts the seconds of its own steps, and keeps every list going on."""

    seconds = 0.0

    def step(self, z: Tensor, state: Tensor, previous: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
        """Advance by one symbol."""
        start = time.perf_counter()
        logits, state = super().step(z, state, previous, groups)
        logits[:, 1] += 100.0  # chain -> unit chain
        self.seconds += time.perf_counter() - start
        return logits, state


def beyond_the_network(codec: GrammarCodec, examples: int, repeats: int) -> tuple[float, float]:
    """Return the seconds of decoding step by step, and the part that is not the network's; the shortest of repeats."""
    torch.manual_seed(0)
    decoder = Timed((codec.length, codec.size), 56, 64).eval()
    decoder.compete(codec.groups().tolist())
    times = []
    for _ in range(repeats):
        decoder.seconds, start = 0.0, time.perf_counter()
        rows = codec.generate(decoder.stepwise(torch.zeros(examples, 56)))
        whole = time.perf_counter() - start
        times.append((whole, whole - decoder.seconds))
        assert (rows != codec.size - 1).all()
    return min(times)


def alternately(functions: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the shortest of `repeats` times of each function, in seconds, taken in turns."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - start)
    return {name: min(found) for name, found in times.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="masked decoding against a Python loop")
    parser.add_argument("--examples", type=int, default=1000, help="codes (default 1000)")
    parser.add_argument("--length", type=int, default=277, help="steps of a derivation (default 277)")
    parser.add_argument("--grammar", type=Path, help="grammar file instead of the library's SMILES grammar")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each side; the best counts (default 3)")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    arguments = parser.parse_args()
    grammar = load_grammar(arguments.grammar or "smiles")
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(arguments.examples, arguments.length, grammar.size, generator=generator)
    array = logits.numpy()

    def ours(temperature: float, complete: bool = False) -> Tensor:
        rules = (grammar.left, grammar.children, 0, grammar.pad)
        return generate_indices(logits, *rules, temperature, torch.Generator().manual_seed(0), complete)

    def theirs(temperature: float) -> np.ndarray:
        return loop(array, grammar, temperature, np.random.default_rng(0))

    equal = bool((ours(0.0).long().numpy() == theirs(0.0)).all())
    if not equal:
        raise SystemExit("error: the two decoders disagree")
    functions: dict[str, Callable[[], object]] = {
        "greedy": lambda: ours(0.0),
        "greedy loop": lambda: theirs(0.0),
        "sampled": lambda: ours(1.0),
        "sampled loop": lambda: theirs(1.0),
        "complete": lambda: ours(0.0, complete=True),
    }
    codec = GrammarCodec(grammar.text, arguments.length)
    few = logits[:10]
    functions["best of 500, 10 codes"] = lambda: most_frequent(few, 500, codec, lambda string: True)
    seconds = alternately(functions, arguments.repeats)
    if arguments.grammar is None:
        whole, beyond = beyond_the_network(codec, arguments.examples, arguments.repeats)
        seconds |= {"step by step": whole, "beyond the network": beyond}
    rules = (grammar.left, grammar.children, 0, grammar.pad)
    ended = {
        "greedy": finished(ours(0.0), *rules).double().mean().item(),
        "complete": finished(ours(0.0, complete=True), *rules).double().mean().item(),
    }
    print(f"{arguments.examples} codes, {arguments.length} steps, {grammar.size} symbols; same greedy result: {equal}")
    print(f"{'':24}{'seconds':>10}{'finished':>10}")
    for name, value in seconds.items():
        share = f"{ended[name]:10.3f}" if name in ended else ""
        print(f"{name:24}{value:10.3f}{share}")
    ratios = {f"decode_{name}": seconds[f"{name} loop"] / seconds[name] for name in ("greedy", "sampled")}
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.1f} times faster than the loop")
    if arguments.json:
        print(json.dumps({"ratios": ratios, "seconds": seconds, "finished": ended}))


if __name__ == "__main__":
    main()
