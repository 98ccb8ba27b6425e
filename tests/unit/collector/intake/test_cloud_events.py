"""CloudEvents as the official package writes them, and what is none."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent as Official
from hypothesis import given
from hypothesis import strategies as st

from collector.intake.cloud_events import CloudEvent, read_events
from collector.intake.refusal import Refusal
from servelens.clock import datetime_us

NOON = datetime(2026, 5, 1, 12, 0, 0, 250_000, tzinfo=UTC)
HEAD = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "s", "ce-type": "t"}


def official(data: Any, **more: Any) -> Official:
    attributes = {
        "id": 'grüße %41 "1"',
        "source": "http://localhost:9081/",
        "type": "org.kubeflow.serving.inference.request",
        "time": NOON,
        "inferenceservicename": "chät",
        **more,
    }
    return Official(attributes, data)


def fields(head: dict[str, str]) -> dict[bytes, bytes]:
    return {name.lower().encode(): value.encode() for name, value in head.items()}


def refused(head: dict[str, str], body: bytes = b"") -> Refusal:
    with pytest.raises(Refusal) as raised:
        read_events(fields(head), body)
    return raised.value


@pytest.mark.parametrize("data", [b"\x00\xff binary", b"", b'{"messages": []}'])
def test_binary_mode(data: bytes) -> None:
    message = to_binary_event(official(data, datacontenttype="application/octet-stream"))
    (event,) = read_events(fields(dict(message.headers)), message.body)
    assert event.id == 'grüße %41 "1"'
    assert event.attributes["inferenceservicename"] == "chät"
    assert event.time_us == datetime_us(NOON)
    assert (event.source, event.type) == ("http://localhost:9081/", "org.kubeflow.serving.inference.request")
    assert event.data == data


@pytest.mark.parametrize("data", [b"\x00\xff binary", {"messages": [{"role": "user", "content": "ü"}]}])
def test_structured_mode(data: Any) -> None:
    more = {} if isinstance(data, bytes) else {"datacontenttype": "application/json"}
    message = to_structured_event(official(data, **more))
    (event,) = read_events(fields(dict(message.headers)), message.body)
    assert event.id == 'grüße %41 "1"'
    assert event.time_us == datetime_us(NOON)
    assert (event.data if isinstance(data, bytes) else json.loads(event.data)) == data


def test_a_batch_and_an_empty_one() -> None:
    head = {"content-type": "application/cloudevents-batch+json; charset=utf-8"}
    events = [
        json.loads(to_structured_event(official({"n": number}, id=str(number))).body) for number in range(3)
    ]
    found = read_events(fields(head), json.dumps(events).encode())
    assert [(event.id, json.loads(event.data)) for event in found] == [(str(n), {"n": n}) for n in range(3)]
    assert read_events(fields(head), b"[]") == []


def test_data_of_structured_events() -> None:
    def data(**more: Any) -> bytes:
        event = {
            "specversion": "1.0",
            "id": "1",
            "source": "s",
            "type": "t",
            "number": 7,
            "none": None,
            **more,
        }
        head = {"content-type": "application/cloudevents+json"}
        (found,) = read_events(fields(head), json.dumps(event).encode())
        assert found.attributes["number"] == "7"
        assert "none" not in found.attributes
        return found.data

    assert data() == b""
    assert data(data={"a": 1}) == b'{"a": 1}'
    assert data(data="text", datacontenttype="text/plain") == b"text"
    assert data(data="text") == b'"text"'
    assert data(data_base64=base64.b64encode(b"\x00\x01").decode()) == b"\x00\x01"


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-05-01T12:00:00.25Z", NOON),
        ("2026-05-01T14:00:00.250000+02:00", NOON.astimezone(timezone(timedelta(hours=2)))),
        ("2026-05-01T12:00:00.250000123Z", NOON),
    ],
)
def test_times_of_rfc_3339(text: str, moment: datetime) -> None:
    (event,) = read_events(fields({**HEAD, "ce-time": text}), b"")
    assert event.time_us == datetime_us(moment)
    (timeless,) = read_events(fields(HEAD), b"")
    assert timeless.time_us is None


@pytest.mark.parametrize(
    ("head", "body", "status", "field"),
    [
        ({}, b"{}", 415, "ce-id"),
        ({"content-type": "application/json"}, b"{}", 415, "ce-id"),
        ({"content-type": "application/cloudevents+avro"}, b"", 415, "content-type"),
        ({**HEAD, "ce-specversion": "0.3"}, b"", 400, "ce-specversion"),
        ({"ce-id": "1"}, b"", 400, "ce-specversion"),
        ({**HEAD, "ce-id": ""}, b"", 400, "ce-id"),
        ({**HEAD, "ce-source": ""}, b"", 400, "ce-source"),
        ({name: value for name, value in HEAD.items() if name != "ce-type"}, b"", 400, "ce-type"),
        ({**HEAD, "ce-time": "yesterday"}, b"", 400, "ce-time"),
        ({**HEAD, "ce-time": "2026-05-01T12:00:00"}, b"", 400, "ce-time"),
        ({**HEAD, "ce-time": "1777636800"}, b"", 400, "ce-time"),
        ({**HEAD, "ce-id": "%ff%fe"}, b"", 400, "ce-id"),
        ({**HEAD, "ce-id": "x" * 3_000}, b"", 400, "ce-id"),
        ({**HEAD, "ce-x": "x" * 70_000}, b"", 400, "ce-x"),
        ({"content-type": "application/cloudevents+json"}, b"{", 400, None),
        ({"content-type": "application/cloudevents+json"}, b"[]", 400, None),
        ({"content-type": "application/cloudevents+json"}, b"\xff", 400, None),
        ({"content-type": "application/cloudevents+json"}, b'{"specversion": {}}', 400, "specversion"),
        ({"content-type": "application/cloudevents-batch+json"}, b"{}", 400, None),
        (
            {"content-type": "application/cloudevents-batch+json"},
            b'[{"specversion": "1.0", "id": "1", "source": "s"}]',
            400,
            "[0].type",
        ),
        (
            {"content-type": "application/cloudevents+json"},
            b'{"specversion": "1.0", "id": "1", "source": "s", "type": "t", "data_base64": "%"}',
            400,
            "data_base64",
        ),
    ],
)
def test_what_is_wrong_is_named(head: dict[str, str], body: bytes, status: int, field: str | None) -> None:
    refusal = refused(head, body)
    assert (refusal.status, refusal.field) == (status, field)


def test_deep_nesting_is_refused_or_kept_but_raises_nothing_else() -> None:
    deep = b'{"specversion": "1.0", "id": "1", "source": "s", "type": "t", "x": ' + b"[" * 100_000
    assert refused({"content-type": "application/cloudevents+json"}, deep).status == 400


@given(
    head=st.dictionaries(
        st.sampled_from([*HEAD, "ce-time", "ce-data", "content-type"]),
        st.binary(max_size=40) | st.sampled_from([b"1.0", b"application/cloudevents+json"]),
    ),
    body=st.binary(max_size=200),
)
def test_any_bytes_are_events_or_a_refusal(head: dict[str, bytes], body: bytes) -> None:
    with suppress(Refusal):
        events = read_events({name.encode(): value for name, value in head.items()}, body)
        assert all(isinstance(event, CloudEvent) for event in events)
