"""``servelens experiment``: experiments of the database of the settings, listed and changed by the user of this machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from experiments.decision_log import DecisionLog
from experiments.lifecycle import Lifecycle
from experiments.standing import Standing
from experiments.store import ExperimentStore
from servelens.assembly.database import build_database
from servelens.assembly.endpoint_store import build_endpoint_store, open_endpoint_store
from servelens.assembly.rollouts import ManualDecisions, build_controller
from servelens.clock import SystemClock
from servelens.control.experiment_requests import requested_experiment
from servelens.database import Database
from servelens.errors import Invalid
from servelens.processes.person import user
from servelens.settings import Settings
from servelens.settings_file import load_settings, yaml_mistake

_CANNOT_SAY = "—"


@dataclass(frozen=True, slots=True)
class _Opened:
    """The settings' database; the settings file is not applied to it, that is for the processes that serve."""

    settings: Settings
    database: Database
    lifecycle: Lifecycle

    @property
    def decisions(self) -> ManualDecisions:
        endpoints = build_endpoint_store(self.settings, self.database, SystemClock())
        clock = SystemClock()
        controller = build_controller(self.database, self.lifecycle, endpoints, clock)
        return ManualDecisions(controller, DecisionLog(self.database, clock))


def list_all(config: Path, *, with_ended: bool, as_json: bool) -> int:
    """A table, or JSON, on standard output."""
    with _open(config) as opened:
        found = [each for each in opened.lifecycle.standings() if with_ended or each.state != "stopped"]
        store = ExperimentStore(opened.database, SystemClock())
        verdicts = {each.experiment.name: _verdict(store, each) for each in found}
    if as_json:
        return _write(
            {"experiments": [{**each.to_dict(), "verdict": verdicts[each.experiment.name]} for each in found]}
        )
    table = Table("name", "endpoint", "kind", "state", "weights", "share", "started", "verdict")
    for standing in found:
        one = standing.experiment
        weights = (
            " / ".join(f"{variant.weight:g}" for variant in one.variants) if one.assigns else _CANNOT_SAY
        )
        table.add_row(
            one.name,
            one.endpoint,
            one.kind,
            _state(standing),
            weights,
            f"{one.share:g} %",
            _time(standing.started_at),
            verdicts[one.name] or _CANNOT_SAY,
        )
    print_out(table)
    if not found:
        sys.stderr.write("There is no experiment. Those that have ended: --all.\n")
    return 0


def show(config: Path, name: str, *, as_json: bool) -> int:
    """Its variants, where it stands, and its newest verdict."""
    with _open(config) as opened:
        standing = opened.lifecycle.standing(name)
        report = ExperimentStore(opened.database, SystemClock()).latest(name)
    if as_json:
        return _write({**standing.to_dict(), "report": report})
    one = standing.experiment
    facts = Table.grid(padding=(0, 2))
    steps = len(one.rollout.steps) if one.rollout else 0
    for label, value in (
        ("Experiment", f"{one.name} ({one.kind} on {one.endpoint})"),
        ("State", _state(standing)),
        ("Why", standing.reason),
        (
            "Step",
            f"{standing.step + 1} of {steps}, since {_time(standing.step_started_at)}" if steps else None,
        ),
        ("Phase", str(one.phase)),
        ("Unit", f"{one.unit}; {one.share:g} % of them, from {one.share_from:g} % of layer {one.layer}"),
        ("Metrics", ", ".join(one.metrics)),
        ("Started", _time(standing.started_at)),
        ("Ended", _time(standing.stopped_at) if standing.stopped_at else None),
        ("Changed", f"{_time(standing.changed_at)} by {standing.changed_by} (revision {standing.revision})"),
        ("Defined in", "the settings file" if standing.source == "file" else "the API"),
        ("Verdict", report["verdict"] if report else "not looked at yet"),
    ):
        if value is not None:
            facts.add_row(label, value)
    print_out(facts)
    table = Table("variant", "served entity", "weight")
    for variant in one.variants:
        table.add_row(
            variant.name, variant.served_entity, f"{variant.weight:g} %" if one.assigns else _CANNOT_SAY
        )
    print_out(table)
    return 0


def create(config: Path, file: Path, *, draft: bool, as_json: bool) -> int:
    """Add the experiment of ``file``."""
    body = block_of(file)
    with _open(config) as opened:
        endpoints = open_endpoint_store(opened.settings, opened.database, SystemClock())
        experiment = requested_experiment(body, endpoints)
        return _say(opened.lifecycle.create(experiment, by=_by(), start=not draft), as_json)


