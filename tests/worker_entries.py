"""Pieces of work that tests have done elsewhere."""

import json
import os
import signal
import time
from pathlib import Path

from wenfang.core.errors import Invalid


def work(arguments):
    """Reads its data, tells what it sees, and leaves files."""
    data, folder = Path(arguments["data"]).read_bytes(), Path(arguments["folder"])
    with open(arguments["told"], "a", encoding="utf-8") as told:
        for i in range(arguments["lines"]):
            told.write(json.dumps({"n": i, "字": "文" * 50}, ensure_ascii=False) + "\n")
            told.flush()
    (folder / "model" / "deep").mkdir(parents=True)
    (folder / "model" / "deep" / "weights").write_bytes(data * 3)
    (folder / "model" / "empty").touch()
    (folder / "pid").write_text(str(os.getpid()))
    print("hello from the work", flush=True)


def refuse(_):
    raise Invalid("model.too-few-labels", found=1, needed=2)


def die(_):
    os.kill(os.getpid(), signal.SIGKILL)


def hang(arguments):
    with open(arguments["told"], "a", encoding="utf-8") as told:
        told.write(json.dumps({"pid": os.getpid()}) + "\n")
    time.sleep(120)
