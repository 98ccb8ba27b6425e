"""The texts of one streamed answer: of one event, to be replaced, or of all events together, to be looked at."""

from __future__ import annotations

from typing import Any, Final

from servelens.errors import ServelensError
from serving_proxy.gateway import Guardrails
from serving_proxy.guardrails.output import OutputFilter
from serving_proxy.guardrails.scorer_client import Failing
from serving_proxy.guardrails.screen import Screen
from serving_proxy.guardrails.sentences import SeenText
from serving_proxy.guardrails.streamed_items import KEPT_WHOLE
from serving_proxy.guardrails.text_fields import Treat, treat_arguments, treat_texts

MAX_STREAM_BYTES: Final = 16 << 20


def treat_event(event: Any, treat: Treat) -> Any:
    """An event as the other guardrails let it go, every text treated, in place where it can be. Arguments of tools, which
    they let go in one piece, are looked at as JSON. What an event of the Responses API repeats of the request is passed over.
    """
    if not isinstance(event, dict):
        return treat_texts(event, treat)
    delta = event.get("delta")
    if isinstance(delta, dict) and isinstance(delta.get("partial_json"), str):
        delta["partial_json"] = treat_arguments(delta["partial_json"], treat)
        return event
    if isinstance(delta, str) and str(event.get("type")).removesuffix(".delta").endswith(KEPT_WHOLE):
        event["delta"] = treat_arguments(delta, treat)
        return event
    response = event.get("response")
    if isinstance(response, dict):
        for name in ("output", "output_text"):
            if response.get(name):
                response[name] = treat_texts(response[name], treat)
        return event
    return treat_texts(event, treat)


class StreamedTexts:
    """Sees a stream pass and gathers its texts, each whole."""

    def __init__(self) -> None:
        self.failing: Failing | None = None
        """Why not all of it has been seen: something in it cannot be read, or it is too long."""
        self._bytes_left = MAX_STREAM_BYTES
        self._texts: dict[str, None] = {}
        self._filter = OutputFilter(_SeeingScreen(self._texts), hold=lambda screen: SeenText(screen.text))
        self._is_over = False

    def see(self, data: bytes) -> None:
        """Some bytes of the stream, cut anywhere."""
        if self.failing is not None or self._is_over:
            return
        self._bytes_left -= len(data)
        if self._bytes_left < 0:
            self.failing = "too_long"
            return
        try:
            self._filter.chunk(data)
        except ServelensError:
            self.failing = "unreadable"

    def all(self) -> list[str]:
        """Every text so far; from the first time on that this is asked, nothing more is seen."""
        if not self._is_over:
            self._is_over = True
            try:
                self._filter.end()
            except ServelensError:
                self.failing = self.failing or "unreadable"
        return list(self._texts)


class _SeeingScreen(Screen):
    """Finds nothing, and remembers every text."""

    def __init__(self, texts: dict[str, None]) -> None:
        super().__init__(Guardrails(), "output")
        self._texts = texts

    def text(self, text: str) -> str:
        self._texts[text] = None
        return text
