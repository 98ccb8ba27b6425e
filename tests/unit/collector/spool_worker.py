"""A process that writes a spool until it is killed: prints each request id once it is acknowledged.

``python -m tests.unit.collector.spool_worker DIRECTORY DURABILITY [full]``; with ``full`` it lives under a
file-size limit, as on a full disk, and says what it saw.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import uuid
from pathlib import Path

from collector.record import Record
from collector.spool import Durability, SpoolWriter
from servelens.errors import ServelensError, SpoolFull

_LIMIT_BYTES = 40_000


def some_record(request_id: str, size: int = 600) -> Record:
    return Record(
        request_id=request_id,
        request_time_us=1_767_225_600_000_000,
        status_code=200,
        duration_us=1_234,
        endpoint="chat",
        api="openai",
        request=b"q" * size,
        response=b"a" * size,
    )


async def write_until_killed(writer: SpoolWriter) -> None:
    while True:
        for _ in range(20):
            request_id = str(uuid.uuid4())

            def acknowledge(error: ServelensError | None, request_id: str = request_id) -> None:
                if error is None:
                    os.write(1, f"{request_id}\n".encode())

            writer.append(some_record(request_id), acknowledge)
        await asyncio.sleep(0.001)


async def write_on_a_full_disk(writer: SpoolWriter) -> None:
    outcomes: list[str] = []
    refused = 0

    async def put(count: int) -> None:
        nonlocal refused
        waiting = []
        for number in range(count):
            done: asyncio.Future[ServelensError | None] = asyncio.get_running_loop().create_future()
            try:
                writer.append(some_record(f"r{number}"), done.set_result)
            except SpoolFull:
                refused += 1
            else:
                waiting.append(done)
        for done in waiting:
            outcomes.append("stored" if await done is None else "dropped")

    def limit_file_size(limit: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    limit_file_size(_LIMIT_BYTES)
    await put(100)
    await put(10)
    failed = {"healthy": writer.healthy, "failure": writer.failure, "pending": writer.pending}
    limit_file_size(resource.RLIM_INFINITY)
    for _ in range(2_000):
        if writer.healthy:
            break
        await asyncio.sleep(0.01)
    await put(50)
    await asyncio.to_thread(writer.close, 10.0)
    report = {
        "failed": failed,
        "stored": outcomes.count("stored"),
        "dropped": outcomes.count("dropped"),
        "refused": refused,
        "writer": {"accepted": writer.accepted, "dropped": writer.dropped},
    }
    os.write(1, json.dumps(report).encode())


async def main(directory: str, durability: str, full: bool) -> None:
    writer = SpoolWriter.open(Path(directory), durability=Durability(durability), segment_bytes=300_000)
    writer.bind(asyncio.get_running_loop())
    await (write_on_a_full_disk(writer) if full else write_until_killed(writer))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], "full" in sys.argv[3:]))
