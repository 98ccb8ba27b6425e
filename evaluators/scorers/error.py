"""Error: whether a call failed, and how.

The label is, in this order: the record's ``error_type`` (see :class:`collector.record.Record`), ``status_4xx`` or
``status_5xx``, ``truncated`` (the answer ended at the token limit, whatever the dialect calls it), ``content_filter``
(the provider cut or withheld it), or ``ok``. It needs no text, so every record has a score, but for those of which
only the request or only the answer has arrived (``incomplete``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from collector.intake.arrival import REQUEST_MISSING, RESPONSE_MISSING
from evaluators.evaluator import Score, Text, unscored
from evaluators.scorers.options import as_texts
from evaluators.scorers.rule import Rule

INCOMPLETE: Final = "incomplete"
"""Half of the record never came, so how the call ended is not known."""
_CODE: Final = "error-1"
_OK: Final = "ok"
_BY_FINISH_REASON: Final = {
    "length": "truncated",  # OpenAI, AI21, vLLM, TGI
    "max_tokens": "truncated",  # Anthropic; Cohere in capitals
    "max_output_tokens": "truncated",  # OpenAI Responses
    "model_length": "truncated",  # Mistral
    "model_context_window_exceeded": "truncated",  # Anthropic
    "content_filter": "content_filter",  # OpenAI, Azure
    "safety": "content_filter",  # Gemini
    "error": "status_5xx",  # Cohere, Mistral: an answer that broke off
    "failed": "status_5xx",  # OpenAI Responses
}


_LABELS: Final = frozenset(
    (
        *("upstream_connect", "upstream_timeout", "upstream_reset", "upstream_invalid", "upstream_status"),
        *(
            "invalid_request",
            "unknown_endpoint",
            "body_too_large",
            "spool_full",
            "client_disconnected",
            "internal",
        ),
        *("unauthenticated", "forbidden", "rate_limited", "overloaded", "blocked"),
        *("status_4xx", "status_5xx", "truncated", "content_filter"),
    )
)


class Error(Rule):
    """1 for a failure and 0 otherwise; what is in ``ignore`` keeps its label and scores 0."""

    columns = ("status_code", "error_type", "finish_reason", "attempts")

    def __init__(self, *, ignore: Sequence[str] = ()) -> None:
        options = {"ignore": sorted(ignore)}
        super().__init__("error", target="response", model="record", code=_CODE, options=options)
        self._passing = frozenset((_OK, *ignore))

    def _score(self, text: Text) -> Score:
        columns = text.columns
        label = columns.get("error_type") or _by_status(columns.get("status_code"))
        if label in (REQUEST_MISSING, RESPONSE_MISSING):
            return unscored(INCOMPLETE)
        finish_reason = columns.get("finish_reason")
        if label is None:
            label = _BY_FINISH_REASON.get((finish_reason or "").casefold(), _OK)
        details: dict[str, float | str] = {}
        for name in ("status_code", "attempts"):
            if columns.get(name) is not None:
                details[name] = float(columns[name])
        if finish_reason:
            details["finish_reason"] = finish_reason
        return Score(0.0 if label in self._passing else 1.0, label, details=details)


def build(*, ignore: str | Sequence[str] | None = None) -> Error:
    """What the settings call ``error``."""
    return Error(ignore=as_texts("ignore", ignore, allowed=_LABELS))


def _by_status(status: int | None) -> str | None:
    if status is None or status < 400:
        return None
    return "status_5xx" if status >= 500 else "status_4xx"
