"""What the tests of both ends of the spool share: a bound writer, a disk that can fail, what lies in a spool."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from collector.reader import SpoolReader
from collector.record import decode
from collector.spool import SpoolWriter
from servelens.errors import ServelensError
from tests.unit.collector.spool_worker import some_record


async def until(condition: Callable[[], bool]) -> None:
    """Wait up to 20 seconds for what another thread brings about."""
    for _ in range(4_000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("the condition did not come true within 20 seconds")


def opened(directory: Path, **options: Any) -> SpoolWriter:
    """A writer bound to the running loop."""
    writer = SpoolWriter.open(directory, **options)
    writer.bind(asyncio.get_running_loop())
    return writer


async def put(writer: SpoolWriter, request_id: str) -> ServelensError | None:
    """Append a record of 1.3 kB and wait for its callback."""
    done: asyncio.Future[ServelensError | None] = asyncio.get_running_loop().create_future()
    writer.append(some_record(request_id), done.set_result)
    return await done


def ids_in(directory: Path) -> list[str]:
    batch = SpoolReader(directory).read(None, max_records=1_000_000, max_bytes=1 << 30)
    assert batch.corrupt == []
    assert [frame.offset for frame in batch.frames] == list(range(len(batch.frames)))
    return [decode(frame.payload).request_id for frame in batch.frames]


class Disk:
    """The operating system's write and sync, which can be held, refused and watched."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.dirty: set[int] = set()
        self.open = threading.Event()
        self.open.set()
        self.room: int | None = None
        self.sync_error: OSError | None = None

    def write(self, descriptor: int, buffers: Sequence[bytes], position: int) -> int:
        self.open.wait()
        size = sum(map(len, buffers))
        if self.room is not None and size > self.room:
            taken, self.room = self.room, 0
            if not taken:
                raise OSError(28, "No space left on device")
            return os.pwrite(descriptor, b"".join(buffers)[:taken], position)
        if self.room is not None:
            self.room -= size
        if position > 0:  # behind the header
            self.events.append("write")
            self.dirty.add(os.fstat(descriptor).st_ino)
        return os.pwritev(descriptor, buffers, position)

    def sync(self, descriptor: int) -> None:
        if self.sync_error is not None:
            raise self.sync_error
        os.fdatasync(descriptor)
        self.events.append("sync")
        self.dirty.discard(os.fstat(descriptor).st_ino)
