"""How a process starts and is asked to stop, the same for all of them."""

from __future__ import annotations

import logging
import os
import signal
import threading
from types import FrameType

from servelens.supervisor import stop_when_orphaned, unblock_sigterm
from servelens.telemetry import configure_logging


def start(name: str, *, supervised: bool) -> None:
    """Configure logging, and follow the supervisor's life when there is one."""
    configure_logging(supervised=supervised)
    if supervised:
        stop_when_orphaned()
    logging.getLogger("servelens").info("%s started: process=%d", name, os.getpid())


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set; a second SIGINT interrupts at once.

    Call it before anything slow: a stop that comes earlier is kept by the supervisor's mask and handled here.
    """
    stop = threading.Event()

    def ask(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        stop.set()

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)
    unblock_sigterm()
    return stop
