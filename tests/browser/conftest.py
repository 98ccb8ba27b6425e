"""Chromium against a console that runs in a thread; an error in the page's console or a failed request fails the test."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import uvicorn
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    Response,
    sync_playwright,
)

from dashboard.app import create_console
from dashboard.services import ConsoleServices
from servelens.clock import SystemClock
from tests.browser.filled_system import build

TIMEOUT_MS = 30_000
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@dataclass(frozen=True)
class Served:
    """A console that listens on ``url``."""

    url: str
    services: ConsoleServices


@dataclass
class Tab:
    """A page of the browser, and what went wrong in it; a test names what it expects in ``expected``."""

    page: Page
    problems: list[str] = field(default_factory=list)
    expected: tuple[str, ...] = ()

    def unexpected(self) -> list[str]:
        """The problems that the test did not announce."""
        return [one for one in self.problems if not any(part in one for part in self.expected)]


@contextmanager
def served(services: ConsoleServices) -> Iterator[Served]:
    """Serve the console on a free port of the loopback interface while the block runs."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    config = uvicorn.Config(create_console(services), log_level="warning", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="console")
    thread.start()
    try:
        # The socket takes connections before the server does; they wait.
        httpx.get(f"http://127.0.0.1:{listener.getsockname()[1]}/health/live", timeout=60).raise_for_status()
        yield Served(f"http://127.0.0.1:{listener.getsockname()[1]}", services)
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()
        services.database.dispose()
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A console over a day of traffic."""
    with served(build(tmp_path_factory.mktemp("filled"), SystemClock(), records=900, canary=True)) as console:
        yield console


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A console over nothing at all."""
    with served(build(tmp_path_factory.mktemp("bare"), SystemClock(), records=0)) as console:
        yield console


# Of module scope: while Playwright runs, the thread counts as inside an event loop, and no asynchronous test could run.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("Chromium is not installed; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=list(_FLAGS))
        yield started
        started.close()


@pytest.fixture(scope="module")
def contexts(browser: Browser) -> Iterator[dict[tuple[int, str], BrowserContext]]:
    """Browser profiles by width and scheme; tabs of one share the cache of scripts, which saves most of the time."""
    opened: dict[tuple[int, str], BrowserContext] = {}
    yield opened
    for context in opened.values():
        context.close()


@pytest.fixture
def open_tab(
    browser: Browser, contexts: dict[tuple[int, str], BrowserContext]
) -> Iterator[Callable[..., Tab]]:
    """Opens tabs that remember nothing of earlier tests."""
    tabs: list[Tab] = []

    def open_one(width: int = 1440, height: int = 900, scheme: str = "light") -> Tab:
        context = contexts.get((width, scheme))
        if context is None:
            context = contexts[width, scheme] = browser.new_context(
                viewport={"width": width, "height": height},
                color_scheme="dark" if scheme == "dark" else "light",
                timezone_id="Europe/Berlin",
                locale="en-GB",
            )
            context.set_default_timeout(TIMEOUT_MS)
        tab = Tab(context.new_page())
        _watch(tab)
        tabs.append(tab)
        return tab

    yield open_one
    found = [one for tab in tabs for one in tab.unexpected()]
    for tab in tabs:
        tab.page.evaluate("window.localStorage.clear()")
        tab.page.close()
    assert not found, "\n".join(found)


@pytest.fixture
def tab(open_tab: Callable[..., Tab]) -> Tab:
    """A tab on a wide screen."""
    return open_tab()


def _watch(tab: Tab) -> None:
    def console(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            tab.problems.append(f"console {message.type}: {message.text}")

    def response(answer: Response) -> None:
        if answer.status >= 400:
            tab.problems.append(f"{answer.status} {answer.url}")
        if not answer.url.startswith(("http://127.0.0.1:", "data:", "blob:")):
            tab.problems.append(f"fetched from elsewhere: {answer.url}")

    def failed(request: Request) -> None:
        # Leaving a page cancels what it was still asking for.
        if request.failure != "net::ERR_ABORTED":
            tab.problems.append(f"failed {request.url}: {request.failure}")

    tab.page.on("console", console)
    tab.page.on("pageerror", lambda error: tab.problems.append(f"script error: {error}"))
    tab.page.on("response", response)
    tab.page.on("requestfailed", failed)


@pytest.fixture
def downloads(tmp_path: Path) -> Path:
    """A folder for what a test downloads."""
    return tmp_path
