"""SIGKILL at random moments under load: every answered request is in the table exactly once."""

from __future__ import annotations

import http.client
import random
import threading
import time
from pathlib import Path

import polars as pl
import psutil
import pytest

from tests.integration.backend_process import backend_process, endpoint
from tests.integration.system import System, post_json, wait_until

REQUESTS = 5_000
KILLS = 24
SENDERS = 6


class Load:
    """Threads that send until they are told to stop, and remember what was answered whole."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.answered: list[str] = []
        self.cut = 0
        self.refused: list[tuple[int, bytes]] = []
        self._threads = [threading.Thread(target=self._send, args=(number,)) for number in range(SENDERS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _send(self, sender: int) -> None:
        number = 0
        while not self._stop.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
            try:
                while not self._stop.is_set():
                    number += 1
                    body = {
                        "model": "chat",
                        "messages": [{"role": "user", "content": f"sender {sender} number {number}"}],
                        "user": f"user-{number % 50}",
                        "stream": number % 3 == 0,
                    }
                    status, request_id, content = post_json(connection, "/v1/chat/completions", body)
                    with self._lock:
                        if status == 200 and request_id:
                            self.answered.append(request_id)
                        else:
                            self.refused.append((status, content))
            except (OSError, http.client.HTTPException):
                with self._lock:
                    self.cut += 1
                time.sleep(0.02)  # nobody listens for a moment: that is the point of the test
            finally:
                connection.close()


def kill_at_random(system: System, chance: random.Random) -> dict[str, int]:
    kills = {"proxy-0": 0, "proxy-1": 0, "collector": 0}
    while sum(kills.values()) < KILLS:
        victim = chance.choice(list(kills))
        command, slot = ("collector", None) if victim == "collector" else ("proxy", victim)
        wait_until(
            lambda command=command, slot=slot: system.child(command, slot) is not None, 60, f"{victim} runs"
        )  # type: ignore[misc]
        time.sleep(chance.uniform(0.0, 1.2))  # the moment of the kill is what is random here
        child = system.child(command, slot)
        if child is not None:
            try:
                child.kill()
            except psutil.NoSuchProcess:
                continue
            kills[victim] += 1
    return kills


@pytest.mark.timeout(420)
def test_every_answered_request_is_in_the_table_exactly_once(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails
    with (
        backend_process() as url,
        System(
            tmp_path,
            [endpoint("chat", url, {"champion": 50, "challenger": 50})],
            {"proxy": {"workers": 2}},
            ("proxy",),
        ) as system,
    ):
        with Load(system.proxy_port) as load:
            kills = kill_at_random(system, random.Random(seed))
            wait_until(lambda: len(load.answered) >= REQUESTS, 120, f"{REQUESTS} answers")
        assert sum(kills.values()) >= KILLS
        assert min(kills.values()) >= 1, kills
        answered = set(load.answered)
        assert len(answered) == len(load.answered), "a request id was given twice"
        assert not load.refused, load.refused[:3]
        table = system.tables("chat").payload

        def ids() -> pl.Series:
            return table.scan().select("databricks_request_id").collect()["databricks_request_id"]

        wait_until(lambda: answered <= set(ids()), 60, "every answered request is in the table")
        assert system.stop() == 0
        check(table.scan().collect(), answered)
        before = len(ids())
        system.start()
        assert system.stop() == 0
        assert len(ids()) == before, "a restart added records"
        assert not list((tmp_path / "data" / "dead-letter").glob("**/*.json"))


def check(rows: pl.DataFrame, answered: set[str]) -> None:
    assert rows["databricks_request_id"].is_unique().all(), "a record is in the table twice"
    assert answered <= set(rows["databricks_request_id"])
    whole = rows.filter(pl.col("databricks_request_id").is_in(list(answered)))
    assert (whole["status_code"] == 200).all()
    assert whole["response_text"].str.starts_with("echo: sender ").all()
    offsets = rows.group_by("worker_id").agg(
        pl.col("spool_offset").n_unique().alias("distinct"),
        pl.len().alias("rows"),
        pl.col("spool_offset").min().alias("first"),
        pl.col("spool_offset").max().alias("last"),
    )
    for worker in offsets.iter_rows(named=True):
        assert worker["distinct"] == worker["rows"], worker
        assert worker["first"] == 0, worker
        assert worker["last"] == worker["rows"] - 1, f"a gap in the spool's offsets: {worker}"
