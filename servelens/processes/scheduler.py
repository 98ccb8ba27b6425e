"""``servelens scheduler``: evaluators, drift, experiment analysis, case selection and table maintenance, each on its
schedule.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection
from functools import cache, partial
from pathlib import Path
from typing import Final

from collector.catalog import Catalog
from collector.feedback_matching import FeedbackMatching
from evaluators.alerts.metrics import alert_metrics
from evaluators.alerts.overview import AlertOverview
from evaluators.runs.schedule import Job, Schedule
from experiments.analysis.analyzer import Analyzer
from experiments.bandit_controller import BanditController
from experiments.decision_log import DecisionLog
from experiments.runner import ExperimentRunner
from experiments.store import ExperimentStore
from relabel.selection.selector import Selector
from servelens.assembly.alerts import alert_jobs
from servelens.assembly.database import build_database
from servelens.assembly.drift import drift_jobs
from servelens.assembly.endpoint_store import build_endpoint_store, open_endpoint_store
from servelens.assembly.evaluation_jobs import follow_evaluations
from servelens.assembly.evaluations import open_evaluations, score_names
from servelens.assembly.experiments import open_lifecycle
from servelens.assembly.feedback import build_matching, matching_job
from servelens.assembly.ground_truth import ground_truth_jobs
from servelens.assembly.maintenance import build_forgetting, build_maintenance, forgotten_for
from servelens.assembly.rollouts import build_controller
from servelens.assembly.selection import selection_rules, suppression_of
from servelens.assembly.tables import build_catalog
from servelens.clock import Clock, SystemClock
from servelens.database import Database
from servelens.errors import Conflict
from servelens.leadership import Leadership
from servelens.lease import POLL_S, RENEW_S, TTL_S, Lease
from servelens.processes.lifecycle import start, stop_on_signals
from servelens.processes.scheduler_status import SchedulerStatus
from servelens.secret_references import Secrets
from servelens.settings import Settings
from servelens.settings_file import load_settings, secrets_of_environment
from servelens.status_server import StatusServer

logger = logging.getLogger(__name__)

LEASE: Final = "scheduler"


def run(config: Path, *, supervised: bool, once: bool) -> int:
    """Run until SIGTERM or Ctrl-C; with ``once`` run every job now and exit, 1 when one of them failed.

    One scheduler of a database leads; the others stand by until it stops, or its lease runs out.
    """
    settings = load_settings(config)
    start("scheduler", supervised=supervised)
    stop = stop_on_signals()
    database = build_database(settings)
    try:
        clock = SystemClock()
        catalog = build_catalog(settings, open_endpoint_store(settings, database, clock))
        open_evaluations(settings, catalog, database, clock)
        lease = Lease(database, LEASE)
        if once:
            return _once(settings, catalog, database, clock, stop, lease)
        leadership = Leadership(lease)
        status = SchedulerStatus(leadership)
        lead = partial(_lead, settings, catalog, database, clock, lease, status)
        address = settings.scheduler
        overview = AlertOverview(database, clock)
        with StatusServer(
            address.host, address.port, status.ready, lambda: [*status.metrics(), *alert_metrics(overview)]
        ):
            leadership.run(lead, stop)
    finally:
        database.dispose()
    return 0


def _lead(
    settings: Settings,
    catalog: Catalog,
    database: Database,
    clock: Clock,
    lease: Lease,
    status: SchedulerStatus,
    enough: threading.Event,
) -> None:
    """One term."""
    evaluations = follow_evaluations(settings, catalog, database, clock, enough, lease.check, _secrets())
    matching = build_matching(settings, catalog, clock)
    schedule = Schedule(build_jobs(settings, catalog, database, clock, enough, matching))
    status.schedule, status.evaluations, status.matching = schedule, evaluations, matching
    schedule.start()
    try:
        evaluations.follow(schedule)
        enough.wait()
    finally:
        enough.set()
        evaluations.close(schedule.stop)
        status.schedule = status.evaluations = status.matching = None


def _once(
    settings: Settings,
    catalog: Catalog,
    database: Database,
    clock: Clock,
    stop: threading.Event,
    lease: Lease,
) -> int:
    until = clock.monotonic() + TTL_S + RENEW_S
    while not lease.acquire():  # the leader may have been killed just now
        if clock.monotonic() > until:
            raise Conflict(
                f"another scheduler leads: {lease.holder_now()}",
                fix="It runs the jobs; stop it to run them here.",
            )
        if stop.wait(POLL_S):
            return 0
    with lease.held():
        evaluations = follow_evaluations(settings, catalog, database, clock, stop, lease.check, _secrets())
        schedule = Schedule([*evaluations.jobs(), *build_jobs(settings, catalog, database, clock, stop)])
        results = schedule.run_once()
        evaluations.close(schedule.stop)
    for result in results:
        logger.info("%s: %s", result.name, result.error or result.value)
    return 1 if any(result.error for result in results) else 0


def _secrets() -> Secrets:
    return Secrets(secrets_of_environment(), "scheduler")


def build_jobs(
    settings: Settings,
    catalog: Catalog,
    database: Database,
    clock: Clock,
    stop: threading.Event,
    matching: FeedbackMatching | None = None,
) -> list[Job]:
    """Every job but the evaluations, in the order in which its data flows: feedback, truth, cases, experiments, drift,
    alerts; then the tables' upkeep. ``matching`` is the one whose counts somebody reads.
    """
    known = score_names(settings, database, clock)
    return [
        matching_job(settings, matching or build_matching(settings, catalog, clock), stop),
        *ground_truth_jobs(settings, catalog, database, clock, stop),
        *_selections(settings, catalog, database, clock, known),
        *_experiments(settings, catalog, database, clock, stop),
        *drift_jobs(settings, catalog, database, clock),
        *alert_jobs(settings, catalog, database, clock, stop, known),
        *_maintenance(settings, catalog, database, clock, stop),
    ]


def _selections(
    settings: Settings, catalog: Catalog, database: Database, clock: Clock, known: Collection[str]
) -> list[Job]:
    jobs = []
    for endpoint, rules in selection_rules(settings, known).items():
        selector = Selector(
            catalog.tables(endpoint),
            endpoint,
            rules,
            database,
            clock,
            suppression=suppression_of(settings, endpoint),
        )
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
