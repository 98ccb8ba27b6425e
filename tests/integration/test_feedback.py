"""Feedback in the whole system: what was confirmed is in the table of its call's endpoint, whoever is killed meanwhile."""

from __future__ import annotations

import http.client
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from collector.catalog import UNROUTED
from servelens.identifiers import RequestIds
from tests.integration.backend_process import backend_process, endpoint
from tests.integration.system import System, post_json, wait_until

CALLS = 16


class App:
    """An application that calls, says what its users thought, and sends again what was not confirmed."""

    def __init__(self, system: System) -> None:
        self._system = system
        self.sent_again = 0

    def post(self, path: str, body: Mapping[str, Any]) -> tuple[int, str | None, bytes]:
        """Until it is answered."""
        found: list[tuple[int, str | None, bytes]] = []

        def answered() -> bool:
            connection = http.client.HTTPConnection("127.0.0.1", self._system.proxy_port, timeout=10)
            try:
                found.append(post_json(connection, path, body))
            except (OSError, http.client.HTTPException):
                self.sent_again += 1
                return False
            finally:
                connection.close()
            return True

        wait_until(answered, 60, "the proxy answers")
        return found[0]

    def call(self, model: str, number: int) -> str:
        body = {"model": model, "messages": [{"role": "user", "content": f"number {number}"}]}
        status, request_id, _ = self.post(
            "/v1/chat/completions", {**body, "client_request_id": f"own-{number}"}
        )
        assert status == 200
        assert request_id is not None
        return request_id

    def say(self, **body: Any) -> None:
        status, _, content = self.post("/v1/feedback", body)
        assert status == 202, content


def kill(system: System, command: str) -> None:
    """With SIGKILL, as soon as it runs."""
    wait_until(lambda: system.child(command) is not None, 60, f"{command} runs")
    child = system.child(command)
    assert child is not None
    child.kill()


def said(system: System, name: str) -> pl.DataFrame:
    return system.tables(name).feedback.scan().collect()


@pytest.mark.timeout(240)
def test_confirmed_feedback_is_with_its_call_though_nobody_named_the_endpoint(tmp_path: Path) -> None:
    with (
        backend_process() as url,
        System(
            tmp_path,
            [endpoint("chat", url), endpoint("code", url)],
            {"feedback": {"every_s": 0.3}},
            ("proxy", "console"),
        ) as system,
    ):
        app = App(system)
        about: dict[str, set[str]] = {"chat": set(), "code": set()}
        for number in range(CALLS):
            name = ("chat", "code")[number % 2]
            request_id = app.call(name, number)
            about[name].add(request_id)
            if number % 4 == 3:
                app.say(client_request_id=f"own-{number}", thumbs="up", user="ada")
            else:
                app.say(
                    request_id=request_id, thumbs="up", comment="x", user="ada", feedback_id=f"f-{number}"
                )
            if number % 5 == 4:  # right after the answer, whose promise is put to the test
                kill(system, ("proxy", "collector")[number % 2])
        again = sorted(about["chat"])[0]
        app.say(request_id=again, thumbs="up", user="ada", feedback_id="twice")
        app.say(request_id=again, thumbs="down", user="ada", feedback_id="twice")
        unknown = RequestIds().next()
        app.say(request_id=unknown, score=1)
        app.say(request_id=unknown, score=1, model="chat")
        assert app.post("/v1/feedback", {"request_id": "chatcmpl-7", "thumbs": "up"})[0] == 400

        def arrived() -> bool:
            return all(
                about[name] <= set(said(system, name)["databricks_request_id"]) for name in about
            ) and set(said(system, UNROUTED)["databricks_request_id"]) == {unknown}

        wait_until(arrived, 90, "all feedback is with its calls")
        wait_until(lambda: unknown in said(system, "chat")["databricks_request_id"], 60, "and what was named")
        chat, code = said(system, "chat"), said(system, "code")
        assert set(code["databricks_request_id"]) == about["code"]
        assert set(chat["databricks_request_id"]) == about["chat"] | {unknown}
        # Whoever was not answered sent again, and only then can a row be there twice.
        assert len(chat) + len(code) <= 2 * CALLS - CALLS // 4 + 3 + 2 * app.sent_again
        thumbs = pl.concat([chat, code]).filter(
            pl.col("name") == "thumbs", pl.col("databricks_request_id") == again
        )
        assert thumbs.sort("feedback_time")["value"].to_list()[-1] == 0.0
        joined = (
            system.tables("code")
            .payload.scan()
            .collect()
            .join(code, on=["databricks_request_id", "request_time"])
        )
        assert set(joined["databricks_request_id"]) == about["code"], (
            "the time of the request is the record's"
        )

        told = httpx.get(f"{system.console_url}/api/relabel/feedback/unmatched").json()
        assert told["endpoints"] == {"chat": 1, "code": 0}
        assert told["without_endpoint"] == 1
        assert {each["databricks_request_id"] for each in told["newest"]} == {unknown}
        wait_until(
            lambda: "servelens_feedback_waiting 1.0" in httpx.get(f"{system.scheduler_url}/metrics").text,
            60,
            "the scheduler tells what it looks for",
        )
        assert system.stop() == 0
        command = [sys.executable, "-m", "servelens", "verify", "--config", str(system.config)]
        books = subprocess.run(command, capture_output=True, text=True, check=False)
        assert books.returncode == 0, books.stdout
        assert not list((tmp_path / "data" / "dead-letter").glob("**/*.json"))
