"""Mirrored invocations: what they are, and that users never notice them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from collector.normalize import rows
from collector.record import RESPONSE_TOO_LARGE, Record
from experiments.experiment import Experiment, Variant
from servelens.errors import InvalidSettings
from serving_proxy.endpoint import (
    Backend,
    Endpoint,
    Gateway,
    Overrides,
    Pool,
    RateLimit,
    Route,
    ServedEntity,
    Shadow,
    Timeouts,
)
from serving_proxy.routing import Snapshot
from serving_proxy.shadow import is_mirrored
from tests.backends import Behaviour, OpenAIBackend
from tests.unit.serving_proxy.running_proxy import (
    RunningProxy,
    call,
    chat,
    connect,
    eventually,
    get,
    post,
    running_proxy,
)

USER = ServedEntity("user", Backend(("http://127.0.0.1:9",)))


def mirrored(user: str, shadow: str, *, backend: dict[str, Any] | None = None, **fields: Any) -> Snapshot:
    """Endpoint ``chat``: everybody is answered by ``user``, and ``candidate`` is the shadow."""
    overrides = fields.pop("overrides", Overrides())
    rules = {key: fields.pop(key) for key in ("percentage", "max_concurrency", "timeout_s") if key in fields}
    candidate = ServedEntity(
        "candidate", Backend((shadow,), **(backend or {})), entity_version="2", id="c-2", overrides=overrides
    )
    entities = (ServedEntity("user", Backend((user,))), candidate)
    shadows = (Shadow("candidate", **rules),)
    return Snapshot.of([Endpoint("chat", entities, (Route("user", 100),), shadows=shadows, **fields)])


@asynccontextmanager
async def system(
    root: Path, *, down: bool = False, **fields: Any
) -> AsyncIterator[tuple[RunningProxy, OpenAIBackend, OpenAIBackend]]:
    """A proxy, the backend of its users and that of its shadow."""
    async with OpenAIBackend() as user, OpenAIBackend() as shadow:
        snapshot = mirrored(user.url, shadow.url, **fields)
        if down:
            await shadow.stop()
        async with running_proxy(root, snapshot) as proxy:
            yield proxy, user, shadow


def split_records(proxy: RunningProxy) -> tuple[list[Record], list[Record]]:
    """Those of users, those of shadows."""
    records = proxy.records()
    return [r for r in records if not r.is_shadow], [r for r in records if r.is_shadow]


async def shadows(proxy: RunningProxy, count: int = 1) -> list[Record]:
    """The shadows' records, once there are so many."""
    await eventually(lambda: len(split_records(proxy)[1]) >= count)
    found = split_records(proxy)[1]
    assert len(found) == count
    return found


async def metric(proxy: RunningProxy, start: str) -> float:
    """The sum of the series that begin so."""
    text = (await get(proxy, "/metrics")).body.decode()
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(start))


async def test_a_mirror_is_an_invocation_of_its_own(tmp_path: Path) -> None:
    change: dict[str, Any] = {
        "overrides": Overrides(body={"temperature": 0.1}),
        "backend": {"model": "big-2"},
    }
    async with system(tmp_path, **change) as (proxy, user, shadow):
        shadow.behaviour = Behaviour(content="another answer")
        trace = "4bf92f3577b34da6a3ce929d0e0e4736"
        answer = await call(
            proxy,
            chat("good morning", user="ann"),
            x_session_id="s-1",
            x_servelens_tags="team=search",
            traceparent=f"00-{trace}-00f067aa0ba902b7-01",
        )
        assert answer.status == 200
        assert answer.headers["x-servelens-served-entity"] == "user"
        assert answer.json()["choices"][0]["message"]["content"] == "echo: good morning"
        (record,) = await shadows(proxy)
        (primary,) = split_records(proxy)[0]
    assert (primary.is_shadow, primary.shadow_of, primary.served_entity) == (False, None, "user")
    assert record.shadow_of == primary.request_id == answer.headers["x-request-id"]
    assert record.request_id != primary.request_id
    assert (record.endpoint, record.served_entity, record.entity_version) == ("chat", "candidate", "2")
    assert (record.status_code, record.error_type, record.model) == (200, None, "big-2")
    assert b"another answer" in (record.response or b"")
    assert record.request == primary.request
    assert (record.unit, record.session_id, record.trace_id) == ("ann", "s-1", trace)
    assert (record.tags, record.propensity) == ({"team": "search"}, 1.0)
    assert [attempt.served_entity for attempt in record.attempt_details] == ["candidate"]
    assert record.request_time_us >= primary.request_time_us
    (received,) = shadow.received
    assert received.headers["x-request-id"] == record.request_id
    assert received.json()["temperature"] == 0.1
    assert received.json()["model"] == "big-2"
    assert "temperature" not in user.received[0].json()


