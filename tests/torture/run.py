"""One run: load and faults for a while, then everything is made well, drains, and is held against the books."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from collector.audit import Audit, Books
from collector.catalog import Catalog
from collector.dead_letter import DeadLetter
from collector.record import UNROUTED
from collector.table_batches import batches
from servelens.assembly.tables import build_catalog
from servelens.errors import Unavailable
from servelens.settings_file import load_settings
from tests.integration.backend_process import backend_process, endpoint
from tests.integration.system import free_port, wait_until
from tests.torture.damage import Destroyed
from tests.torture.disk import SpoolDisk
from tests.torture.faults import LOW_BYTES, Faults
from tests.torture.load import Load
from tests.torture.machine import Machine
from tests.torture.stepped_clock import step
from tests.torture.storage import Storage

WORKERS = ("proxy-0", "proxy-1")
ENDPOINTS = ("chat", "code")
_START_S = 60.0
_DRAIN_S = 60.0


def torture(
    folder: Path, seconds: float, seed: int, say: Callable[[str], None], *, may_mount: bool = True
) -> dict[str, Any]:
    """Torture a machine in ``folder`` for ``seconds`` and give the figures; ``problems`` is empty when all is well."""
    config, clock = folder / "servelens.yaml", folder / "clock"
    port = free_port()
    step(clock, 0)
    started = time.monotonic()
    storage = Storage(folder / "tables")
    with SpoolDisk(folder / "spool", may_mount=may_mount) as disk, backend_process() as url:
        config.write_text(yaml.safe_dump(_settings(folder, port, url)))
        with Machine(config, clock, folder / "processes.log", (*WORKERS, "collector")) as machine:
            faults = Faults(machine, disk, storage, clock, WORKERS, random.Random(seed), say)
            with Load(port, ENDPOINTS) as load:
                wait_until(lambda: len(load.answered) > 20, _START_S, "answers")
                faults.run(seconds)
                faults.heal()
                before = len(load.answered)
                wait_until(lambda: len(load.answered) > before + 20, _START_S, "answers after the faults")
            say("draining")
            for name in WORKERS:  # what they have in memory is written, and their drops are noted
                machine.hold(name, kill=False)
            catalog = build_catalog(load_settings(config))
            books = _drained(folder, catalog)
            machine.hold("collector", kill=False)
        say("verify")
        status, document = verify(config)
        problems = [
            *_problems(load, faults.destroyed, books, catalog, folder),
            *_books_problems(status, document),
        ]
        problems += _tampered(folder, catalog, books)
        return {
            "seed": seed,
            "seconds": round(time.monotonic() - started, 1),
            "disk": disk.kind,
            "faults": dict(faults.done),
            "kills": dict(machine.kills),
            "starts": dict(machine.starts),
            "answered": len(load.answered),
            "cut": load.cut,
            "records_destroyed": len(faults.destroyed),
            **{name: value for name, value in document["total"].items() if name != "dropped_by_reason"},
            "dropped_by_reason": document["total"]["dropped_by_reason"],
            "verify_status": status,
            "problems": problems,
        }


def verify(config: Path) -> tuple[int, dict[str, Any]]:
    """``servelens verify --json``."""
    command = [sys.executable, "-m", "servelens", "verify", "--json", "--config", str(config)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode not in (0, 1) or not result.stdout:
        raise AssertionError(f"verify ended with {result.returncode}: {result.stderr}")
    return result.returncode, json.loads(result.stdout)


def _settings(folder: Path, port: int, url: str) -> dict[str, Any]:
    return {
        "data_dir": "data",
        "proxy": {"port": port, "workers": len(WORKERS), "drain_s": 5},
        "spool": {
            "directory": "spool",
            "segment_bytes": 256 * 1024,
            "segment_age_s": 1,
            "max_bytes": 24 << 20,
            "min_free_bytes": LOW_BYTES,
        },
        "tables": {"root": "tables"},
        "collector": {"port": free_port(), "commit_interval_s": 0.5},
        "console": {"port": free_port()},
        "scheduler": {"port": free_port()},
        "endpoints": [endpoint(name, url) for name in ENDPOINTS],
    }


def _drained(folder: Path, catalog: Catalog) -> Books:
    """The books, once the collector has taken everything."""
    deadline = time.monotonic() + _DRAIN_S
    while True:
        try:
            books = _audit(folder, catalog)
        except Unavailable:
            if time.monotonic() > deadline:
                raise
        else:
            waiting = sum(worker.in_spool for worker in books.workers)
            unnamed = sum(not region.in_dead_letter for region in books.regions)
            if (not waiting and not unnamed) or time.monotonic() > deadline:
                return books
        time.sleep(0.2)


def _problems(
    load: Load, destroyed: list[Destroyed], books: Books, catalog: Catalog, folder: Path
) -> list[str]:
    """What the callers were told, against what there is."""
    problems: list[str] = []
    tables = [catalog.tables(name).payload for name in (*ENDPOINTS, UNROUTED)]
    rows = {
        str(name): (str(worker), int(offset))
        for table in tables
        for batch in batches(table, ["databricks_request_id", "worker_id", "spool_offset"], rows=100_000)
        for name, worker, offset in batch.iter_rows()
    }
    if load.repeated:
        problems.append(f"request ids given twice: {load.repeated[:3]}")
    if load.refused:
        problems.append(f"{len(load.refused)} calls refused, as {load.refused[0]}")
    lost = {each.request_id: each for each in destroyed if each.request_id not in rows}
    unnamed = [each for each in lost.values() if not _is_named(each, books, folder)]
    if unnamed:
        problems.append(f"{len(unnamed)} destroyed records are named nowhere, as {unnamed[0]}")
    dropped = sum(worker.dropped for worker in books.workers)
    unexplained = load.answered - rows.keys() - lost.keys()
    if len(unexplained) > dropped:
        problems.append(
            f"{len(unexplained)} answered calls are nowhere, and {dropped} were dropped: {sorted(unexplained)[:5]}"
        )
    return problems


def _is_named(each: Destroyed, books: Books, folder: Path) -> bool:
    """By its offset or its place, in the dead letter or in the name of a file that was cut off."""
    for region in books.regions:
        if region.worker_id == each.worker_id and (
            region.first_missing <= each.offset < region.first_missing + region.missing
            or (region.segment == each.segment and region.start <= each.byte < region.end)
        ):
            return True
    for path in (folder / "spool").glob(f"*/{Path(each.segment).stem}.*.torn"):
        start = int(path.name.split(".")[1])
        if start <= each.byte < start + path.stat().st_size:
            return True
    return False


def _books_problems(status: int, document: dict[str, Any]) -> list[str]:
    problems = []
    total = document["total"]
    if status != 0 or not document["adds_up"]:
        problems.append(f"verify ended with {status}")
    if total["duplicates"] or document["duplicate_id_rows"]:
        problems.append("records are in the tables twice")
    for worker in document["workers"]:
        if worker["missing"]:
            problems.append(f"{worker['worker_id']} lacks {worker['missing']} records at {worker['gaps']}")
    parts = ("in_table", "in_spool", "in_dead_letter", "damaged", "removed", "dropped", "missing")
    if total["accepted"] != sum(total[part] for part in parts):
        problems.append("accepted is not the sum of its parts")
    if total["in_spool"]:
        problems.append(f"{total['in_spool']} records were not collected")
    return problems


def _tampered(folder: Path, catalog: Catalog, books: Books) -> list[str]:
    """Hide the names of one worker's losses: exactly these records must be missing then, and no longer afterwards."""
    letters = DeadLetter(folder / "data" / "dead-letter")
    worker = max(books.workers, key=lambda each: each.damaged)
    if not worker.damaged:
        return []
    shown, hidden = letters.directory / worker.worker_id, folder / "hidden"
    shown.rename(hidden)
    without = _audit(folder, catalog)
    hidden.rename(shown)
    (then,) = (each for each in without.workers if each.worker_id == worker.worker_id)
    # The spool may still show some of the damage itself.
    same = then.missing + then.damaged == worker.damaged + worker.in_dead_letter
    if not same or without.adds_up is (then.missing > 0):
        return [f"{worker.damaged} losses without a name gave {then}"]
    return []


def _audit(folder: Path, catalog: Catalog) -> Books:
    return Audit(folder / "spool", catalog, DeadLetter(folder / "data" / "dead-letter")).run()
