"""The next served entity answers when one cannot."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from experiments.experiment import Experiment, Variant
from serving_proxy.endpoint import Backend, Endpoint, Gateway, Overrides, Pool, Retries, Route, ServedEntity
from serving_proxy.routing import Snapshot
from tests.backends import Behaviour, OpenAIBackend, backends
from tests.unit.serving_proxy.running_proxy import call, chat, running_proxy

NOWHERE = "http://127.0.0.1:9"
ONCE = Retries(attempts=1)


def chain(
    urls: Mapping[str, str], *, experiment: Experiment | None = None, fallback: bool = True, **fields: Any
) -> Snapshot:
    """Endpoint ``chat``; the first entity gets all traffic, the others stand by."""
    entities = tuple(
        ServedEntity(
            name,
            Backend((url,), model=f"model-{name}", retries=ONCE, **fields),
            overrides=Overrides(body={"seed": number}),
        )
        for number, (name, url) in enumerate(urls.items())
    )
    routes = tuple(Route(entity.name, 100.0 if entity is entities[0] else 0.0) for entity in entities)
    endpoint = Endpoint("chat", entities, routes, gateway=Gateway(fallback=fallback))
    return Snapshot.of([endpoint], [] if experiment is None else [experiment])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (Behaviour(status=429), (429, None)),
        (Behaviour(status=500), (500, None)),
        (Behaviour(status=503, headers=(("retry-after", "600"),)), (503, None)),
        (Behaviour(reset_before_answer=True), (None, "upstream_reset")),
        (Behaviour(raw=b"SSH-2.0\r\n"), (None, "upstream_invalid")),
    ],
)
async def test_the_next_entity_answers(
    tmp_path: Path, fault: Behaviour, outcome: tuple[int | None, str | None], stream: bool
) -> None:
    async with OpenAIBackend(fault) as first, OpenAIBackend() as second, OpenAIBackend() as third:
        snapshot = chain({"first": first.url, "second": second.url, "third": third.url})
        async with running_proxy(tmp_path, snapshot) as proxy:
            answer = await call(proxy, chat(stream=stream))
            record = await proxy.record()
    assert (answer.status, answer.complete) == (200, True)
    assert answer.headers["x-servelens-served-entity"] == record.served_entity == "second"
    assert record.model == "model-second"
    assert [(each.served_entity, each.status, each.error_type) for each in record.attempt_details] == [
        ("first", *outcome),
        ("second", 200, None),
    ]
    assert second.received[0].json()["model"] == "model-second"  # put anew, for whoever is asked
    assert second.received[0].json()["seed"] == 1
    assert not third.received
    assert (record.error_type, record.attempts) == (None, 2)


async def test_each_entity_is_asked_once_and_the_last_answer_passed_on(tmp_path: Path) -> None:
    async with backends(2) as (second, third):
        second.behaviour = Behaviour(status=500, content="second")
        third.behaviour = Behaviour(status=429, headers=(("retry-after", "7"),))
        snapshot = chain({"first": NOWHERE, "second": second.url, "third": third.url})
        async with running_proxy(tmp_path, snapshot) as proxy:
            answer = await call(proxy, chat())
            record = await proxy.record()
    assert (answer.status, answer.headers["retry-after"]) == (429, "7")
    assert [attempt.served_entity for attempt in record.attempt_details] == ["first", "second", "third"]
    assert record.served_entity == "third"


async def test_when_the_next_one_cannot_be_reached_that_is_the_failure(tmp_path: Path) -> None:
    async with (
        OpenAIBackend(Behaviour(status=500)) as first,
        running_proxy(tmp_path, chain({"first": first.url, "second": NOWHERE})) as proxy,
    ):
        answer = await call(proxy, chat())
        record = await proxy.record()
    assert answer.status == 502
    assert "'second'" in answer.json()["error"]["message"]
    assert record.error_type == "upstream_connect"


async def test_a_client_s_mistake_is_nobody_s_failure(tmp_path: Path) -> None:
    async with (
        OpenAIBackend(Behaviour(status=400)) as first,
        OpenAIBackend() as second,
        running_proxy(tmp_path, chain({"first": first.url, "second": second.url})) as proxy,
    ):
        answer = await call(proxy, chat())
    assert answer.status == 400
    assert not second.received


async def test_without_the_setting_nobody_else_is_asked(tmp_path: Path) -> None:
    async with OpenAIBackend(Behaviour(status=500)) as first, OpenAIBackend() as second:
        snapshot = chain({"first": first.url, "second": second.url}, fallback=False)
        async with running_proxy(tmp_path, snapshot) as proxy:
            answer = await call(proxy, chat())
    assert answer.status == 500
    assert not second.received


async def test_an_entity_that_the_client_has_named_is_not_replaced(tmp_path: Path) -> None:
    async with (
        OpenAIBackend(Behaviour(status=500)) as first,
        OpenAIBackend() as second,
        running_proxy(tmp_path, chain({"first": first.url, "second": second.url})) as proxy,
    ):
        path = "/serving-endpoints/chat/served-models/first/invocations"
        answer = await call(proxy, chat(), path)
    assert answer.status == 500
    assert not second.received


async def test_the_assigned_variant_stays_what_it_was(tmp_path: Path) -> None:
    experiment = Experiment(
        name="ab",
        endpoint="chat",
        control=Variant("control", "first", 50),
        treatments=(Variant("treatment", "second", 50),),
        primary_metric="latency_ms",
        unit="request",
    )
    async with OpenAIBackend(Behaviour(status=503)) as first, OpenAIBackend() as second:
        snapshot = chain({"first": first.url, "second": second.url}, experiment=experiment)
        async with running_proxy(tmp_path, snapshot) as proxy:
            answers = [await call(proxy, chat()) for _ in range(30)]
            records = proxy.records()
    assert {answer.status for answer in answers} == {200}
    assert {record.served_entity for record in records} == {"second"}
    assert {(record.variant, record.attempts) for record in records} == {("control", 2), ("treatment", 1)}


async def test_an_entity_that_has_no_room_is_passed_by(tmp_path: Path) -> None:
    async with OpenAIBackend(Behaviour(delay_s=60)) as first, OpenAIBackend() as second:
        snapshot = chain(
            {"first": first.url, "second": second.url}, pool=Pool(max_connections=0, max_queue=0)
        )
        entities = snapshot.endpoints["chat"].served_entities
        roomy = ServedEntity("second", Backend((second.url,)))
        endpoint = Endpoint(
            "chat",
            (entities[0], roomy),
            snapshot.endpoints["chat"].routes,
            gateway=Gateway(fallback=True),
        )
        async with running_proxy(tmp_path, Snapshot.of([endpoint])) as proxy:
            answer = await call(proxy, chat())
            record = await proxy.record()
    assert answer.status == 200
    assert (record.served_entity, record.attempts) == ("second", 1)


async def test_an_answer_that_has_begun_is_not_replaced(tmp_path: Path) -> None:
    async with (
        OpenAIBackend(Behaviour(close_after_chunks=2)) as first,
        OpenAIBackend() as second,
        running_proxy(tmp_path, chain({"first": first.url, "second": second.url})) as proxy,
    ):
        answer = await call(proxy, chat(stream=True))
    assert not answer.complete
    assert not second.received


MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude",
    "content": [{"type": "text", "text": "bonjour"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 3, "output_tokens": 1},
}


async def test_the_call_is_translated_anew_for_whoever_answers(tmp_path: Path) -> None:
    whole = json.dumps(MESSAGE).encode()
    async with OpenAIBackend(Behaviour(status=500)) as first, OpenAIBackend() as second:
        second.script.append(Behaviour(body=whole[:-40], declared_length=len(whole)))
        second.behaviour = Behaviour(body=whole)
        entities = (
            ServedEntity("first", Backend((first.url,))),
            ServedEntity("second", Backend((second.url,), api="anthropic", model="claude")),
        )
        gateway = Gateway(fallback=True)
        endpoint = Endpoint("chat", entities, (Route("first", 100),), gateway=gateway)
        async with running_proxy(tmp_path, Snapshot.of([endpoint])) as proxy:
            answer = await call(proxy, chat())
            record = await proxy.record()
    assert answer.json()["choices"][0]["message"]["content"] == "bonjour"
    assert [received.path for received in second.received] == ["/v1/messages"] * 2
    assert [(each.status, each.error_type) for each in record.attempt_details] == [
        (500, None),
        (200, "upstream_reset"),
        (200, None),
    ]
    assert record.response == answer.body
