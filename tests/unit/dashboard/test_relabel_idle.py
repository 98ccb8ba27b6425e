"""What the Relabel page says while nobody has a case."""

from __future__ import annotations

from dataclasses import replace

from dashboard.console import Console
from dashboard.pages.relabel_idle import idle_view
from dashboard.services import ConsoleServices
from relabel.queue.case_queue import CaseQueue


def test_the_lease_is_the_one_that_is_set(services: ConsoleServices) -> None:
    queue = CaseQueue(services.database, services.clock, lease_s=300, schemas=services.schemas)
    console = Console(replace(services, queue=queue))
    view = console.view({"endpoint": "support-chat"})
    shown = str(idle_view(console, view, disputes=False, finished=False))
    assert "It is yours for 5 minutes at a time" in shown
