"""The matching of feedback as a job of the scheduler, and what it counts."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from datetime import timedelta
from functools import partial

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from collector.catalog import Catalog
from collector.feedback_matching import FeedbackMatching
from evaluators.runs.schedule import Job
from servelens.clock import Clock
from servelens.settings import Settings


def build_matching(settings: Settings, catalog: Catalog, clock: Clock) -> FeedbackMatching:
    """Looks for the records of feedback without an endpoint."""
    return FeedbackMatching(catalog, clock, wait=timedelta(seconds=settings.feedback.wait_s))


def matching_job(settings: Settings, matching: FeedbackMatching, stop: threading.Event) -> Job:
    """The job."""
    return Job("match feedback", settings.feedback.every_s, partial(matching.run, stop))


def matching_metrics(matching: FeedbackMatching | None) -> Iterable[Metric]:
    """How many feedbacks found their record, wait for it, and were given up; nothing while this process does not match."""
    moved = CounterMetricFamily("servelens_feedback_matched", "Feedback that found its record.")
    waiting = GaugeMetricFamily("servelens_feedback_waiting", "Feedback whose record is still looked for.")
    unmatched = GaugeMetricFamily(
        "servelens_feedback_unmatched",
        "Feedback that was given up, by the endpoint that its sender named.",
        labels=["endpoint"],
    )
    if matching is not None:
        moved.add_metric([], matching.moved)
        if matching.last is not None:
            waiting.add_metric([], matching.last.waiting)
            for endpoint, count in matching.last.unmatched.items():
                unmatched.add_metric([endpoint], count)
    return [moved, waiting, unmatched]
