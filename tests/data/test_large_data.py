"""Data sets that are not loaded into memory: the same bytes from every kind of source, and work under a limit."""

import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from scipy.stats import linregress

from expost.data import NamedData, Preprocess, load_data, load_examples, load_named
from expost.data import prepared as prepared_module
from expost.data.examples import FOUND_OUT, POOL, Found, Part
from expost.data.hub import Origin
from expost.data.mapped import DEFAULT_LIMIT, is_mapped, memory_limit, open_file, prepared_folder, scratch
from expost.data.parquet import read_table
from expost.data.tables import assembled
from expost.errors import DataError, UsageError
from expost.examples.outputs import write_vectors
from expost.metrics import StandardizedValues
from expost.metrics import features as features_module
from expost.metrics.memorization import authenticity, copying_test
from expost.metrics.neighbours import nearest
from expost.metrics.pool import Pool
from expost.training.batches import Batches
from expost.types import Data, to_unit
from expost.utils import hashing
from expost.utils.hashing import hash_tensors
from sounds import tones

RANDOM = np.random.default_rng(0)
LABELS = np.arange(40) % 4


def noise(*shape, dtype=np.uint8):
    return RANDOM.integers(0, 256, shape).astype(dtype)


def encoded(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def write_images(folder, images):
    folder.mkdir(parents=True)
    for index, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{index:03d}.png")


def images_by_class(folder):
    for name in ("cats", "dogs"):
        write_images(folder / name, noise(15, 9, 9, 3))
    return folder


def images_of_which_the_last_has_color(folder):
    write_images(folder, [*noise(30, 9, 9), noise(9, 9, 3)])
    return folder


def parts_of_which_one_is_grey(folder):
    write_images(folder / "train", noise(20, 9, 9))
    write_images(folder / "test", noise(6, 9, 9, 3))
    return folder


def npy(array):
    def write(folder):
        folder.mkdir()
        np.save(folder / "x.npy", array)
        return folder / "x.npy"

    return write


def npz(save, **arrays):
    def write(folder):
        folder.mkdir()
        save(folder / "x.npz", **arrays)
        return folder / "x.npz"

    return write


def npy_by_parts(folder):
    folder.mkdir()
    for part, n in (("train", 30), ("val", 8), ("test", 9)):
        np.save(folder / f"x_{part}.npy", noise(n, 3, 9, 9))
        np.save(folder / f"y_{part}.npy", LABELS[:n])
    return folder


def idx_header(array):
    return bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)


def idx(opened, suffix):
    def write(folder):
        folder.mkdir()
        for name, n in (("train", 30), ("t10k", 9)):
            for what, array in (("images-idx3", noise(n, 9, 9)), ("labels-idx1", LABELS[:n].astype(np.uint8))):
                with opened(folder / f"{name}-{what}-ubyte{suffix}", "wb") as file:
                    file.write(idx_header(array) + array.tobytes())
        return folder

    return write


def parquet_images(folder):
    folder.mkdir()
    for shard in range(2):
        rows = [{"bytes": encoded(image), "path": None} for image in noise(75, 9, 9, 3)]
        table = pa.table({"image": rows, "label": [index % 3 for index in range(75)]})
        pq.write_table(table, folder / f"part-{shard}.parquet", row_group_size=70)  # more than are read at once
    return folder


def parquet_numbers(folder):
    folder.mkdir()
    columns = {name: RANDOM.normal(size=40) for name in "abc"} | {"label": LABELS, "name": ["x"] * 40}
    pq.write_table(pa.table(columns), folder / "x.parquet", row_group_size=7)
    return folder / "x.parquet"


def parquet_lists(folder):
    folder.mkdir()
    for shard in range(2):
        rows = RANDOM.normal(size=(40, 5)).astype(np.float32)
        pq.write_table(pa.table({"x": list(rows), "n": LABELS}), folder / f"{shard}.parquet", row_group_size=16)
    return folder


def csv(folder):
    folder.mkdir()
    np.savetxt(folder / "x.csv", RANDOM.normal(size=(40, 3)), delimiter=",")
    return folder / "x.csv"


