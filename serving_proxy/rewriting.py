"""What is sent to the backend: the client's bytes as they came, unless the served entity asks for a change.

Only the top level of the body is taken apart when something must change; every other value stays the
bytes it was, so a number of thirty digits or a float's spelling survives a changed ``temperature``.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from servelens.errors import Invalid
from serving_proxy.answer_filter import AnswerFilter, FilterChain
from serving_proxy.dialects.kserve import JSON_LENGTH, operation
from serving_proxy.endpoint import ServedEntity
from serving_proxy.guardrails.output import output_filter
from serving_proxy.invocation import Invocation
from serving_proxy.request import RequestHead
from serving_proxy.trace_context import TRACE_FIELDS, can_be_forwarded
from serving_proxy.translation.registry import translation_for
from serving_proxy.translation.translation import Translation

# Paths below an API's base, where nothing is translated.
_OPERATIONS: Final = {
    ("openai", "chat"): b"/chat/completions",
    ("openai", "completions"): b"/completions",
    ("openai", "embeddings"): b"/embeddings",
    ("openai", "responses"): b"/responses",
    ("anthropic", "messages"): b"/v1/messages",
}
_ANTHROPIC_VERSION: Final = b"anthropic-version: 2023-06-01\r\n"
_decode_top = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_messages = msgspec.json.Decoder(list[msgspec.Raw]).decode

# Hop-by-hop headers (RFC 9110 §7.6.1), what the proxy writes itself, and the client's own secrets.
_NOT_FORWARDED: Final = frozenset(
    (
        *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection"),
        *(b"te", b"trailer", b"transfer-encoding", b"upgrade", b"http2-settings"),
        *(b"host", b"content-length", b"accept-encoding", b"expect", b"x-request-id"),
        *(b"authorization", b"cookie", b"api-key", b"x-api-key"),
        *(b"x-servelens-unit", b"x-servelens-tags"),
    )
)


_OF_TENSORS: Final = (b"content-type:", b"content-encoding:", JSON_LENGTH + b":")
_PROMPTED: Final = ("chat", "messages", "responses")


class _Message(msgspec.Struct):
    role: str | None = None


_decode_message = msgspec.json.Decoder(_Message).decode


class OutgoingCall(NamedTuple):
    """What a backend is sent, and what its answer has to go through."""

    operation: bytes
    body: bytes
    filter: AnswerFilter | None


def outgoing_call(entity: ServedEntity, invocation: Invocation, body: bytes, request_id: str) -> OutgoingCall:
    """The call in the backend's own dialect. Raises Invalid, which names the field, when it cannot be put
    so.
    """
    kind = invocation.kind
    guardrails = invocation.endpoint.gateway.output_guardrails
    screen = None if guardrails is None else output_filter(guardrails, kind)
    translation = translation_for(kind, entity.backend.api)
    if kind != "infer":
        body = outgoing_body(entity, invocation, body)
    path = _operation(entity, invocation, translation)
    if translation is None:
        return OutgoingCall(path, body, screen)
    asked_for = invocation.model or invocation.endpoint.name
    translated = translation.request(body, model=entity.backend.model or invocation.model)
    answer = translation.answer(model=asked_for, request_id=request_id, request=body)
    return OutgoingCall(path, translated, answer if screen is None else FilterChain(answer, screen))


def unchanged_operations(entity: ServedEntity) -> dict[str, bytes]:
    """The kinds of calls that the entity is sent as they come, with the path of each."""
    overrides, api = entity.overrides, entity.backend.api
    if entity.backend.model is not None or overrides.body or overrides.system_prompt is not None:
        return {}
    return {kind: path for (own, kind), path in _OPERATIONS.items() if own == api}


def _operation(entity: ServedEntity, invocation: Invocation, translation: Translation | None) -> bytes:
    backend = entity.backend
    if backend.api == "kserve":
        return operation(backend.model or invocation.endpoint.name)
    if backend.api == "mlflow":
        return b"/invocations"
    if translation is not None:
        return translation.operation.encode()
    return _OPERATIONS[backend.api, invocation.kind]


def outgoing_body(entity: ServedEntity, invocation: Invocation, body: bytes) -> bytes:
    """The body with the entity's own model name and overrides; the same object when there is nothing to
    change.
    """
    if invocation.kind == "scoring":
        return body
    model = entity.backend.model
    overrides = entity.overrides
    prompt = overrides.system_prompt if invocation.kind in _PROMPTED else None
    if (model is None or model == invocation.model) and not overrides.body and prompt is None:
        return body
    fields = _decode_top(body)
    if model is not None:
        fields["model"] = msgspec.Raw(msgspec.json.encode(model))
    for key, value in overrides.body.items():
        if value is None:
            fields.pop(key, None)
        else:
            fields[key] = msgspec.Raw(msgspec.json.encode(value))
    if prompt is not None:
        if invocation.kind == "chat":
            fields["messages"] = _with_system_prompt(fields.get("messages"), prompt)
        else:
            name = "system" if invocation.kind == "messages" else "instructions"
            fields[name] = msgspec.Raw(msgspec.json.encode(prompt))
    return msgspec.json.encode(fields)


def _with_system_prompt(messages: msgspec.Raw | None, prompt: str) -> msgspec.Raw:
    try:
        conversation = _decode_messages(messages) if messages is not None else []
        leading = _decode_message(conversation[0]).role if conversation else None
    except msgspec.ValidationError as error:
        raise Invalid(
            "'messages' must be a list of objects with a 'role'.", field="messages", fix=f"{error}."
        ) from error
    system = msgspec.Raw(msgspec.json.encode({"role": "system", "content": prompt}))
    rest = conversation[1:] if leading in ("system", "developer") else conversation
    return msgspec.Raw(msgspec.json.encode([system, *rest]))


def passed_on(head: RequestHead, api: str) -> bytes:
    """The client's own fields as they go to the backend, without those of its connection.
    Anthropic's API asks for its version, which only its own clients send.
    """
    dropped = _NOT_FORWARDED
    connection = head.fields.get(b"connection")
    if connection is not None:
        dropped = dropped | {token.strip().lower() for token in connection.split(b",")}
    if not TRACE_FIELDS.isdisjoint(head.fields) and not can_be_forwarded(head.headers):
        dropped = dropped | TRACE_FIELDS
    lines = b"".join([b"%b: %b\r\n" % field for field in head.headers if field[0] not in dropped])
    if api == "anthropic" and b"anthropic-version" not in head.fields:
        return _ANTHROPIC_VERSION + lines
    if api == "mlflow" and head.target.api == "infer":
        return _described_as_json(lines)
    return lines


def _described_as_json(lines: bytes) -> bytes:
    """The fields for a body that has become JSON: tensors may have been bytes, without any content type."""
    kept = [line for line in lines.split(b"\r\n") if not line.startswith(_OF_TENSORS)]
    return b"content-type: application/json\r\n" + b"\r\n".join(kept)
