"""Databricks' metrics of an endpoint: names and types as documented, numbers of the last minute."""

from __future__ import annotations

from datetime import UTC, datetime

from prometheus_client.openmetrics.parser import text_string_to_metric_families

from servelens.clock import ManualClock
from servelens.control.open_metrics import LastMinute, render
from serving_proxy.distribution import DURATION_S
from serving_proxy.endpoint import Backend, Endpoint, Gateway, Pool, Route, ServedEntity
from serving_proxy.publication import Buckets, Published, PublishedSeries, Traffic

ENDPOINT = Endpoint(
    "chat",
    (ServedEntity("a", Backend(("http://one", "http://two"), pool=Pool(max_connections=10))),),
    (Route("a", 100),),
)


def published(statuses: dict[int, int], worker: str = "proxy-0", endpoint: str = "chat") -> Published:
    """A worker's counts since it started; every call took 15 ms."""
    counts = [0] * (len(DURATION_S) + 1)
    counts[1] = sum(statuses.values())
    series = PublishedSeries(
        endpoint=endpoint,
        served_entity="a",
        requests=statuses,
        duration=Buckets(counts, 0.015 * counts[1]),
    )
    return Published(
        worker=worker,
        written_at_us=0,
        accepted=0,
        dropped=0,
        pending=0,
        log_stalls=0,
        in_flight=[],
        series=[series],
    )


class Minute:
    """The last minute, sampled while the clock moves."""

    def __init__(self) -> None:
        self.clock = ManualClock(datetime(2026, 5, 1, tzinfo=UTC))
        self.workers: list[Published] = []
        self.minute = LastMinute(lambda: self.workers, self.clock)

    def pass_time(self, seconds: int) -> None:
        for _ in range(seconds):
            self.minute.tick()
            self.clock.advance(1)

    def requests(self) -> dict[int, int]:
        requests = self.minute.of("chat", self.workers).requests
        return {status: count for status, count in requests.items() if count}


def test_only_the_last_minute_counts() -> None:
    minute = Minute()
    minute.workers = [published({200: 5})]
    minute.pass_time(30)
    assert minute.requests() == {}
    minute.workers = [published({200: 8, 503: 1})]
    assert minute.requests() == {200: 3, 503: 1}
    minute.pass_time(40)
    assert minute.requests() == {200: 3, 503: 1}
    minute.pass_time(35)
    assert minute.requests() == {}


def test_workers_and_endpoints_are_kept_apart_and_a_restart_counts_from_zero() -> None:
    minute = Minute()
    minute.workers = [published({200: 100}), published({200: 50}, "proxy-1")]
    minute.pass_time(6)
    minute.workers = [published({200: 2}), published({200: 51}, "proxy-1"), published({200: 9}, "p", "other")]
    assert minute.requests() == {200: 3}


def test_a_worker_that_nobody_sampled_yet_counts_whole() -> None:
    minute = Minute()
    minute.workers = [published({200: 4, 404: 1})]
    assert minute.requests() == {200: 4, 404: 1}


def test_names_and_types_are_the_documented_ones() -> None:
    minute = Minute()
    minute.workers = [published({200: 3, 404: 2, 502: 1})]
    text = render(ENDPOINT, minute.minute.of("chat", minute.workers), workers=2).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    values = {name: family.samples[0].value for name, family in families.items() if family.type == "gauge"}
    assert values == {
        "request_count_total": 6,
        "request_4xx_count_total": 2,
        "request_5xx_count_total": 1,
        "provisioned_concurrent_requests_total": 2 * 2 * 10,
    }
    latency = families["request_latency_ms"]
    assert latency.type == "histogram"
    samples = {(sample.name, sample.labels.get("le")): sample.value for sample in latency.samples}
    assert samples["request_latency_ms_bucket", "10.0"] == 0
    assert samples["request_latency_ms_bucket", "20.0"] == 6
    assert samples["request_latency_ms_count", None] == 6
    assert round(samples["request_latency_ms_sum", None]) == 90
    labels = {sample.labels["endpoint_name"] for family in families.values() for sample in family.samples}
    assert labels == {"chat"}


def test_a_bound_on_calls_at_once_is_the_provisioned_concurrency() -> None:
    bounded = Endpoint("chat", ENDPOINT.served_entities, ENDPOINT.routes, gateway=Gateway(max_concurrency=3))
    assert (
        'provisioned_concurrent_requests_total{endpoint_name="chat"} 3.0'
        in render(bounded, Traffic(), workers=1).decode()
    )
