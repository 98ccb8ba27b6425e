"""Workers as processes: they share a port, stop in order, and lose nothing when they are killed."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import openai
import pytest

from servelens.errors import Conflict, Unavailable
from serving_proxy.app import ProxyConfig, listen, serve
from tests.backends import Behaviour, OpenAIBackend
from tests.unit.serving_proxy.running_proxy import (
    RunningProxy,
    call,
    chat,
    connect,
    eventually,
    get,
    one_entity,
    post,
    records_in,
    running_proxy,
)


@asynccontextmanager
async def worker_process(
    root: Path, backend: str, port: int, slot: str = "proxy-0"
) -> AsyncIterator[tuple[asyncio.subprocess.Process, RunningProxy]]:
    """A worker that listens; killed at the end if it is still there."""
    program = "tests.unit.serving_proxy.proxy_process"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-m", program, str(port), slot, str(root), backend),
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        line = b""
        while b"Started server process" not in line:
            line = await asyncio.wait_for(process.stderr.readline(), 30)
            assert line, "the worker ended before it listened"
        proxy = RunningProxy(port, root / slot, asyncio.Event())
        for _ in range(500):
            with contextlib.suppress(ConnectionError):
                if (await get(proxy, "/health/live")).status == 200:
                    break
        yield process, proxy
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.fixture
def port() -> AsyncIterator[int]:
    """A port that stays reserved: bound, but not listening, so that workers can share it."""
    with listen("127.0.0.1", 0) as reserved:
        yield reserved.getsockname()[1]


async def test_sigterm_finishes_what_has_begun(tmp_path: Path, port: int) -> None:
    behaviour = Behaviour(chunks=10, chunk_delay_s=0.1)
    async with (
        OpenAIBackend(behaviour) as backend,
        worker_process(tmp_path, backend.url, port) as (worker, proxy),
    ):
        async with connect(proxy) as client, connect(proxy) as idle:
            await client.send(post(chat(stream=True)))
            await client.chunk_after_head()
            worker.send_signal(signal.SIGTERM)
            assert await idle.closed()
            rest = b""
            while piece := await client.chunk():
                rest += piece
            assert await client.closed()
        with pytest.raises(ConnectionError):
            await call(proxy, chat())
        assert await asyncio.wait_for(worker.wait(), 10) == 0
    assert rest.endswith(b"[DONE]\n\n")
    (record,) = proxy.records()
    assert record.error_type is None


async def test_sigterm_does_not_wait_for_ever(tmp_path: Path, port: int) -> None:
    behaviour = Behaviour(chunks=100_000, chunk_delay_s=0.1)
    async with (
        OpenAIBackend(behaviour) as backend,
        worker_process(tmp_path, backend.url, port) as (worker, proxy),
        connect(proxy) as client,
    ):
        await client.send(post(chat(stream=True)))
        await client.chunk_after_head()
        worker.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(worker.wait(), 20) == 0
        rest = await client.reader.read()
    assert b"shutting down" in rest
    (record,) = proxy.records()
    assert (record.error_type, record.status_code) == ("internal", 200)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_worker_killed_right_after_the_answer_has_recorded_it(
    tmp_path: Path, port: int, stream: bool
) -> None:
    async with OpenAIBackend() as backend:
        answered = []
        for _ in range(3):
            async with (
                worker_process(tmp_path, backend.url, port) as (worker, proxy),
                connect(proxy) as client,
            ):
                for _ in range(5):
                    await client.send(post(chat(stream=stream)))
                    answer = await client.answer()
                    answered.append(answer.headers["x-request-id"])
                worker.kill()
                await worker.wait()
    assert [record.request_id for record in records_in(tmp_path / "proxy-0")] == answered


async def test_workers_share_a_port_and_each_tells_of_all(tmp_path: Path, port: int) -> None:
    async with (
        OpenAIBackend() as backend,
        worker_process(tmp_path, backend.url, port, "proxy-0") as (_, proxy),
        worker_process(tmp_path, backend.url, port, "proxy-1"),
    ):
        for _ in range(40):
            assert (await call(proxy, chat())).status == 200

        def counted() -> list[int]:
            return [len(records_in(tmp_path / slot)) for slot in ("proxy-0", "proxy-1")]

        assert sum(counted()) == 40
        assert min(counted()) > 0
        wanted = [
            f'servelens_records_accepted_total{{worker="proxy-{n}"}} {c}.0' for n, c in enumerate(counted())
        ]
        for _ in range(300):
            text = (await get(proxy, "/metrics")).body.decode()
            if all(line in text for line in wanted):
                break
            await asyncio.sleep(0.02)
        assert all(line in text for line in wanted)


async def test_one_spool_has_one_worker(tmp_path: Path) -> None:
    async with running_proxy(tmp_path, one_entity("http://127.0.0.1:9")):
        config = ProxyConfig(spool_root=tmp_path, port=0)
        with pytest.raises(Conflict):
            await asyncio.to_thread(serve, config, lambda: one_entity("http://127.0.0.1:9"))


def test_a_taken_port_is_named() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        number = other.getsockname()[1]
        with pytest.raises(Unavailable, match=f"127.0.0.1:{number}"):
            listen("127.0.0.1", number)


async def test_openai_s_own_client_chats_and_streams(tmp_path: Path) -> None:
    async with OpenAIBackend() as backend, running_proxy(tmp_path, one_entity(backend.url)) as proxy:
        for base in (f"{proxy.url}/v1", f"{proxy.url}/serving-endpoints"):
            async with openai.AsyncOpenAI(base_url=base, api_key="sk-client", max_retries=0) as client:
                chatted = await client.chat.completions.create(
                    model="chat", messages=[{"role": "user", "content": "hello"}], user="u1"
                )
                assert chatted.choices[0].message.content == "echo: hello"
                assert chatted._request_id
                stream = await client.chat.completions.create(
                    model="chat", messages=[{"role": "user", "content": "hello"}], stream=True
                )
                text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
                assert text == "echo: hello"
                assert [model.id async for model in client.models.list()] == ["chat"]
                with pytest.raises(openai.NotFoundError, match="'chat'"):
                    await client.chat.completions.create(model="nope", messages=[])
        await eventually(lambda: len(proxy.records()) == 6)
        assert proxy.records()[0].unit == "u1"


async def test_openai_s_own_client_notices_a_stream_that_breaks_off(tmp_path: Path) -> None:
    behaviour = Behaviour(reset_after_chunks=2, chunk_delay_s=0.02)
    async with (
        OpenAIBackend(behaviour) as backend,
        running_proxy(tmp_path, one_entity(backend.url)) as proxy,
        openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="k", max_retries=0) as client,
    ):
        stream = await client.chat.completions.create(
            model="chat", messages=[{"role": "user", "content": "hello"}], stream=True
        )
        with pytest.raises(openai.APIError, match="closed the connection"):
            _ = [chunk async for chunk in stream]
