"""Several annotators a case, label schemas, decisions, and where cases come from.

What was claimed, labeled or skipped becomes a claim, and what was labeled or skipped a decision. The position in the
scores moves to ``relabel_cursors``; ``relabel_selections`` stays as it was.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_TIME = sa.DateTime(timezone=True)
_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_NAME = sa.String(length=200)
_ENDPOINT = sa.String(length=255)


def upgrade() -> None:
    """Add the columns, make the tables, and fill them from what is there."""
    _widen_cases()
    _widen_reasons()
    _widen_labels()
    for table, column in (
        ("relabel_occurrences", sa.Column("sampled", sa.Double(), nullable=True)),
        ("relabel_occurrences", sa.Column("similarity", sa.Double(), nullable=True)),
        ("relabel_history", sa.Column("event", sa.String(length=32), nullable=True)),
    ):
        op.add_column(table, column)
    _make_queue_tables()
    _make_other_tables()
    _fill()


def _widen_cases() -> None:
    for column in (
        sa.Column("wanted", sa.Integer(), nullable=False, server_default="1"),
        sa.Column("taken", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("labeled", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("started", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("resolution", sa.String(length=16), nullable=True),
        sa.Column("unit", sa.Text(), nullable=True),
        sa.Column("session", sa.Text(), nullable=True),
        sa.Column("alternatives", sa.JSON(), nullable=True),
        sa.Column("gold", sa.JSON(), nullable=True),
    ):
        op.add_column("relabel_cases", column)
    by_priority: tuple[sa.ColumnElement[Any], ...] = (sa.literal_column("priority DESC"), sa.column("id"))
    op.create_index(
        "ix_relabel_cases_claim", "relabel_cases", [sa.column("state"), sa.column("started"), *by_priority]
    )
    op.create_index(
        "ix_relabel_cases_endpoint_claim",
        "relabel_cases",
        [sa.column("endpoint"), sa.column("state"), sa.column("started"), *by_priority],
    )
    op.create_index("ix_relabel_cases_time", "relabel_cases", ["endpoint", "request_time"])
    for name in ("queue", "endpoint_queue", "order", "lease", "holder"):
        op.drop_index(f"ix_relabel_cases_{name}", "relabel_cases")
    time: sa.ColumnClause[Any] = sa.column("request_time")
    for name, first in (
        ("queue", (sa.column("state"),)),
        ("endpoint_queue", (sa.column("endpoint"), sa.column("state"))),
        ("order", ()),
        ("endpoint_order", (sa.column("endpoint"),)),
    ):
        op.create_index(f"ix_relabel_cases_{name}", "relabel_cases", [*first, *by_priority, time])


def _widen_reasons() -> None:
    with op.batch_alter_table("relabel_reasons") as reasons:
        for name, kind in (
            ("rule", _ENDPOINT),
            ("kind", sa.String(length=32)),
            ("evaluator_version", _ENDPOINT),
            ("label", sa.Text()),
            ("detail", sa.Text()),
        ):
            reasons.add_column(sa.Column(name, kind, nullable=True))
    op.execute(
        "UPDATE relabel_reasons SET kind = 'score', rule = substr(evaluator || ' ' || target || ' ' || direction, 1, 255)"
    )
    with op.batch_alter_table("relabel_reasons") as reasons:
        reasons.alter_column("rule", existing_type=_ENDPOINT, nullable=False)
        reasons.alter_column("kind", existing_type=sa.String(length=32), nullable=False)
        there: sa.types.TypeEngine[Any]
        for name, there in (
            ("evaluator", _ENDPOINT),
            ("target", sa.String(length=32)),
            ("direction", sa.String(length=8)),
            ("threshold", sa.Float()),
            ("score", sa.Float()),
        ):
            reasons.alter_column(name, existing_type=there, nullable=True)
        reasons.drop_constraint("uq_relabel_reasons_case_id_evaluator_target_direction", type_="unique")
        reasons.create_unique_constraint("uq_relabel_reasons_case_id_rule", ["case_id", "rule"])
    op.create_index("ix_relabel_reasons_evaluator", "relabel_reasons", ["evaluator", "case_id"])
    op.create_index("ix_relabel_reasons_kind", "relabel_reasons", ["kind", "case_id"])


def _widen_labels() -> None:
    with op.batch_alter_table("relabel_labels") as labels:
        labels.alter_column("rating", existing_type=sa.String(length=16), nullable=True)
        labels.add_column(sa.Column("preferred", _ENDPOINT, nullable=True))
        labels.add_column(sa.Column("values", sa.JSON(), nullable=True))
        labels.add_column(sa.Column("schema_version", sa.Integer(), nullable=False, server_default="0"))
        labels.add_column(
            sa.Column("is_adjudication", sa.Boolean(), nullable=False, server_default=sa.false())
        )
        labels.add_column(sa.Column("duration_s", sa.Double(), nullable=True))
        labels.add_column(
            sa.Column("source", sa.String(length=32), nullable=False, server_default="servelens")
        )
    op.create_index("ix_relabel_labels_annotator", "relabel_labels", ["annotator", "id"])


def _make_queue_tables() -> None:
    op.create_table(
        "relabel_claims",
        sa.Column("id", _ID, nullable=False),
        sa.Column("case_id", _ID, nullable=False),
        sa.Column("annotator", _NAME, nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("schema_version", sa.Integer(), nullable=False),
        sa.Column("is_adjudication", sa.Boolean(), nullable=False),
        sa.Column("claimed_at", _TIME, nullable=False),
        sa.Column("lease_expires_at", _TIME, nullable=True),
        sa.Column("skip_reason", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["case_id"], ["relabel_cases.id"], name=op.f("fk_relabel_claims_case_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_relabel_claims")),
        sa.UniqueConstraint("case_id", "annotator", name=op.f("uq_relabel_claims_case_id_annotator")),
    )
    op.create_index("ix_relabel_claims_holder", "relabel_claims", ["annotator", "state", "id"])
    op.create_index("ix_relabel_claims_lease", "relabel_claims", ["state", "lease_expires_at"])
    op.create_table(
        "relabel_decisions",
        sa.Column("id", _ID, nullable=False),
        sa.Column("case_id", _ID, nullable=False),
        sa.Column("label_id", _ID, nullable=True),
        sa.Column("resolution", sa.String(length=16), nullable=True),
        sa.Column("labels", sa.Integer(), nullable=False),
        sa.Column("agreement", sa.Double(), nullable=True),
        sa.Column("created_at", _TIME, nullable=False),
        sa.ForeignKeyConstraint(["case_id"], ["relabel_cases.id"], name=op.f("fk_relabel_decisions_case_id")),
        sa.ForeignKeyConstraint(
            ["label_id"], ["relabel_labels.id"], name=op.f("fk_relabel_decisions_label_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_relabel_decisions")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_relabel_decisions_case", "relabel_decisions", ["case_id", "id"])
    op.create_table(
        "relabel_comments",
        sa.Column("id", _ID, nullable=False),
        sa.Column("case_id", _ID, nullable=False),
        sa.Column("author", _NAME, nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.ForeignKeyConstraint(["case_id"], ["relabel_cases.id"], name=op.f("fk_relabel_comments_case_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_relabel_comments")),
    )
    op.create_index(op.f("ix_relabel_comments_case_id"), "relabel_comments", ["case_id"])


def _make_other_tables() -> None:
    op.create_table(
        "relabel_schemas",
        sa.Column("endpoint", _ENDPOINT, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("definition", sa.JSON(), nullable=False),
        sa.Column("from_file", sa.Boolean(), nullable=False),
        sa.Column("created_by", _NAME, nullable=True),
        sa.Column("created_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("endpoint", "version", name=op.f("pk_relabel_schemas")),
    )
    op.create_table(
        "relabel_cursors",
        sa.Column("endpoint", _ENDPOINT, nullable=False),
        sa.Column("source", sa.String(length=64), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=True),
        sa.Column("detail", sa.JSON(), nullable=True),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("endpoint", "source", name=op.f("pk_relabel_cursors")),
    )
    op.create_table(
        "relabel_pending",
        sa.Column("endpoint", _ENDPOINT, nullable=False),
        sa.Column("databricks_request_id", _ENDPOINT, nullable=False),
        sa.Column("rule", _ENDPOINT, nullable=False),
        sa.Column("request_time", _TIME, nullable=False),
        sa.Column("payload_version", sa.BigInteger(), nullable=True),
        sa.Column("give_up_at", _TIME, nullable=False),
        sa.Column("match", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("endpoint", "databricks_request_id", "rule", name=op.f("pk_relabel_pending")),
    )
    op.create_table(
        "relabel_rule_days",
        sa.Column("endpoint", _ENDPOINT, nullable=False),
        sa.Column("rule", _ENDPOINT, nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        *(
            sa.Column(name, sa.Integer(), nullable=False)
            for name in ("cases", "over_budget", "repeated", "over_cluster", "without_text")
        ),
        sa.PrimaryKeyConstraint("endpoint", "rule", "day", name=op.f("pk_relabel_rule_days")),
    )
    op.create_table(
        "relabel_vectors",
        sa.Column("case_id", _ID, nullable=False),
        sa.Column("endpoint", _ENDPOINT, nullable=False),
        sa.Column("space", _ENDPOINT, nullable=False),
        sa.Column("cluster", _ID, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["case_id"], ["relabel_cases.id"], name=op.f("fk_relabel_vectors_case_id")),
        sa.PrimaryKeyConstraint("case_id", name=op.f("pk_relabel_vectors")),
    )
    op.create_index("ix_relabel_vectors_recent", "relabel_vectors", ["endpoint", "space", "created_at"])
    op.create_table(
        "relabel_imports",
        sa.Column("tool", sa.String(length=32), nullable=False),
        sa.Column("external_id", _ENDPOINT, nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("label_id", _ID, nullable=False),
        sa.Column("imported_at", _TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["label_id"], ["relabel_labels.id"], name=op.f("fk_relabel_imports_label_id")
        ),
        sa.PrimaryKeyConstraint("tool", "external_id", name=op.f("pk_relabel_imports")),
    )
    op.create_table(
        "relabel_exports",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("created_by", _NAME, nullable=True),
        sa.Column("manifest", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_relabel_exports")),
    )
    op.create_index(op.f("ix_relabel_exports_created_at"), "relabel_exports", ["created_at"])


def _fill() -> None:
    for query in (
        "UPDATE relabel_cases SET started = true WHERE annotator IS NOT NULL",
        "UPDATE relabel_cases SET taken = 1, started = true WHERE state <> 'open'",
        "UPDATE relabel_cases SET labeled = 1, resolution = 'single' WHERE state = 'labeled'",
        "INSERT INTO relabel_claims (case_id, annotator, state, version, schema_version, is_adjudication, claimed_at,"
        " lease_expires_at, skip_reason)"
        " SELECT id, annotator,"
        " CASE state WHEN 'claimed' THEN 'held' WHEN 'open' THEN 'expired' ELSE state END,"
        " version, 0, false, updated_at, lease_expires_at, skip_reason"
        " FROM relabel_cases WHERE annotator IS NOT NULL",
        "INSERT INTO relabel_decisions (case_id, label_id, resolution, labels, agreement, created_at)"
        " SELECT relabel_cases.id, relabel_labels.id,"
        " CASE WHEN relabel_labels.id IS NULL THEN NULL ELSE 'single' END,"
        " CASE WHEN relabel_labels.id IS NULL THEN 0 ELSE 1 END,"
        " CASE WHEN relabel_labels.id IS NULL THEN NULL ELSE 1.0 END, relabel_cases.updated_at"
        " FROM relabel_cases LEFT JOIN relabel_labels ON relabel_labels.case_id = relabel_cases.id"
        " WHERE relabel_cases.state IN ('labeled', 'skipped')"
        " ORDER BY relabel_cases.updated_at, relabel_cases.id",
        "INSERT INTO relabel_cursors (endpoint, source, version, updated_at)"
        " SELECT endpoint, 'scores', scores_version, updated_at FROM relabel_selections",
    ):
        op.execute(query)
