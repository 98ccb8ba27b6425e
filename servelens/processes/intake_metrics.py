"""What the other ways in say about themselves in the collector's metrics."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from collector.intake.counts import Counts


def intake_metrics(counts: Counts) -> Iterable[Metric]:
    """The series; each outcome that there is has one from the start."""
    events = CounterMetricFamily(
        "servelens_intake_events",
        "CloudEvents and spans that came in; accepted ones are durable. A refused request of CloudEvents counts once.",
        labels=["way", "outcome"],
    )
    for (way, outcome), count in sorted(counts.events.items()):
        events.add_metric([way, outcome], count)
    yield events
    records = CounterMetricFamily(
        "servelens_intake_records",
        "Records made of them, by how they came to be whole or not.",
        labels=["kind"],
    )
    for kind, count in sorted(counts.records.items()):
        records.add_metric([kind], count)
    yield records
    requests = CounterMetricFamily("servelens_intake_requests", "HTTP requests.", labels=["way", "status"])
    for (way, status), count in sorted(counts.requests.items()):
        requests.add_metric([way, str(status)], count)
    yield requests
    yield GaugeMetricFamily(
        "servelens_intake_halves_waiting",
        "Requests and responses without their other half.",
        counts.halves_waiting,
    )
