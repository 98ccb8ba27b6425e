"""V2 inference through a real worker: bytes pass, whatever they are, and the record can be read."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path
from typing import Any

import pytest

from serving_proxy.authentication import Keys
from serving_proxy.endpoint import Backend, BackendApi, Endpoint, Route, ServedEntity
from serving_proxy.gateway import Gateway, Guardrails
from serving_proxy.routing import Snapshot
from tests.unit.serving_proxy.running_proxy import Answer, RawClient, RunningProxy, connect, running_proxy
from tests.unit.serving_proxy.scripted_server import ScriptedServer, serving

TENSOR = {"name": "x", "shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}
VALUES = struct.pack("<2f", 0.5, -3)
HEAD = json.dumps({"id": "7", "secret": "s3cret", "inputs": [TENSOR]}).encode()
BODY = HEAD + VALUES
ANSWER = json.dumps({"model_name": "m", "secret": "s3cret", "outputs": [TENSOR]}).encode()
BINARY = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
    b"Inference-Header-Content-Length: %d\r\nContent-Length: %d\r\n\r\n%b%b"
    % (len(ANSWER), len(ANSWER) + len(VALUES), ANSWER, VALUES)
)
PREDICTIONS = (
    b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 22\r\n\r\n{"predictions": [0.5]}'
)
LENGTH = {"inference-header-content-length": str(len(HEAD))}


def iris(url: str, api: BackendApi = "kserve", limit: int = 1 << 20, **gateway: Any) -> Snapshot:
    entity = ServedEntity("only", Backend((url,), api=api, model="m/1"))
    endpoint = Endpoint("iris", (entity,), (Route("only", 100),), limit, gateway=Gateway(**gateway))
    return Snapshot.of([endpoint])


async def infer(client: RawClient, body: bytes, path: str = "/v2/models/iris/infer", **fields: str) -> Answer:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    head = f"POST {path} HTTP/1.1\r\nHost: proxy\r\n{lines}Content-Length: {len(body)}\r\n\r\n"
    await client.send(head.encode() + body)
    return await client.answer()


async def one_call(proxy: RunningProxy, body: bytes, **fields: str) -> Answer:
    async with connect(proxy) as client:
        return await infer(client, body, **fields)


def sent_to(server: ScriptedServer) -> tuple[list[bytes], bytes]:
    (request,) = server.received
    head, _, body = request.partition(b"\r\n\r\n")
    return head.split(b"\r\n"), body


async def test_binary_tensors_pass_both_ways(tmp_path: Path) -> None:
    async with serving(BINARY) as (server, replica), running_proxy(tmp_path, iris(replica.url)) as proxy:
        answer = await one_call(proxy, BODY, **LENGTH)
        assert (answer.status, answer.body) == (200, ANSWER + VALUES)
        assert answer.headers["inference-header-content-length"] == str(len(ANSWER))
        assert answer.headers["content-type"] == "application/octet-stream"
        lines, body = sent_to(server)
        assert lines[0] == b"POST /base/v2/models/m%2F1/infer HTTP/1.1"
        assert b"inference-header-content-length: %d" % len(HEAD) in lines
        assert body == BODY
        record = await proxy.record()
        assert (record.request, record.response) == (BODY, ANSWER + VALUES)
        assert (record.api, record.endpoint, record.logging_error_codes) == ("infer", "iris", [])


async def test_compressed_requests_pass_and_are_kept_readable(tmp_path: Path) -> None:
    packed = gzip.compress(BODY)
    async with serving(BINARY) as (server, replica), running_proxy(tmp_path, iris(replica.url)) as proxy:
        answer = await one_call(proxy, packed, content_encoding="gzip", **LENGTH)
        assert answer.status == 200
        lines, body = sent_to(server)
        assert b"content-encoding: gzip" in lines
        assert body == packed
        record = await proxy.record()
        assert record.request == BODY


async def test_a_request_over_the_limit_leaves_its_json_part(tmp_path: Path) -> None:
    async with (
        serving(BINARY) as (_, replica),
        running_proxy(tmp_path, iris(replica.url, limit=len(BODY) - 1)) as proxy,
    ):
        await one_call(proxy, BODY, **LENGTH)
        record = await proxy.record()
        assert record.request == HEAD
        assert "BINARY_TENSORS_OMITTED" in record.logging_error_codes


async def test_redaction_reaches_into_the_json_parts(tmp_path: Path) -> None:
    async with (
        serving(BINARY) as (server, replica),
        running_proxy(tmp_path, iris(replica.url, redact_paths=("$.secret",))) as proxy,
    ):
        answer = await one_call(proxy, BODY, **LENGTH)
        assert answer.body == ANSWER + VALUES
        assert sent_to(server)[1] == BODY
        record = await proxy.record()
        for kept in (record.request, record.response):
            assert kept is not None
            assert b"s3cret" not in kept
            assert b"binary_data_size" in kept
        assert record.logging_error_codes == ["BINARY_TENSORS_OMITTED"]


@pytest.mark.parametrize("fields", [LENGTH, {"content-encoding": "gzip"}])
async def test_guardrails_refuse_what_they_cannot_read(tmp_path: Path, fields: dict[str, str]) -> None:
    screened = Guardrails(invalid_keywords=("forbidden",))
    async with (
        serving(BINARY) as (server, replica),
        running_proxy(tmp_path, iris(replica.url, input_guardrails=screened)) as proxy,
    ):
        answer = await one_call(proxy, BODY, **fields)
        assert answer.status == 400
        assert "binary_data=False" in answer.json()["error"]
        assert not server.received


async def test_plain_json_passes_guardrails(tmp_path: Path) -> None:
    screened = Guardrails(invalid_keywords=("forbidden",))
    async with (
        serving(BINARY) as (_, replica),
        running_proxy(tmp_path, iris(replica.url, input_guardrails=screened)) as proxy,
        connect(proxy) as client,
    ):
        assert (await infer(client, b'{"inputs": []}')).status == 200
        tensor = {"name": "t", "shape": [1], "datatype": "BYTES", "data": ["a forbidden word"]}
        answer = await infer(client, json.dumps({"inputs": [tensor]}).encode())
        assert answer.status == 400
        assert set(answer.json()) == {"error"}


@pytest.mark.parametrize(
    ("body", "fields", "word"),
    [
        (b"nonsense", {}, "not valid JSON"),
        (BODY, {}, "not valid"),
        (BODY, {"inference-header-content-length": "5000"}, "inference-header-content-length"),
        (BODY, {"inference-header-content-length": "4"}, "not valid JSON"),
        (b"[]", {}, "object"),
    ],
)
async def test_what_is_no_call_is_refused_in_the_protocols_words(
    tmp_path: Path, body: bytes, fields: dict[str, str], word: str
) -> None:
    async with serving() as (server, replica), running_proxy(tmp_path, iris(replica.url)) as proxy:
        answer = await one_call(proxy, body, **fields)
        assert answer.status == 400
        assert word in answer.json()["error"]
        assert not server.received
        record = await proxy.record()
        assert (record.api, record.error_type, record.endpoint) == ("infer", "invalid_request", "_unrouted")


async def test_unknown_models_and_methods(tmp_path: Path) -> None:
    async with (
        serving() as (_, replica),
        running_proxy(tmp_path, iris(replica.url)) as proxy,
        connect(proxy) as client,
    ):
        unknown = await infer(client, BODY, "/v2/models/nope/infer", **LENGTH)
        assert unknown.status == 404
        assert "There is no endpoint named 'nope'" in unknown.json()["error"]
        await client.send(b"GET /v2/models/iris/infer HTTP/1.1\r\nHost: proxy\r\n\r\n")
        wrong = await client.answer()
        assert wrong.status == 405
        assert set(wrong.json()) == {"error"}


async def test_whoever_may_not_call_leaves_no_body(tmp_path: Path) -> None:
    async with serving() as (_, replica):
        snapshot = Snapshot.of(iris(replica.url).endpoints.values(), keys=Keys({}, required=True))
        async with running_proxy(tmp_path, snapshot) as proxy:
            answer = await one_call(proxy, BODY, **LENGTH)
            assert answer.status == 401
            assert set(answer.json()) == {"error"}
            record = await proxy.record()
            assert record.request is None


async def test_an_mlflow_backend_is_sent_json_that_says_so(tmp_path: Path) -> None:
    async with (
        serving(PREDICTIONS) as (server, replica),
        running_proxy(tmp_path, iris(replica.url, "mlflow")) as proxy,
    ):
        answer = await one_call(proxy, BODY, **LENGTH)
        assert answer.status == 200, answer.body
        assert answer.json()["outputs"] == [
            {"name": "predictions", "shape": [1], "datatype": "FP64", "data": [0.5]}
        ]
        assert (answer.json()["id"], answer.json()["model_name"]) == ("7", "iris")
        lines, body = sent_to(server)
        assert lines[0] == b"POST /base/invocations HTTP/1.1"
        assert b"content-type: application/json" in lines
        assert not [line for line in lines if line.startswith((b"inference-header", b"content-encoding"))]
        assert json.loads(body) == {"inputs": [0.5, -3.0]}
        record = await proxy.record()
        assert (record.request, record.response) == (BODY, answer.body)
