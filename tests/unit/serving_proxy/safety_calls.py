"""What the tests of the safety guardrail share: an endpoint that has it, behind a backend and before a scorer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from serving_proxy.endpoint import (
    Backend,
    Endpoint,
    Gateway,
    Guardrails,
    Route,
    Safety,
    ServedEntity,
    Timeouts,
)
from serving_proxy.routing import Snapshot
from tests.backends import Behaviour, OpenAIBackend
from tests.unit.evaluators.scorer_service.running_scorer import RuleEvaluator, running_scorer
from tests.unit.serving_proxy.running_proxy import RunningProxy, running_proxy

GOOD = "The weather is nice today. "
BAD = "I hate all of you people. "
MARK = "<UNSAFE>"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
CLOSED_PORT = "http://127.0.0.1:1"


def safe(action: Any = "block", **fields: Any) -> Guardrails:
    """Patient, because the machine that runs the tests may be slow."""
    return Guardrails(safety=Safety(action, **{"timeout_s": 5.0, **fields}))


def snapshot(
    url: str,
    before: Guardrails | None = None,
    after: Guardrails | None = None,
    *,
    timeouts: Timeouts | None = None,
    api: Any = "openai",
    **gateway: Any,
) -> Snapshot:
    """Endpoint ``chat`` with these guardrails."""
    entity = ServedEntity("only", Backend((url,), api=api, timeouts=timeouts or Timeouts()))
    gate = Gateway(input_guardrails=before, output_guardrails=after, **gateway)
    return Snapshot.of([Endpoint("chat", (entity,), (Route("only", 100),), gateway=gate)])


class Setting:
    """A backend, a scorer with its rule, and a proxy between them."""

    def __init__(self, backend: OpenAIBackend, rule: RuleEvaluator, proxy: RunningProxy) -> None:
        self.backend = backend
        self.rule = rule
        self.proxy = proxy


@asynccontextmanager
async def setting(
    root: Path,
    before: Guardrails | None = None,
    after: Guardrails | None = None,
    behaviour: Behaviour | None = None,
    *,
    scorer_url: str | None = None,
    graceful_s: float = 30.0,
    **endpoint: Any,
) -> AsyncIterator[Setting]:
    rule = RuleEvaluator()
    async with OpenAIBackend(behaviour) as backend, running_scorer(rule) as url:
        served = snapshot(backend.url, before, after, **endpoint)
        async with running_proxy(root, served, scorer_url=scorer_url or url, graceful_s=graceful_s) as proxy:
            yield Setting(backend, rule, proxy)