def npy_by_file(folder):
    folder.mkdir()
    for index, image in enumerate(COLOR):
        np.save(folder / f"{index:02d}.npy", image)
    return folder


def pages(folder):
    folder.mkdir()
    for index in range(4):
        first, *others = [Image.fromarray(image) for image in COLOR[10 * index : 10 * index + 10]]
        first.save(folder / f"{index}.tif", save_all=True, append_images=others)
    return folder


def zipped(folder):
    folder.mkdir()
    with zipfile.ZipFile(folder / "photos.zip", "w") as archive:
        for index, image in enumerate(COLOR):
            Image.fromarray(image).save(folder / "one.png")
            archive.write(folder / "one.png", f"photos/{'ab'[index % 2]}/{index}.png")
    return folder / "photos.zip"


def tarred(folder):
    """Write shards of images, some in a packed archive, with a class beside each."""
    folder.mkdir()
    shards: dict[str, Any] = {"train-0.tar": "w", "train-1.tar.gz": "w:gz", "test-0.tar": "w"}
    for shard, kind in shards.items():
        with tarfile.open(folder / shard, kind) as archive:
            for index in range(13):
                image = COLOR[13 * ("test" in shard) + 26 * ("-1" in shard) + index]
                for name, content in ((f"{index}.png", encoded(image)), (f"{index}.cls", str(index % 2).encode())):
                    entry = tarfile.TarInfo(name)
                    entry.size = len(content)
                    archive.addfile(entry, io.BytesIO(content))
    return folder


COLOR = noise(40, 9, 9, 3)


def recordings(folder):
    pytest.importorskip("soundfile", reason="reading sound needs soundfile")
    return tones(folder)


SOURCES: dict[str, tuple[Callable[[Path], Path], dict[str, Any]]] = {
    "a folder of classes": (images_by_class, {}),
    "a folder of classes, resized and grey": (images_by_class, {"size": 5, "channels": 1}),
    "a folder of classes, a few of them": (images_by_class, {"limit": 5, "seed": 3}),
    "grey images, and one in color": (images_of_which_the_last_has_color, {}),
    "parts, one of them grey": (parts_of_which_one_is_grey, {}),
    "npy": (npy(COLOR), {}),
    "npy, channels first": (npy(np.ascontiguousarray(COLOR.transpose(0, 3, 1, 2))), {}),
    "npy, grey": (npy(COLOR[..., 0]), {"seed": 1}),
    "npy, along the last axis": (npy(np.moveaxis(COLOR[..., 0], 0, 2)), {"layout": "HWN"}),
    "npy of 12 bits": (npy(COLOR.astype(np.uint16) * 16), {"range": (0, 4095)}),
    "npy, an example a file": (npy_by_file, {}),
    "pages": (pages, {}),
    "a zip archive": (zipped, {"parts": ["train=a", "test=b"]}),
    "tar archives": (tarred, {}),
    "npy, resized": (npy(COLOR), {"size": 5, "crop": 8}),
    "npy, of its size already": (npy(COLOR), {"size": 9, "channels": 3}),
    "npy of floats": (npy(COLOR / 255), {}),
    "npy of booleans": (npy(COLOR > 99), {}),
    "npy of large integers": (npy(COLOR.astype(">i8")), {}),
    "npy with opacity": (npy(noise(40, 9, 9, 4)), {}),
    "npy in Fortran's order": (npy(np.asfortranarray(COLOR)), {}),
    "npy of vectors": (npy(RANDOM.normal(size=(40, 6)).astype(np.float32)), {}),
    "npy of precise vectors": (npy(RANDOM.normal(size=(40, 6))), {}),
    "npy by parts": (npy_by_parts, {}),
    "npz": (npz(np.savez, x=COLOR, y=LABELS), {}),
    "npz in Fortran's order": (npz(np.savez, x=np.asfortranarray(COLOR), y=LABELS), {}),
    "npz by parts": (npz(np.savez, x_train=COLOR[:30], y_train=LABELS[:30], x_test=COLOR[30:], y_test=LABELS[30:]), {}),
    "npz, compressed": (npz(np.savez_compressed, x=COLOR, y=LABELS), {}),
    "npz, compressed, in Fortran's order": (npz(np.savez_compressed, x=np.asfortranarray(COLOR / 255.0)), {}),
    "IDX": (idx(open, ""), {}),
    "IDX, packed": (idx(gzip.open, ".gz"), {}),
    "parquet of images": (parquet_images, {}),
    "parquet of numbers": (parquet_numbers, {}),
    "parquet of lists": (parquet_lists, {}),
    "CSV": (csv, {}),
    "sound": (recordings, {"seconds": 0.31, "mels": 16}),
}


