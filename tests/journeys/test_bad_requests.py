"""Bad input as a person and as a stranger give it: through the command line and over HTTP. A clear error, and the studio stays as it was."""

import contextlib
import io
import json
import os
import socket
import zipfile
from types import SimpleNamespace

import pytest

from wenfang.core.home import Home
from wenfang.doors.cli.tree import main
from worlds import Tree, request, separable, wenfang, write_csv

pytestmark = pytest.mark.timeout(120)

ROWS = separable(40)
CSV = "text,label\n" + "".join(f"{text},{label}\n" for text, label in ROWS)


def xlsx_without_parts(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.txt", "hi")


FILES = {  # name: (what is written, code, words the error holds)
    "empty.csv": (b"", "dataset.file-empty", "empty.csv"),
    "blank.csv": (b"\n\n  \n", "dataset.file-blank", "blank.csv"),
    "header.csv": (b"text,label\n", "dataset.no-rows", "header.csv"),
    "mixed.csv": (CSV.encode() + "退款,退款\n".encode("gb18030"), "dataset.undecodable", "line 42"),
    "nul.csv": (b"text,label\n" + "退款什么时候到账呢谢谢\0，退款\n".replace("，", ",").encode() * 60, "dataset.no-usable-row", "line 2"),
    "zeros.csv": (bytes(5000), "dataset.binary-file", "zeros.csv"),
    "quotes.csv": (CSV.encode() + b'"open,x\n' + b"a,b\n" * 5, "dataset.quotes-unbalanced", "line 42"),
    "cut.jsonl": (b'{"text": "a", "label": "b"}\n{"text": "x",\n', "dataset.malformed", "line 2"),
    "deep.jsonl": (b'{"text":"a","label":"b"}\n{"text":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", "dataset.malformed", "line 2"),
    "bare.conll": ("张 B-PER\n三 I-PER\n在\n\n".encode(), "dataset.conll-line", "line 3"),
    "tag.conll": ("张 B-PER\n三 B-\n在 O\n\n".encode(), "dataset.conll-line", "line 2"),
    "noise.xlsx": (b"PK\x03\x04" + b"x" * 500, "dataset.damaged-file", "noise.xlsx"),
    "parts.xlsx": (xlsx_without_parts, "dataset.damaged-file", "parts.xlsx"),
    "noise.parquet": (b"PAR1" + b"x" * 500 + b"PAR1", "dataset.damaged-file", "noise.parquet"),
    "missing.csv": (None, "data.no-file", "missing.csv"),
    "folder.csv": (lambda path: path.mkdir(), "data.not-a-file", "folder.csv"),
    "pipe.csv": (os.mkfifo, "data.not-a-file", "pipe.csv"),
}


def refused(done, code, returncode=1):
    """The command said no as it should: its code, a next step, no traceback."""
    assert done.returncode == returncode, (done.returncode, done.stdout[-500:], done.stderr[-2000:])
    assert f"[{code}]" in done.stderr and "→" in done.stderr and "Traceback" not in done.stderr, done.stderr[-2000:]
    return done


def here(*words, home):
    """The command line in this process: what ``wenfang`` says and returns, without the time a process takes to start."""
    out, err = io.StringIO(), io.StringIO()
    before = {name: os.environ.get(name) for name in ("WENFANG_HOME", "WENFANG_LANG")}
    os.environ.update(WENFANG_HOME=str(home), WENFANG_LANG="en")
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main([*map(str, words)])
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    return SimpleNamespace(returncode=ended.value.code, stdout=out.getvalue(), stderr=err.getvalue())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    for name, (content, *_) in FILES.items():
        if callable(content):
            content(folder / name)
        elif content is not None:
            (folder / name).write_bytes(content)
    write_csv(folder / "good.csv", separable(200))
    write_csv(folder / "one.csv", [(text, "x") for text, _ in ROWS])
    write_csv(folder / "ids.csv", [(i // 2, *row) for i, row in enumerate(ROWS)], header=("id", "text", "label"))
    return folder


@pytest.fixture(scope="module")
def tree(folder):
    """A studio that serves one model, chosen from the good file."""
    home = folder / "home"
    wenfang("run", folder / "good.csv", "--budget", "5s", "--family", "majority", "--name", "tickets", "--json", home=home, check=0)
    wenfang("service", "deploy", "tickets", "--model-version", "tickets", "--replicas", "1", home=home, check=0)
    with Tree(home) as tree:
        yield tree


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    """A home without a process tree that holds one dataset."""
    home = tmp_path_factory.mktemp("quiet") / "home"
    file = write_csv(home.parent / "kept.csv", ROWS)
    assert here("dataset", "import", file, home=home).returncode == 0
    return home


@pytest.fixture
def unchanged(quiet):
    """The one dataset is all there is after the test, and the audit verifies."""
    before = here("dataset", "list", "--json", home=quiet).stdout
    assert len(json.loads(before)["versions"]) == 1
    yield quiet
    assert here("dataset", "list", "--json", home=quiet).stdout == before
    assert json.loads(here("audit", "verify", "--json", home=quiet).stdout)["ok"]


@pytest.fixture
def as_it_was(tree):
    """Datasets, models and services are the same after the test; the audit still verifies."""
    lists = ("datasets", "models", "services", "selections", "projects", "keys")
    before = [tree.call("GET", f"/api/v1/{each}")[1] for each in lists]
    yield tree
    assert [tree.call("GET", f"/api/v1/{each}")[1] for each in lists] == before
    assert tree.call("GET", "/api/v1/audit/verify")[1]["ok"]
    assert tree.call("POST", "/predict/tickets", {"inputs": ["快递到哪里了"]})[0] == 200


# ---- the command line -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_cannot_be_read_is_refused_with_its_place(unchanged, folder, name):
    _, code, words = FILES[name]
    done = refused(here("dataset", "import", folder / name, home=unchanged), code)
    assert words in done.stderr


@pytest.mark.parametrize(
    ("file", "words", "code", "returncode"),
    [
        ("good.csv", ["--text", "nope"], "dataset.column-missing", 1),
        ("ids.csv", ["--id", "id"], "dataset.duplicate-id", 1),
        ("good.csv", ["--project", "nope"], "record.not-found", 1),
        ("good.csv", ["--task", "poetry"], "http.bad-request", 2),
        ("good.csv", ["--name", "a/../b"], "http.bad-request", 2),
        ("good.csv", ["--name", "a\nb"], "http.bad-request", 2),
    ],
)
def test_a_wrong_wish_is_refused(unchanged, folder, file, words, code, returncode):
    refused(here("dataset", "import", folder / file, *words, home=unchanged), code, returncode)


def test_one_class_alone_is_not_chosen_for(folder, tmp_path):
    done = refused(here("run", folder / "one.csv", "--budget", "5s", "--family", "majority", "--family", "linear", home=tmp_path / "home"), "select.no-run-succeeded")
    assert "at least 2" in done.stderr
    assert json.loads(here("model", "list", "--json", home=tmp_path / "home").stdout)["versions"] == []


def test_control_characters_of_a_label_do_not_reach_the_terminal(tmp_path):
    file = write_csv(tmp_path / "red.csv", [(text, "\x1b]0;owned\x07\x1b[31mred" if label == "退款" else label) for text, label in ROWS])
    done = here("dataset", "import", file, home=tmp_path / "home")
    assert done.returncode == 0 and not {"\x1b", "\x07"} & set(done.stdout + done.stderr)


@pytest.mark.parametrize("under", ["", "sub"])
def test_a_home_where_a_file_stands_is_refused(tmp_path, under):
    (tmp_path / "file").write_text("x")
    for words in (["dataset", "list"], ["up", "--port", "0"]):
        refused(here(*words, home=tmp_path / "file" / under), "home.not-writable")
    assert (tmp_path / "file").read_text() == "x"


def test_a_port_in_use_is_refused_and_leaves_the_home_free(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = refused(wenfang("up", "--port", taken.getsockname()[1], home=tmp_path / "home"), "cli.port-in-use")
    assert "--port" in done.stderr
    assert here("dataset", "list", home=tmp_path / "home").returncode == 0


def test_a_server_that_is_not_there_or_does_not_know_the_key_is_told(tree, folder):
    refused(here("dataset", "list", "--server", "http://127.0.0.1:9", "--api-key", "x", home=folder / "none"), "client.no-answer")
    server = ["--server", f"http://127.0.0.1:{tree.port}"]
    refused(here("dataset", "list", *server, "--api-key", "x", home=folder / "none"), "auth.bad-key")
    refused(wenfang("dataset", "import", folder / "header.csv", *server, "--api-key", Tree.KEY), "dataset.no-rows")
    refused(here("predict", "nope", "x", *server, "--api-key", Tree.KEY, home=folder / "none"), "record.not-found")


# ---- HTTP -------------------------------------------------------------------------------------------------------------------------------------

JSON = {"Content-Type": "application/json"}
DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "code"),
    [
        ("/predict/nope", b'{"inputs":["x"]}', JSON, 404, "serve.unknown-service"),
        ("/predict/tickets", b'{"inputs":["' + b"a" * 20_000_000 + b'"]}', JSON, 413, "gateway.body-too-large"),
        ("/predict/tickets", json.dumps({"inputs": ["长" * 100_000]}).encode(), JSON, 422, "gateway.text-too-long"),
        ("/predict/tickets", json.dumps({"inputs": ["x"] * 100_000}).encode(), JSON, 422, "gateway.too-many-inputs"),
        ("/predict/tickets", b'{"inputs":' + DEEP + b"}", JSON, 422, "gateway.bad-json"),
        ("/predict/tickets", b'{"inputs":["\\ud83d"]}', JSON, 422, "gateway.bad-json"),
        ("/predict/tickets", b'{"inputs":["\xff\xfe"]}', JSON, 422, "gateway.bad-json"),
        ("/predict/tickets", b'{"inputs":[1]}', JSON, 422, "gateway.bad-json"),
        ("/predict/tickets", b'{"input":["x"]}', JSON, 422, "gateway.bad-json"),
        ("/predict/tickets", b"", JSON, 422, "gateway.bad-json"),
        ("/predict/tickets", b'{"inputs":[]}', JSON, 422, "gateway.no-inputs"),
        ("/predict/tickets", b'{"inputs":["x"]}', {"Content-Type": "text/plain"}, 415, "gateway.wrong-content-type"),
        ("/api/v1/keys", b'{"name":' + DEEP + b"}", JSON, 422, "http.bad-json"),
        ("/api/v1/keys", b"[]", JSON, 422, "http.not-an-object"),
        ("/api/v1/keys", b'{"name":"k","role":"root"}', JSON, 422, "http.bad-request"),
        ("/api/v1/projects", b'{"name":"../x"}', JSON, 422, "http.bad-request"),
        ("/api/v1/projects", b'{"name":"x","more":1}', JSON, 422, "http.bad-request"),
    ],
)
def test_a_bad_body_gets_a_problem_document(as_it_was, path, body, headers, status, code):
    got, problem, told = as_it_was.call("POST", path, body, headers=headers)
    assert (got, problem["code"], told["content-type"]) == (status, code, "application/problem+json"), problem
    assert problem["detail"] and problem["hint"] and problem["request_id"]


TENSOR = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["x"]}


@pytest.mark.parametrize(
    "inputs",
    [
        None,
        [],
        [TENSOR, TENSOR],
        [{**TENSOR, "name": "tokens"}],
        [{**TENSOR, "shape": [2]}],
        [{**TENSOR, "shape": [-1]}],
        [{**TENSOR, "shape": []}],
        [{**TENSOR, "shape": [10**30]}],
        [{**TENSOR, "shape": ["1"]}],
        [{**TENSOR, "datatype": "FP32", "data": [1.0]}],
        [{**TENSOR, "data": [1]}],
        [{**TENSOR, "data": "x"}],
    ],
)
def test_a_wrong_tensor_is_refused_in_the_words_of_the_protocol(tree, inputs):
    status, answer, _ = tree.call("POST", "/v2/models/tickets/infer", {"inputs": inputs})
    assert status == 400 and list(answer) == ["error"] and len(answer["error"]) > 20


def test_an_unknown_model_or_version_of_the_protocol_is_not_found(tree):
    for path in ("/v2/models/nope", "/v2/models/nope/ready", "/v2/models/tickets/versions/99", "/v2/nope"):
        assert tree.call("GET", path)[0] == 404, path


@pytest.mark.parametrize("key", [None, "x", "wf_test-" + "j" * 43, "é" * 10])
def test_no_or_an_unknown_key_is_refused_before_anything_is_looked_at(as_it_was, key):
    assert as_it_was.call("POST", "/predict/tickets", {"inputs": ["x"]}, key=key)[0] == 401
    for path in ("/api/v1/models", "/api/v1/nope/..%2f", "/v2/models/tickets"):
        assert as_it_was.call("GET", path, key=key)[0] in {401, 404}, path


@pytest.mark.parametrize("headers", [{"X-Big": "a" * 100_000}, {f"X-{i}": "a" * 1000 for i in range(90)}, {"Authorization": "Bearer " + "k" * 70_000}])
def test_a_giant_head_is_refused(tree, headers):
    assert request(tree.port, "GET", "/api/v1/models", headers=headers)[0] == 431


@pytest.fixture(scope="module")
def elsewhere(tree):
    """Keys of every role that reach into the project ``beta`` alone."""
    tree.call("POST", "/api/v1/projects", {"name": "beta"})
    roles = ("admin", "operator", "engineer", "annotator", "analyst", "auditor", "caller")
    return {role: tree.call("POST", "/api/v1/keys", {"name": f"b-{role}", "role": role, "project": "beta"})[1]["key"] for role in roles}


def test_a_key_of_one_project_reaches_nothing_of_another(elsewhere, as_it_was):
    tree = as_it_was
    ids = {each: tree.call("GET", f"/api/v1/{each}")[1] for each in ("datasets", "models", "selections")}
    dataset, model, selection = (next(iter(answer.values()))[0]["id"] for answer in ids.values())
    upload = tree.call("POST", "/api/v1/uploads?file_name=a.csv", CSV.encode(), headers={"Content-Type": "application/octet-stream"})[1]["id"]
    reads = [f"datasets/{dataset}", f"models/{model}", "models/tickets:1", f"selections/{selection}", f"selections/{selection}/runs"]
    reads += [f"selections/{selection}/report", "services/tickets", "datasets?project=default", "models?project=default", "audit", "events", "keys"]
    writes = [
        ("services/tickets/predict", {"inputs": ["x"]}),
        ("services/tickets/rollback", {}),
        ("services/deploy", {"service": "mine", "model_version": model, "project": "beta"}),
        ("services/deploy", {"service": "tickets", "model_version": model}),
        ("keys", {"name": "more", "role": "admin"}),
        ("projects", {"name": "more"}),
        ("datasets/import", {"train": f"upload:{upload}"}),
    ]
    for role, key in elsewhere.items():
        for path in reads:
            assert tree.call("GET", f"/api/v1/{path}", key=key)[0] in {403, 404}, (role, path)
        for path, body in writes:
            assert tree.call("POST", f"/api/v1/{path}", body, key=key)[0] in {403, 404}, (role, path)
        assert tree.call("POST", "/predict/tickets", {"inputs": ["x"]}, key=key)[0] == 404, role  # as if it were not there
        assert tree.call("POST", "/v2/models/tickets/infer", {"inputs": [TENSOR]}, key=key)[0] == 404, role


def test_paths_on_the_server_and_uploads_of_others_are_not_read_for_a_stranger(elsewhere, as_it_was, folder):
    upload = as_it_was.call("POST", "/api/v1/uploads?file_name=a.csv", CSV.encode(), headers={"Content-Type": "application/octet-stream"})[1]["id"]
    asked = [(Tree.KEY, "default", str(folder / "good.csv"), "data.path-is-local"), (elsewhere["engineer"], "beta", f"upload:{upload}", "record.not-found")]
    for key, project, train, code in asked:
        status, job, _ = as_it_was.call("POST", "/api/v1/datasets/import", {"train": train, "project": project}, key=key)
        while status == 202 and job["state"] in {"queued", "running"}:
            job = as_it_was.call("GET", f"/api/v1/jobs/{job['id']}")[1]["job"]
        assert (job["error"] if status == 202 else job)["code"] == code


@pytest.mark.parametrize("name", ["../../x.csv", "/etc/x.csv", "..%2f..%2fx.csv"])
def test_an_upload_keeps_the_last_part_of_its_name_alone(tree, name):
    status, upload, _ = tree.call("POST", f"/api/v1/uploads?file_name={name}", b"a,b\n", headers={"Content-Type": "application/octet-stream"})
    assert status == 200 and upload["file_name"] == "x.csv"
    assert not [path for path in Home(tree.home).root.parent.rglob("x.csv") if "uploads" not in path.parts]
