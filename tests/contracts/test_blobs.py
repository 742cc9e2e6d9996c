"""What every store of bytes promises."""

import hashlib
import threading

import pytest

from wenfang.core.errors import Broken, NotFound
from wenfang.core.home import Home
from wenfang.stores import BLOB_STORES, open_blobs


@pytest.fixture(params=BLOB_STORES.names())
def blobs(request, tmp_path):
    return open_blobs(f"{request.param}:", Home(tmp_path / "h").prepare())


CONTENTS = [b"", b"x", "文房".encode(), bytes(range(256)) * 10_000]


@pytest.mark.parametrize("data", CONTENTS, ids=len)
def test_bytes_come_back_under_their_hash(blobs, data, tmp_path):
    name = hashlib.sha256(data).hexdigest()
    assert not blobs.has(name)
    (tmp_path / "source").write_bytes(data)
    assert blobs.put(data) == blobs.put_file(tmp_path / "source") == blobs.put_chunks(data[i : i + 999] for i in range(0, len(data), 999)) == name
    assert blobs.has(name) and blobs.get(name) == data
    blobs.fetch(name, tmp_path / "deep" / "er" / "copy")
    assert (tmp_path / "deep" / "er" / "copy").read_bytes() == data
    assert [p.name for p in (tmp_path / "deep" / "er").iterdir()] == ["copy"]


def test_fetch_replaces_what_was_there(blobs, tmp_path):
    (tmp_path / "copy").write_bytes(b"old")
    blobs.fetch(blobs.put(b"new"), tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"new"


@pytest.mark.parametrize("name", ["", "0" * 64, "0" * 63, "G" * 64, "../" * 21 + "x", "/etc/passwd", "ab/" + "0" * 61, "A" * 64, "\x00" * 64, "文" * 64, "\ud800", "0" * 64 + "\n"])
def test_what_is_not_there_is_missing_whatever_its_name(blobs, name, tmp_path):
    with pytest.raises(NotFound) as e:
        blobs.get(name)
    assert e.value.code == "blob.missing" and e.value.detail("zh").encode()
    with pytest.raises(NotFound):
        blobs.fetch(name, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_has_takes_only_names(blobs):
    assert not blobs.has("0" * 64)
    with pytest.raises(NotFound):
        blobs.has("../../secret")


def test_a_stream_that_breaks_leaves_nothing(blobs):
    def broken():
        yield b"half"
        raise RuntimeError("gone")

    with pytest.raises(RuntimeError):
        blobs.put_chunks(broken())
    assert not blobs.has(hashlib.sha256(b"half").hexdigest())


def test_a_file_that_is_not_there_is_told(blobs, tmp_path):
    with pytest.raises(Broken, match=r"blob\.source-unreadable"):
        blobs.put_file(tmp_path / "none")


def test_many_put_the_same_at_once(blobs):
    data, names = b"same" * 100_000, []
    threads = [threading.Thread(target=lambda: names.append(blobs.put(data))) for _ in range(12)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert names == [hashlib.sha256(data).hexdigest()] * 12 and blobs.get(names[0]) == data
