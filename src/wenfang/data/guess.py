"""What a file leaves unsaid: whether the first row is a header, which column is the text, which the label, which task it is.

Every guess is reported; nothing here reads files or knows formats.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median

from wenfang.core.errors import Invalid
from wenfang.core.records import Task
from wenfang.core.registry import nearest

from .columns import Fields, Look

__all__ = ["guess_fields", "looks_like_header"]

TEXT_NAMES = (
    "text", "content", "sentence", "title", "review", "comment", "utterance", "query", "question", "body", "message", "document", "tweet", "text_a", "sentence1", "data", "tokens",
    "内容", "文本", "标题", "评论", "句子", "正文", "问题", "留言", "描述", "评价",
)  # fmt: skip
LABEL_NAMES = (
    "label", "labels", "class", "category", "intent", "tag", "target", "sentiment", "topic", "y", "class_id", "label_id", "entities", "spans", "entity_list", "ner_tags", "tags",
    "标签", "类别", "意图", "分类", "类型", "情感", "主题",
)  # fmt: skip
OTHER_NAMES = ("id", "编号", "序号", "date", "time", "日期", "时间", "user", "用户", "group", "source", "来源")
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
    if any(name in first for name in wanted) or any(_known(cell, (*TEXT_NAMES, *LABEL_NAMES, *OTHER_NAMES)) for cell in first):
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


def guess_fields(
    look: Look, *, file: str, text: str | None, label: str | None, task: Task | None, id: str | None = None, group: str | None = None, earlier: Fields | None = None
) -> tuple[Fields, Task, dict[str, str]]:
    """(fields, task, what was guessed) from what the caller said, what the reader saw, and what an earlier file of the version had.

    Raises:
        Invalid: `dataset.column-missing` for a named column that is not there, `dataset.column-unclear` when a guess is impossible,
            `dataset.no-spans` when tagging was asked for and nothing holds spans.
    """
    for name in (text, label, id, group):
        if name is not None and name not in look.columns:
            raise Invalid("dataset.column-missing", file=file, column=name, found=look.columns[:50], near=nearest(name, look.columns))
    if text is not None and text == label:
        raise Invalid("dataset.same-column", file=file, column=text)
    if earlier is not None:
        text = text or (earlier.text if earlier.text in look.columns else None)
        label = label or (earlier.label if earlier.label in look.columns else None)
    guessed: dict[str, str] = {}
    if task is None:
        task = guessed["task"] = "tagging" if look.spans is not None and label in {None, look.spans} else "classification"
    if task == "tagging" and look.spans is None and (earlier is None or label is None):
        raise Invalid("dataset.no-spans", file=file, found=look.columns[:50])
    taken = {c for c in (id, group) if c is not None}
    if task == "tagging" and label is None:
        label = look.spans
    if text is None:
        text = guessed["text"] = _text_column(look, taken | ({label} if label is not None else set()), file)
    if label is None:
        label = guessed["label"] = _label_column(look, taken | {text}, file)
    return Fields(text, label, id, group, spans=task == "tagging"), task, guessed


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
