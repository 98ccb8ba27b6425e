"""What a dialect is to the proxy: the shape of its errors. Bodies of one dialect pass unchanged."""

from __future__ import annotations

from typing import Protocol

from serving_proxy.failure import Failure


class Dialect(Protocol):
    """How one API words its errors."""

    def error(self, failure: Failure) -> bytes:
        """The JSON body of an error answer."""
        ...

    def error_event(self, failure: Failure) -> bytes:
        """The event that tells of an error inside a stream."""
        ...
