"""A graph answers what plain Python would, says what is wrong with it before it runs, and offers together what can be asked together."""

import contextlib
import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wenfang.core.errors import Broken, Invalid
from wenfang.core.examples import Output, Span
from wenfang.serve.expressions import Row, condition, template
from wenfang.serve.graph_checks import Facts, check_graph
from wenfang.serve.graphs import Fallback, Graph, Plan, Run, Step

MODELS = {
    "mv_lang": Facts("classification", ["zh", "en"]),
    "mv_intent": Facts("classification", ["退款", "物流"]),
    "mv_ner": Facts("tagging", ["ORG", "NUM"]),
    "mv_topics": Facts("multilabel", ["a", "b"]),
    "mv_pair": Facts("matching", ["same", "other"]),
    "mv_reply": Facts("chat", []),
    "mv_vector": Facts("embedding", []),
}


def helpdesk(**changes):
    steps = {
        "lang": Step("mv_lang"),
        "intent": Step("mv_intent", when="lang.label == 'zh'", fallback=Fallback(answer={"label": "其他", "score": 0.0})),
        "tag": Step("mv_ner", when="lang.label == 'zh'", fallback=Fallback(skip=True)),
        "reply": Step("mv_reply", text="{intent.label}｜{tag.spans.NUM}｜{text}", when="intent.label in ['退款', '其他'] and tag.answered"),
        "short": Step("mv_reply", text="{text}"),
    }
    return Graph({**steps, **changes}, ("reply", "short"))


def drive(plan, texts, answer, texts_b=()):
    """Ask everything that can be asked; ``answer(model, texts, texts_b)`` gives outputs or raises. Returns the run and the rounds of questions."""
    run = Run(plan, texts, texts_b)
    rounds = []
    todo = run.begin()
    while todo:
        rounds.append(sorted(a.by for a in todo))
        came = []
        for asking in todo:
            try:
                came.append((asking, answer(asking.step.model, asking.texts, asking.texts_b), None))
            except Broken as e:
                came.append((asking, None, e))
        todo = []
        for asking, outputs, error in came:
            if error is None:
                run.answered(asking, outputs)
            else:
                todo += run.failed(asking, error)
        todo += run.begin()
        if run.error is not None:
            break
    assert run.over
    return run, rounds


def known(model, texts, texts_b):
    if model == "mv_lang":
        return [Output(label="zh" if any(c > "\u4e00" for c in t) else "en", score=0.9) for t in texts]
    if model == "mv_intent":
        return [Output(label="退款" if "退" in t else "物流", score=0.8) for t in texts]
    if model == "mv_ner":
        return [Output(spans=tuple(Span(i, i + 1, "NUM") for i, c in enumerate(t) if c.isdigit()), score=0.7) for t in texts]
    return [Output(text=f"<{t}>", finish="stop") for t in texts]


def test_each_text_goes_its_own_way():
    plan = Plan(helpdesk())
    run, rounds = drive(plan, ["退3件5", "发货了吗", "hello"], known)
    assert [run.answer(i)[0].text for i in range(3)] == ["<退款｜3、5｜退3件5>", "<发货了吗>", "<hello>"]
    assert rounds == [["lang", "short"], ["intent", "tag"], ["reply"]]  # what does not need each other is offered together
    assert [sorted(a) for a in run.answers] == [["intent", "lang", "reply", "short", "tag"], ["intent", "lang", "short", "tag"], ["lang", "short"]]
    assert run.counts["reply", "left-out"] == 2


def test_fall_backs_stand_in():
    def broken(model, texts, texts_b):
        if model in {"mv_intent", "mv_ner"}:
            raise Broken("serve.replica-died", model=model)
        return known(model, texts, texts_b)

    run, _ = drive(Plan(helpdesk()), ["退3件"], broken)
    assert run.answers[0]["intent"][0].label == "其他"
    assert run.stood_in[0] == {"intent": "="}
    assert "tag" not in run.answers[0] and "reply" not in run.answers[0]
    assert run.answer(0)[0].text == "<退3件>"
    spare = Plan(helpdesk(intent=Step("mv_intent", fallback=Fallback(step="small")), small=Step("mv_lang", fallback=Fallback(answer={"label": "物流", "score": 0}))))
    assert spare.main == ["lang", "intent", "tag", "reply", "short"]
    run, rounds = drive(spare, ["退"], broken)
    assert (run.stood_in[0]["intent"], run.answers[0]["intent"][0].label) == ("small", "zh")
    assert rounds[1] == ["small", "tag"]


