"""What a service takes and gives, asked of the studio."""

import json

import pytest
from crash_world import publish

from wenfang.core.errors import NotFound
from wenfang.core.records import ModelVersion
from wenfang.guard.roles import LOCAL
from wenfang.studio import operations
from wenfang.studio.interfaces import Written

OPS = operations()


def run(studio, operation, actor=LOCAL, /, **fields):
    op = OPS[operation]
    return studio.run(op, actor, op.request.model_validate(fields))


@pytest.fixture
def deployed(studio):
    publish(studio)
    run(studio, "service.deploy", service="tickets", model_version="tickets:1")
    return studio


def test_a_spec_in_every_format(deployed):
    found = {f: run(deployed, "service.interface", service="tickets", format=f) for f in ("openapi", "proto", "json-schema", "json_schema", "python")}
    assert all(isinstance(a, Written) and (a.service, a.model) == ("tickets", "tickets:1") for a in found.values())
    assert found["json-schema"].document == found["json_schema"].document
    schema = json.loads(found["json-schema"].document)
    assert schema["$defs"]["Answer"]["properties"]["label"]["enum"] == deployed.tables.find(ModelVersion)[0].labels
    assert run(deployed, "service.interface", service="tickets") == found["openapi"]


def test_what_there_is_not_is_offered(deployed):
    with pytest.raises(NotFound) as e:
        run(deployed, "service.interface", service="tickets", format="wsdl")
    assert e.value.code == "plugin.unknown" and "openapi" in e.value.detail("en") + e.value.hint("en")
    with pytest.raises(NotFound):
        run(deployed, "service.interface", service="ticket")


def test_the_command_prints_the_document_alone(deployed, capsys):
    from wenfang.doors.cli.session import show

    answer = run(deployed, "service.interface", service="tickets", format="proto")
    show(OPS["service.interface"], answer, as_json=False)
    assert capsys.readouterr().out == answer.document
