from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.inference_table import PAYLOAD_SCHEMA
from collector.normalize import rows
from collector.record import REQUEST_TOO_LARGE, Attempt, Record

NOON_US = 1_772_366_400_000_000  # 2026-03-01T12:00:00Z


def record(**fields: Any) -> Record:
    given: dict[str, Any] = {
        "request_id": "r1",
        "request_time_us": NOON_US,
        "status_code": 200,
        "duration_us": 1_500,
        "endpoint": "chat",
        "api": "chat",
        **fields,
    }
    return Record(**given)


def row(**fields: Any) -> dict[str, Any]:
    table = rows([record(**fields)], "proxy-0-abc", [7])
    assert table.schema.equals(PAYLOAD_SCHEMA)
    return dict(table.to_pylist()[0])


def test_every_field_of_a_record_has_its_column() -> None:
    got = row(
        client_request_id="c",
        sampling_fraction=0.5,
        request=b'{"model": "chat", "messages": [{"role": "user", "content": "Hi"}]}',
        response=json.dumps(
            {
                "choices": [{"message": {"content": "Ho"}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 3, "completion_tokens": 1},
            }
        ).encode(),
        logging_error_codes=["X"],
        served_entity="champion",
        served_entity_id="e1",
        entity_version="2",
        requester="app",
        experiment="temp",
        variant="control",
        unit="u1",
        phase=1,
        propensity=0.25,
        is_shadow=True,
        shadow_of="r0",
        time_to_first_token_us=2_345,
        error_type="upstream_reset",
        attempts=2,
        client_disconnected=True,
        trace_id="t",
        session_id="s",
        tags={"team": "a", "tier": "b"},
        endpoint_config_version=4,
        attempt_details=[
            Attempt("champion", "http://a", None, "upstream_connect", 1_250),
            Attempt("champion", "http://b", 200, None, 2_000),
        ],
    )
    assert got.pop("request_time").timestamp() == NOON_US / 1e6
    assert got.pop("request_date").isoformat() == "2026-03-01"
    assert json.loads(got.pop("request"))["model"] == "chat"
    assert json.loads(got.pop("response"))["usage"]["prompt_tokens"] == 3
    assert got == {
        "databricks_request_id": "r1",
        "client_request_id": "c",
        "status_code": 200,
        "sampling_fraction": 0.5,
        "execution_duration_ms": 2,
        "logging_error_codes": ["X"],
        "served_entity_id": "e1",
        "requester": "app",
        "endpoint": "chat",
        "served_entity": "champion",
        "entity_version": "2",
        "api": "chat",
        "model": "chat",
        "experiment": "temp",
        "variant": "control",
        "unit": "u1",
        "phase": 1,
        "propensity": 0.25,
        "is_shadow": True,
        "shadow_of": "r0",
        "is_stream": False,
        "time_to_first_token_ms": 2.345,
        "input_tokens": 3,
        "output_tokens": 1,
        "finish_reason": "stop",
        "prompt_text": "Hi",
        "response_text": "Ho",
        "error_type": "upstream_reset",
        "attempts": 2,
        "client_disconnected": True,
        "trace_id": "t",
        "session_id": "s",
        "tags": [("team", "a"), ("tier", "b")],
        "worker_id": "proxy-0-abc",
        "spool_offset": 7,
        "endpoint_config_version": 4,
        "attempt_details": [
            {
                "served_entity": "champion",
                "url": "http://a",
                "status": None,
                "error_type": "upstream_connect",
                "duration_ms": 1.25,
            },
            {
                "served_entity": "champion",
                "url": "http://b",
                "status": 200,
                "error_type": None,
                "duration_ms": 2.0,
            },
        ],
    }


def test_what_is_not_known_is_null_and_never_zero() -> None:
    got = row()
    for name in (
        "request",
        "response",
        "input_tokens",
        "output_tokens",
        "finish_reason",
        "prompt_text",
        "response_text",
        "time_to_first_token_ms",
        "propensity",
        "phase",
        "experiment",
        "model",
        "endpoint_config_version",
    ):
        assert got[name] is None, name
    assert got["attempt_details"] == []


def test_attempts_stay_with_their_record() -> None:
    made = [[], [Attempt("a", "u1")], [], [Attempt("b", "u2"), Attempt("c", "u3")]]
    table = rows([record(attempt_details=attempts) for attempts in made], "w", [0, 1, 2, 3])
    got = [[attempt["url"] for attempt in attempts] for attempts in table["attempt_details"].to_pylist()]
    assert got == [[], ["u1"], [], ["u2", "u3"]]


def test_a_body_over_the_limit_is_null_and_named() -> None:
    got = row(request=None, logging_error_codes=[REQUEST_TOO_LARGE])
    assert got["request"] is None
    assert got["logging_error_codes"] == ["MAX_REQUEST_SIZE_EXCEEDED"]


def test_the_name_the_proxy_gave_the_model_goes_before_the_clients() -> None:
    assert row(request=b'{"model": "chat", "messages": []}', model="smollm2")["model"] == "smollm2"


def test_a_stream_is_stored_as_the_one_answer() -> None:
    events = [
        {"id": "1", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "H"}}]},
        {
            "id": "1",
            "object": "chat.completion.chunk",
            "choices": [{"index": 0, "delta": {"content": "o"}, "finish_reason": "stop"}],
        },
    ]
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events).encode() + b"data: [DONE]\n\n"
    got = row(is_stream=True, response=body)
    answer = json.loads(got["response"])
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "Ho"}
    assert (got["response_text"], got["finish_reason"], got["output_tokens"]) == ("Ho", "stop", None)


