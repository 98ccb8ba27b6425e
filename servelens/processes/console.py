"""``servelens console``: the dashboard and its HTTP API."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import uvicorn

from dashboard.app import create_console
from dashboard.current_experiments import CurrentExperiments
from dashboard.services import ConsoleServices
from evaluators.drift.api import ReportQueue
from evaluators.drift.pair_report import PairReports
from evaluators.drift.report import ReportWriter
from evaluators.runs.run_history import RunHistory
from experiments.api import ExperimentControl
from experiments.decision_log import DecisionLog
from experiments.store import ExperimentStore
from relabel.queue.case_queue import CaseQueue
from servelens.assembly.alert_rules import build_rules
from servelens.assembly.database import build_database
from servelens.assembly.endpoint_store import open_endpoint_store
from servelens.assembly.endpoint_summaries import EndpointSummaries
from servelens.assembly.experiments import open_lifecycle
from servelens.assembly.label_schemas import open_schema_store
from servelens.assembly.requested_evaluation import requested_evaluation
from servelens.assembly.rollouts import ManualDecisions, build_controller
from servelens.assembly.tables import build_catalog
from servelens.clock import SystemClock
from servelens.control.experiment_requests import requested_experiment
from servelens.keys.console_access import ConsoleAccess
from servelens.keys.current import CurrentKeys
from servelens.keys.store import KeyStore
from servelens.processes.lifecycle import start
from servelens.settings import Settings
from servelens.settings_file import load_settings
from servelens.supervisor import unblock_sigterm
from serving_proxy.authentication import check_listen

_STOP_S = 5


def run(config: Path, *, supervised: bool) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    settings = load_settings(config)
    start("console", supervised=supervised)
    unblock_sigterm()
    clock = SystemClock()
    database = build_database(settings)
    try:
        endpoints = open_endpoint_store(settings, database, clock)
        keys = CurrentKeys(KeyStore(database, clock))
        check_listen(settings.console.host, keys(), "console.host")
        lifecycle = open_lifecycle(settings, database, clock)
        controller = build_controller(database, lifecycle, endpoints, clock)
        decisions = ManualDecisions(controller, DecisionLog(database, clock))
        catalog = build_catalog(settings, endpoints)
        schemas = open_schema_store(settings, database, clock)
        app = create_console(
            ConsoleServices(
                catalog=catalog,
                database=database,
                experiments=CurrentExperiments(lifecycle, clock),
                experiment_store=ExperimentStore(database, clock),
                experiment_control=ExperimentControl(
                    lifecycle=lifecycle,
                    parse=partial(requested_experiment, endpoints=endpoints),
                    promote=decisions.promote,
                    abort=decisions.abort,
                    decisions=decisions.history,
                ),
                experiments_dir=settings.experiments_dir,
                queue=CaseQueue(database, clock, lease_s=settings.relabel.lease_s),
                endpoints=EndpointSummaries(endpoints, clock),
                run_history=RunHistory(database, clock),
                reports_dir=settings.reports_dir,
                clock=clock,
                parse_evaluation=partial(requested_evaluation, catalog=catalog),
                alert_rules=build_rules(settings),
                proxy_url=_url(settings),
                schemas=schemas,
                drift_reports=ReportQueue(PairReports(catalog, ReportWriter(settings.reports_dir)), clock),
            )
        )
        uvicorn.run(
            ConsoleAccess(app, keys, clock),
            host=settings.console.host,
            port=settings.console.port,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=_STOP_S,
        )
    finally:
        database.dispose()
    return 0


def _url(settings: Settings) -> str:
    return f"http://{settings.proxy.host}:{settings.proxy.port}"
