"""``servelens experiment replay``: computes kept reports again from the table versions that they name."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from experiments.decision_log import DecisionLog
from experiments.lifecycle import Lifecycle
from experiments.replay import Difference, Replay, replay
from experiments.replay_decisions import DecisionReplay, replay_decision
from experiments.report import plain
from experiments.store import ExperimentStore
from servelens.assembly.database import build_database
from servelens.assembly.endpoint_store import open_endpoint_store
from servelens.assembly.tables import build_catalog
from servelens.clock import SystemClock
from servelens.errors import Conflict, Missing
from servelens.settings_file import load_settings

_SHOWN = 10
_MOST = 1000
_WORDS = {
    "agrees": "agrees",
    "differs": "DIFFERS",
    "gone": "cannot be replayed",
    "person": "somebody's word",
}


def run(config: Path, name: str, *, looks: int, as_json: bool) -> int:
    """Replay the newest ``looks`` reports of ``name`` and its decisions. Exit status 0 when all of them agree, else 1."""
    settings = load_settings(config)
    database = build_database(settings)
    try:
        clock = SystemClock()
        endpoints = open_endpoint_store(settings, database, clock)
        store = ExperimentStore(database, clock)
        try:
            experiment = Lifecycle(database, clock).standing(name).experiment
            reports = store.history(name, limit=looks)
        except Missing:
            if name not in {each.name for each in settings.experiments}:
                raise
            reports = []  # nobody has served the file that has it yet
        if not reports:
            raise Conflict(
                f"experiment '{name}' has not been analysed yet, so there is nothing to replay",
                fix=f"Run: servelens experiment report {name}",
            )
        tables = build_catalog(settings, endpoints).tables(experiment.endpoint)
        replays = [replay(report, tables) for report in reports]
        kept = store.history(name, limit=_MOST)
        log = DecisionLog(database, clock)
        decisions = [replay_decision(each, kept) for each in log.history(name, limit=_MOST)]
    finally:
        database.dispose()
    if as_json:
        document = {"reports": plain(replays), "decisions": plain(decisions)}
        sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    else:
        _show(replays, decisions)
    agree = [each.outcome == "agrees" for each in replays]
    agree += [each.outcome in ("agrees", "person") for each in decisions]
    return 0 if all(agree) else 1


def _show(replays: list[Replay], decisions: list[DecisionReplay]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for decision in decisions:
        where = (
            ""
            if decision.with_report or decision.outcome != "agrees"
            else ", its report is not kept any more"
        )
        when = decision.decided_at.isoformat()
        console.print(
            f"{when}  decision {decision.decision}: {_WORDS[decision.outcome]}{where}", markup=False
        )
        _show_differences(console, decision.differences, decision.reason)
    for each in replays:
        console.print(f"{each.as_of}  report: {_WORDS[each.outcome]}", markup=False)
        if each.reported_by != each.replayed_by and each.reported_by is not None:
            console.print(f"    reported by {each.reported_by}, replayed by {each.replayed_by}", markup=False)
        _show_differences(console, each.differences, each.reason)


def _show_differences(console: Console, differences: Sequence[Difference], reason: str | None) -> None:
    if reason:
        console.print(f"    {reason}", markup=False)
    for difference in differences[:_SHOWN]:
        console.print(
            f"    {difference.path}: {difference.reported!r} reported, {difference.replayed!r} replayed",
            markup=False,
        )
    if len(differences) > _SHOWN:
        console.print(f"    and {len(differences) - _SHOWN} more")