def test_without_a_fall_back_the_request_fails():
    def broken(model, texts, texts_b):
        raise Broken("serve.replica-died", model=model)

    run, _ = drive(Plan(helpdesk()), ["退"], broken)
    assert run.error.code == "serve.replica-died"


def test_pairs_and_given_answers():
    graph = Graph({"same": Step("mv_pair", text="{text}", text_b="{text_b}", when="text != ''"), "tag": Step("mv_ner")}, ("same",), ("tag",), {"label": "other", "score": 0})
    assert check_graph(graph, MODELS) == Facts("matching", ["same", "other"])
    plan = Plan(graph)
    assert plan.pairs
    run, _ = drive(plan, ["a", ""], lambda m, t, b: [Output(label="same" if x == y else "other", score=1.0) for x, y in zip(t, b or t, strict=True)], ["a", "b"])
    assert [run.answer(i)[0].label for i in range(2)] == ["same", "other"]


# ------------------------------------------------------------ what is wrong is said before it runs
def wrong(code, graph, **fields):
    with pytest.raises(Invalid) as e:
        check_graph(graph, MODELS)
    assert e.value.code == code, e.value
    assert fields.items() <= e.value.fields.items()
    assert e.value.detail("en") and e.value.detail("zh")


def one(**changes):
    return Graph({"a": Step("mv_intent", **changes)}, ("a",))


def test_a_good_graph_has_the_task_and_labels_of_its_answers():
    assert check_graph(helpdesk(), MODELS) == Facts("chat", [])
    graph = Graph({"a": Step("mv_intent", when="text != ''", fallback=Fallback(answer={"label": "其他", "score": 0}))}, ("a",), (), {"label": "空", "score": 0})
    assert check_graph(graph, MODELS).labels == ["退款", "物流", "其他", "空"]


def test_unknown_names_are_told_with_the_nearest():
    wrong("graph.unknown-step", helpdesk(reply=Step("mv_reply", text="{intend.label}")), step="intend", near="intent", where="reply")
    wrong("graph.unknown-step", Graph({"a": Step("mv_intent")}, ("b",)), where="answer")
    wrong("graph.unknown-step", one(fallback=Fallback(step="b")), where="a.fallback")
    wrong("graph.unknown-label", helpdesk(intent=Step("mv_intent", when="lang.label == 'cn'")), label="cn", of="lang")
    wrong("graph.unknown-label", helpdesk(reply=Step("mv_reply", text="{tag.spans.PER}{intent.label}")), label="PER")


def test_rings_and_lost_steps():
    wrong("graph.ring", Graph({"a": Step("mv_intent", text="{b.label}"), "b": Step("mv_intent", when="a.answered")}, ("a",)), steps="a → b → a")
    wrong("graph.ring", one(text="{a.label}"))
    wrong("graph.ring", Graph({"a": Step("mv_intent", fallback=Fallback(step="b")), "b": Step("mv_intent", fallback=Fallback(step="a"))}, ("a",)))
    wrong("graph.unreachable", Graph({"a": Step("mv_intent"), "b": Step("mv_intent")}, ("a",)), step="b")
    ring = Graph({"a": Step("mv_intent", fallback=Fallback(step="b")), "b": Step("mv_intent", text="{c.label}"), "c": Step("mv_intent", text="{a.label}")}, ("a",))
    wrong("graph.ring", ring)
    wrong("graph.spare-step", Graph({"a": Step("mv_intent", fallback=Fallback(step="b")), "b": Step("mv_intent")}, ("a", "b")), step="b", where="answer")


def test_tasks_must_fit():
    wrong("graph.wrong-field", helpdesk(reply=Step("mv_reply", text="{intent.spans}{tag.spans}")), field="intent.spans", task="classification")
    wrong("graph.wrong-field", Graph({"v": Step("mv_vector"), "a": Step("mv_intent", when="v.label == 'x'")}, ("a",)))
    wrong("graph.wrong-task", Graph({"a": Step("mv_intent"), "b": Step("mv_ner")}, ("a", "b")), step="b")
    wrong("graph.wrong-task", Graph({"a": Step("mv_intent", fallback=Fallback(step="b")), "b": Step("mv_ner")}, ("a",)), step="b")
    wrong("graph.bad-step", Graph({"a": Step("mv_pair")}, ("a",)))
    wrong("graph.bad-step", one(text_b="{text}"))
    wrong("graph.bad-step", one(parameters={"max_tokens": 3}))


