"""``servelens scheduler``: evaluators, drift, experiment analysis, case selection and table maintenance, each on its
schedule.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from collector.catalog import Catalog
from evaluators.alerts.metrics import alert_metrics
from evaluators.alerts.overview import AlertOverview
from evaluators.runs.schedule import Job, Schedule
from experiments.analysis.analyzer import Analyzer
from experiments.bandit_controller import BanditController
from experiments.decision_log import DecisionLog
from experiments.runner import ExperimentRunner
from experiments.store import ExperimentStore
from relabel.selection import Rule, Selector
from servelens.assembly.alerts import alert_jobs
from servelens.assembly.database import build_database
from servelens.assembly.drift import drift_jobs
from servelens.assembly.endpoint_store import build_endpoint_store, open_endpoint_store
from servelens.assembly.evaluations import evaluation_jobs
from servelens.assembly.experiments import open_lifecycle
from servelens.assembly.maintenance import build_forgetting, build_maintenance, forgotten_for
from servelens.assembly.rollouts import build_controller
from servelens.assembly.tables import build_catalog
from servelens.clock import Clock, SystemClock
from servelens.database import Database
from servelens.processes.lifecycle import start, stop_on_signals
from servelens.settings import Settings
from servelens.settings_file import load_settings
from servelens.status_server import StatusServer

logger = logging.getLogger(__name__)


def run(config: Path, *, supervised: bool, once: bool) -> int:
    """Run until SIGTERM or Ctrl-C; with ``once`` run every job now and exit, 1 when one of them failed."""
    settings = load_settings(config)
    start("scheduler", supervised=supervised)
    stop = stop_on_signals()
    database = build_database(settings)
    try:
        clock = SystemClock()
        catalog = build_catalog(settings, open_endpoint_store(settings, database, clock))
        schedule = Schedule(build_jobs(settings, catalog, database, clock, stop))
        if once:
            results = schedule.run_once()
            for result in results:
                logger.info("%s: %s", result.name, result.error or result.value)
            return 1 if any(result.error for result in results) else 0
        address = settings.scheduler
        overview = AlertOverview(database, clock)
        with StatusServer(
            address.host,
            address.port,
            lambda: ready(schedule),
            lambda: [*metrics(schedule), *alert_metrics(overview)],
        ):
            schedule.run_forever(stop)
    finally:
        database.dispose()
    return 0


def ready(schedule: Schedule) -> tuple[bool, Mapping[str, Any]]:
    """Ready while it runs; jobs that failed last time are named in the detail and run again when they are due."""
    failing = {status.name: status.last_error for status in schedule.status() if status.last_error}
    return True, {"status": "degraded" if failing else "ok", "failing": failing}


def metrics(schedule: Schedule) -> Iterable[Metric]:
    """Runs, failures and the end of the last run, by job."""
    runs = CounterMetricFamily("servelens_job_runs", "Runs of a job.", labels=["job"])
    failures = CounterMetricFamily("servelens_job_failures", "Runs that failed.", labels=["job"])
    finished = GaugeMetricFamily(
        "servelens_job_last_finished_timestamp_seconds", "End of the last run.", labels=["job"]
    )
    for status in schedule.status():
        runs.add_metric([status.name], status.runs)
        failures.add_metric([status.name], status.failures)
        if status.last_finished is not None:
            finished.add_metric([status.name], status.last_finished.timestamp())
    return [runs, failures, finished]


def build_jobs(
    settings: Settings, catalog: Catalog, database: Database, clock: Clock, stop: threading.Event
) -> list[Job]:
    """Every job, in the order in which its data flows: scores, cases, experiments, drift, alerts; then the tables' upkeep."""
    return [
        *evaluation_jobs(settings, catalog, database, clock, stop),
        *_selections(settings, catalog, database, clock),
        *_experiments(settings, catalog, database, clock, stop),
        *drift_jobs(settings, catalog, database, clock),
        *alert_jobs(settings, catalog, database, clock, stop),
        *_maintenance(settings, catalog, database, clock, stop),
    ]


def _selections(settings: Settings, catalog: Catalog, database: Database, clock: Clock) -> list[Job]:
    jobs = []
    for endpoint in dict.fromkeys(rule.endpoint for rule in settings.relabel.rules):
        rules = [
            Rule(rule.evaluator, rule.target, rule.above, rule.below, rule.priority)
            for rule in settings.relabel.rules
            if rule.endpoint == endpoint
        ]
        selector = Selector(catalog.tables(endpoint), endpoint, rules, database, clock)
        jobs.append(Job(f"select cases {endpoint}", settings.relabel.every_s, selector.run))
    return jobs


def _experiments(
    settings: Settings, catalog: Catalog, database: Database, clock: Clock, stop: threading.Event
) -> list[Job]:
    store = ExperimentStore(database, clock)
    lifecycle = open_lifecycle(settings, database, clock)
    endpoints = build_endpoint_store(settings, database, clock)
    folder = settings.experiments_dir
    runner = ExperimentRunner(
        lifecycle,
        store,
        cache(lambda endpoint: Analyzer(catalog.tables(endpoint), store, clock, folder)),
        build_controller(database, lifecycle, endpoints, clock),
        BanditController(lifecycle, DecisionLog(database, clock), clock),
        clock,
    )
    # Always there: experiments are started by API as well.
    return [Job("look at experiments", settings.experiments_every_s, partial(runner.run, stop))]


def _maintenance(
    settings: Settings, catalog: Catalog, database: Database, clock: Clock, stop: threading.Event
) -> list[Job]:
    rules = settings.maintenance
    maintenance = build_maintenance(settings, build_endpoint_store(settings, database, clock), catalog, clock)
    forgetting = build_forgetting(database, clock)
    sweep = partial(forgetting.sweep, catalog.tables, keep=forgotten_for(settings))
    # What deletes rows stands in each other's way, and in nobody else's. A person's request is kept whoever maintains.
    jobs = [Job("sweep forgotten records", rules.every_s, sweep, group="maintenance")]
    if rules.enabled:
        jobs.append(
            Job("maintain tables", rules.every_s, partial(maintenance.run, stop), group="maintenance")
        )
    return jobs
