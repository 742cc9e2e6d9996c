"""What Alembic runs for every command: the connection comes from whoever opened the database."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
