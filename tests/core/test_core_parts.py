import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wenfang.core.errors import Broken, Conflict, Invalid, NotFound
from wenfang.core.examples import Examples, Span
from wenfang.core.frames import FrameClient, from_error, recv_frame, send_frame
from wenfang.core.home import Home, HomeLock
from wenfang.core.ids import new_id
from wenfang.core.settings import explain_settings, load_settings
from wenfang.core.text import fold, script_of
from wenfang.models import families


@given(st.text())
def test_the_folded_view_has_the_same_length(text):
    assert len(fold(text)) == len(text)


def test_folding():
    assert fold("ＡＢＣ　１２３！") == "abc 123!" and fold("İ") == "İ"
    assert script_of("これは") == "kana" and script_of("привет") == "cyrillic" and script_of("𠀀𠀁") == "han"


def test_ids_sort_by_age_across_threads():
    made = []
    threads = [threading.Thread(target=lambda: made.extend(new_id("dv") for _ in range(500))) for _ in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert len(set(made)) == 2000


def test_an_id_is_its_moment_and_80_bits_in_base_32(monkeypatch):
    monkeypatch.setattr("wenfang.core.ids._last", 0)
    monkeypatch.setattr("os.urandom", lambda n: bytes(range(n)))
    for ms in (0, 1, 31, 1024, 1_764_000_000_123, 2**48 - 1):
        monkeypatch.setattr("time.time_ns", lambda ms=ms: ms * 1_000_000 + 999_999)
        value = (ms << 80) | int.from_bytes(bytes(range(10)), "big")
        digits = "".join("0123456789abcdefghjkmnpqrstvwxyz"[value >> shift & 31] for shift in range(125, -1, -5))
        assert new_id("dv") == f"dv_{digits}"
    assert new_id("dv")[-4:] > digits[-4:]  # the same moment again: the next number


def test_settings_come_from_file_then_environment(tmp_path):
    (tmp_path / "wenfang.toml").write_text("[serve]\nport = 9000\nqueue_max = 5\n")
    s = load_settings(tmp_path, {"WENFANG_SERVE__PORT": "9001", "WENFANG_HOME": "x", "WENFANG_TEST_X": "y", "OTHER": "z"})
    assert (s.serve.port, s.serve.queue_max, s.serve.batch_max) == (9001, 5, 8)
    assert {x["key"]: x["origin"] for x in explain_settings(tmp_path, {"WENFANG_SERVE__PORT": "9001"})}["serve.port"] == "WENFANG_SERVE__PORT"


@pytest.mark.parametrize(
    ("toml", "env", "code"),
    [
        ("[serve\n", {}, "settings.unreadable"),
        ("[serve]\nprot=1\n", {}, "settings.unknown-key"),
        ("[serve]\nport=99999\n", {}, "settings.bad-value"),
        ("", {"WENFANG_SEVRE__PORT": "1"}, "settings.unknown-key"),
        ("", {"WENFANG_PORT": "1"}, "settings.unknown-key"),
    ],
)
def test_wrong_settings_are_told(tmp_path, toml, env, code):
    (tmp_path / "wenfang.toml").write_text(toml)
    with pytest.raises(Invalid) as e:
        load_settings(tmp_path, env)
    assert e.value.code == code


def test_a_home_is_locked_by_one_and_freed_with_it(tmp_path):
    home = Home(tmp_path / "h").prepare()
    with HomeLock(home), pytest.raises(Conflict, match="home.in-use"):
        HomeLock(home)
    HomeLock(home).release()
    assert home.keys.stat().st_mode & 0o777 == 0o700


def test_a_home_path_too_long_for_sockets_is_refused_at_once(tmp_path):
    with pytest.raises(Broken, match="path-too-long"):
        Home(tmp_path / ("x" * 90)).prepare()


def test_frames_carry_answers_and_errors(tmp_path):
    path = tmp_path / "s"
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()

    def serve():
        peer, _ = server.accept()
        with peer:
            asked = recv_frame(peer)
            send_frame(peer, {"answer": asked["n"] + 1})
            recv_frame(peer)
            send_frame(peer, {"error": from_error(NotFound("plugin.unknown", kind="family", name="x", near="y"))})
            recv_frame(peer)

    thread = threading.Thread(target=serve)
    thread.start()
    client = FrameClient(path)
    assert client.call("add", n=1) == 2
    with pytest.raises(NotFound, match="plugin.unknown"):
        client.call("fail")
    with pytest.raises(Broken, match="not-answering"):
        client.call("gone")
    client.close()
    thread.join()
    server.close()
    with pytest.raises(Broken, match="not-answering"):
        FrameClient(tmp_path / "nobody")


def test_an_unknown_plugin_offers_the_nearest():
    with pytest.raises(NotFound) as e:
        families.get("majorty")
    assert "majority" in e.value.hint("en")


def test_examples_are_taken_and_joined_in_columns():
    a = Examples("tagging", ["ab", "c"], spans=[(Span(0, 1, "x"),), ()], ids=["1", "2"])
    assert a.take([1]).texts == ["c"] and len(a + a) == 4 and a.label_names() == ["x"] and [len(b) for b in a.batches(1)] == [1, 1]
