"""The OpenAPI document is made from the table and is valid by itself."""

from wenfang import __version__
from wenfang.doors.hot_paths import HOT_PATHS
from wenfang.doors.openapi import docs_page, openapi_document
from wenfang.studio import operations


def refs(node):
    if isinstance(node, dict):
        for k, v in node.items():
            if k == "$ref":
                yield v
            else:
                yield from refs(v)
    elif isinstance(node, list):
        for v in node:
            yield from refs(v)


def test_every_reference_leads_somewhere_and_every_path_parameter_is_declared():
    document = openapi_document(operations().values(), __version__, HOT_PATHS)
    schemas = document["components"]["schemas"]
    assert {r for r in refs(document) if r.rpartition("/")[2] not in schemas} == set()
    for path, methods in document["paths"].items():
        for item in methods.values():
            declared = {p["name"] for p in item.get("parameters", []) if p["in"] == "path"}
            assert declared == {part[1:-1] for part in path.split("/") if part.startswith("{")}, path


def test_operation_ids_are_unique():
    document = openapi_document(operations().values(), __version__, HOT_PATHS)
    ids = [item["operationId"] for methods in document["paths"].values() for item in methods.values()]
    assert len(ids) == len(set(ids))


def test_the_page_escapes_what_it_shows():
    document = openapi_document([], "<b>1</b>", {"/x": {"get": {"operationId": "x", "tags": ["<script>"], "summary": "<script>alert(1)</script>", "responses": {}}}})
    assert "<script>" not in docs_page(document)
