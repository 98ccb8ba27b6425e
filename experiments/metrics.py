"""What can be measured: each metric's kind, scale and direction, in words that the verdict uses.

Light on purpose: an experiment checks its metrics' names when it is built, and the proxy builds
experiments. How a value is read from the tables is in :mod:`experiments.measurement.measure`.

Times and perplexity have heavy tails and are analysed on the log scale, where the estimate is a geometric
mean ("typical") and a difference is a ratio. The other metrics are plain means.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from servelens.errors import Invalid

Direction = Literal["higher", "lower"]

_SCORE: Final = "score:"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. ``better`` is the good direction, ``None`` when only the reader can say.

    ``kind`` is ``rate`` for values of 0 and 1; ``unit`` is what the estimate is in; ``label`` is what a
    person calls it.
    """

    name: str
    label: str
    kind: Literal["rate", "mean"]
    scale: Literal["plain", "log"]
    unit: Literal["rate", "ms", "tokens", "score"]
    better: Direction | None

    @property
    def evaluator(self) -> str | None:
        """The evaluator whose scores are measured; ``None`` for a metric of the inference table."""
        return self.name.removeprefix(_SCORE) if self.name.startswith(_SCORE) else None


_METRICS: Final = {
    metric.name: metric
    for metric in (
        Metric("success_rate", "success rate", "rate", "plain", "rate", "higher"),
        Metric("error_rate", "error rate", "rate", "plain", "rate", "lower"),
        Metric("latency_ms", "typical latency", "mean", "log", "ms", "lower"),
        Metric("time_to_first_token_ms", "typical time to first token", "mean", "log", "ms", "lower"),
        # Lower because tokens are paid for; it says nothing about how good a short answer is.
        Metric("output_tokens", "tokens per answer", "mean", "plain", "tokens", "lower"),
        Metric("score:perplexity", "typical perplexity", "mean", "log", "score", "lower"),
        Metric("score:toxicity", "average toxicity", "mean", "plain", "score", "lower"),
    )
}


def metric_for(name: str) -> Metric:
    """The metric called ``name``; any ``score:<evaluator>`` is one.

    Raises :class:`~servelens.errors.Invalid` for a name that nothing measures.
    """
    known = _METRICS.get(name)
    if known is not None:
        return known
    evaluator = name.removeprefix(_SCORE)
    if evaluator and evaluator != name:
        return Metric(name, f"average {evaluator}", "mean", "plain", "score", None)
    names = ", ".join(sorted(set(_METRICS) - {"score:perplexity", "score:toxicity"}))
    raise Invalid(f"there is no metric {name!r}", field="metric", fix=f"Use {names} or score:<evaluator>.")
