"""Where an event belongs and what of it may be kept: the endpoints of one moment, as the way in sees them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from collector.record import REQUEST_TOO_LARGE, RESPONSE_TOO_LARGE, UNROUTED, Record


@dataclass(frozen=True, slots=True)
class Entity:
    """A served entity, as records name it; without a name, when nobody knows which it was."""

    name: str | None = None
    id: str | None = None
    version: str | None = None


def _all(record: Record) -> Record:
    return record


@dataclass(frozen=True, slots=True)
class Target:
    """An endpoint. ``keep`` gives the record as its settings let it be kept, ``None`` when they do not."""

    name: str
    entities: Mapping[str, Entity] = field(default_factory=dict)
    config_version: int | None = None
    payload_limit_bytes: int = 1 << 20
    keep: Callable[[Record], Record | None] = _all

    def entity(self, *hints: str | None) -> Entity:
        """The served entity that one of ``hints`` names, the first first; else the only one there is, if so."""
        for hint in hints:
            if hint is not None and hint in self.entities:
                return self.entities[hint]
        return next(iter(self.entities.values())) if len(self.entities) == 1 else Entity()

    def kept(self, record: Record) -> Record | None:
        """The record without bodies over the limit, as it may be kept; ``None`` when it may not be."""
        request, response, codes = record.request, record.response, record.logging_error_codes
        limit = self.payload_limit_bytes
        if request is not None and len(request) > limit:
            request, codes = None, [*codes, REQUEST_TOO_LARGE]
        if response is not None and len(response) > limit:
            response, codes = None, [*codes, RESPONSE_TOO_LARGE]
        if codes is not record.logging_error_codes:
            record = msgspec.structs.replace(
                record, request=request, response=response, logging_error_codes=codes
            )
        return self.keep(record)


@dataclass(frozen=True, slots=True)
class Rules:
    """All endpoints by name, what becomes of events that belong to none, and the configured ``names``: what a sender
    calls itself → endpoint.
    """

    targets: Mapping[str, Target]
    unrouted: Target = field(default_factory=lambda: Target(UNROUTED))
    names: Mapping[str, str] = field(default_factory=dict)

    def target(self, *names: str | None) -> Target:
        """The endpoint that one of ``names`` stands for or is, the first first."""
        for name in names:
            if name is not None:
                found = self.targets.get(self.names.get(name, name))
                if found is not None:
                    return found
        return self.unrouted


class Door(Protocol):
    """Who may come in, and by which rules; asked on the event loop for each request, so it never waits."""

    def caller(self, fields: Mapping[bytes, bytes]) -> str | None:
        """The name of the key in the request's ``fields`` (names in lower case); ``None`` when no keys are in use.

        Raises :class:`~collector.intake.refusal.Refusal`.
        """
        ...

    def rules(self) -> Rules:
        """The current rules. Raises :class:`~collector.intake.refusal.Refusal` while they are not known."""
        ...
