"""What can be done: one function per operation, and the one place where everything is wired."""
