"""V2 inference calls for a backend that is an MLflow scoring server.

Several tensors become ``inputs`` by name, one alone a list without a name; a request whose parameters say
``content_type: pd`` becomes ``dataframe_split``. Binary tensors are read. Parameters of the request become
``params``. Of the answer, records become one tensor a column, everything else one tensor, or one for each name.

Sources: as for :mod:`serving_proxy.translation.scoring_to_kserve`.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from collector.tensors import SIZE_KEY, json_end, read_document
from servelens.errors import Invalid, Unavailable
from serving_proxy.dialects.kserve import KServe
from serving_proxy.failure import Failure
from serving_proxy.translation.v2_tensors import as_json, column_of, tensor_of, values_of
from serving_proxy.upstream import Headers

_UNNAMED: Final = "predictions"
_FRAME: Final = {"content_type": "pd"}
_ABOUT_THE_CALL: Final = ("binary_data_output", "content_type", "headers")
_NOT_HERE: Final = ("sequence_id", "sequence_start", "sequence_end", "priority", "timeout")
_COMPRESSED: Final = (b"\x1f\x8b", b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class _Output(msgspec.Struct, gc=False):
    name: str


class _Asked(msgspec.Struct, gc=False):
    id: str | None = None
    outputs: list[_Output] = []


_decode_asked = msgspec.json.Decoder(_Asked).decode
_KSERVE: Final = KServe()


class KServeToScoring:
    """``/v2/models/…/infer`` to ``/invocations`` bodies."""

    operation = "/invocations"

    def request(self, body: bytes, *, model: str | None) -> bytes:
        """The scoring request. Raises Invalid, which names the field, for what the scoring server has no word for."""
        if body.startswith(_COMPRESSED):
            raise Invalid(
                "The backend is an MLflow server, so the tensors must be read, and they are compressed.",
                field="content-encoding",
                fix="Send the request without compression.",
            )
        fields = _call(body)
        tensors = fields.get("inputs")
        if (
            not isinstance(tensors, list)
            or not all(isinstance(tensor, dict) for tensor in tensors)
            or not tensors
        ):
            raise Invalid("'inputs' must be a list of tensors.", field="inputs")
        values: dict[str, Any] = {}
        for number, tensor in enumerate(tensors):
            field = f"inputs[{number}]"
            name = tensor.get("name")
            if not isinstance(name, str) or name in values:
                raise Invalid("A tensor needs a name of its own.", field=f"{field}.name")
            _refuse_shared_memory(tensor, field)
            values[name] = values_of(tensor, field)
        parameters = fields.get("parameters") or {}
        request: dict[str, Any] = {}
        if parameters.get("content_type") == "pd":
            request["dataframe_split"] = _frame(values)
        else:
            request["inputs"] = next(iter(values.values())) if len(values) == 1 else values
        for name in parameters:
            if name in _NOT_HERE:
                raise Invalid("An MLflow server has nothing like this parameter.", field=f"parameters.{name}")
        params = {name: value for name, value in parameters.items() if name not in _ABOUT_THE_CALL}
        if params:
            request["params"] = params
        outputs = fields.get("outputs") or []
        if not isinstance(outputs, list) or not all(
            isinstance(each, dict) and _is_named(each) for each in outputs
        ):
            raise Invalid("'outputs' must be a list of objects with a 'name'.", field="outputs")
        for number, output in enumerate(outputs):
            _refuse_shared_memory(output, f"outputs[{number}]")
        if not isinstance(fields.get("id") or "", str):
            raise Invalid("It must be a text.", field="id")
        return msgspec.json.encode(request)

    def answer(self, *, model: str, request_id: str, request: bytes) -> OutputsFromPredictions:
        """``request`` is the client's body: its ``id`` and the names of the outputs it asks for are in the answer."""
        asked = _decode_asked(request[: json_end(request)] if SIZE_KEY in request else request)
        return OutputsFromPredictions(
            model, asked.id or request_id, [output.name for output in asked.outputs]
        )


