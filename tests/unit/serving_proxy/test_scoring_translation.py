"""MLflow scoring ↔ V2 inference, body by body."""

from __future__ import annotations

import gzip
import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servelens.errors import Invalid, Unavailable
from serving_proxy.translation.kserve_to_scoring import KServeToScoring
from serving_proxy.translation.scoring_to_kserve import ScoringToKServe
from serving_proxy.translation.v2_tensors import tensor_of, values_of


def to_kserve(body: object) -> Any:
    return json.loads(ScoringToKServe().request(json.dumps(body).encode(), model=None))


def to_scoring(body: object, rest: bytes = b"") -> Any:
    return json.loads(KServeToScoring().request(json.dumps(body).encode() + rest, model=None))


def predictions(answer: object, status: int = 200) -> tuple[int, Any]:
    scoring = ScoringToKServe().answer(model="m", request_id="r", request=b"{}")
    code, body = scoring.whole(status, json.dumps(answer).encode())
    return code, json.loads(body)


def outputs(answer: object, request: object, status: int = 200) -> tuple[int, Any]:
    sent = json.dumps(request).encode()
    infer = KServeToScoring().answer(model="iris", request_id="r", request=sent)
    code, body = infer.whole(status, json.dumps(answer).encode())
    return code, json.loads(body)


