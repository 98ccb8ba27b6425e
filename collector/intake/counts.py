"""What the way in has done since it started, for metrics."""

from __future__ import annotations

from collections import Counter
from typing import Final, Literal

Way = Literal["cloudevents", "otlp"]
WAYS: Final[tuple[Way, ...]] = ("cloudevents", "otlp")
OUTCOMES: Final = ("accepted", "duplicate", "ignored", "not_kept", "refused")
RECORDS: Final = ("whole", "joined", "response_missing", "request_missing")


class Counts:
    """Counters with one writer, the intake's event loop; any thread may read.

    ``events``: (way, outcome) → events. ``accepted`` ones are durable, ``duplicate`` ones had been accepted before,
    ``ignored`` ones are nothing to record (spans of something else), ``not_kept`` is what the endpoint's settings
    keep out of its table, ``refused`` ones were answered with an error. ``records``: kind → records in the
    spool. ``requests``: (way, status) → HTTP requests.
    """

    def __init__(self) -> None:
        self.events: Counter[tuple[Way, str]] = Counter()
        self.records: Counter[str] = Counter(dict.fromkeys(RECORDS, 0))
        self.requests: Counter[tuple[Way, int]] = Counter()
        self.halves_waiting = 0
        for way in WAYS:
            for outcome in OUTCOMES:
                self.events[way, outcome] = 0
