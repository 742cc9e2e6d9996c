"""An answer as JSON shows it, alike at every door. Knows nothing of protocols."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Any

from .examples import Output, Span

__all__ = ["plain"]

_AS_THEY_ARE = ("score", "labels", "text", "finish", "tokens_in", "tokens_out", "logprobs")


def plain(output: Output, text: str, top_k: int = 1) -> dict[str, Any]:
    """The fields that ``output`` fills; spans carry the piece of ``text`` they stand for, a vector is a list of numbers.

    >>> from .examples import Span
    >>> plain(Output(spans=(Span(0, 2, "LOC"),), score=0.5), "北京好")
    {'spans': [{'start': 0, 'end': 2, 'label': 'LOC', 'text': '北京'}], 'score': 0.5}
    """
    told: dict[str, Any] = {}
    if output.label is not None:
        told["label"] = output.label
    if output.spans is not None:
        spans = _spans(output.spans, text)
        for span, score in zip(spans, output.span_scores or (), strict=False):
            span["score"] = score
        told["spans"] = spans
    for name in _AS_THEY_ARE:
        if (value := getattr(output, name)) is not None:
            told[name] = value
    if output.scores is not None and top_k > 1:
        told["scores"] = dict(sorted(output.scores.items(), key=lambda pair: -pair[1])[:top_k])
    if output.alternatives is not None and top_k > 1:
        told["alternatives"] = [{"spans": _spans(a.spans, text), "score": a.score} for a in output.alternatives[:top_k]]
    if output.vector is not None:
        told["vector"] = array("f", output.vector).tolist()
    if output.replies is not None:
        told["replies"] = [{"text": r.text, "score": r.score} for r in output.replies]
    return told


def _spans(spans: Iterable[Span], text: str) -> list[dict[str, Any]]:
    return [{"start": s.start, "end": s.end, "label": s.label, "text": text[s.start : s.end]} for s in spans]
