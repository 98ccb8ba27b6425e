"""A folder for Hugging Face ``datasets``: Parquet files per configuration and split, and a dataset card that names them
(https://huggingface.co/docs/datasets/repository_structure), so that ``load_dataset(folder)`` and
``load_dataset(folder, "preference")`` work as they are.

The configurations ``prompt_completion`` (the default), ``preference`` and ``kto`` are TRL's formats; ``labels`` is every
label with its case. The columns are declared, so that a file without a tool call has the same ones as a file with some.
Arguments of tool calls stay the JSON string that OpenAI's API has: objects of different tools have no common columns.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

import pyarrow as pa

from relabel.export.formats.format import Examples, Format, Layout, Part, one_each
from relabel.export.formats.trl import kto_examples, preference_examples, prompt_completion_example
from relabel.export.labeled_case import LabeledCase
from relabel.export.left_out import LeftOut

_CALL: Final = pa.struct(
    [
        ("id", pa.string()),
        ("type", pa.string()),
        ("function", pa.struct([("name", pa.string()), ("arguments", pa.string())])),
    ]
)
_MESSAGES: Final = pa.list_(
    pa.struct(
        [
            ("role", pa.string()),
            ("content", pa.string()),
            ("name", pa.string()),
            ("tool_calls", pa.list_(_CALL)),
            ("tool_call_id", pa.string()),
        ]
    )
)
_TIME: Final = pa.timestamp("us", tz="UTC")
_TOOLS: Final[tuple[str, pa.DataType]] = ("tools", pa.string())
_PROMPT: Final = ("prompt", _MESSAGES)

_LABEL_COLUMNS: Final[list[tuple[str, pa.DataType]]] = [
    ("case_id", pa.int64()),
    ("decision_id", pa.int64()),
    ("endpoint", pa.string()),
    ("databricks_request_id", pa.string()),
    ("request_time", _TIME),
    ("served_entity", pa.string()),
    ("variant", pa.string()),
    ("model", pa.string()),
    ("messages", pa.string()),
    ("answered", pa.bool_()),
    ("tools", pa.string()),
    ("alternatives", pa.string()),
    ("rating", pa.string()),
    ("corrected_answer", pa.string()),
    ("preferred", pa.string()),
    ("tags", pa.list_(pa.string())),
    ("values", pa.string()),
    ("comment", pa.string()),
    ("schema_version", pa.int64()),
    ("resolution", pa.string()),
    ("labels", pa.int64()),
    ("agreement", pa.float64()),
    ("decided_at", _TIME),
]
_LABELS: Final = pa.schema(_LABEL_COLUMNS)


def label_row(case: LabeledCase) -> dict[str, Any]:
    """A label with its case; what has no columns of its own is JSON. Fits every case."""
    return {
        "case_id": case.case_id,
        "decision_id": case.decision_id,
        "endpoint": case.endpoint,
        "databricks_request_id": case.databricks_request_id,
        "request_time": case.request_time.isoformat(),
        "served_entity": case.served_entity,
        "variant": case.variant,
        "model": case.model,
        "messages": _json(list(case.messages)),
        "answered": case.answered,
        "tools": _json(list(case.tools)) if case.tools else None,
        "alternatives": _json(list(case.alternatives)) if case.alternatives else None,
        "rating": None if case.rating is None else str(case.rating),
        "corrected_answer": case.corrected_answer,
        "preferred": case.preferred,
        "tags": list(case.tags),
        "values": _json(dict(case.values)) if case.values else None,
        "comment": case.comment,
        "schema_version": case.schema_version,
        "resolution": None if case.resolution is None else str(case.resolution),
        "labels": case.labels,
        "agreement": case.agreement,
        "decided_at": case.decided_at.isoformat(),
    }


def _with_written_arguments(examples: Examples) -> Examples:
    def written(case: LabeledCase) -> Iterator[dict[str, Any] | LeftOut]:
        for example in examples(case):
            if not isinstance(example, LeftOut):
                for key in ("prompt", "completion", "chosen", "rejected"):
                    for message in example.get(key, ()):
                        _write_arguments(message)
            yield example

    return written


def _write_arguments(message: dict[str, Any]) -> None:
    calls = message.get("tool_calls")
    if calls:
        message["tool_calls"] = [
            {**call, "function": {**call["function"], "arguments": _json(call["function"]["arguments"])}}
            for call in calls
        ]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _part(examples: Examples, *columns: tuple[str, pa.DataType]) -> Part:
    return Part(examples=_with_written_arguments(examples), columns=pa.schema([*columns, _TOOLS]))


def _labels(row: Callable[[LabeledCase], dict[str, Any]]) -> Part:
    return Part(examples=one_each(row), columns=_LABELS)


HUGGINGFACE: Final[Format] = Format(
    name="huggingface",
    title="Hugging Face datasets (Parquet)",
    layout=Layout.PARQUET,
    parts={
        "prompt_completion": _part(one_each(prompt_completion_example), _PROMPT, ("completion", _MESSAGES)),
        "preference": _part(preference_examples, _PROMPT, ("chosen", _MESSAGES), ("rejected", _MESSAGES)),
        "kto": _part(kto_examples, _PROMPT, ("completion", _MESSAGES), ("label", pa.bool_())),
        "labels": _labels(label_row),
    },
)
