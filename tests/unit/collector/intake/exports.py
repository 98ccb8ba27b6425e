"""Exports of OTLP in protobuf, as a sender puts them together by hand."""

from __future__ import annotations

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList

PROTOBUF = {"content-type": "application/x-protobuf"}
NOON_NS = 1_777_636_800_000_000_000


def as_protobuf(spans: int, service: str = "chat") -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    group.resource.attributes.append(KeyValue(key="service.name", value=AnyValue(string_value=service)))
    scope = group.scope_spans.add()
    for number in range(spans):
        text = KeyValueList(values=[KeyValue(key="content", value=AnyValue(string_value="Hi"))])
        role = KeyValue(key="role", value=AnyValue(string_value="user"))
        text.values.append(role)
        messages = ArrayValue(values=[AnyValue(kvlist_value=text)])
        scope.spans.add(
            trace_id=b"\x01" * 16,
            span_id=(number + 1).to_bytes(8),
            start_time_unix_nano=NOON_NS,
            end_time_unix_nano=NOON_NS + 5_000_000,
            attributes=[
                KeyValue(key="gen_ai.operation.name", value=AnyValue(string_value="chat")),
                KeyValue(key="gen_ai.input.messages", value=AnyValue(array_value=messages)),
                KeyValue(key="other", value=AnyValue(bytes_value=b"\x00")),
                KeyValue(key="empty", value=AnyValue()),
            ],
        )
    return request
