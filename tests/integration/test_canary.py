"""Canaries in real processes: a bad one is taken back, a good one is promoted, and a death in the middle changes neither."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import psutil
import pytest

from tests.backends import BackendThread, Behaviour, OpenAIBackend
from tests.integration.system import System, wait_until

LIMIT_S = 60.0
LIVE_WITHIN_S = 5.0  # a worker follows within one second; this machine may be busy
STEPS = ({"weight": 20, "events": 10}, {"weight": 40, "events": 20}, {"weight": 50, "events": 40})


class Receiver:
    """A webhook's address that keeps what it hears, and calls ``at`` with it before it answers."""

    def __init__(self, at: Callable[[Mapping[str, Any]], None] = lambda _: None) -> None:
        self.heard: list[dict[str, Any]] = []
        heard = self.heard

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                document = json.loads(self.rfile.read(int(self.headers["content-length"])))
                heard.append(document)
                at(document)
                with contextlib.suppress(OSError):  # who asked may be dead by now
                    self.send_response(204)
                    self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Users:
    """New users of one endpoint, one call each, over one connection."""

    def __init__(self, system: System, endpoint: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", system.proxy_port, timeout=30)
        self._endpoint = endpoint
        self._numbers = itertools.count()

    def call(self, count: int) -> dict[str, int]:
        """How many were answered by whom (a proxy that answers itself, for want of a backend, counts as '')."""
        answered: dict[str, int] = {}
        for number in itertools.islice(self._numbers, count):
            content = [{"role": "user", "content": "hi"}]
            body = {"model": self._endpoint, "messages": content, "user": f"{self._endpoint}-{number}"}
            self._connection.request(
                "POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"}
            )
            answer = self._connection.getresponse()
            answer.read()
            entity = answer.getheader("x-servelens-served-entity") or ""
            answered[entity] = answered.get(entity, 0) + 1
        return answered

    def close(self) -> None:
        self._connection.close()

    def call_until(self, condition: Callable[[], bool], what: str) -> None:
        """Call, in a steady flow, until ``condition`` holds."""
        deadline = time.monotonic() + LIMIT_S
        while not condition():
            assert time.monotonic() < deadline, f"not within {LIMIT_S:g} s: {what}"
            self.call(20)


class Api:
    """The console's HTTP API of experiments, and the control plane's of endpoints."""

    def __init__(self, system: System) -> None:
        self._system = system

    def start(self, name: str, **more: Any) -> dict[str, Any]:
        answer = httpx.post(f"{self._base}", json=canary(name, **more), timeout=30)
        assert answer.status_code == 201, answer.text
        started: dict[str, Any] = answer.json()
        return started

    def standing(self, name: str) -> dict[str, Any]:
        answer = httpx.get(f"{self._base}/{name}", timeout=30)
        answer.raise_for_status()
        standing: dict[str, Any] = answer.json()
        return standing

    def ended(self, name: str) -> Callable[[], bool]:
        return lambda: self.standing(name)["state"] == "stopped"

    def decisions(self, name: str) -> list[dict[str, Any]]:
        """The oldest first."""
        answer = httpx.get(f"{self._base}/{name}/decisions", params={"limit": 1000}, timeout=30)
        answer.raise_for_status()
        return list(reversed(answer.json()["decisions"]))

    def changes(self, name: str) -> list[dict[str, Any]]:
        """The decisions that were carried out, in their order."""
        return [each for each in self.decisions(name) if each["applied"]]

    def routes(self, endpoint: str) -> dict[str, float]:
        """What the proxy's workers serve now."""
        answer = httpx.get(f"{self._system.proxy_url}/api/2.0/serving-endpoints/{endpoint}", timeout=30)
        routes = answer.json()["config"]["traffic_config"]["routes"]
        return {route["served_entity_name"]: route["traffic_percentage"] for route in routes}

    @property
    def _base(self) -> str:
        return f"{self._system.console_url}/api/experiments"


