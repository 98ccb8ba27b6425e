"""The canonical log line: one line per invocation with what an operator greps for, in logfmt.

Off by default: the same is in the inference table within seconds, and a line costs about a tenth of an
invocation.
"""

from __future__ import annotations

import logging

from collector.record import Record

logger = logging.getLogger(__name__)


def log_invocation(record: Record) -> None:
    """Write the line at level INFO."""
    logger.info(
        "invocation id=%s endpoint=%s entity=%s status=%d duration_ms=%.1f ttft_ms=%s stream=%s variant=%s error=%s "
        "attempts=%d left=%s trace=%s",
        record.request_id,
        record.endpoint,
        record.served_entity,
        record.status_code,
        record.duration_us / 1e3,
        "-" if record.time_to_first_token_us is None else record.time_to_first_token_us // 1000,
        record.is_stream,
        record.variant or "-",
        record.error_type or "-",
        record.attempts,
        record.client_disconnected,
        record.trace_id or "-",
    )
