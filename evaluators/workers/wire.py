"""Messages over a pair of pipes between the scheduler and a worker: a length, then pickled plain values.

Both ends are processes of ours with the same code, so pickle reads nothing from elsewhere. Scores and texts travel as
tuples, not as objects: a score that was built with somebody else's class, or that holds a NaN, is made a proper one here.
"""

from __future__ import annotations

import math
import os
import pickle
import re
import select
import struct
import time
from typing import Any, Final, TypeAlias

import servelens.errors
from evaluators.evaluator import NOT_FINITE, Score, Text
from servelens.errors import ServelensError, Unavailable

PackedText: TypeAlias = "tuple[str | None, str | None, dict[str, Any]]"
PackedScore: TypeAlias = (
    "tuple[float | None, str | None, str | None, dict[str, float | str], dict[str, list[float]]]"
)
PackedError: TypeAlias = "tuple[str, str, str | None, str | None]"

BEGIN_RUN: Final = "begin_run"
"""In place of texts: a run begins. It has no answer."""

_LENGTH: Final = struct.Struct("<Q")
_CHUNK: Final = 1 << 20
_ERROR_CHARACTERS: Final = 500
_UNPRINTED: Final = re.compile(r"\x1b\[[0-9;]*m|\0")  # colours, and what no database takes


class Closed(Exception):
    """The other end has closed its pipe, or its process has ended."""


class Channel:
    """One end of the pipes. Not for several threads."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading = reading
        self._writing = writing
        os.set_blocking(writing, False)

    def send(self, message: Any, deadline: float | None = None) -> None:
        """Write ``message`` whole. Raises :class:`Closed`, and ``TimeoutError`` past ``deadline`` (monotonic seconds)."""
        body = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
        waiting = memoryview(_LENGTH.pack(len(body)) + body)
        try:
            while waiting:
                _wait(self._writing, select.POLLOUT, deadline)
                try:
                    written = os.write(self._writing, waiting[:_CHUNK])
                except BlockingIOError:  # room for less than a page: poll says so only afterwards
                    time.sleep(0.001)
                    continue
                waiting = waiting[written:]
        except BrokenPipeError as error:
            raise Closed from error

    def receive(self, deadline: float | None = None) -> Any:
        """The next message. Raises :class:`Closed`, and ``TimeoutError`` past ``deadline``."""
        (length,) = _LENGTH.unpack(self._exactly(_LENGTH.size, deadline))
        return pickle.loads(self._exactly(length, deadline))

    def close(self) -> None:
        """Close both pipes."""
        for descriptor in (self._reading, self._writing):
            os.close(descriptor)

    def _exactly(self, count: int, deadline: float | None) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            _wait(self._reading, select.POLLIN, deadline)
            part = os.read(self._reading, min(count - len(parts), _CHUNK))
            if not part:
                raise Closed
            parts += part
        return bytes(parts)


def _wait(descriptor: int, event: int, deadline: float | None) -> None:
    poll = select.poll()
    poll.register(descriptor, event)
    left_ms = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1_000
    if not poll.poll(left_ms):
        raise TimeoutError


def packed_text(text: Text) -> PackedText:
    """``text`` as a tuple."""
    return text.prompt, text.response, dict(text.columns)


def unpacked_text(packed: PackedText) -> Text:
    """What :func:`packed_text` was given."""
    return Text(*packed)


def packed_score(score: Score) -> PackedScore:
    """``score`` as a tuple; of any class that has the attributes of a score."""
    value, label, reason = score.value, score.label, score.unscored_reason
    if value is not None and not math.isfinite(value):
        value, label, reason = None, None, NOT_FINITE
    vectors = {
        side: [float(each) for each in vector] for side, vector in getattr(score, "vectors", {}).items()
    }
    details = {_text(str(name)): _plain(each) for name, each in score.details.items()}
    label = None if label is None else _text(str(label))
    return None if value is None else float(value), label, reason, details, vectors


def _plain(detail: object) -> float | str:
    """A detail as JSON and tables have it: a number of NumPy, or half of a surrogate pair, would fail where the scores are
    written, for the whole batch."""
    if isinstance(detail, bool | int | float):
        return detail
    if isinstance(detail, str):
        return _text(detail)
    try:
        return float(detail)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return _text(str(detail))


def _text(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def unpacked_score(packed: PackedScore) -> Score:
    """The score; what is neither a number nor a reason is :data:`~evaluators.evaluator.NOT_FINITE`."""
    value, label, reason, details, vectors = packed
    if value is None and reason is None:
        reason = NOT_FINITE
    return Score(value if reason is None else None, label, reason, details, vectors)  # type: ignore[arg-type]


def described(error: BaseException) -> str:
    """``error`` in one bounded line, for details and messages."""
    plain = _UNPRINTED.sub("", f"{type(error).__name__}: {error}")
    return " ".join(plain.split())[:_ERROR_CHARACTERS]


def packed_error(error: Exception) -> PackedError:
    """``error`` as a tuple; what is not one of our own errors becomes :class:`~servelens.errors.Unavailable`."""
    if isinstance(error, ServelensError):
        return type(error).__name__, error.message, error.field, error.fix
    return Unavailable.__name__, described(error), None, None


def unpacked_error(packed: PackedError) -> ServelensError:
    """The error, of the same class."""
    kind, message, field, fix = packed
    found: Any = getattr(servelens.errors, kind, None)
    if isinstance(found, type) and issubclass(found, ServelensError):
        return found(message, field=field, fix=fix)
    return Unavailable(message, field=field, fix=fix)
