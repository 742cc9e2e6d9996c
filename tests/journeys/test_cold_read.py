"""What a stranger tripped over once: each of these was a defect."""

import subprocess
import sys

import pytest

from worlds import Tree, separable, wenfang, write_csv

pytestmark = pytest.mark.timeout(200)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    with Tree(tmp_path_factory.mktemp("cold") / "home") as tree:
        yield tree


def blobs(tree):
    return sorted(p.name for p in (tree.home / "blobs").rglob("*") if p.is_file())


def test_a_refused_request_with_a_body_is_refused_and_not_called_away(tree):
    big = b"x" * 5_000_000
    for _ in range(8):
        assert tree.call("POST", "/api/v1/keys", {"name": "a"}, key="wf_x")[0] == 401
        assert tree.call("POST", "/api/v1/uploads?file_name=x.csv", big, key="wf_x", headers={"Content-Type": "application/octet-stream"})[0] == 401
        assert tree.call("POST", "/api/v1/nope", {"name": "a"})[0] == 404


def test_an_upload_without_the_right_leaves_no_byte(tree):
    caller = tree.call("POST", "/api/v1/keys", {"name": "caller", "role": "caller"})[1]["key"]
    before = blobs(tree)
    assert tree.call("POST", "/api/v1/uploads?file_name=x.csv", b"y" * 100_000, key=caller)[0] == 403
    assert blobs(tree) == before


@pytest.mark.parametrize("name", ["..", "a%00b.csv", "%0a.csv", "%1b[31m.csv", "", "."])
def test_upload_names_are_plain(tree, name):
    status, body, _ = tree.call("POST", f"/api/v1/uploads?file_name={name}", b"text,label")
    assert status == 422 and body["code"] == "http.bad-file-name"


def test_control_says_413_and_415_too(tree):
    assert tree.call("POST", "/api/v1/keys", b" " * (9 << 20), headers={"Content-Type": "application/json"})[0] == 413
    assert tree.call("POST", "/api/v1/keys", b"a=b", headers={"Content-Type": "text/plain"})[0] == 415


def test_a_scoped_key_cannot_tell_other_services_from_none(tree, tmp_path):
    write_csv(tmp_path / "t.csv", separable(60))
    wenfang("run", tmp_path / "t.csv", "--name", "secret", "--family", "majority", "--budget", "4s", "--serve", "--json", home=tree.home, check=0)
    tree.call("POST", "/api/v1/projects", {"name": "beta"})
    key = tree.call("POST", "/api/v1/keys", {"name": "b", "role": "caller", "project": "beta"})[1]["key"]
    seen = [tree.call("POST", f"/predict/{n}", {"inputs": ["a"]}, key=key) for n in ("secret", "secre")]
    assert [s for s, _, _ in seen] == [404, 404] and "Did you mean: secret" not in str(seen)


def test_the_number_of_replicas_of_a_service_can_change(tree):
    model = tree.call("GET", "/api/v1/models")[1]["versions"][0]["id"]
    assert tree.call("POST", "/api/v1/services/deploy", {"service": "secret", "model_version": model, "replicas": 1})[1]["replicas"] == 1
    assert tree.call("POST", "/api/v1/services/deploy", {"service": "secret", "model_version": model, "replicas": 3})[1]["replicas"] == 3
    assert tree.call("GET", "/api/v1/services/secret")[1]["service"]["replicas"] == 3


def test_texts_that_are_not_utf8_are_told_by_number(tree):
    done = subprocess.run([sys.executable, "-m", "wenfang.doors.cli", "predict", "secret", "--home", str(tree.home)], input=b"good\nbad\xff\n", capture_output=True, check=False)
    assert done.returncode == 2 and b"[cli.not-utf8]" in done.stderr and b"2" in done.stderr


@pytest.mark.parametrize(
    ("words", "rc", "said"),
    [
        (["up", "--port", "99999"], 2, "99999"),
        (["dataset", "import", "a" * 300], 1, "data.no-file"),
        (["run", "x.csv", "--budget", "abc"], 2, "cli.bad-duration"),
        (["dataset", "import", "--input", "nope.json"], 2, "cli.no-input"),
        (["run", "good.csv", "--family", "nope"], 1, "plugin.unknown"),
        (["dataset", "import", "good.csv", "--text", "text", "--label", "text"], 1, "dataset.same-column"),
    ],
)
def test_wrong_words(words, rc, said, tmp_path):
    write_csv(tmp_path / "good.csv", separable(30))
    home = tmp_path / "home"
    done = subprocess.run([sys.executable, "-m", "wenfang.doors.cli", *words, "--home", str(home)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, said in done.stderr, "Traceback" in done.stderr) == (rc, True, False), done.stderr


def test_a_binary_parquet_column_that_is_no_text_is_put_aside(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": [b"\xff\xfe", *[f"文本{i}".encode() for i in range(20)]], "label": ["a", "b"] * 10 + ["a"]}), tmp_path / "b.parquet")
    done = wenfang("dataset", "import", tmp_path / "b.parquet", "--json", home=tmp_path / "home", check=0)
    assert '"rows":{"all":20}' in done.stdout


def test_a_home_that_is_a_file_does_not_pass_the_doctor(tmp_path):
    (tmp_path / "home").write_text("x")
    assert wenfang("doctor", home=tmp_path / "home").returncode == 1