def canary(endpoint: str, **rollout: Any) -> dict[str, Any]:
    """A canary of the endpoint's name."""
    steps = [{"duration_s": 1, **step} for step in STEPS]
    return {
        "name": endpoint,
        "endpoint": endpoint,
        "kind": "canary",
        "control": {"served_entity": "old"},
        "treatments": [{"served_entity": "new"}],
        "guardrails": [{"metric": "error_rate", "margin": 0.1}],
        "rollout": {"steps": steps, **rollout},
    }


def endpoint(name: str, old: str, new: str) -> dict[str, Any]:
    entities = [
        {"name": "old", "backend": {"urls": [old]}},
        {"name": "new", "backend": {"urls": [new]}},
    ]
    routes = [{"served_entity_name": "old", "traffic_percentage": 100}]
    return {"name": name, "config": {"served_entities": entities, "traffic_config": {"routes": routes}}}


def command(system: System, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "servelens", "experiment", *arguments, "--config", str(system.config)],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def every_other_fails() -> Callable[[object], Behaviour]:
    calls = itertools.count()
    return lambda _request: Behaviour(status=500 if next(calls) % 2 else 200)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with BackendThread() as good, BackendThread(OpenAIBackend(respond=every_other_fails())) as bad:
        endpoints = [
            endpoint("worse", good.url, bad.url),
            endpoint("better", good.url, good.url),
            endpoint("survivor", good.url, good.url),
        ]
        settings: Mapping[str, Any] = {
            "experiments_every_s": 0.3,
            "experiments": [canary("worse")],
            "collector": {"commit_interval_s": 0.3},
        }
        with System(tmp_path_factory.mktemp("canary"), endpoints, settings) as running:
            yield running


@pytest.fixture
def users_of(system: System) -> Iterator[Callable[[str], Users]]:
    with contextlib.ExitStack() as stack:
        yield lambda endpoint: stack.enter_context(contextlib.closing(Users(system, endpoint)))


@pytest.fixture
def api(system: System) -> Api:
    return Api(system)


def test_one_that_fails_often_is_taken_back(
    system: System, api: Api, users_of: Callable[[str], Users]
) -> None:
    users = users_of("worse")
    users.call_until(api.ended("worse"), "it ended")
    standing = api.standing("worse")
    assert (standing["outcome"], standing["changed_by"]) == ("rolled_back", "rollout")
    last = api.changes("worse")[-1]
    assert (last["decision"], last["applied"], last["evidence"]["cause"]) == ("roll_back", True, "breach")
    assert standing["reason"] == last["reason"]
    assert last["reason"].startswith("error rate of new is ")
    (guardrail,) = last["evidence"]["guardrails"]
    assert guardrail["state"] == "breached"
    assert guardrail["running_log_e"] >= guardrail["threshold"] > 0
    assert guardrail["harm"] > 0.1
    assert last["evidence"]["weights"] == {"old": 100, "new": 0}
    assert last["evidence"]["versions"]["payload"] > 0
    assert last["evidence"]["code_version"]

    wait_until(lambda: users.call(20) == {"old": 20}, LIVE_WITHIN_S, "only the control answers")
    assert users.call(200) == {"old": 200}
    assert api.routes("worse") == {"old": 100}
    replayed = command(system, "replay", "worse", "--looks", "1000")
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    looks = replayed.stdout.splitlines()
    assert all(look.endswith(": agrees") for look in looks), looks
    assert any("  decision roll_back: agrees" in look for look in looks)
    reports = [look for look in looks if look.endswith("  report: agrees")]
    assert reports[0].split()[0] == standing["report"]["as_of"]


