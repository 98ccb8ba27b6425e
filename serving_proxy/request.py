"""One request on the data plane as it comes off a client's connection."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from serving_proxy.failure import Failure
from serving_proxy.invocation import Origin
from serving_proxy.target import Target


@dataclass(slots=True, eq=False)
class RequestHead:
    """What stands before the body. A connection whose next head is the same, byte for byte but for the length,
    uses the object again; so nothing in here may depend on one request.

    ``requester`` and ``refusal`` are the outcome of authentication with the ``keys`` of that time;
    ``starts`` are the beginnings of requests to replicas that were made of it.
    """

    target: Target
    method: bytes
    headers: list[tuple[bytes, bytes]]
    fields: dict[bytes, bytes]
    is_http10: bool
    keep_alive: bool
    keys: object | None = None
    requester: str | None = None
    refusal: Failure | None = None
    origin: Origin | None = None
    starts: dict[tuple[object, object, bytes], bytes] = field(default_factory=dict)


class Request(msgspec.Struct, eq=False):
    """Head and body while they arrive. ``failure`` is set when it is to be refused whatever its body says."""

    head: RequestHead
    keep_alive: bool
    failure: Failure | None = None
    complete: bool = False
    expects_continue: bool = False
    size: int = 0
    body: bytes | None = None
    pieces: list[bytes] = []

    def finish(self) -> None:
        """The last byte of the body has come."""
        if self.failure is None:
            self.body = self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)
            self.pieces = []
        self.complete = True


class Client(Protocol):
    """The client's connection, as far as an answer needs it."""

    def write(self, data: bytes) -> None: ...

    def finished(self, *, close: bool) -> None:
        """The answer is complete; the connection may carry the next one unless ``close``."""
        ...

    def cut(self) -> None:
        """Close after what has been written, leaving the answer visibly incomplete."""
        ...

    def abort(self) -> None:
        """Close at once, throwing away what has not been sent."""
        ...
