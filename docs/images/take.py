"""Takes the README's picture from a running demo: ``python docs/images/take.py http://127.0.0.1:8050``.

Needs Debian's Chromium. The address may be followed by the file to write; other pages and ranges go into the address.
"""

from __future__ import annotations

import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

_FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]

_SETTLE_MS = 4_000


def take(url: str, file: Path, width: int = 1280, height: int = 860) -> None:
    """Open ``url``, wait until its charts are drawn and nothing is loading, and write ``file``."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=_FLAGS)
        page = browser.new_page(viewport={"width": width, "height": height}, device_scale_factor=1.5)
        page.goto(url)
        page.wait_for_selector("main h1, h1")
        page.wait_for_timeout(_SETTLE_MS)  # a live page never falls silent, and charts are drawn one by one
        page.screenshot(path=file)
        browser.close()


if __name__ == "__main__":
    address = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8050"
    take(
        address if "?" in address else f"{address.rstrip('/')}/?range=15m",
        Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).with_name("overview.png"),
    )
