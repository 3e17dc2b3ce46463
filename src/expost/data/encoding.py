"""Strings as examples: which codec suits them, and the rows of symbols that it makes of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from expost.data.alphabets import alphabet_of
from expost.data.names import CodecName
from expost.data.notations import NOTATIONS
from expost.data.strings import Strings
from expost.errors import DataError, UsageError
from expost.grammar.codec import CODECS, Codec, Encoded, GrammarCodec, Rejection, encode_cached
from expost.grammar.grammars import load_grammar
from expost.registry import Part, construct
from expost.types import Data, Split
from expost.utils.downloads import cache_folder

#: Most symbols a row where nothing is published of the strings.
DEFAULT_LENGTH = 300
#: How many training strings are tried with the published length, and the share that may be longer.
_SAMPLE, _LONGER = 500, 0.1
#: From this many strings on, what was parsed is kept.
_WORTH_KEEPING = 20_000


def suit_codec(
    strings: Strings,
    codec: CodecName = "grammar",
    grammar: str | Path | None = None,
    length: int | None = None,
    published: bool = False,
) -> Part:
    """Return the codec for a data set, with everything that it needs to be made again.

    Args:
        strings: The data; the alphabet of a character codec is that of all its parts.
        codec: "grammar" or "characters".
        grammar: Name or file of a grammar; None takes the domain's.
        length: Symbols a row, at least 1; None takes the published one of the domain's own grammars, if nine tenths of
            the strings fit, or else that of the longest string, at most 300 productions.
        published: Whether the domain's grammar is the published one, where there are two.

    Raises:
        UsageError: if there is no grammar for such strings, or one is given for characters.
    """
    if codec == "characters":
        if grammar is not None:
            raise UsageError(f"grammar {grammar} is of no use to a model of characters; leave it out")
        found = alphabet_of([*strings.train, *strings.validation, *strings.test], "characters")
        return Part(
            "characters", {"alphabet": list(found.symbols), "length": found.length if length is None else length}
        )
    notation = NOTATIONS[strings.domain]
    usual = notation.published if published and notation.published is not None else notation.grammar
    name = usual if grammar is None else grammar
    if name is None:
        raise UsageError(
            f"no grammar is known for the strings of '{strings.name}'; give --grammar FILE, or train character-vae"
        )
    text = load_grammar(name).text
    if length is None:
        own = name in (notation.grammar, notation.published)
        suits = own and notation.length is not None and _fits(strings, text, notation.length)
        length = notation.length if suits else _fitting(strings, text)
    return Part("grammar", {"grammar": text, "length": length})


def _fits(strings: Strings, grammar: str, length: int) -> bool:
    """Tell whether most of a sample of the training strings that parse take at most so many productions."""
    sample = strings.train[:: max(1, len(strings.train) // _SAMPLE)]
    encoded = GrammarCodec(grammar, length).encode(sample)
    longer = sum(fault.needed is not None for fault in encoded.rejected)
    return longer <= _LONGER * len(sample)


def _fitting(strings: Strings, grammar: str) -> int:
    """Return the productions of the longest derivation of the strings, at most `DEFAULT_LENGTH`."""
    coder = GrammarCodec(grammar, DEFAULT_LENGTH)
    rows = [_encoded(coder, part).indices for part in (strings.train, strings.validation, strings.test)]
    used = [int((part != coder.grammar.pad).sum(dim=1).max()) for part in rows if len(part)]
    return max(used, default=DEFAULT_LENGTH)


def _encoded(coder: Codec, strings: Sequence[str]) -> Encoded:
    """Encode strings; what takes long is kept for the next time."""
    if len(strings) >= _WORTH_KEEPING:
        return encode_cached(coder, strings, cache_folder() / "encoded")
    return coder.encode(strings)


def encode_strings(strings: Strings, codec: Part) -> Data:
    """Encode the three parts of a data set; what cannot be encoded is left out, counted, and shown in the note.

    Args:
        strings: The data.
        codec: Entry of `CODECS` with its options.

    Raises:
        DataError: if a part is left with nothing.
    """
    coder = construct(CODECS, codec)
    splits, rejected = [], {}
    for name in ("train", "validation", "test"):
        given = getattr(strings, name)
        encoded = _encoded(coder, given)
        if len(encoded.indices) == 0:
            reason = f"; the first: {encoded.rejected[0]}" if encoded.rejected else ""
            raise DataError(f"none of the {len(given)} {name} strings of '{strings.name}' can be encoded{reason}")
        if encoded.rejected:
            rejected[f"{len(encoded.rejected):,} of {len(given):,} {name}"] = encoded.rejected
        splits.append(Split(encoded.indices))
    kept = sum(len(split) for split in splits)
    note = "; ".join(filter(None, [strings.note, _left_out(rejected, kept)]))
    train, validation, test = splits
    return Data(strings.name, train, validation, test, note=note, codec=coder, domain=strings.domain)


def _left_out(rejected: Mapping[str, Sequence[Rejection]], kept: int) -> str:
    """Return how many strings of each part were left out, why, and what keeps those that are only too long."""
    faults = [fault for part in rejected.values() for fault in part]
    if not faults:
        return ""
    reasons = Counter(fault.reason for fault in faults)
    texts = []
    for reason, count in reasons.most_common():
        same = [fault for fault in faults if fault.reason == reason]
        text = f"{reason}: {count:,}, e.g. {same[0].example()}"
        needed = max((fault.needed or 0 for fault in same), default=0)
        texts.append(text + (f" (--length {needed} keeps them)" if all(fault.needed for fault in same) else ""))
    most = ", which is most of them" if len(faults) > kept else ""
    return f"left out {', '.join(rejected)} strings{most}: {'; '.join(texts)}"
