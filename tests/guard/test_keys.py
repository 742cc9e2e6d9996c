"""API keys, the installation's key pair, and who is trusted."""

import os
import subprocess
import sys
import threading

import pytest

from wenfang.core.errors import Broken
from wenfang.guard.keys import PRIVATE_KEY_FILE, Ed25519Signer, TrustedKeys, digest, new_key


def test_keys_are_long_random_and_safe_in_headers():
    keys = {new_key() for _ in range(200)}
    assert len(keys) == 200
    assert all(k.startswith("wf_") and len(k) == 55 and k[3:].isalnum() and k.isascii() for k in keys)


@pytest.mark.parametrize("odd", ["", "\x00", "\ud800", "文房", "x" * 100_000])
def test_any_string_has_a_digest(odd):
    assert len(digest(odd)) == 64


def test_sign_and_verify(tmp_path):
    signer = Ed25519Signer(tmp_path)
    signature = signer.sign(b"data")
    assert len(signature) == 64 and len(signer.key_id()) == 16
    trusted = TrustedKeys(tmp_path)
    trusted.verify(b"data", signature, signer.key_id())
    for data, sig in ((b"Data", signature), (b"data", bytes([signature[0] ^ 1]) + signature[1:]), (b"data", b""), (b"data", b"x" * 64)):
        with pytest.raises(Broken, match=r"signature\.bad"):
            trusted.verify(data, sig, signer.key_id())


def test_the_same_key_after_reopening(tmp_path):
    assert Ed25519Signer(tmp_path).key_id() == Ed25519Signer(tmp_path).key_id()
    assert (tmp_path / PRIVATE_KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".key", ".pub"]


def test_a_stranger_is_unknown_until_trusted(tmp_path):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    Ed25519Signer(ours)
    stranger = Ed25519Signer(theirs)
    trusted = TrustedKeys(ours)
    with pytest.raises(Broken, match=r"signature\.unknown-signer"):
        trusted.verify(b"x", stranger.sign(b"x"), stranger.key_id())
    public = theirs / f"{stranger.key_id()}.pub"
    (ours / public.name).write_bytes(public.read_bytes())
    trusted.verify(b"x", stranger.sign(b"x"), stranger.key_id())
    assert len(trusted.key_ids()) == 2


def test_a_private_key_others_can_read_is_refused(tmp_path):
    Ed25519Signer(tmp_path)
    (tmp_path / PRIVATE_KEY_FILE).chmod(0o644)
    with pytest.raises(Broken, match=r"key\.too-open"):
        Ed25519Signer(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_damaged_key_files_are_told(tmp_path, content):
    signer = Ed25519Signer(tmp_path)
    (tmp_path / f"{signer.key_id()}.pub").write_bytes(content)
    with pytest.raises(Broken, match=r"key\.damaged"):
        TrustedKeys(tmp_path)
    (tmp_path / PRIVATE_KEY_FILE).write_bytes(content)
    with pytest.raises(Broken, match=r"key\.damaged"):
        Ed25519Signer(tmp_path)


def test_many_who_start_at_once_agree_on_one_key(tmp_path):
    found = []
    threads = [threading.Thread(target=lambda: found.append(Ed25519Signer(tmp_path).key_id())) for _ in range(16)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(found) == 16 and len(set(found)) == 1
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".tmp-")]


def test_killed_at_every_point_of_making_the_key(tmp_path):
    code = "import sys, pathlib; from wenfang.guard.keys import Ed25519Signer as S; print(S(pathlib.Path(sys.argv[1])).key_id())"
    log = tmp_path / "log"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "k0")], env={**os.environ, "WENFANG_CRASH_LOG": str(log)}, check=True, capture_output=True)
    points = len(log.read_text().splitlines())
    assert points >= 8
    for at in range(1, points + 1):
        folder = tmp_path / f"k{at}"
        done = subprocess.run([sys.executable, "-c", code, str(folder)], env={**os.environ, "WENFANG_CRASH_AT": str(at)}, capture_output=True, check=False)
        assert done.returncode == -9
        signer = Ed25519Signer(folder)
        TrustedKeys(folder).verify(b"x", signer.sign(b"x"), signer.key_id())
