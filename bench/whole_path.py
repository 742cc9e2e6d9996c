"""``wenfang run`` on real data: THUCNews titles, Resume NER and ChnSentiCorp, with the scores it reports.

Usage: python -m bench whole_path   (WENFANG_TEST_DATA names the data folder; about 25 minutes on two cores)
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DATA = Path(os.environ.get("WENFANG_TEST_DATA", "../shared/data"))
RUNS = {
    "thucnews": (["thucnews_titles/train_part.txt", "--valid", "thucnews_titles/dev.txt", "--test", "thucnews_titles/test.txt"], "10m", "accuracy ≥ 0.924"),
    "resume": (["resume_ner/train.char.bmes", "--valid", "resume_ner/dev.char.bmes", "--test", "resume_ner/test.char.bmes"], "10m", "span F1 ≥ 0.937"),
    "chnsenticorp": (["chnsenticorp/train.tsv", "--valid", "chnsenticorp/dev.tsv", "--test", "chnsenticorp/test.tsv"], "3m", "names 331 leaked test texts"),
}


def main(names=tuple(RUNS)):
    for name in names:
        words, budget, gate = RUNS[name]
        words = [w if w.startswith("--") else str(DATA / w) for w in words]
        with tempfile.TemporaryDirectory(prefix="wf-bench-") as home:
            began = time.monotonic()
            done = subprocess.run(
                [sys.executable, "-m", "wenfang.doors.cli", "run", *words, "--budget", budget, "--json", "--name", name, "--home", home],
                capture_output=True,
                text=True,
                check=False,
            )
            took = time.monotonic() - began
            if done.returncode:
                print(f"{name}: failed\n{done.stderr[-2000:]}")
                continue
            verdict = json.loads(done.stdout)
            test, latency = verdict["test"], verdict["latency_ms"]
            print(
                f"{name}: {verdict['family']} {verdict['metric']} test {test['score']:.4f} [{test['low']:.4f}, {test['high']:.4f}] n={test['n']}; valid {verdict['valid']['score']:.4f}; p50 {latency['p50']:.2f} p99 {latency['p99']:.2f} ms; {verdict['size_bytes'] / 2**20:.1f} MiB; {took:.0f} s (gate: {gate})"
            )
            for key in ("test_without_leaks",):
                if key in verdict:
                    print(f"  {key}: {verdict[key]}")
            for note in verdict["data_notes"]:
                print(f"  {note}")
            for c in verdict["candidates"]:
                print(f"  {'▸' if c['role'] == 'chosen' else ' '} {c['name']:24} {c['valid']['score']:.4f} p99 {c['latency_ms']['p99']:.2f} ms fit {c['fit_s']:.1f} s")


if __name__ == "__main__":
    main(sys.argv[1:] or tuple(RUNS))
