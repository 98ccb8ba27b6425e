"""The process that an evaluator runs in: builds it from its spec and scores the pieces that it is sent.

Invariant: it does not outlive who started it. It ends when its pipe closes, and the kernel ends it (SIGKILL) when its
starter ends, also while it hangs in code that never looks at the pipe (prctl(2), PR_SET_PDEATHSIG).

An evaluator that raises is asked again for halves of the piece, down to the text at which it raises. Two kinds of errors
are no text's fault: a :class:`~servelens.errors.ServelensError` (something the evaluator depends on is away) goes to the
starter as it is, and after the device itself broke this process ends, since nothing would work in it any more.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NoReturn

from evaluators.evaluator import (
    MODEL_ERROR,
    OUT_OF_MEMORY,
    Evaluator,
    Score,
    Text,
    begin_run,
    unscored,
    wanted_columns,
)
from evaluators.registry import EvaluatorSpec, build
from evaluators.workers.wire import (
    BEGIN_RUN,
    Channel,
    Closed,
    described,
    packed_error,
    packed_score,
    unpacked_text,
)
from servelens.errors import ServelensError, Unavailable

_PR_SET_PDEATHSIG: Final = 1
_FIRST_TO_GO: Final = "500"


class _DeviceBrokenError(Exception):
    """Nothing works on the device in this process any more."""


def main(reading: int, writing: int, parent: int) -> None:
    """Serve until the pipe closes."""
    follow(parent)
    channel = Channel(reading, writing)
    with suppress(Closed):
        _serve(channel)


def _serve(channel: Channel) -> None:
    spec, models_dir, threads, level = channel.receive()
    os.putenv("OMP_NUM_THREADS", str(threads))  # read when the library is loaded, which is later
    logging.basicConfig(level=level, format="%(levelname)-7s %(name)s: %(message)s", stream=sys.stderr)
    try:
        evaluator = build(EvaluatorSpec.from_json(spec), Path(models_dir))
        about = (
            evaluator.name,
            evaluator.version,
            evaluator.model,
            evaluator.target,
            evaluator.device,
            wanted_columns(evaluator),
        )
    except Exception as error:  # noqa: BLE001 - it is told to the starter, which raises it
        channel.send(("refused", packed_error(error)))
        return
    channel.send(("ready", about))
    while True:
        message = channel.receive()
        if message == BEGIN_RUN:
            begin_run(evaluator)
            continue
        texts = [unpacked_text(each) for each in message]
        try:
            scores, raised = _scored(evaluator, texts)
        except ServelensError as error:
            channel.send(("refused", packed_error(error)))
        except _DeviceBrokenError as error:
            channel.send(("broken", str(error)))
            return
        else:
            channel.send(("scores", [packed_score(score) for score in scores], raised))


def _scored(evaluator: Evaluator, texts: Sequence[Text]) -> tuple[list[Score], int]:
    """A score for each text, and for how many the evaluator raised."""
    try:
        scores = evaluator.score(texts)
    except ServelensError:
        raise
    except Exception as error:
        if _device_broke(error):
            raise _DeviceBrokenError(described(error)) from error
        if len(texts) == 1:
            reason = OUT_OF_MEMORY if isinstance(error, MemoryError) else MODEL_ERROR
            return [unscored(reason, error=described(error))], 1
        half = len(texts) // 2
        first, first_raised = _scored(evaluator, texts[:half])
        second, second_raised = _scored(evaluator, texts[half:])
        return first + second, first_raised + second_raised
    if len(scores) != len(texts):
        raise Unavailable(f"the evaluator gave {len(scores)} scores for {len(texts)} texts")
    return list(scores), 0


def _device_broke(error: Exception) -> bool:
    if "torch" not in sys.modules:
        return False
    from evaluators.engine.devices import is_device_failure

    return is_device_failure(error)


def follow(parent: int) -> None:
    """End this process with the thread that started it, and before it where memory runs out; leave Ctrl-C to it."""
    library: Any = ctypes.CDLL(None, use_errno=True)
    if hasattr(library, "prctl"):  # Linux
        library.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it ended before the line above
            _end()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal reaches us too; the starter decides
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    # Where memory runs out the model goes, not the process that keeps the books.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_GO, encoding="ascii")


def _end() -> NoReturn:
    os._exit(1)
