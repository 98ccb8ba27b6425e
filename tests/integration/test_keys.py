"""API keys through the whole system: who is let in, where, and how soon a change is live on every worker."""

from __future__ import annotations

import base64
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import anthropic
import httpx
import openai
import polars as pl
import pytest
import yaml
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import NotFound, PermissionDenied, ResourceConflict, Unauthenticated

from tests.integration.backend_process import backend_process, endpoint
from tests.integration.outside_calls import outside_calls
from tests.integration.system import System, free_port, wait_until

WORKERS = 2
CHAT = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}


def servelens(config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One run of the command line."""
    command, *rest = arguments
    return subprocess.run(
        [sys.executable, "-m", "servelens", "keys", command, "--config", str(config), *rest],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def new_key(system: System, name: str, *scopes: str) -> str:
    """The secret of a new key."""
    done = servelens(system.config, "create", name, *(f"--scope={scope}" for scope in scopes))
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Two workers that have a key, ``root``, which may do everything."""
    folder = tmp_path_factory.mktemp("system")
    with (
        backend_process() as url,
        System(folder, [endpoint("chat", url)], {"proxy": {"workers": WORKERS}}) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def root(system: System) -> str:
    assert call(system, "anything") == 200  # nobody is asked before the first key
    secret = new_key(system, "root", "invoke", "admin", "annotate")
    wait_until(everywhere(system, None, 401), 5, "keys are in use")
    return secret


def call(system: System, secret: str | None) -> int:
    """The status of one call on a connection of its own."""
    headers = {} if secret is None else {"authorization": f"Bearer {secret}"}
    answer = httpx.post(f"{system.proxy_url}/v1/chat/completions", json=CHAT, headers=headers, timeout=10)
    return answer.status_code


def everywhere(system: System, secret: str | None, status: int) -> Callable[[], bool]:
    """Whether every worker answers so; the kernel spreads connections over them."""
    return lambda: all(call(system, secret) == status for _ in range(8 * WORKERS))


def record(system: System, request_id: str) -> dict[str, object]:
    found: list[dict[str, object]] = []

    def readable() -> bool:
        rows = system.tables("chat").payload.scan().filter(pl.col("databricks_request_id") == request_id)
        found.extend(rows.collect().iter_rows(named=True))
        return bool(found)

    wait_until(readable, 10, "the record is readable in the table")
    return found[0]


def test_the_requester_is_on_the_record(system: System, root: str) -> None:
    with openai.OpenAI(base_url=f"{system.proxy_url}/v1", api_key=root, max_retries=0) as client:
        answer = client.chat.completions.with_raw_response.create(
            model="chat", messages=[{"role": "user", "content": "hello"}]
        )
        assert [model.id for model in client.models.list()] == ["chat"]
    assert record(system, answer.headers["x-request-id"])["requester"] == "root"


@pytest.mark.parametrize("secret", ["sl-" + "x" * 43, "unused"])
def test_the_openai_client_with_a_bad_key(system: System, root: str, secret: str) -> None:
    with openai.OpenAI(base_url=f"{system.proxy_url}/v1", api_key=secret, max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError, match="servelens keys create"):
            client.chat.completions.create(model="chat", messages=[{"role": "user", "content": "hello"}])
        with pytest.raises(openai.AuthenticationError):
            client.models.list()


def test_a_key_that_may_not_invoke(system: System, root: str) -> None:
    secret = new_key(system, "annotator", "annotate")
    wait_until(everywhere(system, secret, 403), 5, "the key is known")
    with (
        openai.OpenAI(base_url=f"{system.proxy_url}/v1", api_key=secret, max_retries=0) as client,
        pytest.raises(openai.PermissionDeniedError, match="scope 'invoke'"),
    ):
        client.chat.completions.create(model="chat", messages=[{"role": "user", "content": "hello"}])


def test_the_anthropic_client(system: System, root: str) -> None:
    with anthropic.Anthropic(base_url=system.proxy_url, api_key=root, max_retries=0) as client:
        answer = client.messages.create(
            model="chat", max_tokens=20, messages=[{"role": "user", "content": "hello"}]
        )
        assert answer.content
    with (
        anthropic.Anthropic(base_url=system.proxy_url, api_key="sk-ant", max_retries=0) as client,
        pytest.raises(anthropic.AuthenticationError, match="unknown or has been revoked"),
    ):
        client.messages.create(model="chat", max_tokens=20, messages=[{"role": "user", "content": "hello"}])


def test_changes_are_live_on_every_worker_within_a_second(system: System, root: str) -> None:
    secret = new_key(system, "short", "invoke")
    wait_until(everywhere(system, secret, 200), 1, "the new key works everywhere")
    kept = [httpx.Client(base_url=system.proxy_url, timeout=10) for _ in range(4 * WORKERS)]

    last_served = 0.0

    def statuses() -> set[int]:
        nonlocal last_served
        seen = set()
        for each in kept:
            sent_at = time.monotonic()
            headers = {"authorization": f"Bearer {secret}"}
            status = each.post("/v1/chat/completions", json=CHAT, headers=headers).status_code
            seen.add(status)
            last_served = sent_at if status == 200 else last_served
        return seen

    try:
        assert statuses() == {200}
        done = servelens(system.config, "revoke", "short")
        assert "'short'" in done.stdout
        revoked_at = time.monotonic()
        wait_until(lambda: statuses() == {401}, 10, "the revoked key is refused on connections it had opened")
        assert last_served - revoked_at < 1.0
        assert call(system, secret) == 401
    finally:
        for client in kept:
            client.close()


def test_databricks_sdk_manages_keys(
    system: System, root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(tmp_path / "none"))
    with outside_calls() as outside:
        workspace = WorkspaceClient(host=system.proxy_url, token=root)
        made = workspace.tokens.create(comment="from the sdk", lifetime_seconds=3600)
        info, secret = made.token_info, made.token_value
        assert info is not None
        assert secret is not None
        assert info.token_id is not None
        assert info.expiry_time is not None
        assert info.creation_time is not None
        assert info.expiry_time - info.creation_time == 3_600_000
        assert info.scopes == ["invoke"]
        wait_until(everywhere(system, secret, 200), 5, "the key works")
        listed = {token.comment: token for token in workspace.tokens.list()}
        assert listed["from the sdk"].token_id == info.token_id
        assert listed["root"].expiry_time == -1
        with pytest.raises(ResourceConflict, match="already"):
            workspace.tokens.create(comment="from the sdk")
        caller = WorkspaceClient(host=system.proxy_url, token=secret)
        with pytest.raises(PermissionDenied, match="scope 'admin'"):
            list(caller.tokens.list())
        with pytest.raises(PermissionDenied):
            list(caller.serving_endpoints.list())
        workspace.tokens.delete(info.token_id)
        with pytest.raises(NotFound):
            workspace.tokens.delete("nothing")
        wait_until(everywhere(system, secret, 401), 5, "the key is dead")
        with pytest.raises(Unauthenticated):
            list(caller.tokens.list())
        named = workspace.tokens.create(scopes=["annotate", "invoke"])
        assert named.token_info is not None
        assert named.token_info.scopes == ["invoke", "annotate"]
        assert (named.token_info.comment or "").startswith("key-")
    assert outside == []


@pytest.mark.parametrize("path", ["/metrics", "/v1/models", "/serving-endpoints/models", "/v2/models/chat"])
def test_nothing_but_health_is_open(system: System, root: str, path: str) -> None:
    answer = httpx.get(f"{system.proxy_url}{path}", timeout=10)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    for name in ("health/live", "health/ready", "v2/health/live", "v2/health/ready"):
        assert httpx.get(f"{system.proxy_url}/{name}", timeout=10).status_code == 200
    assert httpx.get(f"{system.proxy_url}/health/ready", timeout=10).json() == {"status": "ok"}
    if path == "/metrics":
        assert (
            httpx.get(f"{system.proxy_url}{path}", headers={"api-key": root}, timeout=10).status_code == 200
        )


def test_the_console_asks_for_a_key(system: System, root: str) -> None:
    annotator, caller = new_key(system, "labels", "annotate"), new_key(system, "app", "invoke")
    password = {"authorization": "Basic " + base64.b64encode(f"me:{annotator}".encode()).decode()}
    with httpx.Client(base_url=system.console_url, timeout=30) as console:

        def status(method: str, path: str, **headers: str) -> int:
            return console.request(method, path, headers=headers).status_code

        wait_until(lambda: status("GET", "/", **password) == 200, 5, "a browser with the key is let in")
        refused = console.get("/")
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Basic ")
        assert console.get("/health/ready").status_code == 200
        assert status("GET", "/api/relabel/counts", **{"x-api-key": annotator}) == 200
        assert status("GET", "/api/relabel/counts", **{"x-api-key": caller}) == 403
        assert status("POST", "/api/experiments/none/analysis", **{"x-api-key": annotator}) == 403
        assert status("POST", "/api/experiments/none/analysis", authorization=f"Bearer {root}") == 404
        assert status("GET", "/", authorization="Basic %%%") == 401


def test_the_command_line(system: System, root: str) -> None:
    assert servelens(system.config, "create", "root", "--scope", "invoke").returncode == 1
    wrong = servelens(system.config, "create", "x", "--scope", "everything")
    assert wrong.returncode == 2
    missing = servelens(system.config, "revoke", "nobody")
    assert missing.returncode == 2
    assert "no API key 'nobody'" in missing.stderr
    new_key(system, "listed", "invoke")
    listed = servelens(system.config, "list")
    assert "listed" in listed.stdout
    assert "invoke, admin, annotate" in listed.stdout
    assert servelens(system.config, "revoke", "listed").returncode == 0
    assert "listed" not in servelens(system.config, "list").stdout
    assert "revoked" in servelens(system.config, "list", "--all").stdout


@pytest.mark.parametrize(
    ("command", "setting"), [("proxy", "proxy"), ("console", "console"), ("up", "proxy"), ("up", "console")]
)
def test_beyond_loopback_without_keys_nothing_starts(tmp_path: Path, command: str, setting: str) -> None:
    config = tmp_path / "servelens.yaml"
    written = {
        "data_dir": "data",
        "endpoints": [endpoint("chat", "http://127.0.0.1:1")],
        "proxy": {"port": free_port()},
        "console": {"port": free_port()},
    }
    written[setting] = {"port": free_port(), "host": "0.0.0.0"}
    config.write_text(yaml.safe_dump(written))
    done = subprocess.run(
        [sys.executable, "-m", "servelens", command, "--config", str(config)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    assert f"{setting}.host" in done.stderr
    assert "servelens keys create" in done.stderr
