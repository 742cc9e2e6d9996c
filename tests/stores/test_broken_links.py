"""Connections that break and descriptors that run out: what was acknowledged is there, what was refused is not, and the store goes on."""

import sqlite3
import subprocess
import sys
import threading
import time

import psycopg
import pytest

from contracts.table_worlds import POSTGRES, entry, event, opened, pointer, postgres_database
from wenfang.core.errors import Broken, WenfangError
from wenfang.core.home import Home
from wenfang.core.ids import new_id
from wenfang.core.ports import Changes
from wenfang.core.records import Project
from wenfang.guard.audit import verify_tables
from wenfang.stores import open_tables


def test_postgresql_connections_killed_under_load_lose_and_double_nothing(tmp_path):
    """The answer to a COMMIT may be lost with the connection: the store finds out whether it was done."""
    with postgres_database() as url, opened("postgresql", tmp_path, lambda: url) as tables, psycopg.connect(POSTGRES, autocommit=True) as axe:
        stop, done, refused = threading.Event(), [], []

        def write():
            while not stop.is_set():
                id = new_id("pj")
                try:
                    tables.commit(Changes(puts=[Project(id=id, name=id)], audit=[entry()]))
                    done.append(id)
                except WenfangError as e:
                    refused.append((id, e.code))

        writers = [threading.Thread(target=write) for _ in range(3)]
        for w in writers:
            w.start()
        for _ in range(8):
            time.sleep(0.15)
            axe.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (url.rpartition("/")[2],))
        stop.set()
        for w in writers:
            w.join()
        assert refused == [] and len(done) > 8
        assert {p.id for p in tables.find(Project, limit=1_000_000)} == set(done)
        report = verify_tables(tables)
        assert report.ok and report.entries == len(done)


@pytest.mark.parametrize(
    "table,change",
    [("audit", "at = 'yesterday'"), ("audit", "outcome = 'maybe'"), ("audit", "detail = '{'"), ("events", "at = '2026-13-01'"), ("events", "data = '[]'"), ("pointers", "at = ''")],
)
def test_a_damaged_line_of_a_log_is_told_by_its_number(tmp_path, table, change):
    home = Home(tmp_path / "h").prepare()
    tables = open_tables("sqlite:", home)
    tables.commit(Changes(pointers=[pointer(), pointer()], events=[event(), event()], audit=[entry(), entry()]))
    tables.close()
    with sqlite3.connect(home.database) as raw:
        raw.execute(f"UPDATE {table} SET {change} WHERE seq = 2")
    raw.close()
    tables = open_tables("sqlite:", home)
    with pytest.raises(Broken) as e:
        {"audit": tables.audit, "events": tables.events, "pointers": lambda: tables.pointers("service")}[table]()
    assert (e.value.code, e.value.fields) == ("store.damaged-row", {"table": table, "id": 2})
    tables.close()


def test_a_text_that_is_no_text_any_more_is_told_as_damage(tmp_path):
    home = Home(tmp_path / "h").prepare()
    tables = open_tables("sqlite:", home)
    tables.commit(Changes(puts=[Project(id="pj_1", name="x")]))
    tables.close()
    with sqlite3.connect(home.database) as raw:
        raw.execute("UPDATE projects SET body = CAST(x'7bff7d' AS TEXT)")
    raw.close()
    tables = open_tables("sqlite:", home)
    for read in (lambda: tables.get(Project, "pj_1"), lambda: tables.find(Project)):
        with pytest.raises(Broken, match=r"store\.damaged"):
            read()
    tables.close()


STARVED = """
import os, pathlib, resource, socket, sys, time
from wenfang.core.home import Home
from wenfang.core.records import Project
from wenfang.stores import open_tables
from wenfang.stores.remote import RemoteTables
from wenfang.stores.served import serve_tables
home = Home(pathlib.Path(sys.argv[1])).prepare()
server = serve_tables(open_tables("memory:", home), home.run / "t.sock")
first = RemoteTables(home.run / "t.sock", wait_s=5.0)
first.find(Project)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
taken = []
try:
    while True:
        taken.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    os.close(taken.pop())
knock = socket.socket(socket.AF_UNIX)  # takes the last descriptor: the server has none to answer with
knock.connect(str(home.run / "t.sock"))
time.sleep(0.3)
print(first.find(Project))
knock.close()
for fd in taken:
    os.close(fd)
second = RemoteTables(home.run / "t.sock", wait_s=5.0)
print(second.find(Project))
server.close()
"""


def test_a_server_that_ran_out_of_descriptors_answers_again_when_there_are_some(tmp_path):
    done = subprocess.run([sys.executable, "-W", "error", "-c", STARVED, str(tmp_path / "h")], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["[]", "[]"]), done.stderr
