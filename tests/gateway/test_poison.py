"""A text that kills replicas, through the doors: 422 with its own code at every gateway, in the metrics, and an event once the control process hears of it."""

from dataplane import DataPlane, until
from wenfang.core.records import Event
from wenfang.serve.quarantine import digest_of
from wenfang.stores.tables.memory import MemoryTables
from wenfang.studio.noticing import Noticing


def test_a_poisonous_text_is_refused_by_all_gateways_and_written_down_once():
    plane = DataPlane(gateways=2)
    try:
        assert plane.predict("KILL")[1]["code"] in {"serve.replica-died", "serve.text-quarantined"}
        digest = digest_of("KILL")
        until(lambda: all(plane.call("stats", i)["pools"]["mv_first"]["quarantined"] == 1 for i in range(2)), what="both gateways know")
        until(lambda: plane.predict("good")[0] == 200)  # the replica it killed has been started again
        pid = plane.pid("replica-mv_first-0")
        for _ in range(8):
            status, document = plane.predict("KILL")
            assert (status, document["code"]) == (422, "serve.text-quarantined")
            assert digest in document["detail"] and "KILL" not in document["detail"]
        assert plane.predict("good")[0] == 200
        assert plane.pid("replica-mv_first-0") == pid
        text = plane.get("/metrics")[1].decode()
        assert sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith("wenfang_requests_quarantined_total{")) == 8
        assert sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith("wenfang_texts_quarantined_total{")) == 1
        tables = MemoryTables()
        noticing = Noticing(plane.home.run, tables)
        assert (noticing.tick(), noticing.tick(), Noticing(plane.home.run, tables).tick()) == (1, 0, 0)
        (event,) = tables.events()
        assert isinstance(event, Event)
        assert (event.kind, event.subject, event.data["digest"], event.data["model"]) == ("text.quarantined", "mv_first", digest, "first:1")
        logs = "".join(plane.log(f"gateway-{i}") for i in range(2))
        assert digest in logs and "KILL" not in logs
    finally:
        plane.close()


def test_what_was_noticed_is_kept_until_it_is_written_down():
    plane = DataPlane()
    try:
        plane.predict("KILL")
        until(lambda: plane.call("stats")["pools"]["mv_first"]["quarantined"])
        first = plane.call("notices")
        assert [n["kind"] for n in first] == ["text.quarantined"]
        assert plane.call("notices") == first  # whoever asked died before it was safe
        tables = MemoryTables()
        assert Noticing(plane.home.run, tables).tick() == 1
        assert Noticing(plane.home.run, tables).tick() == 1  # a control process that knows nothing of the one before
        assert len(tables.events()) == 1
        assert plane.call("notices", heard=[n["id"] for n in first]) == []
    finally:
        plane.close()
