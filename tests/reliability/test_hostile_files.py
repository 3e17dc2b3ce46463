"""Files that strangers made: each is read, or refused in one line that names it; nothing hangs, grows or escapes."""

import ast
import errno
import gzip
import http.server
import io
import json
import os
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from torture import count, times

import expost
from expost.config import ModelConfig
from expost.data.decoding import decode
from expost.data.examples import Preprocess
from expost.data.load import load_examples
from expost.data.packing import SMALL
from expost.data.string_files import read_string_path
from expost.densities import Gaussian, load_density, make_density
from expost.errors import DataError, UsageError
from expost.registry import Part
from expost.run import Run
from expost.search.records import JSON, read_search
from expost.sharing import from_pretrained
from expost.utils.downloads import PublicFile, download, verify
from expost.utils.hashing import hash_tensors
from expost.utils.reading import parsed
from expost.utils.store import read_json, read_tensor_file, read_tensors, write_tensors

SOURCES = Path(expost.__file__).parent
HERE = Path(__file__).parent
TINY: Any = {"epochs": 1, "limit": 60, "width": 4, "latent_dim": 2, "tensorboard": False, "device": "cpu"}


@contextmanager
def refused(*named, error=DataError, traced=True):
    """Expect one line that names the file, in a few seconds, without much memory."""
    signal.signal(signal.SIGALRM, lambda number, frame: pytest.fail("it hangs"))
    signal.alarm(60)
    if traced:  # which slows what makes many small objects
        tracemalloc.start()
    try:
        with pytest.raises(error) as refusal:
            yield refusal
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        signal.alarm(0)
    text = str(refusal.value)
    assert "\n" not in text
    assert all(str(name) in text for name in named), text
    assert most < SMALL + 2**25, f"{most:,} bytes"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    run = expost.train("rae-l2", "digits", tmp_path_factory.mktemp("hostile") / "run", network="mlp", **TINY)
    expost.fit(run, "gaussian")
    return run


@pytest.fixture
def folder(trained, tmp_path):
    return shutil.copytree(trained.folder, tmp_path / "run")


# -------------------------------------------------------------------------------------------------------- mutated files


