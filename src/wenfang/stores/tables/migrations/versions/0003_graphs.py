"""Graphs of model versions have a table."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make it."""
    op.create_table(
        "graph_versions",
        sa.Column("id", TEXT, primary_key=True),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("content_hash", TEXT, nullable=False),
        sa.Column("body", TEXT, nullable=False),
        sa.UniqueConstraint("project", "name", "number", name="uq_graph_versions"),
    )
    for name in ("project", "name", "number", "content_hash"):
        op.create_index(f"ix_graph_versions_{name}", "graph_versions", [name, "id"])


def downgrade() -> None:
    """Drop it."""
    op.drop_table("graph_versions")
