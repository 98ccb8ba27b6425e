"""Where alerts stand, their incidents, what is to be told of them, and silences."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "alert_silences",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("rule", sa.String(length=200), nullable=True),
        sa.Column("endpoint", sa.String(length=200), nullable=True),
        sa.Column("slice", sa.String(length=255), nullable=True),
        sa.Column("starts_at", _TIME, nullable=False),
        sa.Column("ends_at", _TIME, nullable=False),
        sa.Column("author", sa.String(length=255), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("ended_by", sa.String(length=255), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alert_silences")),
    )
    op.create_index(op.f("ix_alert_silences_starts_at"), "alert_silences", ["starts_at"])
    op.create_table(
        "alert_incidents",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=36), nullable=False),
        sa.Column("rule", sa.String(length=200), nullable=False),
        sa.Column("slice", sa.String(length=255), nullable=False),
        sa.Column("endpoint", sa.String(length=200), nullable=False),
        sa.Column("severity", sa.String(length=20), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("channels", sa.JSON(), nullable=False),
        sa.Column("remind_s", sa.Double(), nullable=True),
        sa.Column("breached_at", _TIME, nullable=False),
        sa.Column("fired_at", _TIME, nullable=False),
        sa.Column("announced_at", _TIME, nullable=True),
        sa.Column("reminded_at", _TIME, nullable=True),
        sa.Column("reminders", sa.Integer(), nullable=False),
        sa.Column("silence_id", sa.Integer(), nullable=True),
        sa.Column("resolved_at", _TIME, nullable=True),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("reference", sa.Double(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("resolution", sa.Text(), nullable=True),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.Column("examples", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["silence_id"], ["alert_silences.id"], name=op.f("fk_alert_incidents_silence_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alert_incidents")),
        sa.UniqueConstraint("key", name=op.f("uq_alert_incidents_key")),
    )
    op.create_index("alert_incidents_open", "alert_incidents", ["resolved_at", "id"])
    op.create_index("alert_incidents_of_rule", "alert_incidents", ["rule", "slice", "id"])
    op.create_table(
        "alert_states",
        sa.Column("rule", sa.String(length=200), nullable=False),
        sa.Column("slice", sa.String(length=255), nullable=False),
        sa.Column("endpoint", sa.String(length=200), nullable=False),
        sa.Column("severity", sa.String(length=20), nullable=False),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("since", _TIME, nullable=False),
        sa.Column("breached_since", _TIME, nullable=True),
        sa.Column("clear_since", _TIME, nullable=True),
        sa.Column("data_at", _TIME, nullable=True),
        sa.Column("evaluated_at", _TIME, nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("reference", sa.Double(), nullable=True),
        sa.Column("samples", sa.Integer(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.Column("incident_id", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["incident_id"], ["alert_incidents.id"], name=op.f("fk_alert_states_incident_id")
        ),
        sa.PrimaryKeyConstraint("rule", "slice", name=op.f("pk_alert_states")),
    )
    op.create_table(
        "alert_deliveries",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("incident_id", sa.Integer(), nullable=False),
        sa.Column("channel", sa.String(length=200), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("next_at", _TIME, nullable=False),
        sa.Column("finished_at", _TIME, nullable=True),
        sa.Column("http_status", sa.Integer(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.Column("attempts_log", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["incident_id"], ["alert_incidents.id"], name=op.f("fk_alert_deliveries_incident_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alert_deliveries")),
        sa.UniqueConstraint(
            "incident_id",
            "channel",
            "kind",
            "number",
            name=op.f("uq_alert_deliveries_incident_id_channel_kind_number"),
        ),
    )
    op.create_index("alert_deliveries_waiting", "alert_deliveries", ["status", "channel", "id"])