@pytest.mark.parametrize(
    ("body", "stored"),
    [
        (b'{"error": {"message": "busy"}}', '{"error": {"message": "busy"}}'),
        (b"<html>bad gateway</html>", "<html>bad gateway</html>"),
        (b"data: half a thing", "data: half a thing"),
        (b"", ""),
    ],
)
def test_a_stream_that_was_none_is_kept_as_it_came(body: bytes, stored: str) -> None:
    got = row(is_stream=True, response=body)
    assert got["response"] == stored
    assert got["response_text"] is None


def test_bytes_that_are_no_text_are_replaced_and_the_others_kept() -> None:
    broken = record(request=b'{"messages": [{"content": "caf\xe9"}]}', response=b"\xff\xfe\x00")
    table = rows([record(request=b'{"prompt": "fine"}'), broken], "w", [0, 1]).to_pylist()
    assert table[0]["request"] == '{"prompt": "fine"}'
    assert table[1]["request"] == '{"messages": [{"content": "caf\ufffd"}]}'
    assert table[1]["prompt_text"] == "caf\ufffd"
    assert table[1]["response"] == "\ufffd\ufffd\x00"
    assert table[0]["logging_error_codes"] == []
    assert table[1]["logging_error_codes"] == ["REQUEST_NOT_UTF8", "RESPONSE_NOT_UTF8"]
    assert broken.logging_error_codes == []


def test_half_a_surrogate_pair_and_numbers_that_are_none() -> None:
    got = row(
        request=b'{"messages": [{"role": "user", "content": "cut \\ud83d"}]}',
        response=b'{"predictions": [NaN, "ok"]}',
    )
    assert got["prompt_text"] == "cut \ufffd"
    assert "\\ud83d" in got["request"]
    assert got["response_text"] == "ok"


def test_bodies_nested_beyond_reason_are_kept_as_text() -> None:
    body = b'{"instances": ' + b"[" * 900 + b'"x"' + b"]" * 900 + b"}"
    for nested in (body, b"[" * 100_000):
        got = row(request=nested, response=nested)
        assert got["request"] == nested.decode()


def test_a_value_that_fits_no_column_is_an_error_for_its_own_row() -> None:
    with pytest.raises((OverflowError, ValueError)):
        rows([record(status_code=2**40)], "w", [0])


def test_times_before_and_far_after_the_epoch_have_their_day() -> None:
    table = rows([record(request_time_us=-1), record(request_time_us=4_102_444_800_000_000)], "w", [0, 1])
    assert [str(day) for day in table["request_date"].to_pylist()] == ["1969-12-31", "2100-01-01"]


@given(st.binary(max_size=60), st.binary(max_size=60), st.booleans())
def test_any_bytes_become_a_row(request: bytes, response: bytes, is_stream: bool) -> None:
    got = row(request=request, response=response, is_stream=is_stream)
    assert got["request"] == request.decode("utf-8", "replace")
    assert not (is_stream is False and got["response"] != response.decode("utf-8", "replace"))
    assert math.isfinite(got["execution_duration_ms"])


def test_no_records_are_no_rows() -> None:
    assert rows([], "w", []).num_rows == 0
