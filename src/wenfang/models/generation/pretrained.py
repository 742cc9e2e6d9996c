"""A local directory of the transformers library that writes, a decoder alone or behind an encoder: fine-tuned, then exported. Never fetches, never unpickles.

Knows nothing of families.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from wenfang.core.errors import Invalid
from wenfang.core.examples import Examples
from wenfang.models.base import Curve
from wenfang.models.neural.adapters import adapted, merged
from wenfang.models.neural.building import digest_of
from wenfang.models.neural.directories import describe
from wenfang.models.neural.network import Network
from wenfang.models.neural.pretrained import OFFLINE
from wenfang.models.neural.torch_state import torch_state

from .exporting import exported
from .sequences import Row
from .served import PretrainedWriter
from .subwords import Subwords
from .training import Rows, found_of, train_rows

__all__ = ["fit_pretrained"]

NOTHING, BEGIN = -1, -2
"""Padding, and where the target begins, behind an encoder: no vocabulary has such numbers."""


@dataclass(slots=True)
class LearnedPretrained:
    """What serves, and what training found."""

    writer: PretrainedWriter
    found: dict[str, Any]


class _Directory:
    """An opened directory: network, tokens, sizes."""

    def __init__(self, folder: Path, hyper: Any, *, targets: list[str]) -> None:
        self.folder = folder
        described = describe(folder)
        self.apart = bool(described.get("is_encoder_decoder"))
        try:
            self.config = {**_generation(folder), **{name: value for name, value in described.items() if value is not None}}
            self.body: Any = _load(folder, apart=self.apart)
            self.tokens = Subwords((folder / "tokenizer.json").read_bytes(), end=_end(self.config), template=_template(folder))
            if self.apart:
                self.tokens.starts = _starts(self.config, self.tokens)
        except Exception as e:  # tokenizers and safetensors raise bare Exceptions of their own for damaged files
            raise Invalid("neural.pretrained-unreadable", path=str(folder), reason=type(e).__name__) from e
        rows = int(self.body.get_input_embeddings().weight.shape[0])
        if self.tokens.size > rows:
            raise Invalid("neural.vocabulary-differs", path=str(folder), characters=self.tokens.size, rows=rows)
        positions = self.config.get("max_position_embeddings") or (hyper.max_length if self.apart else self.config.get("n_positions") or 1024)
        self.size = min(hyper.max_length, int(positions))
        starts = len(self.tokens.starts)
        self.target_max = max(1, min(self.size // 2, max(len(self.tokens.encode(t)) for t in targets)))
        self.source_max = max(1, min(self.size, hyper.max_length - self.target_max - starts) if self.apart else self.size - self.target_max - 1)

    def rows(self, examples: Examples | None) -> list[Row]:
        """Every example as a row."""
        rows: list[Row] = []
        if examples is None:
            return rows
        for text, target in zip(examples.texts, examples.targets, strict=True):
            prompt = self.tokens.prompt(text, task=examples.task, limit=self.source_max)
            ids = [*self.tokens.encode(target), self.tokens.end][: self.target_max + 1]
            rows.append(Row(prompt, [BEGIN, *ids]) if self.apart else Row(prompt[:-1], [prompt[-1], *ids]))
        return rows


class Causal(Network):
    """A transformers model as the training loop sees it.

    Args:
        body: with a head over its vocabulary.
    """

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, ids: Tensor, mask: Tensor, grams: Tensor | None = None) -> Tensor:
        """Scores (B, T, V) of the token that follows each of ids (B, T)."""
        del grams
        return self.body(input_ids=ids.long(), attention_mask=mask.long(), use_cache=False).logits

    def merge(self) -> None:
        """Fold low-rank differences into the body."""
        self.body = merged(self.body)


class Apart(Causal):
    """The same with an encoder: sources in the first columns, ``BEGIN`` in one column behind them.

    Args:
        body: with a head over its vocabulary.
        starts: what the decoder reads in place of ``BEGIN``.
    """

    def __init__(self, body: nn.Module, starts: tuple[int, ...]) -> None:
        super().__init__(body)
        self.starts = starts

    def forward(self, ids: Tensor, mask: Tensor, grams: Tensor | None = None) -> Tensor:
        """Scores (B, T - S, V) of ids (B, T) whose first S are the source's."""
        del grams
        S = int((ids[0] == BEGIN).nonzero()[0])
        source, target = ids[:, :S].long(), ids[:, S + 1 :].long()
        there = source != NOTHING
        starts = torch.tensor(self.starts, device=ids.device).expand(len(ids), -1)
        written = torch.cat([starts, target.clamp(min=0)], dim=1)
        stands = torch.cat([torch.ones_like(starts, dtype=torch.bool), mask[:, S + 1 :]], dim=1)
        given = self.body(
            input_ids=source.clamp(min=0), attention_mask=there.long(), decoder_input_ids=written, decoder_attention_mask=stands.long(), use_cache=False
        )  # fmt: skip
        return given.logits[:, len(self.starts) - 1 :]


