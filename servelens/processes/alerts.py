"""``servelens alert``: alerts of the database of the settings, looked at and silenced by the user of this machine."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.table import Table

from evaluators.alerts.notification import VERSION
from evaluators.alerts.overview import AlertOverview
from evaluators.alerts.silences import Silence, Silences
from servelens.alert_settings import seconds
from servelens.assembly.alert_rules import build_rules
from servelens.assembly.database import build_database
from servelens.clock import SystemClock
from servelens.database import Database
from servelens.errors import Invalid, Missing
from servelens.processes.experiments import print_out
from servelens.processes.person import user
from servelens.settings import Settings
from servelens.settings_file import load_settings

_CANNOT_SAY = "—"


@dataclass(frozen=True, slots=True)
class _Opened:
    settings: Settings
    database: Database
    clock: SystemClock

    @property
    def overview(self) -> AlertOverview:
        return AlertOverview(self.database, self.clock)

    @property
    def silences(self) -> Silences:
        return Silences(self.database, self.clock)


def list_all(config: Path, endpoint: str | None, *, as_json: bool) -> int:
    """A table, or JSON; 1 when a rule fires."""
    with _open(config) as opened:
        found = opened.overview.alerts(build_rules(opened.settings), endpoint=endpoint)
    fires = any(each["status"] == "firing" for each in found)
    if as_json:
        _write({"alerts": found})
        return int(fires)
    table = Table("rule", "endpoint", "slice", "status", "since", "severity", "why")
    for each in found:
        for part in each["slices"] or [{}]:
            status = str(part.get("status", each["status"])).replace("_", " ")
            marks = [
                "stale" if each["stale"] else "",
                f"silenced ({part['silenced_by']})" if part.get("silenced_by") else "",
            ]
            table.add_row(
                each["rule"],
                each["endpoint"],
                part.get("slice") or _CANNOT_SAY,
                ", ".join(filter(None, [status, *marks])),
                _time(part.get("since")),
                each["severity"],
                part.get("reason") or _CANNOT_SAY,
            )
    print_out(table)
    if not found:
        sys.stderr.write("There is no alert in the settings.\n")
    return int(fires)


def show(config: Path, name: str, limit: int, *, as_json: bool) -> int:
    """The newest incidents of a rule with their deliveries."""
    with _open(config) as opened:
        overview = opened.overview
        heads = overview.incidents(rule=name, limit=limit)
        known = {rule.name for rule in build_rules(opened.settings)}
        if not heads and name not in known:
            raise Missing(
                f"there is no alert '{name}'.", fix=f"Use one of: {', '.join(sorted(known)) or 'none'}."
            )
        found = [overview.incident(head["incident"]) for head in heads]
    if as_json:
        return _write({"incidents": found})
    for each in found:
        print_out(
            f"{each['incident']}  {each['state']}{', ' if each['slice'] else ''}{each['slice'] or ''}, "
            f"fired {_time(each['fired_at'])}, ended {_time(each['resolved_at'])}\n  {each['reason']}"
        )
        if each["examples"]:
            print_out(f"  examples: {', '.join(each['examples'])}")
        if each["silenced_by"] and each["announced_at"] is None:
            print_out(f"  silenced by {each['silenced_by']}")
        for delivery in each["deliveries"]:
            why = f" ({delivery['detail']})" if delivery["detail"] else ""
            print_out(
                f"  {delivery['channel']}: {delivery['kind']} {delivery['status']} after {delivery['attempts']} attempts{why}"
            )
    if not found:
        sys.stderr.write("It has not fired.\n")
    return 0


def silence(
    config: Path,
    rule: str | None,
    endpoint: str | None,
    slice_: str | None,
    duration: str,
    reason: str,
    *,
    as_json: bool,
) -> int:
    """Make a silence from now on."""
    try:
        length = timedelta(seconds=seconds(duration))
    except (ValueError, OverflowError) as error:
        raise Invalid(f"{duration!r} is no duration.", field="--for", fix="Write 30m, 2h or 1d.") from error
    with _open(config) as opened:
        made = opened.silences.add(
            rule=rule,
            endpoint=endpoint,
            slice_=slice_,
            ends_at=opened.clock.now() + length,
            author=_by(),
            reason=reason,
        )
    return _say(made, f"Silence {made.id} holds until {_time(made.ends_at.isoformat())}.", as_json)


def unsilence(config: Path, number: int, *, as_json: bool) -> int:
    """End a silence."""
    with _open(config) as opened:
        ended = opened.silences.end(number, _by())
    return _say(ended, f"Silence {number} is over.", as_json)


def silences(config: Path, *, with_ended: bool, as_json: bool) -> int:
    """A table, or JSON, of silences."""
    with _open(config) as opened:
        found = opened.silences.list(with_ended=with_ended)
    if as_json:
        return _write({"silences": [each.to_dict() for each in found]})
    table = Table("silence", "rule", "endpoint", "slice", "from", "until", "by", "why")
    for each in found:
        shown = each.to_dict()
        table.add_row(
            str(each.id),
            each.rule or "*",
            each.endpoint or "*",
            each.slice or "*",
            _time(shown["starts_at"]),
            _time(shown["ends_at"]),
            each.author,
            each.reason,
        )
    print_out(table)
    return 0


def test(config: Path, channel: str, *, as_json: bool) -> int:
    """Send a test; nothing is kept of it."""
    from servelens.assembly.alerts import (
        build_channels,  # a console that only looks has no client to send with
    )

    settings = load_settings(config)
    clock = SystemClock()
    channels = build_channels(settings, clock)
    if channel not in channels:
        raise Missing(
            f"there is no channel '{channel}'.", fix=f"Use one of: {', '.join(channels) or 'none'}."
        )
    key, now = str(uuid.uuid4()), clock.now().isoformat(timespec="seconds")
    document: dict[str, Any] = {
        "version": VERSION,
        "id": f"{key}-firing-0",
        "incident": key,
        "kind": "firing",
        "rule": "test",
        "description": "",
        "endpoint": "none",
        "variant": None,
        "severity": "info",
        "reason": f"This is a test of the channel {channel}, sent by {_by()}. Nothing has happened.",
        "resolution": None,
        "value": None,
        "reference": None,
        "breached_at": now,
        "fired_at": now,
        "resolved_at": None,
        "examples": [],
        "evidence": {},
    }
    outcome = channels[channel].send(document)
    if outcome.ok and channels[channel].kind == "pagerduty":
        ending = {**document, "id": f"{key}-resolved-0", "kind": "resolved", "resolved_at": now}
        outcome = channels[channel].send(ending)  # or somebody would have to close it
    if as_json:
        _write({"channel": channel, "ok": outcome.ok, "status": outcome.status, "detail": outcome.detail})
    else:
        print_out(f"{channel} ({channels[channel].kind}) {outcome.detail}.")
    return 0 if outcome.ok else 1


@contextmanager
def _open(config: Path) -> Iterator[_Opened]:
    settings = load_settings(config)
    database = build_database(settings)
    try:
        database.create_tables()
        yield _Opened(settings, database, SystemClock())
    finally:
        database.dispose()


def _say(about: Silence, words: str, as_json: bool) -> int:
    if as_json:
        return _write(about.to_dict())
    print_out(words)
    return 0


def _by() -> str:
    return user() or "command line"


def _time(moment: str | None) -> str:
    return _CANNOT_SAY if moment is None else f"{moment[:19].replace('T', ' ')} UTC"


def _write(document: dict[str, Any]) -> int:
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    return 0
