"""Tensors of the V2 inference protocol whose values follow the JSON part of a body as raw bytes.

Invariant: the values are exactly those that were sent. A size, a data type or a shape that does not add up is a
ValueError, never a guess. Values are little-endian and row-major; a ``BYTES`` element is preceded by its length
in four bytes.

Source: Open Inference Protocol, "Binary tensor data extension"
(https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md).
"""

from __future__ import annotations

import base64
import struct
from json import JSONDecoder
from math import prod
from typing import Any, Final

import msgspec

_CODES: Final = {
    "BOOL": "?",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
}
_SIZE: Final = "binary_data_size"
SIZE_KEY: Final = b'"binary_data_size"'
"""What a body has that has binary tensors."""

_decode = msgspec.json.Decoder(dict[str, Any]).decode
_scan = JSONDecoder().raw_decode


def json_end(body: bytes) -> int:
    """How many bytes at the start are one JSON value; ValueError or RecursionError when there is none."""
    # One character a byte, so that the index counts bytes; no byte of UTF-8 beyond ASCII means anything to JSON.
    text = body.decode("latin-1")
    return _scan(text, len(text) - len(text.lstrip(" \t\r\n")))[1]


def read_document(body: bytes) -> dict[str, Any]:
    """A whole body, with or without binary tensors. Raises what :func:`json_end` and :func:`with_values` raise."""
    if SIZE_KEY in body:
        return with_values(body, json_end(body))
    return _decode(body)


def with_values(body: bytes, json_length: int) -> dict[str, Any]:
    """The body as the same call without binary tensors would have had it: ``data`` in place of their bytes.

    ``json_length`` is the number of bytes of the JSON part. Raises ValueError when the rest is not what that part
    announces, msgspec.DecodeError when it is not a JSON object.
    """
    document = _decode(body[:json_length])
    position = json_length
    for key in ("inputs", "outputs"):
        tensors = document.get(key)
        for tensor in tensors if isinstance(tensors, list) else ():
            parameters = tensor.get("parameters") if isinstance(tensor, dict) else None
            if not isinstance(parameters, dict) or _SIZE not in parameters:
                continue
            size = parameters.pop(_SIZE)
            if type(size) is not int or size < 0 or position + size > len(body):
                raise ValueError(f"tensor {tensor.get('name')!r} is not {size!r} bytes long")
            if "data" in tensor:
                raise ValueError(f"tensor {tensor.get('name')!r} has its data twice")
            if not parameters:
                del tensor["parameters"]
            values = decoded(body[position : position + size], str(tensor.get("datatype")))
            shape = tensor.get("shape")
            if not _is_shape(shape) or prod(shape) != len(values):
                raise ValueError(
                    f"tensor {tensor.get('name')!r} has {len(values)} values, not of shape {shape}"
                )
            tensor["data"] = values
            position += size
    if position != len(body):
        raise ValueError(f"{len(body) - position} bytes belong to no tensor")
    return document


def decoded(data: bytes, datatype: str) -> list[Any]:
    """The values of one tensor, flat. A ``BYTES`` element that is not text becomes ``{"b64": …}``."""
    if datatype == "BYTES":
        return _elements(data)
    if datatype == "BF16":  # the upper half of a 32-bit float
        halves = struct.unpack(f"<{_count(data, 2, datatype)}H", data)
        return list(
            struct.unpack(f"<{len(halves)}f", struct.pack(f"<{len(halves)}I", *(h << 16 for h in halves)))
        )
    code = _CODES.get(datatype)
    if code is None:
        raise ValueError(f"{datatype!r} is not a data type of the protocol")
    return list(struct.unpack(f"<{_count(data, struct.calcsize('<' + code), datatype)}{code}", data))


def _count(data: bytes, width: int, datatype: str) -> int:
    count, rest = divmod(len(data), width)
    if rest:
        raise ValueError(f"{len(data)} bytes are no whole number of {datatype} values")
    return count


def _elements(data: bytes) -> list[Any]:
    values: list[Any] = []
    position = 0
    while position < len(data):
        start = position + 4
        end = start + int.from_bytes(data[position:start], "little")
        if start > len(data) or end > len(data):
            raise ValueError("a BYTES element is cut off")
        element = data[start:end]
        try:
            values.append(element.decode())
        except UnicodeDecodeError:
            values.append({"b64": base64.b64encode(element).decode()})
        position = end
    return values


def _is_shape(shape: Any) -> bool:
    return isinstance(shape, list) and all(type(length) is int and length >= 0 for length in shape)
