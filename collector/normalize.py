"""Records become rows: bodies are read, streams aggregated, texts and token counts taken out.

Invariant: one row per record and nothing lost. A body that is no JSON is kept as text with null texts and
counts. Bytes that are no UTF-8 become U+FFFD, and ``REQUEST_NOT_UTF8`` or ``RESPONSE_NOT_UTF8`` says so. Rows
are built column by column: an Arrow array from a list of values costs a third of what rows of dictionaries
cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Final

import pyarrow as pa

from collector import chat_bodies
from collector.conversation import Answer, answer, prompt_text
from collector.infer_bodies import readable, texts_of
from collector.inference_table import ATTEMPT, PAYLOAD_SCHEMA, TIMESTAMP
from collector.json_text import clean, parse, write
from collector.record import Attempt, Record
from collector.stream_aggregation import aggregate

REQUEST_NOT_UTF8: Final = "REQUEST_NOT_UTF8"
RESPONSE_NOT_UTF8: Final = "RESPONSE_NOT_UTF8"
UNFIT: Final = (
    pa.ArrowException,
    ArithmeticError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RecursionError,
)
"""What :func:`rows` may raise for a record that fits no row."""
_NO_ANSWER: Final = Answer()


def rows(records: Sequence[Record], worker_id: str, offsets: Sequence[int]) -> pa.Table:
    """The rows of ``records``, which ``worker_id`` spooled at ``offsets``, with the columns of the inference
    table.

    Raises one of :data:`UNFIT` when a value does not fit its column; :func:`rows` of one record at a time then tells
    which.
    """
    records = [readable(record) if record.api == "infer" else record for record in records]
    prompts: list[str | None] = []
    responses: list[bytes | str | None] = []
    models: list[str | None] = []
    answers: list[Answer] = []
    for record in records:
        if record.api == "infer":
            prompts.append(texts_of(record.request, "inputs"))
            models.append(record.model)
            responses.append(record.response)
            answers.append(Answer(texts_of(record.response, "outputs")))
            continue
        prompt, model = (None, None) if record.request is None else _request(record.request)
        prompts.append(prompt)
        models.append(record.model if record.model is not None else model)
        body, said = _response(record)
        responses.append(body)
        answers.append(said)

    requests, not_utf8_requests = _texts([r.request for r in records])
    response_texts, not_utf8_responses = _texts(responses)
    codes = [r.logging_error_codes for r in records]
    for places, code in ((not_utf8_requests, REQUEST_NOT_UTF8), (not_utf8_responses, RESPONSE_NOT_UTF8)):
        for place in places:
            codes[place] = [*codes[place], code]
    moments = pa.array([r.request_time_us for r in records], pa.int64()).view(TIMESTAMP)
    count = len(records)
    columns: dict[str, pa.Array[Any]] = {
        "databricks_request_id": _strings([r.request_id for r in records]),
        "request_date": moments.cast(pa.date32()),
        "client_request_id": _strings([r.client_request_id for r in records]),
        "request_time": moments,
        "status_code": pa.array([r.status_code for r in records], pa.int32()),
        "sampling_fraction": pa.array([r.sampling_fraction for r in records], pa.float64()),
        "execution_duration_ms": pa.array([(r.duration_us + 500) // 1000 for r in records], pa.int64()),
        "request": requests,
        "response": response_texts,
        "logging_error_codes": pa.array(codes, pa.list_(pa.string())),
        "served_entity_id": _strings([r.served_entity_id for r in records]),
        "requester": _strings([r.requester for r in records]),
        "endpoint": _strings([r.endpoint for r in records]),
        "served_entity": _strings([r.served_entity for r in records]),
        "entity_version": _strings([r.entity_version for r in records]),
        "api": _strings([r.api for r in records]),
        "model": _strings(models),
        "experiment": _strings([r.experiment for r in records]),
        "variant": _strings([r.variant for r in records]),
        "unit": _strings([r.unit for r in records]),
        "phase": pa.array([r.phase for r in records], pa.int32()),
        "propensity": pa.array([r.propensity for r in records], pa.float64()),
        "is_shadow": pa.array([r.is_shadow for r in records], pa.bool_()),
        "shadow_of": _strings([r.shadow_of for r in records]),
        "is_stream": pa.array([r.is_stream for r in records], pa.bool_()),
        "time_to_first_token_ms": pa.array(
            [None if r.time_to_first_token_us is None else r.time_to_first_token_us / 1000 for r in records],
            pa.float64(),
        ),
        "input_tokens": pa.array([a.input_tokens for a in answers], pa.int64()),
        "output_tokens": pa.array([a.output_tokens for a in answers], pa.int64()),
        "finish_reason": _strings([a.finish_reason for a in answers]),
        "prompt_text": _strings(prompts),
        "response_text": _strings([a.text for a in answers]),
        "error_type": _strings([r.error_type for r in records]),
        "attempts": pa.array([r.attempts for r in records], pa.int32()),
        "client_disconnected": pa.array([r.client_disconnected for r in records], pa.bool_()),
        "trace_id": _strings([r.trace_id for r in records]),
        "session_id": _strings([r.session_id for r in records]),
        "tags": _tags([r.tags for r in records]),
        "worker_id": pa.repeat(pa.scalar(worker_id), count),
        "spool_offset": pa.array(offsets, pa.int64()),
        "endpoint_config_version": pa.array([r.endpoint_config_version for r in records], pa.int32()),
        "attempt_details": _attempts([r.attempt_details for r in records]),
    }
    return pa.Table.from_arrays([columns[name] for name in PAYLOAD_SCHEMA.names], schema=PAYLOAD_SCHEMA)


def _request(body: bytes) -> tuple[str | None, str | None]:
    """The prompt's text and the model that the client asked for."""
    plain = chat_bodies.read_request(body)
    if plain is not None:
        return plain
    request = parse(body)
    model = request.get("model") if isinstance(request, dict) else None
    try:
        text = prompt_text(request)
    except RecursionError:  # nested too deep to be a text
        text = None
    return text, model if isinstance(model, str) else None


