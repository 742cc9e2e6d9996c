"""The PostgreSQL store: several processes at once, a server that does not answer, a connection that breaks."""

import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from contracts.table_worlds import entry, event, postgres_database
from wenfang.core.errors import Broken, Invalid
from wenfang.core.home import Home
from wenfang.core.ports import Changes
from wenfang.core.records import Project
from wenfang.guard.audit import verify_tables
from wenfang.stores import open_tables

HERE = str(Path(__file__).parent.parent)
RACE = """
import sys, pathlib
sys.path.insert(0, sys.argv[2])
from contracts.table_worlds import entry, event
from wenfang.core.errors import Conflict
from wenfang.core.home import Home
from wenfang.core.ports import Changes
from wenfang.core.records import Project
from wenfang.stores import open_tables
store = open_tables(sys.argv[1], Home(pathlib.Path(".")))
won = 0
for n in range(60):
    try:
        store.commit(Changes(puts=[Project(id=f"pj_{sys.argv[3]}_{n}", name=f"n{n}")], events=[event()], audit=[entry(), entry()]))
        won += 1
    except Conflict:
        store.commit(Changes(audit=[entry("failed")]))
print(won)
"""


@pytest.fixture
def url():
    with postgres_database() as url:
        yield url


def test_processes_that_open_and_write_at_once_keep_one_schema_and_one_chain(url, tmp_path):
    processes = [subprocess.Popen([sys.executable, "-c", RACE, url, HERE, str(i)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for i in range(3)]
    answers = [p.communicate(timeout=120) for p in processes]
    assert [p.returncode for p in processes] == [0, 0, 0], answers
    won = [int(out) for out, _ in answers]
    store = open_tables(url, Home(tmp_path))
    assert sum(won) == 60 == len(store.find(Project)) == len(store.events())
    assert [e.seq for e in store.events()] == list(range(1, 61))
    report = verify_tables(store)
    assert report.ok and report.entries == 60 * 2 + 120
    store.close()


def test_a_killed_connection_is_replaced(url, tmp_path):
    store = open_tables(url, Home(tmp_path))
    store.commit(Changes(events=[event()], audit=[entry()]))
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
    store.commit(Changes(events=[event()], audit=[entry()]))
    assert len(store.events()) == 2 and verify_tables(store).ok
    store.close()


def test_a_server_that_does_not_answer_is_told_without_the_password(tmp_path):
    with pytest.raises(Broken) as e:
        open_tables("postgresql://someone:topsecret@127.0.0.1:1/none", Home(tmp_path))
    assert e.value.code == "store.unreachable" and "topsecret" not in str(e.value) + str(e.value.fields)


def test_an_unknown_database_is_told(url, tmp_path):
    with pytest.raises(Broken, match=r"store\.unreachable"):
        open_tables(url + "_not", Home(tmp_path))


def test_a_bad_address_is_told_without_the_password(tmp_path):
    with pytest.raises(Invalid, match=r"store\.bad-url") as e:
        open_tables("postgresql://u:topsecret@h:port/x", Home(tmp_path))
    assert "topsecret" not in str(e.value) + str(e.value.fields)


def test_a_database_that_may_only_be_read_is_told(url, tmp_path):
    store = open_tables(url, Home(tmp_path))
    with psycopg.connect(url, autocommit=True) as other:
        other.execute(f'ALTER DATABASE "{url.rpartition("/")[2]}" SET default_transaction_read_only = on')
        other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
    with pytest.raises(Broken, match=r"store\.write-failed"):
        store.commit(Changes(events=[event()]))
    assert store.events() == []
    store.close()


def test_a_newer_schema_is_refused(url, tmp_path):
    open_tables(url, Home(tmp_path)).close()
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("UPDATE alembic_version SET version_num = '0999'")
    with pytest.raises(Broken, match=r"store\.schema-newer"):
        open_tables(url, Home(tmp_path))


def test_tables_of_something_else_are_left_alone(url, tmp_path):
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("CREATE TABLE jobs (x int)")
    with pytest.raises(Broken, match=r"store\.foreign-tables"):
        open_tables(url, Home(tmp_path))
