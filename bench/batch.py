"""Texts per second of a batch beside single HTTP requests, and what those requests wait meanwhile: ``python -m bench batch``.

``linear`` on 20,000 news titles, one replica, one gateway, everything through ``wenfang up``. WENFANG_TEST_DATA names the data folder.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from bench import load

DATA = Path(os.environ.get("WENFANG_TEST_DATA", "../shared/data")) / "thucnews_titles"
KEY = "wf_bench-" + "k" * 43


def wenfang(*words, home, start=False):
    """The command line in a process of its own."""
    command = [sys.executable, "-m", "wenfang.doors.cli", *map(str, words)]
    env = {**os.environ, "WENFANG_HOME": str(home), "WENFANG_BOOTSTRAP_KEY": KEY, "WENFANG_SERVE__GRPC_PORT": "0"}
    if start:
        return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE).stdout


def main(train_rows=20_000, batch_rows=100_000, seconds=4.0):
    with tempfile.TemporaryDirectory() as name:
        folder, home = Path(name), Path(name) / "home"
        lines = (DATA / "train_part.txt").read_text(encoding="utf-8").splitlines()
        texts = [line.rpartition("\t")[0] or line.partition("\t")[0] for line in lines]
        (folder / "train.txt").write_text("\n".join(lines[:train_rows]), encoding="utf-8")
        asked = folder / "asked.jsonl"
        asked.write_text("".join(json.dumps({"text": texts[i % len(texts)]}, ensure_ascii=False) + "\n" for i in range(batch_rows)), encoding="utf-8")
        wenfang("run", folder / "train.txt", "--budget", "30s", "--family", "linear", "--family", "majority", "--name", "titles", "--json", home=home)
        wenfang("service", "deploy", "titles", "--model-version", "titles", "--replicas", "1", home=home)
        here = json.loads(wenfang("predict", "titles", "--input", asked, "--output", folder / "here.jsonl", "--json", home=home))
        print(f"batch in place         {here['texts_per_s']:8.0f} texts/s")
        up = wenfang("up", "--port", "0", home=home, start=True)
        try:
            address = home / "run" / "address.json"
            while not (home / "run" / "gateway-0.sock").exists():
                if up.poll() is not None:
                    raise SystemExit("the studio did not start")
                time.sleep(0.1)
            port = json.loads(address.read_bytes())["port"]
            requests = [load.request_bytes("/predict/titles", json.dumps({"inputs": [t]}, ensure_ascii=False).encode(), key=KEY) for t in texts[:500]]
            time.sleep(5.0)  # the replica measures itself
            for concurrency in (1, 16):
                found = load.run(port, requests, concurrency=concurrency, seconds=seconds)
                print(f"single requests, c={concurrency:2}  {found.per_s:8.0f} texts/s   p50 {found.ms(0.5):.2f} ms, p99 {found.ms(0.99):.2f} ms   {found.statuses}")
            done = json.loads(wenfang("predict", "titles", "--input", asked, "--output", folder / "a.jsonl", "--json", home=home))
            print(f"batch by a job         {done['texts_per_s']:8.0f} texts/s   equal to in place: {(folder / 'a.jsonl').read_bytes() == (folder / 'here.jsonl').read_bytes()}")
            answers = {}
            job = threading.Thread(target=lambda: answers.update(json.loads(wenfang("predict", "titles", "--input", asked, "--output", folder / "b.jsonl", "--json", home=home))))
            job.start()
            while not (folder / "b.jsonl.part").exists():
                time.sleep(0.01)
            found = load.run(port, requests, concurrency=1, seconds=min(seconds, 0.6 * done["seconds"]), warm_s=0.2)
            job.join()
            print(f"single, c= 1, beside it{found.per_s:8.0f} texts/s   p50 {found.ms(0.5):.2f} ms, p99 {found.ms(0.99):.2f} ms   {found.statuses}")
            print(f"the batch beside them  {answers['texts_per_s']:8.0f} texts/s")
        finally:
            up.terminate()
            up.wait(60)


if __name__ == "__main__":
    main()
