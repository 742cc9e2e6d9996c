"""BentoML over the bench model: two workers, adaptive batches of up to 16; served by ``bentoml serve bentoml_server:Bench``."""

import sys
from pathlib import Path

import bentoml

sys.path.insert(0, str(Path(__file__).parent.parent.parent))


@bentoml.service(workers=2, traffic={"timeout": 60})
class Bench:
    """One text a request."""

    def __init__(self):
        from bench._bert_like import BertLike

        self.model = BertLike()

    @bentoml.api(batchable=True, max_batch_size=16, max_latency_ms=10000)
    def predict(self, inputs: list[str]) -> list[dict]:
        return [{"label": label, "score": score} for label, score in self.model.answers(inputs)]
