"""What of a feedback may be kept: the endpoint's rules for its records, applied to what people say about them.

Invariant: what the endpoint is configured not to keep of a call (values at JSON paths, personal data, units, tags, bodies) is
in no byte that goes to the spool. Paths are those of the feedback's own fields (``$.user``, ``$.comment``, ``$..email``).
Sampling leaves out calls, to save room, and no feedback.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from servelens.errors import Conflict, Invalid
from serving_proxy.endpoint import Endpoint
from serving_proxy.feedback.body import Given
from serving_proxy.gateway import Guardrails
from serving_proxy.guardrails.screen import screen_of
from serving_proxy.privacy import Privacy

_TEXTS: Final = ("label", "comment", "text", "corrected_answer", "ground_truth")
_BODIES: Final = ("comment", "text", "corrected_answer")
_MASKING: Final = Guardrails(pii="mask")

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder().decode


def masks_personal_data(endpoints: Iterable[Endpoint]) -> bool:
    """Whether one of them lets no personal data into its records."""
    return any(
        guardrails is not None and guardrails.pii is not None
        for endpoint in endpoints
        for guardrails in (endpoint.gateway.input_guardrails, endpoint.gateway.output_guardrails)
    )


def kept_feedback(given: Given, privacy: Privacy, *, mask: bool) -> Given:
    """The feedback as it may be kept. ``mask``: without personal data in its texts, which may take milliseconds.

    Raises :class:`~servelens.errors.Conflict` when nothing of it may be, and :class:`~servelens.errors.Invalid` when its
    call could not be found by what it says, because no record has that.
    """
    if privacy.payload_logging == "off":
        raise Conflict(
            "This endpoint keeps no records, and no feedback on its calls.",
            field="payload_logging",
            fix="Switch payload_logging of the endpoint on, or send no feedback.",
        )
    if given.client_request_id is not None and privacy.hides_client_request_id:
        raise Invalid(
            "Records are kept without it here, so that it names none.",
            field="client_request_id",
            fix="Send the answer's header x-request-id as request_id.",
        )
    changes: dict[str, Any] = {}
    if privacy.payload_logging == "metadata":
        changes |= dict.fromkeys(_BODIES)
        if isinstance(given.ground_truth, str):
            changes["ground_truth"] = None
    changes |= _redactions(given, privacy)
    if given.user is not None:
        changes["user"] = privacy.kept_unit(given.user)
    if privacy.hides_tags:
        changes["tags"] = None
    kept = msgspec.structs.replace(given, **changes)
    if mask:
        kept = _masked(kept, screen_of(_MASKING, "input").text)
    if not kept.parts:
        raise Conflict(
            "This endpoint keeps nothing of what the feedback says.",
            field="payload_logging",
            fix="Send thumbs, score or a value, or let the endpoint keep payloads.",
        )
    return kept


def _redactions(given: Given, privacy: Privacy) -> dict[str, Any]:
    """The fields that a path leads to: a text gives way to the word for it, a number to nothing."""
    before = _encode(given)
    after = privacy.redacted(before)
    if after is before or after == before:
        return {}
    was, fields = _decode(before), _decode(after)
    changes: dict[str, Any] = {}
    for name, value in fields.items():
        if value == was[name] or name in (
            "request_id",
            "client_request_id",
            "endpoint",
            "model",
            "user",
            "name",
        ):
            continue
        is_text = name in _TEXTS and isinstance(was[name], str)
        changes[name] = value if is_text or (name == "tags" and isinstance(value, dict)) else None
    return changes


def _masked(given: Given, treat: Callable[[str], str]) -> Given:
    changes: dict[str, Any] = {}
    for name in _TEXTS:
        text = getattr(given, name)
        if isinstance(text, str):
            changes[name] = treat(text)
    if given.tags:
        changes["tags"] = {name: treat(text) for name, text in given.tags.items()}
    return msgspec.structs.replace(given, **changes)
