"""The supervisor over real child processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil

from servelens.supervisor import Program, Supervisor

STEADY = """
import signal, sys, time
def leave(*_):
    print("leaving", flush=True); sys.exit(0)
signal.signal(signal.SIGTERM, leave)
print("up", flush=True)
while True: time.sleep(60)
"""


def python(name: str, code: str, **more: object) -> Program:
    return Program(name, (sys.executable, "-u", "-c", code), **more)  # type: ignore[arg-type]


class Log:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self._changed = asyncio.Event()

    def write(self, line: str) -> None:
        self.lines.append(line)
        self._changed.set()

    async def until(self, condition: Callable[[list[str]], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition(self.lines):
                self._changed.clear()
                await self._changed.wait()

    def count(self, name: str, text: str) -> int:
        return sum(f" {name} " in line and text in line for line in self.lines)


async def test_a_killed_child_is_started_again_and_stops_cleanly() -> None:
    log, stop = Log(), asyncio.Event()
    supervisor = Supervisor([python("one", STEADY)], log.write, backoff_s=0.01)
    run = asyncio.create_task(supervisor.run(stop))
    await log.until(lambda _: log.count("one", "up") == 1)
    pid = supervisor.process_id("one")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await log.until(lambda _: log.count("one", "up") == 2)
    assert log.count("one", "signal SIGKILL") == 1
    stop.set()
    assert await run == 0
    assert log.count("one", "leaving") == 1
    assert supervisor.restarts == {"one": 1}
    assert supervisor.process_id("one") is None


async def test_groups_stop_in_order() -> None:
    log, stop = Log(), asyncio.Event()
    programs = [python("later", STEADY, stop_order=2), python("sooner", STEADY, stop_order=1)]
    run = asyncio.create_task(Supervisor(programs, log.write).run(stop))
    await log.until(lambda lines: sum("up" in line for line in lines) == 2)
    stop.set()
    assert await run == 0
    leaving = [line.split()[1] for line in log.lines if "leaving" in line]
    assert leaving == ["sooner", "later"]


async def test_status_2_stops_everything_with_status_2() -> None:
    log, stop = Log(), asyncio.Event()
    programs = [python("good", STEADY), python("wrong", "import sys; print('no such key'); sys.exit(2)")]
    assert await Supervisor(programs, log.write).run(stop) == 2
    assert log.count("wrong", "no such key") == 1


async def test_a_child_that_ignores_sigterm_is_killed() -> None:
    deaf = (
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('up', flush=True)\n"
        "while True: time.sleep(60)"
    )
    log, stop = Log(), asyncio.Event()
    run = asyncio.create_task(Supervisor([python("deaf", deaf, stop_timeout_s=0.2)], log.write).run(stop))
    await log.until(lambda _: log.count("deaf", "up") == 1)
    stop.set()
    assert await run == 0
    assert log.count("deaf", "killing it") == 1


def test_children_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    child = tmp_path / "child.py"
    child.write_text(
        "import time\nfrom servelens.supervisor import stop_when_orphaned\n"
        "stop_when_orphaned()\nprint('up', flush=True)\nwhile True: time.sleep(60)\n"
    )
    parent = tmp_path / "parent.py"
    parent.write_text(
        "import asyncio, sys\nfrom servelens.supervisor import Program, Supervisor\n"
        f"program = Program('child', (sys.executable, {str(child)!r}))\n"
        "asyncio.run(Supervisor([program], lambda line: print(line, flush=True)).run(asyncio.Event()))\n"
    )
    with subprocess.Popen([sys.executable, str(parent)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "up" in process.stdout.readline()
        (orphan,) = psutil.Process(process.pid).children()
        process.kill()
        process.wait(10)
        psutil.wait_procs([orphan], timeout=10)
        assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE


async def test_a_stop_that_comes_before_the_handler_is_there_waits_for_it() -> None:
    slow_start = (
        "import signal, sys\n"
        "print('starting', flush=True)\n"
        "sum(range(10_000_000))\n"  # busy, without a handler
        "from servelens.supervisor import unblock_sigterm\n"
        "def leave(*_):\n    print('drained', flush=True); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, leave)\n"
        "unblock_sigterm()\n"
        "signal.pause()\n"
    )
    log, stop = Log(), asyncio.Event()
    program = python("slow", slow_start, unblocks_sigterm=True)
    run = asyncio.create_task(Supervisor([program], log.write).run(stop))
    await log.until(lambda _: log.count("slow", "starting") == 1)
    stop.set()
    assert await run == 0
    assert log.count("slow", "drained") == 1


async def test_the_supervisor_itself_can_be_stopped_after_starting_several() -> None:
    log, stop = Log(), asyncio.Event()
    code = f"from servelens.supervisor import unblock_sigterm\nunblock_sigterm()\n{STEADY}"
    programs = [python(f"child-{number}", code, unblocks_sigterm=True) for number in range(5)]
    run = asyncio.create_task(Supervisor(programs, log.write).run(stop))
    await log.until(lambda lines: sum("up" in line for line in lines) == 5)
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    stop.set()
    assert await run == 0
