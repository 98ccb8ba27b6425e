"""The canonical log line: one line per invocation with all that an operator greps for, in logfmt.

Off by default: the same is in the inference table within seconds, and a line costs about a tenth of an invocation.

Invariants. One line is one line: a value that a client or a backend has chosen is quoted as JSON in ASCII when it
is more than plain characters, so nobody can end a line, forge a field or colour a terminal. The keys come in one
order and are always all there; ``-`` is nothing. What identifies people or joins calls comes from the record as
the endpoint lets it be kept, and is ``-`` when it lets none be kept.
"""

from __future__ import annotations

import json
import logging
import re
from typing import Final

from collector.record import Record
from serving_proxy.usage import Usage

logger = logging.getLogger(__name__)

_PLAIN: Final = re.compile(r"[A-Za-z0-9._:/@+~%,;!*()\[\]-]{1,512}", re.ASCII)
_LINE: Final = (
    "invocation id=%s endpoint=%s entity=%s config=%s api=%s model=%s status=%d error=%s duration_ms=%.1f"
    " ttft_ms=%s input_tokens=%s output_tokens=%s attempts=%d stream=%s left=%s requester=%s experiment=%s"
    " variant=%s shadow_of=%s unit=%s session=%s client_id=%s trace=%s"
)


def log_invocation(record: Record, kept: Record | None, usage: Usage | None) -> None:
    """Write the line at level INFO. ``kept`` is the record as it goes to the spool, ``None`` when it does not."""
    if not logger.isEnabledFor(logging.INFO):
        return
    first_token_us = record.time_to_first_token_us
    logger.info(
        _LINE,
        record.request_id,
        record.endpoint,
        record.served_entity or "-",
        "-" if record.endpoint_config_version is None else record.endpoint_config_version,
        record.api,
        _safe(record.model),
        record.status_code,
        record.error_type or "-",
        record.duration_us / 1e3,
        "-" if first_token_us is None else f"{first_token_us / 1e3:.1f}",
        "-" if usage is None else usage[0],
        "-" if usage is None else usage[1],
        record.attempts,
        "true" if record.is_stream else "false",
        "true" if record.client_disconnected else "false",
        _safe(record.requester),
        _safe(record.experiment),
        _safe(record.variant),
        record.shadow_of or "-",
        _safe(None if kept is None else kept.unit),
        _safe(None if kept is None else kept.session_id),
        _safe(None if kept is None else kept.client_request_id),
        _safe(None if kept is None else kept.trace_id),
    )


def _safe(value: str | None) -> str:
    if value is None:
        return "-"
    return value if _PLAIN.fullmatch(value) and value != "-" else json.dumps(value)
