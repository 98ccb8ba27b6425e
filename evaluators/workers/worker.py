"""One worker process, seen from the scheduler: started, asked, given up on, ended.

Invariant: a call returns, raises or kills the process by its time limit; a process that was given up on is gone before
the call is over, so a model never runs twice beside itself.
"""

from __future__ import annotations

import logging
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, cast

from evaluators.evaluator import MODEL_ERROR, TIMED_OUT, WORKER_DIED, Score, Text
from evaluators.registry import EvaluatorSpec
from evaluators.workers.about import About
from evaluators.workers.process import end_process, start_process
from evaluators.workers.wire import BEGIN_RUN, Channel, Closed, packed_text, unpacked_error, unpacked_score
from servelens.errors import Unavailable

logger = logging.getLogger(__name__)

_TELL_S: Final = 2.0


class WorkerLostError(Exception):
    """The process gave no answer and is gone: why, as an unscored reason, and in words."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Worker:
    """An evaluator in a process, which is started by the first call that needs it. Not for several threads at once.

    ``device`` is given to the evaluator as its option of that name, ``threads`` to OpenMP. ``start_limit_s``: how long
    loading may take.
    """

    def __init__(
        self,
        spec: EvaluatorSpec,
        models_dir: Path,
        *,
        device: str | None,
        threads: int,
        start_limit_s: float,
    ) -> None:
        self._spec = spec if device is None else replace(spec, options={**spec.options, "device": device})
        self._models_dir = models_dir
        self._threads = threads
        self._start_limit_s = start_limit_s
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._about: About | None = None

    @property
    def process_id(self) -> int | None:
        """The process, while there is one."""
        return None if self._process is None else self._process.pid

    def start(self) -> About:
        """Start the process if there is none. Raises what building the evaluator raises, and
        :class:`~servelens.errors.Unavailable` when the process ends or takes too long.
        """
        self._opened()
        return cast("About", self._about)

    def score(self, texts: Sequence[Text], limit_s: float) -> tuple[list[Score], int]:
        """The scores, and for how many texts the evaluator raised.

        Raises :class:`WorkerLostError` when there is no answer within ``limit_s`` or the process ends, and the
        :class:`~servelens.errors.ServelensError` that the evaluator raises.
        """
        channel = self._opened()
        deadline = time.monotonic() + limit_s
        try:
            channel.send([packed_text(text) for text in texts], deadline)
            kind, *answer = channel.receive(deadline)
        except TimeoutError as error:
            self._end(kill=True)
            raise WorkerLostError(TIMED_OUT, f"no answer within {limit_s:g} s") from error
        except Closed as error:
            raise WorkerLostError(WORKER_DIED, f"its process {self._end(kill=True)}") from error
        if kind == "refused":
            raise unpacked_error(*answer)
        if kind == "broken":
            self._end(kill=True)
            raise WorkerLostError(MODEL_ERROR, answer[0])
        packed, raised = answer
        return [unpacked_score(each) for each in packed], raised

    def begin_run(self) -> None:
        """Tell the evaluator that a run begins; nothing to tell while there is no process."""
        if self._channel is None:
            return
        try:
            self._channel.send(BEGIN_RUN, time.monotonic() + _TELL_S)
        except (TimeoutError, Closed):
            self._end(kill=True)  # the next call starts another, which begins anew

    def kill(self) -> None:
        """End the process in the middle of a call of another thread, which then raises."""
        process = self._process
        if process is not None:
            process.kill()

    def close(self) -> None:
        """End the process. The next call starts another."""
        if self._process is not None:
            self._end(kill=False)

    def _opened(self) -> Channel:
        if self._channel is not None:
            return self._channel
        self._end(kill=True)
        self._process, channel = start_process("evaluators.workers.child")
        self._channel = channel
        deadline = time.monotonic() + self._start_limit_s
        level = logging.getLogger().getEffectiveLevel()
        try:
            settings = (self._spec.to_json(), str(self._models_dir), self._threads, level)
            channel.send(settings, deadline)
            kind, *answer = channel.receive(deadline)
        except TimeoutError as error:
            self._end(kill=True)
            raise Unavailable(
                f"the evaluator was not loaded within {self._start_limit_s:g} s",
                field=f"evaluators[{self._spec.name}]",
                fix="See the log, or raise start_timeout_s.",
            ) from error
        except Closed as error:
            raise Unavailable(
                f"its process {self._end(kill=True)} while the evaluator was loaded",
                field=f"evaluators[{self._spec.name}]",
                fix="See the log.",
            ) from error
        if kind == "refused":
            self._end(kill=False)
            raise unpacked_error(*answer)
        self._about = About(*answer[0])
        return channel

    def _end(self, *, kill: bool) -> str:
        """End the process, and how it ended in words."""
        process, channel = self._process, self._channel
        self._process = self._channel = None
        return "was not there" if process is None else end_process(process, channel, kill=kill)
