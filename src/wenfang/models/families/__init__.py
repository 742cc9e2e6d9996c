"""One file, one family: the module's name is the family's name."""
