"""Where processes run. Knows processes by name and entry string, and nothing of what they do."""
