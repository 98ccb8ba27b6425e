"""The actors of one evaluator on the cluster, and which portion each of them has.

Invariant: every portion that was taken is answered once, or :meth:`Pool.score` raises. An actor has at most two portions,
one in work and one that waits for it, so little is held and little is done again. Where an actor is lost (its node, or its
process) its portions go to the others, and another actor is asked for. Ray does neither by itself here: a task that Ray
retries waits for its own actor, which may never come back, and an actor that Ray restarts would not be looked at again,
and could be on a node with another model. So both are zero, and both are done here.

A portion over which an actor was lost is done again, alone on its actor. Where that one is lost as well the portion is
divided, down to the record that ends actors, which is unscored. After
:data:`~evaluators.workers.isolated.LOST_IN_A_ROW` losses without an answer between the call is given up.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError, RuntimeEnvSetupError

from evaluators.evaluator import WORKER_DIED, unscored
from evaluators.ray_cluster.actor import ScoringActor
from evaluators.ray_cluster.placement import Actors, RayCluster
from evaluators.ray_cluster.portion import Portion
from evaluators.workers.isolated import LOST_IN_A_ROW
from evaluators.workers.wire import PackedScore, described, packed_score, unpacked_error
from servelens.errors import ServelensError, Unavailable

logger = logging.getLogger(__name__)

AboutFields = tuple[Any, ...]
_IN_HAND: Final = 2
_WAIT_S: Final = 1.0
_GRACE_S: Final = 60.0
_INSTALL: Final = (
    "See that servelens[ray] is installed there, in the same version; Ray's logs on the node say more."
)
_SAME: Final = ("name", "version", "model", "target")


@dataclass(slots=True, eq=False)
class _Member:
    """An actor. ``coming`` is awaited until it is ready; ``calls`` are in the order in which it does them, with ``None``
    where nobody wants the answer any more."""

    handle: Any
    coming: Any
    since: float
    node: str | None = None
    ready: bool = False
    device: str = ""
    calls: dict[Any, Portion | None] = field(default_factory=dict)


class Pool:
    """Needs a connection to the cluster. Not for several threads."""

    def __init__(
        self,
        *,
        cluster: RayCluster,
        actors: Actors,
        spec: str,
        models_dir: Path,
        devices: tuple[str, ...],
        threads: int,
        timeout_s: float,
        start_timeout_s: float,
    ) -> None:
        self._cluster = cluster
        self._asked = actors
        self._timeout_s = timeout_s
        self._start_timeout_s = start_timeout_s
        self._arguments = (spec, str(models_dir), devices, threads, timeout_s, start_timeout_s)
        self._actor = ray.remote(ScoringActor).options(
            num_cpus=actors.num_cpus,
            num_gpus=actors.num_gpus,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
        )
        self._members: list[_Member] = []
        self._about: AboutFields | None = None
        self._told_by = ""
        self._lost = 0
        self._waiting: deque[Portion] = deque()
        self._more = False
        self.mixed = False
        """Whether the actors turned out to differ: all of them are to be loaded anew."""

    def start(self) -> tuple[AboutFields, str]:
        """What the evaluator says of itself, and its devices, with commas between. Waits for all actors, as long as the
        cluster may take to make room for them; those that come later join in.

        Raises what loading raises, and :class:`~servelens.errors.Unavailable` when there is room for none.
        """
        self._fill()
        while any(not member.ready and self._may_come(member) for member in self._members):
            self._advance()
            self._fill()
        if not self._usable() or self._about is None:
            raise self._no_room()
        missing = len(self._members) - len(self._usable())
        if missing:
            logger.warning("%d of %d actors have no place: %s", missing, len(self._members), self._room())
        devices = dict.fromkeys(member.device for member in self._usable())
        return self._about, ",".join(devices)

    def score(
        self, take: Callable[[], Portion | None], give: Callable[[int, list[PackedScore]], None]
    ) -> None:
        """Score what ``take`` gives until it gives ``None``. Raises what an actor refuses with, and
        :class:`~servelens.errors.Unavailable`; nothing of the batch is to be kept then.
        """
        self._lost = 0
        self._waiting.clear()
        self._more = True
        try:
            while True:
                self._fill()
                self._share_out(take)
                if not self._waiting and not any(self._wanted(member) for member in self._members):
                    return
                if not self._usable() and not any(self._may_come(member) for member in self._members):
                    error = self._no_room()
                    for member in list(self._members):
                        self._forget(member)  # the next call asks anew
                    raise error
                self._advance(give)
        except ServelensError:
            for member in self._members:
                member.calls = dict.fromkeys(member.calls)
            raise

    def close(self) -> None:
        """End all actors and leave the cluster."""
        for member in self._members:
            self._end(member)
        self._members.clear()
        ray.shutdown()

    def _fill(self) -> None:
        while len(self._members) < self._asked.actors:
            handle = self._actor.remote(*self._arguments)
            self._members.append(_Member(handle, handle.where.remote(), time.monotonic()))

    def _usable(self) -> list[_Member]:
        return [member for member in self._members if member.ready]

    def _may_come(self, member: _Member) -> bool:
        """Whether it is worth waiting for."""
        limit = self._cluster.placement_timeout_s if member.node is None else self._start_timeout_s + _GRACE_S
        return not member.ready and time.monotonic() - member.since < limit

    def _share_out(self, take: Callable[[], Portion | None]) -> None:
        """Give each a portion, and then each another one."""
        for room in range(1, _IN_HAND + 1):
            for member in self._usable():
                if len(member.calls) < room and (portion := self._next_for(member, take)) is not None:
                    self._hand(member, portion)

    def _next_for(self, member: _Member, take: Callable[[], Portion | None]) -> Portion | None:
        # A portion that may be to blame is alone on its actor, so that no other is blamed for it.
        if any(portion is not None and portion.losses for portion in member.calls.values()):
            return None
        if self._waiting:
            return None if self._waiting[0].losses and member.calls else self._waiting.popleft()
        if not self._more:
            return None
        portion = take()
        self._more = portion is not None
        return portion

    def _hand(self, member: _Member, portion: Portion) -> None:
        if not member.calls:
            member.since = time.monotonic()
        member.calls[member.handle.score.remote(portion)] = portion

    def _wanted(self, member: _Member) -> bool:
        return any(portion is not None for portion in member.calls.values())

    def _advance(self, give: Callable[[int, list[PackedScore]], None] | None = None) -> None:
        """Wait for something to happen, a second at most, and deal with it."""
        owners = {member.coming: member for member in self._members if not member.ready}
        owners |= {call: member for member in self._members for call in member.calls}
        done, _ = ray.wait(list(owners), num_returns=len(owners), timeout=0)
        if not done:
            done, _ = ray.wait(list(owners), num_returns=1, timeout=_WAIT_S)
        lost: list[tuple[_Member, RayError]] = []
        for ref in done:
            member = owners[ref]
            try:
                answer = ray.get(ref)
            except RuntimeEnvSetupError as error:
                raise Unavailable(
                    f"ray.runtime_env cannot be set up on a node: {described(error)}", field="ray.runtime_env"
                ) from error
            except RayTaskError as error:
                raise Unavailable(f"an actor failed: {described(error)}", field="engine 'ray'") from error
            except RayError as error:
                lost.append((member, error))  # after what it has answered before
                continue
            if ref == member.coming:
                self._welcome(member, answer)
            else:
                self._settle(member, ref, answer, give)
        for member, why in lost:
            if member in self._members:  # not with another of its calls already
                self._lose(member, why, give)
        for member in self._usable():
            if member.calls and time.monotonic() - member.since > self._limit_s(member):
                self._lose(member, TimeoutError("it gave no answer in time"), give)

    def _limit_s(self, member: _Member) -> float:
        """How long the portion in hand may take at the very most, by the limits that the actor keeps itself."""
        portion = next(iter(member.calls.values()))
        texts = 1 if portion is None else len(portion.items)
        return self._start_timeout_s + self._timeout_s * (texts + LOST_IN_A_ROW) + _GRACE_S

    def _welcome(self, member: _Member, answer: Any) -> None:
        if member.node is None:
            member.node, member.since = answer, time.monotonic()
            member.coming = member.handle.load.remote()
            return
        if answer[0] == "refused":
            self._forget(member)
            error = unpacked_error(answer[1])
            raise type(error)(f"on node {member.node}: {error.message}", field=error.field, fix=error.fix)
        _, about, device = answer
        self._compare(member, about)
        member.ready, member.device, member.coming = True, device, None
        logger.info("actor ready: node=%s device=%s evaluator_version=%s", member.node, device, about[1])

    def _compare(self, member: _Member, about: AboutFields) -> None:
        """All that score together must be the same evaluator."""
        if self._about is None:
            self._about, self._told_by = about, member.node or ""
            return
        for what, ours, theirs in zip(_SAME, self._about, about, strict=False):
            if ours != theirs:
                self.mixed = True
                raise Unavailable(
                    f"the nodes have different evaluators: {what} '{ours}' on {self._told_by}, "
                    f"'{theirs}' on {member.node}",
                    field="engine 'ray'",
                    fix="Put the same model and the same packages on all nodes.",
                )

    def _settle(
        self,
        member: _Member,
        call: Any,
        answer: Any,
        give: Callable[[int, list[PackedScore]], None] | None,
    ) -> None:
        portion = member.calls.pop(call)
        member.since = time.monotonic()
        if portion is None or give is None:
            return
        if answer[0] == "refused":
            raise unpacked_error(answer[1])
        _, about, scores = answer
        self._compare(member, about)
        if len(scores) != len(portion.items):
            raise Unavailable(
                f"an actor gave {len(scores)} scores for {len(portion.items)} records", field="engine 'ray'"
            )
        self._lost = 0
        give(portion.start, scores)

    def _lose(
        self,
        member: _Member,
        error: Exception,
        give: Callable[[int, list[PackedScore]], None] | None,
    ) -> None:
        self._forget(member)
        self._lost += 1
        logger.warning("actor lost: node=%s: %s", member.node, described(error))
        for place, portion in enumerate(reversed(member.calls.values())):
            if portion is None:
                continue
            if place + 1 < len(member.calls):  # it only waited behind the one that was in work
                self._waiting.appendleft(portion)
            else:
                self._put_back(portion, error, give)
        if "creation task" in str(error):  # it did not so much as begin, and would not elsewhere
            raise Unavailable(
                f"a node cannot start an actor: {described(error)}", field="engine 'ray'", fix=_INSTALL
            ) from error
        if self._lost >= LOST_IN_A_ROW:
            raise Unavailable(
                f"actors were lost {self._lost} times in a row; the last time: {described(error)}",
                field="engine 'ray'",
                fix="See Ray's logs on the nodes; more memory for each actor may help.",
            ) from error

    def _put_back(
        self,
        portion: Portion,
        error: Exception,
        give: Callable[[int, list[PackedScore]], None] | None,
    ) -> None:
        if portion.losses == 0:
            self._waiting.appendleft(replace(portion, losses=1))
        elif len(portion.items) > 1:
            self._waiting.extendleft(reversed(portion.halves()))
        elif give is not None:
            give(portion.start, [packed_score(unscored(WORKER_DIED, error=described(error)))])

    def _forget(self, member: _Member) -> None:
        self._members.remove(member)
        self._end(member)

    def _end(self, member: _Member) -> None:
        with suppress(RayActorError, ValueError):
            ray.kill(member.handle)

    def _room(self) -> str:
        has, free = ray.cluster_resources(), ray.available_resources()
        return (
            f"each of {self._asked.actors} actors asks for num_cpus={self._asked.num_cpus:g} and "
            f"num_gpus={self._asked.num_gpus:g}; the cluster has {has.get('CPU', 0):g} CPUs "
            f"({free.get('CPU', 0):g} free) and {has.get('GPU', 0):g} GPUs ({free.get('GPU', 0):g} free)"
        )

    def _no_room(self) -> Unavailable:
        limit = self._cluster.placement_timeout_s
        return Unavailable(
            f"no actor is there after {limit:g} s: {self._room()}",
            field="ray.actors",
            fix="Ask for less, add nodes, or raise ray.placement_timeout_s.",
        )
