"""What can be measured: each metric's kind, scale and direction, in words that the verdict uses.

Light on purpose: an experiment checks its metrics' names when it is built, and the proxy builds
experiments. How a value is read from the tables is in :mod:`experiments.measurement.values`.

A name is a value, optionally with what is made of it: ``latency_ms`` is the typical latency,
``latency_ms:p95`` a quantile, ``latency_ms:over:2000`` the share of records beyond a limit (a service-level
objective). Times and perplexity have heavy tails and are analysed on the log scale, where the estimate is a
geometric mean ("typical") and a difference is a ratio. The other metrics are plain means.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Final, Literal

from servelens.errors import Invalid

Direction = Literal["higher", "lower"]
MetricUnit = Literal["rate", "ms", "tokens", "score", "cost", "feedback"]

_SCORE: Final = "score:"
_FEEDBACK: Final = "feedback:"
_SHAPED: Final = re.compile(r"(?P<value>.+?):(?:p(?P<percent>\d{1,2}(?:\.\d+)?)|over:(?P<limit>[^:]+))")


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. ``better`` is the good direction, ``None`` when only the reader can say.

    ``kind`` is ``rate`` for values of 0 and 1, ``quantile`` when ``quantile`` (in (0, 1)) of the values is
    meant; ``value`` names what is read of each record (the name without ``:p95`` and the like); ``limit`` is
    what a rate counts the values beyond, in the value's unit; ``unit`` is what the estimate is in; ``label``
    is what a person calls it.
    """

    name: str
    label: str
    kind: Literal["rate", "mean", "quantile"]
    scale: Literal["plain", "log"]
    unit: MetricUnit
    better: Direction | None
    value: str = ""
    quantile: float | None = None
    limit: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", self.value or self.name)

    @property
    def evaluator(self) -> str | None:
        """The evaluator whose scores are measured; ``None`` for a metric of another table."""
        return self.value.removeprefix(_SCORE) if self.value.startswith(_SCORE) else None

    @property
    def feedback(self) -> str | None:
        """The name of the feedback that is measured; ``None`` for a metric of another table."""
        return self.value.removeprefix(_FEEDBACK) if self.value.startswith(_FEEDBACK) else None


_METRICS: Final = {
    metric.name: metric
    for metric in (
        Metric("success_rate", "success rate", "rate", "plain", "rate", "higher"),
        Metric("error_rate", "error rate", "rate", "plain", "rate", "lower"),
        Metric("latency_ms", "typical latency", "mean", "log", "ms", "lower"),
        Metric("time_to_first_token_ms", "typical time to first token", "mean", "log", "ms", "lower"),
        # Lower because tokens are paid for; it says nothing about how good a short answer is.
        Metric("input_tokens", "tokens per prompt", "mean", "plain", "tokens", "lower"),
        Metric("output_tokens", "tokens per answer", "mean", "plain", "tokens", "lower"),
        Metric("cost", "cost per answer", "mean", "plain", "cost", "lower"),
        Metric("score:perplexity", "typical perplexity", "mean", "log", "score", "lower"),
        Metric("score:toxicity", "average toxicity", "mean", "plain", "score", "lower"),
    )
}
_VALUE_WORDS: Final = {
    "latency_ms": "latency",
    "time_to_first_token_ms": "time to first token",
    "input_tokens": "prompt tokens",
    "output_tokens": "answer tokens",
    "cost": "cost",
}


def metric_for(name: str) -> Metric:
    """The metric called ``name``; any ``score:<evaluator>`` and ``feedback:<name>`` is one, and so are a
    quantile (``:p95``) and a share beyond a limit (``:over:2000``) of every value that is not a rate itself.

    Raises :class:`~servelens.errors.Invalid` for a name that nothing measures.

    >>> metric_for("latency_ms:p95").quantile, metric_for("latency_ms:over:2000").label
    (0.95, 'share with latency over 2000 ms')
    """
    shaped = _SHAPED.fullmatch(name)
    if shaped is None:
        return _plain(name)
    value = _plain(shaped["value"])
    if value.kind == "rate":
        raise Invalid(
            f"{value.name} is a rate and has no quantile or limit", field="metric", fix=f"Use {value.name}."
        )
    if shaped["percent"] is not None:
        return _quantile(name, value, float(shaped["percent"]))
    return _beyond(name, value, shaped["limit"])


def _plain(name: str) -> Metric:
    known = _METRICS.get(name)
    if known is not None:
        return known
    evaluator, feedback = name.removeprefix(_SCORE), name.removeprefix(_FEEDBACK)
    if evaluator and evaluator != name and evaluator.isprintable():
        return Metric(name, f"average {evaluator}", "mean", "plain", "score", None)
    if feedback and feedback != name and feedback.isprintable():
        return Metric(name, f"average feedback '{feedback}'", "mean", "plain", "feedback", "higher")
    names = ", ".join(sorted(set(_METRICS) - {"score:perplexity", "score:toxicity"}))
    raise Invalid(
        f"there is no metric {name!r}",
        field="metric",
        fix=f"Use {names}, score:<evaluator> or feedback:<name>; with :p95 or :over:<limit> behind it where you like.",
    )


def _quantile(name: str, value: Metric, percent: float) -> Metric:
    if not 0 < percent < 100:
        raise Invalid(f"{name!r} is no quantile", field="metric", fix=f"Use {value.name}:p95, for example.")
    # The logarithm keeps quantiles where they are, so a quantile is compared on the value's own scale.
    return replace(
        value,
        name=name,
        label=f"p{percent:g} {_words(value)}",
        kind="quantile",
        value=value.name,
        quantile=percent / 100.0,
    )


def _beyond(name: str, value: Metric, limit: str) -> Metric:
    try:
        number = float(limit)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise Invalid(
            f"{limit!r} in {name!r} is no number",
            field="metric",
            fix=f"Use {value.name}:over:2000, for example.",
        )
    suffix = " ms" if value.unit == "ms" else ""
    return replace(
        value,
        name=name,
        label=f"share with {_words(value)} over {number:g}{suffix}",
        kind="rate",
        scale="plain",
        unit="rate",
        value=value.name,
        limit=number,
    )


def _words(value: Metric) -> str:
    return _VALUE_WORDS.get(value.name, value.name.partition(":")[2] or value.name)
