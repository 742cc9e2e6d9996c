"""The command line: ``wenfang NOUN VERB`` for every operation, made from the operation table, and a few short cuts."""

from .tree import main

__all__ = ["main"]
