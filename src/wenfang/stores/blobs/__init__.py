"""Stores of bytes: one file a URL scheme. Knows nothing of what the bytes mean."""
