"""The collector is killed with SIGKILL again and again while records are being spooled; each record arrives once."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import polars as pl
import pytest

from collector.dead_letter import DeadLetter
from collector.record import Record
from collector.spool import SpoolWriter
from tests.unit.collector.collector_process import catalog

KILLS = 12
SLOTS = 2
NOON_US = 1_772_366_400_000_000


def spool(folder: Path, slot: int, stop: threading.Event, spooled: dict[int, int]) -> None:
    """Spool some 400 records a second until told to stop."""
    writer = SpoolWriter.open(folder / "spool" / f"proxy-{slot}", segment_bytes=64_000)
    number = 0
    while not stop.wait(0.05):
        for _ in range(20):
            writer.append(
                Record(
                    request_id=f"{slot}-{number}",
                    request_time_us=NOON_US + number,
                    status_code=200,
                    duration_us=1_000,
                    endpoint="code" if number % 5 == 0 else "chat",
                    api="chat",
                    request=b'{"messages": [{"role": "user", "content": "Hi"}]}',
                ),
                None,
            )
            number += 1
    writer.flush(30)
    writer.close(30)
    spooled[slot] = number


def standby(folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.unit.collector.collector_process", str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE)


def begin(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.write(b"go\n")
    process.stdin.close()


@pytest.mark.timeout(240)
def test_each_record_arrives_once_though_the_collector_is_killed_at_random(tmp_path: Path) -> None:
    chance = random.Random()
    stop = threading.Event()
    spooled: dict[int, int] = {}
    writers = [threading.Thread(target=spool, args=(tmp_path, slot, stop, spooled)) for slot in range(SLOTS)]
    payload = catalog(tmp_path).tables("chat").payload
    processes = [standby(tmp_path)]
    try:
        for writer in writers:
            writer.start()
        for _ in range(KILLS):
            processes.append(standby(tmp_path))
            process = processes[-2]
            before = payload.version()
            begin(process)
            while payload.version() == before:
                assert process.poll() is None
                time.sleep(0.005)
            time.sleep(chance.uniform(0.0, 0.2))
            process.kill()
            assert process.wait(30) == -signal.SIGKILL
        stop.set()
        for writer in writers:
            writer.join(60)
        before = payload.version()
        begin(processes[-1])
        while payload.version() == before:
            assert processes[-1].poll() is None
            time.sleep(0.005)
        processes[-1].terminate()
        assert processes[-1].wait(150) == 0
    finally:
        stop.set()
        for process in processes:
            process.kill()
            process.wait(30)
            if process.stdin is not None:
                process.stdin.close()

    tables = [catalog(tmp_path).tables(name).payload.scan() for name in ("chat", "code")]
    rows = pl.concat([table.select("databricks_request_id", "worker_id", "spool_offset") for table in tables])
    got = rows.collect()
    assert got.height == got["databricks_request_id"].n_unique() == sum(spooled.values())
    assert set(got["databricks_request_id"]) == {
        f"{slot}-{number}" for slot in range(SLOTS) for number in range(spooled[slot])
    }
    for (worker_id,), offsets in got.group_by("worker_id"):
        slot = int(str(worker_id).split("-")[1])
        assert offsets["spool_offset"].sort().to_list() == list(range(spooled[slot]))
    assert not list(DeadLetter(tmp_path / "dead").entries())
    assert len(list((tmp_path / "spool").glob("*/*.seg"))) <= 2 * SLOTS, "what is in the tables was deleted"
