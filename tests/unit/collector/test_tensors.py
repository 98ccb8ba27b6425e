"""The values of binary tensors, against numpy's own view of the same bytes."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.utils import serialize_byte_tensor, triton_to_np_dtype

from collector.tensors import decoded, json_end, with_values

_NUMBERS = (
    *("BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"),
    *("FP16", "FP32", "FP64", "BF16"),
)


@pytest.mark.parametrize("datatype", _NUMBERS)
def test_numbers_are_those_numpy_reads(datatype: str) -> None:
    values = np.array([0, 1, 1, 0, 1], triton_to_np_dtype(datatype))
    if datatype.startswith(("FP", "BF")):
        values = (values * -1.5 + 0.1).astype(values.dtype)
    elif datatype != "BOOL":
        values[2] = np.iinfo(values.dtype).max
        values[3] = np.iinfo(values.dtype).min
    exact = values.astype(np.float64) if datatype.startswith(("FP", "BF")) else values
    assert decoded(values.tobytes(), datatype) == exact.tolist()


def test_bytes_are_texts_and_base64_where_they_are_none() -> None:
    elements = np.array([b"a", "ä€".encode(), b"", b"\xff\x00"], np.object_)
    assert decoded(serialize_byte_tensor(elements).item(), "BYTES") == ["a", "ä€", "", {"b64": "/wA="}]


@pytest.mark.parametrize(
    ("data", "datatype"),
    [
        (b"123", "FP32"),
        (b"1", "INT16"),
        (b"\x05\x00\x00\x00abc", "BYTES"),
        (b"\x05\x00", "BYTES"),
        (b"", "FP31"),
    ],
)
def test_bytes_that_do_not_add_up_are_an_error(data: bytes, datatype: str) -> None:
    with pytest.raises(ValueError, match=r"cut off|no whole number|not a data type"):
        decoded(data, datatype)


def body(*tensors: tuple[dict[str, Any], bytes], rest: bytes = b"") -> tuple[bytes, int]:
    document = {"id": "1", "inputs": [tensor for tensor, _ in tensors]}
    head = json.dumps(document).encode()
    return head + b"".join(data for _, data in tensors) + rest, len(head)


def tensor(name: str, size: int, shape: list[int], datatype: str = "FP32", **more: Any) -> dict[str, Any]:
    parameters = {"binary_data_size": size}
    return {"name": name, "shape": shape, "datatype": datatype, "parameters": parameters, **more}


def test_values_take_the_place_of_the_bytes() -> None:
    plain = {"name": "c", "shape": [1], "datatype": "INT64", "data": [9]}
    whole, length = body(
        (tensor("a", 8, [1, 2]), struct.pack("<2f", 1.5, -2)),
        (plain, b""),
        (tensor("b", 1, [1], "BOOL", parameters={"binary_data_size": 1, "content_type": "np"}), b"\x01"),
    )
    assert json_end(whole) == length
    assert with_values(whole, length) == {
        "id": "1",
        "inputs": [
            {"name": "a", "shape": [1, 2], "datatype": "FP32", "data": [1.5, -2.0]},
            plain,
            {
                "name": "b",
                "shape": [1],
                "datatype": "BOOL",
                "parameters": {"content_type": "np"},
                "data": [True],
            },
        ],
    }


@pytest.mark.parametrize(
    "whole",
    [
        body((tensor("a", 8, [2]), b"1234")),
        body((tensor("a", 4, [2]), b"1234")),
        body((tensor("a", 4, [1]), b"1234"), rest=b"5"),
        body((tensor("a", -4, [1]), b"")),
        body((tensor("a", True, [1]), b"1")),
        body((tensor("a", 4, [-1]), b"1234")),
        body((tensor("a", 4, [1], data=[1]), b"1234")),
    ],
)
def test_what_the_json_part_does_not_announce_is_an_error(whole: tuple[bytes, int]) -> None:
    with pytest.raises(ValueError, match=r"bytes long|not of shape|belong to no tensor|twice"):
        with_values(*whole)


@given(st.dictionaries(st.text(), st.text() | st.none() | st.floats(allow_nan=False)), st.binary())
def test_the_end_of_the_json_part_is_found_whatever_follows(document: dict[str, Any], rest: bytes) -> None:
    for escaped in (True, False):
        try:
            head = b" \n" + json.dumps(document, ensure_ascii=escaped).encode()
        except UnicodeEncodeError:
            continue
        assert json_end(head + rest) == len(head)


def test_no_json_is_an_error() -> None:
    for nothing in (b"", b"\x00\x01", b"{", b"  "):
        with pytest.raises(ValueError, match=r"Expecting"):
            json_end(nothing)
