"""Benches: each prints figures beside those of its peers, on identical work, in one run."""
