"""Rules of the house that a machine can keep."""

import ast
import re
import string
import subprocess
import sys
from pathlib import Path

import pytest

from wenfang.core import words

SRC = Path(__file__).parent.parent / "src" / "wenfang"
FILES = sorted(SRC.rglob("*.py"))
SOURCE = {f: f.read_text(encoding="utf-8") for f in FILES}
BAD_NAMES = {"utils", "util", "helpers", "common", "manager", "misc"}
ERRORS = {"Invalid", "Unauthenticated", "Denied", "NotFound", "Conflict", "Busy", "Unsupported", "Broken"}


def raised_codes() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for file, text in SOURCE.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERRORS and node.args and isinstance(node.args[0], ast.Constant):
                found.setdefault(node.args[0].value, []).append(f"{file.relative_to(SRC)}:{node.lineno}")
    return found


def test_no_file_over_500_lines():
    assert {str(f.relative_to(SRC)): n for f, t in SOURCE.items() if (n := len(t.splitlines())) > 500} == {}


def test_no_lazy_names():
    assert [f for f in FILES if f.stem in BAD_NAMES] == []


def test_every_module_says_what_it_is():
    assert [f for f, t in SOURCE.items() if not ast.get_docstring(ast.parse(t))] == []


def test_no_pickle():
    assert [f for f, t in SOURCE.items() if re.search(r"^\s*(import|from) (pickle|dill|cloudpickle|joblib|shelve|marshal)\b", t, re.MULTILINE)] == []


def test_every_error_code_stands_in_the_catalogue_in_both_languages():
    catalogue = words.keys()
    assert {c: where for c, where in raised_codes().items() if set(catalogue.get(c, {})) != set(words.LANGS)} == {}


def test_sentences_of_both_languages_name_the_same_fields():
    def fields(pair):
        return {name for text in pair for _, name, _, _ in string.Formatter().parse(text) if name}

    wrong = {k: {lang: fields(p) for lang, p in by.items()} for k, by in words.keys().items() if set(by) != set(words.LANGS) or fields(by["zh"]) != fields(by["en"])}
    assert wrong == {}


def test_every_raised_error_fills_its_sentence():
    """The keyword arguments of each raise cover the fields of its sentence."""
    missing = {}
    catalogue = words.keys()
    for file, text in SOURCE.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERRORS and node.args and isinstance(node.args[0], ast.Constant):
                if any(k.arg is None for k in node.keywords) or node.args[0].value not in catalogue:
                    continue
                given = {k.arg for k in node.keywords}
                wanted = {name.split(".")[0].split("[")[0] for part in catalogue[node.args[0].value]["en"] for _, name, _, _ in string.Formatter().parse(part) if name}
                if wanted - given:
                    missing[f"{file.relative_to(SRC)}:{node.lineno}"] = wanted - given
    assert missing == {}


@pytest.mark.parametrize("module", ["wenfang", "wenfang.core.ports", "wenfang.models"])
def test_light_modules_import_nothing_heavy(module):
    code = f"import sys, {module}; print([m for m in ('torch','ray','fastapi','transformers','sklearn','numba','polars','pyarrow','sqlalchemy','onnxruntime') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
