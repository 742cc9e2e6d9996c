"""Every door ends in Studio.run: permission, work, one commit, audit."""

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from wenfang.core.errors import Conflict, Denied, Invalid, NotFound, Unauthenticated
from wenfang.core.records import ApiKey, Project
from wenfang.guard.keyring import Keyring
from wenfang.guard.roles import LOCAL, Actor, permissions_of
from wenfang.studio import operations
from wenfang.studio.selection_parts import pretrained_of

OPS = operations()


def run(studio, operation, actor=LOCAL, /, **fields):
    op = OPS[operation]
    return studio.run(op, actor, op.request.model_validate(fields))


def test_every_operation_is_described():
    routes = set()
    for op in OPS.values():
        method, path = op.http.split()
        assert op.name.count(".") == 1 and op.summary.endswith("."), op.name
        assert path.startswith("/api/v1/") and method in {"GET", "POST"}
        assert op.permission.partition(":")[2] in {"read", "write", "admin", "call"}
        assert (method, path) not in routes
        routes.add((method, path))


def test_reading_operations_are_get_and_writing_ones_post():
    assert {op.name for op in OPS.values() if (op.permission.endswith(":read")) != op.http.startswith("GET")} == set()


def test_done_refused_and_failed_each_have_one_audit_entry(studio):
    run(studio, "project.create", name="finance")
    with pytest.raises(Denied):
        run(studio, "project.create", Actor(id="ky_x", name="x", role="caller", permissions=permissions_of("caller"), project=None, local=False), name="other")
    with pytest.raises(Conflict):
        run(studio, "project.create", name="finance")
    entries = [(e.operation, e.outcome, e.code) for e in studio.tables.audit()]
    assert entries == [("project.create", "done", ""), ("project.create", "refused", "auth.denied"), ("project.create", "failed", "store.exists")]
    assert run(studio, "audit.verify").ok


def test_a_failed_operation_writes_no_record_and_no_event(studio):
    before = len(studio.tables.events())
    with pytest.raises(Conflict):
        run(studio, "project.create", name="default")
    assert len(studio.tables.events()) == before and len(studio.tables.find(Project)) == 1


def test_a_key_works_until_it_is_revoked_and_only_its_digest_is_kept(studio):
    made = run(studio, "key.create", name="app", role="caller")
    keyring = Keyring(studio.tables)
    assert keyring.authenticate(made.key).permissions == frozenset({"service:call"})
    assert made.key not in studio.tables.find(ApiKey)[0].model_dump_json()
    assert "key" not in run(studio, "key.list").keys[0].model_dump()
    run(studio, "key.revoke", id=made.id)
    with pytest.raises(Unauthenticated):
        keyring.authenticate(made.key)


def test_a_key_expires(studio):
    soon = datetime.now(UTC) + timedelta(seconds=0.3)
    made = run(studio, "key.create", name="app", role="caller", expires_at=soon)
    keyring = Keyring(studio.tables)
    keyring.authenticate(made.key)
    time.sleep(0.35)
    with pytest.raises(Unauthenticated):
        keyring.authenticate(made.key)
    with pytest.raises(Invalid, match="expired-at-birth"):
        run(studio, "key.create", name="app", role="caller", expires_at=soon)


def test_a_project_key_sees_nothing_of_other_projects(studio):
    run(studio, "project.create", name="a")
    run(studio, "project.create", name="b")
    made = run(studio, "key.create", name="only-a", role="engineer", project="a")
    actor = Keyring(studio.tables).authenticate(made.key)
    assert [p.name for p in run(studio, "project.list", actor).projects] == ["a"]
    with pytest.raises(Denied):
        run(studio, "dataset.list", actor, project="b")
    with pytest.raises(Denied):
        run(studio, "key.create", actor, name="more", role="admin")


def test_unknown_things_offer_what_there_is(studio):
    with pytest.raises(NotFound) as e:
        run(studio, "service.show", service="nope")
    assert e.value.code == "record.not-found"
    with pytest.raises(NotFound):
        run(studio, "dataset.import", train="/nowhere/at/all.csv")


def test_paths_on_the_server_are_for_the_local_user_only(studio, tmp_path):
    (tmp_path / "x.csv").write_text("text,label\na,b\n")
    far = Actor(id="ky_y", name="y", role="engineer", permissions=permissions_of("engineer"), project=None, local=False)
    with pytest.raises(Denied, match="path-is-local"):
        run(studio, "dataset.import", far, train=str(tmp_path / "x.csv"))
    with pytest.raises(Denied, match="pretrained-is-local"):
        pretrained_of(replace(studio, actor=far), str(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(Invalid, match="pickled-weights"):
        pretrained_of(replace(studio, actor=LOCAL), str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert pretrained_of(replace(studio, actor=LOCAL), str(tmp_path)) == tmp_path
    with pytest.raises(Invalid, match="pretrained-missing"):
        pretrained_of(replace(studio, actor=LOCAL), str(tmp_path / "none"))
    (studio.home.pretrained / "ours").mkdir(parents=True)
    assert pretrained_of(replace(studio, actor=far), "ours") == studio.home.pretrained / "ours"


def test_an_unforeseen_fault_becomes_a_clear_error_with_a_request_id(studio, monkeypatch):
    from wenfang.core.errors import Broken

    monkeypatch.setattr(type(studio), "find", lambda *_, **__: 1 / 0)
    with pytest.raises(Broken, match="operation.failed") as e:
        run(studio, "key.list")
    assert e.value.fields["request_id"].startswith("rq_") and "ZeroDivisionError" in e.value.detail("en")
    assert studio.tables.audit()[-1].outcome == "failed"


def test_limits_are_set_shown_lifted_and_audited(studio):
    made = run(studio, "key.create", name="shop")
    assert run(studio, "key.limit", id=made.id, requests_per_s=5, tokens_per_s=100).rate == {"requests_per_s": 5.0, "tokens_per_s": 100.0}
    assert {k.id: k.rate for k in run(studio, "key.list").keys}[made.id] == {"requests_per_s": 5.0, "tokens_per_s": 100.0}
    assert run(studio, "key.limit", id=made.id).rate == {}
    run(studio, "project.create", name="finance")
    assert run(studio, "project.limit", project="finance", texts_per_s=10).rate == {"texts_per_s": 10.0}
    with pytest.raises(NotFound):
        run(studio, "project.limit", project="finnance", texts_per_s=10)
    with pytest.raises(ValueError, match="greater than 0"):
        run(studio, "project.limit", project="finance", texts_per_s=0)
    with pytest.raises(Denied):
        run(studio, "key.limit", Actor(id="ky_x", name="x", role="caller", permissions=permissions_of("caller"), project=None, local=False), id=made.id)
    assert [(e.operation, e.outcome) for e in studio.tables.audit() if e.operation.endswith(".limit")][:3] == [("key.limit", "done")] * 2 + [("project.limit", "done")]
