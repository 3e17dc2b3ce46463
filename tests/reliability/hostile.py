"""Damage valid files in many ways, read them, and note what is neither read nor refused in one line.

python hostile.py FOLDER SEED COUNT [READER ...]    prints what happened as JSON

A process of its own: its memory is limited, and a hook sees every file that is opened to be written, every
name that an unpickler looks up, every program that is started and every connection. Damage is drawn from (seed, reader,
number) alone, so that an input that escapes can be made again.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import re
import resource
import signal
import struct
import sys
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: Bytes by which one input may raise the most memory that the process ever had.
MEMORY = 2**29
#: Seconds of the processor for an input (a small one may unpack to 64 MiB), and for each MB of it.
SECONDS = 3.0
_MB = 2**20

Damage = Callable[[random.Random, bytes], bytes]


class Hang(BaseException):
    """An input took longer than it may."""


# --------------------------------------------------------------------------------------------------------------- damage

_EXTREMES = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1]
_WORDS = [
    b"-1", b"0", b"1e400", b"-1e-320", b"NaN", b"Infinity", b"9" * 30, b"9" * 5000, b"null", b"true", b'""', b"\0",
    b"{}", b"[]", b"[" * 3000, b'{"a":' * 1500, b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\n\n", b'"', b"'", b",",
    b"../../escaped", b"/escaped", b"%s%n", b"\x1b[2J", b"<script>", b"\xf0\x9f\x92\xa9", b"\xed\xa0\x80",
    b"cos\nsystem\n(S'true'\ntR.",
]  # fmt: skip
_NUMBER = re.compile(rb"-?\d+(\.\d+)?")


def _flip(source: random.Random, data: bytes) -> bytes:
    damaged = bytearray(data)
    for _ in range(source.choice((1, 1, 1, 2, 4, 16))):
        damaged[source.randrange(len(damaged))] ^= 1 << source.randrange(8)
    return bytes(damaged)


def _overwrite(source: random.Random, data: bytes) -> bytes:
    """Set what may be a length to an extreme one."""
    damaged = bytearray(data)
    width, order = source.choice((1, 2, 4, 8)), source.choice(("little", "big"))
    value = source.choice(_EXTREMES) if source.random() < 0.8 else source.getrandbits(64)
    place = source.randrange(min(len(data), source.choice((64, 512, len(data)))))
    damaged[place : place + width] = (value % 2 ** (8 * width)).to_bytes(width, order)  # type: ignore[arg-type]
    return bytes(damaged)


def _cut(source: random.Random, data: bytes) -> bytes:
    return data[: source.randrange(len(data) + 1)]


def _remove(source: random.Random, data: bytes) -> bytes:
    begin = source.randrange(len(data))
    return data[:begin] + data[begin + source.choice((1, 2, 4, 16, 100, 1000)) :]


def _repeat(source: random.Random, data: bytes) -> bytes:
    begin = source.randrange(len(data))
    piece = data[begin : begin + source.choice((1, 4, 16, 100, 1000))]
    return data[:begin] + piece * source.choice((2, 3, 10, 100)) + data[begin:]


def _insert(source: random.Random, data: bytes) -> bytes:
    begin = source.randrange(len(data) + 1)
    word = source.choice(_WORDS) if source.random() < 0.7 else source.randbytes(source.choice((1, 4, 64)))
    return data[:begin] + word + data[begin:]


def _splice(source: random.Random, data: bytes) -> bytes:
    a, b = source.randrange(len(data) + 1), source.randrange(len(data) + 1)
    return data[:a] + data[b:]


def _renumber(source: random.Random, data: bytes) -> bytes:
    """Replace a number that is written out."""
    found = list(_NUMBER.finditer(data[:20_000]))
    if not found:
        return _overwrite(source, data)
    match = source.choice(found)
    return data[: match.start()] + source.choice(_WORDS[:12]) + data[match.end() :]


_PLAIN: tuple[Damage, ...] = (_flip, _overwrite, _overwrite, _cut, _remove, _repeat, _insert, _splice, _renumber)


def damaged(source: random.Random, data: bytes) -> bytes:
    """Damage bytes in one to three ways."""
    for _ in range(source.choice((1, 1, 1, 2, 3))):
        data = source.choice(_PLAIN)(source, data) if data else source.randbytes(16)
    return data


def in_gzip(source: random.Random, data: bytes) -> bytes:
    """Damage what is packed as often as the packing."""
    if source.random() < 0.3:
        return damaged(source, data)
    return gzip.compress(damaged(source, gzip.decompress(data)), 1)


def in_zip(source: random.Random, data: bytes) -> bytes:
    """Damage an entry, its name, or the packing."""
    kind = source.random()
    if kind < 0.3:
        return damaged(source, data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    changed = source.choice(list(entries))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of two entries of one name
        for name, content in entries.items():
            if name == changed and kind < 0.8:
                content = damaged(source, content)
            elif name == changed:
                name = source.choice(
                    (
                        "../escaped.png",
                        "/escaped.npy",
                        "a/../../x.png",
                        ".",
                        "x" * 5000,
                        "C:\\x.png",
                        name + "\n",
                        "x.npy",
                    )
                )
            how = source.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
            archive.writestr(name, content, how)
            if source.random() < 0.02:
                archive.writestr(name, content)
    return packed.getvalue()


def in_png(source: random.Random, data: bytes) -> bytes:
    """Damage chunks and mend their checksums."""
    if source.random() < 0.3:
        return damaged(source, data)
    chunks, at = [], 8
    while at + 8 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    index = source.randrange(len(chunks))
    kind, content = chunks[index]
    if source.random() < 0.2:
        chunks.insert(
            index,
            (source.choice((b"tEXt", b"iTXt", b"zTXt", b"iCCP", b"PLTE", b"tRNS", b"acTL", b"eXIf", kind)), content),
        )
    elif content:
        chunks[index] = (
            kind,
            zlib.compress(damaged(source, zlib.decompress(content)))
            if kind == b"IDAT" and source.random() < 0.5
            else damaged(source, content),
        )
    return data[:8] + b"".join(
        struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks
    )


_VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2, 7, 10**9, 2**31, 2**63, 10**40, 10**400, 0.5, -0.5, 1e308, 1e-310, float("nan"),
    float("inf"), "", "x", "x" * 3000, "../../escaped", "\x1b[2J\n", "\ud800", [], {}, [[]], [0] * 2000,
    {"name": "x"}, {"x": {}}, [None], "1", "gaussian", "nan",
]  # fmt: skip


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every place in a JSON value: what holds it, and the key."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from _places(value[key])


def tree(source: random.Random, value: Any) -> Any:
    """Damage a JSON value: other values, fields that are missing or new, nesting."""
    for _ in range(source.choice((1, 1, 1, 2, 4))):
        places = list(_places(value))
        if not places:
            return source.choice(_VALUES)
        holder, key = source.choice(places)
        how = source.random()
        if how < 0.15:
            del holder[key]
        elif how < 0.22:
            other, name = source.choice(places)
            holder[key] = json.loads(json.dumps(other.get(name) if isinstance(other, dict) else None))
        elif how < 0.27:
            for _ in range(source.choice((3, 100, 900))):
                holder[key] = [holder[key]] if source.random() < 0.5 else {"name": holder[key], "options": {}}
        elif how < 0.32 and isinstance(holder, dict):
            holder[source.choice(("", "format", "x", "options", "name", "../x"))] = source.choice(_VALUES)
        elif how < 0.5 and isinstance(holder[key], int | float):
            holder[key] = holder[key] * source.choice((-1, 0, 2, 1000, 10**12)) + source.choice((0, 1, -1))
        else:
            holder[key] = json.loads(json.dumps(source.choice(_VALUES)))
    return value


def in_json(source: random.Random, data: bytes) -> bytes:
    if source.random() < 0.25:
        return damaged(source, data)
    try:
        return json.dumps(tree(source, json.loads(data))).encode()
    except (RecursionError, ValueError):
        return damaged(source, data)


def in_lines(source: random.Random, data: bytes) -> bytes:
    """Damage one line of JSON among several."""
    lines = data.splitlines()
    index = source.randrange(len(lines))
    lines[index] = in_json(source, lines[index])
    return b"\n".join(lines) + b"\n" * (source.random() < 0.9)


def in_safetensors(source: random.Random, data: bytes) -> bytes:
    """Damage the header, the record or the tensors, and mend lengths and our checksum, or the bytes as they are."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load, save

    from expost.utils.store import _checksum

    kind = source.random()
    if kind < 0.25:
        return damaged(source, data)
    length = int.from_bytes(data[:8], "little")
    head, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    if kind < 0.45:
        try:
            text = json.dumps(tree(source, head)).encode()
        except (RecursionError, ValueError):
            return damaged(source, data)
        return len(text).to_bytes(8, "little") + text + body
    tensors, record = load(data), head.get("__metadata__", {}).get("expost", " {}")[65:] or "{}"
    if kind < 0.75 or not tensors:
        record = in_json(source, record.encode()).decode(errors="replace")
    else:
        name = source.choice(list(tensors))
        old = tensors[name]
        how = source.randrange(8)
        if how == 0:
            del tensors[name]
        elif how == 1:
            tensors[name] = old.reshape(-1)[: source.randrange(old.numel() + 1)]
        elif how == 2:
            tensors[name] = old.to(
                source.choice((torch.int64, torch.bool, torch.float16, torch.complex64, torch.uint8))
            )
        elif how == 3:
            tensors[name] = torch.full_like(old, source.choice((0, 1, 3)))
        elif how == 4 and old.is_floating_point():
            tensors[name] = torch.full_like(old, source.choice((float("nan"), float("inf"), -1.0, 1e30, 1e-30)))
        elif how == 5:
            tensors[
                source.choice(
                    ("", "x", "model.x", "optimizer.", "optimizer.999.step", "optimizer.x.y", "base.mean", "0.mean")
                )
            ] = old.clone()
        elif how == 6:
            tensors[name] = old[None].clone()
        else:
            tensors[source.choice((name + ".x", name[1:] or "y"))] = tensors.pop(name)
    try:
        return save(tensors, {"expost": f"{_checksum(tensors, record)} {record}"})
    except (SafetensorError, ValueError, UnicodeError):
        return damaged(source, data)


