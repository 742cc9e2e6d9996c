"""Matching on AFQMC, STS-B (Chinese) and BUSTM: families chosen on a part of train or on valid, judged once on the rest. Run: python -m bench matching_sets"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

from wenfang.core.examples import Examples
from wenfang.models import families
from wenfang.models.base import DataShape
from wenfang.select.evaluate import evaluate

DATA = Path(os.environ.get("WENFANG_TEST_DATA", Path(__file__).parent.parent.parent / "shared" / "data"))
WANTED = [w for w in sys.argv[1:] if w in {"afqmc", "stsb", "bustm"}] or ["bustm", "stsb", "afqmc"]
FAMILIES = [w.removeprefix("--family=") for w in sys.argv[1:] if w.startswith("--family=")] or ["pairwise", "encoder"]


def tabbed(path):
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]


def afqmc(name):
    rows = tabbed(DATA / "afqmc" / f"{name}.txt")
    return Examples("matching", [r[0] for r in rows], [r[2] for r in rows], texts_b=[r[1] for r in rows])


def stsb(name):
    rows = tabbed(DATA / "stsb_zh" / f"STS-B.{name}.data")
    return Examples("matching", [r[0] for r in rows], texts_b=[r[1] for r in rows], grades=[float(r[2]) / 5 for r in rows])


def bustm(name):
    rows = [json.loads(line) for line in (DATA / "fewclue_bustm" / f"{name}.json").read_text(encoding="utf-8").splitlines()]
    return Examples("matching", [r["sentence1"] for r in rows], [r["label"] for r in rows], texts_b=[r["sentence2"] for r in rows])


def parts(name):
    """(train, valid, test); AFQMC's test has no labels, so its dev is the test and valid is cut from train."""
    if name == "stsb":
        return stsb("train"), stsb("valid"), stsb("test")
    if name == "bustm":
        return bustm("train_few_all"), bustm("dev_few_all"), bustm("test_public")
    whole = afqmc("train")
    order = np.random.default_rng(0).permutation(len(whole)).tolist()
    return whole.take(order[4000:]), whole.take(order[:4000]), afqmc("dev")


def main():
    for name in WANTED:
        train, valid, test = parts(name)
        labels = train.label_names()
        shape = DataShape("matching", len(train), len(labels), float(np.mean([len(t) for t in train.texts])), max(map(len, train.texts)), graded=not labels, pairs=True)
        if labels:
            counts = [sum(y == label for y in test.labels) / len(test) for label in labels]
            print(f"{name}: majority on test {max(counts):.4f}", flush=True)
        for family_name in FAMILIES:
            family, best = families.get(family_name), None
            for hyper in list(family.candidates(shape))[: None if "--all" in sys.argv else 1]:
                start = time.process_time()
                model = family(hyper, task="matching").fit(train, valid)
                fit_s = time.process_time() - start
                found = evaluate(model.match(valid.texts, valid.texts_b), valid)
                print(
                    f"  {family_name} valid {found.metric} {found.score:.4f}  fit {fit_s:.1f} CPU-s  {hyper.model_dump(exclude_defaults=True)} {model.refit_hyper().model_dump(exclude_defaults=True)}",
                    flush=True,
                )
                if best is None or found.score > best[0]:
                    best = found.score, model
            if "--test" in sys.argv:
                model = family(best[1].refit_hyper(), task="matching").fit(train + valid)
                start = time.process_time()
                answers = model.match(test.texts, test.texts_b)
                took = time.process_time() - start
                found = evaluate(answers, test)
                print(f"  {family_name} test {found.metric} {found.score:.4f} [{found.low:.4f}, {found.high:.4f}] ece {found.ece}  {len(test) / took:,.0f} pairs/CPU-s", flush=True)


if __name__ == "__main__":
    main()
