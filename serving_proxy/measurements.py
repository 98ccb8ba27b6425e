"""What one worker counts, cheap enough for every invocation, and its publication to the other workers.

Each worker writes its numbers to ``metrics.json`` in its spool directory about once a second (atomically,
off the loop); whichever worker is asked for ``/metrics`` renders its own live numbers and the files of
the others. Every series has the label ``worker``, so counters stay monotonic whoever answers. Histogram
names follow OpenTelemetry's semantic conventions for generative AI.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from collector.record import Record
from servelens.errors import Unavailable

_BOUNDS_S: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0),
    *(2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0),
)
_STALE_S: Final = 15.0
FILE_NAME: Final = "metrics.json"


class Distribution(msgspec.Struct):
    """A histogram: how many values fell into each bucket (the last one is beyond all bounds), and their
    sum.
    """

    counts: list[int] = msgspec.field(default_factory=lambda: [0] * (len(_BOUNDS_S) + 1))
    total_s: float = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(_BOUNDS_S, seconds)] += 1
        self.total_s += seconds


class Published(msgspec.Struct):
    """One worker's numbers as they stand in its file."""

    worker: str
    written_at_us: int
    accepted: int
    dropped: int
    pending: int
    in_flight: int
    log_stalls: int
    requests: list[tuple[str, int, int]]
    durations: dict[str, Distribution]
    first_tokens: dict[str, Distribution]


_decode = msgspec.json.Decoder(Published).decode


class Measurements:
    """Counts of one worker since it started."""

    def __init__(self) -> None:
        self.log_stalls = 0
        self._requests: dict[tuple[str, int], int] = {}
        self._durations: dict[str, Distribution] = {}
        self._first_tokens: dict[str, Distribution] = {}

    def observe(self, record: Record) -> None:
        """Count one invocation by its record."""
        endpoint = record.endpoint
        key = (endpoint, record.status_code)
        self._requests[key] = self._requests.get(key, 0) + 1
        durations = self._durations.get(endpoint)
        if durations is None:
            durations = self._durations[endpoint] = Distribution()
        durations.add(record.duration_us * 1e-6)
        if record.time_to_first_token_us is not None:
            first_tokens = self._first_tokens.setdefault(endpoint, Distribution())
            first_tokens.add(record.time_to_first_token_us * 1e-6)

    def published(
        self, worker: str, *, now_us: int, accepted: int, dropped: int, pending: int, in_flight: int
    ) -> Published:
        """A copy that another thread may write."""
        return Published(
            worker=worker,
            written_at_us=now_us,
            accepted=accepted,
            dropped=dropped,
            pending=pending,
            in_flight=in_flight,
            log_stalls=self.log_stalls,
            requests=[(endpoint, status, count) for (endpoint, status), count in self._requests.items()],
            durations={name: Distribution(list(d.counts), d.total_s) for name, d in self._durations.items()},
            first_tokens={
                name: Distribution(list(d.counts), d.total_s) for name, d in self._first_tokens.items()
            },
        )


def write_published(published: Published, directory: Path) -> None:
    """Replace the worker's file. Raises Unavailable when the folder cannot be written."""
    temporary = directory / f"{FILE_NAME}.new"
    try:
        temporary.write_bytes(msgspec.json.encode(published))
        temporary.replace(directory / FILE_NAME)
    except OSError as error:
        raise Unavailable(f"the metrics file in {directory} cannot be written: {error.strerror}") from error


def read_others(spool_root: Path, own_slot: str, *, now_us: int) -> list[Published]:
    """The numbers of the other live workers; files that are stale, unreadable or half-written are left
    out.
    """
    others = []
    for path in sorted(spool_root.glob(f"*/{FILE_NAME}")):
        if path.parent.name == own_slot:
            continue
        try:
            published = _decode(path.read_bytes())
        except (OSError, msgspec.DecodeError):
            continue
        if now_us - published.written_at_us < _STALE_S * 1e6:
            others.append(published)
    return others


def render(workers: Iterable[Published]) -> bytes:
    """The text that Prometheus scrapes."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(list(workers)))
    return generate_latest(registry)


class _Families(Collector):
    def __init__(self, workers: list[Published]) -> None:
        self._workers = workers

    def collect(self) -> Iterable[Metric]:
        accepted = CounterMetricFamily(
            "servelens_records_accepted",
            "Records handed to the spool, dropped ones included",
            labels=["worker"],
        )
        dropped = CounterMetricFamily(
            "servelens_records_dropped", "Records the spool could not keep", labels=["worker"]
        )
        pending = GaugeMetricFamily(
            "servelens_records_pending", "Records waiting for the spool's disk", labels=["worker"]
        )
        stalls = CounterMetricFamily(
            "servelens_log_stalls", "Answers released before their record was durable", labels=["worker"]
        )
        in_flight = GaugeMetricFamily(
            "servelens_requests_in_flight", "Invocations not finished", labels=["worker"]
        )
        requests = CounterMetricFamily(
            "servelens_requests",
            "Invocations by endpoint and status",
            labels=["worker", "endpoint", "status"],
        )
        durations = HistogramMetricFamily(
            "gen_ai_server_request_duration_seconds",
            "Time from request to record",
            labels=["worker", "gen_ai_endpoint"],
        )
        first_tokens = HistogramMetricFamily(
            "gen_ai_server_time_to_first_token_seconds",
            "Time to the first chunk of a stream",
            labels=["worker", "gen_ai_endpoint"],
        )
        for each in self._workers:
            accepted.add_metric([each.worker], each.accepted)
            dropped.add_metric([each.worker], each.dropped)
            pending.add_metric([each.worker], each.pending)
            stalls.add_metric([each.worker], each.log_stalls)
            in_flight.add_metric([each.worker], each.in_flight)
            for endpoint, status, count in each.requests:
                requests.add_metric([each.worker, endpoint, str(status)], count)
            for endpoint, distribution in each.durations.items():
                _add(durations, [each.worker, endpoint], distribution)
            for endpoint, distribution in each.first_tokens.items():
                _add(first_tokens, [each.worker, endpoint], distribution)
        return [accepted, dropped, pending, stalls, in_flight, requests, durations, first_tokens]


def _add(family: HistogramMetricFamily, labels: list[str], distribution: Distribution) -> None:
    below = 0
    buckets: list[tuple[str, float]] = []
    for bound, count in zip((*_BOUNDS_S, None), distribution.counts, strict=True):
        below += count
        buckets.append(("+Inf" if bound is None else repr(bound), below))
    family.add_metric(labels, buckets, distribution.total_s)