class OutputsFromPredictions:
    """``{"predictions": …}`` as a V2 answer. ``names`` are the outputs asked for; none means all."""

    def __init__(self, model: str, ident: str, names: list[str]) -> None:
        self._model = model
        self._id = ident
        self._names = names

    def begin(self, status: int, headers: Headers, *, is_stream: bool) -> Headers:
        return as_json(headers)

    def whole(self, status: int, body: bytes) -> tuple[int, bytes]:
        """Raises Unavailable when a 200 has no predictions, or such as are no tensors; Invalid for an output that is
        not there.
        """
        if status != 200:
            return status, _error(status, body)
        answer: dict[str, Any] = {"model_name": self._model, "id": self._id}
        try:
            predictions = _decode(body)["predictions"]
            outputs, is_frame = _outputs_of(predictions, self._names)
        except (msgspec.MsgspecError, ValueError, RecursionError, KeyError, Invalid) as error:
            raise Unavailable(f"The backend's answer cannot be put as tensors: {error}.") from error
        if is_frame:
            answer["parameters"] = _FRAME
        if self._names:
            by_name = {output["name"]: output for output in outputs}
            for number, name in enumerate(self._names):
                if name not in by_name:
                    raise Invalid(
                        f"There is no output {name!r}.",
                        field=f"outputs[{number}].name",
                        fix=f"Use {', '.join(map(repr, by_name))}, or leave 'outputs' out.",
                    )
            outputs = [by_name[name] for name in self._names]
        answer["outputs"] = outputs
        return status, msgspec.json.encode(answer)

    def chunk(self, data: bytes) -> bytes:
        return data

    def end(self) -> bytes:
        return b""


def _call(body: bytes) -> dict[str, Any]:
    try:
        fields = read_document(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Invalid(f"The tensors cannot be read: {error}.", field="inputs") from error
    if not isinstance(fields.get("parameters") or {}, dict):
        raise Invalid("'parameters' must be an object.", field="parameters")
    return fields


def _is_named(tensor: dict[str, Any]) -> bool:
    return isinstance(tensor.get("name"), str)


def _refuse_shared_memory(tensor: dict[str, Any], field: str) -> None:
    parameters = tensor.get("parameters")
    for name in parameters if isinstance(parameters, dict) else ():
        if name.startswith("shared_memory") or name == "classification":
            raise Invalid(
                "An MLflow server has nothing like this parameter.", field=f"{field}.parameters.{name}"
            )


def _frame(values: dict[str, Any]) -> dict[str, Any]:
    columns: list[list[Any]] = []
    for number, column in enumerate(values.values()):
        rows = column if isinstance(column, list) else [[column, column]]  # one value alone is no column
        cells = [row[0] if isinstance(row, list) and len(row) == 1 else row for row in rows]
        if any(isinstance(cell, list) for cell in cells) or (columns and len(cells) != len(columns[0])):
            raise Invalid(
                "A column of a data frame has the shape [rows] or [rows, 1], and all have as many rows.",
                field=f"inputs[{number}].shape",
            )
        columns.append(cells)
    return {"columns": list(values), "data": [list(row) for row in zip(*columns, strict=True)]}


def _outputs_of(predictions: Any, names: list[str]) -> tuple[list[dict[str, Any]], bool]:
    """The tensors, and whether they are the columns of a data frame."""
    if isinstance(predictions, list) and predictions and isinstance(predictions[0], dict):
        rows = predictions
        columns = list(dict.fromkeys(name for row in rows for name in row))
        tensors = [
            column_of(name, [row.get(name) for row in rows], f"predictions[].{name}") for name in columns
        ]
        return tensors, True
    if isinstance(predictions, dict):
        named = [tensor_of(name, values, f"predictions.{name}") for name, values in predictions.items()]
        return named, False
    values = predictions if isinstance(predictions, list) else [predictions]
    return [tensor_of(names[0] if len(names) == 1 else _UNNAMED, values, "predictions")], False


def _error(status: int, body: bytes) -> bytes:
    """The backend's error in the protocol's words."""
    try:
        document = _decode(body)
        text = document.get("message") or document.get("error_code") or document.get("error") or body.decode()
    except (msgspec.MsgspecError, ValueError, RecursionError):
        text = body[:1000].decode("utf-8", "replace")
    return _KSERVE.error(Failure("upstream_status", status, str(text)))
