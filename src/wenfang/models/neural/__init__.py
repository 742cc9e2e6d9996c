"""What neural families are made of: tokens, batches, networks, training, ONNX. Knows nothing of families, data sets or serving.

Two halves: ``directories tokens questions batches answering paths selfcheck session`` need numpy, onnxruntime and tokenizers only and do the
predicting; the rest needs torch or onnx and is imported by ``fit`` and ``pretrain`` alone. The loop, its feeds, checkpoints and
objectives serve every neural family.
"""
