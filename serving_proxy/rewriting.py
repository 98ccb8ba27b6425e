"""What is sent to the backend: the client's bytes as they came, unless the served entity asks for a change.

Only the top level of the body is taken apart when something must change; every other value stays the
bytes it was, so a number of thirty digits or a float's spelling survives a changed ``temperature``.
"""

from __future__ import annotations

from typing import Final

import msgspec

from servelens.errors import Invalid
from serving_proxy.endpoint import ServedEntity
from serving_proxy.invocation import Headers, Invocation

_OPERATIONS: Final = {"chat": b"/chat/completions", "completions": b"/completions"}
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


class _Message(msgspec.Struct):
    role: str | None = None


_decode_message = msgspec.json.Decoder(_Message).decode


def outgoing_operation(entity: ServedEntity, invocation: Invocation) -> bytes:
    """The backend's path for this kind of call, below its API's base; Invalid when its API has none."""
    if entity.backend.api == "mlflow":
        return b"/invocations"
    operation = _OPERATIONS.get(invocation.kind)
    if operation is None:
        raise Invalid(
            f"Served entity {entity.name!r} is a language model and takes no scoring input.",
            field="body",
            fix="Send 'messages' (chat) or 'prompt' (completion).",
        )
    return operation


def outgoing_body(entity: ServedEntity, invocation: Invocation, body: bytes) -> bytes:
    """The body with the entity's own model name and overrides; the same object when there is nothing to
    change.
    """
    if invocation.kind == "scoring":
        return body
    model = entity.backend.model
    overrides = entity.overrides
    prompt = overrides.system_prompt if invocation.kind == "chat" else None
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
        fields["messages"] = _with_system_prompt(fields.get("messages"), prompt)
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


def outgoing_head(
    headers: Headers, connection: bytes | None, start: bytes, request_id: str, length: int
) -> bytes:
    """The request's head: its start, and the client's own fields but those of its connection."""
    dropped = _NOT_FORWARDED
    if connection is not None:
        dropped = dropped | {token.strip().lower() for token in connection.split(b",")}
    head = b"%bcontent-length: %d\r\nx-request-id: %b\r\n" % (start, length, request_id.encode())
    for field in headers:
        if field[0] not in dropped:
            head += b"%b: %b\r\n" % field
    return head + b"\r\n"
