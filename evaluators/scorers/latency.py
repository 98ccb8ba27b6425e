"""Latency: how long an answer took, in milliseconds.

``total``: until the last byte, at the proxy. ``first_token``: until the first token of a stream. ``per_output_token``:
(total - first token) / (output tokens - 1), the time per output token that vLLM and NVIDIA's GenAI-Perf report
(https://docs.nvidia.com/nim/benchmarking/llm/latest/metrics.html).

Invariant: only answered calls have a latency. A call that failed is unscored (``failed``), for a quick refusal is no
quick answer; how many failed is what :mod:`evaluators.scorers.error` says.
"""

from __future__ import annotations

from typing import Final

from evaluators.evaluator import Score, Text, unscored
from evaluators.scorers.options import as_choice, as_number
from evaluators.scorers.rule import Rule

FAILED: Final = "failed"
"""The call failed, or the client left before it was answered."""
NOT_MEASURED: Final = "not_measured"
"""The record has not what the measure is made of: no stream, or no count of tokens."""
_CODE: Final = "latency-1"
_MEASURES: Final = ("total", "first_token", "per_output_token")


class Latency(Rule):
    """With ``threshold_ms`` the label is ``slow`` above it and ``ok`` otherwise; without it there is none."""

    columns = (
        "status_code",
        "error_type",
        "execution_duration_ms",
        "time_to_first_token_ms",
        "output_tokens",
    )

    def __init__(self, *, measure: str = "total", threshold_ms: float | None = None) -> None:
        options = {"measure": measure, "threshold_ms": threshold_ms}
        super().__init__("latency", target="response", model=measure, code=_CODE, options=options)
        self._measure = measure
        self._threshold = threshold_ms

    def _score(self, text: Text) -> Score:
        columns = text.columns
        status = columns.get("status_code")
        if columns.get("error_type") is not None or status is None or status >= 400:
            return unscored(FAILED)
        total, first = columns.get("execution_duration_ms"), columns.get("time_to_first_token_ms")
        value: float | None = None
        details: dict[str, float | str] = {}
        if self._measure == "total":
            value = total
        elif self._measure == "first_token":
            value = first
        else:
            tokens = columns.get("output_tokens")
            if total is not None and first is not None and tokens is not None and tokens > 1:
                # The first token's time is in microseconds and the total in whole milliseconds.
                value = max(0.0, total - first) / (tokens - 1)
                details["output_tokens"] = float(tokens)
        if value is None:
            return unscored(NOT_MEASURED)
        label = None
        if self._threshold is not None:
            label = "slow" if value > self._threshold else "ok"
        return Score(float(value), label, details=details)


def build(*, measure: str = "total", threshold_ms: float | None = None) -> Latency:
    """What the settings call ``latency``."""
    return Latency(
        measure=as_choice("measure", measure, _MEASURES),
        threshold_ms=None if threshold_ms is None else as_number("threshold_ms", threshold_ms, least=0),
    )
