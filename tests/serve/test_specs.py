"""Interfaces written down: equal bytes for equal versions, documents that others' tools accept, code that linters and type checkers accept."""

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from wenfang.core.conversation import Generation
from wenfang.core.errors import NotFound
from wenfang.serve.interface import LABELS_LISTED, interface_of
from wenfang.serve.specs import specs
from wenfang.serve.specs.base import identifier, shapes

TASKS = {
    "classification": ["退款", "物流"],
    "multilabel": ["urgent", 'say "no"', "back\\slash", "two\nlines", "*/ // #", "\u2028"],
    "tagging": ["LOC"],
    "matching": ["same", "other"],
    "embedding": [],
    "generation": [],
    "chat": [],
}
INTERFACES = {task: interface_of(f"客服-{task}.1", model=f"客服:{n}", task=task, labels=labels) for n, (task, labels) in enumerate(TASKS.items(), 1)}
INTERFACES["graded"] = interface_of("graded", model="graded:1", task="matching", labels=[])
INTERFACES["many"] = interface_of("many", model="many:1", task="classification", labels=[f"l{i}" for i in range(LABELS_LISTED)])
NAMES = specs.names()


def written(name, interface):
    return specs.get(name)().write(interface)


# ------------------------------------------------------------ every format
def test_the_formats_are_found_and_their_files_have_names_of_their_own():
    assert {"json_schema", "openapi", "proto", "python"} <= set(NAMES)
    assert len({specs.get(n).file_name for n in NAMES}) == len(NAMES)
    with pytest.raises(NotFound):
        specs.get("wsdl")


@pytest.mark.parametrize("name", NAMES)
def test_equal_interfaces_give_equal_bytes_and_other_labels_others(name):
    for task, labels in TASKS.items():
        once, again = (written(name, interface_of("s", model="m:1", task=task, labels=list(labels))) for _ in range(2))
        assert once == again and once.endswith("\n") and "\r" not in once
        if labels:
            assert once != written(name, interface_of("s", model="m:1", task=task, labels=[*labels, "one more"]))
            assert "one more" in written(name, interface_of("s", model="m:1", task=task, labels=[*labels, "one more"]))


