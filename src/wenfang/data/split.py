"""Shares of examples: stratified by label, groups and near-duplicates kept on one side. Knows examples only; seeded.

Each class is divided on its own and what rounding leaves over is handed to the next class, so that the shares hold for small classes
together too. The first cluster of every class goes to the largest share: a class that is nowhere learnt cannot be measured.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence

from wenfang.core.errors import Invalid
from wenfang.core.examples import Examples

from .near import THRESHOLD, clusters

__all__ = ["single_classes", "split_rows"]

CHAIN_LEAST = 20
CHAIN_SHARE = 0.25


def split_rows(examples: Examples, *, shares: Mapping[str, float], seed: int, near_threshold: float = THRESHOLD) -> dict[str, list[int]]:
    """Rows of every share, ascending; each row in exactly one.

    Args:
        examples: what to split. Rows of one group, equal texts and texts at least ``near_threshold`` alike stay together.
        shares: relative size by name, such as ``{"train": 8, "valid": 1, "test": 1}``.
        seed: equal seed and examples give equal shares.
        near_threshold: Jaccard similarity of 2-grams; above 1 keeps only equal texts together.

    Raises:
        Invalid: `dataset.bad-shares`.

    Cost: about 3 CPU-s for 100,000 titles.
    """
    if not shares or any(not 0 <= s < float("inf") for s in shares.values()) or sum(shares.values()) <= 0:
        raise Invalid("dataset.bad-shares", shares=[f"{k}={v}" for k, v in shares.items()])
    names = [n for n, s in shares.items() if s > 0]
    total = sum(shares.values())
    parts = {n: shares[n] / total for n in names}
    strata: dict[str, list[list[int]]] = {}
    answers = _strata(examples)
    for rows in _kept_together(examples, answers, near_threshold, seed):
        strata.setdefault(Counter(answers[r] for r in rows).most_common(1)[0][0], []).append(rows)
    chosen: dict[str, list[int]] = {n: [] for n in shares}
    draw = random.Random(seed)
    order = sorted(strata)
    draw.shuffle(order)
    carry = dict.fromkeys(names, 0.0)
    for stratum in order:
        groups = strata[stratum]
        draw.shuffle(groups)
        groups.sort(key=len, reverse=True)
        _deal(groups, parts, carry, chosen)
    return {n: sorted(rows) for n, rows in chosen.items()}


def _kept_together(examples: Examples, answers: Sequence[str], near_threshold: float, seed: int) -> list[list[int]]:
    """Rows that must stay on one side: groups, equal texts, near-equal texts.

    Texts from one template chain into a single near cluster, which would leave nothing to divide: a near cluster above
    ``CHAIN_SHARE`` of its class is divided again by equal texts and groups alone.
    """
    members = _members(clusters(examples.questions(), threshold=near_threshold, groups=examples.groups, seed=seed).tolist())
    if near_threshold > 1:
        return members
    sizes = Counter(answers)
    chains = [rows for rows in members if len(rows) > CHAIN_LEAST and len(rows) > CHAIN_SHARE * sizes[Counter(answers[r] for r in rows).most_common(1)[0][0]]]
    if not chains:
        return members
    chained = {r for rows in chains for r in rows}
    equal = clusters(examples.questions(), threshold=2.0, groups=examples.groups, seed=seed).tolist()
    return [rows for rows in members if rows[0] not in chained] + _members([equal[r] if r in chained else -1 for r in range(len(examples))])


def _members(cluster_of: Sequence[int]) -> list[list[int]]:
    members: dict[int, list[int]] = {}
    for row, cluster in enumerate(cluster_of):
        if cluster >= 0:
            members.setdefault(cluster, []).append(row)
    return list(members.values())


def _deal(groups: Sequence[list[int]], parts: Mapping[str, float], carry: dict[str, float], chosen: dict[str, list[int]]) -> None:
    """Give each cluster of one stratum to the share that lacks most; the largest share takes the first."""
    largest = max(parts, key=lambda n: parts[n])
    rows = sum(map(len, groups))
    lacks = {n: part * rows + carry[n] for n, part in parts.items()}
    for i, group in enumerate(groups):
        to = largest if i == 0 else max(lacks, key=lambda n: (lacks[n] >= len(group), lacks[n]))
        chosen[to].extend(group)
        lacks[to] -= len(group)
    for n, left in lacks.items():
        carry[n] = max(-1.0, min(1.0, left))  # a run of tiny classes must not empty the next large one


def _strata(examples: Examples) -> list[str]:
    """The label, a fifth of the grades, or the rarest label of the text; all alike where there is none."""
    if examples.labels:
        return examples.labels
    if examples.grades:
        return [f"{min(4, int(5 * g))}" for g in examples.grades]
    if examples.label_sets:
        sizes = Counter(label for labels in examples.label_sets for label in labels)
        return [min(labels, key=lambda label: (sizes[label], label), default="") for labels in examples.label_sets]
    if not examples.spans:
        return [""] * len(examples)
    counts = Counter(s.label for spans in examples.spans for s in spans)
    return [min((s.label for s in spans), key=lambda label: (counts[label], label), default="") for spans in examples.spans]


def single_classes(examples: Examples) -> list[str]:
    """Labels with one example only: they all go to the largest share."""
    return sorted(label for label, n in Counter(_strata(examples)).items() if n == 1 and label)