# -------------------------------------------------------------------------------------------------------------- readers


@dataclass(frozen=True)
class Reader:
    """Something that reads files which strangers make.

    Attributes:
        read: Reads the file, or the file within the folder that it belongs to.
        seeds: Contents by the file's name; all are read without an error.
        damage: How contents are damaged.
        share: Of all inputs, roughly; by how long one takes.
        beside: Files that have to lie beside it.
    """

    read: Callable[[Path], object]
    seeds: Mapping[str, bytes]
    damage: Damage = damaged
    share: float = 1.0
    beside: Mapping[str, bytes] = field(default_factory=dict)


def _arrays(folder: Path) -> dict[str, Reader]:
    import numpy as np

    from expost.data.load import load_examples, load_path

    def npy(array: Any) -> bytes:
        file = io.BytesIO()
        np.lib.format.write_array(file, array)
        return file.getvalue()

    def npz(compressed: bool, **arrays: Any) -> bytes:
        file = io.BytesIO()
        (np.savez_compressed if compressed else np.savez)(file, **arrays)
        return file.getvalue()

    source = np.random.default_rng(0)
    images, rows = source.integers(0, 256, (12, 6, 6), np.uint8), source.normal(size=(12, 3))
    plain = {
        "x.npy": npy(images),
        "rows.npy": npy(rows.astype(np.float32)),
        "f.npy": npy(np.asfortranarray(rows)),
        "channels.npy": npy(source.integers(0, 256, (12, 3, 6, 6), np.uint8)),
        "big.npy": npy(rows.astype(">f8")),
    }
    packed = {
        "x.npz": npz(False, x_train=images, y_train=np.arange(12) % 3, x_test=images[:6], y_test=np.arange(6) % 3),
        "rows.npz": npz(True, data=rows, labels=np.array(list("abcabcabcabc"))),
    }

    def head(*axes: int) -> bytes:
        return bytes([0, 0, 8, len(axes)]) + struct.pack(f">{len(axes)}I", *axes)

    idx = {
        "train-images-idx3-ubyte": head(12, 6, 6) + images.tobytes(),
        "train-images.idx3-ubyte": head(1, 4, 4) + bytes(16),
    }
    zipped = {name + ".gz": gzip.compress(content, 1, mtime=0) for name, content in idx.items()}

    def mapped(path: Path) -> None:
        os.environ["EXPOST_MEMORY"] = "0"
        try:
            load_examples(path)
        finally:
            del os.environ["EXPOST_MEMORY"]

    return {
        "npy": Reader(load_examples, plain, share=3),
        "npy, as a data set": Reader(load_path, plain),
        "npy, mapped": Reader(mapped, plain),
        "npz": Reader(load_examples, packed, in_zip, share=2),
        "npz, mapped": Reader(mapped, packed, in_zip),
        "IDX": Reader(load_examples, idx, share=3),
        "IDX, gzip": Reader(load_examples, zipped, in_gzip, share=2),
        "IDX, mapped": Reader(mapped, zipped | idx, in_gzip_or_plain),
        **_recordings(),
    }


