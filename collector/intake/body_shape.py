"""What a body is, by its shape: the way in learns of bodies only, not of the paths that they were sent to."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

UNKNOWN: Final = "unknown"


class Shape(NamedTuple):
    """``api`` as records have it, :data:`UNKNOWN` when the body does not tell; the model and the user that it names."""

    api: str = UNKNOWN
    model: str | None = None
    user: str | None = None
    is_stream: bool = False


_ABSENT: Final = msgspec.Raw()
_NULL: Final = msgspec.Raw(b"null")


class _Tensor(msgspec.Struct):
    datatype: str
    shape: list[int]


class _Body(msgspec.Struct):
    inputs: msgspec.Raw = _ABSENT
    outputs: msgspec.Raw = _ABSENT
    messages: msgspec.Raw = _ABSENT
    prompt: msgspec.Raw = _ABSENT
    input: msgspec.Raw = _ABSENT
    choices: msgspec.Raw = _ABSENT
    instances: msgspec.Raw = _ABSENT
    predictions: msgspec.Raw = _ABSENT
    dataframe_split: msgspec.Raw = _ABSENT
    dataframe_records: msgspec.Raw = _ABSENT
    object: msgspec.Raw = _ABSENT
    model: msgspec.Raw = _ABSENT
    model_name: msgspec.Raw = _ABSENT
    user: msgspec.Raw = _ABSENT


_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_read = msgspec.json.Decoder(_Body).decode
_tensors = msgspec.json.Decoder(list[_Tensor]).decode
_text = msgspec.json.Decoder(str | None).decode
_SCORING: Final = ("instances", "predictions", "dataframe_split", "dataframe_records", "inputs")
_OBJECTS: Final = {
    "chat.completion": "chat",
    "text_completion": "completions",
    "response": "responses",
}
_EVENT: Final = (b"data:", b"event:", b"id:", b"retry:", b":")


def shape_of(body: bytes) -> Shape:
    """The shape of a request's or an answer's body. Events of a stream are an answer of a chat unless they say
    otherwise, which nobody need know: the collector reads streams by their events.
    """
    start = body[:64].lstrip()
    if start.startswith(_EVENT):
        return Shape("chat", is_stream=True)
    if not start.startswith(b"{"):
        return Shape()
    try:
        found = _read(body)
    except _UNREADABLE:
        # Tensors may follow the JSON as raw bytes, https://kserve.github.io/website/docs/concepts/architecture/data-plane
        return Shape("infer") if b'"binary_data_size"' in body else Shape()
    return Shape(_api(found), _as_text(found.model) or _as_text(found.model_name), _as_text(found.user))


def _api(body: _Body) -> str:
    if _are_tensors(body.inputs) or _are_tensors(body.outputs):
        return "infer"
    if _given(body.messages):
        return "chat"
    if _given(body.prompt):
        return "completions"
    named = _OBJECTS.get(_as_text(body.object) or "")
    if named is not None:
        return named
    if _given(body.choices):
        return "chat"
    if any(_given(getattr(body, name)) for name in _SCORING):
        return "invocations"
    return "embeddings" if _given(body.input) else UNKNOWN


def _given(value: msgspec.Raw) -> bool:
    return len(value) > 0 and value != _NULL


def _are_tensors(value: msgspec.Raw) -> bool:
    try:
        return _given(value) and bool(_tensors(value))
    except _UNREADABLE:
        return False


def _as_text(value: msgspec.Raw) -> str | None:
    try:
        return _text(value) or None if _given(value) else None
    except _UNREADABLE:
        return None
