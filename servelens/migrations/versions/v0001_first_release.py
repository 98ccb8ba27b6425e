"""The tables of the first release: evaluation runs, experiments, the relabeling queue.

That release made them without a version. They are taken as they are, and made where they are missing: which of them a
database has depends on the processes that had been started.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

# SQLite numbers rows by itself only in a column declared INTEGER.
_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make what is missing."""
    op.create_table(
        "evaluation_runs",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("evaluator", sa.String(), nullable=False),
        sa.Column("target", sa.String(), nullable=True),
        sa.Column("device", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("duration_s", sa.Double(), nullable=True),
        sa.Column("from_version", sa.Integer(), nullable=True),
        sa.Column("to_version", sa.Integer(), nullable=True),
        sa.Column("scored", sa.Integer(), nullable=False),
        sa.Column("unscored", sa.Integer(), nullable=False),
        sa.Column("unscored_reasons", sa.JSON(), nullable=False),
        sa.Column("error", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_evaluation_runs")),
        if_not_exists=True,
    )
    op.create_index(
        "ix_evaluation_runs_endpoint_evaluator",
        "evaluation_runs",
        ["endpoint", "evaluator", "started_at"],
        if_not_exists=True,
    )
    op.create_table(
        "experiments",
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("endpoint", sa.String(length=200), nullable=False),
        sa.Column("definition", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("stopped_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_experiments")),
        if_not_exists=True,
    )
    op.create_index(op.f("ix_experiments_endpoint"), "experiments", ["endpoint"], if_not_exists=True)
    op.create_table(
        "relabel_cases",
        sa.Column("id", _ID, nullable=False),
        sa.Column("endpoint", sa.String(length=255), nullable=False),
        sa.Column("databricks_request_id", sa.String(length=255), nullable=False),
        sa.Column("content_hash", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("occurrences", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("annotator", sa.String(length=200), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("served_entity", sa.Text(), nullable=True),
        sa.Column("variant", sa.Text(), nullable=True),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("request_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("skip_reason", sa.Text(), nullable=True),
        sa.Column("messages", sa.JSON(), nullable=False),
        sa.Column("answered", sa.Boolean(), nullable=False),
        sa.Column("tools", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("scores", sa.JSON(), nullable=False),
        sa.Column("prompt_text", sa.Text(), nullable=True),
        sa.Column("response_text", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_relabel_cases")),
        sa.UniqueConstraint("endpoint", "content_hash", name=op.f("uq_relabel_cases_endpoint_content_hash")),
        sa.UniqueConstraint(
            "endpoint", "databricks_request_id", name=op.f("uq_relabel_cases_endpoint_databricks_request_id")
        ),
        if_not_exists=True,
    )
    op.create_index(
        "ix_relabel_cases_endpoint_queue",
        "relabel_cases",
        ["endpoint", "state", sa.literal_column("priority DESC"), "id"],
        if_not_exists=True,
    )
    op.create_index("ix_relabel_cases_holder", "relabel_cases", ["annotator", "state"], if_not_exists=True)
    op.create_index(
        "ix_relabel_cases_lease", "relabel_cases", ["state", "lease_expires_at"], if_not_exists=True
    )
    op.create_index(
        "ix_relabel_cases_order",
        "relabel_cases",
        [sa.literal_column("priority DESC"), "id"],
        if_not_exists=True,
    )
    op.create_index(
        "ix_relabel_cases_queue",
        "relabel_cases",
        ["state", sa.literal_column("priority DESC"), "id"],
        if_not_exists=True,
    )
    op.create_table(
        "relabel_selections",
        sa.Column("endpoint", sa.String(length=255), nullable=False),
        sa.Column("scores_version", sa.BigInteger(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("endpoint", name=op.f("pk_relabel_selections")),
        if_not_exists=True,
    )
    op.create_table(
        "experiment_analyses",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("experiment", sa.String(length=200), nullable=False),
        sa.Column("as_of", sa.DateTime(timezone=True), nullable=False),
        sa.Column("payload_version", sa.Integer(), nullable=True),
        sa.Column("scores_version", sa.Integer(), nullable=True),
        sa.Column("report", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["experiment"], ["experiments.name"], name=op.f("fk_experiment_analyses_experiment")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_experiment_analyses")),
        if_not_exists=True,
    )
    op.create_index(
        "experiment_analyses_latest", "experiment_analyses", ["experiment", "id"], if_not_exists=True
    )
    op.create_table(
        "experiment_constants",
        sa.Column("experiment", sa.String(length=200), nullable=False),
        sa.Column("metric", sa.String(length=300), nullable=False),
        sa.Column("treatment", sa.String(length=200), nullable=False),
        sa.Column("kappa", sa.Double(), nullable=False),
        sa.Column("frozen_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["experiment"], ["experiments.name"], name=op.f("fk_experiment_constants_experiment")
        ),
        sa.PrimaryKeyConstraint("experiment", "metric", "treatment", name=op.f("pk_experiment_constants")),
        if_not_exists=True,
    )
    op.create_table(
        "experiment_phases",
        sa.Column("experiment", sa.String(length=200), nullable=False),
        sa.Column("phase", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("weights", sa.JSON(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["experiment"], ["experiments.name"], name=op.f("fk_experiment_phases_experiment")
        ),
        sa.PrimaryKeyConstraint("experiment", "phase", name=op.f("pk_experiment_phases")),
        if_not_exists=True,
    )
    op.create_table(
        "experiment_running",
        sa.Column("experiment", sa.String(length=200), nullable=False),
        sa.Column("metric", sa.String(length=300), nullable=False),
        sa.Column("treatment", sa.String(length=200), nullable=False),
        sa.Column("p_value", sa.Double(), nullable=False),
        sa.Column("difference", sa.Double(), nullable=False),
        sa.Column("reached_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["experiment"], ["experiments.name"], name=op.f("fk_experiment_running_experiment")
        ),
        sa.PrimaryKeyConstraint("experiment", "metric", "treatment", name=op.f("pk_experiment_running")),
        if_not_exists=True,
    )
    op.create_table(
        "relabel_history",
        sa.Column("id", _ID, nullable=False),
        sa.Column("case_id", _ID, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("from_state", sa.String(length=16), nullable=True),
        sa.Column("to_state", sa.String(length=16), nullable=False),
        sa.Column("actor", sa.String(length=200), nullable=False),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["case_id"], ["relabel_cases.id"], name=op.f("fk_relabel_history_case_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_relabel_history")),
        if_not_exists=True,
    )
    op.create_index(op.f("ix_relabel_history_case_id"), "relabel_history", ["case_id"], if_not_exists=True)
    op.create_table(
        "relabel_labels",
        sa.Column("id", _ID, nullable=False),
        sa.Column("case_id", _ID, nullable=False),
        sa.Column("annotator", sa.String(length=200), nullable=False),
        sa.Column("rating", sa.String(length=16), nullable=False),
        sa.Column("corrected_answer", sa.Text(), nullable=True),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("comment", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["case_id"], ["relabel_cases.id"], name=op.f("fk_relabel_labels_case_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_relabel_labels")),
        sa.UniqueConstraint("case_id", "annotator", name=op.f("uq_relabel_labels_case_id_annotator")),
        if_not_exists=True,
    )
    op.create_table(
        "relabel_occurrences",
        sa.Column("endpoint", sa.String(length=255), nullable=False),
        sa.Column("databricks_request_id", sa.String(length=255), nullable=False),
        sa.Column("case_id", _ID, nullable=False),
        sa.Column("request_time", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["case_id"], ["relabel_cases.id"], name=op.f("fk_relabel_occurrences_case_id")
        ),
        sa.PrimaryKeyConstraint("endpoint", "databricks_request_id", name=op.f("pk_relabel_occurrences")),
        if_not_exists=True,
    )
    op.create_index(
        op.f("ix_relabel_occurrences_case_id"), "relabel_occurrences", ["case_id"], if_not_exists=True
    )
    op.create_table(
        "relabel_reasons",
        sa.Column("id", _ID, nullable=False),
        sa.Column("case_id", _ID, nullable=False),
        sa.Column("evaluator", sa.String(length=255), nullable=False),
        sa.Column("target", sa.String(length=32), nullable=False),
        sa.Column("direction", sa.String(length=8), nullable=False),
        sa.Column("threshold", sa.Float(), nullable=False),
        sa.Column("score", sa.Float(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["case_id"], ["relabel_cases.id"], name=op.f("fk_relabel_reasons_case_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_relabel_reasons")),
        sa.UniqueConstraint(
            "case_id",
            "evaluator",
            "target",
            "direction",
            name=op.f("uq_relabel_reasons_case_id_evaluator_target_direction"),
        ),
        if_not_exists=True,
    )
