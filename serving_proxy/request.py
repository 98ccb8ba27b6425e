"""One request on the data plane as it comes off a client's connection."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from serving_proxy.failure import Failure
from serving_proxy.target import Target


@dataclass(slots=True, eq=False)
class Request:
    """Head and body while they arrive. ``failure`` is set when it is to be refused whatever its body says."""

    target: Target
    method: bytes
    headers: list[tuple[bytes, bytes]]
    fields: dict[bytes, bytes]
    is_http10: bool
    keep_alive: bool
    expects_continue: bool
    failure: Failure | None = None
    complete: bool = False
    size: int = 0
    body: bytes | None = None
    pieces: list[bytes] = field(default_factory=list)

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