@pytest.mark.parametrize(
    "changes",
    [
        {"timeout_s": -1.0},
        {"timeout_s": float("nan")},
        {"share": 1.5},
        {"top_k": 0},
        {"text": ""},
        {"fallback": Fallback()},
        {"fallback": Fallback(skip=True, step="a")},
        {"fallback": Fallback(answer={"spans": []})},
        {"fallback": Fallback(answer={"label": 5})},
        {"fallback": Fallback(answer={"labl": "x"})},
    ],
)
def test_absurd_steps(changes):
    wrong("graph.bad-step", one(**changes))


def test_absurd_sizes_and_names():
    wrong("graph.too-large", Graph({f"s{i}": Step("mv_intent") for i in range(33)}, ("s0",), tuple(f"s{i}" for i in range(33))))
    wrong("graph.too-large", Graph({}, ()))
    wrong("graph.too-large", Graph({f"s{i}": Step("mv_intent", text="x" * 9000) for i in range(8)}, ("s0",), tuple(f"s{i}" for i in range(8))))
    for name in ("", "a b", "if", "text", "1a", "x" * 41):
        wrong("graph.bad-name", Graph({name: Step("mv_intent")}, (name,)))
    assert check_graph(Graph({"意图": Step("mv_intent"), "a": Step("mv_ner", when="意图.label == '退款'")}, ("a",)), MODELS).task == "tagging"
    wrong("graph.bad-step", Graph({"a": Step("mv_intent")}, ()), step="answer")


SEEN = Row(
    "退款订单12",
    "b",
    {"a": (Output(label="x", score=0.5), "t"), "t": (Output(spans=(Span(0, 2, "ACT"), Span(4, 6, "NUM")), score=0.1), "退款订单12"), "m": (Output(labels=("p", "q")), "t")},
)


@pytest.mark.parametrize(
    ("source", "holds"),
    [
        ("a.label == 'x'", True),
        ("a.label != 'x'", False),
        ("a.label in ['x', 'y'] and 0.3 < a.score <= 0.5", True),
        ("not (a.score >= 0.9 or a.label == 'y')", True),
        ("'退' in text and '13' not in text", True),
        ("'12' in t.spans['NUM'] and '12' in t.spans", True),
        ("t.spans['NUM'] == t.spans['ACT']", False),
        ("'p' in m.labels", True),
        ("zz.label == 'x' or zz.label != 'x'", False),
        ("not zz.answered and a.answered", True),
        ("a.label > 3", False),
        ("a.score > -1", True),
        ("text_b == 'b'", True),
    ],
)
def test_conditions(source, holds):
    assert condition(source).holds(SEEN) is holds


@pytest.mark.parametrize(
    "source",
    [
        "",
        "a.label",
        "a.label = 'x'",
        "1 == 1",
        "a.label == x",
        "a.__class__ == 'x'",
        "a.label.upper() == 'X'",
        "open('f') == text",
        "a.label is 'x'",
        "(lambda: 1)() == text",
        "f'{text}' == text",
        "a.label == 'x' if text else 3",
        "[text for text in text] == text",
        "text in [a.label]",
        "a.spans[0] == 'x'",
        "(" * 240 + "text == 'x'" + ")" * 240,
        "a.label == '\\d'",
        "text == 'x'\0",
        "x" * 501,
    ],
)
def test_conditions_are_nothing_else(source):
    with pytest.raises(Invalid) as e:
        condition(source)
    assert e.value.code == "graph.bad-condition"
    assert e.value.detail("zh")


@given(st.text(max_size=80))
def test_no_text_breaks_the_language(source):
    for read in (condition, template):
        with contextlib.suppress(Invalid):
            read(source)


def test_texts_with_places():
    assert template("{a.label} {a.score} {m.labels} {t.spans} {t.spans.NUM} {{x}} {text_b}").fill(SEEN) == "x 0.5000 p、q 退款、12 12 {x} b"
    assert template("{zz.label}").fill(SEEN) is None
    for bad in ("{", "}", "{}", "{a}", "{a.b}", "{a.label.x}", "{a.answered}", "{text.x}", "x" * 10_001):
        with pytest.raises(Invalid) as e:
            template(bad)
        assert e.value.code == "graph.bad-text"


