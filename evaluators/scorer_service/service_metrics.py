"""What the scorer service counts. Labels are a few fixed words, so the number of series is bounded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from evaluators.evaluator import Score

_SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)
_MOST_REASONS: Final = 32


class ServiceMetrics:
    """Of one service, in a registry of its own."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry(auto_describe=False)
        self._batch = Histogram(
            "servelens_scorer_batch_texts",
            "Texts scored together",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
            registry=registry,
        )
        self._compute = Histogram(
            "servelens_scorer_compute_seconds",
            "Time the model took for a batch",
            buckets=_SECONDS,
            registry=registry,
        )
        self._wait = Histogram(
            "servelens_scorer_wait_seconds",
            "Time a question waited for its batch to begin",
            buckets=_SECONDS,
            registry=registry,
        )
        self._texts = Counter(
            "servelens_scorer_texts",
            "Texts by what became of them: scored, or the reason why not",
            ["outcome"],
            registry=registry,
        )
        self._refused = Counter(
            "servelens_scorer_refused", "Questions refused, by reason", ["reason"], registry=registry
        )
        self._queued = Gauge("servelens_scorer_queued_texts", "Texts that wait", registry=registry)
        self._reasons: set[str] = set()

    def watch_queue(self, queued: Callable[[], float]) -> None:
        """Show what ``queued`` gives."""
        self._queued.set_function(queued)

    def computed(self, scores: Sequence[Score], seconds: float, waits_s: Iterable[float]) -> None:
        """A batch is done."""
        self._batch.observe(len(scores))
        self._compute.observe(seconds)
        for wait_s in waits_s:
            self._wait.observe(wait_s)
        for score in scores:
            self._texts.labels(self._known(score.unscored_reason or "scored")).inc()

    def refused(self, reason: str) -> None:
        """A question was not answered."""
        self._refused.labels(reason).inc()

    def text(self) -> bytes:
        """As Prometheus scrapes it."""
        return generate_latest(self._registry)

    def _known(self, reason: str) -> str:
        """The reason, unless an evaluator makes up too many of them."""
        if reason not in self._reasons:
            if len(self._reasons) >= _MOST_REASONS:
                return "_other"
            self._reasons.add(reason)
        return reason
