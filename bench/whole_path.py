"""``wenfang run`` on real data, with the scores it reports.

Usage: python bench/whole_path.py [NAME[=BUDGET] …]   (WENFANG_TEST_DATA names the data folder; about an hour on two cores)
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from wenfang.core.words import say

DATA = Path(os.environ.get("WENFANG_TEST_DATA", "../shared/data"))
RUNS = {
    "thucnews": (["thucnews_titles/train_part.txt", "--valid", "thucnews_titles/dev.txt", "--test", "thucnews_titles/test.txt"], "10m", "accuracy ≥ 0.927"),
    "resume": (["resume_ner/train.char.bmes", "--valid", "resume_ner/dev.char.bmes", "--test", "resume_ner/test.char.bmes"], "10m", "span F1 ≥ 0.943"),
    "cluener": (["cluener2020/train.json", "--valid", "{cluener_valid}", "--test", "cluener2020/dev.json"], "10m", "span F1 ≥ 0.715 on dev, chosen on a tenth of train"),
    "banking77": (["banking77/train.csv", "--test", "banking77/test.csv"], "5m", "accuracy ≥ 0.915"),
    "iflytek": (["fewclue_iflytek/train_few_all.json", "--valid", "fewclue_iflytek/dev_few_all.json", "--test", "fewclue_iflytek/test_public.json"], "5m", "accuracy ≥ 0.550"),
    "chnsenticorp": (["chnsenticorp/train.tsv", "--valid", "chnsenticorp/dev.tsv", "--test", "chnsenticorp/test.tsv"], "3m", "names 331 leaked test texts"),
    "afqmc": (["afqmc/train.txt", "--valid", "{afqmc_valid}", "--test", "afqmc/dev.txt"], "5m", "accuracy above the majority's 0.690 on dev, chosen on a tenth of train"),
    "stsb": (["stsb_zh/STS-B.train.data", "--valid", "stsb_zh/STS-B.valid.data", "--test", "stsb_zh/STS-B.test.data"], "5m", "Spearman"),
    "csl": (["csl/ts/dev.tsv", "--task", "generation", "--test", "csl/ts/test.tsv"], "5m", "ROUGE-L above lead sentence and TextRank: see bench csl_titles"),
}
"""Name: words of the command, budget, what is asked for. A set without a validation file of its own gets a tenth of train."""


def cut(name, folder):
    """A tenth of a train file as its validation file, the rest as train."""
    source, suffix = {"cluener": ("cluener2020/train.json", ".json"), "afqmc": ("afqmc/train.txt", ".txt")}[name]
    rows = (DATA / source).read_text(encoding="utf-8").splitlines(keepends=True)
    valid, train = Path(folder) / f"valid{suffix}", Path(folder) / f"train{suffix}"
    valid.write_text("".join(rows[::10]), encoding="utf-8")
    train.write_text("".join(r for i, r in enumerate(rows) if i % 10), encoding="utf-8")
    return str(train), str(valid)


def words_of(name, words, folder):
    """The words of the command with whole paths."""
    if f"{{{name}_valid}}" in words:
        train, valid = cut(name, folder)
        words = [train, *(valid if w.startswith("{") else w for w in words[1:])]
    return [str(DATA / w) if "/" in w and not w.startswith("/") else w for w in words]


def main(names=tuple(RUNS)):
    """``name`` or ``name=budget``."""
    for asked in names:
        name, _, other = asked.partition("=")
        words, budget, gate = RUNS[name]
        budget = other or budget
        with tempfile.TemporaryDirectory(prefix="wf-bench-") as home:
            words = words_of(name, words, home)
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
            for key, fields in verdict["verdict"]:
                if key.startswith("verdict.folds"):
                    print(f"  {say(key, 'en', **fields)}")
            for note in verdict["data_notes"]:
                print(f"  {note}")
            for c in verdict["candidates"]:
                print(f"  {'▸' if c['role'] == 'chosen' else ' '} {c['name']:24} {c['valid']['score']:.4f} p99 {c['latency_ms']['p99']:.2f} ms fit {c['fit_s']:.1f} s")


if __name__ == "__main__":
    main(sys.argv[1:] or tuple(RUNS))
