"""What of a finished invocation may be kept: the last thing that happens to a record before it goes to the spool.

Invariant: what an endpoint is configured not to keep (bodies, values at JSON paths, headers, calls outside of the sample)
is in no byte of the spool, and thus in no table.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

import msgspec

from collector.record import Record
from servelens.errors import Invalid, InvalidSettings
from serving_proxy.gateway import Gateway
from serving_proxy.members import lacks, reader
from serving_proxy.redaction import REDACTION_FAILED, Redaction, pseudonym
from serving_proxy.request_body import RequestBody
from serving_proxy.sampling import is_sampled
from serving_proxy.usage import Answer

PAYLOAD_NOT_LOGGED: Final = "PAYLOAD_NOT_LOGGED"
"""On a record of an endpoint whose bodies are not to be kept."""

_MAX_KEY: Final = 64
_RECORDED_HEADERS: Final = (
    *("x-servelens-unit", "x-servelens-tags", "x-session-id", "x-client-request-id", "traceparent"),
)


class Privacy:
    """The rules of one endpoint. Raises InvalidSettings for a path or a fraction that makes no sense."""

    def __init__(self, gateway: Gateway) -> None:
        if not 0.0 <= gateway.sampling_fraction <= 1.0:
            raise InvalidSettings(
                f"{gateway.sampling_fraction:g} is not a fraction",
                field="sampling_fraction",
                fix="Use a number from 0 to 1.",
            )
        self._fraction = gateway.sampling_fraction
        self.payload_logging = gateway.payload_logging
        self._redaction = Redaction(gateway.redact_paths) if gateway.redact_paths else None
        self._headers = frozenset(name.lower() for name in gateway.redact_headers) & frozenset(
            _RECORDED_HEADERS
        )
        key = gateway.pseudonym_key
        self._unit_key = key if len(key) <= _MAX_KEY else blake2b(key).digest()
        hides = self._redaction.hides if self._redaction is not None else _hides_nothing
        self._hides_unit = (
            hides("user") or hides("safety_identifier") or hides("metadata", "user_id")
        ) or not self._headers.isdisjoint(("x-servelens-unit", "x-session-id"))
        self._hides_client_id = hides("client_request_id") or "x-client-request-id" in self._headers
        self.is_open = (
            self.payload_logging == "full"
            and self._fraction == 1.0
            and not self._redaction
            and not self._headers
        )
        """Whether everything may be kept, so that nobody need ask."""
        names = self._redaction.members if self._redaction is not None else None
        self.redacted_members = names or frozenset()
        """With what members of a body's top level the redacted paths begin, where they all begin with one."""
        self.read_answer = reader(Answer, self.redacted_members)
        """Reads an answer, with those members."""
        self._is_plain = self.payload_logging == "full" and self._fraction == 1.0 and not self._headers
        self._request_lacks = lacks(RequestBody, names) if names else _cannot_tell
        self._answer_lacks = lacks(Answer, names) if names else _cannot_tell

    @classmethod
    def of_all(cls, gateways: Iterable[Gateway]) -> Privacy:
        """The rules for calls that reached no endpoint, and may have been meant for any: what one of the endpoints does
        not keep, is not kept of them.
        """
        every = list(gateways)
        return cls(
            Gateway(
                payload_logging="full" if all(one.payload_logging == "full" for one in every) else "metadata",
                redact_paths=tuple(dict.fromkeys(path for one in every for path in one.redact_paths)),
                redact_headers=tuple(dict.fromkeys(name for one in every for name in one.redact_headers)),
                pseudonym_key=next((one.pseudonym_key for one in every if one.pseudonym_key), b""),
            )
        )

    def kept(
        self, record: Record, asked: RequestBody | None = None, answer: Answer | None = None
    ) -> Record | None:
        """The record as it may be kept; ``None`` when it may not be. ``asked`` and ``answer``: what was read of the
        bodies, where they have been seen to be JSON.
        """
        redaction = self._redaction
        request, response = record.request, record.response
        if (
            (asked is not None and answer is not None and self._is_plain and redaction is not None)
            and (request is not None and response is not None and not self._hides(record))
            and (self._request_lacks(asked) or redaction.cannot_touch(request))
            and (self._answer_lacks(answer) or redaction.cannot_touch(response))
        ):
            return record
        if self.payload_logging == "off" or not is_sampled(
            record.shadow_of or record.request_id, self._fraction
        ):
            return None
        codes = record.logging_error_codes
        if self.payload_logging == "metadata":
            request = response = None
            codes = [*codes, PAYLOAD_NOT_LOGGED]
        elif redaction is not None:
            request = None if request is None else redaction.apply(request)
            response = None if response is None else redaction.apply(response)
            if (request is None) != (record.request is None) or (response is None) != (
                record.response is None
            ):
                codes = [*codes, REDACTION_FAILED]
        unit = record.unit
        if unit is not None and self._hides_unit and unit != record.request_id:
            unit = pseudonym(unit, self._unit_key)
        headers = self._headers
        return msgspec.structs.replace(
            record,
            sampling_fraction=self._fraction,
            request=request,
            response=response,
            logging_error_codes=codes,
            unit=unit,
            client_request_id=None if self._hides_client_id else record.client_request_id,
            session_id=None if "x-session-id" in headers else record.session_id,
            trace_id=None if "traceparent" in headers else record.trace_id,
            tags={} if "x-servelens-tags" in headers else record.tags,
        )

    @property
    def hides_client_request_id(self) -> bool:
        """Whether no record has the caller's own id."""
        return self._hides_client_id

    @property
    def hides_tags(self) -> bool:
        """Whether no record has the caller's tags."""
        return "x-servelens-tags" in self._headers

    def redacted(self, body: bytes) -> bytes:
        """A body that is JSON, without the values at the redacted paths. Raises Invalid for one nested beyond reason."""
        kept = body if self._redaction is None else self._redaction.apply(body)
        if kept is None:
            raise Invalid("it is nested too deep to be redacted", field="body", fix="Send a flat object.")
        return kept

    def kept_unit(self, unit: str) -> str:
        """The unit as records have it: itself or its pseudonym."""
        return pseudonym(unit, self._unit_key) if self._hides_unit else unit

    def _hides(self, record: Record) -> bool:
        """Whether anything but the bodies is to be hidden."""
        if self._hides_client_id and record.client_request_id is not None:
            return True
        return self._hides_unit and record.unit is not None and record.unit != record.request_id


def _hides_nothing(*_names: str) -> bool:
    return False


def _cannot_tell(_body: object) -> bool:
    return False
