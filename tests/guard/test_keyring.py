"""From a key as it was sent to who is asking."""

from datetime import UTC, datetime, timedelta

import pytest

from wenfang.core.errors import Unauthenticated
from wenfang.core.home import Home
from wenfang.core.ports import Changes
from wenfang.core.records import ApiKey
from wenfang.guard.keyring import Keyring, actor_of
from wenfang.guard.keys import digest, new_key
from wenfang.guard.roles import ROLES
from wenfang.stores import open_tables

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def key_record(key, **fields):
    return ApiKey(id="ky_1", digest=digest(key), name="app", **{"role": "caller", "project": None, **fields})


def ring(tmp_path, record, at=NOON):
    tables = open_tables("memory:", Home(tmp_path))
    tables.commit(Changes(puts=[record]))
    return Keyring(tables, lambda: at), tables


def test_a_known_key_is_its_actor(tmp_path):
    key = new_key()
    keyring, _ = ring(tmp_path, key_record(key, project="p", role="engineer"))
    actor = keyring.authenticate(key)
    assert (actor.id, actor.name, actor.role, actor.project, actor.local) == ("ky_1", "app", "engineer", "p", False)
    assert actor.permissions == ROLES["engineer"] and keyring.by_digest(digest(key)) == actor


@pytest.mark.parametrize("wrong", ["wf_", "x", "\x00", "\ud800", "密钥", "' OR 1=1 --"])
def test_an_unknown_key_is_nobody(tmp_path, wrong):
    keyring, _ = ring(tmp_path, key_record(new_key()))
    with pytest.raises(Unauthenticated) as e:
        keyring.authenticate(wrong)
    assert e.value.code == "auth.bad-key" and (wrong == "x" or wrong not in str(e.value.fields))


def test_expiry_is_to_the_moment(tmp_path):
    key = new_key()
    record = key_record(key, expires_at=NOON)
    ring(tmp_path, record, NOON - timedelta(microseconds=1))[0].authenticate(key)
    for at in (NOON, NOON + timedelta(days=1)):
        with pytest.raises(Unauthenticated) as e:
            ring(tmp_path, record, at)[0].authenticate(key)
        assert e.value.code == "auth.key-expired"


def test_a_revoked_key_fails_at_once(tmp_path):
    key = new_key()
    record = key_record(key)
    keyring, tables = ring(tmp_path, record)
    keyring.authenticate(key)
    tables.commit(Changes(updates=[(record.model_copy(update={"revoked_at": NOON, "revision": 1}), 0)]))
    with pytest.raises(Unauthenticated) as e:
        keyring.authenticate(key)
    assert e.value.code == "auth.key-revoked"


def test_a_role_of_another_version_may_nothing():
    assert actor_of(key_record("k", role="superhero")).permissions == frozenset()


def test_no_key_is_told_apart_from_a_bad_one(tmp_path):
    with pytest.raises(Unauthenticated) as e:
        ring(tmp_path, key_record(new_key()))[0].authenticate("")
    assert e.value.code == "auth.no-key"


@pytest.mark.parametrize("end", ["expires_at", "revoked_at"])
def test_work_asked_for_with_a_key_that_ended_meanwhile_may_nothing(end):
    record = key_record("k", role="admin", project="p", **{end: NOON})
    before, after = actor_of(record, NOON - timedelta(seconds=1)), actor_of(record, NOON)
    assert before.permissions == ROLES["admin"]
    assert (after.permissions, after.id, after.project) == (frozenset(), "ky_1", "p")
