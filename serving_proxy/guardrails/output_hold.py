"""Answers that wait for the scorer, whole or by the sentence, or that it looks at when they have passed.

Invariants. Nothing that has not been looked at is let go, but where only afterwards is asked for; everything is let go in the
order in which it came. One question at a time is under way for an answer: what comes meanwhile is asked in the next one, and
when more than MAX_WAITING bytes wait, the backend is not read. The sink hears of the end exactly once: ``hold_ended``, or
``break_off``, or neither after :meth:`AnswerHold.close`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from servelens.errors import ServelensError
from serving_proxy.event_end import EventEnd, StreamEnd
from serving_proxy.guardrails.event_stream import DONE, EventSplitter, data_of, with_data
from serving_proxy.guardrails.safety_check import SafetyCheck, says_something
from serving_proxy.guardrails.screening import treat_answer
from serving_proxy.guardrails.sentences import sentences
from serving_proxy.guardrails.streamed_texts import StreamedTexts, treat_event
from serving_proxy.guardrails.text_fields import without_probabilities

MAX_WAITING: Final = 64 * 1024
_decode = msgspec.json.Decoder().decode


class Sink(Protocol):
    """Who is given what may go out."""

    def let_go(self, data: bytes) -> None: ...
    def hold_ended(self) -> None:
        """Everything has been let go."""
        ...

    def hold_full(self) -> None:
        """So much waits that no more should be read."""
        ...

    def hold_eased(self) -> None: ...
    def break_off(self, error: ServelensError) -> None:
        """What comes next may not go out."""
        ...


class AnswerHold:
    """One whole answer; its subclasses have streams too. ``settled`` is told of the check when it is over."""

    def __init__(self, check: SafetyCheck, sink: Sink, settled: Callable[[SafetyCheck], None]) -> None:
        self._check = check
        self._sink = sink
        self._settled = settled
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False
        self._has_ended = False
        self._is_settled = False

    def whole(self, status: int, body: bytes) -> None:
        """The whole answer. Errors of the backend are no model's output and pass."""
        if status >= 400 or not body:
            self._sink.let_go(body)
            self._tell_end()
            return
        texts: list[str] = []
        try:
            treat_answer(body, _collecting(texts))
        except ServelensError as error:
            self._break_off(error)
            return
        self._look([text for text in texts if says_something(text)], lambda: self._treat_whole(body))

    def chunk(self, data: bytes) -> None:
        """Some more of a stream."""
        raise NotImplementedError

    def end(self, rest: bytes) -> None:
        """The stream is complete with ``rest``."""
        raise NotImplementedError

    def close(self) -> None:
        """Let nothing more go: the answer is on the record, or is given up."""
        self._is_closed = True
        if self._check.has_looked:
            self._settle()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()

    def _treat_whole(self, body: bytes) -> None:
        self._sink.let_go(treat_answer(body, self._check.treat))
        self._tell_end()

    def _tell_end(self) -> None:
        if not self._has_ended:
            self._has_ended = True
            self._settle()
            self._sink.hold_ended()

    def _settle(self) -> None:
        if not self._is_settled:
            self._is_settled = True
            self._settled(self._check)

    def _look(self, texts: Collection[str], then: Callable[[], None]) -> None:
        """Call ``then`` when these texts have been looked at, at once when they have."""
        if self._check.knows(texts):
            self._go_on(then)
        else:
            self._task = asyncio.get_running_loop().create_task(self._wait(texts, then))

    async def _wait(self, texts: Collection[str], then: Callable[[], None]) -> None:
        try:
            await self._check.look(texts)
        except ServelensError as error:
            self._task = None
            self._break_off(error)
        else:
            self._task = None
            self._go_on(then)

    def _go_on(self, then: Callable[[], None]) -> None:
        try:
            then()
        except ServelensError as error:
            self._break_off(error)

    def _break_off(self, error: ServelensError) -> None:
        if not (self._is_closed or self._has_ended):
            self._has_ended = True
            self._settle()
            self._sink.break_off(error)


class _Waiting(NamedTuple):
    """An event, read if it has texts."""

    raw: bytes
    value: Any
    texts: list[str]


