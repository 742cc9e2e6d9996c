"""Blobs on files: damage, leftovers, kills at every point, a full disk, bounded memory."""

import hashlib
import os
import subprocess
import sys
import time

import pytest

from contracts.killed import killed_at_every_point
from contracts.small_disk import small_disk
from wenfang.core.errors import Broken, Invalid
from wenfang.core.home import Home
from wenfang.stores import open_blobs
from wenfang.stores.blobs.file import FileBlobs

DATA = b"some bytes" * 1000


def place(blobs, name):
    return blobs.folder / name[:2] / name[2:]


def drafts(folder):
    return list(folder.rglob(".tmp-*"))


@pytest.mark.parametrize("damage", ["flip", "cut", "grow", "empty"])
def test_damage_is_found_when_read_and_the_file_is_left_alone(tmp_path, damage):
    blobs = FileBlobs(tmp_path / "b")
    name = blobs.put(DATA)
    bad = {"flip": DATA[:500] + bytes([DATA[500] ^ 1]) + DATA[501:], "cut": DATA[:-1], "grow": DATA + b"x", "empty": b""}[damage]
    place(blobs, name).write_bytes(bad)
    with pytest.raises(Broken, match=r"blob\.damaged"):
        blobs.get(name)
    with pytest.raises(Broken, match=r"blob\.damaged"):
        blobs.fetch(name, tmp_path / "copy")
    assert not (tmp_path / "copy").exists() and drafts(tmp_path) == []
    assert place(blobs, name).read_bytes() == bad
    blobs.put(DATA)  # a file of another length is no blob: it is written again
    assert (blobs.get(name) == DATA) if damage != "flip" else place(blobs, name).read_bytes() == bad


def test_existing_content_is_not_written_again(tmp_path):
    blobs = FileBlobs(tmp_path / "b")
    name = blobs.put(DATA)
    before = place(blobs, name).stat()
    (tmp_path / "f").write_bytes(DATA)
    blobs.put(DATA)
    blobs.put_file(tmp_path / "f")
    after = place(blobs, name).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns) and drafts(tmp_path) == []


def test_old_drafts_are_cleaned_and_young_ones_left(tmp_path):
    folder = tmp_path / "b"
    FileBlobs(folder)
    for name, age_s in ((".tmp-old", 3700), (".tmp-young", 60)):
        (folder / name).write_bytes(b"x")
        os.utime(folder / name, (time.time() - age_s,) * 2)
    FileBlobs(folder)
    assert [p.name for p in folder.iterdir()] == [".tmp-young"]


def test_urls(tmp_path):
    home = Home(tmp_path / "h").prepare()
    assert open_blobs("file:", home).folder == home.blobs
    assert open_blobs(f"file://{tmp_path}/a%20b", home).folder == tmp_path / "a b"
    for url in ("s3://x", "nothing", "file:relative", "file://host/x", ""):
        with pytest.raises(Invalid, match=r"store\.bad-url"):
            open_blobs(url, home)


def test_a_folder_without_permission_is_told(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Broken, match=r"home\.write-failed"):
        FileBlobs(tmp_path / "file" / "b")


PUT = """
from wenfang.stores.blobs.file import FileBlobs
blobs = FileBlobs(folder)
for data in (b"first" * 1000, b"second" * 1000, b"first" * 1000):
    print(blobs.put(data))
print(blobs.put_chunks(iter([b"third", b"part"])))
"""


def test_killed_at_every_point_of_putting_nothing_acknowledged_is_lost_and_nothing_is_half(tmp_path):
    runs = killed_at_every_point(PUT, tmp_path, "import wenfang.stores.blobs.file")
    assert len(runs) >= 17 and len(runs[0][2]) == 4
    for _, folder, acknowledged in runs:
        blobs = FileBlobs(folder)
        for name in acknowledged:
            blobs.get(name)
        for path in folder.glob("??/*"):  # whatever stands there is complete
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.parent.name + path.name
        again = [blobs.put(b"first" * 1000), blobs.put(b"second" * 1000), blobs.put(b"thirdpart")]
        assert set(again) == set(runs[0][2]) and all(blobs.get(name) for name in again)


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        blobs = FileBlobs(disk / "b")
        kept = blobs.put(DATA)
        with pytest.raises(Broken, match=r"home\.write-failed") as e:
            blobs.put(b"x" * (8 << 20))
        assert e.value.fields["reason"] == "No space left on device"
        with pytest.raises(Broken, match=r"home\.write-failed"):
            blobs.put_chunks(os.urandom(1 << 20) for _ in range(8))
        assert drafts(disk) == [] and blobs.get(kept) == DATA
        more = blobs.put(b"y" * 1000)  # there is room again, and the store goes on
        assert blobs.has(more)


def test_a_large_file_passes_in_bounded_memory(tmp_path):
    code = """
import sys, pathlib
from wenfang.stores.blobs.file import FileBlobs
blobs, source, copy = FileBlobs(pathlib.Path(sys.argv[1])), pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
def peak_kib():  # not ru_maxrss, which begins at the size of the process that forked us
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
before = peak_kib()
blobs.fetch(blobs.put_file(source), copy)
print(peak_kib() - before)
"""
    with open(tmp_path / "source", "wb") as f:
        f.truncate(200 << 20)
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "b"), str(tmp_path / "source"), str(tmp_path / "copy")], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 16 << 10  # KiB
    assert (tmp_path / "copy").stat().st_size == 200 << 20
