"""What the parts of a worker count on their own, and ``/metrics`` shows: retries, fallbacks, refusals, lines."""

from __future__ import annotations

from collections.abc import Callable

from serving_proxy.data_plane import DataPlane
from serving_proxy.measurements import Measurements, Read
from serving_proxy.upstreams import Upstreams


def watch_parts(measurements: Measurements, plane: DataPlane, upstreams: Upstreams) -> None:
    """Called once, when the worker is built."""
    attempts, gates, admission = plane.attempts, plane.gates, plane.admission
    watch = measurements.watch
    watch("servelens_retries", "Attempts made again", read=_one(lambda: attempts.retries))
    watch(
        "servelens_fallbacks",
        "Invocations that went on to the endpoint's next served entity",
        read=_one(lambda: attempts.fallbacks),
    )
    watch(
        "servelens_ejections",
        "Replicas taken out because they failed or were slow",
        read=_one(lambda: upstreams.ejections),
    )
    watch("servelens_rate_limited", "Invocations over a rate limit", read=_one(lambda: admission.refused))
    watch(
        "servelens_rate_limit_fallbacks",
        "Looks at the shared rate limits that failed, so that this machine counted alone",
        read=_one(lambda: admission.fallbacks),
    )
    watch(
        "servelens_overloaded",
        "Invocations refused because a line was full or too slow: the endpoint's or the replicas'",
        "line",
        read=lambda: [(("endpoint",), gates.refused), (("replicas",), upstreams.refused)],
    )
    watch(
        "servelens_requests_queued",
        "Invocations that wait for their turn",
        "line",
        read=lambda: [(("endpoint",), gates.queued), (("replicas",), upstreams.queued)],
        is_gauge=True,
    )


def _one(value: Callable[[], int]) -> Read:
    return lambda: [((), value())]
