"""The first schema: one table a kind of record, the pointers, the outbox of events, the audit, the commits already seen."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Create everything."""
    op.create_table(
        "projects",
        sa.Column("id", TEXT, primary_key=True),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("body", TEXT, nullable=False),
        sa.UniqueConstraint("name", name="uq_projects"),
    )
    op.create_table(
        "datasets",
        sa.Column("id", TEXT, primary_key=True),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("body", TEXT, nullable=False),
        sa.UniqueConstraint("project", "name", name="uq_datasets"),
    )
    op.create_index("ix_datasets_name", "datasets", ["name", "id"])
    op.create_index("ix_datasets_project", "datasets", ["project", "id"])
    op.create_table(
        "dataset_versions",
        sa.Column("id", TEXT, primary_key=True),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("dataset", TEXT, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("content_hash", TEXT, nullable=False),
        sa.Column("body", TEXT, nullable=False),
        sa.UniqueConstraint("dataset", "number", name="uq_dataset_versions"),
    )
    op.create_index("ix_dataset_versions_content_hash", "dataset_versions", ["content_hash", "id"])
    op.create_index("ix_dataset_versions_dataset", "dataset_versions", ["dataset", "id"])
    op.create_index("ix_dataset_versions_number", "dataset_versions", ["number", "id"])
    op.create_index("ix_dataset_versions_project", "dataset_versions", ["project", "id"])
    op.create_table(
        "selections",
        sa.Column("id", TEXT, primary_key=True),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("dataset_version", TEXT, nullable=False),
        sa.Column("body", TEXT, nullable=False),
    )
    op.create_index("ix_selections_dataset_version", "selections", ["dataset_version", "id"])
    op.create_index("ix_selections_project", "selections", ["project", "id"])
    op.create_table(
        "runs",
        sa.Column("id", TEXT, primary_key=True),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("selection", TEXT, nullable=False),
        sa.Column("family", TEXT, nullable=False),
        sa.Column("body", TEXT, nullable=False),
    )
    op.create_index("ix_runs_family", "runs", ["family", "id"])
    op.create_index("ix_runs_project", "runs", ["project", "id"])
    op.create_index("ix_runs_selection", "runs", ["selection", "id"])
    op.create_table(
        "model_versions",
        sa.Column("id", TEXT, primary_key=True),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("bundle", TEXT, nullable=False),
        sa.Column("body", TEXT, nullable=False),
        sa.UniqueConstraint("project", "name", "number", name="uq_model_versions"),
    )
    op.create_index("ix_model_versions_bundle", "model_versions", ["bundle", "id"])
    op.create_index("ix_model_versions_name", "model_versions", ["name", "id"])
    op.create_index("ix_model_versions_number", "model_versions", ["number", "id"])
    op.create_index("ix_model_versions_project", "model_versions", ["project", "id"])
    op.create_table(
        "services",
        sa.Column("id", TEXT, primary_key=True),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("body", TEXT, nullable=False),
        sa.UniqueConstraint("name", name="uq_services"),
    )
    op.create_index("ix_services_project", "services", ["project", "id"])
    op.create_table(
        "jobs",
        sa.Column("id", TEXT, primary_key=True),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("operation", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("body", TEXT, nullable=False),
    )
    op.create_index("ix_jobs_operation", "jobs", ["operation", "id"])
    op.create_index("ix_jobs_project", "jobs", ["project", "id"])
    op.create_index("ix_jobs_state", "jobs", ["state", "id"])
    op.create_table(
        "api_keys",
        sa.Column("id", TEXT, primary_key=True),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("project", TEXT, nullable=True),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("body", TEXT, nullable=False),
        sa.UniqueConstraint("digest", name="uq_api_keys"),
    )
    op.create_index("ix_api_keys_name", "api_keys", ["name", "id"])
    op.create_index("ix_api_keys_project", "api_keys", ["project", "id"])
    op.create_table(
        "uploads",
        sa.Column("id", TEXT, primary_key=True),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("project", TEXT, nullable=False),
        sa.Column("body", TEXT, nullable=False),
    )
    op.create_index("ix_uploads_project", "uploads", ["project", "id"])
    op.create_table(
        "pointers",
        sa.Column("seq", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("target", TEXT, nullable=False),
        sa.Column("at", TEXT, nullable=False),
        sa.Column("actor", TEXT, nullable=False),
    )
    op.create_index("ix_pointers_kind_key", "pointers", ["kind", "key", "seq"])
    op.create_table(
        "events",
        sa.Column("seq", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("id", TEXT, nullable=False),
        sa.Column("at", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("actor", TEXT, nullable=False),
        sa.Column("subject", TEXT, nullable=False),
        sa.Column("data", TEXT, nullable=False),
        sa.UniqueConstraint("id", name="uq_events"),
    )
    op.create_table(
        "audit",
        sa.Column("seq", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("at", TEXT, nullable=False),
        sa.Column("actor", TEXT, nullable=False),
        sa.Column("operation", TEXT, nullable=False),
        sa.Column("subject", TEXT, nullable=False),
        sa.Column("outcome", TEXT, nullable=False),
        sa.Column("code", TEXT, nullable=False),
        sa.Column("request_id", TEXT, nullable=False),
        sa.Column("detail", TEXT, nullable=False),
        sa.Column("previous", TEXT, nullable=False),
        sa.Column("hash", TEXT, nullable=False),
    )
    op.create_table("commits", sa.Column("id", TEXT, primary_key=True), sa.Column("at", TEXT, nullable=False))
    op.create_index("ix_commits_at", "commits", ["at"])


def downgrade() -> None:
    """Drop everything."""
    for name in (
        "projects",
        "datasets",
        "dataset_versions",
        "selections",
        "runs",
        "model_versions",
        "services",
        "jobs",
        "api_keys",
        "uploads",
        "pointers",
        "events",
        "audit",
        "commits",
    ):
        op.drop_table(name)
