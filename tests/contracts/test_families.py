"""What ``models/base.py`` promises, for every family and task there is: a new family is found by its file."""

import subprocess
import sys
import threading
import time

import pytest
from family_worlds import LABELLED, ODD, asked, check, labelled, odd, questions, same, share_right, world

from wenfang.core.errors import Invalid
from wenfang.core.examples import Examples
from wenfang.core.ports import Cancelled, Quiet
from wenfang.models import Curve, DataShape, Model, families
from wenfang.models.space import Choice

HEAVY = {
    "transformer": {"hidden": 16, "heads": 2, "ff": 32, "layers": 1, "ngram_buckets": 64, "min_count": 1, "learning_rate": 0.02, "dropout": 0.0, "threads": 1, "width": "fp32", "precision": "fp32", "epochs": 12, "batch_tokens": 128},
    "crf": {"iterations": 5},
    "generator": {"hidden": 32, "heads": 2, "ff": 64, "layers": 1, "min_count": 1, "learning_rate": 0.01, "dropout": 0.0, "epochs": 25, "batch_tokens": 256, "max_length": 64, "max_tokens": 12},
}  # fmt: skip
"""Small settings of the families whose defaults take long; an unknown family runs with its own."""
HARDER = {("transformer", "matching"): (2000, {"learning_rate": 0.01, "epochs": 40, "batch_tokens": 512})}
"""Examples and settings of what is not learned from 120 examples: whether two texts have the same letters in other order. Of four seeds the worst got 0.76 right."""
TOLERANCE = {"majority": 0.0, "linear": 0.0, "crf": 0.0, "pairwise": 0.0}
"""Batch against single; anything that computes through ONNX may differ by rounding."""
ASSEMBLED = {"ensemble"}
"""Families that offer no candidates: selection puts them together itself."""
ELSEWHERE = {"upstream"}
"""Families that are nothing without a server: their own tests have one."""
CASES = [(name, task) for name in families.names() if name not in ELSEWHERE for task in sorted(families.get(name).tasks)]


def make(name, task, seed=0, **more):
    family = families.get(name)
    return family(family.Hyper.model_validate(HEAVY.get(name, {}) | more), task=task, seed=seed)


def taught(name, task):
    rows, settings = HARDER.get((name, task), (120, {}))
    return make(name, task, **settings).fit(world(task, rows), world(task, 40, 2))


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(request):
    name, task = request.param
    return name, task, taught(name, task)


def saved(model, folder):
    folder.mkdir(parents=True, exist_ok=True)
    model.save(folder)
    return type(model).load(folder, task=model.task, hyper=model.hyper, labels=model.labels_)


def test_it_is_a_family(case):
    name, task, model = case
    assert isinstance(model, Model)
    assert (model.name, model.task) == (name, task)
    assert isinstance(model.cost_rank, int)
    assert model.labels_ == (["bad", "good"] if task in LABELLED else [])
    assert all(isinstance(k, str) and isinstance(v, str) for k, v in model.environment().items())


def test_candidates_are_distinct_and_the_first_is_a_good_guess(case):
    name, task, model = case
    for rows, labels, longest in [(3, 2, 5), (500, 3, 100), (100_000, 10, 30), (1_000_000, 1000, 5000)]:
        found = list(model.candidates(DataShape(task, rows, labels, longest / 2, longest)))
        assert found or name in ASSEMBLED
        assert all(isinstance(h, families.get(name).Hyper) for h in found)
        assert len({h.model_dump_json() for h in found}) == len(found)


def test_the_search_space_names_fields_and_its_corners_are_valid(case):
    """Each dimension alone at its ends (or each of its options), the other fields as in the first guess."""
    name, task, model = case
    for rows, labels, longest in [(3, 2, 5), (500, 3, 100), (100_000, 10, 30)]:
        shape = DataShape(task, rows, labels, longest / 2, longest)
        first = next(iter(model.candidates(shape)), model.hyper).model_dump()
        for field, dimension in model.space(shape).items():
            assert field in first
            values = dimension.options if isinstance(dimension, Choice) else (dimension.low, dimension.high)
            for value in values:
                assert dimension.holds(value)
                families.get(name).Hyper.model_validate({**first, field: value})


