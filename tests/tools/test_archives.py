"""Archives: what is good comes out whole, what is not writes nothing outside of its folder."""

import io
import os
import random
import stat
import tarfile
import zipfile

import pytest

from tools import fuzz
from tools.sources import archives

FILES = {"set/list.csv": b"path,label\na.png,1\n", "set/images/a b.png": b"\x89PNG" * 100}


def zipped(path, entries, **settings):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = settings.get("mode", stat.S_IFREG | 0o644) << 16
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)
    return path


def tarred(path, entries, mode="w:gz", **fields):
    with tarfile.open(path, mode) as archive:
        for name, content in entries.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for field, value in fields.items():
                setattr(info, field, value)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize(
    "make",
    [
        lambda place: zipped(place / "a.ZIP", FILES),
        lambda place: tarred(place / "a.tar.gz", FILES),
        lambda place: tarred(place / "a.tar", FILES, "w"),
    ],
)
def test_an_archive_becomes_its_folder(make, tmp_path):
    (tmp_path / "out").mkdir()
    root = archives.unpack(make(tmp_path), tmp_path / "out")
    assert root == tmp_path / "out/set"
    assert {
        file.relative_to(root.parent).as_posix(): file.read_bytes()
        for file in root.rglob("*")
        if file.is_file()
    } == FILES


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda place: zipped(place / "a.zip", {**FILES, "../evil": b"x"}), "'../evil' leads out"),
        (lambda place: zipped(place / "a.zip", {**FILES, "set/..\\..\\evil": b"x"}), "leads out"),
        (lambda place: zipped(place / "a.zip", {**FILES, "/evil": b"x"}), "'/evil' leads out"),
        (lambda place: zipped(place / "a.zip", {"C:/evil": b"x"}), "leads out"),
        (
            lambda place: zipped(
                place / "a.zip", {"link": b"/etc/passwd"}, mode=stat.S_IFLNK | 0o777
            ),
            "is a link",
        ),
        (
            lambda place: zipped(place / "a.zip", {"zeros": bytes(10_000_000)}),
            "expected at most .* 200 times the bytes",
        ),
        (lambda place: tarred(place / "a.tgz", {"../evil": b"x"}), "leads out"),
        (lambda place: tarred(place / "a.tgz", {"/evil": b"x"}), "leads out"),
        (
            lambda place: tarred(
                place / "a.tgz", {"link": b""}, type=tarfile.SYMTYPE, linkname="/etc/passwd"
            ),
            "is a link",
        ),
        (
            lambda place: tarred(
                place / "a.tgz", {"link": b""}, type=tarfile.LNKTYPE, linkname="../../x"
            ),
            "is a link",
        ),
        (
            lambda place: tarred(place / "a.tgz", {"pipe": b""}, type=tarfile.FIFOTYPE),
            "is a link or a device",
        ),
        (
            lambda place: tarred(place / "a.tgz", {"zeros": bytes(10_000_000)}),
            "200 times the bytes",
        ),
        (lambda place: place / "none.zip", "No such file"),
    ],
)
def test_what_is_refused_is_not_written(make, words, tmp_path):
    archive, folder = make(tmp_path), tmp_path / "deep/out"
    folder.mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=words):
        archives.unpack(archive, folder)
    assert sorted(tmp_path.rglob("*")) == before


def test_more_than_the_disk_holds(tmp_path, monkeypatch):
    monkeypatch.setattr(
        archives.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 10})
    )
    with pytest.raises(ValueError, match="its files take 419 bytes, and the disk of .* has 10"):
        archives.unpack(zipped(tmp_path / "a.zip", FILES), tmp_path)


@pytest.mark.parametrize(
    "make",
    [
        lambda place: zipped(place / "a.zip", FILES),
        lambda place: tarred(place / "a.tar", FILES, "w"),
    ],
)
def test_damaged_archives_are_unpacked_or_refused(make, tmp_path):
    archive = make(tmp_path)
    good, draw = archive.read_bytes(), random.Random(0)
    outcomes = set()
    for number in range(150):
        archive.write_bytes(fuzz.edited(good, draw))
        folder = tmp_path / f"deep/out{number}"
        folder.mkdir(parents=True)
        try:
            archives.unpack(archive, folder)
            outcomes.add("unpacked")
        except ValueError as error:
            assert "is not unpacked: " in str(error)
            outcomes.add("refused")
        assert (
            sorted(os.listdir(tmp_path)) == [archive.name, "deep"]
            and len(os.listdir(tmp_path / "deep")) == number + 1
        )
    assert outcomes == {"unpacked", "refused"}
