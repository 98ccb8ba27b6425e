"""Events of KServe's logger: where they belong, what is read of them, and what may be kept."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from collector.intake.arrival import TIME_IMPLAUSIBLE, UNKNOWN_STATUS, Arrival, Kind, joined
from collector.intake.cloud_events import CloudEvent
from collector.intake.kserve_events import read_event
from collector.intake.refusal import Refusal
from collector.intake.rules import Entity, Rules, Target
from collector.normalize import rows
from collector.record import REQUEST_TOO_LARGE, UNROUTED, Record
from servelens.identifiers import time_us
from tests.unit.collector.intake.running import REQUEST, RESPONSE, RULES

NOON_US = 1_777_636_800_000_000


def event(kind: str, data: bytes, *, at_us: int | None = NOON_US, **more: str) -> CloudEvent:
    attributes = {
        "specversion": "1.0",
        "id": "7f1e",
        "source": "http://localhost:9081/",
        "type": kind,
        "inferenceservicename": "iris",
        "namespace": "team",
        "component": "predictor",
        "endpoint": "default",
        **more,
    }
    return CloudEvent(attributes, at_us, data)


def read(found: CloudEvent, rules: Rules = RULES) -> Arrival:
    made = read_event(found, rules, now_us=NOON_US + 5, requester="kserve-key")
    assert made is not None
    return made


def row(*records: Record) -> dict[str, Any]:
    table = rows(records, "intake-0-1", range(len(records)))
    return dict(table.to_pylist()[0])


def test_both_halves_of_an_infer_call_make_its_row() -> None:
    asked = {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["Wie geht's?"]}]}
    said = {
        "model_name": "iris",
        "outputs": [{"name": "out", "shape": [1], "datatype": "BYTES", "data": ["Gut."]}],
    }
    request = read(event(REQUEST, json.dumps(asked).encode()))
    response = read(event(RESPONSE, json.dumps(said).encode(), at_us=NOON_US + 12_000))
    assert request.key == response.key
    assert (request.kind, response.kind) == (Kind.REQUEST, Kind.RESPONSE)
    found = row(joined(request.record, response.record))
    assert (found["api"], found["endpoint"], found["model"]) == ("infer", "iris", "iris")
    assert (found["prompt_text"], found["response_text"]) == ("Wie geht's?", "Gut.")
    assert (found["status_code"], found["execution_duration_ms"], found["error_type"]) == (200, 12, None)
    assert (found["client_request_id"], found["requester"]) == ("7f1e", "kserve-key")
    assert (found["served_entity"], found["endpoint_config_version"]) == ("default", 2)
    assert dict(found["tags"]) == {
        "inference_service": "iris",
        "namespace": "team",
        "component": "predictor",
        "kserve_endpoint": "default",
        "ce_source": "http://localhost:9081/",
    }
    assert time_us(found["databricks_request_id"]) == NOON_US


def test_chat_with_a_streamed_answer() -> None:
    asked = {"model": "qwen", "messages": [{"role": "user", "content": "Hi"}], "user": "ada", "stream": True}
    chunk = {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "Hello"}}]}
    done = {
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 1},
    }
    stream = "".join(f"data: {json.dumps(each)}\n\n" for each in (chunk, done)) + "data: [DONE]\n\n"
    request = read(event(REQUEST, json.dumps(asked).encode()))
    found = row(joined(request.record, read(event(RESPONSE, stream.encode())).record))
    assert (found["api"], found["model"], found["unit"], found["is_stream"]) == ("chat", "qwen", "ada", True)
    assert (found["prompt_text"], found["response_text"]) == ("Hi", "Hello")
    assert (found["finish_reason"], found["input_tokens"], found["output_tokens"]) == ("stop", 9, 1)


def test_scoring_of_the_first_protocol() -> None:
    request = read(event(REQUEST, b'{"instances": [["good"], ["bad"]]}'))
    found = row(joined(request.record, read(event(RESPONSE, b'{"predictions": ["yes", "no"]}')).record))
    assert (found["api"], found["prompt_text"], found["response_text"]) == (
        "invocations",
        "good\nbad",
        "yes\nno",
    )


def test_a_body_that_is_no_json_is_kept_as_it_is() -> None:
    found = row(read(event(REQUEST, b"\xff\x00grpc")).record)
    assert found["request"] == "�\x00grpc"
    assert (found["api"], found["status_code"]) == ("unknown", UNKNOWN_STATUS)


@pytest.mark.parametrize(
    ("attributes", "endpoint", "entity"),
    [
        ({}, "iris", "default"),
        ({"endpoint": "canary"}, "iris", "canary"),
        ({"endpoint": "other"}, "iris", None),
        ({"inferenceservicename": "llm"}, "chat", "small"),
        ({"inferenceservicename": "llm", "namespace": "else"}, UNROUTED, None),
        ({"inferenceservicename": "nobody"}, UNROUTED, None),
        ({"inferenceservicename": "nobody", "endpoint": "chat"}, "chat", "small"),
        ({"inferenceservicename": "", "namespace": "", "endpoint": ""}, UNROUTED, None),
    ],
)
def test_where_an_event_belongs(attributes: dict[str, str], endpoint: str, entity: str | None) -> None:
    record = read(event(REQUEST, b"{}", **attributes)).record
    assert (record.endpoint, record.served_entity) == (endpoint, entity)


def test_of_the_headers_in_the_metadata_only_ours_are_kept() -> None:
    metadata = {
        "X-Session-Id": ["s1"],
        "X-Servelens-Unit": ["u1"],
        "Traceparent": ["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"],
        "Authorization": ["Bearer hidden"],
    }
    record = read(event(REQUEST, b"{}", metadata=json.dumps(metadata))).record
    assert (record.session_id, record.unit) == ("s1", "u1")
    assert record.trace_id == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert b"hidden" not in msgspec.msgpack.encode(record)


@pytest.mark.parametrize("metadata", ["", "null", "{", "[1]", '{"X-Session-Id": 5}', "[" * 100_000])
def test_metadata_that_makes_no_sense_is_left_out(metadata: str) -> None:
    assert read(event(REQUEST, b"{}", metadata=metadata)).record.session_id is None


@pytest.mark.parametrize("at_us", [0, -5, NOON_US + 3 * 86_400_000_000, 253_402_300_799_000_000])
def test_a_clock_that_is_wrong_loses_nothing(at_us: int) -> None:
    record = read(event(REQUEST, b"{}", at_us=at_us)).record
    assert (record.request_time_us, record.logging_error_codes) == (NOON_US + 5, [TIME_IMPLAUSIBLE])
    timeless = read(event(REQUEST, b"{}", at_us=None)).record
    assert (timeless.request_time_us, timeless.logging_error_codes) == (NOON_US + 5, [])


def test_other_events_are_refused() -> None:
    with pytest.raises(Refusal, match=r"type: events of type 'com\.example' are not recorded") as raised:
        read(event("com.example", b""))
    assert raised.value.status == 422


def test_two_senders_may_use_one_id() -> None:
    keys = {
        read(event(REQUEST, b"{}", **more)).key
        for more in ({}, {"namespace": "b"}, {"component": "transformer"}, {"source": "x"}, {"id": "2"})
    }
    assert len(keys) == 5


def test_what_an_endpoint_does_not_keep_never_arrives() -> None:
    nothing = event(REQUEST, b"{}", inferenceservicename="secret")
    assert read_event(nothing, RULES, now_us=NOON_US, requester=None) is None
    long = read(event(REQUEST, b'"' + b"x" * 100 + b'"', inferenceservicename="tiny")).record
    assert (long.request, long.logging_error_codes) == (None, [REQUEST_TOO_LARGE])


def test_both_halves_fall_into_the_same_sample() -> None:
    drawn: list[str] = []

    def keep(record: Record) -> Record:
        drawn.append(record.request_id[-12:])
        return record

    rules = Rules({"iris": Target("iris", {"a": Entity("a")}, keep=keep)})
    read(event(REQUEST, b"{}"), rules)
    read(event(RESPONSE, b"{}", at_us=NOON_US + 1_000_000), rules)
    assert drawn[0] == drawn[1]
