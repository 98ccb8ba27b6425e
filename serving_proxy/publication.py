"""One worker's numbers for the other workers and whoever asks them.

Each worker writes its numbers to ``metrics.json`` in its spool directory about once a second (atomically,
off the loop); whichever worker is asked for ``/metrics`` renders its own live numbers and the files of
the others.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from servelens.errors import Unavailable
from serving_proxy.distribution import DURATION_S

FILE_NAME: Final = "metrics.json"
_STALE_S: Final = 15.0


class Buckets(msgspec.Struct, array_like=True):
    """A distribution at one moment; its bounds are those of the field it is in."""

    counts: list[int]
    total: float = 0.0


class PublishedSeries(msgspec.Struct, kw_only=True):
    """What was counted of one kind of invocation: those of an endpoint that one served entity answered, for one
    operation, with one outcome. Empty text where there was none: no entity was chosen, nothing went wrong.

    ``requests`` counts by the status that clients were sent. The distributions are absent where there was
    nothing to put in: ``first_token`` and ``per_token`` (seconds) of streams, ``input_tokens`` and
    ``output_tokens`` of answers that say them.
    """

    endpoint: str
    served_entity: str = ""
    operation: str = ""
    provider: str = ""
    model: str = ""
    error_type: str = ""
    requests: dict[int, int] = {}
    duration: Buckets
    first_token: Buckets | None = None
    per_token: Buckets | None = None
    input_tokens: Buckets | None = None
    output_tokens: Buckets | None = None


class Counted(msgspec.Struct):
    """A family of counters or gauges: ``values`` by the values of its ``labels``."""

    name: str
    help: str
    labels: list[str]
    values: list[tuple[list[str], float]]
    is_gauge: bool = False


class Spread(msgspec.Struct):
    """A family of distributions: ``values`` by the values of its ``labels``."""

    name: str
    help: str
    labels: list[str]
    bounds: list[float]
    values: list[tuple[list[str], Buckets]]


class Published(msgspec.Struct, kw_only=True):
    """One worker's numbers as they stand in its file. ``in_flight`` has endpoint, served entity (empty: none yet)
    and how many, without shadows.
    """

    worker: str
    written_at_us: int
    accepted: int
    dropped: int
    pending: int
    log_stalls: int
    in_flight: list[tuple[str, str, int]]
    series: list[PublishedSeries]
    counted: list[Counted] = []
    spread: list[Spread] = []


@dataclass(slots=True)
class Traffic:
    """What all workers together have seen of one endpoint, or of one of its served entities, since they
    started. ``requests`` counts by status, ``durations`` are the buckets of :data:`.distribution.DURATION_S`.
    """

    requests: dict[int, int] = field(default_factory=dict)
    durations: list[int] = field(default_factory=lambda: [0] * (len(DURATION_S) + 1))
    duration_sum_s: float = 0.0
    in_flight: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def with_status(self, hundreds: int) -> int:
        """How many requests were answered with a status of that class: ``with_status(4)`` of 400 to 499."""
        return sum(count for status, count in self.requests.items() if status // 100 == hundreds)

    @property
    def request_count(self) -> int:
        return sum(self.requests.values())

    def _add(self, series: PublishedSeries) -> None:
        for status, count in series.requests.items():
            self.requests[status] = self.requests.get(status, 0) + count
        self.durations = [a + b for a, b in zip(self.durations, series.duration.counts, strict=True)]
        self.duration_sum_s += series.duration.total
        if series.input_tokens is not None:
            self.input_tokens += round(series.input_tokens.total)
        if series.output_tokens is not None:
            self.output_tokens += round(series.output_tokens.total)


def traffic_of(workers: Iterable[Published], endpoint: str) -> dict[str, Traffic]:
    """The endpoint's traffic over all these workers: by served entity, and under ``""`` the whole of it, refused
    invocations included.
    """
    whole = Traffic()
    by_entity: dict[str, Traffic] = {"": whole}
    for worker in workers:
        for series in worker.series:
            if series.endpoint == endpoint:
                whole._add(series)
                if series.served_entity:
                    by_entity.setdefault(series.served_entity, Traffic())._add(series)
        for name, entity, count in worker.in_flight:
            if name == endpoint:
                whole.in_flight += count
                if entity:
                    by_entity.setdefault(entity, Traffic()).in_flight += count
    return by_entity


_decode = msgspec.json.Decoder(Published).decode


def write_published(published: Published, directory: Path) -> None:
    """Replace the worker's file. Raises Unavailable when the folder cannot be written."""
    temporary = directory / f"{FILE_NAME}.new"
    try:
        temporary.write_bytes(msgspec.json.encode(published))
        temporary.replace(directory / FILE_NAME)
    except OSError as error:
        raise Unavailable(f"the metrics file in {directory} cannot be written: {error.strerror}") from error


def read_others(spool_root: Path, own_slot: str, *, now_us: int) -> list[Published]:
    """The numbers of the other live workers; files that are stale, unreadable or half-written are left
    out.
    """
    others = []
    for path in sorted(spool_root.glob(f"*/{FILE_NAME}")):
        if path.parent.name == own_slot:
            continue
        try:
            published = _decode(path.read_bytes())
        except (OSError, msgspec.DecodeError):
            continue
        if now_us - published.written_at_us < _STALE_S * 1e6:
            others.append(published)
    return others