# ------------------------------------------------------------ the same as plain Python
def model_answer(model, text):
    """A classification that anybody can repeat; one in six texts breaks it."""
    digest = hashlib.sha256(f"{model}|{text}".encode()).digest()
    if digest[0] % 6 == 0:
        raise Broken("serve.model-failed", model=model, kind="X")
    return Output(label="ab"[digest[1] % 2], score=digest[2] / 255)


CONDITIONS = {
    "{0}.label == 'a'": lambda o: o is not None and o.label == "a",
    "{0}.score > 0.5": lambda o: o is not None and o.score > 0.5,
    "{0}.answered": lambda o: o is not None,
    "not {0}.answered or {0}.label != 'b'": lambda o: o is None or o.label != "b",
}


@st.composite
def graphs(draw):
    """A graph over m models, and for each step what it mentions, so that plain Python can follow."""
    n = draw(st.integers(1, 7))
    steps, story = {}, {}
    for i in range(n):
        name = f"s{i}"
        texts = draw(st.lists(st.sampled_from([f"s{j}" for j in range(i)]), max_size=2)) if i else []
        when = (draw(st.sampled_from(list(CONDITIONS))), f"s{draw(st.integers(0, i - 1))}") if i and draw(st.booleans()) else None
        kind = draw(st.sampled_from(["none", "skip", "answer", "step"]))
        fallback = None
        if kind == "skip":
            fallback = Fallback(skip=True)
        elif kind == "answer":
            fallback = Fallback(answer={"label": "b", "score": 0.25})
        elif kind == "step":
            fallback = Fallback(step=f"spare{i}")
            steps[f"spare{i}"] = Step(f"m{draw(st.integers(0, 3))}", text="!{text}", fallback=Fallback(skip=True))
        model = f"m{draw(st.integers(0, 3))}"
        text = "{text}" + "".join(f"|{{{t}.label}}" for t in texts)
        steps[name] = Step(model, text=text, when=when[0].format(when[1]) if when else "", fallback=fallback)
        story[name] = (model, texts, when, kind)
    answer = draw(st.lists(st.sampled_from(sorted(story)), min_size=1, max_size=3, unique=True))
    return Graph(steps, tuple(answer), tuple(sorted(story)), {"label": "none", "score": 0}), story


def plain_python(graph, story, text):
    """The answer to one text, or the error's code."""
    found = {}
    for name, (model, texts, when, kind) in story.items():
        if (when is not None and not CONDITIONS[when[0]](found[when[1]])) or any(found[t] is None for t in texts):
            found[name] = None
        else:
            asked = text + "".join(f"|{found[t].label}" for t in texts)
            try:
                found[name] = model_answer(model, asked)
            except Broken as e:
                if kind == "none":
                    return e.code
                found[name] = {"skip": lambda: None, "answer": lambda: Output(label="b", score=0.25), "step": lambda n=name: spare(graph, n, text)}[kind]()
    return next((found[a] for a in graph.answer if found[a] is not None), Output(label="none", score=0.0))


def spare(graph, name, text):
    try:
        return model_answer(graph.steps[f"spare{name[1:]}"].model, "!" + text)
    except Broken:
        return None


@settings(max_examples=150, deadline=None)
@given(graphs(), st.lists(st.text(alphabet="ab退", max_size=4), min_size=1, max_size=5))
def test_a_graph_answers_what_plain_python_would(made, texts):
    graph, story = made
    check_graph(graph, {f"m{i}": Facts("classification", ["a", "b"]) for i in range(4)})
    plan = Plan(graph)
    for text in texts:
        run, _ = drive(plan, [text], lambda m, asked, _: [model_answer(m, t) for t in asked])
        expected = plain_python(graph, story, text)
        assert (run.error.code if run.error else run.answer(0)[0]) == expected
    together = [t for t in texts if not isinstance(plain_python(graph, story, t), str)]
    if together:  # one text at a time where several fail together is the asker's part: here each question is asked one by one
        run = Run(plan, together)
        todo = run.begin()
        while todo:
            asking = todo.pop(0)
            for k in range(len(asking.rows)):
                alone = type(asking)(asking.name, asking.step, asking.rows[k : k + 1], asking.texts[k : k + 1], [], asking.by)
                try:
                    run.answered(alone, [model_answer(asking.step.model, asking.texts[k])])
                except Broken as e:
                    todo += run.failed(alone, e)
            todo += run.begin()
        assert run.over and run.error is None
        assert [run.answer(i)[0] for i in range(len(together))] == [plain_python(graph, story, t) for t in together]
