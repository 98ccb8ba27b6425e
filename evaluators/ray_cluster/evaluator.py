"""An evaluator whose work is done on a Ray cluster, as the scheduler has it.

Invariant: every item of a batch gets a score or a reason, or the call raises and there is no score at all. Exactly-once
needs nothing more than that: nobody on the cluster writes, and the scheduler commits a whole batch with its application
transaction as it does for a local evaluator. So a portion that is done twice, since a node was lost, costs time only.

Where the nodes read the tables themselves the scheduler reads but the columns that a score's row has, and sends ids. A
batch is then larger (:attr:`RayEvaluator.batch_rows`), since between two batches the actors wait for a commit.
"""

from __future__ import annotations

import logging
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, cast

import polars as pl

from collector.object_store import is_remote
from collector.table import Table
from evaluators.evaluator import Score, Text
from evaluators.ray_cluster.driver import JOIN, JOIN_S
from evaluators.ray_cluster.placement import Actors, RayCluster
from evaluators.ray_cluster.portion import Portion, TableAddress, slices
from evaluators.registry import EvaluatorSpec
from evaluators.workers.about import About, Elsewhere
from evaluators.workers.isolated import START_TIMEOUT_S, TIMEOUT_S
from evaluators.workers.process import end_process, start_process
from evaluators.workers.wire import Channel, Closed, packed_text, unpacked_error, unpacked_score
from servelens.errors import Unavailable

logger = logging.getLogger(__name__)

_ID: Final = "databricks_request_id"
_DAY: Final = "request_date"
_BATCH_ROWS_PER_ACTOR: Final = 4_000
_LARGEST_BATCH: Final = 100_000
_SENT_BATCH_ROWS: Final = 2_000
_LEAVE_S: Final = 15.0
_GRACE_S: Final = 90.0


