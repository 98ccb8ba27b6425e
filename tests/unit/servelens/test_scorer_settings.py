"""Settings of the safety guardrail and of its scorer: what an endpoint gets, and when `servelens up` starts a scorer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from servelens.assembly.endpoints import build_endpoint
from servelens.processes.up import programs
from servelens.settings import Settings
from serving_proxy.gateway import Safety


def settings(safety: Any, **more: Any) -> Settings:
    entity = {"name": "a", "backend": {"urls": ["http://127.0.0.1:8000"]}}
    endpoint = {
        "name": "chat",
        "config": {"served_entities": [entity]},
        "ai_gateway": {"guardrails": {"output": {"safety": safety}}},
    }
    return Settings.model_validate({"endpoints": [endpoint], **more})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (True, Safety("block", fails_open=False)),
        ({}, Safety("block", fails_open=False)),
        ({"action": "mask"}, Safety("mask", fails_open=False)),
        ({"action": "flag"}, Safety("flag", fails_open=True)),
        ({"action": "flag", "on_failure": "closed"}, Safety("flag", fails_open=False)),
        (
            {"on_failure": "open", "threshold": 0.8, "timeout_ms": 50, "streams": "after"},
            Safety("block", threshold=0.8, fails_open=True, timeout_s=0.05, streams="after"),
        ),
    ],
)
def test_what_an_endpoint_gets(given: Any, expected: Safety) -> None:
    guardrails = build_endpoint(settings(given).endpoints[0]).gateway.output_guardrails
    assert guardrails is not None
    assert guardrails.safety == expected


def test_without_safety_nothing_is_screened() -> None:
    endpoint = build_endpoint(settings(False).endpoints[0])
    assert endpoint.gateway.output_guardrails is None
    assert not endpoint.asks_scorer


@pytest.mark.parametrize(
    ("safety", "scorer", "runs"),
    [
        (True, {}, True),
        (False, {}, False),
        (False, {"enabled": True}, True),
        (True, {"enabled": False}, False),
        (True, {"url": "http://gpu-1:8054"}, False),
        (True, {"url": "http://gpu-1:8054", "enabled": True}, True),
    ],
)
def test_when_a_scorer_is_started(safety: bool, scorer: dict[str, Any], runs: bool) -> None:
    names = [program.name for program in programs(settings(safety, scorer=scorer), Path("servelens.yaml"))]
    assert ("scorer" in names) == runs


@pytest.mark.parametrize(
    ("scorer", "address"),
    [
        ({}, "http://127.0.0.1:8054"),
        ({"host": "0.0.0.0", "port": 9000}, "http://127.0.0.1:9000"),
        ({"host": "::1"}, "http://[::1]:8054"),
        ({"url": "https://scorer.example/safety/"}, "https://scorer.example/safety"),
    ],
)
def test_where_proxies_find_it(scorer: dict[str, Any], address: str) -> None:
    assert settings(True, scorer=scorer).scorer.address == address


@pytest.mark.parametrize(
    ("safety", "scorer", "place"),
    [
        ("yes", {}, "safety"),
        ({"action": "warn"}, {}, "action"),
        ({"threshold": 0}, {}, "threshold"),
        ({"timeout_ms": 0}, {}, "timeout_ms"),
        (True, {"url": "gpu-1:8054"}, "url"),
        (True, {"url": "http://gpu-1:http"}, "url"),
        (True, {"port": 0}, "port"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(safety: Any, scorer: dict[str, Any], place: str) -> None:
    with pytest.raises(ValidationError) as refused:
        settings(safety, scorer=scorer)
    assert refused.value.errors()[0]["loc"][-1] == place
