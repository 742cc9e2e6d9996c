"""What cutting the vocabulary of a pretrained directory saves, and what it costs: tokens, bytes, load and answer times, and how many unseen texts are spelled as before.

A WordPiece vocabulary of 21,128 tokens learned from THUCNews titles and the raw samples, under a network of random weights (4 layers, 312 hidden): sizes and times are
those of a trained one, scores are not asked for. Cut by 5,000 training titles, asked about dev titles.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from wenfang.models.neural.batches import Stacker, pieces_of
from wenfang.models.neural.export import to_onnx
from wenfang.models.neural.pretrained import open_pretrained
from wenfang.models.neural.session import Session
from wenfang.models.neural.tokens import SubwordTokens

from ._transformer_sets import DATA, titles

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def directory(path: Path) -> None:
    """Vocabulary and random weights."""
    from transformers import BertConfig, BertModel

    tokenizer: Any = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    texts = [
        *titles("train_part", 40_000).texts,
        *(line for file in sorted((DATA / "zh_raw_samples").glob("*.txt")) for line in file.read_text(encoding="utf-8").split("\n")[:5000]),
    ]
    tokenizer.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=21_128, special_tokens=SPECIAL, show_progress=False))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(path / "tokenizer.json"))
    torch.manual_seed(0)
    config = BertConfig(vocab_size=tokenizer.get_vocab_size(), hidden_size=312, num_hidden_layers=4, num_attention_heads=12, intermediate_size=1200, max_position_embeddings=128)
    BertModel(config).save_pretrained(path, safe_serialization=True)


def main() -> None:
    torch.set_num_threads(1)
    train, dev = titles("train_part", 5000), titles("dev", 2000)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        directory(folder)
        whole: SubwordTokens | None = None
        for vocabulary in ("whole", "characters", "seen"):
            network, tokens, _ = open_pretrained(folder, outputs=15, tagging=False, dropout=0.0, vocabulary=vocabulary, texts=train.texts)
            whole = whole or tokens
            alike = [a.offsets.tolist() == b.offsets.tolist() for a, b in zip(whole.encode(dev.texts), tokens.encode(dev.texts), strict=True)]  # pyright: ignore[reportOptionalMemberAccess]
            encoded = tokens.encode(dev.texts[:300])
            stacker = Stacker(encoded, pieces_of(encoded, 100), tokens)
            data = to_onnx(network, stacker.stack(np.arange(2)))
            begun = time.process_time()
            session = Session(data)
            load_s = time.process_time() - begun
            singles = [stacker.stack(np.array([i])) for i in range(len(encoded))]
            best = float("inf")
            for _ in range(3):
                begun = time.process_time()
                for batch in singles:
                    session(batch)
                best = min(best, time.process_time() - begun)
            row = {
                "vocabulary": vocabulary,
                "tokens": tokens.size,
                "onnx_mb": round(len(data) / 2**20, 1),
                "load_ms": round(1000 * load_s),
                "cpu_ms": round(1000 * best / len(singles), 2),
            }
            print(json.dumps({**row, "dev_titles_cut_alike": round(float(np.mean(alike)), 4)}), flush=True)


if __name__ == "__main__":
    main()
