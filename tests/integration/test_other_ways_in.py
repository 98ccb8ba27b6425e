"""Events and traces of models that are not behind the proxy, through the whole system into the tables."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from tests.integration.backend_process import backend_process, endpoint
from tests.integration.recorded import by_client_id, recorded
from tests.integration.system import System, free_port, wait_until
from tests.unit.collector.intake.running import REQUEST, RESPONSE, event_fields

ASKED = {
    "model": "qwen",
    "messages": [{"role": "user", "content": "How are you?"}],
    "user": "ada@example.com",
}
SAID = {
    "object": "chat.completion",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "Well."}, "finish_reason": "stop"},
    ],
    "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
}


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    gateway = {"inference_table_config": {"redact_paths": ["$.user"]}}
    intake = {"enabled": True, "port": free_port(), "join_timeout_s": 120}
    with (
        backend_process() as url,
        System(
            tmp_path_factory.mktemp("system"),
            [endpoint("chat", url, ai_gateway=gateway)],
            {"collector": {"intake": intake}},
            wait_for=("collector",),
        ) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def secret(system: System) -> str:
    """A key; from now on everybody needs one."""
    made = new_key(system, "sender")
    # Of a kind that is never kept: before the key is live, anything else would wait for its other half.
    wait_until(
        lambda: send(system, "com.example.other", "nobody", {}).status_code == 401, 20, "a key is needed"
    )
    return made


def new_key(system: System, name: str) -> str:
    command = [sys.executable, "-m", "servelens", "keys", "create", name, "--scope=invoke", "--config"]
    done = subprocess.run([*command, str(system.config)], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def intake_url(system: System) -> str:
    return f"http://127.0.0.1:{system.loaded().collector.intake.port}"


def send(system: System, kind: str, ident: str, body: Any, **fields: str) -> httpx.Response:
    head = {**event_fields(kind, ident), **fields}
    return httpx.post(intake_url(system), content=json.dumps(body), headers=head, timeout=30)


def insist(system: System, kind: str, ident: str, body: Any, **fields: str) -> None:
    """Send until it is answered: the collector may be starting again."""

    def answered() -> bool:
        try:
            return send(system, kind, ident, body, **fields).status_code == 200
        except httpx.TransportError:
            return False

    wait_until(answered, 60, f"{kind} of {ident} is accepted")


def trace(system: System, **headers: str) -> TracerProvider:
    provider = TracerProvider(resource=Resource.create({"service.name": "chat"}))
    exporter = OTLPSpanExporter(f"{intake_url(system)}/v1/traces", headers=headers, timeout=30)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def test_a_killed_collector_joins_what_came_before_and_after(system: System, secret: str) -> None:
    key = {"authorization": f"Bearer {secret}"}
    insist(system, REQUEST, "call-1", ASKED, **key)
    child = system.child("collector")
    assert child is not None
    child.kill()
    insist(system, RESPONSE, "call-1", SAID, **key)
    insist(system, REQUEST, "call-1", ASKED, **key)
    row = recorded(system, "chat", by_client_id("call-1"), 30)
    assert (row["prompt_text"], row["response_text"], row["finish_reason"]) == (
        "How are you?",
        "Well.",
        "stop",
    )
    assert (row["input_tokens"], row["output_tokens"], row["status_code"]) == (7, 2, 200)
    assert (row["served_entity"], row["endpoint"], row["error_type"]) == ("champion", "chat", None)
    assert row["worker_id"].startswith("intake-0-")
    spool = system.loaded().spool_directory
    journal = system.loaded().data_dir / "intake" / "events.db"
    files = [*spool.glob("intake-0/*"), journal, journal.with_name("events.db-wal")]
    assert not any(b"ada@example.com" in file.read_bytes() for file in files if file.is_file())
    verify = [sys.executable, "-m", "servelens", "verify", "--config", str(system.config)]
    done = subprocess.run(verify, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert row["worker_id"] in done.stdout


def test_traces_of_the_sdk_become_rows_and_metrics(system: System, secret: str) -> None:
    provider = trace(system, authorization=f"Bearer {secret}")
    with provider.get_tracer("test").start_as_current_span("chat qwen") as span:
        span.set_attributes(
            {
                "gen_ai.operation.name": "chat",
                "gen_ai.request.model": "qwen",
                "gen_ai.response.id": "chatcmpl-77",
                "gen_ai.input.messages": json.dumps(
                    [{"role": "user", "parts": [{"type": "text", "content": "Hello"}]}]
                ),
                "gen_ai.output.messages": json.dumps(
                    [
                        {
                            "role": "assistant",
                            "parts": [{"type": "text", "content": "Hi"}],
                            "finish_reason": "stop",
                        }
                    ]
                ),
                "gen_ai.usage.input_tokens": 1,
                "gen_ai.usage.output_tokens": 1,
            }
        )
        trace_id = f"{span.get_span_context().trace_id:032x}"
    provider.shutdown()
    row = recorded(system, "chat", pl.col("trace_id") == trace_id, 30)
    assert (row["prompt_text"], row["response_text"], row["client_request_id"]) == (
        "Hello",
        "Hi",
        "chatcmpl-77",
    )
    text = httpx.get(f"{system.collector_url}/metrics").text
    assert 'servelens_intake_events_total{outcome="accepted",way="otlp"} 1.0' in text
    assert "servelens_intake_halves_waiting 0.0" in text
    health = httpx.get(f"{system.collector_url}/health/ready").json()
    assert (health["status"], health["intake"]["failure"]) == ("ok", None)


def test_a_new_key_is_live_at_once_and_names_the_requester(system: System, secret: str) -> None:
    assert send(system, REQUEST, "call-2", ASKED).status_code == 401
    # As Go's client, and so KServe's logger, sends the password of http://x:sl-…@host/.
    address = intake_url(system).replace("://", f"://x:{new_key(system, 'kserve')}@")

    def answered(kind: str, body: Any) -> bool:
        head = event_fields(kind, "call-2")
        return httpx.post(address, content=json.dumps(body), headers=head, timeout=30).status_code == 200

    wait_until(lambda: answered(REQUEST, ASKED), 20, "the key is live")
    assert answered(RESPONSE, SAID)
    assert recorded(system, "chat", by_client_id("call-2"), 30)["requester"] == "kserve"


def test_without_keys_it_does_not_listen_to_the_network(tmp_path: Path) -> None:
    config = tmp_path / "servelens.yaml"
    config.write_text("{data_dir: data, collector: {intake: {enabled: true, host: 0.0.0.0}}}")
    done = subprocess.run(
        [sys.executable, "-m", "servelens", "collector", "--config", str(config)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert "collector.intake.host: listening on '0.0.0.0'" in done.stderr
    assert "Traceback" not in done.stderr
