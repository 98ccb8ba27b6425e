"""What all translated answers have in common: which headers pass, errors, whole answers, and streams of events.

Invariant: whatever the backend sends, only :class:`~servelens.errors.Unavailable` leaves here, and how a stream is cut
makes no difference: what could be translated before the fault is given first, and the next call raises.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final

import msgspec

from servelens.errors import Unavailable
from serving_proxy.dialects.dialect import Dialect
from serving_proxy.failure import Failure
from serving_proxy.translation.event_splitter import EventSplitter
from serving_proxy.translation.provider_error import failure_in_stream, provider_failure
from serving_proxy.translation.strict_json import NO_JSON
from serving_proxy.upstream import Headers

# What tells a client when to come again; the rest is about the provider's own API.
_PASSED_ON: Final = frozenset(
    (b"date", b"retry-after", b"retry-after-ms", b"x-should-retry", b"cache-control")
)
_JSON: Final = (b"content-type", b"application/json")
_EVENTS: Final = (b"content-type", b"text/event-stream; charset=utf-8")
_anything: Final = msgspec.json.Decoder().decode


class TranslatedAnswer(ABC):
    """An :class:`~serving_proxy.answer_filter.AnswerFilter` that puts an answer into the words of ``dialect``.

    A subclass appends to ``_out`` what the client is to get, and sets ``_over`` at the end of a stream.
    """

    def __init__(self, dialect: Dialect, *, overloaded: int) -> None:
        self._dialect = dialect
        self._overloaded = overloaded
        self._splitter = EventSplitter()
        self._out: list[bytes] = []
        self._over = False
        self._fault: Unavailable | None = None
        self._encoding = b""

    def begin(self, status: int, headers: Headers, *, is_stream: bool) -> Headers:
        passed = [_EVENTS if is_stream else _JSON]
        for field in headers:
            if field[0] in _PASSED_ON:
                passed.append(field)
            elif field[0] == b"content-encoding":
                self._encoding = field[1]
        return passed

    def whole(self, status: int, body: bytes) -> tuple[int, bytes]:
        self._check_encoding()
        if status >= 400:
            failure = provider_failure(status, body, overloaded=self._overloaded)
            return failure.status, self._dialect.error(failure)
        if not 200 <= status < 300:
            raise Unavailable(f"The backend answered {status}, which is no answer to this call.")
        try:
            return self._answer(body)
        except NO_JSON as error:
            raise Unavailable(f"The backend's answer is not what its API documents: {error}.") from error

    def chunk(self, data: bytes) -> bytes:
        if self._fault is not None:
            raise self._fault
        if self._over:
            return b""
        try:
            self._check_encoding()
            for event in self._splitter.feed(data):
                self._read(event)
        except Unavailable as fault:
            self._fault = fault
            if not self._out:
                raise
        return self._taken()

    def end(self) -> bytes:
        if self._fault is not None:
            raise self._fault
        if self._over:
            return b""
        last = self._splitter.last()
        if last is not None:
            self._read(last)
        if not self._over:
            self._finish()
        return self._taken()

    def _read(self, event: bytes) -> None:
        if self._over:
            return
        try:
            self._event(event)
        except NO_JSON as error:
            raise Unavailable(
                f"The backend sent an event that its API does not document: {error}."
            ) from error

    def _fail(self, event: bytes) -> None:
        """Tell of an error inside the stream, in the client's words; nothing comes after it."""
        failure = failure_in_stream(_anything(event), overloaded=self._overloaded)
        self._out.append(self._dialect.error_event(failure))
        self._over = True

    def _failed(self, failure: Failure) -> tuple[int, bytes]:
        """The same for an error in an answer that says 200."""
        return failure.status, self._dialect.error(failure)

    def _taken(self) -> bytes:
        taken, self._out = b"".join(self._out), []
        return taken

    def _check_encoding(self) -> None:
        if self._encoding not in (b"", b"identity"):
            name = self._encoding.decode("latin-1")
            raise Unavailable(f"The backend compressed its answer ({name}), although it was asked not to.")

    @abstractmethod
    def _answer(self, body: bytes) -> tuple[int, bytes]:
        """Status and body for the client, of a successful whole answer. May raise what msgspec raises."""

    @abstractmethod
    def _event(self, data: bytes) -> None:
        """Take one event of a stream. May raise what msgspec raises."""

    @abstractmethod
    def _finish(self) -> None:
        """The stream is over without its own end: end it for the client where the answer is complete, else raise
        Unavailable.
        """


def cut_short() -> Unavailable:
    """For a stream that stops in the middle."""
    return Unavailable("The backend's stream ended before its answer did.")
