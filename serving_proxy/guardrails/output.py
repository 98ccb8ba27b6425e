"""Guardrails on answers, whole and streamed, in the dialect that the client reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from servelens.errors import Unavailable
from serving_proxy.answer_filter import AnswerFilter
from serving_proxy.gateway import Guardrails
from serving_proxy.guardrails.channels import Channels, Held
from serving_proxy.guardrails.event_stream import DONE, EventSplitter, data_of, with_data
from serving_proxy.guardrails.hold_back import HeldText
from serving_proxy.guardrails.screen import Screen, screen_of
from serving_proxy.guardrails.screening import screen_answer
from serving_proxy.guardrails.sentences import HeldSentence
from serving_proxy.guardrails.streamed_blocks import EVENTS, StreamedBlocks
from serving_proxy.guardrails.streamed_choices import StreamedChoices
from serving_proxy.guardrails.streamed_items import StreamedItems
from serving_proxy.guardrails.text_fields import treat_texts
from serving_proxy.target import Kind
from serving_proxy.upstream import Headers

_WITHOUT_TEXT: Final = ("embeddings",)
_decode = msgspec.json.Decoder().decode


def output_filter(guardrails: Guardrails, kind: Kind) -> AnswerFilter:
    """The filter for one answer. Its methods raise Blocked, and Unavailable for an answer that cannot be read.

    Where the scorer looks at streams by the sentence, the filter lets go of whole sentences.
    """
    safety = guardrails.safety
    by_sentence = safety is not None and safety.streams == "sentence"
    return OutputFilter(
        screen_of(guardrails, "output"),
        has_text=has_text(kind),
        hold=HeldSentence if by_sentence else HeldText,
        changes_streams=by_sentence or guardrails.look_inside,
    )


def has_text(kind: Kind) -> bool:
    """Whether answers to such calls have texts."""
    return kind not in _WITHOUT_TEXT


class OutputFilter:
    """Screens one answer. Which shape the events of a stream have is seen from the events."""

    def __init__(
        self,
        screen: Screen,
        *,
        has_text: bool = True,
        hold: Callable[[Screen], Held] = HeldText,
        changes_streams: bool = True,
    ) -> None:
        self._screen = screen
        self._channels = Channels(screen, hold)
        self._splitter = EventSplitter()
        self._has_text = has_text
        self._changes_streams = changes_streams
        self._is_compressed = False
        self._shape: StreamedChoices | StreamedBlocks | StreamedItems | None = None

    def begin(self, status: int, headers: Headers, *, is_stream: bool) -> Headers:
        """Unchanged. An answer that is compressed, which nobody asked for, is refused when its body comes."""
        for name, value in headers:
            if name.lower() == b"content-encoding" and value.lower() != b"identity":
                self._is_compressed = True
        return headers

    def whole(self, status: int, body: bytes) -> tuple[int, bytes]:
        """The answer with its personal data masked. Errors of the backend are no model's output and pass."""
        self._check()
        if status >= 400 or not self._has_text or not body:
            return status, body
        return status, screen_answer(self._screen, body)

    def chunk(self, data: bytes) -> bytes:
        """The events that are complete and whose texts are settled."""
        self._check()
        if not self._changes_streams:
            return data
        sent = b""
        for event in self._splitter.feed(data):
            sent += self._event(event)
        return sent

    def end(self) -> bytes:
        """The last event, when it came without its blank line, and what was held back of all texts."""
        if not self._changes_streams:
            return b""
        rest = self._splitter.rest()
        sent = b""
        data = data_of(rest)
        if data is not None and (data.strip() == DONE or _is_json(data)):
            sent = self._event(rest + b"\n\n")
        return sent + self._finish()

    def _event(self, raw: bytes) -> bytes:
        data = data_of(raw)
        if data is None:
            return raw
        if data.strip() == DONE:
            return self._finish() + raw
        try:
            event = _decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Unavailable(
                "An event of the answer is no JSON and cannot be screened by the guardrails."
            ) from error
        shape = self._shape_of(event)
        return (
            with_data(raw, treat_texts(event, self._screen.text))
            if shape is None
            else shape.event(raw, event)
        )

    def _shape_of(self, event: Any) -> StreamedChoices | StreamedBlocks | StreamedItems | None:
        """Who reads this event; ``None`` for one that is no part of a text: it is screened by itself."""
        if not isinstance(event, dict):
            return None
        kind = event.get("type")
        if isinstance(event.get("choices"), list):
            if self._shape is None:
                self._shape = StreamedChoices(self._channels)
            return self._shape if isinstance(self._shape, StreamedChoices) else None
        if not isinstance(kind, str):
            return None
        if kind in EVENTS:
            if self._shape is None:
                self._shape = StreamedBlocks(self._channels)
            return self._shape if isinstance(self._shape, StreamedBlocks) else None
        if kind.startswith("response."):
            if self._shape is None:
                self._shape = StreamedItems(self._channels)
            return self._shape if isinstance(self._shape, StreamedItems) else None
        return None

    def _check(self) -> None:
        if self._is_compressed:
            raise Unavailable("The answer is compressed and cannot be screened by the guardrails.")

    def _finish(self) -> bytes:
        return b"" if self._shape is None else self._shape.finish()


def _is_json(data: bytes) -> bool:
    try:
        _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True
