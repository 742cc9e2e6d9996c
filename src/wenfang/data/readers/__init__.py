"""File formats, one file each: how the rows of a file become columns. A reader knows nothing of tasks, cards or storage."""
