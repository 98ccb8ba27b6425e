"""An evaluator whose work is done in processes of its own: nothing that a text does to it reaches the scheduler.

Invariant: every text gets a score or a reason, whatever the model does, or :meth:`IsolatedEvaluator.score` raises and
there is no score at all. Texts are sent in pieces that are sized to take about a twelfth of the time limit, so that the
limit means the same for fast and slow models. A piece that brings no answer (it hangs, or its process ends) is taken
apart, each part with a shorter limit than the whole, down to the text alone, which has the full limit: it alone is
*unscored*, with ``timed_out``, ``worker_died`` or ``model_error``. One hanging text in 2,000 so costs little more than two
time limits.

Three things are no text's fault and raise :class:`~servelens.errors.Unavailable`, so that nothing is kept and a later
run tries again: the evaluator cannot be loaded, its process is lost again and again without one answer between, and it
raises at every text of a batch (the third time in a row that counts as the texts' fault after all, or they would hold
up all others for ever). A text that was found to be at fault is remembered by its digest, so a batch that is tried again
costs less each time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from evaluators.evaluator import MODEL_ERROR, WORKER_DIED, Score, Text, unscored
from evaluators.registry import EvaluatorSpec
from evaluators.workers.about import About, Elsewhere
from evaluators.workers.worker import Worker, WorkerLostError
from servelens.errors import Unavailable

logger = logging.getLogger(__name__)

TIMEOUT_S: Final = 60.0
START_TIMEOUT_S: Final = 300.0
_FIRST_PIECE: Final = 32
_LARGEST_PIECE: Final = 1_024
_PIECE_SHARE: Final = 1 / 12
_PARTS: Final = 8
LOST_IN_A_ROW: Final = 10
_PATIENCE: Final = 3
_REMEMBERED: Final = 10_000


@dataclass(slots=True)
class _Piece:
    """Texts ``start`` to ``stop`` of a batch; ``depth`` is how often it is a part of something that was lost."""

    start: int
    stop: int
    depth: int = 0

    def parts(self) -> list[_Piece]:
        size = max(1, -(-(self.stop - self.start) // _PARTS))
        return [
            _Piece(start, min(start + size, self.stop), self.depth + 1)
            for start in range(self.start, self.stop, size)
        ]


class _Batch:
    """What is left to do of one call, for the workers to take from, and what has come of it."""

    def __init__(self, texts: Sequence[Text]) -> None:
        self.texts = texts
        self.scores: list[Score | None] = [None] * len(texts)
        self.raised = 0
        self.lock = threading.Lock()
        self._parts: deque[_Piece] = deque()
        self._next = 0

    def take(self, size: int) -> _Piece | None:
        with self.lock:
            if self._parts:
                return self._parts.popleft()
            if self._next >= len(self.texts):
                return None
            piece = _Piece(self._next, min(self._next + size, len(self.texts)))
            self._next = piece.stop
            return piece

    def take_apart(self, piece: _Piece) -> None:
        with self.lock:
            self._parts.extendleft(reversed(piece.parts()))

    def try_again(self, piece: _Piece) -> None:
        with self.lock:
            self._parts.appendleft(_Piece(piece.start, piece.stop, piece.depth + 1))

    def keep(self, piece: _Piece, scores: Sequence[Score], raised: int = 0) -> None:
        with self.lock:
            self.scores[piece.start : piece.stop] = scores
            self.raised += raised


class IsolatedEvaluator(Elsewhere):
    """The evaluator of ``spec``, in one process, or one for each of ``devices``, over which a batch is shared out.

    The processes are started when they are first needed and kept; :meth:`close` ends them. ``timeout_s`` is how long
    one text may take when it is alone, ``threads`` how many each process computes with (default: the processes share half
    of the cores), ``start_timeout_s`` how long loading may take; after ``lost_in_a_row`` losses
    without an answer between a call is given up. One caller at a time.
    """

    def __init__(
        self,
        spec: EvaluatorSpec,
        models_dir: Path,
        *,
        devices: Sequence[str] = (),
        timeout_s: float = TIMEOUT_S,
        start_timeout_s: float = START_TIMEOUT_S,
        threads: int | None = None,
        lost_in_a_row: int = LOST_IN_A_ROW,
        scores_as: str | None = None,
    ) -> None:
        super().__init__(scores_as)
        self._lost_in_a_row = lost_in_a_row
        self._spec = spec
        self._timeout_s = timeout_s
        chosen: list[str | None] = [*devices] or [None]
        # Threads of OpenMP that do not get a core each wait for one another, spinning: with two on two busy cores a small
        # model took ten times as long as with one.
        each = threads or max(1, len(os.sched_getaffinity(0)) // 2 // len(chosen))
        self._workers = [
            Worker(spec, models_dir, device=device, threads=each, start_limit_s=start_timeout_s)
            for device in chosen
        ]
        self._size = _FIRST_PIECE
        self._text_s = 0.0
        self._lost = 0
        self._fruitless = 0
        self._aborted = threading.Event()
        self._at_fault: OrderedDict[bytes, Score] = OrderedDict()

    @property
    def about(self) -> About:
        """What the evaluator says of itself. Starts the first process if need be, and raises what that raises."""
        return self._started(self._workers[0])

    @property
    def device(self) -> str:
        """Where it runs; several devices with commas between."""
        return ",".join(dict.fromkeys(worker.start().device for worker in self._workers))

    @property
    def process_ids(self) -> list[int]:
        """The processes that run now."""
        return [worker.process_id for worker in self._workers if worker.process_id is not None]

    def begin_run(self) -> None:
        """See :func:`~evaluators.evaluator.begin_run`."""
        for worker in self._workers:
            worker.begin_run()

    def score(self, batch: Sequence[Text]) -> list[Score]:
        """See :class:`~evaluators.evaluator.Evaluator`. Raises what loading raises, what the evaluator raises of our own
        errors, and :class:`~servelens.errors.Unavailable` when no text is to blame (see above).
        """
        work = _Batch(batch)
        self._lost = 0
        if len(self._workers) == 1:
            self._drain(self._workers[0], work)
        else:
            with ThreadPoolExecutor(len(self._workers)) as threads:
                # All are waited for: a worker must be idle before the next batch.
                for done in [threads.submit(self._drain, worker, work) for worker in self._workers]:
                    done.result()
        self._judge(work)
        return [score for score in work.scores if score is not None]

    def abort(self) -> None:
        """End a call of another thread, and the processes, at once: the call raises
        :class:`~servelens.errors.Unavailable`, as do all later ones.
        """
        self._aborted.set()
        for worker in self._workers:
            worker.kill()

    def close(self) -> None:
        """End the processes. The next call starts others."""
        for worker in self._workers:
            worker.close()

    def _judge(self, work: _Batch) -> None:
        if not work.raised or work.raised < len(work.texts):
            self._fruitless = 0
            return
        self._fruitless += 1
        if self._fruitless >= _PATIENCE:
            self._fruitless = 0
            return
        error = next((score.details.get("error") for score in work.scores if score is not None), None)
        raise Unavailable(
            f"the evaluator raised at every text: {error}", field=f"evaluators[{self._spec.name}]"
        )

    def _drain(self, worker: Worker, work: _Batch) -> None:
        while (piece := work.take(self._size)) is not None:
            self._do(worker, work, piece)

    def _do(self, worker: Worker, work: _Batch, piece: _Piece) -> None:
        texts = work.texts[piece.start : piece.stop]
        if self._at_fault:
            known = [self._at_fault.get(_digest(text)) for text in texts]
            if len(texts) == 1 and known[0] is not None:
                work.keep(piece, [known[0]])
                return
            if any(score is not None for score in known):
                work.take_apart(piece)
                return
        self._refuse_aborted()
        self._started(worker)  # loading has its own limit
        began = time.monotonic()
        try:
            scores, raised = worker.score(texts, self._limit_s(piece))
        except WorkerLostError as lost:
            self._refuse_aborted()
            self._after_loss(work, piece, lost)
            return
        self._learn(len(texts), time.monotonic() - began)
        self._lost = 0
        work.keep(piece, scores, raised)

    def _started(self, worker: Worker) -> About:
        try:
            return worker.start()
        except Unavailable:
            self._refuse_aborted()  # it was us who ended the process, not a lack of memory
            raise

    def _refuse_aborted(self) -> None:
        if self._aborted.is_set():
            raise Unavailable("the evaluation was stopped", field=f"evaluators[{self._spec.name}]")

    def _after_loss(self, work: _Batch, piece: _Piece, lost: WorkerLostError) -> None:
        count = piece.stop - piece.start
        logger.warning(
            "evaluator lost: evaluator=%s texts=%d reason=%s: %s", self._spec.name, count, lost.reason, lost
        )
        self._lost += 1
        if count > 1:
            work.take_apart(piece)
        elif piece.depth == 0 and lost.reason == WORKER_DIED:
            work.try_again(piece)  # it may have been a chance, such as another program that took all memory
        else:
            score = unscored(lost.reason, error=str(lost))
            work.keep(piece, [score], int(lost.reason == MODEL_ERROR))
            self._remember(work.texts[piece.start], score)
        self._size = _FIRST_PIECE
        if self._lost >= self._lost_in_a_row:
            raise Unavailable(
                f"its process was lost {self._lost} times in a row; the last time: {lost}",
                field=f"evaluators[{self._spec.name}]",
                fix="See the log; more memory, another device or a longer timeout_s may help.",
            )

    def _limit_s(self, piece: _Piece) -> float:
        count = piece.stop - piece.start
        if count == 1 or piece.depth == 0:
            return self._timeout_s
        # Being wrong here costs one restart, not a score.
        return min(self._timeout_s, max(self._timeout_s / _PARTS, 10 * self._text_s * count))

    def _learn(self, count: int, seconds: float) -> None:
        self._text_s = max(seconds / count, 0.5 * self._text_s)
        fitting = int(self._timeout_s * _PIECE_SHARE / max(seconds / count, 1e-9))
        self._size = max(1, min(fitting, 4 * max(count, 1), _LARGEST_PIECE))

    def _remember(self, text: Text, score: Score) -> None:
        self._at_fault[_digest(text)] = score
        while len(self._at_fault) > _REMEMBERED:
            self._at_fault.popitem(last=False)


def _digest(text: Text) -> bytes:
    whole = json.dumps([text.prompt, text.response, sorted(text.columns.items())], default=str)
    return hashlib.blake2b(whole.encode(), digest_size=16).digest()