def start(config: Path, name: str, *, as_json: bool) -> int:
    """Start a draft."""
    with _open(config) as opened:
        return _say(opened.lifecycle.start(name, _by()), as_json)


def pause(config: Path, name: str, *, as_json: bool) -> int:
    """Hold its decisions."""
    with _open(config) as opened:
        return _say(opened.lifecycle.pause(name, _by()), as_json)


def resume(config: Path, name: str, *, as_json: bool) -> int:
    """Go on after a pause."""
    with _open(config) as opened:
        return _say(opened.lifecycle.resume(name, _by()), as_json)


def stop(config: Path, name: str, reason: str | None, *, as_json: bool) -> int:
    """End it."""
    with _open(config) as opened:
        return _say(opened.lifecycle.stop(name, _by(), "stopped", reason), as_json)


def promote(config: Path, name: str, reason: str, *, as_json: bool) -> int:
    """End it for its treatment."""
    with _open(config) as opened:
        opened.decisions.promote(name, _by(), _given(reason))
        return _say(opened.lifecycle.standing(name), as_json)


def abort(config: Path, name: str, reason: str, *, as_json: bool) -> int:
    """End it for its control."""
    with _open(config) as opened:
        opened.decisions.abort(name, _by(), _given(reason))
        return _say(opened.lifecycle.standing(name), as_json)


def decisions(config: Path, name: str, limit: int, *, as_json: bool) -> int:
    """A table, or JSON, of what was decided."""
    with _open(config) as opened:
        opened.lifecycle.standing(name)
        found = opened.decisions.history(name, limit)
    if as_json:
        return _write({"experiment": name, "decisions": found})
    table = Table("when", "decision", "by", "step", "phase", "done", "why")
    for each in found:
        done = "dry run" if each["dry_run"] else ("yes" if each["applied"] else "no")
        when = _time(datetime.fromisoformat(each["decided_at"]))
        step, phase = str(each["step"] + 1), str(each["phase"])
        table.add_row(when, each["decision"], each["by"], step, phase, done, each["reason"])
    print_out(table)
    return 0


@contextmanager
def _open(config: Path) -> Iterator[_Opened]:
    settings = load_settings(config)
    database = build_database(settings)
    try:
        database.create_tables()
        yield _Opened(settings, database, Lifecycle(database, SystemClock()))
    finally:
        database.dispose()


def block_of(file: Path) -> dict[str, Any]:
    """The one block that ``file`` holds. Raises :class:`~servelens.errors.Invalid`, naming the file and the line."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise Invalid(f"{file} cannot be read: {why}.", fix="Name a YAML file.") from error
    try:
        body = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise Invalid(f"{file} is not YAML{yaml_mistake(error)}.", fix="Correct that line.") from error
    if not isinstance(body, dict):
        raise Invalid(f"{file} holds no experiment.", fix="Write one block, with keys such as 'name:'.")
    return body


def _say(standing: Standing, as_json: bool) -> int:
    if as_json:
        return _write(standing.to_dict())
    one = standing.experiment
    where = f" on {one.endpoint}, phase {one.phase}" if standing.is_live else ""
    print_out(f"Experiment '{one.name}' is {_state(standing)}{where}.")
    return 0


def _state(standing: Standing) -> str:
    return (
        standing.state if standing.outcome in (None, "stopped") else str(standing.outcome).replace("_", " ")
    )


def _verdict(store: ExperimentStore, standing: Standing) -> str | None:
    latest = store.latest(standing.experiment.name)
    return str(latest["verdict"]) if latest else None


def _given(reason: str) -> str:
    if not reason.strip():
        raise Invalid("is empty.", field="--reason", fix="Say why; it is kept with the decision.")
    return reason.strip()


def _by() -> str:
    return user() or "command line"


def _time(moment: datetime | None) -> str:
    return _CANNOT_SAY if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _write(document: dict[str, Any]) -> int:
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    return 0


def print_out(what: Table | str) -> None:
    """On standard output, and whole when that is no terminal."""
    console = Console(highlight=False, markup=False, soft_wrap=isinstance(what, str))
    if not console.is_terminal:  # a pipe has no width that columns would have to be cut to
        console.width = 500
    console.print(what)