@pytest.mark.parametrize("shard", range(times(1, 10)))
def test_damaged_files_are_read_or_refused_in_one_line(tmp_path, shard):
    """Every reader, on valid files that were damaged; hostile.py says how, and what counts as an escape."""
    (tmp_path / "escapes").mkdir()
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache"), "TMPDIR": str(tmp_path)}
    environment = {**os.environ, **home, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    words = [str(tmp_path), str(shard), str(times(100, 2900))]
    done = subprocess.run(
        [sys.executable, str(HERE / "hostile.py"), *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=1100,
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    escapes = [escape for each in found for escape in each["escapes"]]
    for each in found:
        count(f"hostile {each['reader']}: read, or refused in one line", each["tried"], len(each["escapes"]))
    assert done.returncode == 0, f"{done.returncode}: {done.stderr[-1000:]}"
    assert not escapes, f"{len(escapes)} escapes; the first: {escapes[:5]}"
    # damage is neither too weak nor too strong
    assert all(each["read"] and each["refused"] for each in found if each["tried"] > 100)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
ANY: Any = settings(
    max_examples=times(40, 4000),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    database=None,
)


def read_or_refused(read, path, content):
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    try:
        read()
    except (DataError, UsageError) as error:
        assert "\n" not in str(error)  # noqa: PT017
        assert path.name in str(error) or str(path.parent) in str(error)  # noqa: PT017


def fields_of(kind):
    """JSON objects with the fields of the real file, any of whose values may be any JSON."""
    return st.builds(
        lambda changes: {**kind, **changes}, st.dictionaries(st.sampled_from(sorted(kind)), VALUES, min_size=1)
    )


def test_any_json_in_place_of_a_record_is_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    search = {"format": 1, "asked": {"batch": 1}, "rounds": [], "summary": {"training": {}}, "known": None}
    score = {"scores": [{"name": "x", "of": "y", "card": {}}]}

    @ANY
    @given(VALUES | fields_of(config) | fields_of(config["model"]).map(lambda m: {**config, "model": m}))
    def configuration(value):
        read_or_refused(lambda: Run.open(folder).model("cpu"), folder / "config.json", json.dumps(value).encode())

    @ANY
    @given(VALUES | fields_of(search))
    def searches(value):
        read_or_refused(lambda: read_search(folder), folder / JSON, json.dumps(value).encode())

    @ANY
    @given(VALUES | fields_of(score))
    def scores(value):
        read_or_refused(lambda: expost.rank((folder,)), folder / "metrics.json", json.dumps(value).encode())

    configuration(), searches()
    (folder / "config.json").write_text(json.dumps(config))
    scores()
    count("any JSON in place of ours: refused in one line", 3 * times(40, 4000))


def test_any_array_and_any_text_is_read_or_refused(tmp_path):
    kinds = (
        arrays_of.scalar_dtypes() | arrays_of.unicode_string_dtypes(max_len=3) | arrays_of.byte_string_dtypes(max_len=3)
    )
    tensors = kinds.flatmap(
        lambda kind: arrays_of.arrays(kind, arrays_of.array_shapes(min_dims=0, max_dims=5, max_side=5))
    )

    @ANY
    @given(tensors)
    def array(value):
        file = io.BytesIO()
        np.save(file, value)
        read_or_refused(lambda: load_examples(tmp_path / "x.npy"), tmp_path / "x.npy", file.getvalue())

    cells = (
        st.text(max_size=6)
        | st.floats().map(str)
        | st.integers().map(str)
        | st.sampled_from(["", "NA", '"', "1,5", "CCO"])
    )

    @ANY
    @given(st.lists(st.lists(cells, min_size=1, max_size=4), max_size=6), st.sampled_from(",;\t| "))
    def table(rows, delimiter):
        text = "\n".join(delimiter.join(row) for row in rows).encode("utf-8", "surrogatepass")
        read_or_refused(lambda: load_examples(tmp_path / "x.csv"), tmp_path / "x.csv", text)
        read_or_refused(lambda: read_string_path(tmp_path / "y.csv"), tmp_path / "y.csv", text)
        read_or_refused(lambda: read_string_path(tmp_path / "y.smi"), tmp_path / "y.smi", text)

    array(), table()
    count("any array or text as data: read, or refused in one line", 4 * times(40, 4000))


# ---------------------------------------------------------------------------------------- sizes that a file only claims


def png(width, height, packed):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def npy(shape, kind="|u1", content=b""):
    head = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + content


def zipped(**entries):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return file.getvalue()


def idx(*axes, content=b""):
    return bytes([0, 0, 8, len(axes)]) + struct.pack(f">{len(axes)}I", *axes) + content


ZEROS = bytes(SMALL + 2**22)
CLAIMS = {
    "x.npy": npy((2**40,)),
    "y.npy": npy((2**31, 2**31), "<f8", bytes(100)),
    "z.npy": npy((2**70,)),
    "x.npz": zipped(**{"x.npy": npy((2**40,))}),
    "y.npz": zipped(**{"x.npy": npy((2**31, 2**31, 2**31), "<f8")}),
    "train-images-idx3-ubyte": idx(2**32 - 1, 2**32 - 1, 2**32 - 1),
    "train-images-idx3-ubyte.gz": gzip.compress(idx(1, 2**32 - 1, 2**32 - 1, content=bytes(1000))),
    "t10k-images-idx3-ubyte.gz": gzip.compress(idx(60000, 280, 280)),
    "x.png": png(9_000, 9_000, zlib.compress(bytes(1000))),
    "y.png": png(2**31 - 1, 2**31 - 1, b""),
}
BOMBS = {
    "train-images-idx3-ubyte.gz": lambda: gzip.compress(idx(len(ZEROS) // 1024, 32, 32, content=ZEROS), 9),
    "x.npz": lambda: zipped(**{"x.npy": npy((len(ZEROS) // 1024, 32, 32), content=ZEROS)}),
    "x.csv.gz": lambda: gzip.compress((b"0.00000001," * 29 + b"1\n") * (len(ZEROS) // 640), 9),
    "line.csv.gz": lambda: gzip.compress(b"1" * len(ZEROS), 9),
    "x.smi.gz": lambda: gzip.compress((b"C" * 99 + b"\n") * (len(ZEROS) // 200), 9),
    "x.png": lambda: png(6000, 6000, zlib.compress(bytes(6000 * 18001), 9)),
    "x.zip": lambda: zipped(
        **{"a/1.png": png(6000, 6000, zlib.compress(bytes(6000 * 18001), 9)), "b/2.png": png(1, 1, b"")}
    ),
}


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("name", CLAIMS)
def test_a_size_that_the_file_cannot_hold_is_refused_before_memory_is_asked_for(tmp_path, monkeypatch, name, mapped):
    if mapped:
        monkeypatch.setenv("EXPOST_MEMORY", "0")
    (tmp_path / name).write_bytes(CLAIMS[name])
    with refused(tmp_path / name):
        load_examples(tmp_path / name)


@pytest.mark.parametrize("name", BOMBS)
def test_what_unpacks_to_much_more_than_its_size_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(BOMBS[name]())
    assert (tmp_path / name).stat().st_size < 500_000
    with refused(tmp_path / name, traced="csv" not in name and "smi" not in name) as refusal:
        (read_string_path if ".smi" in name else load_examples)(tmp_path / name)
    assert "unpacks to" in str(refusal.value)


def test_a_parquet_file_of_endless_rows_is_refused(tmp_path):
    column = pa.chunked_array([pa.array(np.zeros(2**20))] * 32)
    pq.write_table(pa.table({"u": column, "v": column}), tmp_path / "x.parquet", compression="gzip")
    assert (tmp_path / "x.parquet").stat().st_size < 500_000
    with refused(tmp_path / "x.parquet"):
        load_examples(tmp_path / "x.parquet")


def test_an_hdf5_file_of_nothing_but_a_shape_is_refused(tmp_path):
    import h5py

    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", (2**40, 8), "f4", chunks=(1024, 8))
    with h5py.File(tmp_path / "y.h5ad", "w") as file:
        group = file.create_group("X")
        group.attrs["encoding-type"], group.attrs["shape"] = "csr_matrix", (2, 2**40)
        group["indptr"], group["indices"], group["data"] = [0, 1, 2], [0, 1], [1.0, 2.0]
        for name in ("obs", "var"):
            file.create_group(name)
    for name in ("x.h5", "y.h5ad"):
        with refused(tmp_path / name):
            load_examples(tmp_path / name)


def test_what_is_large_in_earnest_is_read(tmp_path):
    """Limits are for what unpacks to hundreds of times its size."""
    source = np.random.default_rng(0)
    images = source.integers(0, 2, (SMALL // 1024 + 1000, 32, 32), np.uint8) * 255  # packs to an eighth or so
    np.savez_compressed(tmp_path / "x.npz", x=images)
    assert len(load_examples(tmp_path / "x.npz")) == len(images)
    (tmp_path / "a.png").write_bytes(png(3000, 3000, zlib.compress(bytes(3000 * 9001))))
    assert decode("a", tmp_path / "a.png", Preprocess(size=8)).shape == (3, 8, 8)


# ------------------------------------------------------------------------------------------------------- configurations


@pytest.mark.parametrize(
    "changes",
    [
        {"width": 10**9},
        {"shape": [10**6] * 3},
        {"shape": [-1, -8, 8]},
        {"shape": []},
        {"shape": [1, 0, 8]},
        {"width": 10**30},
        {"latent_dim": 10**9, "shape": [1, 10**5, 10**5]},
        {"latent": {"name": "vq", "options": {"codes": 10**13}}},
        {"network": "conv4", "width": 10**6, "shape": [3, 32, 32]},
        {"prior": {"name": "reduced", "options": {"base": "reduced", "base_options": {"base": "reduced"}}}},
    ],
)
def test_a_configuration_of_absurd_size_is_refused_before_memory_is_asked_for(folder, changes):
    config = json.loads((folder / "config.json").read_text())
    config["model"] |= changes
    (folder / "config.json").write_text(json.dumps(config))
    for read in (lambda: Run.open(folder).model("cpu"), lambda: from_pretrained(folder, device="cpu")):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with refused(folder / "config.json"):
            read()
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18  # KiB: 256 MiB


def test_a_model_that_no_machine_holds_is_refused_before_memory_is_asked_for():
    part: Any = {"latent": Part("deterministic"), "penalty": Part("half-norm"), "regularizer": Part("tikhonov")}
    sizes: Any = {"shape": (1, 8, 8), "network": "mlp", "width": 200_000, "latent_dim": 2, "beta": 1.0}
    model = ModelConfig("x", **part, **sizes, reconstruction=Part("squared-error"), prior=None, regularizer_weight=0.0)
    from expost.models.autoencoder import build

    with refused("weights", error=UsageError):
        build(model)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 200 + "1" + "}" * 200, '{"format": ' + "9" * 5000 + "}", "\ud800", "nul"]
)
def test_json_of_absurd_depth_or_digits_is_refused(folder, text):
    content = text.encode("utf-8", "surrogatepass")
    for name in ("config.json", "metrics.json", JSON, "densities/fitted_on.json"):
        (folder / name).write_bytes(content)
        with refused(folder / name):
            read_json(folder / name)
    with pytest.raises(ValueError, match="deep|digits|Expecting|decode"):
        parsed(content)


@pytest.mark.parametrize(
    "header", ['{"__metadata__":{"expost":"' + "9" * 5000 + '"}}', '{"__metadata__":null}', "[" * 3000, "{}"]
)
def test_a_header_of_tensors_may_say_anything(tmp_path, header):
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode())
    try:
        assert read_tensor_file(path).tensors == {}
    except DataError as error:
        assert str(path) in str(error)  # noqa: PT017 (either is right)


@pytest.mark.parametrize("key", ["scale", "residual", "mean", "basis", "base.cholesky"])
@pytest.mark.parametrize("value", [1e-310, -1.0, 1e308])
def test_parameters_of_absurd_size_make_no_density_or_one_without_nan(tmp_path, key, value):
    z = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    path = make_density("reduced", base="gaussian", rank=1).fit(z).save(tmp_path / "r.safetensors")
    tensors, record = read_tensors(path)
    tensors[key] = torch.full_like(tensors[key], value)
    write_tensors(path, tensors, record | {"sha256": hash_tensors(tensors)})
    try:
        density: Any = load_density(path)
    except DataError as error:
        assert str(path) in str(error)  # noqa: PT017 (either is right)
    else:
        assert density.sample(4).isfinite().all()
        assert not density.log_prob(z).isnan().any()


def test_a_file_that_libhdf5_follows_in_circles_is_refused(tmp_path):
    path = tmp_path / "x.h5ad"
    path.write_bytes(gzip.decompress((HERE / "endless.h5ad.gz").read_bytes()))
    with refused(path) as refusal:
        load_examples(path)
    assert "x.h5ad is damaged: libhdf5 comes to no end with it within 5 s; restore it" in str(refusal.value)


def test_digits_and_names_that_are_none_are_refused_or_read(tmp_path):
    """Five thousand digits above fractions; a name in a parquet file's schema that is no UTF-8."""
    (tmp_path / "x.csv").write_text(f"{'9' * 5000},{'9' * 5000}\n" + "".join(f"{i}.5,{i}.25\n" for i in range(9)))
    with refused(tmp_path / "x.csv"):
        load_examples(tmp_path / "x.csv")
    pq.write_table(pa.table({"abc": [1.0, 2.0]}), tmp_path / "x.parquet", store_schema=False)
    content = (tmp_path / "x.parquet").read_bytes()
    (tmp_path / "x.parquet").write_bytes(content.replace(b"abc", b"a\xffc"))
    with refused(tmp_path / "x.parquet") as refusal:
        load_examples(tmp_path / "x.parquet")
    assert "can't decode byte 0xff" in str(refusal.value)


def test_numbers_beyond_what_is_drawn_or_computed_are_refused(tmp_path):
    """Codes of a billion dimensions, a path of a billion steps, a whole number that no float holds."""
    normal = make_density("standard-normal").fit(torch.randn(9, 2, generator=torch.Generator().manual_seed(0)))
    path = normal.save(tmp_path / "normal.safetensors")
    tensors, record = read_tensors(path)
    write_tensors(path, tensors, record | {"fit": record["fit"] | {"d": 10**9}})
    with refused(path) as refusal:
        load_density(path)
    assert "codes of 1000000000 dimensions, more than 16,777,216" in str(refusal.value)
    for name in ("ode_steps", "probes"):
        with pytest.raises(UsageError, match=rf"{name}=1000000000 must be a whole number, at most 1,000"):
            make_density("flow-matching", **{name: 10**9})
    with pytest.raises(ValueError, match="a whole number of 309 digits"):
        parsed("[1" + 308 * "0" + "]")
    assert float(parsed("[1" + 307 * "0" + "]")[0]) == 1e307
    with pytest.raises(UsageError, match="must be a finite number"):
        Gaussian(regularization=10**400)


def test_rows_that_a_table_does_not_have_are_refused(tmp_path):
    pq.write_table(pa.table({"a": [1.0, 2.0, 3.0, 4.5], "b": [2.0, 1.0, 0.0, 7.5]}), tmp_path / "x.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("expost.data.tables.rows_of", lambda numbers, *_: np.concatenate([numbers, numbers]))
        with refused(tmp_path / "x.parquet") as refusal:
            load_examples(tmp_path / "x.parquet")
    assert "it has other rows than it says, 4" in str(refusal.value)


def test_a_part_of_a_density_that_has_no_record_is_refused(tmp_path):
    codes = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    kinds: dict[str, dict[str, Any]] = {
        "reduced": {"base": "gaussian", "rank": 1},
        "flow": {"components": 2, "steps": 1},
    }
    for name, options in kinds.items():
        far = codes + 40 * (torch.arange(200) % 2)[:, None]
        path = make_density(name, **options).fit(far).save(tmp_path / f"{name}.safetensors")
        tensors, record = read_tensors(path)
        assert isinstance(record["fit"]["base"], dict)
        for base in ("nan", 2, None):
            write_tensors(path, tensors, record | {"fit": record["fit"] | {"base": base}})
            with refused(path, error=DataError, traced=False):
                load_density(path)


def test_an_entry_of_an_npz_that_is_no_array_is_named(tmp_path):
    for name, entries in {
        "a.npz": {"x.txt": b"hello"},
        "b.npz": {"x.npy": b"hello"},
        "c.npz": {"x.npy": npy((3,), content=b"abc"), "note": b"y"},
    }.items():
        (tmp_path / name).write_bytes(zipped(**entries))
        with refused(tmp_path / name) as refusal:
            load_examples(tmp_path / name)
        assert "no array" in str(refusal.value)


def test_an_entry_that_is_shorter_than_it_says_is_not_filled_with_what_lies_in_memory(tmp_path):
    content = bytearray(zipped(**{"x.npy": npy((1000, 4), content=bytes(4000))}))
    entry = content.rindex(b"PK\x01\x02")
    size = struct.unpack("<I", content[entry + 24 : entry + 28])[0]
    content[entry + 24 : entry + 28] = struct.pack("<I", size + 4000)
    whole = bytes(content).replace(b"(1000, 4)", b"(2000, 4)")
    (tmp_path / "x.npz").write_bytes(whole)
    with refused(tmp_path / "x.npz"):
        load_examples(tmp_path / "x.npz")


# ----------------------------------------------------------------------------------------- what is no file, or not ours


def places(folder):
    """What reads a path, by the file's name in the folder."""
    files = ("x.npy", "x.npz", "x.csv", "x.parquet", "x.arrow", "x.h5", "x.png", "x.zip", "train-images-idx3-ubyte")
    read: dict[str, Any] = {name: (lambda name=name: load_examples(folder / name)) for name in files}
    read["x.smi"] = lambda: read_string_path(folder / "x.smi")
    read["config.json"] = lambda: read_json(folder / "config.json")
    read["model.safetensors"] = lambda: read_tensor_file(folder / "model.safetensors")
    read["density.safetensors"] = lambda: load_density(folder / "density.safetensors")
    read[JSON] = lambda: read_search(folder)
    read["public.bin"] = lambda: verify(folder / "public.bin", PublicFile("public.bin", (), "", 1))
    return read


@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "folder"])
def test_what_is_no_file_is_refused_and_never_waited_for(tmp_path, kind):
    for name, read in places(tmp_path).items():
        path = tmp_path / name
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "socket":
            (there := socket.socket(socket.AF_UNIX)).bind(str(path))
            there.close()
        elif kind == "device":
            path.symlink_to("/dev/zero")
        else:
            path.mkdir()
        with refused(name, error=(DataError, UsageError)):
            read()


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_what_may_not_be_read_is_not_told_as_missing_or_damaged():
    """In a process that is not root's, to whom everything is allowed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        for each in places(folder):
            (folder / each).write_bytes(b"x")
            (folder / each).chmod(0)
        locked = folder / "locked"
        locked.mkdir(0o700)
        before = os.geteuid()
        if before == 0:
            os.seteuid(65534)
        try:
            for each, read in places(folder).items():
                with refused(each, "ermission denied"):
                    read()
            with refused("locked", "ermission denied"):
                read_json(locked / "config.json")
        finally:
            os.seteuid(before)


def test_nothing_is_written_outside_by_names_in_an_archive(tmp_path):
    picture = io.BytesIO()
    from PIL import Image

    Image.fromarray(np.zeros((4, 4), np.uint8)).save(picture, "PNG")
    names = ("../out.png", "/tmp/out-of-zip.png", "a/../../out.png", "..\\out.png", "a/ok.png", "b/ok.png")
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "x.zip").write_bytes(zipped(**dict.fromkeys(names, picture.getvalue())))
    (inside / "x.npz").write_bytes(
        zipped(**dict.fromkeys(("../x_train.npy", "/x_test.npy"), npy((4, 2, 2), content=bytes(16))))
    )
    before = sorted(tmp_path.rglob("*"))
    assert len(load_examples(inside / "x.zip")) == 2
    assert len(load_examples(inside / "x.npz")) == 8
    assert sorted(tmp_path.rglob("*")) == before
    assert not Path("/tmp/out-of-zip.png").exists()


def test_a_message_is_one_line_without_control_characters(tmp_path):
    (tmp_path / "x.csv").write_text('"a\x1b[2J","b"\n1,2\n3,oops\n4,5\n6,7\n', newline="")
    with refused("x.csv") as refusal:
        load_examples(tmp_path / "x.csv")
    assert str(refusal.value).isprintable()
    assert str(DataError("a\nb\r\x00\u202ec" + "x" * 9000)).isprintable()
    assert len(str(UsageError("x" * 9000))) < 2000


# ------------------------------------------------------------------------------------------------ outputs and downloads


@pytest.mark.parametrize("words", [["zoo"], ["zoo", "--json"], ["--help"], ["--version"], ["data"]])
def test_output_that_nobody_takes_is_thrown_away(words):
    program = [sys.executable, "-m", "expost", *words]
    closed = subprocess.run(["sh", "-c", '"$@" >&-', "sh", *program], stderr=subprocess.PIPE, text=True)
    assert (closed.returncode, closed.stderr) == (0, "")
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as pipe:
        pipe.stdout.close()
        assert (pipe.wait(), pipe.stderr.read()) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is always full")
@pytest.mark.parametrize("words", [["zoo"], ["--help"]])
def test_output_that_does_not_fit_is_an_error_of_one_line(words):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-m", "expost", *words], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert re.fullmatch(r"error: [^\n]*No space left on device[^\n]*\n", done.stderr)


def test_a_server_that_drips_is_given_up(tmp_path):
    class Drip(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            try:
                for _ in range(600):
                    self.wfile.write(b"x")
                    time.sleep(0.05)
            except OSError as error:
                assert error.errno in (errno.EPIPE, errno.ECONNRESET)  # noqa: PT017

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Drip)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    begun = time.monotonic()
    public = PublicFile("x.bin", (f"http://127.0.0.1:{server.server_port}/x.bin",), "0" * 64, 10**6)
    with refused("x.bin", "too slow"):
        download(tmp_path, public, timeout=1.0)
    assert time.monotonic() - begun < 10
    assert not list(tmp_path.iterdir())
    server.shutdown()
    server.server_close()


# --------------------------------------------------------------------------------------------------------------- pickle


#: Errors are pickled between our own processes, and not read from files.
BETWEEN_PROCESSES = "local.py"


def test_no_source_names_what_unpickles():
    """But torch's restricted reader of tensors, for public networks whose hash was checked before."""
    found = []
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                found += [
                    f"{path.name}: {name}"
                    for name in names
                    if path.name != BETWEEN_PROCESSES
                    and name.split(".")[0] in ("pickle", "dill", "cloudpickle", "shelve", "marshal")
                ]
            if isinstance(node, ast.Call):
                call = ast.unparse(node.func)
                keywords = {each.arg: ast.unparse(each.value) for each in node.keywords}
                if keywords.get("allow_pickle", "False") != "False" or call in ("joblib.load", "pickle.load"):
                    found.append(f"{path.name}: {ast.unparse(node)}")
                if call in ("np.load", "numpy.load") and "allow_pickle" not in keywords:
                    found.append(f"{path.name}: {ast.unparse(node)}")
                if call == "torch.load" and (path.parent.name, keywords.get("weights_only")) != ("metrics", "True"):
                    found.append(f"{path.name}: {ast.unparse(node)}")
    assert found == []


def test_no_reader_unpickles(tmp_path):
    """Every reader reads valid files, and damaged ones, in a process in which unpickling is an error.

    The names that an `Unpickler` of one's own looks up are seen by the hook of hostile.py.
    """
    program = (
        "import sys, pickle, _pickle\n"
        "def refuse(*args, **kwargs): raise SystemExit('unpickled')\n"
        "import torch, numpy\n"
        "pickle.load = pickle.loads = _pickle.load = _pickle.loads = refuse\n"
        "torch.load = torch.serialization.load = refuse\n"
        "sys.path.insert(0, sys.argv.pop(1))\n"
        "import hostile\n"
        "hostile.main()\n"
    )
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)}
    words = [sys.executable, "-c", program, str(HERE), str(tmp_path), "77", "4"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-1000:]
    readers = [json.loads(line)["reader"] for line in done.stdout.splitlines()]
    assert len(readers) > 30
