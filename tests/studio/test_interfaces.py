"""What a service takes and gives, asked of the studio."""

import json

import pytest
from crash_world import publish

from wenfang.core.errors import Conflict, NotFound
from wenfang.core.records import ModelVersion
from wenfang.core.words import say
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


# ------------------------------------------------------------ a deploy and those who call
def test_a_deploy_that_breaks_callers_is_refused_with_what_breaks(deployed):
    publish(deployed, "b")  # other labels
    with pytest.raises(Conflict) as e:
        run(deployed, "service.deploy", service="tickets", model_version="tickets:2")
    assert e.value.code == "service.breaks-callers" and e.value.fields["errors"][0]["key"] == "interface.labels-gone"
    for lang, word in (("zh", "标签"), ("en", "labels")):
        assert word in e.value.detail(lang) and deployed.tables.find(ModelVersion)[0].labels[0] in e.value.detail(lang) and "--allow-breaking" in e.value.hint(lang)
    assert run(deployed, "service.show", service="tickets").service.model == "tickets:1"
    forced = run(deployed, "service.deploy", service="tickets", model_version="tickets:2", allow_breaking=True)
    assert (forced.model, forced.breaks[0][0], forced.adds[0][0]) == ("tickets:2", "interface.labels-gone", "interface.labels-new")


def test_going_back_is_never_refused_and_says_what_it_breaks(deployed):
    publish(deployed, "b")
    run(deployed, "service.deploy", service="tickets", model_version="tickets:2", allow_breaking=True)
    back = run(deployed, "service.rollback", service="tickets")
    assert back.model == "tickets:1" and back.breaks[0][0] == "interface.labels-gone"


def test_the_same_labels_again_change_nothing(deployed):
    publish(deployed)
    again = run(deployed, "service.deploy", service="tickets", model_version="tickets:2")
    assert (again.breaks, again.adds) == ([], [])


def test_a_selection_that_would_break_callers_leaves_the_service_as_it_is(deployed):
    from wenfang.studio.champions import served

    version = publish(deployed, "b")
    ((key, fields),) = served(deployed, "tickets", version)
    assert key == "verdict.not-served" and "tickets:2" in say(key, "en", **fields) and "--allow-breaking" in say(key, "zh", **fields)
    assert run(deployed, "service.show", service="tickets").service.model == "tickets:1"
