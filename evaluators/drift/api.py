"""HTTP: Evidently reports of chosen pairs of windows, under ``/api/drift/reports``.

A report takes half a minute of one core, so it is asked for, made by one thread after the others, and then there. What
waits, runs or has failed is known to this process only; finished reports are files.

Errors are raised as :class:`~servelens.errors.ServelensError`; the application that includes the router turns them
into problem details. Handlers are plain functions, so that they run beside the event loop, never on it.
"""

from __future__ import annotations

import itertools
import logging
import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from evaluators.drift.pair_report import PairReports, PairRequest, chosen_slice
from evaluators.drift.windows import Window
from servelens.clock import Clock
from servelens.errors import Backpressure, ServelensError

logger = logging.getLogger(__name__)

_WAITING: Final = 8
_KEPT: Final = 50

State = Literal["waiting", "running", "ready", "failed"]


class WindowBody(BaseModel):
    """The time from ``start`` up to ``end``."""

    model_config = ConfigDict(extra="forbid")

    start: AwareDatetime
    end: AwareDatetime


class ReportBody(BaseModel):
    """What to compare with what."""

    model_config = ConfigDict(extra="forbid")

    endpoint: str
    window: WindowBody
    against: WindowBody
    slice: str | None = Field(None, description="A part of the traffic: variant=challenger, tags.team=blue.")


@dataclass(slots=True)
class _Job:
    number: int
    request: PairRequest
    by: str | None
    asked_at: datetime
    state: State = "waiting"
    error: str | None = None
    path: Path | None = None

    def shown(self) -> dict[str, Any]:
        request = self.request
        return {
            "id": self.number,
            "endpoint": request.endpoint,
            "window": _shown(request.window),
            "against": _shown(request.against),
            "slice": None if request.part.key is None else f"{request.part.key}={request.part.value}",
            "state": self.state,
            "error": self.error,
            "asked_at": self.asked_at.isoformat(),
            "asked_by": self.by,
            "address": None
            if self.path is None
            else f"/reports/{quote(request.endpoint, safe='')}/{quote(self.path.name, safe='')}",
        }


class ReportQueue:
    """Makes reports, one at a time, in a thread of its own that begins with the first and ends with the process."""

    def __init__(self, reports: PairReports, clock: Clock, *, waiting: int = _WAITING) -> None:
        self._reports = reports
        self._clock = clock
        self._waiting: queue.Queue[_Job] = queue.Queue(waiting)
        self._numbers = itertools.count(1)
        self._jobs: list[_Job] = []
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def ask(self, request: PairRequest, by: str | None) -> dict[str, Any]:
        """The report as :meth:`list` has it. Raises what :meth:`PairReports.check` raises, and
        :class:`~servelens.errors.Backpressure` when too many wait."""
        self._reports.check(request)
        with self._lock:
            job = _Job(next(self._numbers), request, by, self._clock.now())
            try:
                self._waiting.put_nowait(job)
            except queue.Full:
                raise Backpressure(
                    f"{self._waiting.maxsize} reports wait already",
                    retry_after_s=60,
                    fix="Ask again in a minute.",
                ) from None
            self._jobs = [*self._jobs[-_KEPT:], job]
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="drift-reports", daemon=True)
                self._thread.start()
            return job.shown()

    def list(self, endpoint: str | None = None) -> Sequence[dict[str, Any]]:
        """Those that were asked for since this process began, the newest first."""
        with self._lock:
            return [job.shown() for job in reversed(self._jobs) if endpoint in (None, job.request.endpoint)]

    def _work(self) -> None:
        while True:
            self._make(self._waiting.get())

    def _make(self, job: _Job) -> None:
        self._set(job, "running")
        try:
            path = self._reports.write(job.request)
        except ServelensError as error:
            self._set(job, "failed", error=str(error))
        except Exception:
            # The thread must outlive whatever a report dies of.
            logger.exception("report failed: endpoint=%s", job.request.endpoint)
            self._set(job, "failed", error="it failed; the console's log says why")
        else:
            self._set(job, "ready", path=path)

    def _set(self, job: _Job, state: State, *, error: str | None = None, path: Path | None = None) -> None:
        with self._lock:
            job.state, job.error, job.path = state, error, path


def router(reports: ReportQueue) -> APIRouter:
    """The routes. Inputs that break a rule raise :class:`~servelens.errors.Invalid` naming the field."""
    routes = APIRouter(prefix="/api/drift", tags=["drift"])

    @routes.post("/reports", status_code=202)
    def start(body: ReportBody, request: Request) -> dict[str, Any]:
        """Ask for a report; it is ready when the list says so."""
        chosen = PairRequest(
            body.endpoint,
            Window(body.window.start, body.window.end),
            Window(body.against.start, body.against.end),
            chosen_slice(body.slice),
        )
        return reports.ask(chosen, getattr(request.state, "requester", None))

    @routes.get("/reports")
    def list_reports(endpoint: Annotated[str | None, Query()] = None) -> dict[str, Any]:
        """Reports that were asked for, the newest first: waiting, running, ready with their address, or failed."""
        return {"reports": reports.list(endpoint)}

    return routes


def _shown(window: Window) -> dict[str, str]:
    return {"start": window.start.isoformat(), "end": window.end.isoformat()}
