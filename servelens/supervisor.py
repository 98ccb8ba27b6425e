"""Runs the processes of one machine: starts them, restarts what crashes, merges their logs, stops them in order.

Every child's standard input is a pipe that only the supervisor holds open; a child started with ``--supervised`` stops
when it closes (:func:`stop_when_orphaned`), so that a supervisor killed with SIGKILL leaves nobody behind on a port or a lock.
Exit status 2 of a child means that its input is wrong: restarting would not help, so everything stops with it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from servelens.clock import Clock, SystemClock

_LINE_LIMIT = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Program:
    """One child: its name in the log, its command line, and when it is stopped.

    Programs with a lower ``stop_order`` are stopped first, and have ended before the next group is asked to.
    After ``stop_timeout_s`` seconds a child that has not ended is killed. A program that ``unblocks_sigterm`` is
    started with SIGTERM blocked, so that a stop that comes while it still starts waits until it can be handled.
    """

    name: str
    command: tuple[str, ...]
    stop_order: int = 0
    stop_timeout_s: float = 30.0
    unblocks_sigterm: bool = False


class Supervisor:
    """Keeps ``programs`` running until it is told to stop.

    ``write`` receives finished log lines. A crashed program is started again after ``backoff_s`` seconds, doubling up to
    ``backoff_limit_s``; a run of ``steady_s`` seconds resets the doubling.
    """

    def __init__(
        self,
        programs: Sequence[Program],
        write: Callable[[str], None],
        *,
        clock: Clock | None = None,
        backoff_s: float = 0.25,
        backoff_limit_s: float = 15.0,
        steady_s: float = 5.0,
    ) -> None:
        self._programs = list(programs)
        self._write = write
        self._clock = clock or SystemClock()
        self._backoff_s = backoff_s
        self._backoff_limit_s = backoff_limit_s
        self._steady_s = steady_s
        self._width = max(len(program.name) for program in programs)
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._stopping: set[str] = set()
        self._failure: int | None = None
        self.restarts: dict[str, int] = {program.name: 0 for program in programs}

    def process_id(self, name: str) -> int | None:
        """Process id of the named program's current child, if it is running."""
        process = self._running.get(name)
        return process.pid if process else None

    async def run(self, stop: asyncio.Event) -> int:
        """Run until ``stop`` is set or a program refuses its input; returns the exit status (0, or 2)."""
        keepers = {
            program.name: asyncio.create_task(self._keep(program, stop), name=program.name)
            for program in self._programs
        }
        await stop.wait()
        for _order, group in groupby(
            sorted(self._programs, key=lambda p: p.stop_order), lambda p: p.stop_order
        ):
            await asyncio.gather(*(self._end(program, keepers[program.name]) for program in group))
        return self._failure or 0

    async def _keep(self, program: Program, stop: asyncio.Event) -> None:
        delay = self._backoff_s
        while program.name not in self._stopping:
            started = self._clock.monotonic()
            status = await self._run_once(program)
            if program.name in self._stopping:
                return
            if status == 2:
                self._log(program.name, "refused its input; stopping everything")
                self._failure = 2
                stop.set()
                return
            if self._clock.monotonic() - started >= self._steady_s:
                delay = self._backoff_s
            how = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
            self._log(program.name, f"ended with {how}; starting it again in {delay:g} s")
            self.restarts[program.name] += 1
            await asyncio.sleep(delay)
            delay = min(delay * 2, self._backoff_limit_s)

    async def _run_once(self, program: Program) -> int:
        # A child inherits the mask of the thread that starts it, which happens before the first await in here.
        if program.unblocks_sigterm:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            process = await asyncio.create_subprocess_exec(
                *program.command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                limit=_LINE_LIMIT,
            )
        finally:
            unblock_sigterm()
        self._running[program.name] = process
        try:
            if process.stdout is not None:
                await self._copy_log(program.name, process.stdout)
            return await process.wait()
        finally:
            self._running.pop(program.name, None)
            if process.stdin is not None:
                process.stdin.close()

    async def _copy_log(self, name: str, stream: asyncio.StreamReader) -> None:
        while True:
            try:
                line = await stream.readline()
            except ValueError:  # a line over the limit: the reader has dropped it
                self._log(name, f"(a log line over {_LINE_LIMIT} bytes was left out)")
                continue
            if not line:
                return
            self._log(name, line.decode("utf-8", "replace").rstrip())

    async def _end(self, program: Program, keeper: asyncio.Task[None]) -> None:
        self._stopping.add(program.name)
        process = self._running.get(program.name)
        if process is None:
            keeper.cancel()
        else:
            process.send_signal(signal.SIGTERM)
        done, _ = await asyncio.wait([keeper], timeout=program.stop_timeout_s)
        if not done and process is not None:
            self._log(program.name, f"did not stop within {program.stop_timeout_s:g} s; killing it")
            process.kill()
            await asyncio.wait([keeper])

    def _log(self, name: str, line: str) -> None:
        moment = self._clock.now().astimezone().strftime("%H:%M:%S")
        self._write(f"{moment} {name:<{self._width}} | {line}")


def unblock_sigterm() -> None:
    """From now on a stop can be handled, also one that came while this process started."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def stop_when_orphaned() -> None:
    """In a supervised child: ask this process to stop (SIGTERM) as soon as its supervisor is gone."""

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="supervisor-watch", daemon=True).start()
