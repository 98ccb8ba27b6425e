"""Evidently reports, as files in a folder, served read-only.

Invariant: nothing outside the folder is ever read, whatever the address says; a report runs in a sandbox without the
console's origin (:data:`dashboard.security.REPORT_POLICY`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from fastapi import APIRouter
from starlette.responses import FileResponse, Response

from dashboard.security import REPORT_POLICY
from servelens.errors import Missing

_SUFFIX = ".html"
_MOST = 50


@dataclass(frozen=True, slots=True)
class ReportFile:
    """A report: its name, address, time and size in bytes."""

    name: str
    address: str
    written_at: datetime
    size: int


class Reports:
    """The reports under one folder; it does not need to exist yet."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def list(self, endpoint: str) -> list[ReportFile]:
        """The newest reports of ``endpoint``: in the folder of that name, or named by it; 50 at the most."""
        root = self._folder.resolve()
        if not root.is_dir():
            return []
        found: list[ReportFile] = []
        for path in root.rglob(f"*{_SUFFIX}"):
            relative = path.relative_to(root)
            if relative.parts[0] != endpoint and not relative.name.startswith(f"{endpoint}-"):
                continue
            try:
                facts = path.stat()
            except OSError:
                continue  # it was cleaned up between the listing and now
            address = "/reports/" + "/".join(quote(part, safe="") for part in relative.parts)
            found.append(
                ReportFile(path.stem, address, datetime.fromtimestamp(facts.st_mtime, UTC), facts.st_size)
            )
        return sorted(found, key=lambda one: (one.written_at, one.name), reverse=True)[:_MOST]

    def find(self, address: str) -> Path:
        """The file at ``address`` below the folder. Raises :class:`~servelens.errors.Missing`."""
        root = self._folder.resolve()
        try:
            path = (root / address).resolve()
            usable = path.suffix == _SUFFIX and path.is_relative_to(root) and path.is_file()
        except (OSError, ValueError):
            usable = False
        if not usable:
            raise Missing("there is no such report", field=address[:200])
        return path


def router(reports: Reports) -> APIRouter:
    """``/reports/{address}``."""
    routes = APIRouter(tags=["reports"])

    @routes.get("/reports/{address:path}")
    def report(address: str) -> Response:
        """One report."""
        return FileResponse(
            reports.find(address),
            media_type="text/html",
            headers={
                "content-security-policy": REPORT_POLICY,
                "x-frame-options": "SAMEORIGIN",
                "cache-control": "no-cache",
            },
        )

    return routes
