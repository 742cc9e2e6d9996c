"""The audit cannot be altered without being found out: every kind of tampering, on the database file itself."""

import sqlite3

import pytest

from wenfang.core.chain import canonical, link, seal
from wenfang.core.errors import Broken, Invalid
from wenfang.core.home import Home
from wenfang.core.ids import now
from wenfang.core.ports import Changes
from wenfang.core.records import AuditEntry
from wenfang.guard.audit import AuditReport, Checkpoint, checkpoint, read_checkpoint, verify, verify_tables
from wenfang.guard.keys import Ed25519Signer, TrustedKeys
from wenfang.stores import open_tables

N = 12


def entry(n=0):
    return AuditEntry(seq=0, at=now(), actor="ky_1", operation="model.train", subject=f"s{n}", outcome="done", detail={"n": n, "share": 0.1})


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path / "h").prepare()
    tables = open_tables("sqlite:", home)
    for n in range(N):
        tables.commit(Changes(audit=[entry(n)]))
    tables.close()
    return home


def tampered(home, *statements):
    with sqlite3.connect(home.database) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()
    return reopened(home)


def reopened(home, point=None, verifier=None):
    tables = open_tables("sqlite:", home)
    try:
        return verify_tables(tables, point, verifier=verifier)
    finally:
        tables.close()


def test_an_untouched_audit_is_whole(home):
    report = reopened(home)
    assert report == AuditReport(ok=True, entries=N, first_bad_seq=None, fault="", head=report.head) and len(report.head) == 64


@pytest.mark.parametrize(
    "column,value",
    [
        ("actor", "'ky_2'"),
        ("operation", "'x'"),
        ("subject", "''"),
        ("outcome", "'refused'"),
        ("code", "'x'"),
        ("request_id", "'x'"),
        ("at", "'2026-01-01T00:00:00Z'"),
        ("detail", '\'{"n":4,"share":0.2}\''),
        ("hash", "replace(hash, substr(hash, 1, 1), 'z')"),
    ],
)
@pytest.mark.parametrize("seq", [1, 5, N])
def test_one_altered_field_is_found_at_its_entry(home, column, value, seq):
    report = tampered(home, f"UPDATE audit SET {column} = {value} WHERE seq = {seq}")
    assert (report.ok, report.first_bad_seq, report.fault, report.entries) == (False, seq, "altered", seq - 1)


def test_removed_inserted_and_exchanged_entries_are_found(home):
    report = tampered(home, "DELETE FROM audit WHERE seq = 5")
    assert (report.first_bad_seq, report.fault) == (5, "broken-link")
    report = tampered(home, "UPDATE audit SET seq = seq - 1 WHERE seq > 5")  # closing the gap does not help
    assert (report.first_bad_seq, report.fault) == (5, "broken-link")


def test_exchanged_entries_are_found(home):
    report = tampered(home, "UPDATE audit SET seq = -1 WHERE seq = 3", "UPDATE audit SET seq = 3 WHERE seq = 4", "UPDATE audit SET seq = 4 WHERE seq = -1")
    assert (report.first_bad_seq, report.fault) == (3, "broken-link")


def test_an_entry_with_a_new_hash_breaks_the_next_link(home):
    tables = open_tables("sqlite:", home)
    forged = tables.audit()[4].model_copy(update={"actor": "ky_2"})
    tables.close()
    report = tampered(home, f"UPDATE audit SET actor = 'ky_2', hash = '{link(forged.previous, forged)}' WHERE seq = 5")
    assert (report.first_bad_seq, report.fault) == (6, "broken-link")


def test_a_cut_tail_is_found_only_with_a_checkpoint(home):
    signer = Ed25519Signer(home.keys)
    tables = open_tables("sqlite:", home)
    point = checkpoint(tables, signer)
    tables.close()
    assert point.seq == N
    trusted = TrustedKeys(home.keys)
    assert reopened(home, point, trusted).ok
    assert tampered(home, "DELETE FROM audit WHERE seq > 9").ok  # what a chain alone cannot see
    report = reopened(home, point, trusted)
    assert (report.ok, report.first_bad_seq, report.fault) == (False, 10, "cut")
    tables = open_tables("sqlite:", home)
    for n in range(5):
        tables.commit(Changes(audit=[entry(n)]))
    report = verify_tables(tables, point)
    tables.close()
    assert (report.first_bad_seq, report.fault) == (N, "rewritten")


def test_a_chain_written_anew_is_found_with_a_checkpoint(home):
    tables = open_tables("sqlite:", home)
    point = checkpoint(tables, Ed25519Signer(home.keys))
    lines = tables.audit()
    tables.close()
    previous, forged = "", []
    for line in lines:
        forged.append(seal(line.model_copy(update={"actor": "nobody"}), previous))
        previous = forged[-1].hash
    assert verify(forged).ok
    assert verify(forged, point).fault == "rewritten"


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 9, 31, 100])
def test_a_checkpoint_is_on_the_newest_entry(tmp_path, n):
    tables = open_tables("memory:", Home(tmp_path))
    with pytest.raises(Invalid, match=r"audit\.empty"):
        checkpoint(tables, Ed25519Signer(tmp_path))
    tables.commit(Changes(audit=[entry(i) for i in range(n)]))
    point = checkpoint(tables, Ed25519Signer(tmp_path))
    assert (point.seq, point.hash) == (n, tables.audit()[-1].hash)


def test_a_forged_checkpoint_is_refused(tmp_path):
    tables = open_tables("memory:", Home(tmp_path))
    tables.commit(Changes(audit=[entry()]))
    point = checkpoint(tables, Ed25519Signer(tmp_path / "k"))
    trusted = TrustedKeys(tmp_path / "k")
    assert read_checkpoint(point.model_dump_json()) == point
    assert verify_tables(tables, read_checkpoint(point.model_dump_json()), verifier=trusted).ok
    for changed in ({"seq": 2}, {"hash": "0" * 64}, {"at": now()}):
        with pytest.raises(Broken, match=r"signature\.bad"):
            verify_tables(tables, point.model_copy(update=changed), verifier=trusted)
    stranger = checkpoint(tables, Ed25519Signer(tmp_path / "other"))
    with pytest.raises(Broken, match=r"signature\.unknown-signer"):
        verify_tables(tables, stranger, verifier=trusted)


@pytest.mark.parametrize("document", ["", "{}", "[]", "null", '{"seq": 0}', "\x00"])
def test_what_is_no_checkpoint_is_told(document):
    with pytest.raises(Invalid, match=r"audit\.bad-checkpoint"):
        read_checkpoint(document)


def test_the_hash_can_be_computed_without_wenfang():
    """The formula in the docs, spelled out by hand."""
    import hashlib
    import json

    sealed = seal(AuditEntry(seq=7, at="2026-01-02T03:04:05.5Z", actor="甲", operation="o.p", subject="", outcome="done", detail={"b": 1, "a": [None, 0.5]}), "ab" * 32)
    rest = {
        "seq": 7,
        "at": "2026-01-02T03:04:05.500000Z",
        "actor": "甲",
        "operation": "o.p",
        "subject": "",
        "outcome": "done",
        "code": "",
        "request_id": "",
        "detail": {"b": 1, "a": [None, 0.5]},
    }
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert canonical(sealed).decode() == text
    assert sealed.hash == hashlib.sha256(("ab" * 32 + text).encode()).hexdigest()
    assert isinstance(Checkpoint.model_json_schema(), dict)
