"""What writing texts is made of: an alphabet, a small network and its numpy twin, rules of decoding, and clauses put together from a source.

Two halves, as in ``neural``: ``network training pretrained`` need torch and are imported by ``fit`` alone; everything else needs numpy
(onnxruntime and tokenizers for a pretrained directory) and does the writing.
"""