async def test_a_mirror_is_never_an_exposure(tmp_path: Path) -> None:
    async with OpenAIBackend() as backend:
        names = ("user", "other", "candidate")
        entities = tuple(ServedEntity(name, Backend((backend.url,))) for name in names)
        endpoint = Endpoint("chat", entities, (Route("user", 100),), shadows=(Shadow("candidate"),))
        control, treatment = Variant("control", "user", 50), Variant("treatment", "other", 50)
        experiment = Experiment("exp", "chat", control, (treatment,), "success_rate")
        async with running_proxy(tmp_path, Snapshot.of([endpoint], [experiment])) as proxy:
            await call(proxy, chat())
            (record,) = await shadows(proxy)
            (primary,) = split_records(proxy)[0]
    assert (primary.experiment, primary.unit) == ("exp", record.unit)
    assert (record.experiment, record.variant, record.phase) == (None, None, None)


async def test_a_stream_is_mirrored_and_aggregated(tmp_path: Path) -> None:
    async with system(tmp_path) as (proxy, _, shadow):
        shadow.behaviour = Behaviour(content="one two three four", chunks=4, chunk_delay_s=0.01)
        answer = await call(proxy, chat(stream=True, stream_options={"include_usage": True}))
        assert answer.body.endswith(b"data: [DONE]\n\n")
        (record,) = await shadows(proxy)
    table = rows([record], "w", [0])
    (row,) = table.to_pylist()
    assert (row["is_shadow"], row["is_stream"], row["response_text"]) == (True, True, "one two three four")
    assert row["output_tokens"] == 4
    assert record.time_to_first_token_us is not None
    assert record.time_to_first_token_us < record.duration_us


def test_the_share_is_a_hash_of_the_id_apart_from_routing() -> None:
    endpoint = Endpoint("chat", (USER, replace(USER, name="b")), (Route("user", 100),))
    ids = [f"request-{number}" for number in range(20_000)]
    first, second = Shadow("user", 30.0), Shadow("b", 30.0)
    chosen = {each for each in ids if is_mirrored(endpoint, first, each)}
    assert 0.29 < len(chosen) / len(ids) < 0.31
    assert chosen == {each for each in ids if is_mirrored(endpoint, first, each)}
    both = [each for each in chosen if is_mirrored(endpoint, second, each)]
    assert 0.28 < len(both) / len(chosen) < 0.32
    assert not any(is_mirrored(endpoint, Shadow("user", 0.0), each) for each in ids)
    assert all(is_mirrored(endpoint, Shadow("user", 100.0), each) for each in ids)


async def test_a_share_of_the_invocations_is_mirrored(tmp_path: Path) -> None:
    async with system(tmp_path, percentage=50.0) as (proxy, _, shadow):
        answers = [await call(proxy, chat()) for _ in range(40)]
        endpoint = mirrored("http://127.0.0.1:9", "http://127.0.0.1:9").endpoints["chat"]
        rule = Shadow("candidate", 50.0)
        expected = {a.headers["x-request-id"] for a in answers}
        expected = {each for each in expected if is_mirrored(endpoint, rule, each)}
        found = await shadows(proxy, len(expected))
        assert {record.shadow_of for record in found} == expected
        assert 0 < len(shadow.received) < 40
        assert {record.propensity for record in found} == {0.5}


async def test_mirrors_are_counted_apart(tmp_path: Path) -> None:
    async with system(tmp_path) as (proxy, _, shadow):
        shadow.script.append(Behaviour(status=500))
        for number in range(3):
            await call(proxy, chat())
            await shadows(proxy, number + 1)
        assert await metric(proxy, "servelens_requests_total") == 3.0
        assert await metric(proxy, "gen_ai_server_request_duration_seconds_count") == 3.0
        assert await metric(proxy, "servelens_records_accepted_total") == 6.0
        labels = 'servelens_shadow_requests_total{endpoint="chat",outcome="%s",served_entity="candidate"'
        assert await metric(proxy, labels % "answered") == 2.0
        assert await metric(proxy, labels % "failed") == 1.0


