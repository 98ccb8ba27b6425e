"""The writing end when the disk is full, fails, stalls, or is used up."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from collector.reader import SpoolReader
from collector.spool import Durability, SpoolWriter
from servelens.errors import ServelensError, SpoolFull, Unavailable
from tests.unit.collector.spool_fixtures import Disk, ids_in, opened, put, until
from tests.unit.collector.spool_worker import some_record

REPOSITORY = Path(__file__).parents[3]


async def test_disk_answers_after_the_sync_that_follows_the_write(tmp_path: Path) -> None:
    disk = Disk()
    writer = opened(
        tmp_path / "proxy-0",
        durability=Durability.DISK,
        segment_bytes=5_000,
        write=disk.write,
        sync=disk.sync,
    )
    disk.events.clear()
    for number in range(12):
        await put(writer, f"r{number}")
        disk.events.append("answer")
    writer.close(10)
    state = "clean"
    for event in disk.events:
        if event == "write":
            state = "dirty"
        elif event == "sync":
            state = "clean"
        else:
            assert state == "clean"
    assert disk.events.count("answer") == 12


async def test_a_segment_is_synced_before_the_next_one_begins(tmp_path: Path) -> None:
    disk = Disk()
    writer = opened(
        tmp_path / "proxy-0",
        durability=Durability.DISK,
        segment_bytes=5_000,
        write=disk.write,
        sync=disk.sync,
    )
    disk.open.clear()
    answers: list[ServelensError | None] = []
    for number in range(2_500):
        writer.append(some_record(f"r{number}"), answers.append)
    disk.open.set()
    await until(lambda: len(answers) == 2_500)
    assert set(answers) == {None}
    assert disk.dirty == set()
    writer.close(10)
    assert len(list((tmp_path / "proxy-0").glob("*.seg"))) >= 2


async def test_many_records_share_one_sync(tmp_path: Path) -> None:
    disk = Disk()
    writer = opened(tmp_path / "proxy-0", durability=Durability.DISK, write=disk.write, sync=disk.sync)
    disk.events.clear()
    disk.open.clear()
    answers: list[ServelensError | None] = []
    for number in range(200):
        writer.append(some_record(f"r{number}"), answers.append)
    disk.open.set()
    await until(lambda: len(answers) == 200)
    writer.close(10)
    assert set(answers) == {None}
    assert disk.events.count("sync") <= 3


async def test_a_failed_sync_is_told_and_the_record_is_kept(tmp_path: Path) -> None:
    disk = Disk()
    writer = opened(tmp_path / "proxy-0", durability=Durability.DISK, write=disk.write, sync=disk.sync)
    disk.sync_error = OSError(5, "Input/output error")
    assert isinstance(await put(writer, "unsure"), Unavailable)
    assert not writer.healthy
    disk.sync_error = None
    await until(lambda: writer.healthy)
    assert await put(writer, "sure") is None
    writer.close(10)
    assert ids_in(tmp_path / "proxy-0") == ["unsure", "sure"]
    assert (writer.accepted, writer.dropped) == (2, 0)


async def test_a_disk_without_space_drops_what_does_not_fit_and_comes_back(tmp_path: Path) -> None:
    disk = Disk()
    writer = opened(tmp_path / "proxy-0", write=disk.write)
    assert await put(writer, "before") is None
    disk.open.clear()
    disk.room = 3_000  # two whole frames and a torn one
    answers: list[ServelensError | None] = []
    for number in range(8):
        writer.append(some_record(f"r{number}"), answers.append)
    disk.open.set()
    await until(lambda: len(answers) == 8)
    stored = answers.count(None)
    assert 1 <= stored <= 2
    assert all(isinstance(answer, SpoolFull) for answer in answers[stored:])
    assert not writer.healthy
    assert "No space left" in (writer.failure or "")
    with pytest.raises(SpoolFull, match="No space left"):
        writer.append(some_record("refused"), None)
    assert len(ids_in(tmp_path / "proxy-0")) == 1 + stored
    disk.room = None
    await until(lambda: writer.healthy)
    assert await put(writer, "after") is None
    writer.close(10)
    kept = ids_in(tmp_path / "proxy-0")
    assert kept == ["before", *(f"r{number}" for number in range(stored)), "after"]
    reader = SpoolReader(tmp_path / "proxy-0")
    assert reader.dropped() == writer.dropped == 8 - stored + 1
    assert reader.accepted() == writer.accepted == len(kept) + writer.dropped
    assert list((tmp_path / "proxy-0").glob("*.torn")) == []


@pytest.mark.parametrize("durability", ["process", "disk"])
def test_a_real_file_size_limit_behaves_like_a_full_disk(tmp_path: Path, durability: str) -> None:
    directory = tmp_path / "proxy-0"
    command = [sys.executable, "-m", "tests.unit.collector.spool_worker", str(directory), durability, "full"]
    report = json.loads(subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True).stdout)
    assert report["failed"]["healthy"] is False
    assert "File too large" in report["failed"]["failure"]
    assert report["failed"]["pending"] == 0
    assert report["dropped"] > 0
    assert report["refused"] > 0
    kept = ids_in(directory)
    assert len(kept) == report["stored"]
    assert kept[-50:] == [f"r{number}" for number in range(50)]
    lost = report["dropped"] + report["refused"]
    assert report["writer"] == {"accepted": 160, "dropped": lost}
    assert len(kept) + lost == 160
    assert (SpoolReader(directory).accepted(), SpoolReader(directory).dropped()) == (160, lost)


async def test_a_stalled_disk_bounds_the_memory_and_says_so(tmp_path: Path) -> None:
    disk = Disk()
    writer = opened(tmp_path / "proxy-0", buffer_bytes=100_000, write=disk.write)
    disk.open.clear()
    answers: list[ServelensError | None] = []
    taken = refused = 0
    for number in range(300):
        try:
            writer.append(some_record(f"r{number}"), answers.append)
            taken += 1
        except SpoolFull:
            refused += 1
    assert 0 < taken < 100
    assert writer.pending == taken
    assert "too slow" in (writer.failure or "")
    with pytest.raises(Unavailable, match="still wait"):
        writer.flush(0.05)
    disk.open.set()
    await until(lambda: len(answers) == taken)
    await until(lambda: writer.healthy)
    assert set(answers) == {None}
    assert await put(writer, "after") is None
    writer.close(10)
    assert len(ids_in(tmp_path / "proxy-0")) == taken + 1
    assert writer.accepted == 301
    assert writer.dropped == refused


async def test_a_disk_that_never_answers_cannot_hold_up_closing(tmp_path: Path) -> None:
    disk = Disk()
    writer = opened(tmp_path / "proxy-0", write=disk.write)
    disk.open.clear()
    writer.append(some_record("a"), None)
    with pytest.raises(Unavailable, match="1 records still wait"):
        writer.close(0.05)
    with pytest.raises(SpoolFull, match="closed"):
        writer.append(some_record("b"), None)
    assert SpoolReader(tmp_path / "proxy-0").writer_alive()
    disk.open.set()
    writer.close(10)
    assert ids_in(tmp_path / "proxy-0") == ["a"]


async def test_the_size_limit_holds_until_a_reader_deletes(tmp_path: Path) -> None:
    writer = opened(tmp_path / "proxy-0", max_bytes=40_000)
    taken = 0
    refusal = ""
    while not refusal:
        try:
            await put(writer, f"r{taken}")
            taken += 1
        except SpoolFull as error:
            refusal = error.message
    assert "limit of 40000 bytes" in refusal
    assert not writer.healthy
    await until(lambda: writer.size_bytes <= 40_000)
    reader = SpoolReader(tmp_path / "proxy-0")
    batch = reader.read(None, max_records=1_000, max_bytes=1 << 20)
    assert len(batch.frames) == taken
    assert reader.delete_through(taken - 1) >= 3
    await until(lambda: writer.healthy)
    assert await put(writer, "after") is None
    writer.close(10)


async def test_a_record_larger_than_the_buffer_is_refused_without_harm(tmp_path: Path) -> None:
    writer = opened(tmp_path / "proxy-0", buffer_bytes=50_000)
    with pytest.raises(SpoolFull, match="more than fit"):
        writer.append(some_record("huge", 100_000), None)
    await until(lambda: writer.healthy)
    assert await put(writer, "small") is None
    writer.close(10)


async def test_one_failing_callback_does_not_keep_the_others_waiting(tmp_path: Path) -> None:
    disk = Disk()
    writer = opened(tmp_path / "proxy-0", write=disk.write)
    reported: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reported.append(context))
    answers: list[ServelensError | None] = []

    def fail(_error: ServelensError | None) -> None:
        raise RuntimeError("a bug in a callback")

    disk.open.clear()
    for callback in (answers.append, fail, answers.append):
        writer.append(some_record("r"), callback)
    disk.open.set()
    await until(lambda: len(answers) == 2)
    assert len(reported) == 1
    writer.close(10)


def test_an_unusable_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="cannot be written") as caught:
        SpoolWriter.open(tmp_path / "file" / "proxy-0")
    assert caught.value.field == "spool.directory"
