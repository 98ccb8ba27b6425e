"""Bounds on what one connection, one invocation and one stop of the proxy may cost. Bytes and seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

OnLogFailure = Literal["pass", "reject"]


@dataclass(frozen=True, slots=True)
class Limits:
    """The proxy's bounds; the defaults suit language models.

    ``max_body_bytes`` and ``max_header_bytes`` bound a request; ``header_timeout_s`` and
    ``body_timeout_s`` how long each may take to arrive, and ``keep_alive_s`` how long a connection may
    lie idle. A client that reads nothing for ``slow_reader_s`` is treated as gone. After a client has
    gone, the rest of its answer is taken in up to ``drain_bytes`` and ``drain_s``, for the record.
    ``max_answer_bytes`` bounds a whole answer that has to be in memory because it is translated or screened.
    ``log_timeout_s`` bounds the wait for a stalled spool.
    """

    max_body_bytes: int = 16 << 20
    max_header_bytes: int = 64 << 10
    header_timeout_s: float = 15.0
    body_timeout_s: float = 120.0
    keep_alive_s: float = 75.0
    slow_reader_s: float = 60.0
    drain_bytes: int = 1 << 20
    drain_s: float = 30.0
    log_timeout_s: float = 5.0
    max_answer_bytes: int = 32 << 20