def _recordings() -> dict[str, Reader]:
    """WAV and FLAC, where soundfile is installed."""
    from importlib.util import find_spec

    if find_spec("soundfile") is None:
        return {}
    import numpy as np
    import soundfile

    from expost.data.load import load_examples

    values = np.random.default_rng(0).normal(size=(500, 2)) * 0.1

    def saved(rate: int, kind: str, subtype: str) -> bytes:
        file = io.BytesIO()
        soundfile.write(file, values, rate, format=kind, subtype=subtype)
        return file.getvalue()

    contents = {
        "a.wav": saved(8000, "WAV", "PCM_16"),
        "b.wav": saved(44100, "WAV", "FLOAT"),
        "c.flac": saved(16000, "FLAC", "PCM_24"),
    }
    return {"sound": Reader(load_examples, contents)}


def in_gzip_or_plain(source: random.Random, data: bytes) -> bytes:
    return (in_gzip if data[:2] == b"\x1f\x8b" else damaged)(source, data)


def _images(folder: Path) -> dict[str, Reader]:
    import numpy as np
    from PIL import Image, features

    from expost.data.load import load_examples

    source = np.random.default_rng(0)
    color = Image.fromarray(source.integers(0, 256, (9, 7, 3), np.uint8))
    deep = Image.fromarray(source.integers(0, 65536, (9, 7), np.uint16))

    def saved(image: Any, kind: str, **options: Any) -> bytes:
        file = io.BytesIO()
        image.save(file, kind, **options)
        return file.getvalue()

    exif = Image.Exif()
    exif[0x0112] = 6
    png = {
        "a.png": saved(color, "PNG"),
        "b.png": saved(color.convert("P"), "PNG", transparency=0),
        "c.png": saved(deep, "PNG"),
        "d.png": saved(color.convert("RGBA"), "PNG"),
    }
    others = {
        "a.jpg": saved(color, "JPEG", exif=exif.tobytes()),
        "b.jpg": saved(color.convert("L"), "JPEG", progressive=True),
        "c.jpg": saved(color.convert("CMYK"), "JPEG"),
        "a.bmp": saved(color, "BMP"),
        "b.bmp": saved(color.convert("P"), "BMP"),
        "a.gif": saved(color, "GIF", save_all=True, append_images=[color.rotate(90), color]),
        "a.ppm": saved(color, "PPM"),
        "b.pgm": b"P2\n# x\n3 3\n255\n0 1 2 3 4 5 6 7 8\n",
    }
    tiff = {
        "a.tif": saved(color, "TIFF"),
        "b.tif": saved(color, "TIFF", compression="tiff_lzw", save_all=True, append_images=[color, color]),
        "c.tif": saved(deep, "TIFF"),
        "d.tif": saved(Image.fromarray(source.random((5, 5), np.float32)), "TIFF", compression="tiff_deflate"),
    }
    modern = {
        f"a.{kind.lower()}": saved(color, name)
        for kind, name in (("WEBP", "WEBP"), ("AVIF", "AVIF"), ("JP2", "JPEG2000"))
        if features.check({"WEBP": "webp", "AVIF": "avif", "JP2": "jpg_2000"}[kind])
    }

    def archive(**files: bytes) -> bytes:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as made:
            for name, content in files.items():
                made.writestr(name, content)
        return packed.getvalue()

    small = saved(color, "PNG")
    archives = {
        "a.zip": archive(**{"train/a/1.png": small, "train/b/2.png": small, "test/a/3.png": small, "about.txt": b"x"})
    }
    return {
        "PNG": Reader(load_examples, png, in_png, share=2),
        "JPEG, BMP, GIF, PNM": Reader(load_examples, others, share=2),
        "TIFF": Reader(load_examples, tiff),
        "WebP, AVIF, JPEG 2000": Reader(load_examples, modern, share=0.5),
        "zip of images": Reader(load_examples, archives, in_zip, share=0.5),
    }


