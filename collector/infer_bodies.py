"""Bodies of V2 inference calls as rows keep them: JSON, also where tensors were sent as raw bytes.

Binary tensors of up to ``_MAX_TENSOR_BYTES`` in all become ordinary ``data``, as a call without the binary extension
would have had it. Larger ones, and what does not add up, are left out: the JSON part stays as it was sent, each
such tensor with its ``binary_data_size``, and ``BINARY_TENSORS_OMITTED`` says so.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from collector.json_text import parse, write
from collector.record import Record
from collector.tensors import SIZE_KEY, json_end, with_values

BINARY_TENSORS_OMITTED: Final = "BINARY_TENSORS_OMITTED"
"""On a record of which one body lacks the values of tensors that were sent as raw bytes."""

_MAX_TENSOR_BYTES: Final = 64 << 10


def readable(record: Record) -> Record:
    """The record with bodies that are JSON where they can be."""
    request, request_cut = _readable(record.request)
    response, response_cut = _readable(record.response)
    if request is record.request and response is record.response:
        return record
    codes = record.logging_error_codes
    if (request_cut or response_cut) and BINARY_TENSORS_OMITTED not in codes:
        codes = [*codes, BINARY_TENSORS_OMITTED]
    return msgspec.structs.replace(record, request=request, response=response, logging_error_codes=codes)


def texts_of(body: bytes | None, key: Literal["inputs", "outputs"]) -> str | None:
    """What the ``BYTES`` tensors say, one below the other: prompts and answers of models of text."""
    document = parse(body) if body else None
    tensors = document.get(key) if isinstance(document, dict) else None
    texts: list[str] = []
    for tensor in tensors if isinstance(tensors, list) else ():
        if isinstance(tensor, dict) and tensor.get("datatype") == "BYTES":
            values = [tensor.get("data")]
            while values:
                value = values.pop()
                if isinstance(value, list):
                    values.extend(reversed(value))
                elif isinstance(value, str) and value:
                    texts.append(value)
    return "\n".join(texts) or None


def _readable(body: bytes | None) -> tuple[bytes | None, bool]:
    """The body, and whether tensors are missing from it now."""
    if not body or SIZE_KEY not in body:
        return body, False
    try:
        end = json_end(body)
    except (ValueError, RecursionError):
        return body, False
    if end == len(body):
        return body, False
    if len(body) - end > _MAX_TENSOR_BYTES:
        return body[:end], True
    try:
        return write(with_values(body, end)).encode(), False
    except (ValueError, msgspec.MsgspecError, RecursionError):
        return body[:end], True
