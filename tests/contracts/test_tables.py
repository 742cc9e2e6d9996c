"""What every store of records promises: memory, SQLite, PostgreSQL, and each of them at the other end of a socket."""

import random
import threading

import pytest

from contracts.table_worlds import entry, event, pointer, sample
from wenfang.core.errors import Broken, Conflict, Invalid, WenfangError
from wenfang.core.home import Home
from wenfang.core.ports import Changes
from wenfang.core.records import RECORDS, ApiKey, Dataset, Job, ModelVersion, Project, Upload
from wenfang.guard.audit import verify_tables
from wenfang.stores import open_tables


def put(tables, *records):
    tables.commit(Changes(puts=list(records)))
    return records[0]


@pytest.mark.parametrize("kind", RECORDS, ids=lambda k: k.table)
def test_every_kind_comes_back_as_it_went_in(tables, kind):
    record = put(tables, sample(kind))
    assert tables.get(kind, record.id) == record
    assert tables.find(kind) == [record]
    for name in ("id", *kind.indexed):
        assert tables.find(kind, where={name: getattr(record, name)}) == [record]
        assert tables.find(kind, where={name: 8 if kind.model_fields[name].annotation is int else "other"}) == []


def test_what_is_not_there(tables):
    assert tables.get(Project, "pj_none") is None
    assert tables.find(Project) == [] and tables.events() == [] and tables.audit() == []
    assert tables.pointer("service", "x") is None and tables.pointers("service") == [] and tables.pointers("service", "x") == []
    tables.commit(Changes())


def test_find_by_equal_any_of_and_null(tables):
    a, b, c = (sample(ApiKey, digest=d, name=n, project=p) for d, n, p in (("1", "x", "p"), ("2", "y", None), ("3", "x", "q")))
    put(tables, a, b, c)

    def found(**where):
        return [k.digest for k in tables.find(ApiKey, where=where)]

    assert found(name="x") == ["1", "3"]
    assert found(name="x", project="q") == ["3"]
    assert found(project=None) == ["2"]
    assert found(project=["p", "q", "none"]) == ["1", "3"]
    assert found(project=["p", None]) == ["1", "2"]
    assert found(project=[None]) == ["2"]
    assert found(project=[]) == []
    assert found(project=("p",)) == ["1"]
    assert found(id=[a.id, c.id], name="x") == ["1", "3"]
    versions = [sample(ModelVersion, name="m", number=n) for n in range(5)]
    put(tables, *versions)
    assert [v.number for v in tables.find(ModelVersion, where={"number": [1, 3, 9]})] == [1, 3]
    assert len(tables.find(ModelVersion, where={"number": list(range(2000))})) == 5


def test_pages_in_both_directions(tables):
    ids = sorted(["a", "B", "b_", "b0", "ä", "文", "😀", "Z", "_", "-"])
    put(tables, *[Upload(id=i, project="p" if n % 2 else "q", file_name="f", blob="b", size_bytes=1) for n, i in enumerate(ids)])
    for newest_first, order in ((False, ids), (True, ids[::-1])):
        seen, after = [], None
        while page := tables.find(Upload, limit=3, after=after, newest_first=newest_first):
            seen += [r.id for r in page]
            after = page[-1].id
        assert seen == order
    assert [r.id for r in tables.find(Upload, where={"project": "p"}, limit=2, after=ids[1])] == [ids[3], ids[5]]
    assert tables.find(Upload, limit=0) == tables.find(Upload, limit=-1) == []
    assert [r.id for r in tables.find(Upload, after="b", newest_first=True, limit=1)] == ["a"]


def test_a_search_that_cannot_be_is_told(tables):
    for where, code in (
        ({"file_name": "x"}, "store.not-indexed"),
        ({"nope": "x"}, "store.not-indexed"),
        ({"project": 3}, "store.wrong-type"),
        ({"project": ["a", 3]}, "store.wrong-type"),
        ({"project": "a\x00"}, "store.bad-text"),
        ({"project": "\ud800"}, "store.bad-text"),
    ):
        with pytest.raises(Invalid) as e:
            tables.find(Upload, where=where)
        assert e.value.code == code
    for value in ("7", True, 1.0, 1 << 64):
        with pytest.raises(Invalid, match=r"store\.wrong-type"):
            tables.find(ModelVersion, where={"number": value})