def _tables(folder: Path) -> dict[str, Reader]:
    import h5py
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from expost.data.load import load_examples, load_path
    from expost.data.string_files import holds_strings, read_string_path

    rows = "".join(f"{i / 7:.3f},{i * i},{'ab'[i % 2]}\n" for i in range(12))
    texts = {
        "a.csv": f"u,v,label\n{rows}".encode(),
        "b.tsv": ("# about\nu\tv\n" + rows.replace(",", "\t")[: -1 * 2] + "\n")
        .replace("\ta", "")
        .replace("\tb", "")
        .encode(),
        "c.csv": "u;v\n1,5;2\n2,5;3\n3,5;4\n".encode("utf-16"),
        "d.txt": b"1 2 3\n4 5 6\n7 8 9.5\n",
        "e.csv": b"150,2,x,y\n" + b"".join(b"%d,%d,%d\n" % (i, 2 * i + 1, i % 2) for i in range(150)),
        "f.data": b'"a","b"\n"r1",1.5,2\n"r2",2.5,1\n"r3",?,3\n"r4",1,1\n'.replace(b"?", b"4"),
    }
    gzipped = {"a.csv.gz": gzip.compress(texts["a.csv"], 1, mtime=0)}
    strings = {
        "a.smi": b"CCO ethanol\nc1ccccc1 benzene\nCC(=O)O acid\nN#N nitrogen\n",
        "b.txt": b"x+1\nsin(x)\nx*x\n1/x\n",
        "c.csv": b"name,SMILES,split\na,CCO,train\nb,c1ccccc1,train\nc,CC(=O)O,test\n",
        "d.smi.gz": gzip.compress(b"CCO\nCCN\nC1CC1\n", 1, mtime=0),
    }

    def parquet(table: Any, **options: Any) -> bytes:
        file = io.BytesIO()
        pq.write_table(table, file, **options)
        return file.getvalue()

    def arrow(table: Any, stream: bool) -> bytes:
        file = io.BytesIO()
        with (pa.ipc.new_stream if stream else pa.ipc.new_file)(file, table.schema) as writer:
            writer.write_table(table)
        return file.getvalue()

    numbers = pa.table({"u": [i / 7 for i in range(12)], "v": list(range(0, 24, 2)), "label": list("abcabcabcabc")})
    lists = pa.table({"x": [[1.0, 2.0 + i] for i in range(6)], "t": [f"{i}.5" for i in range(6)], "label": [0, 1] * 3})
    png = _images(folder)["PNG"].seeds["a.png"]
    pictures = pa.table({"image": [{"bytes": png, "path": "a.png"}] * 4, "label": [0, 1, 0, 1]})
    parquets = {
        "a.parquet": parquet(numbers, compression="none"),
        "b.parquet": parquet(lists),
        "c.parquet": parquet(pictures, compression="gzip", row_group_size=2),
    }
    arrows = {"a.arrow": arrow(numbers, True), "b.arrow": arrow(lists, False), "c.arrow": arrow(pictures, True)}

    def hdf5(fill: Callable[[Any], None]) -> bytes:
        file = io.BytesIO()
        with h5py.File(file, "w") as made:
            fill(made)
        return file.getvalue()

    def named(file: Any) -> None:
        file["x_train"] = np.arange(96, dtype=np.uint8).reshape(6, 4, 4)
        file.create_dataset(
            "x_test", data=np.arange(96, dtype=np.uint8).reshape(6, 4, 4), chunks=(2, 4, 4), compression="gzip"
        )

    def cells(file: Any) -> None:
        group = file.create_group("X")
        group.attrs["encoding-type"], group.attrs["shape"] = "csr_matrix", (4, 3)
        group["indptr"], group["indices"], group["data"] = [0, 1, 2, 3, 4], [0, 1, 2, 0], [1.0, 2.0, 3.0, 4.0]
        for name, index in (("obs", "abcd"), ("var", "xyz")):
            table = file.create_group(name)
            table.attrs["_index"] = "_index"
            table["_index"] = list(index)
        file["obs/cell_type"] = ["a", "b", "a", "b"]

    def strings_read(path: Path) -> None:
        if holds_strings(path):
            read_string_path(path)
        else:
            load_examples(path)

    return {
        "CSV": Reader(load_examples, texts, share=2),
        "CSV, as a data set": Reader(load_path, {"a.csv": texts["a.csv"]}, share=0.5),
        "CSV, gzip": Reader(load_examples, gzipped, in_gzip),
        "parquet": Reader(load_examples, parquets, share=0.5),
        "Arrow": Reader(load_examples, arrows, share=0.5),
        "HDF5": Reader(load_examples, {"a.h5": hdf5(named), "b.h5ad": hdf5(cells)}, share=0.02),
        "strings": Reader(read_string_path, strings, in_gzip_or_plain, share=2),
        "strings or numbers": Reader(strings_read, texts | strings, in_gzip_or_plain),
    }


