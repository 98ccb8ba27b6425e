"""The processes under torture: started again whenever they die, unless they are held down."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Self

_AGAIN_S = 0.1
_STOP_S = 60.0


class Machine:
    """Keeps the named processes running while the block runs."""

    def __init__(self, config: Path, clock: Path, log: Path, names: tuple[str, ...]) -> None:
        self.names = names
        self.kills: Counter[str] = Counter()
        self.starts: Counter[str] = Counter()
        self._config, self._clock, self._log = config, clock, log
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._held: set[str] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="keeper")

    def __enter__(self) -> Self:
        self._keeper.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._keeper.join()
        for name in self.names:
            self.hold(name, kill=error is not None)

    def kill(self, name: str) -> None:
        """SIGKILL; it is started again."""
        with self._lock:
            process = self._running.get(name)
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()
                self.kills[name] += 1

    def hold(self, name: str, *, kill: bool) -> bool:
        """End a process, with SIGKILL or SIGTERM, and keep it down until :meth:`release`; whether it ended in good order."""
        with self._lock:
            self._held.add(name)
            process = self._running.get(name)
            if process is None or process.poll() is not None:
                return False
            if kill:
                process.kill()
                self.kills[name] += 1
            else:
                process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise AssertionError(f"{name} did not stop within {_STOP_S:g} s") from None
            return process.returncode == 0

    def release(self, name: str) -> None:
        with self._lock:
            self._held.discard(name)

    def process_id(self, name: str) -> int | None:
        """Of the running process."""
        with self._lock:
            process = self._running.get(name)
            return process.pid if process is not None and process.poll() is None else None

    def _keep(self) -> None:
        while not self._stop.wait(_AGAIN_S):
            with self._lock:
                for name in self.names:
                    process = self._running.get(name)
                    if name not in self._held and (process is None or process.poll() is not None):
                        self._running[name] = self._start(name)

    def _start(self, name: str) -> subprocess.Popen[bytes]:
        self.starts[name] += 1
        command = [sys.executable, "-m", "tests.torture.stepped_process", name]
        command += ["--config", str(self._config), "--clock", str(self._clock)]
        with self._log.open("ab") as log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=dict(os.environ)
            )