def test_unique_fields_stay_unique_and_nothing_else_is_written(tables):
    put(tables, Dataset(id="ds_1", project="p", name="news"))
    bad = Changes(puts=[Dataset(id="ds_2", project="p", name="other"), Dataset(id="ds_3", project="p", name="news")], pointers=[pointer()], events=[event()], audit=[entry()])
    with pytest.raises(Conflict) as e:
        tables.commit(bad)
    assert e.value.code == "store.exists" and e.value.fields["values"] == "project=p, name=news" and e.value.fields["kind"] == "Dataset"
    assert [d.id for d in tables.find(Dataset)] == ["ds_1"]
    assert tables.events() == [] and tables.audit() == [] and tables.pointers("service") == []
    put(tables, Dataset(id="ds_3", project="q", name="news"), Dataset(id="ds_2", project="p", name="other"))


def test_unique_inside_one_commit_and_by_id(tables):
    with pytest.raises(Conflict, match=r"store\.exists"):
        put(tables, Project(id="pj_1", name="a"), Project(id="pj_2", name="a"))
    assert tables.find(Project) == []
    put(tables, Project(id="pj_1", name="a"))
    with pytest.raises(Conflict) as e:
        put(tables, Project(id="pj_1", name="b"))
    assert e.value.fields["values"] == "id=pj_1"


def test_no_message_shows_a_digest(tables):
    put(tables, sample(ApiKey, digest="secretdigest"))
    with pytest.raises(Conflict) as e:
        put(tables, sample(ApiKey, digest="secretdigest"))
    assert "secretdigest" not in str(e.value) and "digest" in str(e.value)


def test_updates_need_the_revision_they_replace(tables):
    job = put(tables, sample(Job, state="queued", revision=0))
    running = job.model_copy(update={"state": "running", "revision": 1})
    tables.commit(Changes(updates=[(running, 0)]))
    assert tables.get(Job, job.id) == running
    assert tables.find(Job, where={"state": "running"}) == [running] and tables.find(Job, where={"state": "queued"}) == []
    with pytest.raises(Conflict) as e:
        tables.commit(Changes(updates=[(job.model_copy(update={"state": "failed", "revision": 2}), 0)], events=[event()]))
    assert e.value.code == "store.changed-meanwhile" and tables.events() == []
    with pytest.raises(Conflict, match=r"store\.changed-meanwhile"):
        tables.commit(Changes(updates=[(sample(Job, id="jb_none", revision=1), 0)]))
    with pytest.raises(Invalid, match=r"store\.revision-not-raised"):
        tables.commit(Changes(updates=[(running, 1)]))
    with pytest.raises(Invalid, match=r"store\.immutable"):
        tables.commit(Changes(updates=[(sample(Dataset, id="ds_1"), 0)]))
    assert tables.get(Job, job.id) == running


def test_an_update_may_not_take_what_is_unique_to_another(tables):
    a, b = sample(ApiKey, digest="a", revision=0), sample(ApiKey, digest="b", revision=0)
    put(tables, a, b)
    with pytest.raises(Conflict, match=r"store\.exists"):
        tables.commit(Changes(updates=[(a.model_copy(update={"digest": "b", "revision": 1}), 0)]))
    assert tables.get(ApiKey, a.id) == a
    tables.commit(Changes(updates=[(a.model_copy(update={"digest": "c", "revision": 1}), 0)]))
    put(tables, sample(ApiKey, digest="a"))


def test_a_record_may_be_put_and_updated_in_one_commit(tables):
    job = sample(Job, state="queued", revision=0)
    done = job.model_copy(update={"state": "done", "revision": 1})
    tables.commit(Changes(puts=[job], updates=[(done, 0)]))
    assert tables.get(Job, job.id) == done


def test_pointers_keep_their_history(tables):
    for key, target in (("news", "mv_1"), ("mail", "mv_2"), ("news", "mv_3")):
        tables.commit(Changes(pointers=[pointer(key, target)]))
    assert tables.pointer("service", "news").target == "mv_3"
    assert [(p.target, p.seq) for p in tables.pointers("service", "news")] == [("mv_3", 3), ("mv_1", 1)]
    assert [(p.key, p.target) for p in tables.pointers("service")] == [("mail", "mv_2"), ("news", "mv_3")]
    assert tables.pointers("alias") == [] and tables.pointer("alias", "news") is None
    assert tables.pointer("service", "news").actor == "local"


