"""Stores of records: one file a URL scheme. Knows what a record is, never what it means."""