def test_hyper_parameters_refuse_the_unknown(case):
    name, _, model = case
    with pytest.raises(ValueError, match="surely_not"):
        families.get(name).Hyper.model_validate({"surely_not": 1})
    assert families.get(name).Hyper.model_validate_json(model.hyper.model_dump_json()) == model.hyper


def test_one_answer_a_text_in_order_with_known_labels(case):
    name, task, model = case
    texts = [*world(task, 60, 3).texts, *ODD.values()]
    answers = asked(model, questions(task, texts))
    assert len(answers) == len(texts)
    for text, a in zip(texts, answers, strict=True):
        check(task, text, a, model.labels_)
    order = list(range(len(texts)))[::-1]
    turned = asked(model, questions(task, texts).take(order))[::-1]
    assert same(answers, turned, TOLERANCE.get(name, 1e-4))


def test_batch_equals_single(case):
    name, task, model = case
    examples = questions(task, [*world(task, 70, 4).texts, *ODD.values()])
    together = asked(model, examples, top_k=2)
    alone = [asked(model, examples.take([i]), top_k=2)[0] for i in range(len(examples))]
    if TOLERANCE.get(name) == 0.0:
        assert together == alone
    assert same(together, alone, TOLERANCE.get(name, 1e-4))


@pytest.mark.parametrize("kind", ODD)
def test_any_text_is_accepted(case, kind):
    _, task, model = case
    assert len(asked(model, questions(task, [ODD[kind]]))) == 1


def test_no_text_no_answer(case):
    _, task, model = case
    assert asked(model, questions(task, [])) == []
    assert asked(model, questions(task, []), top_k=3) == []


def test_top_k_is_sorted_and_sums_to_one_at_most(case):
    _, task, model = case
    if task not in {"classification", "matching"}:
        pytest.skip("no labels that are rivals")
    for k in (2, 5):
        for a in asked(model, world(task, 10, 5), top_k=k):
            values = list(a.scores.values())
            assert len(values) == min(k, 2)
            assert values == sorted(values, reverse=True)
            assert sum(values) <= 1 + 1e-6
            assert (next(iter(a.scores)), values[0]) == (a.label, a.score)


def test_save_and_load_change_nothing(case, tmp_path):
    name, task, model = case
    again = saved(model, tmp_path / "m")
    examples = questions(task, [*world(task, 50, 6).texts, *ODD.values()])
    assert same(asked(again, examples), asked(model, examples), TOLERANCE.get(name, 1e-4))
    assert same(asked(saved(again, tmp_path / "twice"), examples), asked(again, examples), 0.0)
    assert not [p for p in (tmp_path / "m").rglob("*") if p.suffix in {".pkl", ".pickle", ".joblib", ".pt", ".bin"}]


def test_equal_seed_equal_model(case, tmp_path):
    name, task, model = case
    again = taught(name, task)
    fresh = world(task, 50, 7)
    assert asked(again, fresh) == asked(model, fresh)


