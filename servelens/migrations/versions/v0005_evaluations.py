"""Leases, evaluations with their schedules, and more about each run."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Make the tables and add the columns."""
    op.create_table(
        "leases",
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("holder", sa.String(length=255), nullable=False),
        sa.Column("term", sa.Integer(), nullable=False),
        sa.Column("acquired_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
    op.create_table(
        "evaluation_schedules",
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("endpoint", sa.String(length=255), nullable=False),
        sa.Column("definition", sa.JSON(), nullable=False),
        sa.Column("source", sa.String(length=8), nullable=False),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("runs_requested", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("changed_by", sa.String(length=255), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_evaluation_schedules")),
    )
    with op.batch_alter_table("evaluation_runs") as runs:
        runs.add_column(sa.Column("evaluation", sa.String(length=200), nullable=True))
        runs.add_column(sa.Column("trigger", sa.String(length=20), nullable=True))
        runs.add_column(sa.Column("evaluator_version", sa.String(length=200), nullable=True))
        runs.add_column(sa.Column("skipped", sa.Integer(), nullable=True))
        runs.add_column(sa.Column("tokens", sa.BigInteger(), nullable=True))
        runs.add_column(sa.Column("lag_p99_s", sa.Double(), nullable=True))
        runs.add_column(sa.Column("lag_max_s", sa.Double(), nullable=True))
        runs.add_column(sa.Column("waiting", sa.Integer(), nullable=True))
