"""The ids of records that were forgotten."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "forgotten_records",
        sa.Column("endpoint", sa.String(length=255), nullable=False),
        sa.Column("databricks_request_id", sa.String(length=255), nullable=False),
        sa.Column("forgotten_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("endpoint", "databricks_request_id", name=op.f("pk_forgotten_records")),
    )
    op.create_index("ix_forgotten_records_forgotten_at", "forgotten_records", ["forgotten_at"])
