"""Whether a graph can run: every step known, of the right task, reachable, without a ring, and not absurdly large. Pure."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from wenfang.core.conversation import Generation
from wenfang.core.errors import Invalid
from wenfang.core.examples import Output
from wenfang.core.records import Task
from wenfang.core.registry import nearest

from .expressions import REQUEST, Place
from .graphs import Graph, Plan, Step, output_of

__all__ = ["SIZE_MAX_BYTES", "STEPS_MAX", "Facts", "check_graph"]

STEPS_MAX = 32
SIZE_MAX_BYTES = 64 << 10
TIMEOUT_MAX_S = 600.0
TOP_K_MAX = 100
WRITING = frozenset({"generation", "chat"})
_NAME = re.compile(r"[A-Za-z_\u4e00-\u9fff][A-Za-z0-9_\u4e00-\u9fff]{0,39}")
_FIELDS: dict[str, frozenset[str]] = {
    "classification": frozenset({"label", "score"}),
    "multilabel": frozenset({"labels", "score"}),
    "tagging": frozenset({"spans", "score"}),
    "matching": frozenset({"label", "score"}),
    "embedding": frozenset({"score"}),
    "generation": frozenset({"text"}),
    "chat": frozenset({"text"}),
}
"""What an answer of each task is sure to have."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a model version."""

    task: Task
    labels: Sequence[str]


def check_graph(graph: Graph, models: Mapping[str, Facts]) -> Facts:
    """The task and the labels of the whole; returns if the graph can run.

    Args:
        graph: as somebody wrote it, its models by id.
        models: by id, all that the graph asks.

    Raises:
        Invalid: `graph.too-large`, `graph.bad-name`, `graph.bad-step`, `graph.unknown-step`, `graph.bad-text`, `graph.bad-condition`,
            `graph.wrong-field`, `graph.unknown-label`, `graph.wrong-task`, `graph.ring`, `graph.unreachable`, `graph.spare-step`.
    """
    if not 1 <= len(graph.steps) <= STEPS_MAX or len(msgspec.json.encode(graph)) > SIZE_MAX_BYTES:
        raise Invalid("graph.too-large", steps=len(graph.steps), max=STEPS_MAX, max_bytes=SIZE_MAX_BYTES)
    for name, step in graph.steps.items():
        if not _NAME.fullmatch(name) or keyword.iskeyword(name) or name in REQUEST:
            raise Invalid("graph.bad-name", step=name[:60])
        _check_step(name, step, models[step.model])
    if not graph.answer:
        raise Invalid("graph.bad-step", step="answer", reason="it names no step")
    for where, names in (("answer", graph.answer), ("show", graph.show)):
        for name in names:
            _known(graph, name, where)
    for name, step in graph.steps.items():
        if step.fallback is not None and step.fallback.step:
            _known(graph, step.fallback.step, f"{name}.fallback")
    plan = Plan(graph)
    for name, compiled in plan.steps.items():
        for template in (compiled.text, compiled.text_b):
            for place in template.places if template is not None else ():
                _check_place(graph, models, place, name)
        if compiled.when is not None:
            for place in compiled.when.places:
                _check_place(graph, models, place, name)
            for place, label in compiled.when.literals:
                _check_label(graph, models, place, label, name)
    _check_rings(plan)
    _check_spares(plan)
    _check_reachable(plan)
    return _whole(graph, models)


def _bad(step: str, reason: str) -> Invalid:
    return Invalid("graph.bad-step", step=step, reason=reason)


def _check_step(name: str, step: Step, facts: Facts) -> None:
    if not 0 <= step.timeout_s <= TIMEOUT_MAX_S:
        raise _bad(name, f"timeout_s is {step.timeout_s:g}; 0 to {TIMEOUT_MAX_S:g} is right")
    if not 0 <= step.share <= 1:
        raise _bad(name, f"share is {step.share:g}; 0 to 1 is right")
    if not 1 <= step.top_k <= TOP_K_MAX:
        raise _bad(name, f"top_k is {step.top_k}; 1 to {TOP_K_MAX} is right")
    if step.parameters:
        _check_parameters(name, step, facts)
    if not step.text:
        raise _bad(name, "its text is empty")
    if facts.task == "matching" and not step.text_b:
        raise _bad(name, "it compares pairs, and text_b is missing")
    if step.text_b and facts.task not in {"matching", "embedding"}:
        raise _bad(name, f"its task is {facts.task}, which takes no text_b")
    fallback = step.fallback
    if fallback is None:
        return
    if bool(fallback.step) + bool(fallback.answer) + fallback.skip != 1:
        raise _bad(name, "its fallback is exactly one of step, answer and skip = true")
    if fallback.answer:
        _check_given(f"{name}.fallback", fallback.answer, facts)


def _check_parameters(name: str, step: Step, facts: Facts) -> None:
    if facts.task not in WRITING:
        raise _bad(name, f"parameters are for models that write, and its task is {facts.task}")
    known = Generation.__struct_fields__
    if unknown := sorted(set(step.parameters) - set(known)):
        raise _bad(name, f"{unknown[0][:40]} is none of the parameters {', '.join(known)}")
    try:
        msgspec.convert(step.parameters, Generation)
    except msgspec.ValidationError as e:
        raise _bad(name, f"its parameters are wrong: {str(e)[:120]}") from e


