"""How many tokens an answer says it took: input and output.

Reads what OpenAI's chat, completions, embeddings and Responses APIs and Anthropic's Messages API call ``usage``
(https://platform.openai.com/docs/api-reference, https://docs.anthropic.com/en/api/messages). One pass of a JSON
decoder that builds nothing else, which also tells whether a whole answer is JSON at all. A backend that counts
nonsense is one that does not count.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from collector.record import Record

Usage = tuple[int, int]
"""Input and output tokens."""

_MOST: Final = 1 << 40
_HEAD_BYTES: Final = 4096
_TAIL_BYTES: Final = 32 * 1024
_MARK: Final = b'"usage"'
_BEGINS: Final = re.compile(rb'"usage"\s*:\s*\{')


class _Counts(msgspec.Struct, gc=False):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None


class Answer(msgspec.Struct, gc=False):
    """The member of an answer that is read."""

    usage: _Counts | None = None


ReadAnswer = Callable[[bytes], Answer]


class _Event(msgspec.Struct, gc=False):
    """An event of any of the streams: ``usage`` at its top, or in the ``response`` of OpenAI's last event or the
    ``message`` of Anthropic's first.
    """

    usage: _Counts | None = None
    response: Answer | None = None
    message: Answer | None = None


_decode_answer = msgspec.json.Decoder(Answer).decode
_decode_event = msgspec.json.Decoder(_Event).decode
_skim = msgspec.json.Decoder(msgspec.Raw).decode


def read_answer(body: bytes, read: ReadAnswer = _decode_answer) -> tuple[Answer | None, Usage | None]:
    """A whole answer, where it is an object with a proper ``usage`` or none, and its usage. Raises
    :class:`msgspec.DecodeError` when it is not JSON, RecursionError when it is nested too deep to tell.
    """
    try:
        answer = read(body)
    except msgspec.ValidationError:  # JSON, as far as it was read
        _skim(body)
        return None, None
    counts = answer.usage
    if counts is None:
        return answer, None
    tokens_in, tokens_out = counts.prompt_tokens, counts.completion_tokens
    if tokens_in is None or tokens_out is None or not (0 <= tokens_in <= _MOST and 0 <= tokens_out <= _MOST):
        return answer, _pair(*_input_output(counts))
    return answer, (tokens_in, tokens_out)


def read_usage(body: bytes) -> Usage | None:
    """The usage of a whole answer, if it says one. Never raises."""
    try:
        return read_answer(body)[1]
    except (msgspec.DecodeError, RecursionError):
        return None


def read_stream_usage(pieces: Sequence[bytes]) -> Usage | None:
    """The usage of a stream of server-sent events, cut into pieces anywhere, if it says one. Never raises.

    The last count wins, for each of the two: servers repeat them as they go, and Anthropic's first event has the
    input, its last but one the output. Nobody counts in the middle, so nobody looks there.
    """
    data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    tokens_in: int | None = None
    tokens_out: int | None = None
    beginning = max(0, len(data) - _TAIL_BYTES)
    for start, end in ((beginning, len(data)), (0, min(_HEAD_BYTES, beginning))):
        while (tokens_in is None or tokens_out is None) and (at := data.rfind(_MARK, start, end)) >= 0:
            end = at
            if _BEGINS.match(data, at):  # else null, as most events have it
                line, end = _line_around(data, at)
                counts = _counts_in(line)
                if counts is not None:
                    said_in, said_out = _input_output(counts)
                    tokens_in = said_in if tokens_in is None else tokens_in
                    tokens_out = said_out if tokens_out is None else tokens_out
    return _pair(tokens_in, tokens_out)


def _counts_in(line: bytes) -> _Counts | None:
    if not line.startswith(b"data:"):
        return None
    try:
        event = _decode_event(line[5:])
    except (msgspec.DecodeError, RecursionError):
        return None
    if event.usage is not None:
        return event.usage
    inner = event.response or event.message
    return None if inner is None else inner.usage


def _line_around(data: bytes, at: int) -> tuple[bytes, int]:
    """The line that this place is in, and where it begins."""
    start = data.rfind(b"\n", 0, at) + 1
    start = max(start, data.rfind(b"\r", start, at) + 1)
    end = data.find(b"\n", at)
    end = len(data) if end < 0 else end
    carriage_return = data.find(b"\r", at, end)
    return data[start : end if carriage_return < 0 else carriage_return], start


def _input_output(counts: _Counts) -> tuple[int | None, int | None]:
    tokens_in = counts.prompt_tokens
    if counts.input_tokens is not None:  # Anthropic counts apart what its cache took in or gave
        cached = (counts.cache_creation_input_tokens or 0) + (counts.cache_read_input_tokens or 0)
        tokens_in = counts.input_tokens + cached
    tokens_out = counts.completion_tokens if counts.output_tokens is None else counts.output_tokens
    return tokens_in, tokens_out


def _pair(tokens_in: int | None, tokens_out: int | None) -> Usage | None:
    """Embeddings have no output; an answer without any input says nothing."""
    if tokens_in is None:
        return None
    tokens_out = tokens_out or 0
    return (tokens_in, tokens_out) if 0 <= tokens_in <= _MOST and 0 <= tokens_out <= _MOST else None


def estimate(record: Record) -> int:
    """Tokens of a call whose backend does not count them, for the rate limits: four bytes of a body, or an event of a
    stream, are about one token. Zero when nothing was answered.
    """
    response = record.response
    if record.status_code != 200 or response is None:
        return 0
    answered = response.count(b"\ndata:") if record.is_stream else len(response) // 4
    return len(record.request or b"") // 4 + answered
