"""Keys and rate limits on a running worker: the answer on the wire, and what stands on the record."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from serving_proxy.authentication import Key, Keys, Requester, digest_of
from serving_proxy.endpoint import Gateway, RateLimit
from serving_proxy.routing import Snapshot
from tests.backends import OpenAIBackend
from tests.unit.serving_proxy.running_proxy import (
    call,
    chat,
    connect,
    eventually,
    get,
    one_entity,
    post,
    running_proxy,
)

ADA = {"authorization": "Bearer sl-ada"}
BOB = {"x_api_key": "sl-bob"}
KEYS = Keys(
    {
        digest_of(b"sl-ada"): Key(Requester("ada", frozenset({"invoke"}), "k1")),
        digest_of(b"sl-bob"): Key(Requester("bob", frozenset({"invoke"}), "k2")),
        digest_of(b"sl-eve"): Key(Requester("eve", frozenset({"annotate"}), "k3")),
    },
    required=True,
)


def served(url: str, *limits: RateLimit, keys: Keys = KEYS) -> Snapshot:
    """Endpoint ``chat`` with these limits and keys."""
    (endpoint,) = one_entity(url).endpoints.values()
    return Snapshot.of([replace(endpoint, gateway=Gateway(rate_limits=limits))], (), keys)


@pytest.mark.parametrize(
    ("headers", "status", "error_type", "code"),
    [({}, 401, "unauthenticated", "invalid_api_key"), ({"api_key": "sl-eve"}, 403, "forbidden", "forbidden")],
)
async def test_a_refused_call(
    tmp_path: Path, headers: dict[str, str], status: int, error_type: str, code: str
) -> None:
    async with OpenAIBackend() as backend, running_proxy(tmp_path, served(backend.url)) as proxy:
        answer = await call(proxy, chat("a secret question"), **headers)
        record = await proxy.record()
        assert backend.received == []
    assert answer.status == status
    assert answer.headers.get("www-authenticate") == ("Bearer" if status == 401 else None)
    assert answer.json()["error"]["code"] == code
    assert (record.status_code, record.error_type, record.requester) == (status, error_type, None)
    assert not record.request


async def test_a_repeated_head_is_asked_again_when_the_keys_change(tmp_path: Path) -> None:
    async with OpenAIBackend() as backend:
        first = served(backend.url)
        async with running_proxy(tmp_path, first, refresh_s=0.02) as proxy, connect(proxy) as client:
            for _ in range(3):
                await client.send(post(chat(), **ADA))
                assert (await client.answer()).status == 200
            proxy.pending.append(served(backend.url, keys=Keys({}, required=True)))
            await eventually(lambda: not proxy.pending)

            async def refused() -> bool:
                await client.send(post(chat(), **ADA))
                return (await client.answer()).status == 401

            for _ in range(200):
                if await refused():
                    break
            assert await refused()
            assert (await get(proxy, "/v1/models")).status == 401
            records = proxy.records()
    assert [record.requester for record in records[:3]] == ["ada"] * 3


async def test_a_call_over_the_limit(tmp_path: Path) -> None:
    limits = (RateLimit("user", calls=2), RateLimit("endpoint", calls=3))
    async with OpenAIBackend() as backend:
        snapshot = served(backend.url, *limits)
        async with (
            running_proxy(tmp_path, snapshot) as one,
            running_proxy(tmp_path, snapshot, slot="proxy-1") as two,
        ):
            assert [(await call(proxy, chat(), **ADA)).status for proxy in (one, two, one)] == [200, 200, 429]
            refused = await call(two, chat(), **ADA)
            assert [(await call(one, chat(), **BOB)).status for _ in range(2)] == [200, 429]
            await eventually(lambda: len(one.records()) == 4)
            records = one.records()
    assert 58 <= int(refused.headers["retry-after"]) <= 61
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert "'ada'" in refused.json()["error"]["message"]
    assert [record.error_type for record in records] == [None, "rate_limited", None, "rate_limited"]
    assert [record.requester for record in records] == ["ada", "ada", "bob", "bob"]
    assert records[1].attempts == 0


@pytest.mark.parametrize("stream", [True, False])
async def test_tokens_of_answers_are_charged(tmp_path: Path, stream: bool) -> None:
    async with OpenAIBackend() as backend:
        snapshot = served(backend.url, RateLimit("user", tokens=5))
        async with running_proxy(tmp_path, snapshot) as proxy:
            body = chat("one two three four five six seven eight", stream=stream)
            assert (await call(proxy, body, **ADA)).status == 200
            await eventually(lambda: len(proxy.records()) == 1)
            assert (await call(proxy, body, **ADA)).status == 429
            assert (await call(proxy, body, **BOB)).status == 200