def test_a_good_one_goes_up_its_steps_and_is_promoted(api: Api, users_of: Callable[[str], Users]) -> None:
    users = users_of("better")
    with Receiver() as receiver:
        started = api.start("better", webhooks=[{"url": receiver.url}])
        assert started["definition"]["treatments"][0]["weight"] == STEPS[0]["weight"]
        users.call_until(api.ended("better"), "it ended")
    standing = api.standing("better")
    assert standing["outcome"] == "promoted"
    changes = api.changes("better")
    assert [each["decision"] for each in changes] == ["advance", "advance", "promote"]
    assert_every_step_was_taken_once(changes)
    (guardrail,) = changes[-1]["evidence"]["guardrails"]
    assert (guardrail["state"], guardrail["upper"] < guardrail["margin"]) == ("cleared", True)
    wait_until(lambda: api.routes("better") == {"new": 100}, LIVE_WITHIN_S, "the route has moved")
    wait_until(lambda: users.call(20) == {"new": 20}, LIVE_WITHIN_S, "the new one answers")
    assert users.call(100) == {"new": 100}
    heard = [(each["decision"], each["step"], each["weights"]["new"]) for each in receiver.heard]
    assert heard == [("advance", 0, 40), ("advance", 1, 50), ("promote", 2, 100)]
    assert len({each["id"] for each in receiver.heard}) == len(heard)


def test_a_scheduler_that_is_killed_skips_and_doubles_no_step(
    system: System, api: Api, users_of: Callable[[str], Users]
) -> None:
    """It dies while it asks whether to take a step, while it tells of one that was taken, and of the promotion."""
    deaths = {("advance", 0, "before"), ("advance", 1, "after"), ("promote", 2, "after")}
    killed: list[psutil.Process] = []

    def kill_once(document: Mapping[str, Any]) -> None:
        what = (document["decision"], document["step"], document["when"])
        if what in deaths:
            deaths.remove(what)
            scheduler = system.child("scheduler")
            assert scheduler is not None
            scheduler.kill()
            killed.append(scheduler)

    users = users_of("survivor")
    with Receiver(kill_once) as receiver:
        hooks = [{"url": receiver.url, "when": "before"}, {"url": receiver.url, "when": "after"}]
        api.start("survivor", webhooks=hooks)
        users.call_until(api.ended("survivor"), "it ended")
        last = api.changes("survivor")[-1]["id"]

        def is_told() -> bool:
            told = {each["id"]: each["evidence"]["progress"] for each in api.changes("survivor")}
            return bool(told[last] == "told")

        wait_until(is_told, LIMIT_S, "the promotion is told of, again")
    assert (len({each.pid for each in killed}), deaths) == (3, set())
    assert api.standing("survivor")["outcome"] == "promoted"
    changes = api.changes("survivor")
    assert [each["decision"] for each in changes] == ["advance", "advance", "promote"]
    assert_every_step_was_taken_once(changes)
    heard = [(each["decision"], each["step"], each["when"]) for each in receiver.heard]
    assert heard == [
        ("advance", 0, "before"),
        ("advance", 0, "before"),  # asked anew: nothing had been done yet
        ("advance", 0, "after"),
        ("advance", 1, "before"),
        ("advance", 1, "after"),
        ("advance", 1, "after"),  # told again
        ("promote", 2, "before"),
        ("promote", 2, "after"),
        ("promote", 2, "after"),
    ]
    assert len({each["id"] for each in receiver.heard}) == len(changes), "said again under another id"
    wait_until(lambda: api.routes("survivor") == {"new": 100}, LIVE_WITHIN_S, "the route has moved")


def assert_every_step_was_taken_once(changes: list[dict[str, Any]]) -> None:
    """Each decision is about the step and phase that the one before it led to, after the step's time and events."""
    for step, (change, wanted) in enumerate(zip(changes, STEPS, strict=True)):
        assert (change["step"], change["phase"]) == (step, step)
        assert change["evidence"]["step_events"] >= wanted["events"]
    began = [each["decided_at"] for each in changes]
    assert all(seconds_between(*pair) >= 1 for pair in itertools.pairwise(began))


def seconds_between(earlier: str, later: str) -> float:
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()
