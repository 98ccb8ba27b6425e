"""Feedback over HTTP at a real worker: what it takes, what it refuses and how, what lies in the spool then."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from collector.feedback_record import Feedback, Part, feedback_in
from collector.record import FEEDBACK, UNROUTED
from servelens.identifiers import RequestIds, id_at, time_us
from serving_proxy.authentication import Key, Keys, Requester, digest_of
from serving_proxy.endpoint import Backend, Endpoint, Route, ServedEntity
from serving_proxy.feedback.api import MAX_BODY_BYTES
from serving_proxy.gateway import Gateway, Guardrails
from serving_proxy.limits import Limits
from serving_proxy.redaction import pseudonym
from serving_proxy.routing import Snapshot
from tests.backends import OpenAIBackend
from tests.unit.serving_proxy.running_proxy import (
    Answer,
    RunningProxy,
    call,
    chat,
    eventually,
    get,
    one_entity,
    running_proxy,
)
from tests.unit.serving_proxy.test_durability import GatedDisk, refusing_disk

PATH = "/v1/feedback"
ID = RequestIds().next()


def endpoint(name: str, **gateway: Any) -> Endpoint:
    entity = ServedEntity("only", Backend(("http://127.0.0.1:1",)))
    return Endpoint(name, (entity,), (Route("only", 100),), gateway=Gateway(**gateway))


def serving(*endpoints: Endpoint) -> Snapshot:
    return Snapshot.of(endpoints)


ONE = serving(endpoint("chat"))
TWO = serving(endpoint("chat"), endpoint("code"))


async def send(proxy: RunningProxy, body: object, path: str = PATH, **headers: str) -> Answer:
    return await call(proxy, body, path, **headers)


async def test_every_part_is_recorded_and_nothing_else(tmp_path: Path) -> None:
    before_us = time.time_ns() // 1000
    async with running_proxy(tmp_path, ONE) as proxy:
        answer = await send(
            proxy,
            {
                "request_id": ID.upper(),
                "thumbs": "down",
                "score": 2,
                "name": "helpfulness",
                "value": False,
                "label": "poor",
                "text": "Wrong <b>city</b>",
                "corrected_answer": "Paris",
                "ground_truth": "paris",
                "tags": {"screen": "chat"},
                "user": "ada",
            },
        )
        record = await proxy.record()
    assert answer.status == 202
    said = answer.json()
    names = ["thumbs", "score", "helpfulness", "comment", "corrected_answer", "ground_truth"]
    assert said == {"feedback_id": record.request_id, "endpoint": "chat", "recorded": names}
    assert feedback_in(record) == Feedback(
        [
            Part("thumbs", 0.0, "down"),
            Part("score", 2.0),
            Part("helpfulness", 0.0, "poor"),
            Part("comment", comment="Wrong <b>city</b>"),
            Part("corrected_answer", comment="Paris"),
            Part("ground_truth", label="paris"),
        ],
        ID,
    )
    assert (record.api, record.endpoint, record.unit, record.status_code) == (FEEDBACK, "chat", "ada", 202)
    assert record.tags == {"screen": "chat"}
    assert record.requester is None
    assert before_us <= record.request_time_us <= time.time_ns() // 1000


async def test_the_id_of_a_call_is_the_one_that_its_answer_carries(tmp_path: Path) -> None:
    async with OpenAIBackend() as backend, running_proxy(tmp_path, one_entity(backend.url)) as proxy:
        answer = await call(proxy, chat())
        told = await send(proxy, {"request_id": answer.headers["x-request-id"], "thumbs": "up"})
        await eventually(lambda: len(proxy.records()) == 2)
        invocation, feedback = proxy.records()
    assert told.status == 202
    assert feedback_in(feedback).request_id == invocation.request_id
    assert time_us(invocation.request_id) == invocation.request_time_us, "feedback is joined by this time"


@pytest.mark.parametrize(
    ("path", "body", "kept_for", "named"),
    [
        (PATH, {"request_id": ID}, UNROUTED, None),
        (PATH, {"request_id": ID, "model": "code"}, "code", "code"),
        (PATH, {"request_id": ID, "endpoint": "code"}, "code", "code"),
        (PATH, {"client_request_id": "mine", "endpoint": "code"}, UNROUTED, "code"),
        ("/serving-endpoints/code/feedback", {"request_id": ID}, "code", "code"),
        ("/serving-endpoints/code/feedback", {"request_id": ID, "model": "code"}, "code", "code"),
        ("/serving-endpoints/feedback", {"request_id": ID}, UNROUTED, None),
        ("/serving-endpoints/v1/feedback", {"request_id": ID}, UNROUTED, None),
    ],
)
async def test_whose_feedback_it_is(
    tmp_path: Path, path: str, body: dict[str, Any], kept_for: str, named: str | None
) -> None:
    async with running_proxy(tmp_path, TWO) as proxy:
        answer = await send(proxy, {**body, "thumbs": "up"}, path)
        record = await proxy.record()
    assert answer.status == 202
    assert answer.json()["endpoint"] == (None if kept_for == UNROUTED else kept_for)
    assert (record.endpoint, record.model) == (kept_for, named)
    assert record.client_request_id == body.get("client_request_id")


WRONG: Sequence[tuple[Any, str, str]] = [
    (b"{", "body", "not valid JSON"),
    (b'{"score": \xff}', "body", "not valid JSON"),
    (b'{"score": NaN}', "body", "not valid JSON"),
    (7, "body", "Expected `object`"),
    ([], "body", "The list is empty"),
    ({"thumbs": "up"}, "request_id", "Exactly one of request_id and client_request_id"),
    ({"request_id": ID, "client_request_id": "c", "thumbs": "up"}, "request_id", "Exactly one"),
    ({"request_id": "chatcmpl-1", "thumbs": "up"}, "request_id", "x-request-id"),
    ({"request_id": "550e8400-e29b-41d4-a716-446655440000", "thumbs": "up"}, "request_id", "no id of a call"),
    ({"request_id": id_at(4_102_444_800_000_000, b"2100"), "thumbs": "up"}, "request_id", "not come yet"),
    ({"request_id": id_at(1_000_000, b"1970"), "thumbs": "up"}, "request_id", "before 2000"),
    ({"request_id": ID}, "body", "It says nothing"),
    ({"request_id": ID, "thumb": "up"}, "body", "unknown field `thumb`"),
    ({"request_id": ID, "thumbs": "sideways"}, "thumbs", "Send 'up' or 'down'"),
    ({"request_id": ID, "score": "good"}, "score", "Send a number"),
    (b'{"request_id": "%b", "score": 1e999}' % ID.encode(), "", ""),
    ({"request_id": ID, "value": 1}, "name", "need a name"),
    ({"request_id": ID, "name": "x"}, "name", "neither value nor label"),
    ({"request_id": ID, "name": "a b", "value": 1}, "name", "is no name"),
    ({"request_id": ID, "name": "n" * 65, "value": 1}, "name", "is no name"),
    ({"request_id": ID, "name": "comment", "label": "x"}, "name", "is a text"),
    ({"request_id": ID, "name": "thumbs", "value": 1, "thumbs": "up"}, "name", "beside it"),
    ({"request_id": ID, "comment": "a", "text": "b"}, "text", "two words for the same"),
    ({"request_id": ID, "comment": " \n"}, "comment", "blank"),
    ({"request_id": ID, "comment": "x" * 10_001}, "comment", "at most 10000 characters"),
    ({"request_id": ID, "corrected_answer": "x" * 100_001}, "corrected_answer", "at most 100000"),
    ({"request_id": ID, "name": "x", "label": "x" * 1_001}, "label", "at most 1000"),
    ({"request_id": ID, "user": "x" * 513, "thumbs": "up"}, "user", "at most 512"),
    ({"request_id": ID, "ground_truth": ["a"]}, "ground_truth", "a text, a number, true or false"),
    ({"request_id": ID, "tags": {"a": 1}, "thumbs": "up"}, "tags[...]", "by name"),
    ({"request_id": ID, "tags": {"a": "x" * 257}, "thumbs": "up"}, "tags[...]", "length <= 256"),
    ({"request_id": ID, "tags": {str(n): "" for n in range(33)}, "thumbs": "up"}, "tags", "at most 32"),
    ({"request_id": ID, "model": "chat", "endpoint": "code", "thumbs": "up"}, "model", "one of the two"),
    ([{"request_id": ID, "thumbs": "up"}] * 101, "body", "at most 100"),
    ([{"request_id": ID, "thumbs": "up"}, {"request_id": ID}], "[1].body", "It says nothing"),
    ([{"request_id": ID, "thumbs": "up"}, {"request_id": ID, "thumbs": 3}], "[1].thumbs", "'up' or 'down'"),
    ([{"request_id": ID, "thumbs": "up"}, 7], "[1].body", "Expected `object`"),
]


async def test_what_is_wrong_is_named_and_nothing_of_it_is_kept(tmp_path: Path) -> None:
    async with running_proxy(tmp_path, ONE) as proxy:
        for body, field, text in WRONG:
            answer = await send(proxy, body)
            error = answer.json()["error"]
            assert answer.status == 400, (body, error)
            assert text in error["message"], (body, error)
            assert error["param"] == field or not field, (body, error)
        assert proxy.records() == []
        metrics = (await get(proxy, "/metrics")).body.decode()
    assert f'servelens_feedback_refused_total{{reason="invalid",worker="proxy-0"}} {len(WRONG)}.0' in metrics


async def test_endpoints_that_are_not_there_or_not_the_same(tmp_path: Path) -> None:
    up = {"request_id": ID, "thumbs": "up"}
    async with running_proxy(tmp_path, TWO) as proxy:
        unknown = await send(proxy, {**up, "model": "chta"})
        assert unknown.status == 404
        assert "'chat', 'code'" in unknown.json()["error"]["message"]
        second = await send(proxy, [up, {**up, "endpoint": "x"}])
        assert (second.status, second.json()["error"]["param"]) == (404, "[1].endpoint")
        in_path = await send(proxy, up, "/serving-endpoints/nobody/feedback")
        assert (in_path.status, in_path.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")
        other = await send(proxy, {**up, "model": "code"}, "/serving-endpoints/chat/feedback")
        assert (other.status, other.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
        assert "The path names the endpoint 'chat', the body 'code'" in other.json()["message"]
        assert (await get(proxy, PATH)).status == 405
        assert proxy.records() == []


async def test_a_body_that_is_too_large_is_not_taken_in(tmp_path: Path) -> None:
    async with running_proxy(tmp_path, ONE) as proxy:
        answer = await send(proxy, b'"' + b"x" * MAX_BODY_BYTES + b'"')
        assert answer.status == 413
        assert "2097152" in answer.json()["error"]["message"]
        assert (await get(proxy, "/health/live")).status == 200
        assert proxy.records() == []


async def test_a_list_is_taken_whole_and_later_words_are_later(tmp_path: Path) -> None:
    items = [{"request_id": ID, "thumbs": ("up", "down")[number % 2], "user": "ada"} for number in range(100)]
    async with running_proxy(tmp_path, ONE) as proxy:
        answer = await send(proxy, items)
        records = proxy.records()
        metrics = (await get(proxy, "/metrics")).body.decode()
    assert answer.status == 202
    assert [each["feedback_id"] for each in answer.json()["feedback"]] == [
        each.request_id for each in records
    ]
    times = [record.request_time_us for record in records]
    assert times == sorted(set(times))
    assert len({record.request_id for record in records}) == 100
    assert (
        'servelens_feedback_accepted_total{endpoint="chat",name="thumbs",worker="proxy-0"} 100.0' in metrics
    )


async def test_a_repeat_can_be_told(tmp_path: Path) -> None:
    up = {"request_id": ID, "thumbs": "up"}
    async with running_proxy(tmp_path, ONE) as proxy:

        async def told(body: object, **headers: str) -> list[str]:
            answer = (await send(proxy, body, **headers)).json()
            return [each["feedback_id"] for each in answer.get("feedback", [answer])]

        first = await told({**up, "feedback_id": "mine"})
        assert await told({**up, "feedback_id": "mine"}) == first
        assert await told({**up, "thumbs": "down", "feedback_id": "mine"}) == first, "a change of mind"
        assert await told(up, idempotency_key="mine") == first
        assert time_us(first[0]) == time_us(ID)
        many = await told([up, up], idempotency_key="k")
        assert await told([up, up], idempotency_key="k") == many
        assert await told({"client_request_id": "c", "thumbs": "up", "feedback_id": "mine"}) != first
        others = [
            *many,
            *await told(up),
            *await told(up),
            *await told({**up, "user": "x"}, idempotency_key="mine"),
        ]
        assert len({*others, *first}) == 6
        unit = await send(proxy, up, x_servelens_unit="ada")
        assert unit.status == 202
        assert proxy.records()[-1].unit == "ada"
        assert (await send(proxy, up, idempotency_key="k" * 513)).status == 400


async def test_with_keys_the_scope_invoke_is_needed_and_the_keys_owner_is_recorded(tmp_path: Path) -> None:
    keys = Keys(
        {
            digest_of(b"sl-web"): Key(Requester("web", frozenset({"invoke"}), "k1")),
            digest_of(b"sl-desk"): Key(Requester("desk", frozenset({"annotate"}), "k2")),
        },
        required=True,
    )
    up = {"request_id": ID, "thumbs": "up"}
    async with running_proxy(tmp_path, dataclasses.replace(ONE, keys=keys)) as proxy:
        assert (await send(proxy, up)).status == 401
        assert (await send(proxy, up, authorization="Bearer sl-desk")).status == 403
        refused = await send(proxy, up, "/serving-endpoints/chat/feedback", authorization="Bearer no")
        assert (refused.status, refused.json()["error_code"]) == (401, "UNAUTHENTICATED")
        assert (await send(proxy, up, authorization="Bearer sl-web")).status == 202
        record = await proxy.record()
    assert record.requester == "web"


async def test_it_is_confirmed_when_it_is_durable_and_not_before(tmp_path: Path) -> None:
    disk = GatedDisk()
    async with running_proxy(tmp_path, ONE, write=disk.write) as proxy:
        disk.gate.clear()
        sending = asyncio.create_task(send(proxy, {"request_id": ID, "thumbs": "up"}))
        await eventually(disk.waiting.is_set)
        assert (await get(proxy, "/health/live")).status == 200, "the loop is not blocked"
        assert not sending.done()
        disk.gate.set()
        assert (await sending).status == 202
        assert len(proxy.records()) == 1


async def test_a_disk_that_stalls_or_fails_is_503_and_counted(tmp_path: Path) -> None:
    disk, up = GatedDisk(), {"request_id": ID, "thumbs": "up"}
    async with running_proxy(
        tmp_path / "a", ONE, write=disk.write, limits=Limits(log_timeout_s=0.2)
    ) as proxy:
        disk.gate.clear()
        slow = await send(proxy, up)
        disk.gate.set()
    assert (slow.status, slow.headers["retry-after"]) == (503, "1")
    assert "in time" in slow.json()["error"]["message"]
    async with running_proxy(tmp_path / "b", ONE, write=refusing_disk) as proxy:
        for body in (up, [up, up]):
            failed = await send(proxy, body)
            assert (failed.status, failed.headers["retry-after"]) == (503, "1")
            assert failed.json()["error"]["code"] == "spool_full"
        refused = await send(proxy, up, "/serving-endpoints/chat/feedback")
        assert (refused.status, refused.json()["error_code"]) == (503, "TEMPORARILY_UNAVAILABLE")
        metrics = (await get(proxy, "/metrics")).body.decode()
    assert 'servelens_feedback_refused_total{reason="spool_full",worker="proxy-0"} 3.0' in metrics
    assert "servelens_feedback_accepted_total{" not in metrics


async def test_a_full_spool_is_503(tmp_path: Path) -> None:
    text = {"request_id": ID, "corrected_answer": "x" * 90_000}
    async with running_proxy(tmp_path, ONE, spool_max_bytes=200_000) as proxy:
        answers = [(await send(proxy, text)).status for _ in range(4)]
        kept = len(proxy.records())
    assert answers[0] == 202
    assert answers[-1] == 503
    assert answers.count(202) == kept


SECRET = "tOpSeCrEt"
FULL = {
    "request_id": ID,
    "thumbs": "down",
    "score": 0.5,
    "comment": f"{SECRET} says bob@example.com",
    "corrected_answer": SECRET,
    "ground_truth": SECRET,
    "tags": {"who": SECRET},
    "user": SECRET,
}


def spooled(proxy: RunningProxy) -> bytes:
    return b"".join(path.read_bytes() for path in proxy.directory.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("rules", "names", "hidden"),
    [
        (
            {"redact_paths": ("$.user", "$.comment", "$.corrected_answer", "$.ground_truth", "$..who")},
            ["thumbs", "score", "comment", "corrected_answer", "ground_truth"],
            True,
        ),
        ({"redact_paths": ("$.score", "$.thumbs")}, ["comment", "corrected_answer", "ground_truth"], False),
        (
            {"payload_logging": "metadata", "redact_headers": ("x-servelens-unit", "x-servelens-tags")},
            ["thumbs", "score"],
            True,
        ),
    ],
)
async def test_what_records_may_not_have_feedback_has_not_either(
    tmp_path: Path, rules: dict[str, Any], names: list[str], hidden: bool
) -> None:
    snapshot = serving(endpoint("chat", pseudonym_key=b"key", **rules), endpoint("open"))
    async with running_proxy(tmp_path, snapshot) as proxy:
        for body in (FULL, {**FULL, "endpoint": "chat"}):  # whose endpoint is not known may be anybody's
            answer = await send(proxy, body)
            assert (answer.status, answer.json()["recorded"]) == (202, names)
        records = proxy.records()
        assert (SECRET.encode() in spooled(proxy)) is not hidden
        assert (await send(proxy, {**FULL, "endpoint": "open"})).status == 202
        assert SECRET.encode() in spooled(proxy)
    if hidden:
        assert {record.unit for record in records} == {pseudonym(SECRET, b"key")}


async def test_personal_data_is_masked_where_the_endpoint_masks_it_in_calls(tmp_path: Path) -> None:
    guarded = endpoint("chat", input_guardrails=Guardrails(pii="block"))
    async with running_proxy(tmp_path, serving(guarded, endpoint("open"))) as proxy:
        for body in (FULL, {**FULL, "endpoint": "chat"}):
            assert (await send(proxy, body)).status == 202
        assert b"bob@example.com" not in spooled(proxy)
        assert feedback_in(proxy.records()[0]).parts[2].comment == f"{SECRET} says <EMAIL_ADDRESS>"


async def test_an_endpoint_that_keeps_nothing_takes_nothing(tmp_path: Path) -> None:
    snapshot = serving(
        endpoint("off", payload_logging="off"),
        endpoint("meta", payload_logging="metadata", redact_headers=("x-client-request-id",)),
        endpoint("rare", sampling_fraction=0.0),
    )
    words = {"request_id": ID, "comment": "x"}
    async with running_proxy(tmp_path, snapshot) as proxy:
        off = await send(proxy, {**words, "endpoint": "off"})
        assert (off.status, off.json()["error"]["code"]) == (409, "not_kept")
        meta = await send(proxy, [{**words, "endpoint": "rare"}, {**words, "endpoint": "meta"}])
        assert (meta.status, meta.json()["error"]["param"]) == (409, "[1].payload_logging")
        hidden = await send(proxy, {"client_request_id": "c", "thumbs": "up", "endpoint": "meta"})
        assert (hidden.status, hidden.json()["error"]["param"]) == (400, "client_request_id")
        assert proxy.records() == []
        rare = await send(proxy, {**words, "endpoint": "rare"})
        assert rare.status == 202, "calls are sampled to save room, feedback is not"
        metrics = (await get(proxy, "/metrics")).body.decode()
    assert 'servelens_feedback_refused_total{reason="not_kept",worker="proxy-0"} 2.0' in metrics
