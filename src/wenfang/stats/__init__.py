"""Intervals and paired tests: pure functions over arrays, used by every engine."""
