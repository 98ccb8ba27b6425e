"""Ctrl-C drains the spool; a killed supervisor takes its children along and a new start carries on."""

from __future__ import annotations

import http.client
from pathlib import Path

import polars as pl
import psutil

from collector.record import UNROUTED
from tests.integration.backend_process import backend_process, endpoint
from tests.integration.system import System, post_json, wait_until


def send(system: System, count: int) -> set[str]:
    """The ids of ``count`` answered requests over one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", system.proxy_port, timeout=30)
    answered = set()
    for number in range(count):
        body = {"model": "chat", "messages": [{"role": "user", "content": f"number {number}"}]}
        status, request_id, _ = post_json(connection, "/v1/chat/completions", body)
        assert status == 200
        assert request_id is not None
        answered.add(request_id)
    connection.close()
    return answered


def ids(system: System, name: str = "chat") -> list[str]:
    return system.tables(name).payload.scan().collect()["databricks_request_id"].to_list()


def test_stops_and_starts_lose_nothing(tmp_path: Path) -> None:
    with backend_process() as url, System(tmp_path, [endpoint("chat", url)], wait_for=("proxy",)) as system:
        answered = send(system, 300)
        assert system.stop() == 0  # at once: what is not in the table yet must be drained
        assert sorted(ids(system)) == sorted(answered)

        system.start()
        answered |= send(system, 300)
        children = psutil.Process(system.process.pid).children()
        system.process.kill()
        system.process.wait()
        gone, alive = psutil.wait_procs(children, timeout=60)
        assert not alive, "children outlived their supervisor"
        assert len(gone) == len(children)

        system.start()
        wait_until(lambda: len(ids(system)) >= len(answered), 30, "all records are in the table")
        answered |= send(system, 20)
        assert system.stop() == 0
        assert sorted(ids(system)) == sorted(answered)


def test_a_request_that_reached_no_endpoint_is_recorded(tmp_path: Path) -> None:
    with backend_process() as url, System(tmp_path, [endpoint("chat", url)], wait_for=("proxy",)) as system:
        connection = http.client.HTTPConnection("127.0.0.1", system.proxy_port, timeout=30)
        status, unknown, _ = post_json(
            connection, "/v1/chat/completions", {"model": "nobody", "messages": []}
        )
        assert status == 404
        connection.request("POST", "/v1/chat/completions", b'{"model": "chat", "messages": [', {})
        answer = connection.getresponse()
        malformed = answer.getheader("x-request-id")
        assert answer.status == 400
        assert b'"error"' in answer.read()
        connection.close()
        assert system.stop() == 0
        rows = system.tables(UNROUTED).payload.scan().collect()
        found = dict(rows.select("databricks_request_id", "error_type").iter_rows())
        assert found == {unknown: "unknown_endpoint", malformed: "invalid_request"}
        kept = rows.filter(pl.col("databricks_request_id") == malformed)
        assert kept["request"].item() == '{"model": "chat", "messages": ['
