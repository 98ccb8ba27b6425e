"""The record comes before the last byte of the answer, and a failing spool does what the configuration
says.
"""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from collector.segment_file import Write
from collector.spool import Durability
from serving_proxy.limits import Limits
from tests.backends import Behaviour, OpenAIBackend
from tests.unit.serving_proxy.running_proxy import (
    call,
    chat,
    connect,
    eventually,
    get,
    one_entity,
    post,
    running_proxy,
)


class GatedDisk:
    """A disk that does not answer while the gate is shut; ``waiting`` says that a write is at the gate."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.waiting = threading.Event()

    def write(self, descriptor: int, buffers: list[bytes], offset: int) -> int:
        if not self.gate.is_set():
            self.waiting.set()
            self.gate.wait()
        return os.pwritev(descriptor, buffers, offset)


def refusing_disk(_descriptor: int, _buffers: object, _offset: int) -> int:
    raise OSError(28, "No space left on device")


async def test_a_whole_answer_waits_for_its_record(tmp_path: Path) -> None:
    disk = GatedDisk()
    async with (
        OpenAIBackend() as backend,
        running_proxy(tmp_path, one_entity(backend.url), write=disk.write) as proxy,
        connect(proxy) as client,
    ):
        disk.gate.clear()
        await client.send(post(chat()))
        await eventually(disk.waiting.is_set)
        waiting = asyncio.create_task(client.reader.read(1))
        live = await get(proxy, "/health/live")  # the loop is not blocked
        assert not waiting.done()
        disk.gate.set()
        assert await waiting == b"H"
        record = await proxy.record()
    assert live.status == 200
    assert record.status_code == 200


async def test_a_stream_passes_and_its_done_waits(tmp_path: Path) -> None:
    disk = GatedDisk()
    async with (
        OpenAIBackend(Behaviour(chunks=3, chunk_delay_s=0.02)) as backend,
        running_proxy(tmp_path, one_entity(backend.url), write=disk.write) as proxy,
        connect(proxy) as client,
    ):
        disk.gate.clear()
        await client.send(post(chat(stream=True)))
        await client.head()
        await eventually(disk.waiting.is_set)
        received = b""
        while received.count(b'"content":') < 3:
            received += await client.chunk()
        last = asyncio.create_task(client.chunk())
        await get(proxy, "/health/live")
        assert not last.done()
        assert b"[DONE]" not in received
        disk.gate.set()
        assert (await last).endswith(b"data: [DONE]\n\n")
        assert await client.chunk() == b""


@pytest.mark.parametrize(("policy", "status"), [("pass", 200), ("reject", 503)])
async def test_a_stalled_disk_is_waited_for_within_bounds(tmp_path: Path, policy: str, status: int) -> None:
    disk = GatedDisk()
    limits = Limits(log_timeout_s=0.2)
    async with (
        OpenAIBackend() as backend,
        running_proxy(
            tmp_path, one_entity(backend.url), write=disk.write, limits=limits, on_log_failure=policy
        ) as proxy,
    ):
        disk.gate.clear()
        answer = await call(proxy, chat())
        stream = await call(proxy, chat(stream=True))
        metrics = await get(proxy, "/metrics")
        disk.gate.set()
        await eventually(lambda: len(proxy.records()) == 2)
    assert answer.status == status
    assert stream.status == 200
    assert stream.complete == (policy == "pass")
    assert b'servelens_log_stalls_total{worker="proxy-0"} 2.0' in metrics.body


@pytest.mark.parametrize("write", [refusing_disk, os.pwritev])
async def test_passing_serves_and_counts_what_could_not_be_kept(tmp_path: Path, write: Write) -> None:
    bounds = {} if write is refusing_disk else {"spool_buffer_bytes": 100}
    async with (
        OpenAIBackend() as backend,
        running_proxy(tmp_path, one_entity(backend.url), write=write, **bounds) as proxy,
    ):
        answers = [await call(proxy, chat()) for _ in range(5)]
        health = await get(proxy, "/health/ready")
        metrics = await get(proxy, "/metrics")
        assert proxy.records() == []
    assert [answer.status for answer in answers] == [200] * 5
    assert health.status == 200
    if write is refusing_disk:  # a buffer that is too small for one record is no lasting trouble
        assert health.json()["status"] == "degraded"
        assert health.json()["spool"]["failure"]
    assert health.json()["spool"]["dropped"] == health.json()["spool"]["accepted"] == 5
    assert b'servelens_records_dropped_total{worker="proxy-0"} 5.0' in metrics.body


async def test_rejecting_refuses_before_the_backend_is_asked(tmp_path: Path) -> None:
    async with (
        OpenAIBackend() as backend,
        running_proxy(
            tmp_path, one_entity(backend.url), write=refusing_disk, on_log_failure="reject"
        ) as proxy,
    ):
        answer = await call(proxy, chat())
        health = await get(proxy, "/health/ready")
    assert answer.status == 503
    assert not backend.received
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["error"]["code"] == "spool_full"
    assert (health.status, health.json()["status"]) == (503, "unavailable")
    assert health.json()["spool"]["dropped"] == 1


@pytest.mark.parametrize("durability", list(Durability))
async def test_every_durability_answers_and_records(tmp_path: Path, durability: Durability) -> None:
    async with (
        OpenAIBackend() as backend,
        running_proxy(tmp_path, one_entity(backend.url), durability=durability) as proxy,
    ):
        whole = await call(proxy, chat())
        stream = await call(proxy, chat(stream=True))
        await eventually(lambda: len(proxy.records()) == 2)
    assert (whole.status, stream.complete) == (200, True)
