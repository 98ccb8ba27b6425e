"""OTLP over HTTP: the real SDK and exporter, both encodings, and what cannot be read."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.rpc.status_pb2 import Status
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import StatusCode

from collector.intake.refusal import Refusal
from tests.unit.collector.intake.exports import NOON_NS, PROTOBUF, as_protobuf
from tests.unit.collector.intake.running import Running, running

JSON = {"content-type": "application/json"}
BODY_LIMIT = 200_000


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path, max_body_bytes=BODY_LIMIT) as served:
        yield served


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """For what must leave nothing behind."""
    with running(tmp_path_factory.mktemp("shared"), max_body_bytes=BODY_LIMIT) as served:
        yield served
        assert served.records() == []


def export(*spans: dict[str, Any], service: str = "chat") -> dict[str, Any]:
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": service}}]}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {}, "spans": list(spans)}]}]}


def a_span(number: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "traceId": "5B8EFFF798038103D269B633813FC60C",
        "spanId": f"{number:016X}",
        "name": "chat qwen",
        "kind": 3,
        "startTimeUnixNano": str(NOON_NS),
        "endTimeUnixNano": NOON_NS + 1_000_000,
        "attributes": [
            {"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}},
            {"key": "gen_ai.request.model", "value": {"stringValue": "qwen"}},
            {"key": "gen_ai.usage.input_tokens", "value": {"intValue": "12"}},
            {"key": "gen_ai.request.temperature", "value": {"doubleValue": 0.5}},
            {"key": "gen_ai.request.stream", "value": {"boolValue": False}},
            {
                "key": "gen_ai.response.finish_reasons",
                "value": {"arrayValue": {"values": [{"stringValue": "stop"}]}},
            },
        ],
        "unknownField": {"is": ["ignored"]},
        **more,
    }


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip, Compression.Deflate])
def test_the_sdk_and_its_exporter(run: Running, compression: Compression) -> None:
    provider = TracerProvider(resource=Resource.create({"service.name": "checkout"}))
    exporter = OTLPSpanExporter(f"{run.url}/v1/traces", compression=compression)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    with tracer.start_as_current_span("GET /"):
        for number in range(20):
            with tracer.start_as_current_span("chat qwen") as span:
                span.set_attribute("gen_ai.operation.name", "chat")
                span.set_attribute("gen_ai.request.model", "qwen")
                span.set_attribute(
                    "gen_ai.input.messages",
                    json.dumps([{"role": "user", "parts": [{"type": "text", "content": f"{number}"}]}]),
                )
                if number == 7:
                    span.set_attribute("error.type", "500")
                    span.set_status(StatusCode.ERROR, "it broke")
    provider.shutdown()
    records = run.records()
    assert sorted(
        json.loads(record.request or b"")["messages"][0]["content"] for record in records
    ) == sorted(str(number) for number in range(20))
    assert {record.endpoint for record in records} == {"chat"}
    assert [record.status_code for record in records].count(500) == 1
    assert len({record.trace_id for record in records}) == 1
    assert run.server.counts.events["otlp", "accepted"] == 20
    assert run.server.counts.events["otlp", "ignored"] == 1


def test_the_exporter_tries_again_when_it_is_told_to(run: Running) -> None:
    run.door.refusals += [Refusal(status, "later", retry_after_s=1) for status in (429, 503)]
    provider = TracerProvider(resource=Resource.create({"service.name": "chat"}))
    exporter = OTLPSpanExporter(f"{run.url}/v1/traces", timeout=30)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    with provider.get_tracer("test").start_as_current_span(
        "chat", attributes={"gen_ai.operation.name": "chat"}
    ):
        pass
    provider.shutdown()
    assert run.door.asked == 3
    assert len(run.records()) == 1


def test_json_with_ids_in_hexadecimal(run: Running) -> None:
    answer = run.http.post("/v1/traces", json=export(a_span()))
    assert (answer.status_code, answer.json()) == (200, {})
    assert answer.headers["content-type"] == "application/json"
    (record,) = run.records()
    assert record.trace_id == "5b8efff798038103d269b633813fc60c"
    assert record.tags["span_id"] == "0000000000000001"
    assert (record.duration_us, record.is_stream) == (1_000, False)
    assert json.loads(record.request or b"") == {"model": "qwen", "temperature": 0.5, "stream": False}
    assert json.loads(record.response or b"")["usage"] == {"prompt_tokens": 12}


def test_both_encodings_are_the_same_event(run: Running) -> None:
    protobuf = as_protobuf(1)
    assert run.http.post("/v1/traces", content=protobuf.SerializeToString(), headers=PROTOBUF).content == b""
    again = a_span(traceId="01" * 16)
    assert run.http.post("/v1/traces", json=export(again)).status_code == 200
    (record,) = run.records()
    assert json.loads(record.request or b"")["messages"] == [{"role": "user", "content": "Hi"}]
    assert run.server.counts.events["otlp", "duplicate"] == 1


def test_an_export_that_comes_again_makes_no_second_record(run: Running) -> None:
    body = as_protobuf(50).SerializeToString()
    for _ in range(3):
        assert run.http.post("/v1/traces", content=body, headers=PROTOBUF).status_code == 200
    assert len(run.records()) == 50
    assert run.server.counts.events["otlp", "duplicate"] == 100


def test_spans_that_are_wrong_are_a_partial_success(run: Running) -> None:
    body = export(a_span(1), a_span(2, traceId="xyz"), a_span(3, startTimeUnixNano=0), a_span(4))
    partial = run.http.post("/v1/traces", json=body).json()["partialSuccess"]
    assert partial["rejectedSpans"] == "2"
    assert "traceId" in partial["errorMessage"]
    request = as_protobuf(2)
    request.resource_spans[0].scope_spans[0].spans[0].span_id = b""
    answer = run.http.post("/v1/traces", content=request.SerializeToString(), headers=PROTOBUF)
    assert answer.headers["content-type"] == "application/x-protobuf"
    found = ExportTraceServiceResponse.FromString(answer.content).partial_success
    assert found.rejected_spans == 1
    assert "spanId" in found.error_message
    assert len(run.records()) == 3


@pytest.mark.parametrize("body", [b"{}", b'{"resourceSpans": []}', b'{"resourceSpans": null}'])
def test_nothing_at_all_is_a_success(shared: Running, body: bytes) -> None:
    assert shared.http.post("/v1/traces", content=body, headers=JSON).json() == {}
    assert shared.http.post("/v1/traces", content=b"", headers=PROTOBUF).status_code == 200


BAD_JSON = [
    b"",
    b"{",
    b"[]",
    b"\xff",
    b'{"resourceSpans": 5}',
    b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"attributes": [{"key": 5}]}]}]}]}',
    json.dumps(export(a_span(startTimeUnixNano="noon"))).encode(),
    json.dumps(export(a_span(startTimeUnixNano=10**30))).encode(),
    json.dumps(export(a_span(startTimeUnixNano="9" * 5_000))).encode(),
    b'{"resourceSpans": [{"resource": {"attributes": [{"key": "a", "value": '
    + b'{"arrayValue": {"values": [' * 20_000,
]


@pytest.mark.parametrize("body", BAD_JSON)
def test_json_that_is_none_of_ours(shared: Running, body: bytes) -> None:
    answer = shared.http.post("/v1/traces", content=body[: BODY_LIMIT - 1], headers=JSON)
    assert answer.status_code == 400
    assert answer.json()["code"] == 3
    assert "ExportTraceServiceRequest" in answer.json()["message"]


@pytest.mark.parametrize("body", [b"\xff\xff", b"not protobuf", b"\x0a\x05abc", b"\x0a" * 5_000])
def test_protobuf_that_is_none_of_ours(shared: Running, body: bytes) -> None:
    answer = shared.http.post("/v1/traces", content=body, headers=PROTOBUF)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/x-protobuf"
    status = Status.FromString(answer.content)
    assert status.code == 3
    assert "ExportTraceServiceRequest" in status.message


def test_values_that_nest_too_deep(shared: Running) -> None:
    request = as_protobuf(1)
    value = request.resource_spans[0].scope_spans[0].spans[0].attributes.add(key="deep").value
    for _ in range(500):
        value = value.array_value.values.add()
    answer = shared.http.post("/v1/traces", content=request.SerializeToString(), headers=PROTOBUF)
    assert answer.status_code == 400


def test_gzip(run: Running) -> None:
    body = as_protobuf(3).SerializeToString()
    half = len(body) // 2
    packed = gzip.compress(body[:half]) + gzip.compress(body[half:])  # two members are one content
    answer = run.http.post("/v1/traces", content=packed, headers={**PROTOBUF, "content-encoding": "gzip"})
    assert answer.status_code == 200
    assert len(run.records()) == 3


@pytest.mark.parametrize(
    ("body", "encoding", "status"),
    [
        (gzip.compress(b"\x00" * 50_000_000), "gzip", 413),
        (gzip.compress(gzip.compress(b"x"))[:-9], "gzip", 400),
        (b"no gzip", "gzip", 400),
        (b"", "gzip", 200),
        (zlib.compress(b""), "br", 415),
        (b"\x00" * (BODY_LIMIT + 1), "identity", 413),
    ],
)
def test_bodies_that_unpack_to_too_much_or_not_at_all(
    shared: Running, body: bytes, encoding: str, status: int
) -> None:
    answer = shared.http.post("/v1/traces", content=body, headers={**PROTOBUF, "content-encoding": encoding})
    assert answer.status_code == status
    if status != 200:
        assert Status.FromString(answer.content).message
    assert shared.http.post("/v1/traces", json={}).status_code == 200  # it still works


def test_other_contents_and_methods(shared: Running) -> None:
    for kind in ("text/plain", "", "application/grpc"):
        answer = shared.http.post("/v1/traces", content=b"x", headers={"content-type": kind})
        assert (answer.status_code, answer.json()["code"]) == (415, 2)
    assert shared.http.get("/v1/traces").status_code == 405
    answer = shared.http.post("/v1/logs", content=b"", headers=PROTOBUF)
    assert answer.status_code == 404
    assert "/v1/traces" in answer.json()["detail"]