def fit_pretrained(hyper: Any, train: Examples, valid: Examples | None, *, seed: int, curve: Curve) -> LearnedPretrained:
    """Fine-tune all weights or low-rank differences on pairs, fold these in, export, and check the export.

    Raises:
        Invalid: as ``describe``; `neural.pretrained-unreadable`, `neural.vocabulary-differs`, `neural.lora-no-modules`, `neural.not-finite`.
        Unsupported: `generation.not-exportable`.
    """
    folder = Path(hyper.pretrained)
    with torch_state(seed, hyper.threads or len(os.sched_getaffinity(0))):
        opened = _Directory(folder, hyper, targets=train.targets)
        tokens = opened.tokens
        rows = Rows(opened.rows(train), opened.rows(valid), apart=opened.apart, pad=NOTHING if opened.apart else 0)
        digests = digest_of(folder)
        request = {"hyper": hyper.model_dump(mode="json"), "rows": [[r.prompt, r.target] for r in [*rows.learned, *rows.judged]], "seed": seed, "pretrained": digests}
        rate = hyper.learning_rate or (3e-4 if hyper.lora_rank else 1e-4 if opened.apart else 5e-5)
        body = adapted(opened.body, folder, rank=hyper.lora_rank, alpha=hyper.lora_alpha, targets=hyper.lora_targets) if hyper.lora_rank else opened.body
        network = Apart(body, tokens.starts) if opened.apart else Causal(body)
        fitted, loss = train_rows(network, rows, hyper=hyper.model_copy(update={"learning_rate": rate}), curve=curve, request=request, seed=seed)
        network.merge()
        graphs = exported(network.body, folder, starts=tokens.starts)
    writer = PretrainedWriter(
        graphs.model, tokens, encoder=graphs.encoder, length_max=opened.size, target_max=opened.target_max, source_max=opened.source_max
    )  # fmt: skip
    base = sha256("".join(f"{name} {digest}\n" for name, digest in digests.items()).encode()).hexdigest()
    return LearnedPretrained(writer, {**found_of(fitted, loss, opened.target_max), "base_sha256": base})


def _load(folder: Path, *, apart: bool) -> Any:
    for name in OFFLINE:
        os.environ.setdefault(name, "1")  # before the first import of transformers: it reads them once
    import transformers

    kind: Any = getattr(cast("Any", transformers), "AutoModelForSeq2SeqLM" if apart else "AutoModelForCausalLM")
    body = kind.from_pretrained(folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, attn_implementation="eager", dtype=torch.float32)
    body.config.use_cache = True
    return body


def _generation(folder: Path) -> dict[str, Any]:
    """What the directory says of writing, in a file of its own in newer layouts."""
    alone = folder / "generation_config.json"
    given: Any = json.loads(alone.read_bytes()) if alone.is_file() else {}
    return cast("dict[str, Any]", given) if isinstance(given, dict) else {}


def _end(config: dict[str, Any]) -> int:
    given: Any = config.get("eos_token_id")
    return int(given[0] if isinstance(given, list) else given)  # pyright: ignore[reportUnknownArgumentType]


def _starts(config: dict[str, Any], tokens: Subwords) -> tuple[int, ...]:
    """What a decoder has read before its first word: the start, and the word it is made to begin with (a language, or the mark that BART learned so)."""
    start, forced = config.get("decoder_start_token_id"), config.get("forced_bos_token_id")
    if start is None:
        start = next(found for found in (tokens.behind, config.get("bos_token_id"), config.get("pad_token_id")) if found is not None)
    return (int(start),) if forced is None or forced == start else (int(start), int(forced))


def _template(folder: Path) -> str | None:
    """The chat template, as the directory has it in one of two places."""
    alone, within = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    if alone.is_file():
        return alone.read_text(encoding="utf-8")
    found: Any = json.loads(within.read_bytes()).get("chat_template") if within.is_file() else None
    return found if isinstance(found, str) else None