def _check_given(where: str, answer: Mapping[str, object], facts: Facts) -> None:
    """Whether an answer that is given is one that a model of the task could have given."""
    try:
        output: Output = output_of(answer)
    except (msgspec.ValidationError, AttributeError) as e:
        raise _bad(where, f"the given answer is none: {str(e)[:120]}") from e
    wanted = {"embedding": "vector", "matching": "score"}.get(facts.task) or next(iter(_FIELDS[facts.task] - {"score"}))
    if getattr(output, wanted) is None:
        raise _bad(where, f"the given answer has no {wanted}, which the task {facts.task} answers" if wanted != "vector" else "vectors cannot be given")


def _known(graph: Graph, name: str, where: str) -> None:
    if name not in graph.steps:
        raise Invalid("graph.unknown-step", step=name[:60], where=where, near=nearest(name, list(graph.steps)))


def _check_place(graph: Graph, models: Mapping[str, Facts], place: Place, where: str) -> None:
    if not place.step:
        return
    _known(graph, place.step, where)
    facts = models[graph.steps[place.step].model]
    if place.field != "answered" and place.field not in _FIELDS[facts.task]:
        raise Invalid("graph.wrong-field", step=where, field=f"{place.step}.{place.field}", task=facts.task, right=", ".join(sorted(_FIELDS[facts.task] | {"answered"})))
    if place.label:
        _check_label(graph, models, place, place.label, where)


def _check_label(graph: Graph, models: Mapping[str, Facts], place: Place, label: str, where: str) -> None:
    if not place.step:
        return
    labels = [*models[graph.steps[place.step].model].labels]
    given = graph.steps[place.step].fallback
    if given is not None and isinstance(own := given.answer.get("label"), str):
        labels.append(own)
    if labels and label not in labels:
        raise Invalid("graph.unknown-label", step=where, of=place.step, label=label[:60], near=nearest(label, labels))


def _check_rings(plan: Plan) -> None:
    """Follow needs and fall-backs; a step met again on its own path is a ring."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> None:
        if name in path:
            raise Invalid("graph.ring", steps=" → ".join([*path[path.index(name) :], name]))
        if name in done:
            return
        fallback = plan.graph.steps[name].fallback
        for other in (*sorted(plan.steps[name].mentioned()), *((fallback.step,) if fallback is not None and fallback.step else ())):
            visit(other, [*path, name])
        done.add(name)

    for name in plan.steps:
        visit(name, [])
    for name in plan.main:  # what stands in for a step may not need that step
        if name in plan.needs_of(name):
            raise Invalid("graph.ring", steps=f"{name} → {name}")


def _check_spares(plan: Plan) -> None:
    """What is only asked when another fails is nobody else's business."""
    mentioned = {other: name for name in plan.steps for other in plan.steps[name].mentioned()}
    mentioned |= dict.fromkeys(plan.graph.answer, "answer") | dict.fromkeys(plan.graph.show, "show")
    for name in sorted(plan.spare & mentioned.keys()):
        raise Invalid("graph.spare-step", step=name, where=mentioned[name])


def _check_reachable(plan: Plan) -> None:
    """Every step must lead to an answer or be shown."""
    wanted: set[str] = set()
    todo = [*plan.graph.answer, *plan.graph.show]
    while todo:
        name = todo.pop()
        if name not in wanted:
            wanted.add(name)
            fallback = plan.graph.steps[name].fallback
            todo += [*plan.steps[name].mentioned(), *([fallback.step] if fallback is not None and fallback.step else [])]
    for name in plan.steps:
        if name not in wanted:
            raise Invalid("graph.unreachable", step=name)


def _whole(graph: Graph, models: Mapping[str, Facts]) -> Facts:
    """The task of all steps that answer, and every label that can come."""
    tasks: dict[str, Task] = {name: models[graph.steps[name].model].task for name in graph.answer}
    first = tasks[graph.answer[0]]
    for name, task in tasks.items():
        if task != first:
            raise Invalid("graph.wrong-task", step=name, task=task, other=graph.answer[0], right=first)
    for name, step in graph.steps.items():
        if step.fallback is not None and step.fallback.step:
            own, other = models[step.model].task, models[graph.steps[step.fallback.step].model].task
            if own != other:
                raise Invalid("graph.wrong-task", step=step.fallback.step, task=other, other=name, right=own)
    labels: dict[str, None] = {}
    for first_asked in graph.answer:
        name = first_asked
        while name:
            step = graph.steps[name]
            labels |= dict.fromkeys(models[step.model].labels)
            given = [step.fallback.answer.get("label")] if step.fallback is not None else []
            labels |= dict.fromkeys(label for label in given if isinstance(label, str))
            name = step.fallback.step if step.fallback is not None else ""
    if graph.otherwise:
        _check_given("otherwise", graph.otherwise, Facts(first, []))
        if isinstance(label := graph.otherwise.get("label"), str):
            labels[label] = None
    return Facts(first, list(labels))
