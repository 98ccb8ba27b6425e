"""What an endpoint does not keep is in no byte of the spool; clients and backends notice nothing."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from servelens.errors import InvalidSettings
from serving_proxy.endpoint import Backend, Endpoint, Gateway, Route, ServedEntity
from serving_proxy.privacy import PAYLOAD_NOT_LOGGED
from serving_proxy.redaction import REDACTION_FAILED, pseudonym
from serving_proxy.routing import Snapshot
from serving_proxy.sampling import is_sampled
from tests.backends import Behaviour, OpenAIBackend
from tests.unit.serving_proxy.running_proxy import (
    RunningProxy,
    call,
    chat,
    connect,
    eventually,
    post,
    running_proxy,
)

SECRET = "tOpSeCrEt"
MARK = "[REDACTED]"


def endpoint(url: str, name: str = "chat", **gateway: Any) -> Endpoint:
    return Endpoint(
        name, (ServedEntity("only", Backend((url,))),), (Route("only", 100),), gateway=Gateway(**gateway)
    )


def spooled(proxy: RunningProxy) -> bytes:
    return b"".join(path.read_bytes() for path in proxy.directory.rglob("*") if path.is_file())


async def test_redacted_values_are_in_no_byte_of_the_spool(tmp_path: Path) -> None:
    paths = ("$.user", "$.messages[*].name", "$..ssn")
    answer = {"choices": [{"message": {"content": "hi"}}], "user": SECRET, "a": [{"ssn": SECRET}], "n": 1}
    async with OpenAIBackend(Behaviour(body=json.dumps(answer).encode())) as backend:
        snapshot = Snapshot.of([endpoint(backend.url, redact_paths=paths, pseudonym_key=b"k")])
        body = chat(user=SECRET, metadata={"ssn": SECRET, "kept": "yes"})
        body["messages"][0]["name"] = SECRET
        async with running_proxy(tmp_path, snapshot) as proxy:
            got = await call(proxy, body, authorization=f"Bearer {SECRET}", cookie=SECRET, x_api_key=SECRET)
            record = await proxy.record()
            assert SECRET.encode() not in spooled(proxy)
    assert got.json() == answer
    assert backend.received[0].json() == body
    assert record.request is not None
    assert record.response is not None
    assert json.loads(record.request) == {
        "model": "chat",
        "messages": [{"role": "user", "content": "hello world", "name": MARK}],
        "user": MARK,
        "metadata": {"ssn": MARK, "kept": "yes"},
    }
    assert json.loads(record.response) == {**answer, "user": MARK, "a": [{"ssn": MARK}]}
    assert record.unit == pseudonym(SECRET, b"k")
    assert record.logging_error_codes == []


async def test_a_stream_that_the_client_leaves_does_not_leak(tmp_path: Path) -> None:
    event = b'data: {"user":"tOpSeCrEt","choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
    async with OpenAIBackend(Behaviour(raw=head + event * 3 + event[:30])) as backend:
        snapshot = Snapshot.of([endpoint(backend.url, redact_paths=("$.user",))])
        async with running_proxy(tmp_path, snapshot) as proxy:
            got = await call(proxy, chat(stream=True))
            record = await proxy.record()
            assert SECRET.encode() not in spooled(proxy)
    assert got.body.startswith(event * 3)
    assert record.response is not None
    assert record.response.count(b"[REDACTED]") == 3


async def test_calls_that_reach_no_endpoint_are_kept_as_the_strictest_would(tmp_path: Path) -> None:
    snapshot = Snapshot.of(
        [endpoint("http://127.0.0.1:9", "open"), endpoint("http://127.0.0.1:9", redact_paths=("$.user",))]
    )
    async with running_proxy(tmp_path, snapshot) as proxy:
        assert (await call(proxy, {**chat(user=SECRET), "model": "nobody"})).status == 404
        assert (await call(proxy, b'{"user": "tOpSeCrEt", "messages": [')).status == 400
        await eventually(lambda: len(proxy.records()) == 2)
        first, second = proxy.records()
        assert SECRET.encode() not in spooled(proxy)
    assert first.request is not None
    assert json.loads(first.request)["user"] == MARK
    assert (second.request, second.logging_error_codes) == (None, [REDACTION_FAILED])


async def test_an_unrouted_call_has_no_body_when_an_endpoint_keeps_none(tmp_path: Path) -> None:
    snapshot = Snapshot.of([endpoint("http://127.0.0.1:9", payload_logging="off")])
    async with running_proxy(tmp_path, snapshot) as proxy:
        assert (await call(proxy, {**chat(SECRET), "model": "nobody"})).status == 404
        record = await proxy.record()
    assert (record.request, record.response) == (None, None)


@pytest.mark.parametrize("body", [b"<html>tOpSeCrEt</html>", b'{"user": "tOpSeCrEt"', b"tOpSeCrEt"])
async def test_an_answer_that_is_no_json_is_not_kept(tmp_path: Path, body: bytes) -> None:
    async with OpenAIBackend(Behaviour(status=500, body=body, content_type="text/html")) as backend:
        snapshot = Snapshot.of([endpoint(backend.url, redact_paths=("$.user",))])
        async with running_proxy(tmp_path, snapshot) as proxy:
            assert (await call(proxy, chat())).status == 500
            record = await proxy.record()
    assert record.request is not None
    assert (record.response, record.logging_error_codes) == (None, [REDACTION_FAILED])


async def test_metadata_has_no_bodies(tmp_path: Path) -> None:
    async with OpenAIBackend() as backend:
        snapshot = Snapshot.of([endpoint(backend.url, payload_logging="metadata")])
        async with running_proxy(tmp_path, snapshot) as proxy:
            got = await call(proxy, chat(SECRET, user="ada"))
            record = await proxy.record()
            assert SECRET.encode() not in spooled(proxy)
    assert SECRET in got.json()["choices"][0]["message"]["content"]
    assert (record.request, record.response) == (None, None)
    assert (record.logging_error_codes, record.unit, record.status_code) == ([PAYLOAD_NOT_LOGGED], "ada", 200)


@pytest.mark.parametrize("stream", [False, True])
async def test_off_leaves_no_record_and_the_answer_is_whole(tmp_path: Path, stream: bool) -> None:
    async with OpenAIBackend() as backend:
        snapshot = Snapshot.of([endpoint(backend.url, payload_logging="off"), endpoint(backend.url, "kept")])
        async with running_proxy(tmp_path, snapshot) as proxy:
            for _ in range(3):
                got = await call(proxy, chat(SECRET, stream=stream))
                assert got.complete
                assert (b"[DONE]" if stream else SECRET.encode()) in got.body
            await call(proxy, {**chat(), "model": "kept"})
            record = await proxy.record()
            assert SECRET.encode() not in spooled(proxy)
    assert record.endpoint == "kept"


async def test_the_sample_is_the_one_that_everybody_can_compute(tmp_path: Path) -> None:
    async with OpenAIBackend() as backend:
        snapshot = Snapshot.of([endpoint(backend.url, sampling_fraction=0.5)])
        async with running_proxy(tmp_path, snapshot) as proxy, connect(proxy) as client:
            ids = []
            for _ in range(60):
                await client.send(post(chat()))
                ids.append((await client.answer()).headers["x-request-id"])
            expected = [request_id for request_id in ids if is_sampled(request_id, 0.5)]
            await eventually(lambda: len(proxy.records()) >= len(expected))
            records = proxy.records()
    assert [record.request_id for record in records] == expected
    assert 5 < len(expected) < 55
    assert {record.sampling_fraction for record in records} == {0.5}


async def test_headers_that_are_not_recorded(tmp_path: Path) -> None:
    names = ("X-Servelens-Tags", "x-session-id", "X-Client-Request-Id", "traceparent", "x-unknown")
    async with OpenAIBackend() as backend:
        snapshot = Snapshot.of([endpoint(backend.url, redact_headers=names, pseudonym_key=b"x" * 100)])
        async with running_proxy(tmp_path, snapshot) as proxy:
            await call(
                proxy,
                chat(),
                x_servelens_tags=f"a={SECRET}",
                x_session_id=SECRET,
                x_client_request_id=SECRET,
                x_unknown=SECRET,
                traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            )
            record = await proxy.record()
            assert SECRET.encode() not in spooled(proxy)
    assert (record.tags, record.session_id, record.client_request_id, record.trace_id) == (
        {},
        None,
        None,
        None,
    )
    assert record.unit is not None
    assert record.unit.startswith("anon-")
    assert backend.received[0].headers["x-session-id"] == SECRET


async def test_one_unit_keeps_one_pseudonym(tmp_path: Path) -> None:
    async with OpenAIBackend() as backend:
        snapshot = Snapshot.of([endpoint(backend.url, redact_paths=("$..user",))])
        async with running_proxy(tmp_path, snapshot) as proxy:
            await asyncio.gather(*(call(proxy, chat(user=user)) for user in ("ada", "ada", "ben")))
            await call(proxy, chat())
            await eventually(lambda: len(proxy.records()) == 4)
            *records, last = proxy.records()
    assert len({record.unit for record in records}) == 2
    assert last.unit == last.request_id


@pytest.mark.parametrize(
    "gateway", [{"redact_paths": ("$.a[?(@.b)]",)}, {"sampling_fraction": 1.5}, {"redact_paths": ("user",)}]
)
def test_rules_that_make_no_sense_are_refused_with_the_configuration(gateway: dict[str, Any]) -> None:
    with pytest.raises(InvalidSettings):
        endpoint("http://127.0.0.1:9", **gateway)
