"""The texts of one streamed answer, each held back on its own: choices, content blocks, reasoning, arguments of tools.

Arguments of a tool are JSON in pieces, whose texts can be read only when it is whole: they are kept until then and let go in
one piece.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Final, Protocol

from serving_proxy.guardrails.blocked import Blocked
from serving_proxy.guardrails.hold_back import HeldText
from serving_proxy.guardrails.screen import Screen
from serving_proxy.guardrails.text_fields import treat_arguments

_MAX_ARGUMENTS: Final = 1 << 20

Key = tuple[Hashable, ...]


class Held(Protocol):
    """One text of an answer. Both methods may raise Blocked."""

    def feed(self, piece: str) -> str:
        """What may be let go now that ``piece`` has come."""
        ...

    def flush(self) -> str:
        """The rest: no more will come."""
        ...


class Channels:
    """All texts of an answer by key, each held back by one of ``hold``. Every method may raise Blocked."""

    def __init__(self, screen: Screen, hold: Callable[[Screen], Held] = HeldText) -> None:
        self.screen = screen
        self._hold = hold
        self._texts: dict[Key, Held] = {}
        self._arguments: dict[Key, list[str]] = {}
        self._arguments_left = _MAX_ARGUMENTS

    def feed(self, key: Key, piece: str) -> str:
        """What of the text ``key`` may be let go now that ``piece`` has come."""
        held = self._texts.get(key)
        if held is None:
            held = self._texts[key] = self._hold(self.screen)
        return held.feed(piece)

    def keep(self, key: Key, piece: str) -> None:
        """Keep a piece of a tool's arguments."""
        self._arguments_left -= len(piece)
        if self._arguments_left < 0:
            raise Blocked("pii", "arguments of tools that are too long to be screened", self.screen.side)
        self._arguments.setdefault(key, []).append(piece)

    def finish(self, *start: Hashable) -> list[tuple[Key, str]]:
        """End the texts whose keys begin with ``start``, and give what is left of each that has something left."""
        rests: list[tuple[Key, str]] = []
        for key in [key for key in self._texts if key[: len(start)] == start]:
            rests.append((key, self._texts.pop(key).flush()))
        for key in [key for key in self._arguments if key[: len(start)] == start]:
            rests.append((key, treat_arguments("".join(self._arguments.pop(key)), self.screen.text)))
        return [(key, rest) for key, rest in rests if rest]
