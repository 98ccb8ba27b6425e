"""How each dialect words our own failures: in the shape and with the type that its client libraries look for."""

from __future__ import annotations

import json
from typing import Any

import pytest
from anthropic.types.shared.error_object import ErrorObject
from openai.types.responses import ResponseErrorEvent
from pydantic import TypeAdapter

from serving_proxy.dialects.anthropic import Anthropic
from serving_proxy.dialects.openai import OpenAI, OpenAIResponses
from serving_proxy.failure import Failure

TYPES = [
    (400, "invalid_request_error"),
    (401, "authentication_error"),
    (402, "billing_error"),
    (403, "permission_error"),
    (404, "not_found_error"),
    (405, "invalid_request_error"),
    (408, "invalid_request_error"),
    (429, "rate_limit_error"),
    (500, "api_error"),
    (502, "api_error"),
    (503, "overloaded_error"),
    (504, "timeout_error"),
    (529, "overloaded_error"),
]


@pytest.mark.parametrize(("status", "kind"), TYPES)
def test_anthropics_types(status: int, kind: str) -> None:
    body = json.loads(Anthropic().error(Failure("x", status, "what happened")))
    assert body == {"type": "error", "error": {"type": kind, "message": "what happened"}}
    known: TypeAdapter[Any] = TypeAdapter(ErrorObject)
    known.validate_python(body["error"], strict=True)


def test_anthropics_type_of_a_body_that_is_too_large() -> None:
    assert (
        json.loads(Anthropic().error(Failure("body_too_large", 413, "x")))["error"]["type"]
        == "request_too_large"
    )


def test_anthropics_errors_name_the_field() -> None:
    body = json.loads(Anthropic().error(Failure("invalid_request", 400, "It is wrong.", "messages[0]")))
    assert body["error"]["message"] == "messages[0]: It is wrong."


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (Failure("unauthenticated", 401, "m"), ("invalid_request_error", "invalid_api_key")),
        (Failure("rate_limited", 429, "m"), ("rate_limit_error", "rate_limit_exceeded")),
        (Failure("unknown_endpoint", 404, "m", "model"), ("invalid_request_error", "model_not_found")),
        (Failure("upstream_timeout", 504, "m"), ("server_error", "upstream_timeout")),
    ],
)
def test_openais_types_and_codes(failure: Failure, expected: tuple[str, str]) -> None:
    body = json.loads(OpenAI().error(failure))
    assert body == {
        "error": {"message": "m", "type": expected[0], "param": failure.field, "code": expected[1]}
    }


def test_errors_inside_streams() -> None:
    failure = Failure("upstream_reset", 502, "gone")
    assert OpenAI().error_event(failure) == b"data: %b\n\n" % OpenAI().error(failure)
    assert Anthropic().error_event(failure) == b"event: error\ndata: %b\n\n" % Anthropic().error(failure)
    name, data = OpenAIResponses().error_event(failure).rstrip().split(b"\ndata: ")
    assert name == b"event: error"
    event = ResponseErrorEvent.model_validate_json(data, strict=True)
    assert (event.message, event.code) == ("gone", "upstream_reset")
