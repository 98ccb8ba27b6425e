"""Serve the console over a filled data folder, to look at by hand.

``python -m tests.browser.serve FOLDER PORT RECORDS``; with 0 records everything is there but the data.
"""

from __future__ import annotations

import sys
from pathlib import Path

import uvicorn

from dashboard.app import create_console
from servelens.clock import SystemClock
from tests.browser.filled_system import build


def main() -> None:
    folder, port, records = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    services = build(
        folder, SystemClock(), records=0 if (folder / "servelens.db").exists() else records, canary=True
    )
    uvicorn.run(create_console(services), host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    main()