def test_events_come_in_order_and_in_pages(tables):
    events = [event(data={"n": n, "深": [n, None]}) for n in range(7)]
    tables.commit(Changes(events=events[:3]))
    tables.commit(Changes(events=events[3:]))
    assert [(e.seq, e.id, e.data, e.at) for e in tables.events()] == [(n, e.id, e.data, e.at) for n, e in enumerate(events, 1)]
    assert [e.seq for e in tables.events(after=2, limit=3)] == [3, 4, 5] and tables.events(after=7) == []
    with pytest.raises(Conflict, match=r"store\.exists"):
        tables.commit(Changes(events=[event(), event(id=events[0].id)]))
    twin = event()
    with pytest.raises(Conflict, match=r"store\.exists"):
        tables.commit(Changes(events=[twin, twin]))
    assert len(tables.events()) == 7


def test_the_audit_is_one_chain(tables):
    tables.commit(Changes(audit=[entry(detail={"a": 0.1, "b": [1e22, None, True], "文": "\x00'"}), entry("refused", code="auth.denied", request_id="rq_1")]))
    tables.commit(Changes(audit=[entry("failed")]))
    lines = tables.audit()
    assert [e.seq for e in lines] == [1, 2, 3] and lines[0].previous == "" and [e.previous for e in lines[1:]] == [e.hash for e in lines[:2]]
    assert lines[0].detail == {"a": 0.1, "b": [1e22, None, True], "文": "\x00'"} and lines[1].code == "auth.denied"
    report = verify_tables(tables)
    assert report.ok and report.entries == 3 and report.head == lines[-1].hash
    assert tables.audit(after=1, limit=1) == [lines[1]]


def test_a_commit_with_an_id_is_done_once(tables):
    changes = Changes(events=[event()], audit=[entry()])
    tables.commit(changes, once="c1")
    tables.commit(changes, once="c1")
    tables.commit(Changes(audit=[entry()]), once="c2")
    assert len(tables.events()) == 1 and len(tables.audit()) == 2
    with pytest.raises(Conflict):
        tables.commit(changes, once="c3")
    tables.commit(Changes(events=[event()]), once="c3")  # a commit that failed does not count as done
    assert len(tables.events()) == 2


@pytest.mark.parametrize("bad", ["\x00", "a\x00b", "\ud800", "x\udfff"])
def test_text_no_database_can_hold_is_refused(tables, bad):
    for changes in (
        Changes(puts=[Project.model_construct(id="pj_1", name=bad)]),
        Changes(puts=[Project.model_construct(id=bad, name="x")]),
        Changes(pointers=[pointer().model_copy(update={"key": bad})]),
        Changes(events=[event().model_copy(update={"subject": bad})]),
        Changes(audit=[entry().model_copy(update={"actor": bad})]),
    ):
        for change in changes.puts:
            object.__setattr__(change, "created_at", entry().at)
        with pytest.raises(Invalid, match=r"store\.bad-text"):
            tables.commit(changes)
    assert tables.get(Project, bad) is None and tables.pointer("service", bad) is None and tables.pointer(bad, "x") is None and tables.pointers("service", bad) == []
    with pytest.raises(Invalid, match=r"store\.bad-text"):
        tables.find(Project, after="a" + bad)
    assert tables.find(Project) == [] and tables.events() == []


def test_a_number_too_large_is_refused(tables):
    with pytest.raises(Invalid, match=r"store\.wrong-type"):
        put(tables, sample(ModelVersion, number=1 << 63))
    put(tables, sample(ModelVersion, number=(1 << 63) - 1))


def test_a_large_record_comes_back(tables):
    job = put(tables, sample(Job, answer={"text": "文" * 2_000_000}))
    assert tables.get(Job, job.id) == job


def test_after_close_every_call_says_so(tables):
    tables.close()
    tables.close()
    for call in (lambda: tables.get(Project, "x"), lambda: tables.find(Project), tables.events, lambda: tables.commit(Changes(events=[event()]))):
        with pytest.raises(Broken, match=r"store\.closed"):
            call()


