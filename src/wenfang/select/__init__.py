"""Choosing the model: metrics, evaluation with intervals, search inside a time budget, the verdict and its report."""
