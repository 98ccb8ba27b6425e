"""``servelens collector``: the spool into the inference tables."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from collector.dead_letter import DeadLetter
from collector.ingest import Collector
from collector.ingest_status import IngestStatus
from collector.record import UNROUTED
from servelens.assembly.database import build_database
from servelens.assembly.endpoint_store import build_endpoint_store, open_endpoint_store
from servelens.assembly.tables import build_catalog
from servelens.clock import Clock, SystemClock
from servelens.control.store import EndpointStore
from servelens.database import Database
from servelens.errors import Unavailable
from servelens.processes.lifecycle import start, stop_on_signals
from servelens.settings import Settings
from servelens.settings_file import load_settings
from servelens.status_server import StatusServer

logger = logging.getLogger(__name__)


def run(config: Path, *, supervised: bool, clock: Clock | None = None) -> int:
    """Run until SIGTERM or Ctrl-C, then drain what is in the spool."""
    settings = load_settings(config)
    start("collector", supervised=supervised)
    suit_memory_to_batches()
    stop = stop_on_signals()
    database = build_database(settings)
    endpoints = _endpoints(settings, database)
    tables = build_catalog(settings, endpoints)
    tables.tables(UNROUTED).payload.check()
    collector = Collector(
        settings.spool_directory,
        tables,
        DeadLetter(settings.dead_letter_directory, clock),
        commit_interval_s=settings.collector.commit_interval_s,
        max_rows=settings.collector.max_rows,
        clock=clock,
    )
    address = settings.collector
    try:
        with (
            _other_ways_in(settings, database, endpoints, stop) as intake,
            StatusServer(
                address.host,
                address.port,
                lambda: _with_intake(ready(collector.status), intake.health()),
                lambda: [*metrics(collector.status), *intake.metrics()],
            ),
        ):
            collector.run(intake.ended)
    finally:
        database.dispose()
    return 0


class _Intake(NamedTuple):
    """``ended`` is set when nothing more will come, so that the spools can be drained."""

    ended: threading.Event
    health: Callable[[], tuple[bool, Mapping[str, Any]] | None] = lambda: None
    metrics: Callable[[], Iterable[Metric]] = tuple


@contextmanager
def _other_ways_in(
    settings: Settings, database: Database, endpoints: EndpointStore, stop: threading.Event
) -> Iterator[_Intake]:
    """CloudEvents and traces, while the block runs, when they are switched on. Raises what ended them, if they were not
    told to end.
    """
    if not settings.collector.intake.enabled:
        yield _Intake(stop)
        return
    # Here, since a collector without it needs no HTTP server.
    from servelens.assembly.intake import build_intake
    from servelens.processes.intake_metrics import intake_metrics

    server = build_intake(settings, database, endpoints, SystemClock(), stop)
    try:
        server.start(stop)
        yield _Intake(server.ended, lambda: server.health, lambda: intake_metrics(server.counts))
    finally:
        stop.set()
        server.close()
    if not server.ended_well:
        raise Unavailable("the other ways in have ended by themselves; the log says why")


def _with_intake(
    found: tuple[bool, Mapping[str, Any]], intake: tuple[bool, Mapping[str, Any]] | None
) -> tuple[bool, Mapping[str, Any]]:
    if intake is None:
        return found
    is_ready = found[0] and intake[0]
    return is_ready, {**found[1], "status": "ok" if is_ready else "degraded", "intake": intake[1]}


def _endpoints(settings: Settings, database: Database) -> EndpointStore:
    """The endpoints, also while the database is away: spools wait then for the first record of each endpoint."""
    clock = SystemClock()
    try:
        return open_endpoint_store(settings, database, clock)
    except Unavailable as error:
        logger.warning("the database is away, so the tables of endpoints are not known yet: %s", error)
        return build_endpoint_store(settings, database, clock)


def suit_memory_to_batches() -> None:
    """Settings of this process for records that come and go by the ten thousand.

    They hold no cycles, and looking for some among them took a fifth of the CPU. The C library's allocator gives the
    columns' memory back soonest: the peak is a seventh lower than with Arrow's own.
    """
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)
    pa.set_memory_pool(pa.system_memory_pool())


def ready(status: IngestStatus) -> tuple[bool, Mapping[str, Any]]:
    """Ready while every table takes commits and every spool is read; the detail says what does not."""
    return status.healthy, {
        "status": "ok" if status.healthy else "degraded",
        "lag_s": round(status.lag_s, 3),
        "backlog_bytes": status.backlog_bytes,
        "failing": dict(status.failing),
        "halted": dict(status.halted),
    }


def metrics(status: IngestStatus) -> Iterable[Metric]:
    """With the proxy's accepted and dropped records, ``settled`` closes the books: accepted = settled + dropped + spool."""
    yield CounterMetricFamily(
        "servelens_records_settled",
        "Records in a table or the dead letter, over the lives of the spools that there are.",
        value=status.settled,
    )
    yield CounterMetricFamily(
        "servelens_records_dropped",
        "Records that the writers refused or lost, over the lives of the spools that there are.",
        value=status.dropped,
    )
    yield CounterMetricFamily(
        "servelens_records_committed", "Records committed since the start.", value=status.in_table
    )
    yield CounterMetricFamily(
        "servelens_records_dead_lettered", "Records that could not be read.", value=status.dead_lettered
    )
    yield GaugeMetricFamily(
        "servelens_spool_backlog_bytes", "Spool not read yet.", value=status.backlog_bytes
    )
    yield GaugeMetricFamily(
        "servelens_collector_lag_seconds", "Age of the oldest answer not in its table.", value=status.lag_s
    )
    yield GaugeMetricFamily(
        "servelens_tables_failing", "Tables that do not take commits now.", value=len(status.failing)
    )
    yield GaugeMetricFamily("servelens_spools_halted", "Spools not read any more.", value=len(status.halted))
