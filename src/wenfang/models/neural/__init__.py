"""What neural families are made of: tokens, batches, networks, training, ONNX. Knows nothing of families, data sets or serving.

Two halves: ``tokens batches paths session`` need numpy, onnxruntime and tokenizers only and do the predicting; ``encoder crf_layer
networks pretrained precision loop graph export`` need torch or onnx and are imported by ``fit`` alone.
"""