def _response(record: Record) -> tuple[bytes | str | None, Answer]:
    """The text to store, and what it says."""
    body = record.response
    if not body:
        return body, _NO_ANSWER
    # The refusal of a streamed call is one JSON document.
    if record.is_stream and body.lstrip()[:1] not in (b"{", b"["):
        try:
            whole = aggregate(body)
            return (body, _NO_ANSWER) if whole is None else (write(whole), answer(whole))
        except RecursionError:
            return body, _NO_ANSWER
    plain = chat_bodies.read_response(body)
    if plain is not None:
        return body, plain
    try:
        return body, answer(parse(body))
    except RecursionError:
        return body, _NO_ANSWER


def _strings(values: list[str | None] | list[str]) -> pa.Array[Any]:
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        return pa.array([None if value is None else clean(value) for value in values], pa.string())


def _texts(values: Sequence[bytes | str | None]) -> tuple[pa.Array[Any], list[int]]:
    """The values as text, and which of them are not UTF-8."""
    try:
        # Arrow takes the bytes as they are and checks them all at once.
        return pa.array(values, pa.binary()).cast(pa.string()), []
    except (pa.ArrowInvalid, TypeError):
        texts: list[str | None] = []
        not_utf8: list[int] = []
        for place, value in enumerate(values):
            if isinstance(value, bytes):
                try:
                    texts.append(value.decode())
                except UnicodeDecodeError:
                    not_utf8.append(place)
                    texts.append(value.decode("utf-8", "replace"))
            else:
                texts.append(value)
        return pa.array(texts, pa.string()), not_utf8


def _tags(records: list[dict[str, str]]) -> pa.Array[Any]:
    """A map a record."""
    items = [list(tags.items()) for tags in records] if any(records) else [()] * len(records)
    return pa.array(items, pa.map_(pa.string(), pa.string()))


def _attempts(records: list[list[Attempt]]) -> pa.Array[Any]:
    """A list of structs a record, built column by column as everything here."""
    ends = list(accumulate((len(attempts) for attempts in records), initial=0))
    flat = [attempt for attempts in records for attempt in attempts]
    fields = [
        _strings([a.served_entity for a in flat]),
        _strings([a.url for a in flat]),
        pa.array([a.status for a in flat], pa.int32()),
        _strings([a.error_type for a in flat]),
        pa.array([a.duration_us / 1000 for a in flat], pa.float64()),
    ]
    structs = pa.StructArray.from_arrays(fields, fields=list(ATTEMPT))
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), structs)
