"""``python -m wenfang.doors.cli`` is ``wenfang``."""

from .tree import main

main()
