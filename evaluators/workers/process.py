"""Starts and ends the processes that evaluators work in: Python that speaks over a pair of pipes, with our ``sys.path``.

Invariant: a process does not outlive who started it (see :func:`evaluators.workers.child.follow`), and one that was ended
here is gone when the call returns.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final

from evaluators.workers.wire import Channel
from servelens.errors import Unavailable

_BOOT: Final = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[4]); "
    "from {module} import main; main(*map(int, sys.argv[1:4]))"
)
_END_S: Final = 2.0


def start_process(module: str) -> tuple[subprocess.Popen[bytes], Channel]:
    """Run ``main(reading, writing, parent)`` of ``module`` in a process. Raises :class:`~servelens.errors.Unavailable`."""
    return _spawner().submit(_spawned, module).result()


def end_process(
    process: subprocess.Popen[bytes], channel: Channel | None, *, kill: bool, patience_s: float = _END_S
) -> str:
    """Close ``channel`` and end the process, and how it ended in words. Without ``kill`` it has ``patience_s`` to do so
    by itself."""
    if channel is not None:
        channel.close()
    with suppress(subprocess.TimeoutExpired):
        # It may be ending by itself, and how it does so is worth knowing.
        process.wait(0.2 if kill else patience_s)
    if process.poll() is None:
        process.kill()
    return _how(process.wait())


def _spawned(module: str) -> tuple[subprocess.Popen[bytes], Channel]:
    child_reads, we_write = os.pipe()
    we_read, child_writes = os.pipe()
    try:
        process = subprocess.Popen(
            [
                *(sys.executable, "-c", _BOOT.format(module=module)),
                *(str(child_reads), str(child_writes), str(os.getpid()), json.dumps(sys.path)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=2,  # a library that prints must not get between messages
            pass_fds=(child_reads, child_writes),
        )
    except OSError as error:
        os.close(we_write)
        os.close(we_read)
        raise Unavailable(f"no process could be started: {error}") from error
    finally:
        os.close(child_reads)
        os.close(child_writes)
    return process, Channel(we_read, we_write)


class _Spawner:
    """The thread that starts all workers: the kernel ends a worker with the thread that started it, not with its
    process, and threads of a scheduler come and go.
    """

    executor: ThreadPoolExecutor | None = None


def _spawner() -> ThreadPoolExecutor:
    if _Spawner.executor is None:
        _Spawner.executor = ThreadPoolExecutor(1, thread_name_prefix="worker-spawner")
    return _Spawner.executor


def _forget_spawner() -> None:
    _Spawner.executor = None  # a forked process has no such thread


os.register_at_fork(after_in_child=_forget_spawner)


def _how(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    name = signal.Signals(-status).name
    return f"was ended by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
