"""Which network a request means: our own from scratch, our own pretrained, or a directory of the transformers library. Knows nothing of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import file_digest
from pathlib import Path
from typing import Any

import numpy as np

from wenfang.core.errors import Invalid
from wenfang.core.examples import Examples

from .encoder import Encoder, EncoderShape
from .folders import is_ours, open_encoder
from .network import Network
from .pretrained import open_pretrained
from .tokens import PATTERNS, CharTokens, Encoded, SubwordTokens, Tokens
from .word_tokens import WordTokens

__all__ = ["build", "check_vocabulary", "digest_of"]

UNKNOWN_MAX = 0.3
"""Share of tokens that a pretrained vocabulary may not know."""


def build(hyper: Any, train: Examples, outputs: int) -> tuple[Network, Tokens, int]:
    """The network to train, its tokens, and how many tokens of a text it reads at once.

    Args:
        hyper: the hyper-parameters of the ``transformer`` family.
        train: to learn from.
        outputs: L.

    Raises:
        Invalid: `neural.lora-unfit`, `neural.vocabulary-own`, and what ``open_pretrained`` and ``open_encoder`` raise.
    """
    tagging = train.task == "tagging"
    folder = None if hyper.pretrained is None else Path(hyper.pretrained)
    if folder is not None and not is_ours(folder):
        network, subwords, positions = open_pretrained(
            folder, outputs=outputs, tagging=tagging, dropout=hyper.dropout, pairs=bool(train.texts_b), vocabulary=hyper.vocabulary, texts=[*train.texts, *train.texts_b]
        )
        if hyper.lora_rank:
            network.add_adapters(folder, hyper.lora_rank)
        special = len(subwords.prefix) + len(subwords.suffix)
        return network, subwords, max(1, min(hyper.max_length, positions - special))
    if hyper.lora_rank:
        raise Invalid("neural.lora-unfit", rank=hyper.lora_rank)
    if hyper.vocabulary != "whole":
        raise Invalid("neural.vocabulary-own", vocabulary=hyper.vocabulary)
    pairs = bool(train.texts_b)
    grams = hyper.ngram_buckets if hyper.ngram_buckets is not None else 0 if tagging else 1 << 16

    def shape_for(vocabulary: int) -> EncoderShape:
        h = hyper
        return EncoderShape(vocabulary, outputs, tagging, h.layers, h.hidden, h.heads, h.ff, h.dropout, grams, h.token_dropout, pairs=pairs, signed=h.attention == "signed")

    if hyper.unit == "word":
        if folder is not None:
            raise Invalid("neural.words-unfit", path=str(folder))
        words = WordTokens.learn([*train.texts, *train.texts_b], min_count=hyper.min_count, buckets=grams)
        return Encoder(shape_for(len(words))), words, hyper.max_length
    tokens = CharTokens.learn([*train.texts, *train.texts_b], min_count=hyper.min_count)
    start = None if folder is None else open_encoder(folder)
    tokens = CharTokens((tokens if start is None else start.widened(tokens.chars)).chars, patterns=PATTERNS["tagging" if tagging else "classification"], buckets=grams)
    if start is None:
        return Encoder(shape_for(len(tokens))), tokens, hyper.max_length
    shape = replace(
        start.shape, vocabulary=len(tokens), outputs=outputs, tagging=tagging, dropout=hyper.dropout, gram_buckets=grams, token_dropout=hyper.token_dropout, pairs=pairs
    )
    return start.encoder(shape), tokens, hyper.max_length


def check_vocabulary(hyper: Any, tokens: Tokens, encoded: Sequence[Encoded]) -> None:
    """Refuse a vocabulary that cannot spell the texts: its pretraining would be worth nothing."""
    if not isinstance(tokens, SubwordTokens) or tokens.unknown is None:
        return
    ids = np.concatenate([e.ids for e in encoded])
    share = float((ids == tokens.unknown).mean()) if len(ids) else 0.0
    if share > UNKNOWN_MAX:
        raise Invalid("neural.vocabulary-foreign", path=hyper.pretrained, share=round(share, 3), allowed=UNKNOWN_MAX)


def digest_of(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a pretrained directory; empty if there is none."""
    digests: dict[str, str] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.is_file():
            with open(path, "rb") as f:
                digests[path.name] = file_digest(f, "sha256").hexdigest()
    return digests
