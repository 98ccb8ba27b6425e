"""``servelens collector replay`` and ``skip``: what a user does about records that could not be read."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from collector.dead_letter import DeadLetter
from collector.reader import SpoolReader
from collector.replay import Replay, State, spool_of
from servelens.assembly.database import build_database
from servelens.assembly.endpoint_store import open_endpoint_store
from servelens.assembly.tables import build_catalog
from servelens.clock import SystemClock
from servelens.errors import Invalid, Missing
from servelens.settings_file import load_settings


def replay(config: Path, worker: str | None, offsets: Sequence[int]) -> int:
    """Say what came of each record and of all; 1 when some of them still cannot be taken."""
    if offsets and worker is None:
        raise Invalid("offsets are a worker's own", field="--offset", fix="Name it with --worker.")
    settings = load_settings(config)
    database = build_database(settings)
    said = Console(highlight=False, markup=False, soft_wrap=True)
    counts: Counter[State] = Counter()
    try:
        catalog = build_catalog(settings, open_endpoint_store(settings, database, SystemClock()))
        dead_letter = DeadLetter(settings.dead_letter_directory)
        for outcome in Replay(dead_letter, catalog, settings.spool_directory).run(
            worker_id=worker, offsets=offsets
        ):
            counts[outcome.state] += 1
            said.print(f"{outcome.worker_id} {outcome.offset}: {outcome.state} ({outcome.detail})")
    finally:
        database.dispose()
    total = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    said.print(total or "The dead letter holds no record.")
    sys.stdout.flush()
    return 1 if counts[State.UNREADABLE] or counts[State.IN_SPOOL] else 0


def skip(config: Path, worker: str) -> int:
    """Note up to where; a running collector goes on within a second, another one when it is started."""
    settings = load_settings(config)
    directory = spool_of(settings.spool_directory, worker)
    if directory is None:
        raise Missing(
            f"there is no spool of worker {worker!r} in {settings.spool_directory}",
            field="--worker",
            fix="See 'servelens verify'.",
        )
    worker_id = directory.identity()
    last = SpoolReader(directory.path).written() - 1
    DeadLetter(settings.dead_letter_directory).skip_through(worker_id, last)
    sys.stdout.write(
        f"Records of {worker_id} up to offset {last} that cannot be read go to the dead letter; "
        "'servelens collector replay' takes them from there when they can.\n"
    )
    return 0
