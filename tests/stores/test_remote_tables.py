"""Tables over a socket: the server restarts, dies in mid-call, answers get lost."""

import socket
import struct
import subprocess
import sys
import threading
import time

import pytest

from contracts.table_worlds import entry, event, sample
from wenfang.core.errors import Broken, Conflict
from wenfang.core.frames import FrameClient, recv_frame, send_frame
from wenfang.core.home import Home
from wenfang.core.ports import Changes
from wenfang.core.records import Job, Project
from wenfang.guard.audit import verify_tables
from wenfang.stores import open_tables
from wenfang.stores.remote import RemoteTables
from wenfang.stores.served import serve_tables


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "h").prepare()


@pytest.fixture
def path(home):
    return home.run / "studio.sock"


def test_a_restart_of_the_server_goes_unnoticed(home, path):
    """Many writers work while the control process comes and goes; each commit is done, and done once."""
    store = open_tables("sqlite:", home)
    server = serve_tables(store, path)
    faults = []

    def work(i):
        remote = RemoteTables(path, wait_s=20)
        try:
            for n in range(15):
                remote.commit(Changes(puts=[Project(id=f"pj_{i}_{n}", name=f"{i}-{n}")], events=[event()], audit=[entry()]))
                assert remote.get(Project, f"pj_{i}_{n}").name == f"{i}-{n}"
        except BaseException as e:
            faults.append(e)
        finally:
            remote.close()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for _ in range(4):
        time.sleep(0.1)
        server.close()
        store.close()
        store = open_tables("sqlite:", home)
        server = serve_tables(store, path)
    for t in threads:
        t.join()
    assert faults == []
    assert len(store.find(Project)) == len(store.events()) == verify_tables(store).entries == 60
    server.close()
    store.close()
    assert not path.exists()


def test_a_commit_whose_answer_is_lost_is_done_once(home, path):
    """A real socket between both that swallows the first answer to a commit."""
    store = open_tables("sqlite:", home)
    server = serve_tables(store, home.run / "real.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    swallowed = []

    def between():
        for _ in range(2):
            near, _ = listener.accept()
            with near, socket.socket(socket.AF_UNIX) as far:
                far.connect(str(home.run / "real.sock"))
                try:
                    while True:
                        message = recv_frame(near)
                        send_frame(far, message)
                        answer = recv_frame(far)
                        if message["call"] == "commit" and not swallowed:
                            swallowed.append(answer)
                            break
                        send_frame(near, answer)
                except EOFError:
                    continue

    thread = threading.Thread(target=between)
    thread.start()
    remote = RemoteTables(path, wait_s=5)
    remote.commit(Changes(puts=[Project(id="pj_1", name="x")], events=[event()], audit=[entry()]))
    remote.close()
    thread.join()
    listener.close()
    assert swallowed == [{"answer": None}]
    assert len(store.events()) == len(store.audit()) == 1
    server.close()
    store.close()


SERVE = """
import sys, pathlib, time
from wenfang.core.home import Home
from wenfang.stores import open_tables
from wenfang.stores.served import serve_tables
home = Home(pathlib.Path(sys.argv[1]))
server = serve_tables(open_tables("sqlite:", home), home.run / "studio.sock")
print("up", flush=True)
time.sleep(60)
"""


def test_a_server_killed_in_the_middle_loses_nothing(home, path):
    def start():
        process = subprocess.Popen([sys.executable, "-c", SERVE, str(home.root)], stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "up\n"
        return process

    process, done, faults = start(), [], []

    def work():
        remote = RemoteTables(path, wait_s=25)
        try:
            job = sample(Job, id="jb_1", attempts=0, revision=0)
            remote.commit(Changes(puts=[job]))
            for n in range(1, 120):
                remote.commit(Changes(updates=[(job.model_copy(update={"attempts": n, "revision": n}), n - 1)], audit=[entry()]))
                done.append(n)
        except BaseException as e:
            faults.append(e)
        finally:
            remote.close()

    thread = threading.Thread(target=work)
    thread.start()
    for wanted in (15, 40, 80):
        while len(done) < wanted and thread.is_alive():
            time.sleep(0.005)
        process.kill()
        process.wait()
        process.stdout.close()
        process = start()
    thread.join()
    process.kill()
    process.wait()
    process.stdout.close()
    assert faults == []
    store = open_tables("sqlite:", home)
    assert store.get(Job, "jb_1").attempts == 119 and verify_tables(store).entries == 119
    store.close()


def test_nobody_there_is_told_after_the_wait(path):
    remote = RemoteTables(path, wait_s=0.3)
    start = time.monotonic()
    with pytest.raises(Broken, match=r"process\.not-answering"):
        remote.get(Project, "x")
    assert 0.1 < time.monotonic() - start < 3
    remote.close()


def test_an_error_leaves_the_connection_in_use(home, path):
    with_store = open_tables("memory:", home)
    server = serve_tables(with_store, path)
    remote = RemoteTables(path)
    for _ in range(3):
        with pytest.raises(Conflict):
            remote.commit(Changes(puts=[Project(id="pj_1", name="x"), Project(id="pj_1", name="y")]))
    assert len(remote._idle) == 1 == len(server._connections)
    remote.close()
    server.close()


def test_odd_frames_get_an_error_and_the_server_goes_on(home, path):
    server = serve_tables(open_tables("memory:", home), path)
    client = FrameClient(path)
    for name, arguments in (("drop_everything", {}), ("get", {}), ("get", {"kind": "nope", "id": "x"}), ("commit", {"puts": 3}), ("commit", {"puts": [["projects", "{"]]})):
        with pytest.raises(Broken):
            client.call(name, **arguments)
    client.close()
    for raw in (struct.pack(">I", 1 << 31), struct.pack(">I", 3) + b"\xc1\xc1\xc1", b"\x00", b""):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
            sock.sendall(raw)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(4096):
                pass
    remote = RemoteTables(path)
    assert remote.find(Project) == []
    remote.close()
    server.close()


def test_the_socket_is_for_its_user_only_and_a_dead_one_is_replaced(home, path):
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    server = serve_tables(open_tables("memory:", home), path)
    assert path.stat().st_mode & 0o777 == 0o600
    remote = RemoteTables(path)
    assert remote.find(Project) == []
    remote.close()
    second = serve_tables(open_tables("memory:", home), path)
    server.close()  # the successor's socket stays
    assert path.exists()
    second.close()
    second.close()
    assert not path.exists() and [p.name for p in home.run.iterdir()] == []