def test_another_process_writes_the_same_bytes():
    code = (
        "import json, sys; from wenfang.serve.specs import specs; from wenfang.serve.interface import interface_of;"
        "interface = interface_of('s', model='m:1', task='tagging', labels=['LOC', 'PER']);"
        "json.dump({n: specs.get(n)().write(interface) for n in specs.names()}, sys.stdout)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env={"PYTHONHASHSEED": "12345", "PYTHONPATH": ":".join(sys.path)})
    interface = interface_of("s", model="m:1", task="tagging", labels=["LOC", "PER"])
    assert json.loads(done.stdout) == {n: written(n, interface) for n in NAMES}


# ------------------------------------------------------------ the interface
@pytest.mark.parametrize("interface", INTERFACES.values(), ids=INTERFACES)
def test_no_two_fields_of_a_shape_share_a_name_or_a_number_and_no_two_shapes_a_name(interface):
    found = shapes(interface.request, interface.reply)
    assert len({s.name for s in found}) == len(found)
    for shape in found:
        assert len({p.name for p in shape.parts}) == len({p.number for p in shape.parts}) == len(shape.parts)


def test_everything_that_may_be_asked_of_generation_is_told_with_its_range():
    parts = {p.name: p for p in INTERFACES["chat"].parameters.parts}
    assert set(parts) == set(Generation.__struct_fields__)
    assert (parts["max_tokens"].kind.least, parts["max_tokens"].kind.most) == (1, 32_768)
    assert (parts["top_p"].kind.above, parts["top_p"].kind.most) == (0, 1)
    for name, part in parts.items():
        for bound in filter(None, (getattr(part.kind, "least", None), getattr(part.kind, "most", None))):
            msgspec.convert({name: bound}, Generation)


def test_numbers_of_fields_stay_what_they_are():
    """A number that changes its meaning would make old binary messages say something else."""
    told = {t: {s.name: {p.name: p.number for p in s.parts} for s in shapes(i.request, i.reply)} for t, i in INTERFACES.items()}
    assert told["classification"] == {
        "Question": {"text": 1},
        "Parameters": {"top_k": 1},
        "PredictRequest": {"inputs": 1, "parameters": 2},
        "Answer": {"label": 1, "score": 2, "scores": 3},
        "PredictReply": {"outputs": 1, "model": 2, "id": 3},
    }
    assert told["multilabel"]["Answer"] == {"labels": 1, "score": 2, "scores": 3}
    assert told["matching"]["Question"] == {"text": 1, "text_b": 2}
    assert told["tagging"]["Answer"] == {"spans": 1, "score": 2, "alternatives": 3}
    assert told["tagging"]["Span"] == {"start": 1, "end": 2, "label": 3, "text": 4, "score": 5}
    assert told["embedding"]["Answer"] == {"vector": 1, "score": 2, "tokens_in": 3}
    assert told["chat"]["Question"] == {"text": 1, "messages": 3} and told["chat"]["Message"] == {"role": 1, "content": 2}
    assert told["chat"]["Answer"] == {"text": 1, "finish": 2, "tokens_in": 3, "tokens_out": 4, "logprobs": 5, "score": 6, "replies": 7}
    assert [n for _, n in sorted(told["chat"]["Parameters"].items(), key=lambda p: Generation.__struct_fields__.index(p[0]))] == list(range(1, 14))


def test_so_many_labels_are_not_listed():
    assert INTERFACES["many"].labels == ()
    assert json.loads(written("json_schema", INTERFACES["many"]))["$defs"]["Answer"]["properties"]["label"] == {"type": "string", "description": "the likeliest label"}


def test_no_two_services_share_an_identifier():
    names = ["a-b", "a_b", "a.b", "a_db", "文", "_u6587", "u6587", "4a", "n4a", "A", "a"]
    found = [identifier(n) for n in names]
    assert len(set(found)) == len(names) and all(f.isascii() and f.isidentifier() for f in found)


# ------------------------------------------------------------ JSON Schema, OpenAPI
@pytest.mark.parametrize("interface", INTERFACES.values(), ids=INTERFACES)
def test_the_schema_is_one_and_holds_for_its_own_examples(interface):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(written("json_schema", interface))
    jsonschema.Draft202012Validator.check_schema(schema)
    valid = jsonschema.Draft202012Validator(schema).is_valid
    (example,) = schema["examples"]
    assert valid(example)
    for wrong in (
        {"inputs": []},
        {"inputs": [1]},
        {},
        {"inputs": ["a"], "more": 1},
        {"inputs": ["a"], "parameters": {"unknown": 1}},
        {"inputs": ["a"], "parameters": {"top_k": -1}},
    ):
        assert not valid({**example, "request": wrong}), wrong
    if interface.labels:
        assert not valid(json.loads(json.dumps(example).replace(json.dumps(interface.labels[0]), '"unheard of"'))) or interface.task == "multilabel"


@pytest.mark.parametrize("name", ["tagging", "matching", "embedding", "chat"])
def test_the_openapi_document_is_valid(name):
    interface = INTERFACES[name]
    validator = pytest.importorskip("openapi_spec_validator")
    document = json.loads(written("openapi", interface))
    validator.validate(document)
    assert document["openapi"] == "3.1.0"
    paths = set(document["paths"])
    assert {f"/predict/{interface.service}", f"/v2/models/{interface.service}/infer", f"/v1/models/{interface.service}"} <= paths
    assert ("/v1/chat/completions" in paths) == (interface.task in {"chat", "generation"}) and ("/v1/embeddings" in paths) == (interface.task == "embedding")


# ------------------------------------------------------------ Protocol Buffers
def test_protocol_buffers_compile_and_carry_an_exchange(tmp_path):
    protoc = pytest.importorskip("grpc_tools.protoc")
    from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

    for name, interface in INTERFACES.items():
        (tmp_path / f"{name}.proto").write_text(written("proto", interface), encoding="utf-8")
    out = tmp_path / "all.binpb"
    assert protoc.main(["protoc", f"-I{tmp_path}", f"--descriptor_set_out={out}", *[str(tmp_path / f"{n}.proto") for n in INTERFACES]]) == 0
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file:
        pool.Add(file)  # all of them in one program
    for interface in INTERFACES.values():
        reply = message_factory.GetMessageClass(pool.FindMessageTypeByName(f"wenfang.services.{identifier(interface.service)}.PredictReply"))
        told = json_format.ParseDict(interface.answered, reply())
        back = json_format.MessageToDict(reply.FromString(told.SerializeToString()), preserving_proto_field_name=True)
        assert msgspec.convert(back, type=dict)["outputs"][0].keys() == interface.answered["outputs"][0].keys()


# ------------------------------------------------------------ Python
def test_the_python_clients_pass_ruff_and_pyright_strict(tmp_path):
    for name in ("multilabel", "tagging", "matching", "graded", "many", "chat"):
        (tmp_path / f"{name}_client.py").write_text(written("python", INTERFACES[name]), encoding="utf-8")
    rules = ["--select", "ALL", "--ignore", "D203,D213,D413,COM812,CPY,E501,ANN401,TC003,RUF001,RUF002,RUF003,INP001"]
    ruff = subprocess.run([sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", *rules, str(tmp_path)], capture_output=True, text=True, check=False)
    assert ruff.returncode == 0, ruff.stdout[-3000:]
    shape = subprocess.run(
        [sys.executable, "-m", "ruff", "format", "--isolated", "--no-cache", "--line-length", "180", "--check", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert shape.returncode == 0, shape.stdout[-3000:]
    (tmp_path / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict", "pythonVersion": "3.11"}')
    pyright = subprocess.run(
        [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "-p", str(tmp_path)], capture_output=True, text=True, check=False, cwd=Path(tmp_path)
    )
    assert pyright.returncode == 0, pyright.stdout[-3000:]
