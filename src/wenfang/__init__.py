"""Wenfang 文房."""