@pytest.fixture
def all_mapped(monkeypatch, tmp_path):
    """From here on nothing is small enough for memory, and prepared files have a folder of their own."""

    def switch():
        monkeypatch.setenv("EXPOST_MEMORY", "0")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    return switch


def splits(data):
    return [data.train, data.validation, data.test]


def mapped_from(x):
    """Return the file that a tensor lies in, by what the kernel says; empty for memory."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        ends, _, _, _, _, *path = line.split(maxsplit=5)
        low, high = (int(end, 16) for end in ends.split("-"))
        if low <= x.data_ptr() < high:
            return path[0] if path and path[0].startswith("/") else ""
    raise AssertionError("a tensor without memory")


def assert_same(mapped: Data, loaded: Data) -> None:
    for one, other in zip(splits(mapped), splits(loaded), strict=True):
        assert one.x.dtype == other.x.dtype
        assert torch.equal(one.x, other.x)
        assert one.x.is_contiguous()
        assert (one.y is None) == (other.y is None)
        assert one.y is None or torch.equal(one.y, other.y)
    assert mapped.shape == loaded.shape
    assert mapped.note.split("; mapped from")[0] == loaded.note.split("; mapped from")[0]


@pytest.mark.parametrize("kind", SOURCES)
def test_what_is_mapped_is_what_would_be_loaded(kind, tmp_path, all_mapped):
    write, options = SOURCES[kind]
    source = write(tmp_path / "source")
    loaded = load_data(source, **options)
    assert not any(mapped_from(split.x) for split in splits(loaded))
    all_mapped()
    mapped = load_data(source, **options)
    assert_same(mapped, loaded)
    files = [mapped_from(split.x) for split in splits(mapped)]
    assert all(files)
    parts = [{"train": each.train.x, "test": each.test.x} for each in (mapped, loaded)]
    assert hash_tensors(parts[0]) == hash_tensors(parts[1])
    again = load_data(source, **options)
    assert_same(again, loaded)
    for split, file in zip(splits(again), files, strict=True):
        assert mapped_from(split.x) == file or "/.scratch." in file  # what was unpacked is unpacked again
    assert again.note == mapped.note
    leftover = [path.name for path in prepared_folder().glob("*") if path.suffix not in (".npy", ".lock")]
    assert leftover == []


@pytest.mark.parametrize(
    "kind", ["npy", "npz, compressed", "IDX, packed", "parquet of images", "parts, one of them grey"]
)
def test_all_examples_of_a_mapped_source(kind, tmp_path, all_mapped):
    source = SOURCES[kind][0](tmp_path / "source")
    if kind == "parts, one of them grey":
        source = source / "test"
    loaded = load_examples(source)
    all_mapped()
    mapped = load_examples(source)
    assert torch.equal(mapped, loaded)
    assert mapped_from(mapped)


def test_named_sets_are_mapped_too(tmp_path, all_mapped):
    """From a table that lies in a file, as `datasets` keeps its own, with the preprocessing of the entry."""

    class Arrow(Origin):
        kind, repository = "disk", None

        def find(self, name):
            return str(tmp_path)

        def read(self, name, overrules=FOUND_OUT):
            parts = {}
            for part in ("train", "test"):
                table = pa.ipc.open_stream(pa.memory_map(str(tmp_path / f"{part}.arrow"))).read_all()
                parts[part] = read_table(table, part, None)
            return replace(assembled(parts, "arrow files", FOUND_OUT), files=tuple(sorted(tmp_path.glob("*.arrow"))))

    for part, n in (("train", 30), ("test", 9)):
        rows = [{"bytes": encoded(image), "path": None} for image in noise(n, 8, 8)]
        table = pa.table({"image": rows, "label": LABELS[:n]})
        with pa.OSFile(str(tmp_path / f"{part}.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=7)
    named = NamedData("tiny", Arrow(), Preprocess(pad=10), (1, 10, 10), (25, 5, 9), "none")
    loaded = load_named("tiny", named)
    all_mapped()
    mapped = load_named("tiny", named)
    assert_same(mapped, loaded)
    assert all(mapped_from(split.x).startswith(str(prepared_folder())) for split in splits(mapped))


# ---------------------------------------------------------------------------------------------------- prepared files


def test_arrays_that_are_right_as_they_are_are_not_copied(tmp_path, all_mapped):
    source = npy_by_parts(tmp_path / "source")
    all_mapped()
    data = load_data(source)
    names = [Path(mapped_from(split.x)).name for split in splits(data)]
    assert names == ["x_train.npy", "x_val.npy", "x_test.npy"]
    assert not list(prepared_folder().glob("*.npy"))
    assert "mapped from" not in data.note
    assert load_examples(source / "x_train.npy").data_ptr() != data.train.x.data_ptr()
    assert mapped_from(load_examples(source / "x_train.npy")).endswith("source/x_train.npy")


def test_prepared_files_are_used_again_and_not_when_the_source_has_changed(tmp_path, all_mapped, monkeypatch):
    source = images_by_class(tmp_path / "source")
    all_mapped()
    first = load_data(source, size=5)
    assert "mapped from" in first.note
    before = {path: path.stat().st_mtime_ns for path in prepared_folder().glob("*.npy")}
    assert len(before) == 3
    with monkeypatch.context() as patch:
        patch.setattr("expost.data.images.decode", lambda *_: pytest.fail("an image was decoded again"))
        assert_same(load_data(source, size=5), first)
    load_data(source, size=6)
    assert len(list(prepared_folder().glob("*.npy"))) == 6
    load_data(source, size=5, seed=1)
    assert len(list(prepared_folder().glob("*.npy"))) == 9
    changed = source / "cats" / "000.png"
    Image.fromarray(np.full((9, 9, 3), 7, np.uint8)).save(changed)
    os.utime(changed, ns=(1, 1))
    second = load_data(source, size=5)
    assert not torch.equal(torch.cat([s.x for s in splits(second)]), torch.cat([s.x for s in splits(first)]))
    assert any((image == 7).all() for split in splits(second) for image in split.x)


def test_damaged_prepared_files_are_made_anew(tmp_path, all_mapped):
    source = images_by_class(tmp_path / "source")
    all_mapped()
    first = load_data(source)
    copies = [split.x.clone() for split in splits(first)]
    del first
    for path, content in zip(sorted(prepared_folder().glob("*.npy")), (b"", b"nonsense", None), strict=True):
        path.write_bytes(path.read_bytes()[:-10] if content is None else content)
    again = load_data(source)
    assert all(torch.equal(split.x, copy) for split, copy in zip(splits(again), copies, strict=True))


def test_a_large_set_is_mapped_and_a_small_one_of_the_same_files_is_not(tmp_path, monkeypatch):
    source = npy(COLOR)(tmp_path / "source")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("EXPOST_MEMORY", str(COLOR.nbytes - 1))
    assert all(mapped_from(split.x) for split in splits(load_data(source)))  # no part alone is too large
    assert not any(mapped_from(split.x) for split in splits(load_data(source, limit=3)))
    monkeypatch.setenv("EXPOST_MEMORY", str(COLOR.nbytes))
    assert not mapped_from(load_data(source, seed=1).train.x)


def test_who_loads_at_the_same_time_makes_a_file_once(tmp_path, all_mapped, monkeypatch):
    source = images_by_class(tmp_path / "source")
    all_mapped()
    made = []
    real = prepared_module.new_file

    def slow(path, shape, kind):
        made.append(path)
        time.sleep(0.2)
        return real(path, shape, kind)

    monkeypatch.setattr(prepared_module, "new_file", slow)
    results: dict[int, Data] = {}

    def load(index):
        results[index] = load_data(source)

    threads = [threading.Thread(target=load, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 3  # one a part, not nine
    assert len(results) == 3
    for index in (1, 2):
        assert_same(results[index], results[0])


def test_the_oldest_files_make_room_and_without_room_it_is_said(tmp_path, all_mapped, monkeypatch):
    source = images_by_class(tmp_path / "source")
    all_mapped()
    load_data(source, size=4)
    old = sorted(prepared_folder().glob("*.npy"))
    for age, path in enumerate(old):
        os.utime(path, (1000 + age, 1000 + age))
    unfinished = prepared_folder() / ".0123.0.part"  # of a process that was killed
    unfinished.write_bytes(b"x")
    real, room = prepared_module.new_file, [3]

    def full_until_two_are_gone(path, shape, kind):
        if unfinished.exists() or len([each for each in old if each.exists()]) > room[0] - 2:
            raise OSError(28, "No space left on device")
        return real(path, shape, kind)

    monkeypatch.setattr(prepared_module, "new_file", full_until_two_are_gone)
    data = load_data(source, size=5)
    assert [path.exists() for path in old] == [False, False, True]
    assert not unfinished.exists()
    assert all(mapped_from(split.x) for split in splits(data))
    room[0] = 0
    with pytest.raises(DataError, match=r"^cannot keep .* GB of examples in .*No space left on device; free space, or"):
        load_data(source, size=6)
    assert not list(prepared_folder().glob(".*.part"))


def test_a_folder_that_cannot_be_written_is_named(tmp_path, all_mapped):
    source = images_by_class(tmp_path / "source")
    all_mapped()
    (tmp_path / "cache").write_text("a file where a folder should be")
    with pytest.raises(DataError, match="cannot keep .* in .*prepared: .*; free space, or set XDG_CACHE_HOME"):
        load_data(source)


@pytest.mark.parametrize(
    ("text", "size"), [("", DEFAULT_LIMIT), ("0", 0), ("512M", 2**29), ("1.5g", 3 * 2**29), ("7", 7), ("2 GiB", 2**31)]
)
def test_how_much_memory_is_to_be_used(text, size, monkeypatch):
    monkeypatch.setenv("EXPOST_MEMORY", text)
    assert memory_limit() == size


@pytest.mark.parametrize("text", ["much", "-1", "1X", "nan", "inf", "G"])
def test_what_is_no_amount_of_memory_is_refused(text, monkeypatch, tmp_path):
    monkeypatch.setenv("EXPOST_MEMORY", text)
    with pytest.raises(UsageError, match="^EXPOST_MEMORY is .*; give a number of bytes, as 512M or 1.5G$"):
        load_data(npy(COLOR)(tmp_path / "x"))


# ---------------------------------------------------------------------------------------------------- bad sources


def damaged(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 255
    path.write_bytes(content)


def truncated_npy(folder):
    path = npy(COLOR)(folder)
    path.write_bytes(path.read_bytes()[:-1])
    return path


def objects_npy(folder):
    folder.mkdir()
    np.save(folder / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return folder / "x.npy"


def objects_npz(folder):
    return npz(np.savez, x=np.array([{"a": 1}], dtype=object))(folder)


def flipped(save):
    def write(folder):
        path = npz(save, x=COLOR)(folder)
        damaged(path, path.stat().st_size // 2)
        return path

    return write


def dishonest_npz(folder):
    """An archive whose array says that it has more rows than there are."""
    folder.mkdir()
    buffer = io.BytesIO()
    np.save(buffer, COLOR)
    with zipfile.ZipFile(folder / "x.npz", "w") as archive:
        archive.writestr("x.npy", buffer.getvalue().replace(b"(40, 9, 9, 3)", b"(99, 9, 9, 3)"))
    return folder / "x.npz"


def short_idx(opened, suffix):
    def write(folder):
        folder.mkdir()
        with opened(folder / f"a-images-idx3-ubyte{suffix}", "wb") as file:
            file.write(idx_header(noise(30, 9, 9)) + bytes(999))
        return folder

    return write


def ragged_parquet(folder):
    folder.mkdir()
    for name, length in (("a", 3), ("b", 4)):
        pq.write_table(pa.table({"x": [[0.5] * length] * 9}), folder / f"{name}.parquet")
    return folder


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (truncated_npy, "is truncated or damaged"),
        (objects_npy, "holds Python objects, which are never unpickled"),
        (objects_npz, "holds Python objects, which are never unpickled"),
        (flipped(np.savez), "is truncated or damaged .*CRC"),
        (flipped(np.savez_compressed), "is truncated or damaged"),
        (dishonest_npz, "is truncated or damaged"),
        (short_idx(open, ""), "should hold 30 x 9 x 9 = 2,430 bytes but has 999"),
        (short_idx(gzip.open, ".gz"), "should hold 30 x 9 x 9 = 2,430 bytes but has 999"),
        (ragged_parquet, "3 and 4 numbers a row in column 'x'; vectors need one length"),
        (npy(COLOR * 300.0), "floating-point pixels from 0 to"),
        (npy(np.where(COLOR > 254, np.nan, 0.5)), "pixels are NaN or infinite"),
        (npy(np.array([[1.0, 2.0], [np.inf, 3.0], [4.0, 5.0]])), "inf in row 1, column 0"),
    ],
)
def test_bad_sources_are_refused_as_they_are_when_loaded(write, message, tmp_path, all_mapped):
    source = write(tmp_path / "source")
    all_mapped()
    with pytest.raises(DataError, match=message):
        load_data(source)
    assert not list(prepared_folder().glob("*.npy")) or "x.npy" in message
    assert not list(prepared_folder().glob(".*.part"))


def test_too_little_memory_is_not_taken_for_damage(tmp_path, monkeypatch):
    source = parquet_images(tmp_path / "source")

    def without_memory(*_, **__):
        raise pa.ArrowMemoryError("malloc of size 9 failed")

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", without_memory)
    with pytest.raises(DataError, match="examples do not fit in memory; set EXPOST_MEMORY to less than they take"):
        load_data(source)


def test_scratch_leaves_nothing_behind(all_mapped):
    all_mapped()
    array = scratch((10, 3), np.float32)
    assert is_mapped(array)
    assert not list(prepared_folder().glob("*"))
    array[:] = 7
    assert array.sum() == 210


def test_mapped_tensors_say_nothing_and_keep_their_file(tmp_path, all_mapped):
    """Warnings are errors here: torch would warn of a read-only array."""
    source = images_by_class(tmp_path / "source")
    all_mapped()
    x = load_data(source).train.x
    copy = x.clone()
    for path in prepared_folder().glob("*.npy"):
        assert not open_file(path).flags.writeable
        path.unlink()
    assert torch.equal(x, copy)  # who has mapped a file keeps it


# ---------------------------------------------------------------------------------------------------- what uses it


@pytest.mark.parametrize("ahead", [False, True])
def test_batches_are_the_examples_whatever_was_foreseen(ahead, monkeypatch):
    monkeypatch.setenv("EXPOST_MEMORY", "0" if ahead else "1G")
    x = torch.from_numpy(noise(50, 1, 4, 4))
    batches = Batches(x, torch.device("cpu"))
    assert len(batches) == 50
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    parts = order.split(7)
    for index, part in enumerate(parts):
        then = parts[index + 1] if index + 1 < len(parts) else None
        then = order[:7] if index == 3 else then  # a wrong guess
        assert torch.equal(batches.take(part, then), to_unit(x[part]))
    assert torch.equal(batches[torch.tensor([4, 4])], to_unit(x[[4, 4]]))
    assert (batches._thread is not None) == ahead


def test_errors_of_what_was_foreseen_are_raised_and_rows_of_numbers_stay(monkeypatch):
    monkeypatch.setenv("EXPOST_MEMORY", "0")
    rows = torch.randn(9, 3)
    batches = Batches(rows, torch.device("cpu"))
    assert torch.equal(batches.take(torch.tensor([1, 0]), torch.tensor([99])), rows[[1, 0]])
    with pytest.raises(IndexError):
        batches.take(torch.tensor([99]))
    assert torch.equal(batches.take(torch.tensor([2])), rows[[2]])


def test_batches_are_brought_to_a_device_where_they_do_not_live():
    """The device is torch's `meta`, which has no values but all the rules."""
    x = torch.from_numpy(noise(9, 1, 4, 4))
    away = Batches(x, torch.device("meta"), resident=False)
    assert away.home.type == "cpu"
    assert away.take(torch.arange(3), torch.arange(3, 6)).device.type == "meta"
    there = Batches(x, torch.device("meta"), resident=True)
    assert there.home.type == "meta"
    assert there[torch.arange(3)].shape == (3, 1, 4, 4)


