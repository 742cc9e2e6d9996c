"""Deny by default: who may do what, and where."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wenfang.core.errors import Denied, Invalid
from wenfang.guard.roles import LOCAL, NOUNS, PERMISSIONS, ROLES, Actor, permissions_of, require


def actor(role, project=None):
    return Actor(id="ky_1", name="n", role=role, permissions=permissions_of(role), project=project)


def may(who, permission, project=None):
    try:
        require(who, permission, project)
    except Denied:
        return False
    return True


def test_roles_hold_known_permissions_only_and_admin_holds_all():
    assert set(ROLES) == {"admin", "operator", "engineer", "annotator", "analyst", "auditor", "caller"}
    assert all(granted <= PERMISSIONS for granted in ROLES.values())
    assert ROLES["admin"] == PERMISSIONS == LOCAL.permissions
    assert len(PERMISSIONS) == len(NOUNS) * 3 + 1


def test_caller_may_only_call():
    assert ROLES["caller"] == {"service:call"}


def test_auditor_reads_the_audit_and_changes_nothing():
    assert "audit:read" in ROLES["auditor"]
    assert {p for p in ROLES["auditor"] if not p.endswith(":read")} == set()


def test_only_admin_handles_keys_secrets_and_users():
    assert {role for role, granted in ROLES.items() if granted & {f"{n}:{v}" for n in ("key", "secret", "user", "role") for v in ("write", "admin")}} == {"admin"}
    assert {role for role, granted in ROLES.items() if "secret:read" in granted} == {"admin"}


def test_a_wrong_role_is_told_with_the_nearest():
    with pytest.raises(Invalid, match="auth.unknown-role") as e:
        permissions_of("enginer")
    assert e.value.fields["near"] == "engineer"


@given(st.sampled_from(sorted(ROLES)), st.text(max_size=20))
def test_what_is_not_granted_is_denied(role, text):
    assert may(actor(role), text) == (text in ROLES[role])


def test_a_scoped_actor_stays_in_its_project():
    who = actor("engineer", "a")
    assert may(who, "dataset:write", "a")
    assert not may(who, "dataset:write", "b")
    assert may(who, "dataset:read")  # no project named: the operation narrows what it sees


def test_a_scoped_admin_has_no_say_over_the_installation():
    who = actor("admin", "a")
    for permission in ("key:admin", "key:read", "audit:read", "secret:read", "user:write", "backup:read", "event:read", "project:write", "project:admin"):
        assert not may(who, permission), permission
    assert may(who, "key:admin", "a")
    assert may(who, "project:read")
    assert not may(who, "key:admin", "")


def test_an_actor_without_permissions_may_nothing():
    who = Actor(id="x", name="x", role="none", permissions=frozenset())
    assert not any(may(who, p) for p in PERMISSIONS)
