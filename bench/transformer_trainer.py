"""The same network on the same texts: our loop beside the transformers Trainer, in real tokens for each CPU-second.

Both pad dynamically, with as many tokens in a batch on average, fp32, AdamW, one thread; the Trainer also with its own grouping by length.
"""

from __future__ import annotations

import json
import tempfile
import time
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wenfang.models import Curve, families
from wenfang.models.neural.batches import Stacker, pieces_of
from wenfang.models.neural.encoder import Encoder, EncoderShape
from wenfang.models.neural.tokens import CharTokens

from ._transformer_sets import resume

SENTENCES, STEPS, ROWS = 800, 24, 32
SIZES = {"layers": 4, "hidden": 256, "heads": 4, "ff": 1024}


class Wrapped(nn.Module):
    """Our encoder as the Trainer wants it: a loss out of a dictionary."""

    def __init__(self, network: Encoder) -> None:
        super().__init__()
        self.network = network

    def forward(self, ids: Tensor, mask: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Cross entropy of the tags."""
        scores = self.network(ids, mask)
        return {"loss": nn.functional.cross_entropy(scores[mask], labels[mask]), "logits": scores}


def theirs(texts: list[str], tags: list[np.ndarray[Any, Any]], *, grouped: bool) -> float:
    """Real tokens for each CPU-second of the Trainer."""
    import transformers

    tokens = CharTokens.learn(texts, min_count=2)
    encoded = tokens.encode(texts)
    stacker = Stacker(encoded, pieces_of(encoded, 256), tokens)
    torch.manual_seed(0)
    network = Wrapped(Encoder(EncoderShape(len(tokens), 33, True, **SIZES, dropout=0.1)))
    real = 0

    def collate(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        nonlocal real
        batch = stacker.stack(np.array([r["row"] for r in rows]))
        labels = np.zeros(batch.ids.shape, np.int64)
        for b, r in enumerate(rows):
            labels[b, 1 : 1 + len(tags[r["row"]])] = tags[r["row"]]
        real += int(batch.mask.sum())
        return {"ids": torch.from_numpy(batch.ids), "mask": torch.from_numpy(batch.mask), "labels": torch.from_numpy(labels)}

    data: Any = [{"row": i, "input_ids": [0] * int(n), "length": int(n)} for i, n in enumerate(stacker.lengths)]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        more = {"train_sampling_strategy": "group_by_length"} if grouped else {}
        options = transformers.TrainingArguments(
            folder, per_device_train_batch_size=ROWS, max_steps=STEPS, report_to=[], save_strategy="no", logging_strategy="no", disable_tqdm=True, remove_unused_columns=False,
            use_cpu=True, dataloader_pin_memory=False, length_column_name="length", **more,
        )  # fmt: skip
        trainer = transformers.Trainer(network, options, data_collator=collate, train_dataset=data)
        start = time.process_time()
        trainer.train()
        return real / (time.process_time() - start)


def main() -> None:
    torch.set_num_threads(1)
    whole = resume("train")
    train = whole.take(range(SENTENCES))
    family = families.get("transformer")
    mean = float(np.mean([len(t) + 1 for t in train.texts]))
    hyper = family.Hyper(
        **SIZES, ngram_buckets=0, head="softmax", batch_tokens=round(ROWS * mean), epochs=STEPS * ROWS / SENTENCES, threads=1, width="fp32", precision="fp32", dropout=0.1
    )
    model = family(hyper, task="tagging")
    model.fit(train, None, Curve())
    from wenfang.models.tags import TagSet

    tag_set = TagSet(tuple(train.label_names()))
    tags = [tag_set.encode(s, len(t)) for s, t in zip(train.spans, train.texts, strict=True)]
    plain, grouped = theirs(train.texts, tags, grouped=False), theirs(train.texts, tags, grouped=True)
    ours = model.found_["tokens_per_cpu_s"]
    rows = {
        "ours": ours, "ours padding": model.found_["padding_share"], "Trainer": round(plain, 1), "Trainer grouped by length": round(grouped, 1),
        "ours / Trainer": round(ours / plain, 2), "ours / Trainer grouped": round(ours / grouped, 2), "texts": SENTENCES, "tokens of a text": round(mean, 1),
    }  # fmt: skip
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
