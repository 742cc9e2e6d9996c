"""No log quotes a user: what foreign exceptions say stays out, our own errors stay whole."""

import logging
import os
import subprocess
import sys

from wenfang.core.discreet import Discreet, told
from wenfang.core.errors import Broken

SECRET = "身份证号"


def failing():
    try:
        int(SECRET)
    except ValueError as e:
        raise Broken("model.damaged", file="a.json", reason="ValueError") from e


def caught():
    try:
        failing()
    except Broken as e:
        return e
    raise AssertionError


def test_type_and_place_are_told_and_words_are_not(monkeypatch):
    monkeypatch.delenv("WENFANG_DEBUG", raising=False)
    said = told(caught())
    assert SECRET not in said
    assert said.index("ValueError (words left out)") < said.index("a.json")
    assert "test_discreet.py" in said
    assert "in failing" in said
    record = logging.LogRecord("x", logging.ERROR, __file__, 1, "it %s", ("failed",), (type(caught()), caught(), caught().__traceback__))
    line = Discreet("%(message)s").format(record)
    assert line.startswith("it failed\n")
    assert SECRET not in line
    monkeypatch.setenv("WENFANG_DEBUG", "1")
    assert SECRET in told(caught())


def test_an_exception_that_leads_to_itself_ends():
    a, b = ValueError("a"), KeyError("b")
    a.__cause__, b.__cause__ = b, a
    assert told(a).count("words left out") == 2


def test_a_process_of_ours_dies_without_quoting():
    code = (
        "import logging, sys, threading\n"
        "from wenfang.core.discreet import begin_log\n"
        "begin_log()\n"
        "try:\n    int(sys.argv[1])\nexcept ValueError:\n    logging.getLogger('x').exception('a batch failed')\n"
        "t = threading.Thread(target=lambda: int(sys.argv[1]))\nt.start(); t.join()\n"
        "int(sys.argv[1])\n"
    )
    env = {k: v for k, v in os.environ.items() if k != "WENFANG_DEBUG"}
    ran = subprocess.run([sys.executable, "-c", code, SECRET], capture_output=True, text=True, check=False, env=env)
    assert ran.returncode == 1
    assert SECRET not in ran.stderr
    assert ran.stderr.count("ValueError (words left out)") == 3
    assert "a batch failed" in ran.stderr
