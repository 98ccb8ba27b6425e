"""``servelens forget``: everything that is kept of one person leaves, what is still in the spool included."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from hashlib import blake2b
from pathlib import Path
from typing import Final

from collector.catalog import UNROUTED, Catalog
from collector.dead_letter import DeadLetter
from collector.forget_spool import Spooled, dead_letters, spooled_records
from collector.maintenance_history import purge
from collector.table import Table
from servelens.assembly.database import build_database
from servelens.assembly.endpoint_store import open_endpoint_store
from servelens.assembly.maintenance import build_forgetting, build_rules
from servelens.assembly.tables import build_catalog
from servelens.clock import SystemClock
from servelens.control.stored_endpoint import StoredEndpoint
from servelens.errors import Invalid, Missing
from servelens.secret_references import Secrets
from servelens.settings import Settings
from servelens.settings_file import load_settings, secrets_of_environment
from serving_proxy.redaction import pseudonym

_POLL_S: Final = 0.2
_LONGEST_KEY: Final = 64


def run(config: Path, unit: str, endpoint: str | None, *, now: bool, wait_s: float) -> int:
    """Delete and say what; 1 when records of the person are still on their way into a table."""
    if not unit:
        raise Invalid("is empty", field="--unit", fix="Give the person as the column 'unit' has them.")
    settings = load_settings(config)
    clock = SystemClock()
    database = build_database(settings)
    try:
        store = open_endpoint_store(settings, database, clock)
        _, endpoints = store.state(deleted=True)
        units = _spellings(unit, endpoints, endpoint)
        catalog = build_catalog(settings, store)
        forgetting = build_forgetting(database, clock)
        # Before the first deletion: what is in a table by now is deleted, what is not yet is waited for.
        waiting = [each for each in _spooled(settings, catalog, units) if not each.arrived()]
        gone: dict[str, Counter[str]] = {name: Counter() for name in units}

        def forget() -> None:
            unmatched = catalog.tables(UNROUTED).feedback
            for name, spellings in units.items():
                gone[name].update(
                    forgetting.forget(name, catalog.tables(name), sorted(spellings), unmatched=unmatched)
                )

        forget()
        if waiting:
            arrived = _wait(waiting, wait_s)
            forget()
            waiting = [] if arrived else [each for each in waiting if not each.arrived()]
        purged = sum(purge(table) for table in _tables(catalog, units)) if now else None
        copies = {each.worker_id for each in _spooled(settings, catalog, units)}
    finally:
        database.dispose()
    _report(gone)
    if purged is None:
        rules = build_rules(settings)
        end = clock.now() + timedelta(hours=rules.history_hours) + rules.clean_every
        _say(
            f"No reader of the tables sees them any more. Their bytes stay in the tables' history until {end:%Y-%m-%d %H:%M} "
            "UTC, if the scheduler runs; --now deletes them at once."
        )
    else:
        _say(f"Their bytes are deleted: {purged} files, which readers of older versions will miss.")
    dead_letter = DeadLetter(settings.dead_letter_directory)
    for entry in dead_letters(dead_letter, set().union(*units.values())):
        _say(f"Not deleted: the dead letter has the name in {dead_letter.path(entry)}; its .json is to stay.")
    if waiting:
        workers = ", ".join(sorted({each.worker_id for each in waiting}))
        _say(f"Not deleted: records in the spool of {workers}. Start the collector, and run this again.")
    elif copies:
        _say(
            f"The spool of {', '.join(sorted(copies))} keeps copies until the worker has gone on to its next segment."
        )
    return 1 if waiting else 0


def _spellings(
    unit: str, endpoints: Sequence[StoredEndpoint], only: str | None
) -> Mapping[str, Collection[str]]:
    """How each endpoint's records name the person: as they are, or by the pseudonym where the unit is redacted."""
    secrets = Secrets(secrets_of_environment())
    found: dict[str, set[str]] = {}
    for each in endpoints:
        config = each.settings.get("ai_gateway", {}).get("inference_table_config", {})
        key = secrets.resolve(config.get("pseudonym_key") or "", "pseudonym_key").encode()
        found[each.name] = {unit, pseudonym(unit), pseudonym(unit, _fitting(key))}
    # A call that reached no endpoint was recorded by the rules of any; so may feedback have been that moved to its endpoint.
    every = {unit, pseudonym(unit)}.union(*found.values())
    found = dict.fromkeys((*found, UNROUTED), every)
    if only is None:
        return found
    if only not in found:
        known = ", ".join(each.name for each in endpoints)
        raise Missing(f"there is no endpoint '{only}'.", field="--endpoint", fix=f"Use one of: {known}.")
    return {only: found[only]}


def _fitting(key: bytes) -> bytes:
    return key if len(key) <= _LONGEST_KEY else blake2b(key).digest()


def _spooled(settings: Settings, catalog: Catalog, units: Mapping[str, Collection[str]]) -> list[Spooled]:
    known: dict[str, str] = {}

    def owner(endpoint: str) -> str:
        if endpoint not in known:
            try:
                catalog.tables(endpoint)
                known[endpoint] = endpoint
            except Missing:
                known[endpoint] = UNROUTED
        return known[endpoint]

    return spooled_records(
        settings.spool_directory,
        lambda endpoint: units.get(owner(endpoint), ()),
        lambda endpoint: catalog.tables(owner(endpoint)),
    )


def _wait(waiting: Sequence[Spooled], wait_s: float) -> bool:
    """Whether all of it is in its table, within the time."""
    _say(f"Records are still in the spool: waiting up to {wait_s:g} s for the collector.")
    deadline = time.monotonic() + wait_s
    while not all(each.arrived() for each in waiting):
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _tables(catalog: Catalog, endpoints: Collection[str]) -> Iterator[Table]:
    for name in endpoints:
        tables = catalog.tables(name)
        yield from (tables.payload, tables.scores, tables.feedback, tables.embeddings, tables.labels)
    if UNROUTED not in endpoints:
        yield catalog.tables(UNROUTED).feedback


def _report(gone: Mapping[str, Counter[str]]) -> None:
    for name, rows in gone.items():
        if rows.total():
            what = ", ".join(f"{count} {kind}" for kind, count in rows.items() if count)
            _say(f"{'no endpoint' if name == UNROUTED else name}: {what} deleted")
    if not any(rows.total() for rows in gone.values()):
        _say("There was nothing of this unit.")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
