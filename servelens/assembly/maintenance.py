"""Table maintenance and forgetting, from the settings and the endpoints of the database."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from functools import partial

from collector.catalog import UNROUTED, Catalog
from collector.forget import Forgetting
from collector.forgotten import ForgottenRecords
from collector.maintenance import MaintainedEndpoint, Maintenance, Rules
from relabel.forget import forget_records, records_of
from servelens.clock import Clock
from servelens.control.store import EndpointStore
from servelens.control.stored_endpoint import StoredEndpoint
from servelens.database import Database
from servelens.errors import InvalidSettings
from servelens.settings import Settings

logger = logging.getLogger(__name__)


def build_maintenance(
    settings: Settings, store: EndpointStore, catalog: Catalog, clock: Clock
) -> Maintenance:
    """Upkeep of the tables of every endpoint that there is at each run, deleted ones included."""
    return Maintenance(_endpoints(settings, store, catalog), clock, build_rules(settings))


def build_rules(settings: Settings) -> Rules:
    """The rules of compaction and history."""
    rules = settings.maintenance
    return Rules(rules.compact_min_files, rules.target_file_bytes, rules.history_hours)


def build_forgetting(database: Database, clock: Clock) -> Forgetting:
    """Forgets in the tables and in the queue of cases."""
    return Forgetting(
        ForgottenRecords(database, clock),
        clock,
        partial(forget_records, database),
        partial(records_of, database),
    )


def forgotten_for(settings: Settings) -> timedelta:
    """How long something may still write about a forgotten record: as long as an older version can be read, and what
    an evaluation under way takes.
    """
    return timedelta(hours=settings.maintenance.history_hours + 24)


def _endpoints(
    settings: Settings, store: EndpointStore, catalog: Catalog
) -> Callable[[], list[MaintainedEndpoint]]:
    def endpoints() -> list[MaintainedEndpoint]:
        _, stored = store.state(deleted=True)
        unrouted = MaintainedEndpoint(
            UNROUTED, catalog.tables(UNROUTED), settings.maintenance.unrouted_retention_days
        )
        return [
            *(MaintainedEndpoint(each.name, catalog.tables(each.name), _retention(each)) for each in stored),
            unrouted,
        ]

    return endpoints


def _retention(endpoint: StoredEndpoint) -> int | None:
    try:
        return endpoint.parsed().ai_gateway.inference_table_config.retention_days
    except InvalidSettings as error:
        logger.warning("nothing of endpoint '%s' is deleted: %s", endpoint.name, error)
        return None
