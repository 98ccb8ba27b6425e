"""Alerts as Prometheus metrics, for who has an alerting of their own, or watches this one.

They come from the database and are those of all schedulers together. When it is away, ``servelens_alerts_readable`` is 0
and the others are absent: no number is better than a wrong one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from prometheus_client.core import GaugeMetricFamily, Metric

from evaluators.alerts.overview import AlertOverview
from servelens.errors import ServelensError

logger = logging.getLogger(__name__)


def alert_metrics(overview: AlertOverview) -> Iterable[Metric]:
    """Firing alerts by rule, endpoint and severity; deliveries of the kept incidents by channel and status."""
    readable = GaugeMetricFamily("servelens_alerts_readable", "Whether the state of alerts could be read.")
    try:
        firing, deliveries = overview.firing(), overview.delivery_counts()
    except ServelensError as error:
        logger.warning("alerts are not in the metrics: %s", error)
        readable.add_metric([], 0)
        return [readable]
    readable.add_metric([], 1)
    alerts = GaugeMetricFamily(
        "servelens_alerts_firing", "Slices of a rule that fire.", labels=["rule", "endpoint", "severity"]
    )
    for rule, endpoint, severity, count in firing:
        alerts.add_metric([rule, endpoint, severity], count)
    sent = GaugeMetricFamily(
        "servelens_alert_deliveries",
        "Notifications of the last 90 days: waiting, sent, failed (refused for good) or expired.",
        labels=["channel", "status"],
    )
    for channel, status, count in deliveries:
        sent.add_metric([channel, status], count)
    return [readable, alerts, sent]
