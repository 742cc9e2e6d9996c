"""Buses: message brokers behind the port ``core.messages.Bus``, one file each."""
