"""Feedback becomes durable: read, freed of what may not be kept, and appended to the spool that the records go to.

Invariant: what was confirmed is in the spool as ``proxy.durability`` says, as an answer's record is. Of a list all are checked
before the first is appended; when the spool fails in the middle none is confirmed, and sending all of them again does no
harm, for of two that say the same the newer one counts.

Whether the call is known is not asked here: a proxy has no tables, and feedback may be faster than its record.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec

from collector.feedback_record import NAMES, Feedback, feedback_record
from collector.record import UNROUTED, Record
from collector.spool import SpoolWriter
from servelens.clock import Clock
from servelens.errors import Conflict, Invalid, Missing, ServelensError, SpoolFull
from servelens.identifiers import RequestIds, id_at, time_us
from serving_proxy.endpoint import Endpoint
from serving_proxy.feedback.body import Given, read_feedback
from serving_proxy.feedback.kept import kept_feedback, masks_personal_data
from serving_proxy.limits import Limits
from serving_proxy.measurements import Measurements
from serving_proxy.routing import Snapshot

logger = logging.getLogger(__name__)

_NO_TIME_US: Final = 946_684_800_000_000
"""In an id made of what the sender chose, where the call has no id that tells its time."""
_OTHER: Final = "other"


class Taken(NamedTuple):
    """What became of one feedback. ``endpoint`` is ``None`` where it is still to be found out."""

    feedback_id: str
    endpoint: str | None
    recorded: list[str]


class FeedbackIntake:
    """Takes feedback for the endpoints of the current ``snapshot``. Its methods belong to the loop that ``spool`` is bound to."""

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        spool: SpoolWriter,
        measurements: Measurements,
        limits: Limits,
        clock: Clock,
    ) -> None:
        self._snapshot = snapshot
        self._spool = spool
        self._limits = limits
        self._clock = clock
        self._ids = RequestIds()
        self._last_us = 0
        self._accepted = measurements.counter(
            "servelens_feedback_accepted",
            "Feedback that is in the spool, by what it says",
            "endpoint",
            "name",
        )
        self._refused = measurements.counter(
            "servelens_feedback_refused", "Calls with feedback that were refused, by the reason", "reason"
        )

    async def take(
        self, body: bytes, *, named: str | None, user: str | None, key: str | None, requester: str | None
    ) -> tuple[list[Taken], bool]:
        """Take all feedback of a request's body, and say whether the body is a list.

        ``named`` is the endpoint in the path, ``user`` who gave it where the body does not say, ``key`` tells a repeat,
        and ``requester`` is the owner of the API key. Raises :class:`~servelens.errors.Invalid`,
        :class:`~servelens.errors.Missing` for an endpoint that is not there, :class:`~servelens.errors.Conflict` where the
        endpoint keeps none, and :class:`~servelens.errors.SpoolFull`.
        """
        try:
            records, taken, is_list = await self._read(body, named, user, key, requester)
            await self._append(records)
        except ServelensError as error:
            self.refused(_reason(error))
            raise
        for each in taken:
            for name in each.recorded:
                label = (each.endpoint or "", name if name in NAMES else _OTHER)
                self._accepted[label] = self._accepted.get(label, 0) + 1
        return taken, is_list

    def refused(self, reason: str) -> None:
        """Count a call that was refused."""
        self._refused[(reason,)] = self._refused.get((reason,), 0) + 1

    async def _read(
        self, body: bytes, named: str | None, user: str | None, key: str | None, requester: str | None
    ) -> tuple[list[Record], list[Taken], bool]:
        snapshot = self._snapshot()
        every, is_list = read_feedback(body, self._clock.now_us(), named)
        records, taken = [], []
        for number, given in enumerate(every):
            place = f"[{number}]" if is_list else None
            own_key = given.feedback_id or (f"{key}[{number}]" if key and is_list else key)
            try:
                endpoint = _endpoint(snapshot, named or given.named_endpoint)
                kept = await self._kept(given, snapshot, endpoint, user)
            except (Invalid, Missing, Conflict) as error:
                if place is None:
                    raise
                where = f"{place}.{error.field}" if error.field else place
                raise type(error)(error.message, field=where, fix=error.fix) from error
            record = self._record(kept, endpoint, own_key, requester)
            records.append(record)
            names = [part.name for part in kept.parts]
            found = None if record.endpoint == UNROUTED else record.endpoint
            taken.append(Taken(record.request_id, found, names))
        return records, taken, is_list

    async def _kept(
        self, given: Given, snapshot: Snapshot, endpoint: Endpoint | None, user: str | None
    ) -> Given:
        if endpoint is None:
            privacy, concerned = snapshot.unrouted_privacy, list(snapshot.endpoints.values())
        else:
            privacy, concerned = endpoint.privacy, [endpoint]
        if given.user is None and user is not None:
            given = msgspec.structs.replace(given, user=user)
        if not masks_personal_data(concerned):
            return kept_feedback(given, privacy, mask=False)
        # Off the loop: others wait for it, and a text is as long as its sender likes.
        return await asyncio.to_thread(kept_feedback, given, privacy, mask=True)

    def _record(
        self, kept: Given, endpoint: Endpoint | None, key: str | None, requester: str | None
    ) -> Record:
        # Whoever says two things at once has said the second one last.
        self._last_us = now_us = max(self._clock.now_us(), self._last_us + 1)
        is_known = endpoint is not None and kept.request_id is not None
        return feedback_record(
            Feedback(kept.parts, kept.request_id),
            feedback_id=self._ids.next() if key is None else _derived(key, kept),
            time_us=now_us,
            endpoint=endpoint.name if endpoint is not None and is_known else UNROUTED,
            named_endpoint=None if endpoint is None else endpoint.name,
            client_request_id=kept.client_request_id,
            user=kept.user,
            tags=kept.tags,
            requester=requester,
        )

    async def _append(self, records: Sequence[Record]) -> None:
        """Append all, and wait until they are durable."""
        if (failure := self._spool.failure) is not None:
            raise SpoolFull(f"Feedback cannot be recorded now: {failure}.", fix="Send it again later.")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = len(records)
        failed: ServelensError | None = None

        def note(error: ServelensError | None) -> None:
            nonlocal waiting, failed
            waiting -= 1
            failed = failed or error
            if not waiting and not done.done():
                done.set_result(None)

        for record in records:
            try:
                self._spool.append(record, note)
            except ServelensError as error:
                note(error)
        try:
            async with asyncio.timeout(self._limits.log_timeout_s):
                await done
        except TimeoutError as error:
            raise SpoolFull(
                "The feedback could not be recorded in time.", fix="Send it again; a repeat does no harm."
            ) from error
        if failed is not None:
            logger.warning("feedback not recorded: count=%d reason=%s", len(records), failed)
            raise SpoolFull(f"Feedback cannot be recorded now: {failed.message}.", fix="Send it again later.")


def _endpoint(snapshot: Snapshot, name: str | None) -> Endpoint | None:
    """The endpoint that is meant; ``None`` when it is not said and there are several."""
    endpoints = snapshot.endpoints
    if name is None:
        return next(iter(endpoints.values())) if len(endpoints) == 1 else None
    endpoint = endpoints.get(name)
    if endpoint is None:
        names = ", ".join(repr(each) for each in endpoints)
        raise Missing(
            f"There is no endpoint named {name!r}.",
            field="endpoint",
            fix=f"Use one of: {names}." if names else "No endpoint is configured yet.",
        )
    return endpoint


def _derived(key: str, kept: Given) -> str:
    """The same id whenever the same user says something of the same call under this key."""
    moment_us = _NO_TIME_US if kept.request_id is None else time_us(kept.request_id)
    event = "\0".join((key, kept.request_id or "", kept.client_request_id or "", kept.user or ""))
    return id_at(moment_us, event.encode("utf-8", "surrogatepass"))


def _reason(error: ServelensError) -> str:
    match error:
        case SpoolFull():
            return "spool_full"
        case Missing():
            return "unknown_endpoint"
        case Conflict():
            return "not_kept"
        case _:
            return "invalid"
