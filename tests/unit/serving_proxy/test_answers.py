"""Healthy calls: what passes through, what is added, what is recorded."""

from __future__ import annotations

import asyncio
import gzip
import json
from pathlib import Path

import pytest

from servelens.identifiers import time_us
from tests.backends import Behaviour, OpenAIBackend
from tests.unit.serving_proxy.running_proxy import CHAT, call, chat, connect, one_entity, post, running_proxy


async def test_a_call_passes_unchanged_and_is_recorded(tmp_path: Path) -> None:
    async with OpenAIBackend() as backend, running_proxy(tmp_path, one_entity(backend.url)) as proxy:
        body = b'{"model": "chat", "messages": [{"role":"user","content":"h\\u00e9"}], "big": 12345678901234567890123}'
        answer = await call(
            proxy,
            body,
            authorization="Bearer secret",
            cookie="a=b",
            x_client_request_id="mine",
            x_session_id="s-1",
            traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            x_servelens_tags="team=search,release=4%202,beta",
            accept_encoding="gzip",
            connection="keep-alive, x-private",
            x_private="hop",
            x_public="end-to-end",
        )
        record = await proxy.record()
    (received,) = backend.received
    assert received.path == CHAT
    assert received.body == body
    assert received.headers["x-public"] == "end-to-end"
    assert received.headers["accept-encoding"] == "identity"
    assert received.headers["traceparent"].startswith("00-4bf92f")
    assert (
        not {"authorization", "cookie", "x-private", "connection", "x-servelens-tags"}
        & received.headers.keys()
    )
    assert answer.status == 200
    assert answer.json()["choices"][0]["message"]["content"] == "echo: hé"
    assert answer.headers["x-request-id"] == answer.headers["databricks-request-id"] == record.request_id
    assert answer.headers["x-servelens-served-entity"] == "only"
    assert record.request == body
    assert record.response == answer.body
    assert (record.status_code, record.error_type, record.endpoint, record.api) == (200, None, "chat", "chat")
    assert (record.served_entity, record.served_entity_id, record.entity_version) == ("only", "e-7", "7")
    assert (record.client_request_id, record.session_id, record.unit) == ("mine", "s-1", "s-1")
    assert record.trace_id == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert record.tags == {"team": "search", "release": "4 2", "beta": ""}
    assert (record.propensity, record.attempts, record.is_stream) == (1.0, 1, False)
    assert abs(time_us(record.request_id) - record.request_time_us) < 1_000_000
    assert record.duration_us > 0


async def test_a_stream_passes_chunk_by_chunk(tmp_path: Path) -> None:
    behaviour = Behaviour(chunks=4, chunk_delay_s=0.05)
    async with OpenAIBackend(behaviour) as backend, running_proxy(tmp_path, one_entity(backend.url)) as proxy:
        async with connect(proxy) as client:
            await client.send(post(chat(stream=True)))
            status, headers = await client.head()
            first = await client.chunk()
            sent_with_the_first = backend.bytes_sent
            rest = [first]
            while piece := await client.chunk():
                rest.append(piece)
        record = await proxy.record()
    assert status == 200
    assert headers["content-type"].startswith("text/event-stream")
    assert sent_with_the_first < backend.bytes_sent
    assert len(rest) >= 4
    body = b"".join(rest)
    assert body.endswith(b"data: [DONE]\n\n")
    assert record.response == body
    assert record.is_stream
    assert record.time_to_first_token_us is not None
    assert record.time_to_first_token_us < record.duration_us


async def test_done_is_recognised_across_chunks_and_the_rest_still_passes(tmp_path: Path) -> None:
    pieces = [b"data: {}\n\nda", b"ta: [DO", b"NE]\n", b"\n: bye\n\n"]
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head)
        for piece in pieces:
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
            await asyncio.sleep(0.02)
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, running_proxy(tmp_path, one_entity(url)) as proxy:
        answer = await call(proxy, chat(stream=True))
        record = await proxy.record()
    assert answer.complete
    assert answer.body == b"".join(pieces)
    assert record.response == b"".join(pieces[:3])
    assert record.error_type is None


async def test_a_stream_that_talks_about_done_goes_on(tmp_path: Path) -> None:
    behaviour = Behaviour(content="the mark is data: [DONE] and then more words", chunks=3)
    async with OpenAIBackend(behaviour) as backend, running_proxy(tmp_path, one_entity(backend.url)) as proxy:
        answer = await call(proxy, chat(stream=True))
        record = await proxy.record()
    assert answer.complete
    assert record.response == answer.body
    assert answer.body.count(b"\n\n") == 5


async def test_a_backend_that_lingers_after_done_does_not_hold_the_client(tmp_path: Path) -> None:
    behaviour = Behaviour(linger_after_done_s=60)
    async with (
        OpenAIBackend(behaviour) as backend,
        running_proxy(tmp_path, one_entity(backend.url)) as proxy,
        connect(proxy) as client,
    ):
        await client.send(post(chat(stream=True)))
        answer = await client.answer()
        backend.behaviour = Behaviour()
        await client.send(post(chat()))
        again = await client.answer()
    assert answer.complete
    assert again.status == 200


@pytest.mark.parametrize(
    "behaviour", [Behaviour(chunked=True), Behaviour(close_delimited=True), Behaviour(content="x" * 300_000)]
)
async def test_every_framing_of_a_whole_answer(tmp_path: Path, behaviour: Behaviour) -> None:
    async with OpenAIBackend(behaviour) as backend, running_proxy(tmp_path, one_entity(backend.url)) as proxy:
        answer = await call(proxy, chat())
        record = await proxy.record()
    assert answer.complete
    assert answer.json()["choices"][0]["message"]["content"]
    assert record.response == answer.body


