"""Answering requests: routing, batching, the replica pool, flow control. Knows no web framework and no runtime."""
