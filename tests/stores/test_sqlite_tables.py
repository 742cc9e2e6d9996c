"""The SQLite store: one holder, damage, schema, kills at every commit, a full disk."""

import os
import sqlite3
import subprocess
import sys

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from contracts.killed import killed_at_every_point
from contracts.small_disk import small_disk
from contracts.table_worlds import entry, event, postgres_database, sample
from wenfang.core.errors import Broken, Conflict, Invalid
from wenfang.core.home import Home
from wenfang.core.ports import Changes
from wenfang.core.records import Job, Project
from wenfang.guard.audit import verify_tables
from wenfang.stores import TABLE_STORES, open_tables, sqlite_verdict
from wenfang.stores.tables._migrate import known_schemas
from wenfang.stores.tables._schema import HEAD, METADATA


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "h").prepare()


def filled(home, n=3):
    store = open_tables("sqlite:", home)
    for i in range(n):
        store.commit(Changes(puts=[Project(id=f"pj_{i}", name=f"n{i}")], audit=[entry()], events=[event()]))
    return store


def test_names_and_urls(home, tmp_path):
    assert TABLE_STORES.names() == ["memory", "postgresql", "sqlite"]
    for url in ("", "sqlite", "mysql://x", "sqlite:relative", "sqlite://host/x", "SQLITE:"):
        with pytest.raises(Invalid, match=r"store\.bad-url"):
            open_tables(url, home)
    open_tables(f"sqlite://{tmp_path}/a%20b/x.db", home).close()
    assert (tmp_path / "a b" / "x.db").stat().st_mode & 0o777 == 0o600
    with pytest.raises(Invalid) as e:
        open_tables("mysql://root:topsecret@h/x", home)
    assert "topsecret" not in str(e.value)


def test_contents_stay_after_reopening(home):
    filled(home).close()
    store = open_tables("sqlite:", home)
    assert len(store.find(Project)) == 3 and verify_tables(store).entries == 3 and store.damage() == []
    store.close()
    assert sorted(p.name for p in home.root.iterdir() if p.name.startswith("studio")) == ["studio.db"]


def test_one_holder_at_a_time_in_this_and_in_other_processes(home, monkeypatch):
    monkeypatch.setattr("wenfang.stores.tables.sqlite.BUSY_TIMEOUT_S", 0.05)
    store = filled(home)
    with pytest.raises(Conflict, match=r"store\.in-use"):
        open_tables("sqlite:", home)
    code = f"import sqlite3; c = sqlite3.connect({str(home.database)!r}, timeout=0.05); c.execute('INSERT INTO projects SELECT * FROM projects')"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "database is locked" in other.stderr
    assert len(store.find(Project)) == 3
    store.close()
    open_tables("sqlite:", home).close()


def test_it_writes_durably_and_alone_checkpoints(home):
    store = filled(home)
    with store._session() as cursor:
        settings = {p: cursor.execute(f"PRAGMA {p}").fetchone()[0] for p in ("journal_mode", "synchronous", "locking_mode", "wal_autocheckpoint", "mmap_size")}
    store.close()
    assert settings == {"journal_mode": "wal", "synchronous": 2, "locking_mode": "exclusive", "wal_autocheckpoint": 1000, "mmap_size": 0}


def test_the_verdict_names_the_version():
    version, mended = sqlite_verdict()
    assert version == sqlite3.sqlite_version and mended == (sqlite3.sqlite_version_info >= (3, 51, 3))


# ------------------------------------------------------------ schema
def test_migrations_arrive_at_the_schema_of_the_records(home):
    assert known_schemas()[0] == HEAD
    open_tables("sqlite:", home).close()
    engine = create_engine(f"sqlite:///{home.database}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), METADATA) == []
    engine.dispose()


def test_migrations_arrive_at_the_schema_of_the_records_on_postgresql(home):
    with postgres_database() as url:
        open_tables(url, home).close()
        engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
        with engine.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), METADATA) == []
        engine.dispose()


def changed_by_hand(home, *statements):
    connection = sqlite3.connect(home.database)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def test_a_newer_schema_is_refused_and_left_alone(home):
    filled(home).close()
    changed_by_hand(home, "UPDATE alembic_version SET version_num = '0999'")
    with pytest.raises(Broken) as e:
        open_tables("sqlite:", home)
    assert e.value.code == "store.schema-newer" and e.value.fields["found"] == "0999"
    changed_by_hand(home, f"UPDATE alembic_version SET version_num = '{HEAD}'")
    store = open_tables("sqlite:", home)
    assert len(store.find(Project)) == 3
    store.close()


def test_tables_of_something_else_are_left_alone(home):
    changed_by_hand(home, "CREATE TABLE jobs (x)")
    with pytest.raises(Broken, match=r"store\.foreign-tables"):
        open_tables("sqlite:", home)
    connection = sqlite3.connect(home.database)
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("jobs",)]
    connection.close()


