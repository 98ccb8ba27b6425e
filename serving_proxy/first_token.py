"""When a stream's first token comes: servers announce a role, or an empty text, long before they have one."""

from __future__ import annotations

import re

_TOKEN = re.compile(
    rb'"(?:content|text|reasoning_content|reasoning|arguments|refusal|partial_json|thinking|delta)": ?"[^"]'
)


def carries_token(data: bytes) -> bool:
    """Whether these bytes of an event stream hold a text that is not empty."""
    return _TOKEN.search(data) is not None
