"""One file says what a service is; it is checked, kept with a revision, changed by fields and written back."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wenfang.core.errors import Conflict, Invalid, NotFound
from wenfang.core.ids import new_id
from wenfang.core.ports import Changes
from wenfang.core.records import ModelVersion, Pointer, Service
from wenfang.core.scaling import Scaling
from wenfang.guard.roles import LOCAL
from wenfang.studio import operations
from wenfang.studio.service_file import read_service_file, write_service_file

OPS = operations()
FULL = """
service = "faq"
model = "faq:1"
min = 0
max = 1
idle_s = 60
time_zone = "Asia/Shanghai"

[target]
queue_ms = 40.5

[budget]
money_per_hour = 3

[rate]
requests_per_s = 100

[[windows]]
name = "白天"
days = "mon-fri"
start = "08:30"
end = "18:00"
min = 1
max = 1
"""


@pytest.fixture
def faq(studio):
    """A service whose records are there; its bundle is unpacked already, as far as anybody looks."""
    version = ModelVersion(
        id=new_id("mv"), project="default", name="faq", number=1, family="linear", task="classification", labels=["a"], bundle="b" * 64, signature="s" * 64, size_bytes=1
    )
    service = Service(id=new_id("sv"), project="default", name="faq", replicas=2)
    studio.tables.commit(Changes(puts=[version, service], pointers=[Pointer(kind="service", key=service.id, target=version.id)]))
    (studio.home.cache / version.bundle).mkdir(parents=True)
    return service


def run(studio, name, **fields):
    op = OPS[name]
    return studio.run(op, LOCAL, op.request.model_validate(fields))


def refused(studio, kind, name, **fields):
    with pytest.raises(kind) as caught:
        run(studio, name, **fields)
    return caught.value


def test_a_file_is_applied_shown_and_written_back(studio, faq):
    applied = run(studio, "service.apply", spec=FULL)
    assert applied.revision == 1 and applied.scaling.windows[0].name == "白天" and applied.service.rate == {"requests_per_s": 100.0}
    shown = run(studio, "service.show", service="faq")
    assert shown.scaling == applied.scaling and shown.revision == 1
    written = run(studio, "service.spec", service="faq")
    assert tomllib.loads(written.toml) == tomllib.loads(FULL)
    assert run(studio, "service.apply", spec=written.toml).scaling == applied.scaling
    assert [e.data["revision"] for e in studio.tables.events() if e.kind == "service.applied"] == [1, 2]


def test_single_fields_change_and_the_rest_stays(studio, faq):
    assert refused(studio, Invalid, "service.scale", service="faq", max=2).code == "scaling.bad-value"  # no min so far
    assert run(studio, "service.scale", service="faq", min=1, max=1, busy=0.5).scaling.target.busy == 0.5
    scaled = run(studio, "service.scale", service="faq", down_s=5, min=0)
    assert scaled.scaling.model_dump(exclude_defaults=True) == {"min": 0, "max": 1, "target": {"busy": 0.5}, "cooldown": {"down_s": 5.0}}
    assert refused(studio, Conflict, "service.deploy", service="faq", model_version="faq:1", replicas=2).code == "scaling.replicas-of-elastic"
    run(studio, "service.scale", service="faq", idle_s=7)
    assert refused(studio, Invalid, "service.scale", service="faq", min=1, idle_s=9).code == "scaling.never-zero"
    assert run(studio, "service.scale", service="faq", min=1).scaling.idle_s == 300  # what was said of none is forgotten with it
    fixed = run(studio, "service.scale", service="faq", replicas=3)
    assert fixed.scaling is None and fixed.service.replicas == 3 and fixed.revision == 5
    assert "replicas = 3" in run(studio, "service.spec", service="faq").toml


def test_what_a_file_leaves_out_has_its_default(studio, faq):
    run(studio, "service.apply", spec=FULL)
    applied = run(studio, "service.apply", spec='service = "faq"\nreplicas = 1')
    assert applied.scaling is None and applied.service.replicas == 1 and applied.service.rate == {} and applied.service.model == "faq:1"


def test_bad_files_are_refused_and_change_nothing(studio, faq):
    def code(text, kind=Invalid):
        e = refused(studio, kind, "service.apply", spec=text)
        return e.code, e.fields.get("key", "")

    assert code("service = ") == ("scaling.unreadable", "")
    assert code('service = "faq"\nmin = 1\nmax = 1\nmaximum = 3') == ("scaling.unknown-key", "maximum")
    assert code('service = "faq"\nmin = 1\nmax = 1\n[target]\nque_ms = 3') == ("scaling.unknown-key", "target.que_ms")
    assert refused(studio, Invalid, "service.apply", spec='service = "faq"\nmin = 1\nmax = 1\n[target]\nque_ms = 3').fields["near"] == "queue_ms"
    assert code('service = "faq"\nmin = "1"\nmax = {}') == ("scaling.bad-value", "max")
    assert code('service = "faq"\nmax = 1') == ("scaling.bad-value", "min")
    assert code('service = "faq"\nreplicas = 1\nmax = 1')[0] == "scaling.two-ways"
    assert code('service = "faq"\nmin = 1\nmax = 200')[0] == "scaling.machine-cores"
    assert code("min = 1\nmax = 1") == ("scaling.bad-value", "service")
    assert code('service = "new"\nmin = 1\nmax = 1', NotFound)[0] == "scaling.no-model"
    assert code('service = "faq"\nmodel = "nobody"\nmin = 1\nmax = 1', NotFound)[0] == "record.not-found"
    assert refused(studio, Invalid, "service.scale", service="faq").code == "scaling.nothing-given"
    assert refused(studio, Invalid, "service.scale", service="faq", replicas=1, min=0).code == "scaling.two-ways"
    assert studio.tables.get(Service, faq.id) == faq


NUMBERS = st.floats(0.01, 100, allow_nan=False)
SCALINGS = st.builds(
    lambda low, more, name, queue_ms, down_s: Scaling.model_validate(
        {
            "min": low,
            "max": low + more,
            "cooldown": {"down_s": down_s},
            **({"target": {"queue_ms": queue_ms}} if queue_ms else {}),
            "windows": [{"name": name, "start": "01:00", "end": "02:00", "min": low, "max": low + more}],
        }
    ),
    st.integers(0, 5),
    st.integers(1, 5),
    st.text(min_size=1, max_size=20).filter(lambda s: s.encode("utf-8", "ignore").decode() == s),
    st.none() | NUMBERS,
    NUMBERS,
)


@given(SCALINGS)
def test_what_is_written_reads_the_same(scaling):
    service = Service(id="sv_1", project="default", name="faq", replicas=2, scaling=scaling, rate={"texts_per_s": 0.5})
    file, again = read_service_file(write_service_file(service, "faq:3"))
    assert again == scaling and file.model == "faq:3" and file.rate.rate() == service.rate
