"""A short folder for sockets."""

import os
import tempfile
from pathlib import Path

import pytest

from dataplane import TESTS


@pytest.fixture
def folder(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(TESTS), prepend=os.pathsep)
    with tempfile.TemporaryDirectory(prefix="wf") as name:
        yield Path(name)
