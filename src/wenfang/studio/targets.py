"""What a service can answer with: a model version, or a graph of several. Reads records, starts nothing."""

from __future__ import annotations

import msgspec

from wenfang.core.conversation import Generation
from wenfang.core.errors import Invalid, NotFound, WenfangError
from wenfang.core.examples import Output
from wenfang.core.ports import Tables
from wenfang.core.records import GraphVersion, ModelVersion
from wenfang.serve.graphs import Asking, Graph, Plan, Run
from wenfang.serve.interface import LABELS_LISTED
from wenfang.serve.routing import RoutedGraph

from .app import Studio
from .bundles import ask_served

__all__ = ["Target", "ask_graph", "ask_target", "graph_of", "main_model", "models_of", "routed_graph", "target_of"]

Target = ModelVersion | GraphVersion


def target_of(tables: Tables, id: str) -> Target | None:
    """The record behind the id a service's pointer holds."""
    return tables.get(GraphVersion, id) if id.startswith(f"{GraphVersion.prefix}_") else tables.get(ModelVersion, id)


def models_of(tables: Tables, target: Target) -> list[ModelVersion]:
    """Every model version that must answer for ``target`` to answer.

    Raises:
        NotFound: `record.not-found`.
    """
    if isinstance(target, ModelVersion):
        return [target]
    found = {id: tables.get(ModelVersion, id) for id in target.models}
    for id, version in found.items():
        if version is None:
            raise NotFound("record.not-found", kind="ModelVersion", name=id, near="—")
    return [version for version in found.values() if version is not None]


def main_model(target: Target) -> str:
    """Id of the model version that answers, of a graph the first that does."""
    return target.id if isinstance(target, ModelVersion) else target.graph["steps"][target.graph["answer"][0]]["model"]


def graph_of(target: GraphVersion) -> Graph:
    """Its steps."""
    return msgspec.convert(target.graph, Graph)


def routed_graph(target: GraphVersion) -> RoutedGraph:
    """As a routing table holds it."""
    return RoutedGraph(version=f"{target.name}:{target.number}", task=target.task, labels=target.labels[:LABELS_LISTED], graph=graph_of(target))


def ask_target(studio: Studio, target: Target, texts: list[str], texts_b: list[str], top_k: int, options: Generation) -> list[tuple[Output, str]]:
    """Answer texts from here, each answer with the text it speaks of; raises what ``ask_graph`` does."""
    if isinstance(target, GraphVersion):
        return ask_graph(studio, target, texts, texts_b, top_k)
    return list(zip(ask_served(studio, target, texts, texts_b, top_k, options), texts, strict=True))


def ask_graph(studio: Studio, target: GraphVersion, texts: list[str], texts_b: list[str], top_k: int) -> list[tuple[Output, str]]:
    """Take texts through a graph from here, step by step, through running replicas or models loaded in this process; each answer with the text it speaks of.

    Raises:
        WenfangError: of a step without a fall-back; Invalid: `graph.no-answer`.
    """
    plan = Plan(graph_of(target))
    models = {version.id: version for version in models_of(studio.tables, target)}
    run = Run(plan, texts, texts_b)

    def put(asking: Asking) -> list[Asking]:
        options = msgspec.convert(asking.step.parameters, Generation)
        k = max(top_k, asking.step.top_k) if asking.name in plan.graph.answer else asking.step.top_k
        try:
            run.answered(asking, ask_served(studio, models[asking.step.model], asking.texts, asking.texts_b, k, options))
        except WenfangError as e:
            return run.failed(asking, e)
        return []

    todo = run.begin()
    while todo and run.error is None:
        todo = [instead for asking in todo for instead in put(asking)] + run.begin()
    if run.error is not None:
        raise run.error
    answers = [run.answer(i) for i in range(len(texts))]
    if None in answers:
        raise Invalid("graph.no-answer", graph=f"{target.name}:{target.number}", index=answers.index(None))
    return [a for a in answers if a is not None]
