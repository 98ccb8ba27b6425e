"""CloudEvents over HTTP into the spool: joined in any order, once, and refused where they cannot be made durable."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent

from collector.catalog import Catalog, TableName
from collector.dead_letter import DeadLetter
from collector.ingest import Collector
from collector.intake.arrival import REQUEST_MISSING, RESPONSE_MISSING
from collector.intake.refusal import Refusal
from collector.intake.request_body import BodyReader, Memory
from collector.intake.server import SLOT
from collector.record import UNROUTED
from servelens.errors import Conflict, Unavailable
from tests.unit.collector.intake.running import (
    REQUEST,
    RESPONSE,
    OpenDoor,
    Running,
    event_fields,
    opened,
    running,
    spooled,
    until,
)

ASKED = b'{"model": "qwen", "messages": [{"role": "user", "content": "Hi"}]}'
SAID = b'{"object": "chat.completion", "choices": [{"message": {"role": "assistant", "content": "Hello"}}]}'


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path, max_body_bytes=100_000) as served:
        yield served


def test_the_official_package_as_the_sender(run: Running) -> None:
    for kind, data, to_message in (
        (RESPONSE, SAID, to_binary_event),
        (REQUEST, ASKED, to_structured_event),
    ):
        attributes = {
            "id": "1",
            "source": "http://localhost:9081/",
            "type": kind,
            "inferenceservicename": "llm",
            "namespace": "team",
            "datacontenttype": "application/json",
        }
        message = to_message(CloudEvent(attributes, json.loads(data)))
        answer = run.http.post("/cloudevents", content=message.body, headers=dict(message.headers))
        assert (answer.status_code, answer.content) == (200, b"")
    (record,) = run.records()
    assert (record.endpoint, record.api, record.model, record.requester) == ("chat", "chat", "qwen", "sender")
    assert json.loads(record.request or b"") == json.loads(ASKED)
    assert json.loads(record.response or b"") == json.loads(SAID)


def test_every_event_comes_twice_and_out_of_order_and_at_once(run: Running) -> None:
    sent = [(kind, str(number)) for number in range(40) for kind in (REQUEST, RESPONSE)] * 2

    def send(event: tuple[str, str]) -> int:
        kind, ident = event
        return run.send(kind, ident, ASKED if kind == REQUEST else SAID).status_code

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(send, sent[::-1])) == {200}
    records = run.records()
    assert sorted(int(record.client_request_id or "") for record in records) == list(range(40))
    assert {(record.request, record.response) for record in records} == {(ASKED, SAID)}
    counts = run.server.counts
    assert counts.events["cloudevents", "accepted"] == counts.events["cloudevents", "duplicate"] == 80
    assert counts.records["joined"] == 40
    until(lambda: counts.halves_waiting == 0)


def test_a_half_without_the_other_becomes_a_record_of_its_own(tmp_path: Path) -> None:
    with running(tmp_path, join_timeout_s=0.05) as run:
        run.send(REQUEST, "asked", ASKED)
        until(lambda: len(run.records()) == 1)
        run.send(RESPONSE, "said", SAID)
        until(lambda: len(run.records()) == 2)
        asked, said = run.records()
        assert (asked.error_type, asked.status_code, asked.request) == (RESPONSE_MISSING, 0, ASKED)
        assert (said.error_type, said.status_code, said.response) == (REQUEST_MISSING, 200, SAID)
        # The other half after all, and both of them again: what is late is kept, what is known is not.
        for kind, body in ((RESPONSE, SAID), (REQUEST, ASKED), (RESPONSE, SAID)):
            assert run.send(kind, "asked", body).status_code == 200
        records = run.records()
        assert [record.error_type for record in records[2:]] == [REQUEST_MISSING]
        assert records[2].client_request_id == "asked"
        assert run.server.counts.records == {
            "whole": 0,
            "joined": 0,
            RESPONSE_MISSING: 1,
            REQUEST_MISSING: 2,
        }


def test_an_event_of_long_ago_does_not_make_the_collector_late(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        for kind, body in ((REQUEST, ASKED), (RESPONSE, SAID)):
            assert run.send(kind, "1", body, time="2001-01-01T00:00:00Z").status_code == 200
    tables = Catalog(str(tmp_path / "lake"), {"chat": TableName("main", "serving", "chat")})
    collector = Collector(
        tmp_path / "spool", tables, DeadLetter(tmp_path / "dead"), commit_interval_s=3_600, drain_timeout_s=30
    )
    until(lambda: collector.step() is not None and collector.status.lag_s > 0)
    assert collector.status.lag_s < 3_600
    assert collector.drain()
    collector.close()
    (row,) = tables.tables("chat").payload.scan().collect().iter_rows(named=True)
    assert row["request_time"].year == 2001


def test_a_known_event_is_new_again_after_the_window(tmp_path: Path) -> None:
    with running(tmp_path, window_s=0.05, join_timeout_s=0.05) as run:
        run.send(RESPONSE, "1", SAID)
        until(lambda: len(run.records()) == 1)

        def sent_again() -> bool:
            run.send(RESPONSE, "1", SAID)
            return len(run.records()) == 2

        until(sent_again)


def test_a_batch_is_taken_as_a_whole_or_not_at_all(run: Running) -> None:
    def event(kind: str, ident: str) -> dict[str, object]:
        attributes = {name.removeprefix("ce-"): value for name, value in event_fields(kind, ident).items()}
        return {**attributes, "data": {"n": ident}}

    head = {"content-type": "application/cloudevents-batch+json"}
    good = [event(kind, ident) for ident in "ab" for kind in (REQUEST, RESPONSE)]
    bad = run.http.post("/", content=json.dumps([*good, event("other", "c")]), headers=head)
    assert (bad.status_code, bad.json()["field"]) == (422, "type")
    assert (run.records(), run.server.counts.halves_waiting) == ([], 0)
    assert run.http.post("/", content=json.dumps(good), headers=head).status_code == 200
    assert [record.client_request_id for record in run.records()] == ["a", "b"]


@pytest.mark.parametrize(
    ("path", "fields", "body", "status", "word"),
    [
        ("/", {"content-type": "text/plain"}, b"x", 415, "ce-id"),
        ("/", {**event_fields("org.other", "1")}, b"{}", 422, "org.kubeflow"),
        ("/", {**event_fields(REQUEST, "1"), "ce-specversion": "2.0"}, b"{}", 400, "ce-specversion"),
        ("/", {**event_fields(REQUEST, "1"), "ce-time": "noon"}, b"{}", 400, "RFC 3339"),
        ("/", event_fields(REQUEST, "1"), b"x" * 100_001, 413, "100000 bytes"),
        ("/nowhere", event_fields(REQUEST, "1"), b"{}", 404, "/cloudevents"),
    ],
)
def test_what_is_refused_is_a_problem_with_a_reason(
    run: Running, path: str, fields: dict[str, str], body: bytes, status: int, word: str
) -> None:
    answer = run.http.post(path, content=body, headers=fields)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert word in problem["detail"]
    assert (run.records(), run.server.counts.halves_waiting) == ([], 0)
    assert run.server.counts.requests["cloudevents", status] == 1


@pytest.mark.parametrize("status", [401, 413])
def test_a_long_body_that_is_not_wanted_is_answered_and_not_cut_off(run: Running, status: int) -> None:
    def long_body() -> Iterator[bytes]:
        for _ in range(200):
            yield b"x" * 50_000

    if status == 401:
        run.door.refusals.append(Refusal(401, "no key"))
    answer = run.http.post("/", content=long_body(), headers=event_fields(REQUEST, "1"))
    assert answer.status_code == status
    assert run.send(REQUEST, "2", ASKED).status_code == 200


def test_other_methods_and_who_may_not_come_in(run: Running) -> None:
    answer = run.http.get("/")
    assert (answer.status_code, answer.json()["title"]) == (405, "Method Not Allowed")
    run.door.refusals.append(Refusal(401, "no key"))
    refused = run.send(REQUEST, "1", ASKED)
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"].startswith("Bearer, Basic realm=")
    run.door.refusals.append(Refusal(503, "the database is away", retry_after_s=4.2))
    assert run.send(REQUEST, "1", ASKED).headers["retry-after"] == "5"


def test_unknown_services_and_what_an_endpoint_does_not_keep(run: Running) -> None:
    for service in ("nobody", "secret"):
        for kind, body in ((REQUEST, ASKED), (RESPONSE, SAID)):
            assert run.send(kind, service, body, inferenceservicename=service).status_code == 200
    (record,) = run.records()
    assert record.endpoint == UNROUTED
    assert record.tags["inference_service"] == "nobody"
    assert run.server.counts.events["cloudevents", "not_kept"] == 2
    assert run.server.counts.halves_waiting == 0


def test_bytes_that_are_no_http_harm_nobody(run: Running) -> None:
    for raw in (
        b"\x00\xff" * 500,
        b"POST / HTTP/1.1\r\ncontent-length: -5\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", run.server.port), timeout=20) as client:
            client.sendall(raw)
            assert client.recv(1_000).startswith(b"HTTP/1.1 400")
    assert run.send(REQUEST, "1", ASKED).status_code == 200


def test_half_a_head_is_not_waited_for(tmp_path: Path) -> None:
    with running(tmp_path, quiet_s=0.2) as run:
        with socket.create_connection(("127.0.0.1", run.server.port), timeout=20) as client:
            client.sendall(b"POST / HTTP/1.1\r\nce-id: ")
            assert client.recv(1_000) == b""
        assert run.send(REQUEST, "1", ASKED).status_code == 200


def test_a_sender_that_leaves_in_the_middle_leaves_nothing(run: Running) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", run.server.port)
    connection.putrequest("POST", "/")
    for name, value in {**event_fields(REQUEST, "1"), "content-length": "1000"}.items():
        connection.putheader(name, value)
    connection.endheaders(b"half of it")
    connection.close()
    assert run.send(REQUEST, "2", ASKED).status_code == 200
    assert run.server.counts.halves_waiting == 1


def test_a_spool_without_room_answers_503_until_there_is_some(tmp_path: Path) -> None:
    with running(tmp_path, max_bytes=1 << 20, segment_bytes=64 << 10) as run:
        body = b'{"messages": [], "pad": "' + b"x" * 150_000 + b'"}'
        for number in range(40):
            answer = run.send(RESPONSE, str(number), body)
            assert answer.status_code == 200
            if (answer := run.send(REQUEST, str(number), body)).status_code != 200:
                break
        assert (answer.status_code, answer.json()["title"]) == (503, "Service Unavailable")
        assert int(answer.headers["retry-after"]) >= 1
        assert run.server.health[0] is False
        taken = len(run.records())
        assert 0 < taken < 40
        for segment in sorted((tmp_path / "spool" / SLOT).glob("*.seg"))[:-1]:
            segment.unlink()  # what an ingest does when the records are in their tables
        until(lambda: run.send(REQUEST, str(number), body).status_code == 200)
        assert run.records()[-1].client_request_id == str(number)
        assert run.server.counts.records["joined"] == taken + 1
        until(lambda: run.server.health[0])


def test_one_writer_and_one_address(run: Running, tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="another process writes"):
        opened(tmp_path, OpenDoor())
    with pytest.raises(Unavailable, match=r"collector\.intake\.port: cannot listen"):
        opened(tmp_path / "other", OpenDoor(), port=run.server.port)


async def test_a_slow_body_and_too_many_of_them_at_once() -> None:
    never = asyncio.Event()

    async def slow() -> dict[str, object]:
        await never.wait()
        return {}

    memory = Memory(1_000)
    reader = BodyReader(memory, max_bytes=900, patience_s=0.05)
    with pytest.raises(Refusal, match=r"0\.05 s") as late:
        await reader.read({}, slow)
    assert late.value.status == 408

    async def quick() -> dict[str, object]:
        return {"type": "http.request", "body": b"x" * 800}

    assert await reader.read({}, quick) == (b"x" * 800, 800)
    with pytest.raises(Refusal, match="other requests") as crowded:
        await reader.read({}, quick)
    assert (crowded.value.status, crowded.value.retry_after_s) == (503, 1.0)
    memory.give_back(800)
    await reader.read({}, quick)
    assert memory.held == 800


def test_it_stops_while_senders_send_and_loses_nothing(tmp_path: Path) -> None:
    answered: list[str] = []
    stop = threading.Event()
    with running(tmp_path) as run:

        def send() -> None:
            # A client of its own, for the other is closed before the server has stopped.
            with httpx.Client(base_url=run.http.base_url) as client:
                for number in itertools.takewhile(lambda _: not stop.is_set(), map(str, itertools.count())):
                    try:
                        for kind, body in ((RESPONSE, SAID), (REQUEST, ASKED)):
                            fields = event_fields(kind, number, time="2026-05-01T12:00:00Z")
                            client.post("/", content=body, headers=fields).raise_for_status()
                    except httpx.HTTPError:
                        return
                    answered.append(number)

        sender = threading.Thread(target=send)
        sender.start()
        until(lambda: len(answered) > 20)
    stop.set()
    sender.join()
    ids = [record.client_request_id for record in spooled(tmp_path)]
    assert len(ids) == len(set(ids))
    assert set(answered) <= set(ids)
