"""MLflow scoring calls for a backend that speaks KServe's V2 protocol.

A data frame becomes one tensor a column, as MLServer's content type ``pd`` has it; ``inputs`` and ``instances``
become one tensor, or one for each name. ``params`` that are plain values become ``parameters``. Of the answer,
columns become records, one tensor a nested list, several an object of lists.

Sources: https://mlflow.org/docs/latest/ml/deployment/deploy-model-locally/ ("Inference server specification");
https://github.com/kserve/open-inference-protocol; https://mlserver.readthedocs.io/en/latest/user-guide/content-type.html.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from collector.tensors import read_document
from servelens.errors import Invalid, Unavailable
from serving_proxy.dialects.mlflow import MLflow
from serving_proxy.failure import Failure
from serving_proxy.translation.v2_tensors import as_json, column_of, tensor_of, values_of
from serving_proxy.upstream import Headers

_FORMATS: Final = ("dataframe_split", "dataframe_records", "instances", "inputs")
_BESIDE: Final = ("params", "client_request_id", "databricks_options")
_UNNAMED: Final = "input-0"  # MLServer's name for it
_decode = msgspec.json.Decoder(dict[str, Any]).decode
_MLFLOW: Final = MLflow()


class ScoringToKServe:
    """``/invocations`` bodies to ``/v2/models/…/infer``."""

    operation = "/infer"

    def request(self, body: bytes, *, model: str | None) -> bytes:
        """The V2 request. Raises Invalid, which names the field, for what tensors cannot say."""
        fields = _decode(body)
        given = [name for name in _FORMATS if name in fields]
        if len(given) != 1:
            raise Invalid(
                f"Exactly one of the input fields is needed, not {len(given)}.",
                field=given[1] if given else "body",
                fix=f"Send one of {', '.join(_FORMATS)}.",
            )
        for name in fields:
            if name not in _FORMATS and name not in _BESIDE:
                raise Invalid(
                    "The backend speaks the V2 protocol, which has nothing like this field.", field=name
                )
        name, value = given[0], fields[given[0]]
        parameters = _parameters(fields.get("params"))
        if name.startswith("dataframe"):
            inputs = _split(value) if name == "dataframe_split" else _records(value)
            parameters["content_type"] = "pd"
        elif name == "instances" and isinstance(value, list) and value and isinstance(value[0], dict):
            inputs = [
                tensor_of(column, values, f"instances[].{column}")
                for column, values in _columns(value, name).items()
            ]
        elif isinstance(value, dict):
            inputs = [tensor_of(column, values, f"{name}.{column}") for column, values in value.items()]
        else:
            inputs = [tensor_of(_UNNAMED, value, name)]
        request: dict[str, Any] = {"inputs": inputs}
        if parameters:
            request["parameters"] = parameters
        return msgspec.json.encode(request)

    def answer(self, *, model: str, request_id: str, request: bytes) -> PredictionsFromOutputs:
        return PredictionsFromOutputs()


class PredictionsFromOutputs:
    """The V2 answer as ``{"predictions": …}``."""

    def begin(self, status: int, headers: Headers, *, is_stream: bool) -> Headers:
        return as_json(headers)

    def whole(self, status: int, body: bytes) -> tuple[int, bytes]:
        """Raises Unavailable when a 200 is not an answer of the protocol."""
        if status != 200:
            return status, _error(status, body)
        try:
            document = read_document(body)
            outputs = document["outputs"]
            values = {output["name"]: values_of(output, "outputs") for output in outputs}
        except (msgspec.MsgspecError, ValueError, RecursionError, KeyError, TypeError, Invalid) as error:
            raise Unavailable(f"The backend's answer is not one of the V2 protocol: {error}.") from error
        if _is_frame(document):
            columns = {name: [_cell(value) for value in column] for name, column in values.items()}
            predictions: Any = [
                dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=False)
            ]
        else:
            predictions = next(iter(values.values())) if len(values) == 1 else values
        return status, msgspec.json.encode({"predictions": predictions})

    def chunk(self, data: bytes) -> bytes:
        return data

    def end(self) -> bytes:
        return b""


def _parameters(params: Any) -> dict[str, Any]:
    if params is None:
        return {}
    if not isinstance(params, dict):
        raise Invalid("'params' must be an object.", field="params")
    for name, value in params.items():
        if not isinstance(value, str | int | float | bool):
            raise Invalid(
                "A parameter of the V2 protocol is a text, a number or a truth value.", field=f"params.{name}"
            )
    return params


def _split(value: Any) -> list[dict[str, Any]]:
    field = "dataframe_split"
    rows = value.get("data") if isinstance(value, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise Invalid("It must be an object with 'columns' and with 'data', a list of rows.", field=field)
    columns = value.get("columns")
    if columns is None:
        columns = list(range(len(rows[0]) if rows else 0))
    if not isinstance(columns, list) or len({str(column) for column in columns}) != len(columns):
        raise Invalid("'columns' must be a list of different names.", field=f"{field}.columns")
    for number, row in enumerate(rows):
        if len(row) != len(columns):
            raise Invalid(
                f"The row has {len(row)} values for {len(columns)} columns.", field=f"{field}.data[{number}]"
            )
    return [
        column_of(str(name), [row[place] for row in rows], f"{field}.data[][{place}]")
        for place, name in enumerate(columns)
    ]


def _records(value: Any) -> list[dict[str, Any]]:
    columns = _columns(value, "dataframe_records")
    return [column_of(name, values, f"dataframe_records[].{name}") for name, values in columns.items()]


def _columns(rows: Any, field: str) -> dict[str, list[Any]]:
    """Rows of named values as columns; a name that a row lacks is a null."""
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise Invalid("It must be a list of objects.", field=field)
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _is_frame(document: dict[str, Any]) -> bool:
    parameters = document.get("parameters")
    return isinstance(parameters, dict) and parameters.get("content_type") == "pd"


def _cell(value: Any) -> Any:
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _error(status: int, body: bytes) -> bytes:
    """The backend's error in MLflow's words."""
    try:
        text = _decode(body)["error"]
    except (msgspec.MsgspecError, ValueError, RecursionError, KeyError):
        text = body[:1000].decode("utf-8", "replace")
    return _MLFLOW.error(Failure("upstream_status", status, str(text)))
