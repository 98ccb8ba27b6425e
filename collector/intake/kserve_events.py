"""Events of KServe's payload logger as arrivals.

Source: https://github.com/kserve/kserve/blob/master/pkg/logger/worker.go and ``handler.go`` beside it. A request and its
response come as two events with one id, from one source; a response is logged only when the model answered 200. Of the
headers that ``ce-metadata`` carries, those are read that the proxy records, and nothing else is kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Final

from collector.intake.arrival import UNKNOWN_STATUS, Arrival, Kind, arrival, key_of, plausible
from collector.intake.body_shape import shape_of
from collector.intake.cloud_events import CloudEvent
from collector.intake.refusal import Refusal
from collector.intake.rules import Rules
from collector.record import Record
from servelens.errors import Invalid
from servelens.identifiers import id_at

KINDS: Final = {
    "org.kubeflow.serving.inference.request": Kind.REQUEST,
    "org.kubeflow.serving.inference.response": Kind.RESPONSE,
}
_TRACE_PARENT: Final = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}.*")
_TAGS: Final = {
    "inferenceservicename": "inference_service",
    "namespace": "namespace",
    "component": "component",
    "endpoint": "kserve_endpoint",
    "source": "ce_source",
}


def read_event(event: CloudEvent, rules: Rules, *, now_us: int, requester: str | None) -> Arrival | None:
    """The event as an arrival; ``None`` when its endpoint's settings keep it out of the table.

    Raises Refusal for an event of another type.
    """
    kind = KINDS.get(event.type)
    if kind is None:
        raise Refusal(
            422,
            f"events of type {event.type[:128]!r} are not recorded.",
            field="type",
            fix=f"Send {' and '.join(KINDS)}.",
        )
    attributes = event.attributes
    service, namespace = attributes.get("inferenceservicename"), attributes.get("namespace")
    canary = attributes.get("endpoint")
    key = key_of(
        "cloudevents", event.source, namespace or "", service or "", attributes.get("component", ""), event.id
    )
    target = rules.target(f"{namespace}/{service}" if namespace and service else None, service, canary)
    time_us, codes = plausible(now_us if event.time_us is None else event.time_us, now_us)
    shape = shape_of(event.data)
    entity = target.entity(canary, shape.model)
    headers = _headers(attributes.get("metadata"))
    is_request = kind is Kind.REQUEST
    record = Record(
        request_id=id_at(time_us, key),
        request_time_us=time_us,
        status_code=UNKNOWN_STATUS if is_request else 200,
        duration_us=0,
        endpoint=target.name,
        api=shape.api,
        client_request_id=event.id,
        request=event.data if is_request else None,
        response=None if is_request else event.data,
        logging_error_codes=codes,
        served_entity=entity.name,
        served_entity_id=entity.id,
        entity_version=entity.version,
        requester=requester,
        model=shape.model,
        unit=headers.get("x-servelens-unit") or shape.user,
        is_stream=shape.is_stream,
        trace_id=_trace_id(headers.get("traceparent")),
        session_id=headers.get("x-session-id"),
        tags={name: attributes[key] for key, name in _TAGS.items() if attributes.get(key)},
        endpoint_config_version=target.config_version,
        arrived_us=now_us,
    )
    kept = target.kept(record)
    if kept is None:
        return None
    try:
        return arrival(key, kind, kept)
    except Invalid as error:
        raise Refusal(400, error.message, field=error.field) from error


def _headers(metadata: str | None) -> Mapping[str, str]:
    """The first value of each header in ``ce-metadata``, a JSON object of lists; nothing when it is something else,
    since a request is worth recording without it.
    """
    try:
        values = json.loads(metadata) if metadata else {}
    except (ValueError, RecursionError):
        return {}
    if not isinstance(values, dict):
        return {}
    first = {
        name.lower(): value[0] if isinstance(value, list) and value else value
        for name, value in values.items()
    }
    return {name: value for name, value in first.items() if isinstance(value, str) and value}


def _trace_id(parent: str | None) -> str | None:
    match = _TRACE_PARENT.fullmatch(parent.strip()) if parent else None
    return match[1] if match else None