class RayEvaluator(Elsewhere):
    """The evaluator of ``spec`` in ``actors`` of ``cluster``.

    The driver and the actors are started when they are first needed and kept; :meth:`close` ends them. ``devices``: one
    worker for each in every actor; ``threads``: what a worker computes with (default: they share the actor's CPUs).
    ``timeout_s`` and ``start_timeout_s`` as for :class:`~evaluators.workers.isolated.IsolatedEvaluator`. One caller at a
    time.
    """

    def __init__(
        self,
        spec: EvaluatorSpec,
        models_dir: Path,
        cluster: RayCluster,
        *,
        actors: Actors | None = None,
        devices: Sequence[str] = (),
        threads: int | None = None,
        timeout_s: float = TIMEOUT_S,
        start_timeout_s: float = START_TIMEOUT_S,
        scores_as: str | None = None,
    ) -> None:
        super().__init__(scores_as)
        self._spec = spec
        self._cluster = cluster
        self._actors = actors or cluster.actors
        chosen = "device" in spec.options
        workers = tuple(devices) or (() if chosen else self._actors.devices)
        self._asked = {
            "actors": self._actors,
            "spec": spec.to_json(),
            "models_dir": cluster.models_dir or models_dir.absolute(),
            "devices": workers,
            "threads": threads or max(1, int(self._actors.num_cpus) // max(1, len(workers))),
            "timeout_s": timeout_s,
            "start_timeout_s": start_timeout_s,
        }
        self._start_limit_s = cluster.placement_timeout_s + start_timeout_s + _GRACE_S
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._about: About | None = None
        self._device = ""
        self._aborted = threading.Event()

    @property
    def about(self) -> About:
        """What the evaluator says of itself. Joins the cluster if need be. Raises what loading raises,
        :class:`~servelens.errors.Missing` without the package and :class:`~servelens.errors.Unavailable` without the
        cluster, or without room on it.
        """
        self._opened()
        return cast("About", self._about)

    @property
    def device(self) -> str:
        """Where it runs on the nodes; several devices with commas between."""
        self._opened()
        return self._device

    @property
    def reads_records(self) -> bool:
        """Whether the nodes read the tables."""
        return self._cluster.read_on_nodes

    @property
    def batch_rows(self) -> int:
        """How many records make a good batch."""
        if not self._cluster.read_on_nodes:
            return _SENT_BATCH_ROWS
        return min(_BATCH_ROWS_PER_ACTOR * self._actors.actors, _LARGEST_BATCH)

    @property
    def process_id(self) -> int | None:
        """The driver, while there is one."""
        return None if self._process is None else self._process.pid

    def score(self, batch: Sequence[Text]) -> list[Score]:
        """See :class:`~evaluators.evaluator.Evaluator`; the texts are sent to the nodes. Raises as :attr:`about`, what the
        evaluator raises of our own errors, and :class:`~servelens.errors.Unavailable` when the cluster is lost.
        """
        portions = (
            Portion(some.start, [packed_text(text) for text in batch[some.start : some.stop]])
            for some in slices(len(batch), self._actors.actors)
        )
        return self._scored(portions, len(batch))

    def score_records(self, payload: Table, records: pl.DataFrame) -> list[Score]:
        """One score for each row of ``records``, which the nodes read from ``payload`` themselves. Raises as
        :meth:`score`, and when a node does not see the table.
        """
        if records.is_empty():
            return []
        uri = payload.uri if is_remote(payload.uri) else str(Path(payload.uri).absolute())
        address = TableAddress(uri, payload.version() or 0, payload.storage_options)
        ordered = records.select(_ID, _DAY).with_row_index("row").sort(_DAY, _ID)
        in_order = self._scored(self._of_table(address, ordered), records.height)
        scores = dict(zip(ordered["row"], in_order, strict=True))
        return [scores[row] for row in range(records.height)]

    def abort(self) -> None:
        """End a call of another thread, and the actors, at once: the call raises
        :class:`~servelens.errors.Unavailable`, as do all later ones.
        """
        self._aborted.set()
        process = self._process
        if process is not None:
            process.kill()

    def close(self) -> None:
        """End the actors and leave the cluster. The next call starts anew."""
        if self._process is not None:
            self._end(kill=False)

    def _of_table(self, address: TableAddress, ordered: pl.DataFrame) -> Iterator[Portion]:
        for some in slices(ordered.height, self._actors.actors):
            rows = ordered[some.start : some.stop]
            days = rows[_DAY].to_list()
            known = None not in days
            yield Portion(
                some.start,
                rows[_ID].to_list(),
                address,
                days[0] if known else None,
                days[-1] if known else None,
            )

    def _scored(self, portions: Iterator[Portion], count: int) -> list[Score]:
        if count == 0:
            return []
        scores: list[Score | None] = [None] * count
        channel = self._opened()
        try:
            channel.send(("batch",))
            while True:
                kind, *answer = channel.receive()
                if kind == "more":
                    channel.send(next(portions, None))
                elif kind == "scores":
                    start, packed = answer
                    scores[start : start + len(packed)] = [unpacked_score(each) for each in packed]
                elif kind == "refused":
                    if answer[-1] is True:
                        self._end(kill=False)
                    raise unpacked_error(answer[0])
                else:
                    break
        except Closed as error:
            raise self._lost() from error
        found = [score for score in scores if score is not None]
        if len(found) != count:
            raise Unavailable(f"the cluster gave {len(found)} scores for {count} records", field=self._field)
        return found

    def _opened(self) -> Channel:
        if self._aborted.is_set():
            raise self._stopped()
        if self._channel is not None and self._process is not None and self._process.poll() is None:
            return self._channel
        if self._process is not None:
            self._end(kill=True)
        self._process, channel = start_process("evaluators.ray_cluster.driver")
        self._channel = channel
        level = logging.getLogger().getEffectiveLevel()
        try:
            kind, *answer = self._joined(channel, level)
            if kind == "joined":
                kind, *answer = channel.receive(time.monotonic() + self._start_limit_s)
        except TimeoutError as error:
            self._end(kill=True)
            raise Unavailable(
                f"the cluster did not have the evaluator ready within {self._start_limit_s:g} s",
                field=self._field,
                fix="See Ray's logs, or raise start_timeout_s.",
            ) from error
        except Closed as error:
            raise self._lost() from error
        if kind == "refused":
            self._end(kill=False)
            raise unpacked_error(answer[0])
        about, self._device = answer
        self._about = About(*about)
        return channel

    def _joined(self, channel: Channel, level: int) -> tuple[Any, ...]:
        deadline = time.monotonic() + JOIN_S
        try:
            channel.send((self._cluster, self._asked, level), deadline)
            answer: tuple[Any, ...] = channel.receive(deadline)
        except TimeoutError as error:
            self._end(kill=True)
            raise Unavailable(
                f"the Ray cluster at {self._cluster.address} did not answer within {JOIN_S:g} s",
                field="ray.address",
                fix=JOIN,
            ) from error
        return answer

    @property
    def _field(self) -> str:
        return f"evaluators[{self._spec.name}]"

    def _stopped(self) -> Unavailable:
        return Unavailable("the evaluation was stopped", field=self._field)

    def _lost(self) -> Unavailable:
        how = self._end(kill=True)
        if self._aborted.is_set():
            return self._stopped()
        return Unavailable(
            f"the connection to the Ray cluster was lost: its driver {how}",
            field=self._field,
            fix="See that the cluster runs; the next run tries again.",
        )

    def _end(self, *, kill: bool) -> str:
        process, channel = self._process, self._channel
        self._process = self._channel = None
        if process is None:
            return "was not there"
        return end_process(process, channel, kill=kill, patience_s=_LEAVE_S)
