"""Who may do what, and the proof of what was done: keys, roles, signatures, the audit chain."""