def race(n, work):
    """The outcomes of ``work(i)`` in n threads that start together."""
    gate, outcomes = threading.Barrier(n), [None] * n

    def one(i):
        gate.wait()
        try:
            outcomes[i] = work(i) or "done"
        except WenfangError as e:
            outcomes[i] = e.code

    threads = [threading.Thread(target=one, args=(i,)) for i in range(n)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return outcomes


def test_of_many_who_want_one_name_one_gets_it(tables):
    for round in range(5):
        outcomes = race(8, lambda i, r=round: tables.commit(Changes(puts=[Project(id=f"pj_{r}_{i}", name=f"n{r}")], audit=[entry()], events=[event()])))
        assert sorted(outcomes) == ["done", *["store.exists"] * 7]
    assert len(tables.find(Project)) == len(tables.audit()) == len(tables.events()) == 5


def test_of_many_who_change_one_record_one_wins_each_revision(tables):
    job = put(tables, sample(Job, attempts=0, revision=0))

    def work(_):
        for _ in range(5):
            while True:
                now_ = tables.get(Job, job.id)
                try:
                    tables.commit(Changes(updates=[(now_.model_copy(update={"attempts": now_.attempts + 1, "revision": now_.revision + 1}), now_.revision)], audit=[entry()]))
                    break
                except Conflict:
                    continue

    assert set(race(6, work)) == {"done"}
    last = tables.get(Job, job.id)
    assert last.attempts == last.revision == 30
    assert verify_tables(tables).ok and verify_tables(tables).entries == 30


def test_writers_and_readers_together_leave_no_gap(tables):
    """A reader that follows the events never meets a later one before an earlier one."""
    stop, seen, faults = threading.Event(), [], []

    def follow():
        while not (stop.is_set() and len(seen) == 60):
            for e in tables.events(after=len(seen), limit=7):
                if e.seq != len(seen) + 1:
                    faults.append(e.seq)
                seen.append(e.id)

    reader = threading.Thread(target=follow)
    reader.start()
    race(6, lambda _: [tables.commit(Changes(events=[event()])) for _ in range(10)] and None)
    stop.set()
    reader.join(60)
    assert faults == [] and len(seen) == len(set(seen)) == 60


@pytest.mark.parametrize("seed", range(6))
def test_every_store_behaves_as_its_twin_in_memory(tables, seed, tmp_path):
    """The same random commits, good and bad, give the same outcomes and the same contents."""
    rng, twin = random.Random(seed), open_tables("memory:", Home(tmp_path))
    ids: list[str] = []
    for _ in range(60):
        changes = Changes()
        for _ in range(rng.randint(1, 3)):
            what = rng.random()
            if what < 0.4:
                ids.append(f"ky_{rng.randint(0, 40)}")
                changes.puts.append(sample(ApiKey, id=ids[-1], digest=f"d{rng.randint(0, 25)}", name=rng.choice("ab"), project=rng.choice(["p", None]), revision=0))
            elif what < 0.7 and ids:
                old = rng.randint(0, 3)
                changes.updates.append((sample(ApiKey, id=rng.choice(ids), digest=f"d{rng.randint(0, 25)}", name=rng.choice("ab"), revision=old + rng.randint(0, 2)), old))
            elif what < 0.85:
                changes.pointers.append(pointer(rng.choice("xyz"), f"mv_{rng.randint(0, 9)}"))
            else:
                changes.events.append(event(id=f"ev_{rng.randint(0, 30)}"))
        outcomes = []
        for store in (tables, twin):
            try:
                outcomes.append(store.commit(changes))
            except WenfangError as e:
                outcomes.append((e.code, e.fields))
        assert outcomes[0] == outcomes[1]
    for where in (None, {"name": "a"}, {"name": ["a", "b"], "project": None}, {"project": ["p", None]}):
        for newest_first in (True, False):
            assert tables.find(ApiKey, where=where, newest_first=newest_first, limit=9) == twin.find(ApiKey, where=where, newest_first=newest_first, limit=9)
    assert tables.events() == twin.events() and tables.pointers("service") == twin.pointers("service") and tables.pointers("service", "x") == twin.pointers("service", "x")
