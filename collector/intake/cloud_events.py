"""CloudEvents 1.0 as they come over HTTP: binary mode (attributes in headers), structured mode and batches (JSON).

Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md and
``formats/json-format.md`` beside it. Everything that is wrong ends in a :class:`~collector.intake.refusal.Refusal` that
names the attribute.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple
from urllib.parse import unquote_to_bytes

import msgspec

from collector.intake.refusal import Refusal
from servelens.clock import datetime_us

_PREFIX: Final = b"ce-"
_STRUCTURED: Final = "application/cloudevents+json"
_BATCH: Final = "application/cloudevents-batch+json"
_VERSION: Final = "1.0"
_REQUIRED: Final = ("id", "source", "type")
_MAX_REQUIRED: Final = 2_048
_MAX_ATTRIBUTE: Final = 65_536

_decode_one = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_batch = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode
_decode_any = msgspec.json.Decoder().decode
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class CloudEvent(NamedTuple):
    """``attributes``: context and extension attributes by name, without ``data``; ``time_us`` is ``None`` when the event
    has no time.
    """

    attributes: Mapping[str, str]
    time_us: int | None
    data: bytes

    @property
    def id(self) -> str:
        """The event's id."""
        return self.attributes["id"]

    @property
    def source(self) -> str:
        """Whoever made it; ids are unique within a source."""
        return self.attributes["source"]

    @property
    def type(self) -> str:
        """What happened."""
        return self.attributes["type"]


def read_events(fields: Mapping[bytes, bytes], body: bytes) -> list[CloudEvent]:
    """The events in a request: one, but for batches. ``fields``: the head, names in lower case."""
    kind = fields.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()
    if kind == _BATCH:
        return [
            _structured(members, f"[{place}].") for place, members in enumerate(_json(_decode_batch, body))
        ]
    if kind == _STRUCTURED:
        return [_structured(_json(_decode_one, body), "")]
    if kind.startswith("application/cloudevents"):
        raise Refusal(
            415,
            f"events as {kind!r} are not understood.",
            field="content-type",
            fix=f"Send them in binary mode, as {_STRUCTURED} or as {_BATCH}.",
        )
    if b"ce-id" not in fields and b"ce-specversion" not in fields:
        raise Refusal(
            415,
            "this is no CloudEvent: there are no 'ce-' headers.",
            field="ce-id",
            fix=f"Send events in binary mode, as {_STRUCTURED} or as {_BATCH}.",
        )
    attributes = {
        name[len(_PREFIX) :].decode("latin-1"): _header_text(name, value)
        for name, value in fields.items()
        if name.startswith(_PREFIX)
    }
    return [_checked(attributes, body, "ce-")]


def _structured(members: dict[str, msgspec.Raw], where: str) -> CloudEvent:
    attributes = {}
    for name, raw in members.items():
        if name in ("data", "data_base64"):
            continue
        value = _json(_decode_any, raw)
        if value is None:
            continue
        if isinstance(value, dict | list):
            raise Refusal(
                400, "the value of an attribute is a text, a number or a boolean.", field=where + name
            )
        attributes[name] = value if isinstance(value, str) else bytes(raw).decode()
    return _checked(attributes, _data(members, attributes, where), where)


def _data(members: dict[str, msgspec.Raw], attributes: Mapping[str, str], where: str) -> bytes:
    encoded = members.get("data_base64")
    if encoded is not None:
        text = _json(_decode_any, encoded)
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, TypeError, ValueError) as error:
            raise Refusal(400, "it is not base64.", field=f"{where}data_base64") from error
    raw = members.get("data")
    if raw is None:
        return b""
    kind = attributes.get("datacontenttype", "application/json").partition(";")[0].strip().lower()
    if kind.endswith("json"):
        return bytes(raw)
    value = _json(_decode_any, raw)
    return value.encode("utf-8", "replace") if isinstance(value, str) else bytes(raw)


def _checked(attributes: dict[str, str], data: bytes, where: str) -> CloudEvent:
    version = attributes.get("specversion")
    if version != _VERSION:
        raise Refusal(
            400,
            f"the version is {version!r}." if version else "it is missing.",
            field=f"{where}specversion",
            fix=f"Send CloudEvents of version {_VERSION}.",
        )
    for name in _REQUIRED:
        if not attributes.get(name):
            raise Refusal(400, "it is missing.", field=f"{where}{name}", fix="Every event needs one.")
    for name, value in attributes.items():
        limit = _MAX_REQUIRED if name in _REQUIRED else _MAX_ATTRIBUTE
        if len(value) > limit:
            raise Refusal(400, f"it is longer than {limit} characters.", field=f"{where}{name}")
    return CloudEvent(attributes, _time_us(attributes.get("time"), where), data)


def _time_us(text: str | None, where: str) -> int | None:
    if text is None:
        return None
    try:
        moment = msgspec.convert(text, datetime)
        return datetime_us(moment)
    except (msgspec.ValidationError, TypeError) as error:  # TypeError: a time without a zone
        raise Refusal(
            400,
            f"{text[:64]!r} is not a time.",
            field=f"{where}time",
            fix="Write it as in RFC 3339, such as 2026-05-01T12:00:00Z.",
        ) from error


def _header_text(name: bytes, value: bytes) -> str:
    try:
        return unquote_to_bytes(value).decode()
    except UnicodeDecodeError as error:
        raise Refusal(400, "it is not UTF-8, percent-encoded.", field=name.decode("latin-1")) from error


def _json(decode: Any, raw: bytes | msgspec.Raw) -> Any:
    try:
        return decode(raw)
    except _UNREADABLE as error:
        raise Refusal(400, f"the event is not JSON of the right shape: {error}.") from error