@pytest.mark.parametrize("block", [1, 50, 10**6])
def test_distances_to_a_pool_are_those_to_all_of_it(block):
    train, queries = torch.from_numpy(noise(40, 3, 4, 4)), torch.from_numpy(noise(11, 3, 4, 4))
    train[17] = train[3]
    queries[0] = train[3]
    expected = nearest(to_unit(queries).flatten(1), to_unit(train).flatten(1), 3)
    found = Pool(train, block=block).nearest(queries, 3)
    assert torch.equal(found.indices, expected.indices)
    assert torch.equal(found.distances, expected.distances)
    assert found.indices[0, :2].tolist() == [3, 17]


def test_memorization_of_a_pool_is_that_of_its_values():
    train, held_out = torch.from_numpy(noise(60, 1, 4, 4)), torch.from_numpy(noise(30, 1, 4, 4))
    samples = torch.cat([to_unit(train[:20]) + 0.001, torch.rand(20, 1, 4, 4)])
    values = [to_unit(each).flatten(1) for each in (train, held_out, samples)]
    pool = Pool(train, block=100)
    assert copying_test(pool, held_out, samples) == copying_test(values[0], values[1], values[2])
    assert authenticity(pool, samples) == authenticity(values[0], values[2])
    with pytest.raises(UsageError, match="cells is 2, but a Pool"):
        copying_test(pool, held_out, samples, cells=2)
    with pytest.raises(DataError, match="samples: NaN or infinity, first in row 33"):
        authenticity(pool, samples.index_fill(0, torch.tensor([33]), torch.nan))
    with pytest.raises(UsageError, match="pool has 16 features, samples 9"):
        authenticity(pool, torch.rand(5, 1, 3, 3))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's limits on private memory")
