"""What one worker counts, cheap enough for every invocation: one look-up and a few additions.

Invariants. Whatever a client or a backend sends, the number of series stays bounded: labels are names from the
configuration, a few fixed words and three-digit statuses, and beyond ``MAX_SERIES`` (endpoints that come and go)
everything new is counted under ``_other``. Shadows are counted apart, never among the requests of their endpoint.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from serving_proxy.distribution import DURATION_S, FIRST_TOKEN_S, PER_TOKEN_S, TOKENS, Distribution, Histogram
from serving_proxy.publication import Buckets, Counted, Published, PublishedSeries, Spread

if TYPE_CHECKING:
    from collector.record import Record
    from serving_proxy.relay import Relay

MAX_SERIES: Final = 5000
OTHER: Final = "_other"
SHADOW_OUTCOMES: Final = ("answered", "failed", "dropped")

# Operations as OpenTelemetry names them (gen_ai.operation.name); what it has no word for keeps ours.
_OPERATIONS: Final = {
    "messages": "chat",
    "responses": "chat",
    "completions": "text_completion",
    "invocations": "scoring",
}

Values = dict[tuple[str, ...], int]
Read = Callable[[], Iterable[tuple[tuple[str, ...], float]]]
_Key = tuple[str, str | None, str, str | None, str | None]


class _Series:
    __slots__ = (
        *("duration", "first_token", "input_tokens", "model", "operation", "output_tokens"),
        *("per_token", "provider", "requests"),
    )

    def __init__(self, operation: str, provider: str, model: str) -> None:
        self.operation = operation
        self.provider = provider
        self.model = model
        self.requests: dict[int, int] = {}
        self.duration = Distribution(DURATION_S)
        self.first_token = Distribution(FIRST_TOKEN_S)
        self.per_token = Distribution(PER_TOKEN_S)
        self.input_tokens = Distribution(TOKENS)
        self.output_tokens = Distribution(TOKENS)


class Measurements:
    """Counts of one worker since it started."""

    def __init__(self) -> None:
        self.log_stalls = 0
        self._series: dict[_Key, _Series] = {}
        self._histograms: list[Histogram] = []
        self._watched: list[tuple[str, str, tuple[str, ...], Read, bool]] = []
        self.shadows = self.counter(
            "servelens_shadow_requests",
            "Invocations mirrored to a shadow, by what became of them",
            *("endpoint", "served_entity", "outcome"),
        )

    def counter(self, name: str, help_text: str, *labels: str) -> Values:
        """A family of counters of its own, which ``/metrics`` shows as ``NAME_total``: whoever asks for it adds to
        what it gets, by the values of ``labels``. These must be few (names from the configuration, fixed words).
        """
        values: Values = {}
        self.watch(name, help_text, *labels, read=lambda: values.items())
        return values

    def watch(self, name: str, help_text: str, *labels: str, read: Read, is_gauge: bool = False) -> None:
        """Show what somebody else counts: ``read`` gives the values by those of ``labels``, and is asked about once a
        second, on the loop.
        """
        self._watched.append((name, help_text, labels, read, is_gauge))

    def histogram(self, histogram: Histogram) -> Histogram:
        """Show a family of distributions, which whoever asks for it fills."""
        self._histograms.append(histogram)
        return histogram

    def observe(self, record: Record, relay: Relay) -> None:
        """Count one invocation by its record and what the relay knows beyond that."""
        if relay.shadow_of is not None:
            outcome = "answered" if record.error_type is None else "failed"
            self.count_shadow(record.endpoint, record.served_entity or "", outcome)
            return
        invocation = relay.invocation
        entity = relay.entity
        key = (
            record.endpoint,
            record.served_entity,
            record.api if invocation is None else invocation.kind,
            record.error_type,
            None if entity is None else entity.backend.model,
        )
        series = self._series.get(key)
        if series is None:
            series = self._begin_series(key, "" if entity is None else entity.backend.api)
        status = record.status_code
        requests = series.requests
        requests[status] = requests.get(status, 0) + 1
        # Written out, because each call would cost as much as what it does.
        duration_s = record.duration_us * 1e-6
        counted = series.duration
        counted.counts[bisect_left(DURATION_S, duration_s)] += 1
        counted.total += duration_s
        usage = relay.usage
        if usage is not None:
            tokens_in, tokens_out = usage
            counted = series.input_tokens
            counted.counts[bisect_left(TOKENS, tokens_in)] += 1
            counted.total += tokens_in
            counted = series.output_tokens
            counted.counts[bisect_left(TOKENS, tokens_out)] += 1
            counted.total += tokens_out
        first_token_us = record.time_to_first_token_us
        if first_token_us is not None and record.error_type is None:
            first_token_s = first_token_us * 1e-6
            counted = series.first_token
            counted.counts[bisect_left(FIRST_TOKEN_S, first_token_s)] += 1
            counted.total += first_token_s
            if usage is not None and tokens_out > 1:
                per_token_s = (duration_s - first_token_s) / (tokens_out - 1)
                counted = series.per_token
                counted.counts[bisect_left(PER_TOKEN_S, per_token_s)] += 1
                counted.total += per_token_s

    def count_shadow(self, endpoint: str, served_entity: str, outcome: str) -> None:
        key = (endpoint, served_entity, outcome)
        if key not in self.shadows and len(self.shadows) >= MAX_SERIES:
            key = (OTHER, OTHER, outcome)
        self.shadows[key] = self.shadows.get(key, 0) + 1

    def published(
        self,
        worker: str,
        *,
        now_us: int,
        accepted: int,
        dropped: int,
        pending: int,
        live: Iterable[Relay] = (),
    ) -> Published:
        """A copy that another thread may write."""
        return Published(
            worker=worker,
            written_at_us=now_us,
            accepted=accepted,
            dropped=dropped,
            pending=pending,
            log_stalls=self.log_stalls,
            in_flight=_in_flight(live),
            series=[_published_series(key, series) for key, series in self._series.items()],
            counted=[*self._counted()],
            spread=[
                Spread(
                    each.name,
                    each.help,
                    list(each.labels),
                    list(each.bounds),
                    [(list(key), Buckets(list(one.counts), one.total)) for key, one in each.values.items()],
                )
                for each in self._histograms
            ],
        )

    def _begin_series(self, key: _Key, provider: str) -> _Series:
        endpoint, _, kind, _, model = key
        if len(self._series) >= MAX_SERIES:
            key = (OTHER, OTHER, OTHER, None, None)
            series = self._series.get(key)
            if series is not None:
                return series
            provider, model, endpoint, kind = "", "", OTHER, OTHER
        model = model or (endpoint if provider else "")
        series = self._series[key] = _Series(_OPERATIONS.get(kind, kind), provider, model)
        return series

    def _counted(self) -> Iterable[Counted]:
        for name, help_text, labels, read, is_gauge in self._watched:
            values = [(list(key), float(value)) for key, value in read()]
            yield Counted(name, help_text, list(labels), values, is_gauge=is_gauge)


def _in_flight(live: Iterable[Relay]) -> list[tuple[str, str, int]]:
    counts: dict[tuple[str, str], int] = {}
    for relay in live:
        if relay.shadow_of is None:
            invocation, entity = relay.invocation, relay.entity
            key = (
                "" if invocation is None else invocation.endpoint.name,
                "" if entity is None else entity.name,
            )
            counts[key] = counts.get(key, 0) + 1
    return [(endpoint, entity, count) for (endpoint, entity), count in counts.items()]


def _published_series(key: _Key, series: _Series) -> PublishedSeries:
    endpoint, served_entity, _, error_type, _ = key
    return PublishedSeries(
        endpoint=endpoint,
        served_entity=served_entity or "",
        operation=series.operation,
        provider=series.provider,
        model=series.model,
        error_type=error_type or "",
        requests=dict(series.requests),
        duration=Buckets(list(series.duration.counts), series.duration.total),
        first_token=_buckets(series.first_token),
        per_token=_buckets(series.per_token),
        input_tokens=_buckets(series.input_tokens),
        output_tokens=_buckets(series.output_tokens),
    )


def _buckets(distribution: Distribution) -> Buckets | None:
    return Buckets(list(distribution.counts), distribution.total) if any(distribution.counts) else None
