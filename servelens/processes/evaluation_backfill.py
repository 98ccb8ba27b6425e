"""``servelens evaluation backfill``: a past period is scored here and now, with a progress bar."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from evaluators.registry import EvaluatorSpec, known_evaluators
from evaluators.runs.backfill import Backfill
from evaluators.runs.evaluation import Evaluation
from evaluators.runs.evaluation_store import EvaluationStore
from evaluators.runs.record_scorer import Totals
from evaluators.runs.record_scores import batch_rows
from evaluators.workers.placement import PlacedEvaluator, evaluator_of
from servelens.assembly.evaluation_jobs import scoring_lease, with_secrets
from servelens.errors import Conflict, Invalid
from servelens.processes.evaluations import Opened, opened, write
from servelens.processes.lifecycle import stop_on_signals
from servelens.secret_references import Secrets
from servelens.settings_file import secrets_of_environment
from servelens.telemetry import configure_logging


def run(
    config: Path,
    endpoint: str,
    name: str,
    since: datetime,
    until: datetime | None,
    *,
    rescore: bool,
    as_json: bool,
) -> int:
    """Score what is not scored; 0 also when there is nothing to do, 1 when it was stopped before the end."""
    configure_logging("WARNING")
    with opened(config) as here:
        end = until or here.clock.now()
        if end <= since:
            raise Invalid(
                "is not before the end of the period.", field="--since", fix="Give an earlier time."
            )
        here.catalog.tables(endpoint)  # a name that is wrong is said before a model is loaded
        evaluation = _chosen(here.store, endpoint, name)
        secrets = Secrets(secrets_of_environment(), "process that scores")
        evaluator = evaluator_of(
            with_secrets(evaluation, secrets), here.settings.models_dir, here.settings.ray.build()
        )
        try:
            totals, left = _filled(here, evaluation, evaluator, since, end, rescore=rescore)
        finally:
            evaluator.close()
    reasons = dict(totals.unscored_reasons)
    if as_json:
        write({"scored": totals.scored, "unscored": reasons, "left": left})
    else:
        unscored = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
        sys.stderr.write(f"{totals.scored} scored, unscored: {unscored or 'none'}.\n")
    if left:
        sys.stderr.write(f"{left} records are left; the same command goes on.\n")
    return 1 if left else 0


def _filled(
    here: Opened,
    evaluation: Evaluation,
    evaluator: PlacedEvaluator,
    since: datetime,
    until: datetime,
    *,
    rescore: bool,
) -> tuple[Totals, int]:
    stop = stop_on_signals()
    left = 0
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    bar = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True))
    application_id = f"{evaluator.name}@{evaluator.target}"
    lease = scoring_lease(here.database, evaluation.endpoint, application_id)
    with lease.held() as mine, bar:
        if not mine:
            raise Conflict(
                f"another backfill of {application_id} runs, or the scheduler looks for what is not scored",
                field=evaluation.endpoint,
                fix="Try again when it is over.",
            )
        task = bar.add_task(f"{evaluation.endpoint} {application_id}", total=None)

        def show(done: int, total: int) -> None:
            nonlocal left
            left = total - done
            bar.update(task, completed=done, total=total)

        totals = Backfill(
            here.catalog.tables(evaluation.endpoint),
            evaluation.endpoint,
            evaluator,
            here.history,
            here.clock,
            since=since,
            until=until,
            rescore=rescore,
            evaluation=evaluation.name,
            fence=lease.check,
            max_rows=batch_rows(evaluator),
        ).run(show, stop)
    return totals, left if stop.is_set() else 0


def _chosen(store: EvaluationStore, endpoint: str, name: str) -> Evaluation:
    """The evaluation that is meant: by its name, by its evaluator, or an evaluator with its own defaults."""
    here = [each.evaluation for each in store.all() if each.evaluation.endpoint == endpoint]
    named = [each for each in here if each.name == name] or [each for each in here if each.score_name == name]
    named = named or [each for each in here if each.spec.name == name]
    if len(named) > 1:
        raise Invalid(
            f"endpoint '{endpoint}' has several evaluations with '{name}'.",
            field="--evaluator",
            fix=f"Use one of: {', '.join(each.name for each in named)}.",
        )
    if named:
        return named[0]
    if name not in known_evaluators():
        known = ", ".join([*(each.name for each in here), *known_evaluators()])
        raise Invalid(
            f"there is no evaluation or evaluator '{name}'.", field="--evaluator", fix=f"Use one of: {known}."
        )
    return Evaluation(name=f"{endpoint}-{name}", endpoint=endpoint, spec=EvaluatorSpec(name))