@pytest.mark.parametrize(
    ("behaviour", "error_type"),
    [
        (Behaviour(reset_before_answer=True), "upstream_reset"),
        (Behaviour(reset_after_chunks=2), "upstream_reset"),
        (Behaviour(hang_after_chunks=2), "upstream_timeout"),
        (Behaviour(hang=True), "upstream_timeout"),
        (Behaviour(raw=b"what?\r\n\r\n"), "upstream_invalid"),
        (Behaviour(status=503), "upstream_status"),
        (None, "upstream_connect"),
    ],
)
async def test_no_fault_of_a_shadow_reaches_the_user(
    tmp_path: Path, behaviour: Behaviour | None, error_type: str
) -> None:
    quick = {"timeouts": Timeouts(connect_s=0.3, first_byte_s=0.3, idle_s=0.3)}
    async with system(tmp_path, backend=quick, down=behaviour is None) as (proxy, user, shadow):
        shadow.behaviour = behaviour or Behaviour()
        user.behaviour = Behaviour(content="fine")
        async with connect(proxy) as client:
            for _ in range(3):
                await client.send(post(chat(stream=True)))
                answer = await client.answer()
                assert (answer.status, answer.complete) == (200, True)
                assert answer.body.endswith(b"data: [DONE]\n\n")
        found = await shadows(proxy, 3)
        assert {record.error_type for record in found} == {error_type}
        assert {record.attempts for record in found} == {1}
        assert {record.error_type for record in split_records(proxy)[0]} == {None}


async def test_a_mirror_is_not_tried_again_or_elsewhere(tmp_path: Path) -> None:
    async with system(tmp_path, gateway=Gateway(fallback=True)) as (proxy, user, shadow):
        shadow.behaviour = Behaviour(status=503, headers=(("retry-after", "0"),))
        await call(proxy, chat())
        (record,) = await shadows(proxy)
        assert (record.served_entity, record.status_code, record.attempts) == ("candidate", 503, 1)
        assert len(shadow.received) == 1
        assert len(user.received) == 1


async def test_what_is_too_much_is_dropped_and_counted(tmp_path: Path) -> None:
    async with system(tmp_path, max_concurrency=2, timeout_s=0.5) as (proxy, user, shadow):
        shadow.behaviour = Behaviour(hang=True)
        for _ in range(10):
            assert (await call(proxy, chat())).status == 200
        assert len(user.received) == 10
        await eventually(lambda: len(shadow.received) == 2)
        assert await metric(proxy, "servelens_shadow_requests_total{") == 8.0
        found = await shadows(proxy, 2)
        assert {record.error_type for record in found} == {"upstream_timeout"}
        assert all(400_000 < record.duration_us < 2_000_000 for record in found)
        assert b"within 0.5 s" in (found[0].response or b"")
        shadow.behaviour = Behaviour()
        await call(proxy, chat())  # there is room again
        await shadows(proxy, 3)


async def test_a_hanging_shadow_slows_nobody(tmp_path: Path) -> None:
    async def latencies(proxy: RunningProxy) -> list[float]:
        taken = []
        async with connect(proxy) as client:
            for _ in range(60):
                started = time.perf_counter()
                await client.send(post(chat()))
                await client.answer()
                taken.append(time.perf_counter() - started)
        return taken

    async with system(tmp_path / "without", percentage=0.0) as (proxy, _, _):
        alone = median(await latencies(proxy))
    async with system(tmp_path / "with", max_concurrency=8, timeout_s=1) as (proxy, _, shadow):
        shadow.behaviour = Behaviour(hang=True)
        beside = median(await latencies(proxy))
        await eventually(lambda: len(shadow.received) == 8)
    assert beside < alone * 3 + 0.005


async def test_a_flood_is_cut_off(tmp_path: Path) -> None:
    async with system(tmp_path, payload_limit_bytes=64 << 10) as (proxy, _, shadow):
        shadow.behaviour = Behaviour(content="x" * (48 << 20), chunks=1024)
        answer = await call(proxy, chat(stream=True))
        assert answer.complete
        (record,) = await shadows(proxy)
        assert record.response is None
        assert record.logging_error_codes == [RESPONSE_TOO_LARGE]
        assert record.client_disconnected
        await eventually(lambda: shadow.disconnects == 1)
        assert shadow.bytes_sent < 24 << 20


async def test_a_long_whole_answer_is_cut_off_too(tmp_path: Path) -> None:
    async with system(tmp_path, payload_limit_bytes=64 << 10) as (proxy, _, shadow):
        shadow.behaviour = Behaviour(body=b'{"text": "%b"}' % (b"x" * (48 << 20)))
        await call(proxy, chat())
        (record,) = await shadows(proxy)
        assert (record.response, record.logging_error_codes) == (None, [RESPONSE_TOO_LARGE])


async def test_a_request_too_large_for_the_record_is_not_mirrored(tmp_path: Path) -> None:
    async with system(tmp_path, payload_limit_bytes=2000) as (proxy, _, shadow):
        await call(proxy, chat("x" * 5000))
        assert await metric(proxy, "servelens_shadow_requests_total{") == 1.0
        assert not shadow.received
        await call(proxy, chat("short"))
        await shadows(proxy)


