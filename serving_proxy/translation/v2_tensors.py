"""Nested JSON lists and the tensors of the V2 inference protocol, in both directions.

Invariant: a value keeps its type: whole numbers are INT64 (UINT64 beyond), any other number makes a tensor FP64,
texts are BYTES. What is neither (mixed types, ragged lists, objects) is Invalid and names the field.
"""

from __future__ import annotations

from math import prod
from typing import Any, Final

from servelens.errors import Invalid
from serving_proxy.dialects.kserve import JSON_LENGTH
from serving_proxy.upstream import Headers

_INT64: Final = 1 << 63
_UINT64: Final = 1 << 64
_MAX_RANK: Final = 32


def tensor_of(name: str, values: Any, field: str) -> dict[str, Any]:
    """The tensor of a scalar or of nested lists; ``field`` names them to the client."""
    shape = _shape_of(values, field)
    flat = _flattened(values, shape, field)
    return {"name": name, "shape": shape, "datatype": _datatype_of(flat, field), "data": flat}


def column_of(name: str, values: list[Any], field: str) -> dict[str, Any]:
    """One column of a data frame, as MLServer's content type ``pd`` has it: shape ``[rows, 1]``, a missing number
    is null.
    """
    present = [value for value in values if value is not None]
    flat = _flattened(present, _shape_of(present, field), field)
    datatype = _datatype_of(flat, field) if flat else "FP64"
    if len(present) < len(values):
        if datatype not in ("FP64", "INT64", "UINT64"):
            raise Invalid("A column of texts or truth values cannot have nulls here.", field=field)
        datatype = "FP64"
    tensor: dict[str, Any] = {
        "name": name,
        "shape": [len(values), 1],
        "datatype": datatype,
        "data": values if len(present) < len(values) else flat,
    }
    if datatype == "BYTES":
        tensor["parameters"] = {"content_type": "str"}
    return tensor


def values_of(tensor: dict[str, Any], field: str) -> Any:
    """The values of a tensor, nested by its shape. ``data`` may be flat or nested already (both are allowed)."""
    shape, data = tensor.get("shape"), tensor.get("data")
    if not isinstance(shape, list) or not all(type(length) is int and length >= 0 for length in shape):
        raise Invalid(f"A shape is a list of whole numbers, not {shape!r}.", field=f"{field}.shape")
    if not isinstance(data, list):
        raise Invalid("The tensor has no data.", field=f"{field}.data")
    flat: list[Any] = data
    while flat and isinstance(flat[0], list):
        if not all(isinstance(each, list) for each in flat):
            raise Invalid("The data is ragged.", field=f"{field}.data")
        flat = [value for each in flat for value in each]
    if len(shape) > _MAX_RANK or prod(shape) != len(flat):
        raise Invalid(f"There are {len(flat)} values, not of shape {shape}.", field=f"{field}.data")
    for length in reversed(shape[1:]):
        flat = [flat[start : start + length] for start in range(0, len(flat), length)] if length else []
    if not shape:
        return flat[0]
    return flat if flat or not shape[0] else [[] for _ in range(shape[0])]


def as_json(headers: Headers) -> Headers:
    """The fields of an answer whose body has become JSON, whatever it was."""
    kept = [field for field in headers if field[0] not in (b"content-type", JSON_LENGTH)]
    return [*kept, (b"content-type", b"application/json")]


def _shape_of(values: Any, field: str) -> list[int]:
    shape: list[int] = []
    while isinstance(values, list):
        shape.append(len(values))
        if len(shape) > _MAX_RANK:
            raise Invalid(f"The lists are nested more than {_MAX_RANK} deep.", field=field)
        if not values:
            break
        values = values[0]
    return shape


def _flattened(values: Any, shape: list[int], field: str) -> list[Any]:
    flat = [values]
    for length in shape:
        if not all(isinstance(each, list) and len(each) == length for each in flat):
            raise Invalid(f"The lists are ragged, so they are no tensor of shape {shape}.", field=field)
        flat = [value for each in flat for value in each]
    return flat


def _datatype_of(flat: list[Any], field: str) -> str:
    kinds = {type(value) for value in flat}
    if kinds == {int}:
        if min(flat) >= -_INT64 and max(flat) < _INT64:
            return "INT64"
        if min(flat) >= 0 and max(flat) < _UINT64:
            return "UINT64"
        raise Invalid("A number does not fit into 64 bits.", field=field)
    if kinds <= {int, float}:  # no values at all have no type; numbers are the better guess
        return "FP64"
    if kinds == {bool}:
        return "BOOL"
    if kinds == {str}:
        return "BYTES"
    names = ", ".join(sorted(_NAMES.get(kind, kind.__name__) for kind in kinds))
    raise Invalid(f"One tensor cannot hold {names}.", field=field, fix="Send numbers, truth values or texts.")


_NAMES: Final[dict[type, str]] = {
    int: "whole numbers",
    float: "numbers",
    str: "texts",
    bool: "truth values",
    type(None): "nulls",
    dict: "objects",
    list: "lists",
}