async def test_a_large_chunked_answer(tmp_path: Path) -> None:
    behaviour = Behaviour(content="x" * 900_000, chunked=True)
    async with OpenAIBackend(behaviour) as backend, running_proxy(tmp_path, one_entity(backend.url)) as proxy:
        answer = await call(proxy, chat())
    assert answer.headers["transfer-encoding"] == "chunked"
    assert answer.complete
    assert len(answer.json()["choices"][0]["message"]["content"]) == 900_000


async def test_http_1_0_clients_get_the_end_of_the_connection(tmp_path: Path) -> None:
    async with (
        OpenAIBackend() as backend,
        running_proxy(tmp_path, one_entity(backend.url)) as proxy,
        connect(proxy) as client,
    ):
        await client.send(post(chat(stream=True)).replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        answer = await client.answer()
    assert "transfer-encoding" not in answer.headers
    assert answer.body.endswith(b"data: [DONE]\n\n")


async def test_completions_and_the_databricks_base_url(tmp_path: Path) -> None:
    async with OpenAIBackend() as backend, running_proxy(tmp_path, one_entity(backend.url)) as proxy:
        text = await call(proxy, {"model": "chat", "prompt": "hi"}, "/v1/completions")
        aliased = await call(proxy, chat(), "/serving-endpoints/chat/completions?x=1")
        invoked = await call(proxy, {"messages": chat()["messages"]}, "/serving-endpoints/chat/invocations")
        prompted = await call(proxy, {"prompt": "hi"}, "/serving-endpoints/chat/invocations")
        records = proxy.records()
    assert text.json()["choices"][0]["text"] == "echo: hi"
    assert aliased.json()["choices"][0]["message"]["content"] == "echo: hello world"
    assert invoked.json()["choices"][0]["message"]["content"] == "echo: hello world"
    assert prompted.json()["choices"][0]["text"] == "echo: hi"
    assert [received.path for received in backend.received] == [
        "/v1/completions",
        CHAT,
        CHAT,
        "/v1/completions",
    ]
    assert [record.api for record in records] == ["completions", "chat", "invocations", "invocations"]


async def test_scoring_bodies_reach_an_mlflow_backend_unchanged(tmp_path: Path) -> None:
    body = {"dataframe_split": {"columns": ["a"], "data": [[1], [2]]}}
    async with OpenAIBackend() as backend:
        snapshot = one_entity(backend.url, api="mlflow")
        async with running_proxy(tmp_path, snapshot) as proxy:
            answer = await call(proxy, body, "/serving-endpoints/chat/invocations")
    assert answer.json() == {"predictions": [1.0, 1.0]}
    assert backend.received[0].path == "/invocations"
    assert backend.received[0].json() == body


async def test_scoring_bodies_are_refused_for_a_language_model(tmp_path: Path) -> None:
    async with OpenAIBackend() as backend, running_proxy(tmp_path, one_entity(backend.url)) as proxy:
        answer = await call(proxy, {"inputs": [1]}, "/serving-endpoints/chat/invocations")
    assert answer.status == 400
    assert answer.json()["error_code"] == "INVALID_PARAMETER_VALUE"
    assert "messages" in answer.json()["message"]
    assert not backend.received


async def test_a_status_of_the_backend_is_an_answer(tmp_path: Path) -> None:
    behaviour = Behaviour(status=429, headers=(("retry-after", "7"),))
    async with OpenAIBackend(behaviour) as backend, running_proxy(tmp_path, one_entity(backend.url)) as proxy:
        answer = await call(proxy, chat(stream=True))
        record = await proxy.record()
    assert answer.status == 429
    assert answer.headers["retry-after"] == "7"
    assert answer.json()["error"]["message"] == "scripted failure"
    assert (record.status_code, record.error_type, record.response) == (429, "upstream_status", answer.body)


async def test_the_kept_copy_is_bounded_and_the_answer_is_not(tmp_path: Path) -> None:
    behaviour = Behaviour(content="y" * 5000)
    async with (
        OpenAIBackend(behaviour) as backend,
        running_proxy(tmp_path, one_entity(backend.url, payload_limit_bytes=1000)) as proxy,
    ):
        whole = await call(proxy, chat("z" * 2000))
        stream = await call(proxy, chat(stream=True))
        records = proxy.records()
    assert len(whole.body) > 5000
    assert stream.body.endswith(b"[DONE]\n\n")
    assert records[0].request is records[0].response is None
    assert records[0].logging_error_codes == ["MAX_REQUEST_SIZE_EXCEEDED", "MAX_RESPONSE_SIZE_EXCEEDED"]
    assert records[1].request is not None
    assert records[1].logging_error_codes == ["MAX_RESPONSE_SIZE_EXCEEDED"]


async def test_an_answer_compressed_unasked_is_kept_readable(tmp_path: Path) -> None:
    plain = json.dumps({"choices": []}).encode()
    behaviour = Behaviour(body=gzip.compress(plain), headers=(("content-encoding", "gzip"),))
    async with OpenAIBackend(behaviour) as backend, running_proxy(tmp_path, one_entity(backend.url)) as proxy:
        answer = await call(proxy, chat())
        record = await proxy.record()
    assert answer.headers["content-encoding"] == "gzip"
    assert gzip.decompress(answer.body) == plain
    assert record.response == plain


async def test_backend_connections_are_reused(tmp_path: Path) -> None:
    async with (
        OpenAIBackend() as backend,
        running_proxy(tmp_path, one_entity(backend.url)) as proxy,
        connect(proxy) as client,
    ):
        for _ in range(5):
            await client.send(post(chat()))
            assert (await client.answer()).status == 200
        await client.send(post(chat(stream=True)))
        assert (await client.answer()).complete
        await client.send(post(chat()))
        assert (await client.answer()).status == 200
    assert backend.connections == 1