class SentenceHold(AnswerHold):
    """A stream whose events are let go when their sentences have been looked at. It is given whole sentences."""

    def __init__(self, check: SafetyCheck, sink: Sink, settled: Callable[[SafetyCheck], None]) -> None:
        super().__init__(check, sink, settled)
        self._splitter = EventSplitter()
        self._waiting: deque[_Waiting] = deque()
        self._bytes = 0
        self._is_over = False

    def chunk(self, data: bytes) -> None:
        if self._is_closed:
            return
        try:
            for event in self._splitter.feed(data):
                self._add(event)
        except ServelensError as error:
            self._break_off(error)
            return
        self._pump()
        if self._bytes > MAX_WAITING:
            self._sink.hold_full()

    def end(self, rest: bytes) -> None:
        self._is_over = True
        if rest:
            self.chunk(rest)
        last = self._splitter.rest()
        if last:
            self._add(last)
        self._pump()

    def close(self) -> None:
        super().close()
        self._waiting.clear()
        self._bytes = 0

    def _add(self, raw: bytes) -> None:
        data = data_of(raw)
        value = None if data is None or data.strip() == DONE else _read(data)
        texts: list[str] = []
        if value is not None:
            treat_event(value, _collecting(texts))
        parts = [part for text in texts for part in sentences(text) if says_something(part)]
        self._waiting.append(_Waiting(raw, value, parts))
        self._bytes += len(raw)

    def _pump(self) -> None:
        if self._task is None and not self._is_closed:
            self._go_on(self._release)

    def _release(self) -> None:
        """Let go of what has been looked at, and look at the rest."""
        free: list[bytes] = []
        try:
            while self._waiting and self._check.knows(self._waiting[0].texts):
                waiting = self._waiting.popleft()
                self._bytes -= len(waiting.raw)
                free.append(self._treated(waiting))
        finally:
            if free:
                self._sink.let_go(b"".join(free))
        if self._waiting:
            texts = [text for waiting in self._waiting for text in waiting.texts]
            self._look(texts, self._resume)
        elif self._is_over:
            self._tell_end()

    def _resume(self) -> None:
        self._release()
        if not self._is_closed and self._bytes <= MAX_WAITING:
            self._sink.hold_eased()

    def _treated(self, waiting: _Waiting) -> bytes:
        changed = False
        for text in waiting.texts:
            changed = self._check.treat(text) is not text or changed
        if not changed:
            return waiting.raw
        treated = treat_event(waiting.value, self._by_sentence)
        without_probabilities(treated)
        return with_data(waiting.raw, treated)

    def _by_sentence(self, text: str) -> str:
        return "".join(map(self._check.treat, sentences(text)))


class AfterHold(AnswerHold):
    """A stream that passes at once; only the event that ends it waits until all of its texts have been looked at."""

    def __init__(
        self,
        check: SafetyCheck,
        sink: Sink,
        settled: Callable[[SafetyCheck], None],
        *,
        stream_end: StreamEnd | None,
    ) -> None:
        super().__init__(check, sink, settled)
        self._splitter = EventSplitter()
        self._texts = StreamedTexts()
        self._event_end = None if stream_end is None else EventEnd(stream_end)
        self._ending: list[bytes] = []
        self._is_looking = False
        self._is_over = False

    def chunk(self, data: bytes) -> None:
        if self._is_closed:
            return
        self._texts.see(data)
        try:
            events = self._splitter.feed(data)
        except ServelensError as error:  # an event too long to be waited for
            self._break_off(error)
            return
        for event in events:
            if not self._ending and (self._event_end is None or self._event_end.look(event) is None):
                self._sink.let_go(event)
                continue
            self._ending.append(event)
        if self._ending and not self._is_looking:
            self._look_at_all()

    def end(self, rest: bytes) -> None:
        if rest:
            self.chunk(rest)
        last = self._splitter.rest()
        if last:
            self._ending.append(last)
        self._is_over = True
        if not self._is_looking:
            self._look_at_all()
        elif self._task is None:
            self._finish()

    def _look_at_all(self) -> None:
        self._is_looking = True
        texts = [text for text in self._texts.all() if says_something(text)]
        if self._texts.failing is not None:
            self._check.not_checked(self._texts.failing)
        self._look(texts, self._finish)

    def _finish(self) -> None:
        for text in self._texts.all():
            self._check.treat(text)
        ending, self._ending = b"".join(self._ending), []
        if ending:
            self._sink.let_go(ending)
        if self._is_over:
            self._tell_end()


def _collecting(texts: list[str]) -> Callable[[str], str]:
    def collect(text: str) -> str:
        texts.append(text)
        return text

    return collect


def _read(data: bytes) -> Any:
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
