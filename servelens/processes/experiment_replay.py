"""``servelens experiment replay``: computes kept reports again from the table versions that they name."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rich.console import Console

from experiments.replay import Replay, replay
from experiments.report import plain
from experiments.store import ExperimentStore
from servelens.assembly.database import build_database
from servelens.assembly.endpoint_store import open_endpoint_store
from servelens.assembly.tables import build_catalog
from servelens.clock import SystemClock
from servelens.errors import Conflict
from servelens.settings_file import load_settings

_SHOWN = 10
_WORDS = {"agrees": "agrees", "differs": "DIFFERS", "gone": "cannot be replayed"}


def run(config: Path, name: str, *, looks: int, as_json: bool) -> int:
    """Replay the newest ``looks`` reports of ``name``. Exit status 0 when all of them agree, else 1."""
    settings = load_settings(config)
    database = build_database(settings)
    try:
        clock = SystemClock()
        endpoints = open_endpoint_store(settings, database, clock)
        store = ExperimentStore(database, clock)
        experiment = store.get(name).experiment
        reports = store.history(name, limit=looks)
        if not reports:
            raise Conflict(
                f"experiment '{name}' has not been analysed yet, so there is nothing to replay",
                fix=f"Run: servelens experiment report {name}",
            )
        tables = build_catalog(settings, endpoints).tables(experiment.endpoint)
        replays = [replay(report, tables) for report in reports]
    finally:
        database.dispose()
    if as_json:
        sys.stdout.write(json.dumps([plain(each) for each in replays], indent=2, ensure_ascii=False) + "\n")
    else:
        _show(replays)
    return 0 if all(each.outcome == "agrees" for each in replays) else 1


def _show(replays: list[Replay]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for each in replays:
        console.print(f"{each.as_of}  {_WORDS[each.outcome]}", markup=False)
        if each.reason:
            console.print(f"    {each.reason}", markup=False)
        if each.reported_by != each.replayed_by and each.reported_by is not None:
            console.print(f"    reported by {each.reported_by}, replayed by {each.replayed_by}", markup=False)
        for difference in each.differences[:_SHOWN]:
            console.print(
                f"    {difference.path}: {difference.reported!r} reported, {difference.replayed!r} replayed",
                markup=False,
            )
        if len(each.differences) > _SHOWN:
            console.print(f"    and {len(each.differences) - _SHOWN} more")
