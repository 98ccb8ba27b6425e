"""SQL tables of the experiments: definitions, phases, frozen constants, running p-values, analyses, and the decisions
made.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from servelens.database import Base, UtcDateTime

_NAME = String(200)
_METRIC = String(300)


class ExperimentRow(Base):
    """One experiment; ``definition`` is the newest phase's, everything but weights, share and phase never
    changes.
    """

    __tablename__ = "experiments"

    name: Mapped[str] = mapped_column(_NAME, primary_key=True)
    endpoint: Mapped[str] = mapped_column(_NAME, index=True)
    definition: Mapped[dict[str, Any]] = mapped_column(JSON)
    state: Mapped[str] = mapped_column(String(20))
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    stopped_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class PhaseRow(Base):
    """The weights of one phase, in percent by variant."""

    __tablename__ = "experiment_phases"

    experiment: Mapped[str] = mapped_column(ForeignKey("experiments.name"), primary_key=True)
    phase: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    weights: Mapped[dict[str, float]] = mapped_column(JSON)
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ConstantRow(Base):
    """κ of the always-valid boundary, frozen once for each metric and treatment."""

    __tablename__ = "experiment_constants"

    experiment: Mapped[str] = mapped_column(ForeignKey("experiments.name"), primary_key=True)
    metric: Mapped[str] = mapped_column(_METRIC, primary_key=True)
    treatment: Mapped[str] = mapped_column(_NAME, primary_key=True)
    kappa: Mapped[float]
    frozen_at: Mapped[datetime] = mapped_column(UtcDateTime)


class RunningRow(Base):
    """The smallest always-valid p-value so far, with the difference and the time at which it was reached."""

    __tablename__ = "experiment_running"

    experiment: Mapped[str] = mapped_column(ForeignKey("experiments.name"), primary_key=True)
    metric: Mapped[str] = mapped_column(_METRIC, primary_key=True)
    treatment: Mapped[str] = mapped_column(_NAME, primary_key=True)
    p_value: Mapped[float]
    difference: Mapped[float]
    reached_at: Mapped[datetime] = mapped_column(UtcDateTime)


class AnalysisRow(Base):
    """One analysis, with the table versions that it rests on."""

    __tablename__ = "experiment_analyses"
    __table_args__ = (Index("experiment_analyses_latest", "experiment", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    experiment: Mapped[str] = mapped_column(ForeignKey("experiments.name"))
    as_of: Mapped[datetime] = mapped_column(UtcDateTime)
    payload_version: Mapped[int | None]
    scores_version: Mapped[int | None]
    report: Mapped[dict[str, Any]] = mapped_column(JSON)


class LookRow(Base):
    """One look of a group-sequential design: the information fraction, what was seen, and the boundary then."""

    __tablename__ = "experiment_looks"

    experiment: Mapped[str] = mapped_column(ForeignKey("experiments.name"), primary_key=True)
    metric: Mapped[str] = mapped_column(_METRIC, primary_key=True)
    treatment: Mapped[str] = mapped_column(_NAME, primary_key=True)
    look: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    fraction: Mapped[float]
    z: Mapped[float]
    boundary: Mapped[float]
    seen_at: Mapped[datetime] = mapped_column(UtcDateTime)


class LifecycleRow(Base):
    """Where an experiment stands: who defined it, how it ended, and a canary's step.

    ``file_digest`` is of the block in the settings file that was applied last; ``revision`` counts changes, so
    that two people who change it at once notice.
    """

    __tablename__ = "experiment_lifecycles"

    experiment: Mapped[str] = mapped_column(ForeignKey("experiments.name"), primary_key=True)
    source: Mapped[str] = mapped_column(String(8))
    file_digest: Mapped[str | None] = mapped_column(String(64))
    outcome: Mapped[str | None] = mapped_column(String(20))
    reason: Mapped[str | None] = mapped_column(Text)
    step: Mapped[int]
    step_started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    revision: Mapped[int]
    changed_by: Mapped[str] = mapped_column(String(255))
    changed_at: Mapped[datetime] = mapped_column(UtcDateTime)


class DecisionRow(Base):
    """One decision about an experiment, by the controller or a person, with the numbers that it rests on."""

    __tablename__ = "experiment_decisions"
    __table_args__ = (Index("experiment_decisions_latest", "experiment", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    experiment: Mapped[str] = mapped_column(ForeignKey("experiments.name"))
    decided_at: Mapped[datetime] = mapped_column(UtcDateTime)
    decision: Mapped[str] = mapped_column(String(20))
    by: Mapped[str] = mapped_column(String(255))
    step: Mapped[int]
    phase: Mapped[int]
    dry_run: Mapped[bool]
    applied: Mapped[bool]
    reason: Mapped[str] = mapped_column(Text)
    evidence: Mapped[dict[str, Any]] = mapped_column(JSON)


class GenerationRow(Base):
    """One row: the number of the last change of what proxies assign by. Its lock puts changes in an order."""

    __tablename__ = "experiment_generation"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    value: Mapped[int]
