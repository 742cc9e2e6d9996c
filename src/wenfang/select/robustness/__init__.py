"""Robustness: what happens to the answers when texts are written a little differently. Tests are data (``*.toml``), perturbations are code. Knows nothing of budgets or reports."""
