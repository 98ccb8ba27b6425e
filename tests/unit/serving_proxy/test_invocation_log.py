"""The canonical log line: one line whatever clients send, the same keys always."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import msgspec
import pytest

from collector.record import Record
from serving_proxy.invocation_log import log_invocation
from tests.backends import OpenAIBackend
from tests.unit.serving_proxy.running_proxy import call, chat, connect, one_entity, post, running_proxy

KEYS = [
    *("id", "endpoint", "entity", "config", "api", "model", "status", "error", "duration_ms", "ttft_ms"),
    *("input_tokens", "output_tokens", "attempts", "stream", "left", "requester", "experiment", "variant"),
    *("shadow_of", "unit", "session", "client_id", "trace"),
]
RECORD = Record(
    "r-1", 1, 200, 12_345, "chat", "chat", served_entity="only", model="m", unit="ann", trace_id="abc"
)


def fields(line: str) -> dict[str, str]:
    """What a reader of logfmt makes of the line."""
    found = re.findall(r' (\w+)=("(?:[^"\\]|\\.)*"|[^\s"]+)', line)
    assert line == "invocation" + "".join(f" {key}={value}" for key, value in found)
    return {key: json.loads(value) if value.startswith('"') else value for key, value in found}


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "serving_proxy.invocation_log"]


def test_all_keys_in_their_order(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    log_invocation(RECORD, RECORD, (5, 7))
    found = fields(lines(caplog)[0])
    assert list(found) == KEYS
    assert (found["id"], found["entity"], found["status"], found["duration_ms"]) == (
        "r-1",
        "only",
        "200",
        "12.3",
    )
    assert (found["input_tokens"], found["output_tokens"], found["unit"], found["error"]) == (
        "5",
        "7",
        "ann",
        "-",
    )


def test_what_may_not_be_kept_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    log_invocation(RECORD, None, None)
    log_invocation(RECORD, msgspec.structs.replace(RECORD, unit="hidden-1"), None)
    assert "ann" not in "".join(lines(caplog))
    first, second = map(fields, lines(caplog))
    assert (first["unit"], first["trace"], second["unit"]) == ("-", "-", "hidden-1")


@pytest.mark.parametrize(
    "value",
    [
        "a\nid=forged",
        "a\r\nb",
        "a b",
        'say "x"',
        "a=b",
        "\x1b[31m",
        "x\u2028y",
        "x\x85y",
        "",
        "-",
        "é",
        "\udcff",
        "\\",
    ],
)
def test_nobody_can_break_or_forge_a_line(value: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    record = msgspec.structs.replace(
        RECORD, unit=value, model=value, client_request_id=value, requester=value
    )
    log_invocation(record, record, None)
    (line,) = lines(caplog)
    assert line.isascii()
    assert line.isprintable()
    found = fields(line)
    assert list(found) == KEYS
    assert {found[key] for key in ("unit", "model", "client_id", "requester")} == {value}
    assert found["id"] == "r-1"


def test_nothing_is_made_that_nobody_reads(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    log_invocation(RECORD, RECORD, None)
    assert not lines(caplog)


async def test_one_line_an_invocation(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with OpenAIBackend() as backend:
        async with running_proxy(tmp_path, one_entity(backend.url), log_invocations=True) as proxy:
            await call(proxy, chat("one two", user="ann"), x_client_request_id="mine")
            await call(proxy, chat(stream=True, stream_options={"include_usage": True}))
            await call(proxy, {"model": "no\nbody"})
            async with connect(proxy) as client:
                await client.send(post(chat(), x_session_id="a b", x_servelens_unit="\xe9\x85"))
                await client.answer()
        records = proxy.records()
    found = [fields(line) for line in lines(caplog)]
    assert [each["id"] for each in found] == [record.request_id for record in records]
    assert [each["status"] for each in found] == ["200", "200", "404", "200"]
    assert (found[0]["unit"], found[0]["client_id"], found[0]["input_tokens"]) == ("ann", "mine", "2")
    assert found[1]["ttft_ms"] != "-"
    assert found[1]["output_tokens"] == "8"
    assert (found[2]["endpoint"], found[2]["error"]) == ("_unrouted", "unknown_endpoint")