def tensor(name: str, shape: list[int], datatype: str, data: list[Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, "data": data, **more}


STR = {"content_type": "str"}


@pytest.mark.parametrize(
    ("body", "inputs"),
    [
        ({"inputs": [[1, 2], [3, 4]]}, [tensor("input-0", [2, 2], "INT64", [1, 2, 3, 4])]),
        ({"inputs": [[1, 2.5]]}, [tensor("input-0", [1, 2], "FP64", [1, 2.5])]),
        ({"instances": [True, False]}, [tensor("input-0", [2], "BOOL", [True, False])]),
        ({"inputs": "text"}, [tensor("input-0", [], "BYTES", ["text"])]),
        ({"inputs": [2**63]}, [tensor("input-0", [1], "UINT64", [2**63])]),
        (
            {"inputs": {"a": [[1.5]], "b": ["x", "y"]}},
            [tensor("a", [1, 1], "FP64", [1.5]), tensor("b", [2], "BYTES", ["x", "y"])],
        ),
        (
            {"instances": [{"a": [1, 2], "b": 1.0}, {"a": [3, 4], "b": 2.0}]},
            [tensor("a", [2, 2], "INT64", [1, 2, 3, 4]), tensor("b", [2], "FP64", [1.0, 2.0])],
        ),
        ({"inputs": []}, [tensor("input-0", [0], "FP64", [])]),
    ],
)
def test_inputs_become_tensors(body: object, inputs: list[Any]) -> None:
    assert to_kserve(body) == {"inputs": inputs}


@pytest.mark.parametrize(
    "frame",
    [
        {
            "dataframe_split": {
                "index": [0, 1],
                "columns": ["n", "x", "s"],
                "data": [[1, None, "a"], [2, 0.5, "b"]],
            }
        },
        {"dataframe_records": [{"n": 1, "s": "a"}, {"n": 2, "x": 0.5, "s": "b"}]},
    ],
)
def test_a_data_frame_becomes_one_tensor_a_column(frame: dict[str, Any]) -> None:
    got = to_kserve({**frame, "params": {"limit": 3}, "client_request_id": "c"})
    assert got["parameters"] == {"limit": 3, "content_type": "pd"}
    assert sorted(got["inputs"], key=lambda each: str(each["name"])) == [
        tensor("n", [2, 1], "INT64", [1, 2]),
        tensor("s", [2, 1], "BYTES", ["a", "b"], parameters=STR),
        tensor("x", [2, 1], "FP64", [None, 0.5]),
    ]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body"),
        ({"inputs": [1], "instances": [1]}, "inputs"),
        ({"inputs": [1], "temperature": 1}, "temperature"),
        ({"inputs": [1], "params": {"stop": ["a"]}}, "params.stop"),
        ({"inputs": [1], "params": []}, "params"),
        ({"inputs": [[1], [2, 3]]}, "inputs"),
        ({"inputs": [1, "a"]}, "inputs"),
        ({"inputs": [1, None]}, "inputs"),
        ({"inputs": [2**64]}, "inputs"),
        ({"inputs": {"a": [{"b64": "AA=="}]}}, "inputs.a"),
        ({"instances": [{"a": 1}, {"b": 2}]}, "instances[].a"),
        ({"dataframe_split": [[1]]}, "dataframe_split"),
        ({"dataframe_split": {"columns": ["a"], "data": [[1], [1, 2]]}}, "dataframe_split.data[1]"),
        ({"dataframe_split": {"columns": ["a", "a"], "data": []}}, "dataframe_split.columns"),
        ({"dataframe_split": {"columns": ["a"], "data": [["x"], [None]]}}, "dataframe_split.data[][0]"),
        ({"dataframe_records": [1]}, "dataframe_records"),
        ({"dataframe_records": [{"a": 1}, {"a": "b"}]}, "dataframe_records[].a"),
    ],
)
def test_what_tensors_cannot_say_is_refused_and_named(body: object, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        to_kserve(body)
    assert refused.value.field == field


def test_outputs_become_predictions() -> None:
    flat = tensor("predict", [2, 2], "FP64", [1, 2, 3, 4])
    assert predictions({"outputs": [flat]}) == (200, {"predictions": [[1, 2], [3, 4]]})
    several = [tensor("a", [2, 1], "INT64", [1, 2]), tensor("b", [2], "BYTES", ["x", "y"])]
    assert predictions({"outputs": several})[1] == {"predictions": {"a": [[1], [2]], "b": ["x", "y"]}}
    frame = {"outputs": several, "parameters": {"content_type": "pd"}}
    assert predictions(frame)[1] == {"predictions": [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]}


def test_binary_outputs_are_read() -> None:
    head = json.dumps(
        {"outputs": [{"name": "y", "shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}]}
    ).encode()
    answer = ScoringToKServe().answer(model="m", request_id="r", request=b"{}")
    fields = [
        (b"x-a", b"b"),
        (b"content-type", b"application/octet-stream"),
        (b"inference-header-content-length", b"99"),
    ]
    told = [(b"x-a", b"b"), (b"content-type", b"application/json")]
    assert answer.begin(200, fields, is_stream=False) == told
    _, body = answer.whole(200, head + struct.pack("<2f", 0.5, -1))
    assert json.loads(body) == {"predictions": [0.5, -1.0]}


@pytest.mark.parametrize(
    "answer",
    [{}, {"outputs": [{"name": "a"}]}, {"outputs": 1}, [], {"outputs": [tensor("a", [3], "INT8", [1])]}],
)
def test_an_answer_that_is_none_is_the_backends_fault(answer: object) -> None:
    with pytest.raises(Unavailable):
        predictions(answer)


def test_errors_are_put_into_the_clients_words() -> None:
    assert predictions({"error": "no such model"}, 404) == (
        404,
        {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such model"},
    )
    assert predictions("oops", 500)[1]["message"] == '"oops"'
    mlflow = {"error_code": "BAD_REQUEST", "message": "no such column"}
    assert outputs(mlflow, {"inputs": []}, 400) == (400, {"error": "no such column"})
    assert outputs("oops", {"inputs": []}, 500)[1] == {"error": '"oops"'}


def test_tensors_become_inputs() -> None:
    one = tensor("x", [2, 2], "FP32", [1, 2, 3, 4])
    nested = tensor("y", [2, 1], "BYTES", [["a"], ["b"]])
    assert to_scoring({"inputs": [one]}) == {"inputs": [[1, 2], [3, 4]]}
    assert to_scoring({"inputs": [one, nested], "parameters": {"limit": 3, "binary_data_output": True}}) == {
        "inputs": {"x": [[1, 2], [3, 4]], "y": [["a"], ["b"]]},
        "params": {"limit": 3},
    }
    pair = [tensor("n", [2, 1], "INT64", [1, 2]), tensor("s", [2], "BYTES", ["a", "b"])]
    assert to_scoring({"inputs": pair, "parameters": {"content_type": "pd"}}) == {
        "dataframe_split": {"columns": ["n", "s"], "data": [[1, "a"], [2, "b"]]}
    }


def test_binary_tensors_are_read() -> None:
    sent = {"name": "x", "shape": [1, 2], "datatype": "INT16", "parameters": {"binary_data_size": 4}}
    assert to_scoring({"inputs": [sent]}, struct.pack("<2h", -1, 5)) == {"inputs": [[-1, 5]]}


SHARED = {"shared_memory_region": "r", "shared_memory_byte_size": 4}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "inputs"),
        ({"inputs": []}, "inputs"),
        ({"inputs": [{"shape": [1], "datatype": "INT8", "data": [1]}]}, "inputs[0].name"),
        ({"inputs": [tensor("a", [1], "INT8", [1])] * 2}, "inputs[1].name"),
        ({"inputs": [tensor("a", [2], "INT8", [1])]}, "inputs[0].data"),
        ({"inputs": [{"name": "a", "shape": [1], "datatype": "INT8"}]}, "inputs[0].data"),
        ({"inputs": [tensor("a", [-1], "INT8", [1])]}, "inputs[0].shape"),
        (
            {"inputs": [{"name": "a", "shape": [1], "datatype": "INT8", "parameters": SHARED}]},
            "inputs[0].parameters.shared_memory_region",
        ),
        (
            {
                "inputs": [tensor("a", [1], "INT8", [1])],
                "outputs": [{"name": "o", "parameters": {"classification": 3}}],
            },
            "outputs[0].parameters.classification",
        ),
        ({"inputs": [tensor("a", [1], "INT8", [1])], "outputs": [{}]}, "outputs"),
        (
            {"inputs": [tensor("a", [1], "INT8", [1])], "parameters": {"sequence_id": 3}},
            "parameters.sequence_id",
        ),
        ({"inputs": [tensor("a", [1], "INT8", [1])], "parameters": [1]}, "parameters"),
        ({"inputs": [tensor("a", [1], "INT8", [1])], "id": 7}, "id"),
        (
            {"inputs": [tensor("a", [1, 2], "INT8", [1, 2])], "parameters": {"content_type": "pd"}},
            "inputs[0].shape",
        ),
        ({"inputs": [tensor("a", [], "INT8", [1])], "parameters": {"content_type": "pd"}}, "inputs[0].shape"),
    ],
)
def test_what_a_scoring_server_has_no_word_for_is_refused_and_named(body: object, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        to_scoring(body)
    assert refused.value.field == field


def test_compressed_and_broken_tensors_are_refused() -> None:
    with pytest.raises(Invalid, match="compress"):
        KServeToScoring().request(gzip.compress(b"{}"), model=None)
    sent = {"name": "x", "shape": [1, 2], "datatype": "INT16", "parameters": {"binary_data_size": 4}}
    with pytest.raises(Invalid, match="4 bytes"):
        to_scoring({"inputs": [sent]}, b"12")


def test_predictions_become_outputs() -> None:
    asked = {"id": "7", "inputs": []}
    assert outputs({"predictions": [1, 2]}, asked) == (
        200,
        {"model_name": "iris", "id": "7", "outputs": [tensor("predictions", [2], "INT64", [1, 2])]},
    )
    assert outputs({"predictions": 0.5}, {})[1]["outputs"] == [tensor("predictions", [1], "FP64", [0.5])]
    records = {"predictions": [{"p": 0.5, "c": "a"}, {"p": None, "c": "b"}]}
    framed = outputs(records, {})[1]
    assert framed["parameters"] == {"content_type": "pd"}
    assert framed["outputs"] == [
        tensor("p", [2, 1], "FP64", [0.5, None]),
        tensor("c", [2, 1], "BYTES", ["a", "b"], parameters=STR),
    ]


def test_outputs_are_those_asked_for() -> None:
    named = {"predictions": {"a": [1], "b": [2]}}
    assert [each["name"] for each in outputs(named, {"outputs": [{"name": "b"}]})[1]["outputs"]] == ["b"]
    assert outputs({"predictions": [1]}, {"outputs": [{"name": "z"}]})[1]["outputs"][0]["name"] == "z"
    with pytest.raises(Invalid) as refused:
        outputs(named, {"outputs": [{"name": "a"}, {"name": "z"}]})
    assert refused.value.field == "outputs[1].name"


@pytest.mark.parametrize(
    "answer", [{}, {"predictions": [1, "a"]}, {"predictions": [[1], [2, 3]]}, {"predictions": None}, []]
)
def test_predictions_that_are_no_tensors_are_the_backends_fault(answer: object) -> None:
    with pytest.raises(Unavailable):
        outputs(answer, {})


_LEAVES = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(st.integers(1, 4), max_size=4).flatmap(lambda shape: st.tuples(st.just(shape), st.data())))
def test_nested_lists_survive_being_a_tensor(drawn: tuple[list[int], st.DataObject]) -> None:
    shape, data = drawn

    def nested(rest: list[int]) -> Any:
        return [nested(rest[1:]) for _ in range(rest[0])] if rest else data.draw(_LEAVES)

    values = nested(shape)
    made = tensor_of("x", values, "inputs")
    assert made["shape"] == shape
    assert values_of(made, "inputs") == values
