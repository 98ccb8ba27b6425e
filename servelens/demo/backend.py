"""The demo's model server: ``transformers serve`` on the prepared SmolLM2, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import httpx

from servelens.errors import Unavailable

_START_LIMIT_S = 180.0


class Server(Protocol):
    """A model backend that runs while its ``with`` block does."""

    @property
    def url(self) -> str: ...

    @property
    def model(self) -> str:
        """The name to send."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def wait_until_ready(self) -> None: ...


class ModelServer:
    """Serves the model folder on a loopback port while the ``with`` block runs.

    ``model`` is the name to send; output goes to ``log``. Raises
    :class:`~servelens.errors.Unavailable` when the server ends early or is not healthy in time.
    """

    def __init__(self, folder: Path, port: int, log: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.model = folder.name
        self._folder = folder
        self._log = log
        self._command = [
            str(Path(sys.executable).with_name("transformers")),
            "serve",
            folder.name,
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--device",
            "cpu",
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        # One core is left to servelens, and threads that wait do not spin: on a small machine both sides gain.
        threads = max(1, (os.cpu_count() or 2) - 1)
        environment = dict(
            os.environ,
            HF_HUB_OFFLINE="1",
            TOKENIZERS_PARALLELISM="false",
            OMP_NUM_THREADS=str(threads),
            OMP_WAIT_POLICY="PASSIVE",
        )
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder.parent,  # the server knows the model by the name that it was started with
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def wait_until_ready(self) -> None:
        """Block until ``/health`` answers 200."""
        deadline = time.monotonic() + _START_LIMIT_S
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                raise Unavailable("the model server ended early.", fix=f"Its output is in {self._log}.")
            try:
                if httpx.get(f"{self.url}/health", timeout=2).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.25)
        raise Unavailable(
            f"the model server was not ready within {_START_LIMIT_S:g} s.",
            fix=f"Its output is in {self._log}.",
        )