def _models(folder: Path) -> dict[str, Reader]:
    import torch

    import expost
    from expost.commands.scoring import saved_scores
    from expost.densities import ConditionalDensity, load_density, make_density
    from expost.generators.foreign import load_decoder, save_decoder
    from expost.networks.features import FeatureDecoder
    from expost.report.scoring import read_scores
    from expost.report.training import History
    from expost.run import Run
    from expost.search.records import JSON, TENSORS, read_search
    from expost.sharing.layout import open_untrusted
    from expost.sharing.loading import load
    from expost.training.checkpoint import load_checkpoint
    from expost.training.history import records
    from expost.utils.store import write_tensors

    tiny: Any = {"epochs": 2, "limit": 60, "width": 4, "latent_dim": 2, "tensorboard": False, "device": "cpu"}
    run = expost.train("rae-l2", "digits", folder / "run", network="mlp", **tiny)
    expost.fit(run, "gaussian")
    expost.fit(run, "reduced", options={"base": "gaussian", "rank": 1})
    expost.evaluate(run, ("gaussian",), ("frechet",), features="pixels", allow_few=True)
    files = {str(path.relative_to(run.folder)): path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    kept = {name: content for name, content in files.items() if not name.endswith((".lock", "previous.safetensors"))}

    def without(*names: str) -> dict[str, bytes]:
        return {name: content for name, content in kept.items() if name not in names}

    z = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    fits = {}
    for name, options in (
        ("standard-normal", {}), ("gaussian", {}), ("gmm", {"components": 2}), ("bayesian-gmm", {"components": 2}),
        ("kde", {}), ("second-stage-vae", {"epochs": 1}), ("reduced", {"base": "gaussian", "rank": 1}),
    ):  # fmt: skip
        file = make_density(name, **options).fit(z).save(folder / f"{name}.safetensors")
        fits[file.name] = file.read_bytes()
    maps = make_density("flow-matching", width=2, steps=1, ode_steps=1).fit(z.reshape(30, 1, 2, 2))
    fits["maps.safetensors"] = maps.save(folder / "maps.safetensors").read_bytes()
    labelled = ConditionalDensity(base="gaussian").fit(z, torch.arange(60) % 2).save(folder / "conditional.safetensors")
    fits[labelled.name] = labelled.read_bytes()

    decoder = save_decoder(FeatureDecoder((2,), (1, 4, 4), width=2), folder / "decoder.safetensors")
    model = run.fresh_model()

    def checkpoint(path: Path) -> None:
        load_checkpoint(path, model, torch.optim.Adam(model.parameters()))

    codes, scores = torch.randn(4, 2), torch.arange(4.0, dtype=torch.float64)
    write_tensors(folder / TENSORS, {"codes": codes, "scores": scores})
    rounds = [
        {
            "strings": ["x", "1"],
            "scores": [float(2 * i), float(2 * i + 1)],
            "outcomes": ["valid", "invalid"],
            "message": None,
            "seconds": {"fit": 1.0},
        }
        for i in range(2)
    ]
    search = {
        "format": 1,
        "asked": {"batch": 2, "rounds": 2, "objective": "expression", "region": "box", "minimize": True},
        "summary": {"training": {"worst": 3.0, "best": 0.5}},
        "known": ["x"],
        "rounds": rounds,
    }
    record, tensors = json.dumps(search).encode(), (folder / TENSORS).read_bytes()

    def sampled(path: Path) -> None:
        density = load_density(path)
        density.sample(2)

    def found(path: Path) -> None:
        result = read_search(path.parent)
        result.summary()

    def opened(path: Path) -> None:
        Run.open(path.parent).model("cpu")

    def untrusted(path: Path) -> None:
        load(open_untrusted(path.parent), "cpu")

    def inside(path: Path) -> None:
        load(open_untrusted(path.parents[1]), "cpu")

    def history(path: Path) -> None:
        read = Run(path.parent, run.config)
        read.precision(), read.finished_epochs(), read.unfinished()
        History.read(path)

    def trained_on(path: Path) -> None:
        with records(path.parent, False, 1):
            pass

    def cards(path: Path) -> None:
        saved_scores(path), read_scores(path.parent)

    config, weights = "config.json", "model.safetensors"
    fitted = "densities/gaussian.safetensors"
    return {
        "configuration": Reader(opened, {config: kept[config]}, in_json, 0.2, without(config)),
        "configuration of the Hub": Reader(untrusted, {config: kept[config]}, in_json, 0.2, without(config)),
        "weights": Reader(opened, {weights: kept[weights]}, in_safetensors, 0.1, without(weights)),
        "weights of the Hub": Reader(untrusted, {weights: kept[weights]}, in_safetensors, 0.1, without(weights)),
        "density of the Hub": Reader(inside, {fitted: kept[fitted]}, in_safetensors, 0.05, without(fitted)),
        "what densities are of": Reader(
            inside,
            {"densities/fitted_on.json": kept["densities/fitted_on.json"]},
            in_json,
            0.05,
            without("densities/fitted_on.json"),
        ),
        "density": Reader(sampled, fits, in_safetensors, 0.7),
        "decoder": Reader(load_decoder, {decoder.name: decoder.read_bytes()}, in_safetensors, 0.3),
        "checkpoint": Reader(
            checkpoint, {"checkpoint.safetensors": kept["checkpoint.safetensors"]}, in_safetensors, 0.5
        ),
        "search": Reader(found, {JSON: record}, in_json, 1, {TENSORS: tensors}),
        "tensors of a search": Reader(found, {TENSORS: tensors}, in_safetensors, 1, {JSON: record}),
        "metrics.jsonl": Reader(
            history, {"metrics.jsonl": kept["metrics.jsonl"]}, in_lines, 2, {weights: kept[weights]}
        ),
        "metrics.jsonl, to go on": Reader(trained_on, {"metrics.jsonl": kept["metrics.jsonl"]}, in_lines, 1),
        "cards": Reader(cards, {"metrics.json": kept["metrics.json"]}, in_json, 1),
    }


GROUPS: tuple[Callable[[Path], dict[str, Reader]], ...] = (_arrays, _images, _tables, _models)

# --------------------------------------------------------------------------------------------------------------- attack


@contextmanager
def _watched(allowed: Path, seen: list[str]) -> Iterator[None]:
    """Note what is opened to be written outside a folder, unpickled, started or connected to."""
    global _HOOK
    _HOOK = (str(allowed), seen)
    if not _HOOKED:
        sys.addaudithook(_audit)
        _HOOKED.append(True)
    try:
        yield
    finally:
        _HOOK = None


_HOOK: tuple[str, list[str]] | None = None
_HOOKED: list[bool] = []
_MOVES = (
    "os.rename",
    "os.link",
    "os.symlink",
    "os.mkdir",
    "os.remove",
    "os.rmdir",
    "os.truncate",
    "os.chmod",
    "shutil.move",
    "shutil.rmtree",
)
#: The one program that reading starts.
_REHEARSAL = "hdf5_rehearsal.py"
_STARTS = ("pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect")


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if _HOOK is None:
        return
    allowed, seen = _HOOK
    if event == "open":
        path, _, flags = args
        if (
            not isinstance(path, int)
            and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            and not _inside(path, allowed)
        ):
            seen.append(f"wrote {path!r}")
    elif event in _MOVES:
        if not all(_inside(each, allowed) for each in args if isinstance(each, str | bytes | os.PathLike)):
            seen.append(f"{event} {args!r}")
    elif event == "subprocess.Popen" and any(str(word).endswith(_REHEARSAL) for word in args[1]):
        return
    elif event in _STARTS:
        seen.append(f"{event} {args!r}")


def _inside(path: Any, allowed: str) -> bool:
    full = os.path.realpath(os.fsdecode(path))
    return full.startswith(allowed) or full == "/dev/null"


def _alarm(number: int, frame: object) -> None:
    raise Hang


def attack(name: str, reader: Reader, folder: Path, seed: int, count: int) -> dict[str, Any]:
    """Read damaged files; return what happened."""
    from expost.errors import DataError, UsageError

    home = folder / re.sub(r"\W+", "-", name)
    for beside, content in reader.beside.items():
        (home / beside).parent.mkdir(parents=True, exist_ok=True)
        (home / beside).write_bytes(content)
    home.mkdir(exist_ok=True)
    for file, content in reader.seeds.items():
        (home / file).parent.mkdir(exist_ok=True)
        (home / file).write_bytes(content)
        reader.read(home / file)  # what is not damaged is read
        (home / file).unlink()
    seeds = list(reader.seeds.items())
    escapes: list[dict[str, Any]] = []
    outcomes = {"read": 0, "refused": 0}
    seen: list[str] = []
    slowest, begun = 0.0, time.process_time()
    signal.signal(signal.SIGPROF, _alarm)
    for number in range(count):
        source = random.Random(f"{seed} {name} {number}")
        file, content = seeds[source.randrange(len(seeds))]
        content = reader.damage(source, content)
        path = home / file
        path.unlink(missing_ok=True)  # not written over, since arrays may be mapped from it
        path.write_bytes(content)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        fault, start = "", time.process_time()
        signal.setitimer(signal.ITIMER_PROF, SECONDS + SECONDS * len(content) / _MB)
        try:
            with _watched(folder, seen):
                reader.read(path)
            outcomes["read"] += 1
        except (DataError, UsageError) as error:
            outcomes["refused"] += 1
            text = str(error)
            if "\n" in text or "\r" in text:
                fault = f"not one line: {text!r}"
            elif Path(file).name not in text and home.name not in text:
                fault = f"names no file: {type(error).__name__}: {text}"
            elif len(text) > 2000:
                fault = f"{len(text)} characters: {text[:200]}"
        except Hang:
            fault = "hangs"
        except BaseException as error:
            trace = error.__traceback__
            while (
                trace is not None
                and trace.tb_next is not None
                and "/expost/" in trace.tb_next.tb_frame.f_code.co_filename
            ):
                trace = trace.tb_next
            at = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else ""
            fault = f"{type(error).__name__} in {at}: {str(error)[:300]}"
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        slowest = max(slowest, time.process_time() - start)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        if grown > MEMORY:
            fault = fault or f"takes {grown >> 20} MiB"
        if seen:
            fault = fault or seen[0]
            seen.clear()
        if fault:
            escapes.append(
                {"reader": name, "file": file, "number": number, "seed": seed, "fault": fault, "bytes": len(content)}
            )
            kept = folder / "escapes"
            if len(escapes) <= 200 and kept.is_dir():
                (kept / f"{home.name}.{number}.{Path(file).name}").write_bytes(content)
    return {
        "reader": name,
        "tried": count,
        **outcomes,
        "escapes": escapes,
        "slowest": slowest,
        "seconds": time.process_time() - begun,
    }


def main() -> None:
    """Attack the named readers, or all."""
    folder, seed, count, *names = sys.argv[1:]
    base = Path(folder).resolve()
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for group in GROUPS:
        made = group(base)
        chosen = {name: reader for name, reader in made.items() if not names or name in names}
        for name, reader in chosen.items():
            print(f"reading {name}", file=sys.stderr, flush=True)
            print(
                json.dumps(attack(name, reader, base, int(seed), max(1, round(int(count) * reader.share)))), flush=True
            )


if __name__ == "__main__":
    main()
