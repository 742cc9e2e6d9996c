"""Judges: what a right answer is, one module for each shape of answer. They share evaluations and metrics, and do not know each other."""
