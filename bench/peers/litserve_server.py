"""LitServe over the bench model: two workers, batches of 16 with 2 ms of waiting (its own docs' way); ``python litserve_server.py PORT``."""

import sys
from pathlib import Path

import litserve as ls

sys.path.insert(0, str(Path(__file__).parent.parent.parent))


class Api(ls.LitAPI):
    """One text a request."""

    def setup(self, device):
        from bench._bert_like import BertLike

        self.model = BertLike()

    def decode_request(self, request):
        return request["inputs"][0]

    def predict(self, batch):
        return self.model.answers(batch)

    def encode_response(self, output):
        return {"outputs": [{"label": output[0], "score": output[1]}]}


if __name__ == "__main__":
    server = ls.LitServer(Api(max_batch_size=16, batch_timeout=0.002), accelerator="cpu", workers_per_device=2)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", generate_client_file=False)
