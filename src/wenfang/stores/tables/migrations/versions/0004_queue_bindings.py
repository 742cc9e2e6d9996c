"""Request queues have a table."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make it."""
    op.create_table(
        "queue_bindings",
        sa.Column("id", TEXT, primary_key=True),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("service", TEXT, nullable=False),
        sa.Column("bus", TEXT, nullable=False),
        sa.Column("requests", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("body", TEXT, nullable=False),
        sa.UniqueConstraint("bus", "requests", name="uq_queue_bindings"),
    )
    for name in ("project", "service", "bus", "requests"):
        op.create_index(f"ix_queue_bindings_{name}", "queue_bindings", [name, "id"])


def downgrade() -> None:
    """Drop it."""
    op.drop_table("queue_bindings")
