"""The text that Prometheus scrapes.

Names and attributes of the histograms are OpenTelemetry's semantic conventions for generative AI
(https://github.com/open-telemetry/semantic-conventions-genai, docs/gen-ai/gen-ai-metrics.md), written as
OpenTelemetry's rules for Prometheus say: dots become underscores, the unit ``s`` becomes ``_seconds``, the unit
``{token}`` is left out (https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/). Their
labels ``servelens_endpoint`` and ``servelens_served_entity`` are ours. Every series has the label ``worker``, so
counters stay monotonic whoever answers; sum over it. An empty label is an absent one to Prometheus.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from serving_proxy.distribution import DURATION_S, FIRST_TOKEN_S, PER_TOKEN_S, TOKENS, Bounds, cumulative
from serving_proxy.publication import Buckets, Counted, Published, PublishedSeries

_OF_SERIES: Final = (
    *("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model"),
    *("servelens_endpoint", "servelens_served_entity"),
)


class _Histogram(NamedTuple):
    name: str
    help: str
    bounds: Bounds
    more_labels: tuple[str, ...]
    take: Callable[[PublishedSeries], list[tuple[tuple[str, ...], Buckets | None]]]


_HISTOGRAMS: Final = (
    _Histogram(
        "gen_ai_server_request_duration_seconds",
        "Time from the request to the last byte of its answer",
        DURATION_S,
        ("error_type",),
        lambda series: [((series.error_type,), series.duration)],
    ),
    _Histogram(
        "gen_ai_server_time_to_first_token_seconds",
        "Time from the request to the first token of a stream that went well",
        FIRST_TOKEN_S,
        (),
        lambda series: [((), series.first_token)],
    ),
    _Histogram(
        "gen_ai_server_time_per_output_token_seconds",
        "Time per token after the first, of streams that went well and say how many tokens they had",
        PER_TOKEN_S,
        (),
        lambda series: [((), series.per_token)],
    ),
    _Histogram(
        "gen_ai_client_token_usage",
        "Tokens of an invocation, as the backend counts them",
        TOKENS,
        ("gen_ai_token_type",),
        lambda series: [(("input",), series.input_tokens), (("output",), series.output_tokens)],
    ),
)


def render(workers: Iterable[Published]) -> bytes:
    """The numbers of these workers."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(list(workers)))
    return generate_latest(registry)


class _Families(Collector):
    def __init__(self, workers: list[Published]) -> None:
        self._workers = workers

    def collect(self) -> Iterator[Metric]:
        yield from self._of_workers()
        yield self._requests()
        yield from map(self._histogram, _HISTOGRAMS)
        yield from self._counted()
        yield from self._spread()

    def _of_workers(self) -> Iterator[Metric]:
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
            "servelens_requests_in_flight",
            "Invocations not finished, without shadows",
            labels=["worker", "endpoint", "served_entity"],
        )
        for each in self._workers:
            accepted.add_metric([each.worker], each.accepted)
            dropped.add_metric([each.worker], each.dropped)
            pending.add_metric([each.worker], each.pending)
            stalls.add_metric([each.worker], each.log_stalls)
            for endpoint, entity, count in each.in_flight:
                in_flight.add_metric([each.worker, endpoint, entity], count)
        yield from (accepted, dropped, pending, stalls, in_flight)

    def _requests(self) -> Metric:
        requests = CounterMetricFamily(
            "servelens_requests",
            "Invocations by the status that the client was sent",
            labels=["worker", "endpoint", "served_entity", "operation", "status", "error_type"],
        )
        for each in self._workers:
            for series in each.series:
                for status, count in series.requests.items():
                    names = [each.worker, series.endpoint, series.served_entity, series.operation]
                    requests.add_metric([*names, str(status), series.error_type], count)
        return requests

    def _histogram(self, histogram: _Histogram) -> Metric:
        labels = ["worker", *_OF_SERIES, *histogram.more_labels]
        family = HistogramMetricFamily(histogram.name, histogram.help, labels=labels)
        for each in self._workers:
            for (worker, *values), buckets in _merged(each, histogram):
                family.add_metric(
                    [worker, *values], cumulative(histogram.bounds, buckets.counts), buckets.total
                )
        return family

    def _counted(self) -> Iterator[Metric]:
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for each in self._workers:
            for counted in each.counted:
                family = families.get(counted.name)
                if family is None:
                    family = families[counted.name] = _family(counted)
                for values, number in counted.values:
                    family.add_metric([each.worker, *values], number)
        yield from families.values()

    def _spread(self) -> Iterator[Metric]:
        families: dict[str, HistogramMetricFamily] = {}
        for each in self._workers:
            for spread in each.spread:
                family = families.get(spread.name)
                if family is None:
                    family = families[spread.name] = HistogramMetricFamily(
                        spread.name, spread.help, labels=["worker", *spread.labels]
                    )
                for values, buckets in spread.values:
                    counts = cumulative(tuple(spread.bounds), buckets.counts)
                    family.add_metric([each.worker, *values], counts, buckets.total)
        yield from families.values()


def _family(counted: Counted) -> CounterMetricFamily | GaugeMetricFamily:
    labels = ["worker", *counted.labels]
    if counted.is_gauge:
        return GaugeMetricFamily(counted.name, counted.help, labels=labels)
    return CounterMetricFamily(counted.name, counted.help, labels=labels)


def _merged(worker: Published, histogram: _Histogram) -> Iterable[tuple[tuple[str, ...], Buckets]]:
    """One entry a set of labels: series that differ in a label which this histogram does not have are added."""
    merged: dict[tuple[str, ...], Buckets] = {}
    for series in worker.series:
        names = (series.operation, series.provider, series.model, series.endpoint, series.served_entity)
        for more, buckets in histogram.take(series):
            if buckets is None:
                continue
            key = (worker.worker, *names, *more)
            known = merged.get(key)
            if known is None:
                merged[key] = buckets
            else:
                counts = [a + b for a, b in zip(known.counts, buckets.counts, strict=True)]
                merged[key] = Buckets(counts, known.total + buckets.total)
    return merged.items()
