"""What the console is given: every object it reads from or acts on, and its own description of the endpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from collector.catalog import Catalog
from dashboard.agreement_queries import EvaluatorAgreement
from evaluators.alerts.rule import AlertRule
from evaluators.drift.api import ReportQueue
from evaluators.runs.evaluation import Evaluation
from evaluators.runs.run_history import RunHistory
from experiments.api import ExperimentControl
from experiments.experiment import Experiment
from experiments.standing import Standing
from experiments.store import ExperimentStore
from relabel.queue.case_queue import CaseQueue
from relabel.schema_store import SchemaStore
from relabel.selection.rule import CaseRule
from servelens.clock import Clock
from servelens.database import Database


@dataclass(frozen=True, slots=True)
class EntitySummary:
    """A served entity as the pages name it; ``traffic_percentage`` is ``None`` without a route of its own."""

    name: str
    entity_version: str = ""
    traffic_percentage: float | None = None


@dataclass(frozen=True, slots=True)
class EndpointSummary:
    """An endpoint as the pages name it."""

    name: str
    entities: tuple[EntitySummary, ...] = ()


@dataclass(frozen=True, slots=True)
class ConsoleServices:
    """Everything that :func:`dashboard.app.create_console` needs.

    ``experiments`` are those that have started, live ones first, followed as they change.
    ``experiments_dir`` keeps what looks at experiments have read, from look to look.
    ``reports_dir`` holds Evidently reports as HTML files, in folders named by endpoint. ``proxy_url`` is the address
    that an empty page tells the reader to send traffic to. ``parse_evaluation`` makes one of a body in the shape of the
    settings file's block; without it there is no API for evaluations.
    ``refresh_s`` is how often a live page looks for new records. ``alert_rules`` and ``relabel_rules`` (by
    endpoint) are those of the settings. ``schemas`` are what annotators are asked; without it they are read from
    ``database``. ``evaluator_agreement`` measures evaluators against people; without it nothing is said of that.
    """

    catalog: Catalog
    database: Database
    experiments: Sequence[Standing]
    experiment_store: ExperimentStore
    experiment_control: ExperimentControl
    experiments_dir: Path
    queue: CaseQueue
    endpoints: Sequence[EndpointSummary]
    run_history: RunHistory
    reports_dir: Path
    clock: Clock
    alert_rules: Sequence[AlertRule] = ()
    proxy_url: str = "http://127.0.0.1:8080"
    refresh_s: float = 5.0
    parse_evaluation: Callable[[Mapping[str, Any]], Evaluation] | None = None
    allowed_hosts: Sequence[str] = field(default=("*",))
    drift_reports: ReportQueue | None = None
    schemas: SchemaStore | None = None
    evaluator_agreement: EvaluatorAgreement | None = None
    relabel_rules: Mapping[str, Sequence[CaseRule]] = field(default_factory=dict)

    def arms(self, endpoint: str) -> tuple[str, ...]:
        """The names that split an endpoint's traffic: variants of its live experiments, then other served entities."""
        names: dict[str, None] = {}
        answering: set[str] = set()
        for standing in self.experiments_on(endpoint):
            for variant in standing.experiment.variants if standing.is_live else ():
                names[variant.name] = None
                answering.add(variant.served_entity)
        for summary in self.endpoints:
            if summary.name == endpoint:
                for entity in summary.entities:
                    if entity.name not in answering:
                        names[entity.name] = None
        return tuple(names)

    def experiments_on(self, endpoint: str) -> list[Standing]:
        """The experiments of ``endpoint`` that have started: live ones in order of start, then the ended, the last first."""
        return [standing for standing in self.experiments if standing.experiment.endpoint == endpoint]

    def experiment(self, name: str | None, endpoint: str) -> Experiment | None:
        """The experiment of that name on ``endpoint``, else the endpoint's first, else ``None``."""
        here = [standing.experiment for standing in self.experiments_on(endpoint)]
        return next((experiment for experiment in here if experiment.name == name), here[0] if here else None)
