"""Sketches as bytes: a line of JSON that names format, fields and arrays, then the arrays, compressed together.

Invariant: numbers come back bit by bit. Arrays are little-endian, whatever the machine.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from servelens.errors import Invalid

_TYPES: Final = ("<f8", "<f4", "<i8", "<u8")
_LEVEL: Final = 1


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What :func:`packed` was given."""

    fields: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]]


def packed(
    format_name: str, fields: Mapping[str, Any], arrays: Mapping[str, NDArray[Any] | None] | None = None
) -> bytes:
    """``fields`` must be JSON; ``arrays`` are of float64, float32, int64 or uint64, one-dimensional; ``None`` is left
    out.
    """
    present = {name: array for name, array in (arrays or {}).items() if array is not None}
    described = [[name, _type(array), array.size] for name, array in present.items()]
    head = json.dumps({"format": format_name, "fields": dict(fields), "arrays": described})
    body = b"".join(array.astype(_type(array), copy=False).tobytes() for array in present.values())
    return head.encode() + b"\n" + zlib.compress(body, _LEVEL)


def unpacked(format_name: str, data: bytes) -> Unpacked:
    """Raises :class:`~servelens.errors.Invalid` when ``data`` are not of ``format_name``, or damaged."""
    head, newline, body = data.partition(b"\n")
    try:
        described = json.loads(head)
        if not newline or described["format"] != format_name:
            raise ValueError(f"the format is {described['format']!r}")
        raw = zlib.decompress(body)
        arrays: dict[str, NDArray[Any]] = {}
        start = 0
        for name, kind, size in described["arrays"]:
            if kind not in _TYPES:
                raise ValueError(f"there is no array of {kind!r}")
            array = np.frombuffer(raw, dtype=kind, count=size, offset=start)
            arrays[name] = array.astype(array.dtype.newbyteorder("="))
            start += array.nbytes
        return Unpacked(described["fields"], arrays)
    except (ValueError, KeyError, TypeError, zlib.error) as error:
        raise Invalid(
            f"these {len(data)} bytes are no sketch of format {format_name}: {error}",
            field="sketch",
            fix="Delete the row; it is made anew from the records.",
        ) from error


def _type(array: NDArray[Any]) -> str:
    kind = array.dtype.newbyteorder("<").str
    if kind not in _TYPES or array.ndim != 1:
        raise TypeError(f"an array of {array.dtype} with {array.ndim} dimensions has no form in a sketch")
    return kind