async def test_what_a_shadow_cannot_be_asked_is_recorded(tmp_path: Path) -> None:
    async with system(tmp_path, backend={"api": "mlflow"}) as (proxy, _, shadow):
        answer = await call(proxy, {"model": "chat", "input": "hi"}, path="/v1/responses")
        assert answer.status == 200
        (record,) = await shadows(proxy)
        assert (record.error_type, record.attempts) == ("invalid_request", 0)
        assert not shadow.received


async def test_refused_calls_are_not_mirrored(tmp_path: Path) -> None:
    async with system(tmp_path) as (proxy, _, shadow):
        assert (await call(proxy, b"{")).status == 400
        assert (await call(proxy, chat() | {"model": "nobody"})).status == 404
        await call(proxy, chat())
        await shadows(proxy)
        assert len(shadow.received) == 1


async def test_a_user_that_leaves_is_mirrored_all_the_same(tmp_path: Path) -> None:
    async with system(tmp_path) as (proxy, user, shadow):
        user.behaviour = Behaviour(chunks=4, chunk_delay_s=0.02)
        async with connect(proxy) as client:
            await client.send(post(chat(stream=True)))
            await client.chunk_after_head()
        (record,) = await shadows(proxy)
        assert (record.status_code, record.client_disconnected) == (200, False)
        assert len(shadow.received) == 1


async def test_mirrors_are_finished_when_the_worker_stops(tmp_path: Path) -> None:
    async with OpenAIBackend() as user, OpenAIBackend(Behaviour(delay_s=0.5)) as shadow:
        async with running_proxy(tmp_path, mirrored(user.url, shadow.url)) as proxy:
            await call(proxy, chat())
            await eventually(lambda: bool(shadow.received))
        primary, found = split_records(proxy)
    assert (len(primary), [record.status_code for record in found]) == (1, [200])


async def test_a_hanging_mirror_does_not_keep_the_worker(tmp_path: Path) -> None:
    async with OpenAIBackend() as user, OpenAIBackend(Behaviour(hang=True)) as shadow:
        async with running_proxy(tmp_path, mirrored(user.url, shadow.url)) as proxy:
            await call(proxy, chat())
            await eventually(lambda: bool(shadow.received))
            stopped = asyncio.get_running_loop().time()
        took_s = asyncio.get_running_loop().time() - stopped
        _, (record,) = split_records(proxy)
    assert took_s < 9
    assert record.error_type == "upstream_timeout"


async def test_a_mirror_waits_in_no_line(tmp_path: Path) -> None:
    narrow = {"pool": Pool(max_connections=1)}
    async with system(tmp_path, backend=narrow, timeout_s=0.5) as (proxy, _, shadow):
        shadow.behaviour = Behaviour(hang=True)
        for _ in range(3):
            assert (await call(proxy, chat())).status == 200
        found = await shadows(proxy, 3)
    assert sorted(str(record.error_type) for record in found) == [
        "overloaded",
        "overloaded",
        "upstream_timeout",
    ]


async def test_mirrors_use_up_no_limit_of_the_users(tmp_path: Path) -> None:
    gateway = Gateway(rate_limits=(RateLimit("endpoint", calls=4),), max_concurrency=1, max_queue=0)
    async with system(tmp_path, gateway=gateway, timeout_s=0.5) as (proxy, _, shadow):
        shadow.behaviour = Behaviour(hang=True)
        statuses = [(await call(proxy, chat())).status for _ in range(6)]
        assert statuses == [200, 200, 200, 200, 429, 429]
        found = await shadows(proxy, 4)
    assert {record.error_type for record in found} == {"upstream_timeout"}


async def test_a_sample_has_an_invocation_with_its_mirror_or_neither(tmp_path: Path) -> None:
    async with system(tmp_path, gateway=Gateway(sampling_fraction=0.5)) as (proxy, _, shadow):
        for _ in range(30):
            await call(proxy, chat())
        await eventually(lambda: len(shadow.received) == 30)
    primary, found = split_records(proxy)
    assert 0 < len(primary) < 30
    assert {record.shadow_of for record in found} == {record.request_id for record in primary}


@pytest.mark.parametrize("wrong", [{"percentage": 101.0}, {"percentage": -1.0}, {"max_concurrency": 0}])
def test_a_shadow_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidSettings, match="shadows") as caught:
        Shadow("user", **wrong)
    assert caught.value.field == f"shadows.{next(iter(wrong))}"
