"""Tar archives of images: read as the folder they unpack to, and safely."""

from __future__ import annotations

import gzip
import io
import shutil
import tarfile
from typing import Any

import numpy as np
import pytest
from PIL import Image

from expost.data import load_data
from expost.errors import DataError


def png(shade):
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8), shade, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def pack(path, entries):
    """Write an archive: of each entry a name, and its contents, or its type with what it links to."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind: Any = {"gz": "w:gz", "tgz": "w:gz", "bz2": "w:bz2", "xz": "w:xz"}.get(path.name.rpartition(".")[2], "w")
    with tarfile.open(path, kind) as archive:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = content
                archive.addfile(info)
    return path


PETS = {
    f"pets/{part}/{name}/{i}.png": png(20 * i + 7 * (name == "dog") + (part == "test"))
    for part in ("train", "test")
    for name in ("dog", "cat")
    for i in range(6)
}


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "x.tgz", "x.TAR.BZ2", "x.tar.xz"])
def test_an_archive_is_the_folder_that_it_unpacks_to(name, tmp_path):
    entries = [*reversed(PETS.items()), ("pets/README", b"hello"), ("__MACOSX/pets/train/cat/a.png", b"x")]
    data = load_data(pack(tmp_path / name, entries))
    for place, content in PETS.items():
        target = tmp_path / "folder" / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    same = load_data(tmp_path / "folder")
    for ours, theirs in ((data.train, same.train), (data.validation, same.validation), (data.test, same.test)):
        assert ours.x.equal(theirs.x)
        assert ours.y.equal(theirs.y)
    assert data.classes == ("cat", "dog")
    assert "ignored 1 other file in the archive" in data.note
    assert not [path for path in tmp_path.iterdir() if path.name not in ("folder", name)]


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_shards_with_classes_beside_the_images(suffix, tmp_path):
    for part, count in (("train", 3), ("val", 1)):
        for shard in range(count):
            entries = []
            for i in range(8):
                key = f"{8 * shard + i:06}"
                entries += [
                    (f"{key}.jpg", png(10 * i + shard)),
                    (f"{key}.cls", f"{i % 2}\n".encode()),
                    (f"{key}.json", b"{}"),
                ]
            pack(tmp_path / f"pets-{part}-{shard:06}.{suffix}", entries)
    data = load_data(tmp_path)
    assert len(data.validation) == 8
    assert len(data.train) + len(data.test) == 24
    for split in (data.train, data.validation, data.test):
        assert (split.x[:, 0, 0, 0] // 10 % 2).tolist() == split.y.tolist()
    assert "classes of the .cls files" in data.note
    assert "ignored 32 other files in the archives" in data.note


def test_numbered_archives_are_shards_and_others_are_classes(tmp_path):
    for name in ("part-00", "part-01"):
        pack(tmp_path / "shards" / f"{name}.tar", [(f"{name}{i}.png", png(10 * i)) for i in range(10)])
    for name in ("n01440764", "n02102040"):
        pack(tmp_path / "classes" / f"{name}.tar", [(f"{name}_{i}.png", png(10 * i)) for i in range(10)])
    assert load_data(tmp_path / "shards").train.y is None
    assert load_data(tmp_path / "classes").classes == ("n01440764", "n02102040")


def test_links_and_names_that_lead_out_are_not_followed(tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(1))
    entries = [
        *((f"{i}.png", png(20 * i)) for i in range(6)),
        ("link.png", (tarfile.SYMTYPE, str(secret))),
        ("hard.png", (tarfile.LNKTYPE, "0.png")),
        ("pipe.png", (tarfile.FIFOTYPE, "")),
        ("device.png", (tarfile.CHRTYPE, "")),
        ("../up.png", png(1)),
        (str(secret), png(1)),
    ]
    data = load_data(pack(tmp_path / "x.tar", entries))
    shades = sorted(int(x[0, 0, 0]) for split in (data.train, data.validation, data.test) for x in split.x)
    assert shades == [0, 20, 40, 60, 80, 100]
    assert "ignored 6 other files" in data.note


def test_declared_sizes_are_checked_before_memory_is_asked_for(tmp_path):
    info = tarfile.TarInfo("a.png")
    info.size = 2**40
    long = tarfile.TarInfo("././@PaxHeader")
    long.type, long.size = tarfile.XHDTYPE, 2**29
    for name, header in (("size", info), ("header", long)):
        (tmp_path / f"{name}.tar").write_bytes(header.tobuf() + bytes(2048))
        with pytest.raises(DataError, match=r"x?\.tar is damaged, or unpacks to more than 0 MiB; restore it"):
            load_data(tmp_path / f"{name}.tar")
        with gzip.open(tmp_path / f"{name}.tar.gz", "wb") as file:
            file.write(header.tobuf() + bytes(2048))
        with pytest.raises(DataError, match=r"\.tar\.gz (is damaged, or unpacks to more|declares 536,870,912 bytes)"):
            load_data(tmp_path / f"{name}.tar.gz")


def test_a_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("expost.data.tar_archives._FREE", 2**20)
    entries = [("a.png", png(0)), ("zeros.bin", bytes(2**23))]
    with pytest.raises(
        DataError, match=r"x.tar.xz is damaged, or unpacks to more than 1 MiB; restore it, or unpack it"
    ):
        load_data(pack(tmp_path / "x.tar.xz", entries))


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_damage_is_one_line(suffix, tmp_path):
    whole = pack(tmp_path / f"whole.{suffix}", list(PETS.items())).read_bytes()
    path = tmp_path / f"x.{suffix}"
    for length in range(0, len(whole) * 3 // 4, max(1, len(whole) // 12)):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"x.tar[^\n]*(restore it|pass its folder)$"):
            load_data(path)
    path.write_bytes(b"\0" * 10_000)
    with pytest.raises(DataError, match=r"x.tar.* holds no images, only 0 other files"):
        load_data(path)
    path.write_bytes(whole[: len(whole) // 2] + b"x" * 4000)
    with pytest.raises(DataError, match=r"x.tar[^\n]*restore it"):
        load_data(path)
    shutil.copy(__file__, path)
    with pytest.raises(DataError, match=r"cannot read .*x.tar"):
        load_data(path)
