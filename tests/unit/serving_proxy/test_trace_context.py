"""W3C trace context: what is valid passes unchanged and is recorded, the rest does neither."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving_proxy.trace_context import can_be_forwarded, trace_id
from tests.backends import OpenAIBackend
from tests.unit.serving_proxy.running_proxy import call, chat, connect, one_entity, post, running_proxy

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
MALFORMED = [
    f"00-{'0' * 32}-00f067aa0ba902b7-01",
    f"00-{TRACE}-{'0' * 16}-01",
    f"ff-{TRACE}-00f067aa0ba902b7-01",
    f"00-{TRACE.upper()}-00f067aa0ba902b7-01",
    f"00-{TRACE[:-1]}g-00f067aa0ba902b7-01",
    f"00-{TRACE}-00f067aa0ba902b7-01-more",
    f"00-{TRACE}-00f067aa0ba902b7",
    f"0-{TRACE}-00f067aa0ba902b7-01",
    f"cc-{TRACE}-00f067aa0ba902b7-01x",
    "nonsense",
    "",
]


@pytest.mark.parametrize(
    "value",
    [
        PARENT,
        PARENT[:-2] + "00",
        f"cc-{TRACE}-00f067aa0ba902b7-01",
        f"cc-{TRACE}-00f067aa0ba902b7-01-what-ever",
    ],
)
def test_a_valid_parent(value: str) -> None:
    headers = [(b"traceparent", value.encode())]
    assert trace_id(dict(headers)) == TRACE
    assert can_be_forwarded(headers)


@pytest.mark.parametrize("value", MALFORMED)
def test_a_malformed_parent(value: str) -> None:
    headers = [(b"traceparent", value.encode())]
    assert trace_id(dict(headers)) is None
    assert not can_be_forwarded(headers)


async def test_it_is_passed_on_unchanged_and_recorded(tmp_path: Path) -> None:
    async with OpenAIBackend() as backend, running_proxy(tmp_path, one_entity(backend.url)) as proxy:
        await call(proxy, chat(), traceparent=PARENT, tracestate="congo=t61rcWkgMzE,rojo=00f067aa0ba902b7")
        headers = backend.received[0].headers
        record = await proxy.record()
    assert headers["traceparent"] == PARENT
    assert headers["tracestate"] == "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"
    assert record.trace_id == TRACE


async def test_what_is_malformed_goes_no_further(tmp_path: Path) -> None:
    async with OpenAIBackend() as backend, running_proxy(tmp_path, one_entity(backend.url)) as proxy:
        for value in MALFORMED:
            await call(proxy, chat(), traceparent=value, tracestate="congo=1")
        await call(proxy, chat(), tracestate="congo=1")
        twice = post(chat()).replace(
            b"\r\n\r\n", f"\r\ntraceparent: {PARENT}\r\ntraceparent: {PARENT}\r\n\r\n".encode(), 1
        )
        async with connect(proxy) as client:
            await client.send(twice)
            assert (await client.answer()).status == 200
        for received in backend.received:
            assert "traceparent" not in received.headers
            assert "tracestate" not in received.headers
        assert len(backend.received) == len(MALFORMED) + 2
        assert {record.trace_id for record in proxy.records()[: len(MALFORMED) + 1]} == {None}
