"""The first step of the hot path: what the client asks for, read from its head and body without building
objects.

Only the few fields that routing and the record need are decoded; the rest of the body is checked to be
JSON and passed over, so that unknown fields, numbers of any size and formatting reach the backend as the
client sent them.

Headers: ``x-servelens-unit`` names the randomised unit, ``x-session-id`` the session,
``x-client-request-id`` the caller's own id (the body's ``client_request_id`` wins), ``traceparent`` the
W3C trace, ``x-servelens-tags`` labels for the record in the syntax of W3C baggage:
``team=search,release=42``, percent-encoded where needed; a member without ``=`` is a tag with an empty
value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote

import msgspec

from servelens.errors import Invalid, Missing
from serving_proxy.endpoint import Endpoint
from serving_proxy.request_body import MAX_IDENTIFIER, Identifier, RequestBody
from serving_proxy.routing import Identity, Snapshot
from serving_proxy.target import Kind, Target
from serving_proxy.trace_context import trace_id

_MAX_TAGS: Final = 32


class Origin(msgspec.Struct, frozen=True, gc=False):
    """What the request's head says about where it comes from; it is known even when the body is unusable."""

    unit: str | None = None
    session_id: str | None = None
    client_request_id: str | None = None
    trace_id: str | None = None
    tags: dict[str, str] | None = None


class Invocation(msgspec.Struct, frozen=True, gc=False):
    """A readable request for an endpoint that exists."""

    endpoint: Endpoint
    kind: Kind
    model: str | None
    wants_stream: bool
    client_request_id: str | None
    identity: Identity
    body: RequestBody | None
    """What was read; ``None`` when the body has more than that in it."""


def read_origin(fields: Mapping[bytes, bytes]) -> Origin:
    """Read the head's fields. Never fails: one that makes no sense is left out."""
    if _ORIGIN_HEADERS.isdisjoint(fields):
        return _NOWHERE
    tags = fields.get(b"x-servelens-tags")
    return Origin(
        _text(fields.get(b"x-servelens-unit")),
        _text(fields.get(b"x-session-id")),
        _text(fields.get(b"x-client-request-id")),
        trace_id(fields),
        _tags(tags) if tags else None,
    )


def read_invocation(
    target: Target, origin: Origin, body: bytes, request_id: str, snapshot: Snapshot
) -> Invocation:
    """Read the body and find the endpoint. Raises Invalid or Missing, worded for the person at the client.

    Of an ``infer`` call ``body`` is the part that is JSON, without binary tensors.
    """
    try:
        if not body.isascii():
            body.decode()
        fields = snapshot.read_body(body)
    except msgspec.ValidationError as error:
        problem, _, where = str(error).partition(" - at `$.")
        raise Invalid(f"{problem}.", field=where.rstrip("`") or "body") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(
            f"The request body is not valid JSON: {error}.", field="body", fix="Send one UTF-8 JSON object."
        ) from error
    name = target.endpoint or fields.model
    if not name:
        raise Invalid(
            "The field 'model' is missing; it names the endpoint.", field="model", fix=_choices(snapshot)
        )
    endpoint = snapshot.endpoints.get(name)
    if endpoint is None:
        field = None if target.endpoint else "model"
        raise Missing(f"There is no endpoint named {name!r}.", field=field, fix=_choices(snapshot))
    user = fields.user or fields.safety_identifier
    if user is None and target.api == "messages":
        user = _anthropic_user(fields.metadata)
    return Invocation(
        endpoint,
        target.kind or _kind_of(fields),
        fields.model,
        fields.stream is True,
        fields.client_request_id or origin.client_request_id,
        Identity(request_id, origin.unit, user, origin.session_id),
        None if target.api == "infer" else fields,
    )


_NOWHERE: Final = Origin()
_ORIGIN_HEADERS: Final = frozenset(
    (b"x-servelens-unit", b"x-session-id", b"x-client-request-id", b"traceparent", b"x-servelens-tags")
)


def _kind_of(fields: RequestBody) -> Kind:
    """What a body on ``/invocations`` is."""
    if bytes(fields.messages):
        return "chat"
    if bytes(fields.prompt):
        return "completions"
    return "embeddings" if bytes(fields.input) else "scoring"


class _Metadata(msgspec.Struct, gc=False):
    user_id: Identifier | None = None


_decode_metadata = msgspec.json.Decoder(_Metadata).decode


def _anthropic_user(metadata: msgspec.Raw) -> str | None:
    """``metadata.user_id`` of Anthropic's Messages API; whatever else stands there is the backend's affair."""
    try:
        return _decode_metadata(metadata).user_id if bytes(metadata) else None
    except msgspec.ValidationError:
        return None


def _choices(snapshot: Snapshot) -> str:
    names = ", ".join(repr(name) for name in snapshot.endpoints)
    return f"Use one of: {names}." if names else "No endpoint is configured yet."


def _text(value: bytes | None) -> str | None:
    return value[:MAX_IDENTIFIER].decode("utf-8", "replace") if value else None


def _tags(value: bytes) -> dict[str, str]:
    members = value.decode("utf-8", "replace").split(",")[:_MAX_TAGS]
    pairs = (member.partition("=") for member in members)
    return {unquote(key.strip()): unquote(text.strip()) for key, _, text in pairs if key.strip()}
