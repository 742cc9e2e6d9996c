"""What a file leaves unsaid: whether the first row is a header, which column is the text, which the label, which task it is.

Every guess is reported; nothing here reads files or knows formats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from statistics import fmean, median

from wenfang.core.errors import Invalid
from wenfang.core.records import Task
from wenfang.core.registry import nearest

from .columns import Fields, Look
from .turns import KEYS as TURNS_NAMES

__all__ = ["Named", "guess_asked", "guess_fields", "looks_like_header"]

TEXT_NAMES = (
    "text", "content", "sentence", "title", "review", "comment", "utterance", "query", "question", "body", "message", "document", "tweet", "text_a", "sentence1", "data", "tokens",
    "内容", "文本", "标题", "评论", "句子", "正文", "问题", "留言", "描述", "评价",
)  # fmt: skip
LABEL_NAMES = (
    "label", "labels", "class", "category", "intent", "tag", "target", "sentiment", "topic", "y", "class_id", "label_id", "entities", "spans", "entity_list", "ner_tags", "tags",
    "标签", "类别", "意图", "分类", "类型", "情感", "主题",
)  # fmt: skip
PAIR_NAMES = (
    ("sentence1", "sentence2"), ("text_a", "text_b"), ("text1", "text2"), ("sentence_a", "sentence_b"), ("question1", "question2"), ("query1", "query2"), ("premise", "hypothesis"),
    ("text", "text_b"), ("sentence", "sentence2"), ("query", "candidate"), ("句子1", "句子2"), ("文本1", "文本2"), ("问题1", "问题2"),
)  # fmt: skip
GRADE_NAMES = ("score", "similarity", "grade", "得分", "相似度")
SOURCE_NAMES = (
    "text", "content", "article", "abstract", "document", "body", "input", "instruction", "prompt", "source", "context", "question", "query", "message",
    "正文", "内容", "文本", "原文", "文章", "输入", "问题", "上文",
)  # fmt: skip
TARGET_NAMES = ("summary", "headline", "output", "highlights", "摘要", "概要", "输出")
REPLY_NAMES = ("response", "reply", "answer", "assistant", "回复", "回答", "答复")
OTHER_NAMES = ("id", "编号", "序号", "date", "time", "日期", "时间", "user", "用户", "group", "source", "来源")
KNOWN = (*TEXT_NAMES, *LABEL_NAMES, *OTHER_NAMES, *GRADE_NAMES, *SOURCE_NAMES, *TARGET_NAMES, *REPLY_NAMES, *(name for pair in PAIR_NAMES for name in pair))
HEADER_MAX = 40
"""Code points; a longer cell is a text, not a name."""


def _known(name: str, names: Sequence[str]) -> bool:
    return name.strip().casefold() in names


def looks_like_header(rows: Sequence[Sequence[str]], wanted: Sequence[str] = ()) -> bool:
    """Whether the first of ``rows`` names the columns.

    >>> looks_like_header([["text", "label"], ["很好", "1"]]), looks_like_header([["很好", "好评"], ["太慢", "差评"], ["不错", "好评"]])
    (True, False)
    """
    first = [cell.strip() for cell in rows[0]]
    if any(name in first for name in wanted) or any(_known(cell, KNOWN) for cell in first):
        return len(set(first)) == len(first) or bool(set(wanted) & set(first))
    if not all(first) or len(set(first)) < len(first) or max(map(len, first)) > HEADER_MAX:
        return False
    body = [row for row in rows[1:] if len(row) == len(first)]
    if any(first[i] == row[i].strip() for i in range(len(first)) for row in body):
        return False  # a label comes again, a name does not
    numeric = [i for i in range(len(first)) if body and all(_number(row[i]) for row in body)]
    if numeric:
        return not any(_number(first[i]) for i in numeric)
    return bool(body) and not any(_number(cell) for cell in first) and max(median(len(row[i]) for row in body) for i in range(len(first))) > 3 * max(map(len, first))


def _number(cell: str) -> bool:
    return cell.strip().lstrip("+-").replace(".", "", 1).isdecimal()


@dataclass(frozen=True, slots=True)
class Named:
    """The columns that the caller named."""

    text: str | None = None
    label: str | None = None
    id: str | None = None
    group: str | None = None
    text_b: str | None = None
    target: str | None = None
    weight: str | None = None

    def given(self) -> list[str]:
        """Those that have a name."""
        return [name for name in astuple(self) if name is not None]


def guess_fields(look: Look, *, file: str, named: Named, task: Task | None, earlier: Fields | None = None) -> tuple[Fields, Task, dict[str, str]]:
    """(fields, task, what was guessed) from what the caller said, what the reader saw, and what an earlier file of the version had.

    Raises:
        Invalid: `dataset.column-missing` for a named column that is not there, `dataset.column-unclear` when a guess is impossible,
            `dataset.no-spans` when tagging was asked for and nothing holds spans, `dataset.same-column`.
    """
    _check_named(look, named, file)
    answers = [n for n in (named.text, named.text_b, named.label, named.target) if n is not None]
    if len(set(answers)) < len(answers):
        raise Invalid("dataset.same-column", file=file, column=next(n for n in answers if answers.count(n) > 1))
    if earlier is not None:
        kept = {role: name for role in ("text", "label", "text_b", "target") if (name := getattr(earlier, role)) in look.columns and name not in answers}
        named = replace(named, **{role: name for role, name in kept.items() if getattr(named, role) is None})
    guessed: dict[str, str] = {}
    if task is None:
        task = guessed["task"] = _task(look, named)
    if task == "tagging" and look.spans is None and (earlier is None or named.label is None):
        raise Invalid("dataset.no-spans", file=file, found=look.columns[:50])
    choose = {"matching": _pair, "embedding": _pair, "generation": _written, "chat": _written}.get(task, _labelled)
    found = choose(look, named, task, file)
    guessed |= {role: name for role, name in found.items() if name is not None and getattr(named, role) is None}
    if task == "tagging":
        guessed.pop("label", None)
    text = found.pop("text")
    assert text is not None, "every task has a text"
    answers = {role: found.get(role) for role in ("label", "text_b", "target")}
    return Fields(text, answers["label"], named.id, named.group, answers["text_b"], answers["target"], named.weight, task), task, guessed


def guess_asked(look: Look, *, file: str, named: Named, task: Task) -> tuple[Fields, dict[str, str]]:
    """(fields, what was guessed) of a file that a model of ``task`` shall be asked about; it needs no answers.

    Raises:
        Invalid: `dataset.column-missing`, `dataset.column-unclear`, `dataset.same-column`.
    """
    _check_named(look, named, file)
    taken = {c for c in (named.id, named.text_b) if c is not None}
    if named.text is not None and named.text in taken:
        raise Invalid("dataset.same-column", file=file, column=named.text)
    text, text_b = named.text, named.text_b
    if task == "matching" and (text is None or text_b is None):
        free = [c for c in look.columns if c not in taken | {text or ""}]
        pair = pair_columns(look, {named.id} if named.id is not None else set()) or (tuple(free) if not text and not text_b and len(free) == 2 else None)
        if pair is None and not (text_b is not None and free) and not (text is not None and len(free) == 1):
            raise Invalid("dataset.column-unclear", file=file, role="text_b", flag="--text-b", found=look.columns[:50])
        left = [c for c in pair or free if c not in {text, text_b}]
        text, text_b = text or left[0], text_b or left[-1]
    elif text is None and task in {"generation", "chat"}:
        turns = (look.turns or _by_name(look, TURNS_NAMES, taken)) if task == "chat" else None
        text = turns or _by_name(look, SOURCE_NAMES, taken)
    text = text or _text_column(look, taken, file)
    guessed = {role: name for role, name, given in (("text", text, named.text), ("text_b", text_b, named.text_b)) if given is None and name is not None}
    return Fields(text, id=named.id, text_b=text_b, task=task, asked=True), guessed


def _check_named(look: Look, named: Named, file: str) -> None:
    for name in named.given():
        if name not in look.columns:
            raise Invalid("dataset.column-missing", file=file, column=name, found=look.columns[:50], near=nearest(name, look.columns))


def _task(look: Look, named: Named) -> Task:
    """What such a file is most likely for."""
    if look.turns is not None and named.label is None and named.text in {None, look.turns}:
        return "chat"
    if look.spans is not None and named.label in {None, look.spans}:
        return "tagging"
    if named.text_b is not None or (named.target is None and pair_columns(look, _taken(named)) is not None):
        return "matching"
    if named.target is not None:
        return "generation"
    if named.label is None and _by_name(look, LABEL_NAMES, _taken(named)) is None and _by_name(look, SOURCE_NAMES, _taken(named)) is not None:
        if _by_name(look, REPLY_NAMES, _taken(named)) is not None:
            return "chat"
        if _by_name(look, TARGET_NAMES, _taken(named)) is not None:
            return "generation"
    return "multilabel" if look.lists is not None and named.label in {None, look.lists} else "classification"


def _taken(named: Named) -> set[str]:
    return set(named.given())


def _labelled(look: Look, named: Named, task: Task, file: str) -> dict[str, str | None]:
    """Text and label, of classes, label sets or spans."""
    taken = {c for c in (named.id, named.group, named.weight) if c is not None}
    label = named.label or {"tagging": look.spans, "multilabel": look.lists}.get(task)
    text = named.text or _text_column(look, taken | ({label} if label is not None else set()), file)
    return {"text": text, "label": label or _label_column(look, taken | {text}, file)}


def _pair(look: Look, named: Named, task: Task, file: str) -> dict[str, str | None]:
    """Two texts and their label or grade; embeddings are learned from texts alone, too."""
    pair = (named.text, named.text_b) if named.text and named.text_b else pair_columns(look, _taken(named) - {named.text, named.text_b})
    if pair is None and task == "embedding":
        return {"text": named.text or _text_column(look, _taken(named), file)}
    if pair is None:
        raise Invalid("dataset.column-unclear", file=file, role="text_b", flag="--text-b", found=look.columns[:50])
    text, text_b = named.text or pair[0], named.text_b or pair[1]
    taken = _taken(named) | {text or "", text_b or ""}
    if task == "embedding" and named.label is None and _by_name(look, (*LABEL_NAMES, *GRADE_NAMES), taken) is None:
        return {"text": text, "text_b": text_b}
    return {"text": text, "text_b": text_b, "label": named.label or _by_name(look, GRADE_NAMES, taken) or _label_column(look, taken, file)}


def _written(look: Look, named: Named, task: Task, file: str) -> dict[str, str | None]:
    """A text and the text that should come of it; for chat perhaps whole conversations."""
    if task == "chat" and look.turns is not None and named.target is None and named.text in {None, look.turns}:
        return {"text": look.turns}
    taken = _taken(named)
    text = named.text or _by_name(look, SOURCE_NAMES, taken)
    target = named.target or _by_name(look, (*TARGET_NAMES, *REPLY_NAMES, "target", "title", "标题"), taken | {text or ""})
    lengths = {c: fmean(map(len, v)) for c in look.columns if c not in taken | {text or "", target or ""} and len(set(v := look.sample.get(c, []))) > 1}
    if text is None and lengths:
        text = max(lengths, key=lambda c: lengths[c]) if task == "generation" else min(lengths, key=look.columns.index)
        lengths.pop(text)
    if target is None and lengths:
        target = max(lengths, key=lambda c: (_distinct_share(look.sample[c]) > 0.3, lengths[c]))
    for role, found in (("text", text), ("target", target)):
        if found is None:
            raise Invalid("dataset.column-unclear", file=file, role=role, flag=f"--{role}", found=look.columns[:50])
    return {"text": text, "target": target}


def pair_columns(look: Look, taken: set[str]) -> tuple[str, str] | None:
    """Two columns that are compared: by their names, or two alike among unnamed ones beside a third of few values."""
    by_name = {c.strip().casefold(): c for c in reversed(look.columns) if c not in taken}
    for a, b in PAIR_NAMES:
        if a in by_name and b in by_name:
            return by_name[a], by_name[b]
    free = [c for c in look.columns if c not in taken and look.sample.get(c)]
    if look.named or len(free) != 3:
        return None
    texts = [c for c in free if _distinct_share(look.sample[c]) > 0.3 and not all(map(_number, look.sample[c]))]
    if len(texts) != 2:
        return None
    short, long = sorted(fmean(map(len, look.sample[c])) for c in texts)
    return (texts[0], texts[1]) if long < 2 * short else None


def _by_name(look: Look, names: Sequence[str], taken: set[str]) -> str | None:
    by_name = {c.strip().casefold(): c for c in reversed(look.columns) if c not in taken}
    return next((by_name[n] for n in names if n in by_name), None)


def _distinct_share(values: list[str]) -> float:
    return len(set(values)) / len(values) if values else 0.0


def _text_column(look: Look, taken: set[str], file: str) -> str:
    found = _by_name(look, TEXT_NAMES, taken)
    if found is not None:
        return found
    candidates = {c: fmean(map(len, values)) for c in look.columns if c not in taken and (values := look.sample.get(c))}
    if not candidates:
        raise Invalid("dataset.column-unclear", file=file, role="text", flag="--text", found=look.columns[:50])
    return max(candidates, key=lambda c: (candidates[c] * (0.1 + _distinct_share(look.sample[c])), -look.columns.index(c)))


def _label_column(look: Look, taken: set[str], file: str) -> str:
    found = _by_name(look, LABEL_NAMES, taken)
    if found is not None:
        return found
    rest = [c for c in look.columns if c not in taken and look.sample.get(c) and not _known(c, OTHER_NAMES)]
    varied = [c for c in rest if len(set(look.sample[c])) > 1] or rest
    best = min(varied, key=lambda c: (_distinct_share(look.sample[c]), look.columns.index(c)), default=None)
    if best is None or (len(varied) > 1 and len(look.sample[best]) > 20 and _distinct_share(look.sample[best]) > 0.9):
        raise Invalid("dataset.column-unclear", file=file, role="label", flag="--label", found=look.columns[:50])
    return best