def test_a_set_larger_than_memory_trains_fits_samples_and_is_scored():
    """0.3 GB of images where processes may have 0.9 GB, 0.4 GB of it for libraries."""
    options = ["--gigabytes", "0.3", "--limit", "0.9", "--memory", "64M", "--width", "4", "--json"]
    options += ["--measures", "frechet", "latent"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "large_data.py", *options],
        capture_output=True,
        text=True,
        env=environment,
        timeout=1100,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert "not fit in memory" in result["in memory"]["failed"]
    mapped = result["mapped"]
    assert "failed" not in mapped, mapped
    assert mapped["samples"] == [1000, 3, 64, 64]
    assert {"log-likelihood of gmm", "frechet-pixels of gmm", "ssim of reconstruction"} <= set(mapped["scores"])
    # every example was used several times, and the data, 0.3 GB, were never copied whole: beside the libraries training
    # takes 0.15 to 0.33 GB, by how much freed memory is kept, and a copy would come on top
    begun = mapped["phases"]["import"]["RssAnon"]
    for name in ("load, and train", "load again", "encode all, fit"):
        assert mapped["phases"][name]["RssAnon"] - begun < 0.4, mapped["phases"]


BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_values_are_standardized_and_hashed_in_parts_as_they_are_as_a_whole(monkeypatch):
    train, x = torch.randn(1000, 7) * 3 + 5, torch.randn(300, 7)
    whole, digest = StandardizedValues(train), hash_tensors({"x": x})
    mean, std = train.double().mean(0), train.double().std(0)
    assert torch.equal(whole(x), ((x.double() - mean) / std).float())
    monkeypatch.setattr(features_module, "_STANDARDIZED_AT_ONCE", 70)
    monkeypatch.setattr(hashing, "HASHED_AT_ONCE", 99)
    assert torch.equal(whole(x), ((x.double() - mean) / std).float())
    assert hash_tensors({"x": x}) == digest
    assert hash_tensors({"x": x.T.contiguous().T}) == digest
    by_parts = features_module._mean_and_std(train, 70)
    torch.testing.assert_close(by_parts, (mean, std), rtol=1e-13, atol=0)


