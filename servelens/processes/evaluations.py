"""``servelens evaluation``: evaluations of the database of the settings, listed and changed by the user of this machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import yaml
from rich.table import Table

from collector.catalog import Catalog
from evaluators.runs.evaluation_store import EvaluationStore, StoredEvaluation
from evaluators.runs.run_history import EvaluationRun, RunHistory
from servelens.assembly.database import build_database
from servelens.assembly.endpoint_store import build_endpoint_store
from servelens.assembly.requested_evaluation import requested_evaluation
from servelens.assembly.tables import build_catalog
from servelens.clock import Clock, SystemClock
from servelens.database import Database
from servelens.errors import Invalid
from servelens.processes.experiments import print_out
from servelens.processes.person import user
from servelens.settings import Settings
from servelens.settings_file import load_settings, yaml_mistake

_NOTHING: Final = "—"


@dataclass(frozen=True, slots=True)
class Opened:
    """The settings' database; the settings file is not applied to it, that is for the scheduler."""

    settings: Settings
    database: Database
    clock: Clock

    @property
    def store(self) -> EvaluationStore:
        """The evaluations."""
        return EvaluationStore(self.database, self.clock)

    @property
    def history(self) -> RunHistory:
        """Their runs."""
        return RunHistory(self.database, self.clock)

    @property
    def catalog(self) -> Catalog:
        """The tables of all endpoints."""
        return build_catalog(self.settings, build_endpoint_store(self.settings, self.database, self.clock))


@contextmanager
def opened(config: Path) -> Iterator[Opened]:
    """The database of the settings file ``config``."""
    settings = load_settings(config)
    database = build_database(settings)
    try:
        database.create_tables()
        yield Opened(settings, database, SystemClock())
    finally:
        database.dispose()


def list_all(config: Path, *, as_json: bool) -> int:
    """A table, or JSON, on standard output."""
    with opened(config) as here:
        found = [(each, _last(here.history, each)) for each in here.store.all()]
    if as_json:
        return write(
            {"evaluations": [{**each.to_dict(), "last_run": run and run.to_dict()} for each, run in found]}
        )
    table = Table("name", "endpoint", "evaluator", "when", "state", "last run", "scored", "unscored")
    for stored, run in found:
        one = stored.evaluation
        table.add_row(
            one.name,
            one.endpoint,
            one.spec.name,
            one.cron or f"every {one.every_s:g} s",
            "paused" if stored.paused else "scheduled",
            f"{run.state}, {_time(run.started_at)}" if run else _NOTHING,
            str(run.scored) if run else _NOTHING,
            str(run.unscored) if run else _NOTHING,
        )
    print_out(table)
    if not found:
        sys.stderr.write("There is no evaluation. The scheduler takes up those of the settings file.\n")
    return 0


def runs(config: Path, name: str | None, endpoint: str | None, limit: int, *, as_json: bool) -> int:
    """A table, or JSON, on standard output."""
    with opened(config) as here:
        if name is not None:
            here.store.get(name)
        found = here.history.recent(endpoint=endpoint, evaluation=name, limit=limit)
    if as_json:
        return write({"runs": [run.to_dict() for run in found]})
    table = Table(
        "started",
        "evaluation",
        "trigger",
        "state",
        "s",
        "scored",
        "unscored",
        "skipped",
        "lag p99",
        "tokens/s",
    )
    for run in found:
        table.add_row(
            _time(run.started_at),
            run.evaluation or f"{run.endpoint} {run.evaluator}",
            run.trigger or _NOTHING,
            run.state,
            _number(run.duration_s),
            str(run.scored),
            _reasons(run),
            _number(run.skipped),
            _NOTHING if run.lag_p99_s is None else f"{run.lag_p99_s:.1f} s",
            _number(run.tokens_per_s),
        )
    print_out(table)
    for error in dict.fromkeys(run.error for run in found if run.error):
        sys.stderr.write(f"{error}\n")
    return 0


def create(config: Path, file: Path, *, as_json: bool) -> int:
    """The evaluation of a YAML file."""
    try:
        block = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise Invalid(f"{file} is not YAML{yaml_mistake(error)}.", fix="Correct that line.") from error
    except OSError as error:
        raise Invalid(f"{file} cannot be read: {error}.") from error
    if not isinstance(block, dict):
        raise Invalid(f"{file} must hold keys such as 'endpoint:'.", fix="Write one block of 'evaluations'.")
    with opened(config) as here:
        evaluation = requested_evaluation(block, here.catalog)
        stored = here.store.create(evaluation, by=user() or "command line")
    return _done(stored, "is scheduled", as_json=as_json)


def pause(config: Path, name: str, *, paused: bool, as_json: bool) -> int:
    """Hold it, or let it go on."""
    with opened(config) as here:
        stored = here.store.pause(name, paused=paused, by=user() or "command line")
    return _done(stored, "is paused" if paused else "is scheduled", as_json=as_json)


def request_run(config: Path, name: str, *, as_json: bool) -> int:
    """Ask the scheduler for a run."""
    with opened(config) as here:
        stored = here.store.request_run(name, by=user() or "command line")
    return _done(stored, "runs as soon as the scheduler sees it", as_json=as_json)


def delete(config: Path, name: str) -> int:
    """Remove it."""
    with opened(config) as here:
        here.store.delete(name)
    sys.stderr.write(f"Evaluation '{name}' is removed; its scores and runs stay.\n")
    return 0


def write(document: dict[str, Any]) -> int:
    """JSON on standard output."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    return 0


def _done(stored: StoredEvaluation, what: str, *, as_json: bool) -> int:
    if as_json:
        return write(stored.to_dict())
    sys.stderr.write(f"Evaluation '{stored.evaluation.name}' {what}.\n")
    return 0


def _last(history: RunHistory, stored: StoredEvaluation) -> EvaluationRun | None:
    found: Sequence[EvaluationRun] = history.recent(evaluation=stored.evaluation.name, limit=1)
    return found[0] if found else None


def _reasons(run: EvaluationRun) -> str:
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(run.unscored_reasons.items()))
    return f"{run.unscored} ({reasons})" if reasons else str(run.unscored)


def _number(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:,.3g}" if isinstance(value, float) else str(value)


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"
