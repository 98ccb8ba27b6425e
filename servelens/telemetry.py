"""How every process logs: one line an event, to standard error, readable by people and by ``key=value`` tools."""

from __future__ import annotations

import logging
import sys

_NOISY = ("apscheduler", "httpx", "urllib3", "asyncio", "uvicorn", "evidently", "transformers")


def configure_logging(level: str = "INFO", *, supervised: bool = False) -> None:
    """Send all logging to standard error.

    ``supervised`` leaves out the time, which the supervisor writes in front of every line.
    """
    form = "%(levelname)-7s %(name)s: %(message)s"
    if not supervised:
        form = f"%(asctime)s {form}"
    logging.basicConfig(level=level, format=form, stream=sys.stderr, force=True)
    logging.captureWarnings(True)
    for name in _NOISY:
        logging.getLogger(name).setLevel(max(logging.getLogger().level, logging.WARNING))