# ------------------------------------------------------------ damage
@pytest.mark.parametrize("content", [b"not a database at all" * 500, b"SQLite format 3\x00" + b"\xff" * 8000])
def test_a_file_that_is_no_database_is_told_and_left_alone(home, content):
    home.database.write_bytes(content)
    with pytest.raises(Broken, match=r"store\.damaged"):
        open_tables("sqlite:", home)
    assert home.database.read_bytes() == content


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_cut_database_is_told(home, share):
    filled(home, 50).close()
    size = home.database.stat().st_size
    os.truncate(home.database, int(size * share))
    with pytest.raises(Broken, match=r"store\.damaged"):
        store = open_tables("sqlite:", home)
        try:
            if store.damage():
                raise Broken("store.damaged", path="", reason="")
        finally:
            store.close()


def test_a_row_that_is_no_record_any_more_is_told(home):
    filled(home).close()
    changed_by_hand(home, "UPDATE projects SET body = substr(body, 1, 20) WHERE id = 'pj_1'")
    store = open_tables("sqlite:", home)
    with pytest.raises(Broken) as e:
        store.get(Project, "pj_1")
    assert e.value.code == "store.damaged-row" and e.value.fields["id"] == "pj_1"
    assert store.get(Project, "pj_2").name == "n2"
    store.close()


def test_a_folder_without_permission_is_told(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Broken, match=r"home\.write-failed"):
        open_tables(f"sqlite://{tmp_path}/file/x.db", Home(tmp_path))


def test_a_full_disk_is_told_loses_nothing_and_is_survived(tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        ballast = disk / "ballast"
        ballast.write_bytes(b"x" * (2 << 20))
        url = f"sqlite://{disk}/studio.db"
        store = open_tables(url, Home(disk))
        written = 0
        with pytest.raises(Broken) as e:
            for i in range(1000):
                store.commit(Changes(puts=[sample(Job, id=f"jb_{i:04}", answer={"x": "y" * 20_000})], audit=[entry()]))
                written += 1
        assert e.value.code == "store.write-failed" and written > 10
        assert len(store.find(Job)) == written and len(store.audit()) == written
        with pytest.raises(Broken):
            store.commit(Changes(puts=[sample(Job, answer={"x": "y" * 200_000})]))
        ballast.unlink()
        store.commit(Changes(puts=[Project(id="pj_1", name="x")], audit=[entry()]))  # it goes on by itself
        store.close()
        again = open_tables(url, Home(disk))
        assert len(again.find(Job)) == written and verify_tables(again).entries == written + 1 and again.damage() == []
        again.close()


# ------------------------------------------------------------ killed
WRITE = """
from contracts.table_worlds import entry, event, pointer
from wenfang.core.home import Home
from wenfang.core.ports import Changes
from wenfang.core.records import Job, Project
from wenfang.stores import open_tables
store = open_tables("sqlite:", Home(folder).prepare())
for n in range(4):
    job = Job(id=f"jb_{n}", project="p", operation="o", request={}, actor="a", state="queued")
    store.commit(Changes(puts=[Project(id=f"pj_{n}", name=f"n{n}"), job], pointers=[pointer("k", f"t{n}")], events=[event(id=f"ev_{n}")], audit=[entry(), entry()]))
    store.commit(Changes(updates=[(job.model_copy(update={"state": "done", "revision": 1}), 0)], audit=[entry()]))
    print(n)
store.close()
"""


def test_killed_at_every_point_of_opening_and_committing(tmp_path):
    runs = killed_at_every_point(WRITE, tmp_path, "import contracts.table_worlds, wenfang.stores.tables.sqlite, wenfang.stores.tables._migrate")
    assert sum("commit" in name for name, _, _ in runs) == 2 * 4 * 2 + 2 and sum("migrate" in name for name, _, _ in runs) == 1
    for _, folder, printed in runs[1:]:
        store = open_tables("sqlite:", Home(folder))
        acknowledged = len(printed)
        projects, jobs = store.find(Project), store.find(Job)
        done = [j for j in jobs if j.state == "done"]
        assert len(projects) == len(jobs) == len(store.events()) == len(store.pointers("service", "k"))  # whole commits only
        assert len(done) in {len(jobs), len(jobs) - 1} and acknowledged <= len(done) <= acknowledged + 1
        report = verify_tables(store)
        assert report.ok and report.entries == 2 * len(projects) + len(done) and store.damage() == []
        store.commit(Changes(puts=[Project(id="pj_new", name="after")], audit=[entry()]))
        store.close()


def test_a_home_of_the_first_schema_opens_with_everything_in_it(home):
    open_tables("sqlite:", home).close()
    changed_by_hand(
        home,
        "ALTER TABLE projects DROP COLUMN revision",
        "DROP TABLE graph_versions",
        "DROP TABLE queue_bindings",
        "UPDATE alembic_version SET version_num = '0001'",
        """INSERT INTO projects (id, created_at, name, body) VALUES ('pj_1', '2026-01-01T00:00:00+00:00', 'old', '{"id":"pj_1","created_at":"2026-01-01T00:00:00Z","name":"old"}')""",
    )
    tables = open_tables("sqlite:", home)
    found = tables.find(Project, where={"name": "old"})
    assert [(p.name, p.rate, p.revision) for p in found] == [("old", {}, 0)]
    tables.commit(Changes(updates=[(found[0].model_copy(update={"rate": {"texts_per_s": 5.0}, "revision": 1}), 0)]))
    assert tables.get(Project, "pj_1").rate == {"texts_per_s": 5.0}
    tables.close()
