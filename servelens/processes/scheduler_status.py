"""What the scheduler says of itself: whether it leads, how its jobs fare, and how far behind its evaluations are."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from collector.feedback_matching import FeedbackMatching
from evaluators.runs.follow import FollowedEvaluations
from evaluators.runs.schedule import Schedule
from servelens.assembly.feedback import matching_metrics
from servelens.errors import ServelensError
from servelens.leadership import Leadership

logger = logging.getLogger(__name__)

_LABELS = ["evaluation", "endpoint", "evaluator", "target"]


class SchedulerStatus:
    """Follows the scheduler through its terms: :attr:`schedule` and :attr:`evaluations` are those of the present one."""

    def __init__(self, leadership: Leadership) -> None:
        self._leadership = leadership
        self.schedule: Schedule | None = None
        self.evaluations: FollowedEvaluations | None = None
        self.matching: FeedbackMatching | None = None

    def ready(self) -> tuple[bool, Mapping[str, Any]]:
        """Ready while it runs, also when it stands by; jobs that failed last time are named in the detail and run again
        when they are due.
        """
        schedule = self.schedule
        if schedule is None or not self._leadership.leads:
            return True, {"status": "standby", "failing": {}}
        failing = {status.name: status.last_error for status in schedule.status() if status.last_error}
        return True, {"status": "degraded" if failing else "ok", "failing": failing}

    def metrics(self) -> Iterable[Metric]:
        """By job: runs, failures, the end of the last run. By evaluation: lag, rows, tokens. Of feedback: whose
        record was found, or not.
        """
        leads = GaugeMetricFamily(
            "servelens_scheduler_leader", "1 when this scheduler leads, 0 when it stands by."
        )
        leads.add_metric([], float(self._leadership.leads))
        yield leads
        yield from _of_jobs(self.schedule)
        yield from self._of_evaluations()
        yield from matching_metrics(self.matching if self._leadership.leads else None)

    def _of_evaluations(self) -> Iterable[Metric]:
        lag = GaugeMetricFamily(
            "servelens_evaluation_lag_seconds",
            "Age of the oldest record that is not scored yet, 0 when there is none.",
            labels=_LABELS,
        )
        rows = CounterMetricFamily(
            "servelens_evaluation_rows",
            "Records that were scored, unscored (with the reason) or skipped by sampling.",
            labels=[*_LABELS, "outcome", "reason"],
        )
        tokens = CounterMetricFamily(
            "servelens_evaluation_tokens", "Tokens that were scored.", labels=_LABELS
        )
        speed = GaugeMetricFamily(
            "servelens_evaluation_tokens_per_second", "In the last run that scored any.", labels=_LABELS
        )
        finished = GaugeMetricFamily(
            "servelens_evaluation_last_finished_timestamp_seconds", "End of the last run.", labels=_LABELS
        )
        failed = CounterMetricFamily("servelens_evaluation_failures", "Runs that failed.", labels=_LABELS)
        for each in self.evaluations.current if self.evaluations and self._leadership.leads else []:
            labels, tally = each.labels, each.tally
            try:
                lag.add_metric(labels, each.lag_s())
            except ServelensError as error:  # no number is better than a wrong one
                logger.warning("lag not known: evaluation=%s reason=%s", labels[0], error)
            rows.add_metric([*labels, "scored", ""], tally.scored)
            rows.add_metric([*labels, "skipped", ""], tally.skipped)
            for reason, count in list(tally.unscored.items()):
                rows.add_metric([*labels, "unscored", reason], count)
            failed.add_metric(labels, tally.failures)
            tokens.add_metric(labels, tally.tokens)
            if tally.tokens_per_s is not None:
                speed.add_metric(labels, tally.tokens_per_s)
            if tally.last_finished is not None:
                finished.add_metric(labels, tally.last_finished.timestamp())
        return [lag, rows, tokens, speed, finished, failed]


def _of_jobs(schedule: Schedule | None) -> Iterable[Metric]:
    runs = CounterMetricFamily("servelens_job_runs", "Runs of a job.", labels=["job"])
    failures = CounterMetricFamily("servelens_job_failures", "Runs that failed.", labels=["job"])
    finished = GaugeMetricFamily(
        "servelens_job_last_finished_timestamp_seconds", "End of the last run.", labels=["job"]
    )
    for status in schedule.status() if schedule is not None else []:
        runs.add_metric([status.name], status.runs)
        failures.add_metric([status.name], status.failures)
        if status.last_finished is not None:
            finished.add_metric([status.name], status.last_finished.timestamp())
    return [runs, failures, finished]
