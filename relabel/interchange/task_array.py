"""The tasks of cases as one JSON array, streamed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from relabel.interchange.task_case import TaskCase
from relabel.interchange.tool import Tool
from relabel.label_schema import LabelSchema


def task_array(tool: Tool, cases: Iterable[TaskCase], schema: LabelSchema) -> Iterator[bytes]:
    """Chunks of UTF-8, one task each; nothing is given before the first case has been read."""
    before = "[\n"
    for case in cases:
        yield (before + json.dumps(tool.task(case, schema), ensure_ascii=False)).encode()
        before = ",\n"
    yield b"[]\n" if before == "[\n" else b"\n]\n"
