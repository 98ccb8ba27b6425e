"""The metrics of one endpoint under Databricks' names, as OpenMetrics text.

Names and types are those of
https://docs.databricks.com/aws/en/machine-learning/model-serving/metrics-export-serving-endpoint: the counts are gauges of
the last minute in spite of their suffix, ``request_latency_ms`` is a histogram of the same minute. CPU, memory and GPU
belong to model servers, which the proxy does not see: ``cpu_usage_percentage`` and its like are left out.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Self

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from servelens.clock import Clock
from serving_proxy.distribution import DURATION_S, cumulative
from serving_proxy.endpoint import Endpoint
from serving_proxy.publication import Published, Traffic, traffic_of

CONTENT_TYPE: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_MINUTE_S: Final = 60.0
_EVERY_S: Final = 5.0
_BOUNDS_MS: Final = tuple(bound * 1000 for bound in DURATION_S)

_Sample = dict[tuple[str, str], Traffic]


class LastMinute:
    """What the workers of this machine have counted in the last minute (a little more: one step of the samples).

    ``read`` gives the present numbers of all of them, counted from their starts. One thread calls :meth:`tick`.
    """

    def __init__(self, read: Callable[[], Sequence[Published]], clock: Clock) -> None:
        self._read = read
        self._clock = clock
        self._samples: deque[tuple[float, _Sample]] = deque(maxlen=round(_MINUTE_S / _EVERY_S) + 2)

    def tick(self) -> None:
        """Keep a sample every few seconds; cheap in between."""
        now = self._clock.monotonic()
        if not self._samples or now - self._samples[-1][0] >= _EVERY_S:
            self._samples.append((now, _sample(self._read())))

    def of(self, endpoint: str, workers: Sequence[Published]) -> Traffic:
        """The calls of ``endpoint`` in the minute before the numbers of ``workers``."""
        samples = list(self._samples)
        moments = [moment for moment, _ in samples]
        index = max(0, bisect_right(moments, self._clock.monotonic() - _MINUTE_S) - 1)
        before = samples[index][1] if samples else {}
        sums = Traffic()
        for worker in workers:
            now = traffic_of([worker], endpoint)[""]
            then = before.get((worker.worker, endpoint), Traffic())
            if now.request_count < then.request_count:  # it has been restarted and counts from zero again
                then = Traffic()
            _add(sums, now, 1)
            _add(sums, then, -1)
        return sums


def _add(sums: Traffic, more: Traffic, sign: int) -> None:
    for status, count in more.requests.items():
        sums.requests[status] = sums.requests.get(status, 0) + sign * count
    sums.durations = [a + sign * b for a, b in zip(sums.durations, more.durations, strict=True)]
    sums.duration_sum_s += sign * more.duration_sum_s


def _sample(workers: Sequence[Published]) -> _Sample:
    return {
        (worker.worker, endpoint): traffic_of([worker], endpoint)[""]
        for worker in workers
        for endpoint in {series.endpoint for series in worker.series}
    }


def render(endpoint: Endpoint, minute: Traffic, workers: int) -> bytes:
    """The text for ``endpoint``, which ``workers`` processes serve on this machine."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families.of(endpoint, minute, workers))
    return generate_latest(registry) + b"# EOF\n"  # gauges and histograms read the same in both formats


@dataclass(frozen=True, slots=True, eq=False)
class _Families(Collector):
    endpoint: str
    minute: Traffic
    concurrency: int

    @classmethod
    def of(cls, endpoint: Endpoint, minute: Traffic, workers: int) -> Self:
        capacity = sum(
            len(entity.backend.urls) * entity.backend.pool.max_connections
            for entity in endpoint.served_entities
        )
        bound = endpoint.gateway.max_concurrency
        return cls(endpoint.name, minute, workers * (capacity if bound is None else min(bound, capacity)))

    def collect(self) -> list[Metric]:
        minute = self.minute
        counts = (
            ("request_count_total", "Requests in the last minute", minute.request_count),
            ("request_4xx_count_total", "4xx errors in the last minute", minute.with_status(4)),
            ("request_5xx_count_total", "5xx errors in the last minute", minute.with_status(5)),
            (
                "provisioned_concurrent_requests_total",
                "Calls at once that the configuration allows",
                self.concurrency,
            ),
        )
        families: list[Metric] = []
        for name, text, value in counts:
            gauge = GaugeMetricFamily(name, text, labels=["endpoint_name"])
            gauge.add_metric([self.endpoint], value)
            families.append(gauge)
        latency = HistogramMetricFamily(
            "request_latency_ms", "Latency of requests in the last minute", labels=["endpoint_name"]
        )
        latency.add_metric(
            [self.endpoint], cumulative(_BOUNDS_MS, minute.durations), minute.duration_sum_s * 1000
        )
        return [*families, latency]
