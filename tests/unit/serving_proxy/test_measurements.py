"""What a worker counts, what it publishes, and what Prometheus is given."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from servelens.errors import Unavailable
from serving_proxy.distribution import (
    DURATION_S,
    FIRST_TOKEN_S,
    PER_TOKEN_S,
    TOKENS,
    cumulative,
)
from serving_proxy.endpoint import Backend, Endpoint, Route, ServedEntity
from serving_proxy.limits import Limits
from serving_proxy.measurements import MAX_SERIES, Measurements
from serving_proxy.prometheus_text import render
from serving_proxy.publication import (
    Buckets,
    Published,
    PublishedSeries,
    read_others,
    traffic_of,
    write_published,
)
from serving_proxy.routing import Snapshot
from tests.backends import Behaviour, OpenAIBackend
from tests.unit.serving_proxy.running_proxy import (
    RunningProxy,
    call,
    chat,
    connect,
    eventually,
    get,
    one_entity,
    post,
    running_proxy,
)

OURS = {
    "worker": "proxy-0",
    "gen_ai_operation_name": "chat",
    "gen_ai_provider_name": "openai",
    "gen_ai_request_model": "chat",
    "servelens_endpoint": "chat",
    "servelens_served_entity": "only",
}


async def scrape(proxy: RunningProxy) -> list[Sample]:
    answer = await get(proxy, "/metrics")
    return samples(answer.body)


def samples(text: bytes) -> list[Sample]:
    return [s for family in text_string_to_metric_families(text.decode()) for s in family.samples]


def value(found: list[Sample], name: str, **labels: str) -> float:
    """The one sample of this name with these labels, whatever else it has."""
    (only,) = [s.value for s in found if s.name == name and labels.items() <= s.labels.items()]
    return only


def published(worker: str = "w", **fields: Any) -> Published:
    defaults: dict[str, Any] = {
        "accepted": 0,
        "dropped": 0,
        "pending": 0,
        "log_stalls": 0,
        "series": [],
        "in_flight": [],
    }
    return Published(worker=worker, written_at_us=0, **{**defaults, **fields})


def series(endpoint: str, entity: str, requests: dict[int, int], error_type: str = "") -> PublishedSeries:
    counts = [sum(requests.values()), *[0] * len(DURATION_S)]
    tokens = Buckets([0] * (len(TOKENS) + 1), 5.0)
    return PublishedSeries(
        endpoint=endpoint,
        served_entity=entity,
        operation="chat",
        error_type=error_type,
        requests=requests,
        duration=Buckets(counts, 0.5),
        input_tokens=tokens,
        output_tokens=tokens,
    )


async def test_a_whole_answer_in_the_words_of_opentelemetry(tmp_path: Path) -> None:
    async with OpenAIBackend() as backend, running_proxy(tmp_path, one_entity(backend.url)) as proxy:
        await call(proxy, chat("one two three"))
        found = await scrape(proxy)
    name = "gen_ai_server_request_duration_seconds"
    assert value(found, f"{name}_count", **OURS, error_type="") == 1.0
    assert 0.0 < value(found, f"{name}_sum", **OURS) < 5.0
    bounds = [float(s.labels["le"]) for s in found if s.name == f"{name}_bucket"]
    assert bounds == [*DURATION_S, float("inf")]
    assert value(found, "gen_ai_client_token_usage_sum", **OURS, gen_ai_token_type="input") == 3.0
    assert value(found, "gen_ai_client_token_usage_sum", **OURS, gen_ai_token_type="output") == 4.0
    assert not [s for s in found if s.name.startswith(("gen_ai_server_time_to", "gen_ai_server_time_per"))]
    labels = {"worker": "proxy-0", "endpoint": "chat", "served_entity": "only", "operation": "chat"}
    assert value(found, "servelens_requests_total", **labels, status="200", error_type="") == 1.0


async def test_a_stream_has_a_first_token_and_a_pace(tmp_path: Path) -> None:
    behaviour = Behaviour(chunks=5, chunk_delay_s=0.03)
    async with OpenAIBackend(behaviour) as backend, running_proxy(tmp_path, one_entity(backend.url)) as proxy:
        await call(proxy, chat("a longer sentence", stream=True, stream_options={"include_usage": True}))
        record = await proxy.record()
        found = await scrape(proxy)
    assert record.time_to_first_token_us is not None
    first_s = record.time_to_first_token_us / 1e6
    pace_s = (record.duration_us / 1e6 - first_s) / 4
    sums = [
        value(found, f"gen_ai_server_{n}_seconds_sum", **OURS)
        for n in ("time_to_first_token", "time_per_output_token")
    ]
    assert sums == pytest.approx([first_s, pace_s])
    assert value(found, "gen_ai_client_token_usage_sum", **OURS, gen_ai_token_type="output") == 5.0
    bounds = [s.labels["le"] for s in found if s.name == "gen_ai_server_time_per_output_token_seconds_bucket"]
    assert [float(bound) for bound in bounds] == [*PER_TOKEN_S, float("inf")]
    bounds = [s.labels["le"] for s in found if s.name == "gen_ai_server_time_to_first_token_seconds_bucket"]
    assert [float(bound) for bound in bounds] == [*FIRST_TOKEN_S, float("inf")]


async def test_the_tokens_of_a_stream_too_long_to_keep(tmp_path: Path) -> None:
    async with OpenAIBackend(Behaviour(chunks=40)) as backend:
        snapshot = one_entity(backend.url, payload_limit_bytes=500)
        async with running_proxy(tmp_path, snapshot) as proxy:
            await call(proxy, chat("word " * 40, stream=True, stream_options={"include_usage": True}))
            record = await proxy.record()
            found = await scrape(proxy)
    assert record.response is None
    assert value(found, "gen_ai_client_token_usage_sum", gen_ai_token_type="output") == 40.0


async def test_failures_are_told_apart_and_have_no_pace(tmp_path: Path) -> None:
    async with OpenAIBackend() as backend, running_proxy(tmp_path, one_entity(backend.url)) as proxy:
        backend.script.extend([Behaviour(status=400), Behaviour(reset_after_chunks=3)])
        await call(proxy, chat())
        await call(proxy, chat(stream=True))
        await call(proxy, {"model": "nobody", "messages": []})
        await call(proxy, b"{")
        found = await scrape(proxy)
    count = "gen_ai_server_request_duration_seconds_count"
    assert value(found, count, **OURS, error_type="upstream_status") == 1.0
    assert value(found, count, **OURS, error_type="upstream_reset") == 1.0
    assert value(found, count, error_type="unknown_endpoint", servelens_endpoint="_unrouted") == 1.0
    assert value(found, count, error_type="invalid_request", servelens_served_entity="") == 1.0
    assert not [s for s in found if s.name.startswith(("gen_ai_server_time_to", "gen_ai_client"))]
    assert value(found, "servelens_requests_total", status="400", error_type="upstream_status") == 1.0


@pytest.mark.parametrize(
    ("path", "body", "operation"),
    [
        ("/v1/completions", {"model": "chat", "prompt": "x"}, "text_completion"),
        ("/v1/embeddings", {"model": "chat", "input": "x"}, "embeddings"),
        ("/v1/responses", {"model": "chat", "input": "x"}, "chat"),
        ("/serving-endpoints/chat/invocations", {"messages": []}, "chat"),
    ],
)
async def test_operations_have_their_names(tmp_path: Path, path: str, body: object, operation: str) -> None:
    async with (
        OpenAIBackend() as backend,
        running_proxy(tmp_path, one_entity(backend.url, model="m-1")) as proxy,
    ):
        await call(proxy, body, path)
        found = await scrape(proxy)
    labels = {"gen_ai_operation_name": operation, "gen_ai_request_model": "m-1"}
    assert value(found, "gen_ai_server_request_duration_seconds_count", **labels) == 1.0


async def test_clients_and_backends_cannot_make_series(tmp_path: Path) -> None:
    async with OpenAIBackend() as backend, running_proxy(tmp_path, one_entity(backend.url)) as proxy:
        await call(proxy, chat())
        before = {(s.name, *s.labels.items()) for s in await scrape(proxy)}
        for number in range(20):
            await call(proxy, chat(user=f"u{number}") | {"extra": number}, x_session_id=f"s{number}")
            await call(proxy, {**chat(), "model": f"m{number}"}, "/serving-endpoints/chat/invocations")
        after = {(s.name, *s.labels.items()) for s in await scrape(proxy)}
    assert before == after


async def test_what_is_in_flight(tmp_path: Path) -> None:
    async with (
        OpenAIBackend(Behaviour(hang=True)) as backend,
        running_proxy(tmp_path, one_entity(backend.url), limits=Limits(drain_s=0.1)) as proxy,
        connect(proxy) as client,
    ):
        await client.send(post(chat()))
        await eventually(lambda: bool(backend.received))
        found = await scrape(proxy)
    assert value(found, "servelens_requests_in_flight", endpoint="chat", served_entity="only") == 1.0


def test_more_series_than_there_may_be_share_one() -> None:
    measurements = Measurements()
    for number in range(MAX_SERIES + 10):
        measurements.count_shadow(f"endpoint-{number}", "candidate", "dropped")
    assert len(measurements.shadows) == MAX_SERIES + 1
    assert measurements.shadows["_other", "_other", "dropped"] == 10


def test_counters_and_gauges_of_others() -> None:
    measurements = Measurements()
    retries = measurements.counter("servelens_retries", "Attempts made again", "served_entity", "reason")
    retries["only", "503"] = retries.get(("only", "503"), 0) + 2
    waiting = [(("chat",), 3.0)]
    measurements.watch("servelens_queue", "Calls that wait", "endpoint", read=lambda: waiting, is_gauge=True)
    one = measurements.published("a", now_us=0, accepted=0, dropped=0, pending=0)
    text = render([one, published("b")])
    found = samples(text)
    assert value(found, "servelens_retries_total", worker="a", served_entity="only", reason="503") == 2.0
    assert value(found, "servelens_queue", worker="a", endpoint="chat") == 3.0
    assert b"# TYPE servelens_queue gauge" in text


def test_workers_are_summed_by_endpoint_and_entity() -> None:
    one = published(
        "a",
        series=[
            series("chat", "big", {200: 5, 429: 1}),
            series("chat", "small", {200: 2}),
            series("chat", "", {400: 3}, "invalid_request"),
            series("other", "big", {200: 100}),
        ],
        in_flight=[("chat", "big", 2), ("chat", "", 1), ("other", "big", 9)],
    )
    two = published("b", series=[series("chat", "big", {200: 1, 503: 4})], in_flight=[("chat", "big", 1)])
    found = traffic_of([one, two], "chat")
    whole, big = found[""], found["big"]
    assert set(found) == {"", "big", "small"}
    assert (whole.request_count, whole.with_status(4), whole.with_status(5)) == (16, 4, 4)
    assert (big.request_count, big.with_status(2), big.with_status(4), big.with_status(5)) == (11, 6, 1, 4)
    assert (whole.in_flight, big.in_flight) == (4, 3)
    assert (sum(whole.durations), sum(big.durations), whole.duration_sum_s) == (16, 11, 2.0)
    assert (big.input_tokens, big.output_tokens) == (10, 10)
    assert set(traffic_of([], "chat")) == {""}


def test_a_bucket_counts_what_is_at_or_below_its_bound() -> None:
    assert cumulative((1.0, 2.0), [2, 1, 2]) == [("1.0", 2), ("2.0", 3), ("+Inf", 5)]


def test_the_files_of_other_workers(tmp_path: Path) -> None:
    for name in ("own", "live", "stale", "broken", "old-format"):
        (tmp_path / name).mkdir()
    now_us = 100_000_000
    for name, written_us in (("own", now_us), ("live", now_us - 1_000_000), ("stale", 1)):
        numbers = published(name, series=[series("chat", "big", {200: 5})])
        numbers.written_at_us = written_us
        write_published(numbers, tmp_path / name)
    (tmp_path / "broken" / "metrics.json").write_bytes(b'{"worker": "broken"')
    (tmp_path / "old-format" / "metrics.json").write_bytes(b'{"worker": "w", "written_at_us": 100000000}')
    (other,) = read_others(tmp_path, "own", now_us=now_us)
    assert other.worker == "live"
    assert other.series[0].requests == {200: 5}
    with pytest.raises(Unavailable, match="cannot be written"):
        write_published(other, tmp_path / "missing")


async def test_what_the_parts_count_is_shown(tmp_path: Path) -> None:
    async with OpenAIBackend() as backend, running_proxy(tmp_path, one_entity(backend.url)) as proxy:
        backend.script.append(Behaviour(status=503, headers=(("retry-after", "0"),)))
        assert (await call(proxy, chat())).status == 200
        found = await scrape(proxy)
    assert value(found, "servelens_retries_total", worker="proxy-0") == 1.0
    for name in ("fallbacks", "ejections", "rate_limited", "rate_limit_fallbacks"):
        assert value(found, f"servelens_{name}_total") == 0.0
    for line in ("endpoint", "replicas"):
        assert value(found, "servelens_overloaded_total", line=line) == 0.0
        assert value(found, "servelens_requests_queued", line=line) == 0.0


async def test_each_worker_knows_the_others(tmp_path: Path) -> None:
    async with OpenAIBackend() as backend:
        entity = ServedEntity("only", Backend((backend.url,)))
        snapshot = Snapshot.of([Endpoint("chat", (entity,), (Route("only", 100),))])
        async with (
            running_proxy(tmp_path, snapshot, slot="a") as first,
            running_proxy(tmp_path, snapshot, slot="b") as second,
        ):
            await call(first, chat())
            await call(second, chat())
            async with asyncio.timeout(10):
                while True:
                    found = await scrape(first)
                    ours = [s.labels["worker"] for s in found if s.name == "servelens_requests_total"]
                    if sorted(ours) == ["a", "b"]:
                        break