def test_fitted_exponents_and_their_errors_are_those_of_scipy(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from growth import power_law

    sizes = (10, 20, 40, 80, 160)
    values = [3 * size**1.5 * factor for size, factor in zip(sizes, (1.1, 0.9, 1.05, 0.95, 1.0), strict=True)]
    fit, expected = power_law(sizes, values, (1, 1)), linregress(np.log(sizes), np.log(values))
    assert fit.exponent == pytest.approx(expected.slope)
    assert fit.error == pytest.approx(expected.stderr)
    assert fit.scale == pytest.approx(np.exp(expected.intercept))
    assert fit.surprise
    assert not power_law(sizes, values, (1, 1.5)).surprise


def test_growth_is_measured_fitted_and_drawn(tmp_path):
    command = [sys.executable, BENCHMARKS / "growth.py", "--quick", "--only", "Frechet distance", "--out", tmp_path]
    done = subprocess.run([*command, "--threads", "1"], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    series = json.loads((tmp_path / "growth.json").read_text())["series"]
    assert [each["axis"] for each in series] == ["images", "side"]
    for each in series:
        assert len(each["seconds"]) == len(each["memory"]) == len(each["values"]) == 3
        assert min(each["seconds"]) > 0
    with Image.open(tmp_path / "growth.png") as picture:
        assert picture.size == (1350, 900)
    assert (tmp_path / "growth.png").stat().st_size < 300_000


def test_a_pool_of_examples_is_divided_only_by_name(tmp_path, all_mapped):
    """Two parts of one source, of the same indices, have files of their own."""
    x = noise(20, 9, 9, 3)
    source = npz(np.savez_compressed, x_train=x[:10], x_val=x[:10] // 2, x_test=x[10:])(tmp_path / "source")
    all_mapped()
    data = load_data(source)
    assert len({mapped_from(split.x) for split in splits(data)}) == 3
    assert torch.equal(data.validation.x, data.train.x // 2)
    assert POOL not in Found({"train": Part(None)}, "").parts


def peak_of_writing(vectors, path):
    tracemalloc.start()
    try:
        write_vectors(vectors, path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("shape", [(20_000, 20), (60_000, 2), (60, 5_000)])
def test_a_csv_is_written_without_making_text_of_all_of_it(shape, tmp_path):
    """As text, all of it would take 25 to 80 MB."""
    assert peak_of_writing(torch.randn(shape), tmp_path / "a.csv") < 20e6


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_a_csv_has_no_more_digits_than_tell_numbers_of_a_type_apart(kind, tmp_path):
    x = torch.cat(
        [torch.randn(9_000, 9, dtype=kind), torch.tensor([[0.1, 1e-30, -1e30, 3, 0, 1, 2, 3, 4]], dtype=kind)]
    )
    write_vectors(x, tmp_path / "a.csv")
    header, *lines = (tmp_path / "a.csv").read_text().splitlines()
    assert header == "x0,x1,x2,x3,x4,x5,x6,x7,x8"
    assert lines == [",".join(map(str, row)) for row in x.numpy()]
    assert lines[-1].startswith("0.1,1e-30,-1e+30,3.0")
    assert np.array_equal(np.loadtxt(lines, x.numpy().dtype, delimiter=","), x.numpy())
