"""What every page is handed: the services, and the queries over their tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from collector.catalog import UNROUTED
from dashboard.agreement_queries import AgreementQueries
from dashboard.drift_queries import DriftQueries
from dashboard.experiment_queries import ExperimentQueries
from dashboard.feedback_queries import FeedbackQueries
from dashboard.quality_queries import QualityQueries
from dashboard.queries import TableReader
from dashboard.reports import Reports
from dashboard.request_queries import RequestQueries
from dashboard.run_queries import RunQueries
from dashboard.services import ConsoleServices
from dashboard.traffic_queries import TrafficQueries
from dashboard.truth_queries import TruthQueries
from dashboard.view import View, Window, parse
from evaluators.alerts.overview import AlertOverview
from evaluators.alerts.silences import Silences
from relabel.agreement.kept import PeopleAgreements
from relabel.alternatives import Alternatives
from relabel.label_schema import LabelSchema
from relabel.regeneration import Regeneration
from relabel.schema_store import SchemaStore
from relabel.selection.manual import ManualSelection
from relabel.selection.rule_days import RuleDays


class Console:
    """What pages and the HTTP API of one console share: the queries, over one cache, and what they act through."""

    def __init__(self, services: ConsoleServices) -> None:
        self.services = services
        self.schemas = services.schemas or SchemaStore(services.database, services.clock)
        self.rule_days = RuleDays(services.database, services.clock, services.relabel_rules)
        self.manual = ManualSelection(services.catalog.tables, services.database, services.clock)
        self.alternatives = Alternatives(services.database, services.clock)
        self.regeneration = Regeneration(services.proxy_url)
        self.reader = TableReader(services.clock)
        self.traffic = TrafficQueries(services.catalog, self.reader)
        self.requests = RequestQueries(services.catalog, self.reader)
        self.feedback = FeedbackQueries(services.catalog, self.reader)
        self.experiments = ExperimentQueries(
            services.catalog,
            services.experiment_store,
            self.reader,
            services.clock,
            services.experiments_dir,
        )
        self.quality = QualityQueries(services.catalog, self.reader)
        self.drift = DriftQueries(services.catalog, self.reader)
        self.truths = TruthQueries(services.catalog, self.reader)
        self.runs = RunQueries(services.catalog, services.database, self.reader, services.clock)
        self.alerts = AlertOverview(services.database, services.clock)
        self.silences = Silences(services.database, services.clock)
        self.reports = Reports(services.reports_dir)
        self.agreement = AgreementQueries(
            PeopleAgreements(services.database, services.clock, self.schemas),
            services.evaluator_agreement,
        )

    def view(self, data: Mapping[str, Any] | None) -> View:
        """The view that a browser asks for; :data:`UNROUTED` may be looked at as well."""
        names = [endpoint.name for endpoint in self.services.endpoints]
        return parse(data, (*names, UNROUTED) if names else (), self.services.clock)

    def schema(self, endpoint: str, version: int | None = None) -> LabelSchema:
        """What annotators of an endpoint are asked, now or at a version. Raises :class:`~servelens.errors.Missing` when there
        is no such version.
        """
        return self.schemas.current(endpoint) if version is None else self.schemas.version(endpoint, version)

    def case_counts(self) -> Mapping[str, int]:
        """Cases of all endpoints by state."""
        totals: dict[str, int] = {}
        for states in self.services.queue.counts().values():
            for state, number in states.items():
                totals[str(state)] = totals.get(str(state), 0) + number
        return totals

    def unrouted(self, window: Window) -> int:
        """How many requests reached no endpoint in ``window``."""
        return self.traffic.count(UNROUTED, window)
