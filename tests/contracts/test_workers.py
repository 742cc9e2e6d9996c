"""What every runtime keeps for pieces of work: told as it goes, its files back, its end known however it ends. The same tests on one machine and on Ray."""

import os

import numpy as np
import pytest

import ray_world
from dataplane import alive, until
from wenfang.core.errors import Broken, Invalid
from wenfang.core.examples import Examples
from wenfang.core.ports import Quiet
from wenfang.models import families
from wenfang.models.base import Curve
from wenfang.runtimes.ray_workers import RayWorkers
from wenfang.runtimes.worker import LocalWorkers
from wenfang.select.apart import FitApart
from worlds import separable

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module", params=["local", "ray"])
def workers(request):
    if request.param == "local":
        os.environ["PYTHONPATH"] = os.pathsep.join([str(ray_world.TESTS), os.environ.get("PYTHONPATH", "")])
        yield LocalWorkers()
        return
    if ray_world.missing:
        pytest.skip(ray_world.missing)
    cluster = ray_world.Cluster()
    os.environ |= {k: v for k, v in cluster.env.items() if k.startswith("RAY_")}
    workers = RayWorkers(cluster.address, name="tests", resources={"cpus": 0.5, "gpus": 0})
    yield workers
    if workers._ray is not None:
        workers._ray.shutdown()
    cluster.close()


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data.bin"
    path.write_bytes(os.urandom(1 << 20) * 3)
    return path


def run(workers, tmp_path, entry, *, limit_s=None, heard=lambda _: None, **more):
    folder = tmp_path / "work"
    workers.run(f"worker_entries:{entry}", {"folder": str(folder), **more}, folder, heard=heard, limit_s=limit_s)
    return folder


def test_it_is_told_in_order_and_its_files_come_back(workers, tmp_path, data):
    told = []
    folder = run(workers, tmp_path, "work", heard=told.append, data=str(data), lines=2000)
    assert [line["n"] for line in told] == list(range(2000)) and {line["字"] for line in told} == {"文" * 50}
    assert (folder / "model" / "deep" / "weights").read_bytes() == data.read_bytes() * 3
    assert (folder / "model" / "empty").read_bytes() == b""
    assert "hello from the work" in (folder / "log").read_text()
    assert not alive(int((folder / "pid").read_text()))


def test_what_it_refuses_with_is_raised(workers, tmp_path):
    with pytest.raises(Invalid) as caught:
        run(workers, tmp_path, "refuse")
    assert caught.value.code == "model.too-few-labels" and caught.value.fields == {"found": 1, "needed": 2}


def test_a_death_is_said(workers, tmp_path):
    with pytest.raises(Broken) as caught:
        run(workers, tmp_path, "die")
    assert caught.value.code == "runtime.worker-died" and caught.value.fields["code"] == -9


def test_what_overruns_is_ended_and_what_hearing_raises_ends_it_too(workers, tmp_path):
    told = []
    with pytest.raises(Broken) as caught:
        run(workers, tmp_path, "hang", limit_s=5.0, heard=told.append)
    assert caught.value.code == "runtime.worker-overran"
    until(lambda: not alive(told[0]["pid"]), 20)

    class Stop(Exception):
        pass

    def heard(line):
        told.append(line)
        raise Stop

    with pytest.raises(Stop):
        run(workers, tmp_path, "hang", heard=heard)
    until(lambda: not alive(told[-1]["pid"]), 20)


def test_a_fit_elsewhere_gives_the_model_that_a_fit_here_gives(workers):
    texts, labels = map(list, zip(*separable(260), strict=True))
    train, valid = (Examples("classification", texts=texts[part], labels=labels[part]) for part in (slice(200), slice(200, None)))
    linear = families.get("linear")
    here = linear(task=train.task, seed=3).fit(train, valid)
    with FitApart(workers, parallel=2) as fit:
        learned = fit(linear(task=train.task, seed=3), train, valid, Curve(Quiet()))
    assert [o.label for o in learned.model.predict(valid.texts)] == [o.label for o in here.predict(valid.texts)]
    assert np.allclose([o.score for o in learned.model.predict(valid.texts)], [o.score for o in here.predict(valid.texts)])
    assert learned.environment == here.environment()


def test_work_that_no_machine_can_hold_is_refused_in_time(workers, tmp_path):
    if not workers.elsewhere:
        pytest.skip("this machine takes any work")
    big = RayWorkers(workers.address, name="tests", resources={"cpus": 64, "gpus": 0}, room_s=3.0)
    big._ray = workers._joined()
    with pytest.raises(Broken) as caught:
        run(big, tmp_path, "refuse")
    assert caught.value.code == "runtime.no-room" and caught.value.fields["wait_s"] == 3.0