def test_predict_changes_nothing(case, tmp_path):
    _, task, model = case
    fresh = world(task, 30, 8)
    before = asked(model, fresh)
    files = {}
    for turn in ("before", "after"):
        folder = tmp_path / turn
        folder.mkdir()
        model.save(folder)
        files[turn] = {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
        asked(model, odd(task))
        asked(model, fresh)
    assert files["before"] == files["after"]
    assert asked(model, fresh) == before


def test_two_threads_may_predict(case):
    _, task, model = case
    fresh = world(task, 64, 9)
    expected = asked(model, fresh)
    answers = [None, None]

    def work(i):
        for _ in range(5):
            answers[i] = asked(model, fresh)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert answers == [expected, expected]


def test_loading_and_predicting_need_no_training_library(case, tmp_path):
    name, task, model = case
    saved(model, tmp_path / "m")
    code = (
        "import sys, pathlib; from wenfang.models import families; f = families.get(sys.argv[1]);"
        "m = f.load(pathlib.Path(sys.argv[2]), task=sys.argv[3], hyper=f.Hyper.model_validate_json(sys.argv[4]), labels=sys.argv[5].split());"
        "half = len(sys.argv[6:]) // 2; one, two = sys.argv[6 : 6 + half], sys.argv[6 + half :];"
        "heavy = ('torch', 'sklearn', 'transformers', 'scipy', 'numba'); print([h for h in heavy if h in sys.modules]);"
        "sys.modules['numba'] = None; sys.modules['scipy'] = None; sys.modules['torch'] = None;"
        "import importlib.util; found = importlib.util.find_spec; importlib.util.find_spec = lambda n, p=None: None if n == 'numba' else found(n, p);"
        "print([repr(o) for o in (m.match(one, two) if m.task == 'matching' else m.predict(one))] == sys.stdin.read().splitlines() or 'different')"
    )
    fresh = world(task, 20, 10)
    expected = "\n".join(map(repr, asked(saved(model, tmp_path / "n"), fresh)))
    ran = subprocess.run(
        [sys.executable, "-c", code, name, str(tmp_path / "m"), task, model.hyper.model_dump_json(), " ".join(model.labels_), *fresh.texts, *(fresh.texts_b or fresh.texts)],
        input=expected,
        capture_output=True,
        text=True,
        check=True,
        encoding="utf-8",
    )
    assert ran.stdout.splitlines() == ["[]", "True"]


def test_too_little_to_learn_from(case):
    name, task, _ = case
    with pytest.raises(Invalid, match=r"model\.no-examples"):
        make(name, task).fit(Examples(task, []))
    if task not in LABELLED:
        return
    with pytest.raises(Invalid, match=r"model\.too-few-labels"):
        make(name, task).fit(labelled(task, ["", ""], ["a", "a"]))


def test_a_handful_of_examples_is_enough(case):
    name, task, _ = case
    few = labelled(task, ["天好", "", "地坏"], ["a", "b", "b"])
    assert len(asked(make(name, task).fit(few), few)) == 3


def test_odd_labels_and_texts_are_learned_from(case):
    name, task, _ = case
    texts = [*ODD.values()] * 3
    labels = [("标 签", "😀", "a\tb")[i % 3] for i in range(len(texts))]
    model = make(name, task).fit(labelled(task, [t[:500] for t in texts], labels))
    assert model.labels_ == (sorted(set(labels)) if task in LABELLED else [])
    assert len(asked(model, questions(task, texts))) == len(texts)


def test_no_time_left_still_gives_a_model(case):
    name, task, _ = case
    started = time.monotonic()
    model = make(name, task).fit(world(task), world(task, 40, 2), Curve(deadline=time.monotonic() - 1))
    assert time.monotonic() - started < 30
    assert len(asked(model, questions(task, ["天好"]))) == 1


def test_a_cancelled_fit_stops(case):
    name, task, _ = case

    class Stop(Quiet):
        def advance(self, n=1, **figures):
            raise Cancelled

    if name == "majority":
        pytest.skip("over before anybody could stop it")
    with pytest.raises(Cancelled):
        make(name, task).fit(world(task), world(task, 40, 2), Curve(progress=Stop()))


def test_refit_takes_no_valid(case):
    name, task, model = case
    again = families.get(name)(model.refit_hyper(), task=task).fit(world(task) + world(task, 40, 2))
    assert same(asked(again, questions(task, ["天好"])), asked(again, questions(task, ["天好"])), 0.0)


def test_it_beats_the_floor_or_is_the_floor(case):
    name, task, model = case
    right = share_right(task, model, world(task, 100, 11))
    assert right <= 0.5 if name == "majority" else right > 0.5
