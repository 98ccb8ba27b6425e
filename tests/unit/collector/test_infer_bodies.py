"""V2 inference calls in the table: JSON, whatever way the tensors were sent."""

from __future__ import annotations

import json
import struct
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from collector.infer_bodies import BINARY_TENSORS_OMITTED
from collector.normalize import rows
from collector.record import Record


def row(request: bytes, response: bytes | None = None, api: str = "infer", **fields: Any) -> dict[str, Any]:
    record = Record(
        request_id="r1",
        request_time_us=1_772_366_400_000_000,
        status_code=200,
        duration_us=1_500,
        endpoint="iris",
        api=api,
        request=request,
        response=response,
        **fields,
    )
    return dict(rows([record], "w", [0]).to_pylist()[0])


def body(key: str, count: int) -> bytes:
    tensor = {
        "name": "x",
        "shape": [count],
        "datatype": "FP32",
        "parameters": {"binary_data_size": 4 * count},
    }
    return json.dumps({key: [tensor]}).encode() + struct.pack(f"<{count}f", *range(count))


def test_small_binary_tensors_are_kept_as_values() -> None:
    got = row(body("inputs", 3), body("outputs", 2))
    assert json.loads(got["request"])["inputs"][0]["data"] == [0.0, 1.0, 2.0]
    assert json.loads(got["response"])["outputs"][0]["data"] == [0.0, 1.0]
    assert got["logging_error_codes"] == []


def test_large_ones_leave_the_json_part_and_a_word() -> None:
    got = row(body("inputs", 20_000), body("outputs", 20_000), logging_error_codes=["X"])
    assert json.loads(got["request"])["inputs"][0]["parameters"] == {"binary_data_size": 80_000}
    assert json.loads(got["response"])["outputs"][0]["shape"] == [20_000]
    assert got["logging_error_codes"] == ["X", BINARY_TENSORS_OMITTED]


def test_tensors_that_do_not_add_up_leave_the_json_part_and_a_word() -> None:
    got = row(body("inputs", 3)[:-1])
    assert json.loads(got["request"])["inputs"][0]["parameters"] == {"binary_data_size": 12}
    assert got["logging_error_codes"] == [BINARY_TENSORS_OMITTED]


def test_json_bodies_stay_as_they_came() -> None:
    request = b'{ "inputs": [{"name":"x","shape":[1],"datatype":"FP64","data":[ 1.50 ]}]}'
    cut = body("outputs", 2)[:-8]
    got = row(request, cut)
    assert got["request"] == request.decode()
    assert got["response"] == cut.decode()
    assert got["logging_error_codes"] == []


def test_texts_are_those_of_text_tensors() -> None:
    number = {"name": "n", "shape": [1], "datatype": "FP32", "data": [1.5]}
    text = {"name": "text_input", "shape": [2, 1], "datatype": "BYTES", "data": [["Hello"], ["there"]]}
    empty = {"name": "stop", "shape": [1], "datatype": "BYTES", "data": [""]}
    got = row(
        json.dumps({"inputs": [number, text, empty]}).encode(), json.dumps({"outputs": [number]}).encode()
    )
    assert (got["prompt_text"], got["response_text"]) == ("Hello\nthere", None)
    raw = {"name": "t", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 6}}
    said = json.dumps({"outputs": [raw]}).encode() + b"\x02\x00\x00\x00hi"
    assert row(b"nonsense", said)["response_text"] == "hi"


def test_other_bodies_are_text_and_marked() -> None:
    got = row(b'\xff "binary_data_size"', api="infer")
    assert got["request"] == '\ufffd "binary_data_size"'
    assert got["logging_error_codes"] == ["REQUEST_NOT_UTF8"]


@given(
    st.sampled_from(["FP32", "BYTES", "BF16", "nonsense", 7, None]),
    st.integers(-2, 9) | st.none() | st.just("4"),
    st.lists(st.integers(-1, 3), max_size=3) | st.just("x") | st.none(),
    st.binary(max_size=12),
)
def test_no_tensor_keeps_a_record_out_of_the_table(datatype: Any, size: Any, shape: Any, data: bytes) -> None:
    tensor = {"name": "x", "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": size}}
    for tensors in ([tensor], [tensor, tensor], tensor, [[tensor]]):
        got = row(json.dumps({"inputs": tensors}).encode() + data)
        assert json.loads(got["request"]).keys() == {"inputs"}
