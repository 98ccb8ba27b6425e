from __future__ import annotations

import gzip
import json
import zlib

import pytest

from servelens.errors import Invalid
from serving_proxy.dialects.kserve import (
    KServe,
    json_length,
    json_part,
    model_path,
    operation,
    readable,
    require_plain_json,
    without_tensors,
)
from serving_proxy.dialects.mlflow import MLflow
from serving_proxy.failure import Failure

HEAD = (
    b'{"id":"7","inputs":[{"name":"x","shape":[4],"datatype":"UINT8","parameters":{"binary_data_size":4}}]}'
)
BODY = HEAD + b"\x00\xff\x01\x02"
FIELDS = {b"inference-header-content-length": str(len(HEAD)).encode()}


def test_errors_have_the_shape_that_clients_read() -> None:
    failure = Failure("unknown_endpoint", 404, "There is no endpoint named 'x'.", "model")
    assert json.loads(KServe().error(failure)) == {"error": "model: There is no endpoint named 'x'."}
    assert KServe().error_event(failure)[:6] == b"data: "


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "INVALID_PARAMETER_VALUE"),
        (401, "UNAUTHENTICATED"),
        (403, "PERMISSION_DENIED"),
        (404, "RESOURCE_DOES_NOT_EXIST"),
        (409, "RESOURCE_CONFLICT"),
        (429, "REQUEST_LIMIT_EXCEEDED"),
        (500, "INTERNAL_ERROR"),
        (503, "TEMPORARILY_UNAVAILABLE"),
    ],
)
def test_mlflow_errors_have_the_platforms_codes(status: int, code: str) -> None:
    assert json.loads(MLflow().error(Failure("x", status, "text")))["error_code"] == code


def test_names_are_quoted_in_paths() -> None:
    assert operation("iris") == b"/v2/models/iris/infer"
    assert operation("a/b c", "2") == b"/v2/models/a%2Fb%20c/versions/2/infer"
    assert model_path("ä") == b"/v2/models/%C3%A4"


def test_the_json_part_is_found_by_the_head() -> None:
    assert json_part(BODY, FIELDS) == HEAD
    assert json_part(HEAD, {}) is HEAD
    assert json_part(gzip.compress(BODY), {**FIELDS, b"content-encoding": b"gzip"}) == b"{}"
    assert json_part(HEAD, {b"content-encoding": b"identity"}) == HEAD


@pytest.mark.parametrize("value", [b"-1", b"x", b"", b"1e3", b"105", b"9" * 5000, "\u0661".encode()])
def test_a_length_that_cannot_be_is_refused(value: bytes) -> None:
    with pytest.raises(Invalid) as refused:
        json_length({b"inference-header-content-length": value}, 104)
    assert refused.value.field == "inference-header-content-length"
    assert len(str(refused.value)) < 250


def test_the_record_keeps_what_fits() -> None:
    assert readable(BODY, FIELDS, 1000) == (BODY, None)
    assert readable(BODY, FIELDS, len(BODY) - 1) == (HEAD, "BINARY_TENSORS_OMITTED")
    assert readable(BODY, FIELDS, 1000, tensors=False) == (HEAD, "BINARY_TENSORS_OMITTED")
    assert readable(BODY, FIELDS, len(HEAD) - 1) == (None, "MAX_REQUEST_SIZE_EXCEEDED")
    assert readable(HEAD, {}, 1000, tensors=False) == (HEAD, None)
    assert readable(HEAD, {}, 10) == (None, "MAX_REQUEST_SIZE_EXCEEDED")
    assert readable(BODY, {b"inference-header-content-length": b"no"}, 1000) == (BODY, None)


def test_only_plain_json_can_be_screened() -> None:
    require_plain_json({b"content-type": b"application/json", b"content-encoding": b"identity"})
    for fields in (FIELDS, {b"content-encoding": b"gzip"}):
        with pytest.raises(Invalid, match="binary_data=False") as refused:
            require_plain_json(fields)
        assert refused.value.field in ("inference-header-content-length", "content-encoding")


def test_an_answer_is_cut_where_its_tensors_begin() -> None:
    assert without_tensors(BODY) == (HEAD, "BINARY_TENSORS_OMITTED")
    for whole in (HEAD, b'{"error": "x"}', b'nonsense "binary_data_size"', b""):
        assert without_tensors(whole) == (whole, None)


@pytest.mark.parametrize(("encoding", "compress"), [(b"gzip", gzip.compress), (b"deflate", zlib.compress)])
def test_a_compressed_body_is_kept_without_its_compression(encoding: bytes, compress: object) -> None:
    assert callable(compress)
    fields = {**FIELDS, b"content-encoding": encoding}
    whole = compress(BODY)
    assert readable(whole, fields, 1000) == (BODY, None)
    assert readable(whole, fields, len(BODY) - 1) == (HEAD, "BINARY_TENSORS_OMITTED")
    assert readable(whole[:-20], fields, 1000) == (None, "REQUEST_ENCODING_UNSUPPORTED")
    assert readable(b"nothing of the sort", fields, 1000) == (None, "REQUEST_ENCODING_UNSUPPORTED")


def test_a_body_that_expands_beyond_reason_is_not_expanded() -> None:
    bomb = gzip.compress(HEAD + bytes(50_000_000))
    assert readable(bomb, {**FIELDS, b"content-encoding": b"gzip"}, 1000) == (HEAD, "BINARY_TENSORS_OMITTED")
    assert readable(bomb, {b"content-encoding": b"gzip"}, 1000) == (None, "MAX_REQUEST_SIZE_EXCEEDED")
    assert readable(bomb, {b"content-encoding": b"br"}, 1000) == (None, "REQUEST_ENCODING_UNSUPPORTED")
