"""Webhooks against real sockets: who refuses, who is slow, who is not there."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from experiments.ramp import Webhook
from experiments.rollout.webhooks import RETRIES, TELL_WITHIN_S, Answer, Webhooks, decision_id
from servelens.clock import ManualClock, SystemClock
from tests.unit.experiments.records import START
from tests.unit.experiments.rollout.hook import Hook, receiving

DOCUMENT = {"id": "4711", "experiment": "v8-rollout", "decision": "advance"}


def ask(url: str, timeout_s: float = 5.0) -> Answer:
    (answer,) = Webhooks().ask((Webhook(url, "before", timeout_s),), DOCUMENT)
    return answer


@contextmanager
def raw(behave: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port at which each connection is treated by ``behave``."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                try:
                    behave(connection)
                except OSError:
                    continue

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_before_hooks_are_asked_with_the_whole_document() -> None:
    with receiving(Hook()) as hook:
        answer = ask(hook.url.replace("//", "//me:p%40ss@") + "?token=1")
    assert answer == Answer(hook.url, "before", True, 204, "answered 204")
    assert hook.heard == [{**DOCUMENT, "when": "before"}]
    assert hook.paths == ["/hook?token=1"]
    (headers,) = hook.headers
    assert headers["Content-Type"] == "application/json"
    assert headers["Idempotency-Key"] == "4711-before"
    assert headers["Host"] == f"127.0.0.1:{hook.port}"
    assert headers["Authorization"] == "Basic bWU6cEBzcw=="


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_a_2xx_agrees(status: int) -> None:
    with receiving(Hook((status,))) as hook:
        assert ask(hook.url).ok


@pytest.mark.parametrize("status", [300, 302, 307, 400, 403, 404, 429, 500, 503])
def test_everything_else_refuses_and_is_not_followed(status: int) -> None:
    with receiving(Hook((status,))) as hook:
        answer = ask(hook.url)
    assert (answer.ok, answer.status) == (False, status)
    assert hook.paths == ["/hook"]
    assert answer.words().startswith(f"webhook {hook.url} answered {status}")
    assert answer.words().endswith("; redirects are not followed") == (status < 400)


def test_nobody_there_refuses() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    answer = ask(f"http://127.0.0.1:{port}/")
    assert (answer.ok, answer.status) == (False, None)
    assert "could not be reached: " in answer.detail
    assert "refused" in answer.detail


def test_an_address_that_is_none_refuses() -> None:
    answer = ask(f"http://{'a' * 70}.example/")
    assert (answer.ok, answer.status) == (False, None)
    assert answer.detail.startswith("could not be reached: ")


def drip(connection: socket.socket) -> None:
    for byte in b"HTTP/1.1 200 OK\r\n" * 100:
        connection.sendall(bytes([byte]))
        time.sleep(0.02)


def say_nothing(connection: socket.socket) -> None:
    connection.recv(1 << 20)
    time.sleep(0.5)


@pytest.mark.parametrize("behave", [say_nothing, drip])
def test_the_time_limit_is_for_everything_together(behave: Callable[[socket.socket], None]) -> None:
    with raw(behave) as port:
        before = time.monotonic()
        answer = ask(f"http://127.0.0.1:{port}/", timeout_s=0.2)
        taken = time.monotonic() - before
    assert answer.detail == "did not answer within 0.2 s"
    assert 0.19 < taken < 2


@pytest.mark.parametrize(
    ("said", "detail"),
    [
        (b"", "closed without an answer"),
        (b"SSH-2.0-OpenSSH_9\r\n", "not HTTP"),
        (b"HTTP/1.1 2000 OK\r\n", "not HTTP"),
        (b"HTTP/1.1 103 Early Hints\r\n" + b"x" * 70_000, "no end"),
    ],
)
def test_what_is_no_answer_refuses(said: bytes, detail: str) -> None:
    def behave(connection: socket.socket) -> None:
        connection.recv(1 << 20)
        connection.sendall(said)
        connection.shutdown(socket.SHUT_WR)

    with raw(behave) as port:
        answer = ask(f"http://127.0.0.1:{port}/")
    assert not answer.ok
    assert detail in answer.detail


def test_an_interim_answer_is_not_the_answer() -> None:
    def behave(connection: socket.socket) -> None:
        connection.recv(1 << 20)
        connection.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 403 Forbidden\r\n")

    with raw(behave) as port:
        assert ask(f"http://127.0.0.1:{port}/").status == 403


def test_certificates_are_verified(tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed (Debian package 'openssl')")
    key, certificate = tmp_path / "localhost.pem", tmp_path / "localhost.crt"
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(certificate, key)
    with receiving(Hook(), server) as hook:
        webhook = Webhook(f"https://localhost:{hook.port}/hook", "before")
        (unknown,) = Webhooks().ask((webhook,), DOCUMENT)
        assert not unknown.ok
        assert "CERTIFICATE_VERIFY_FAILED" in unknown.detail
        trusting = ssl.create_default_context(cafile=str(certificate))
        (known,) = Webhooks(verify=trusting).ask((webhook,), DOCUMENT)
        assert known.ok
        other_name = Webhook(f"https://127.0.0.1:{hook.port}/hook", "before")
        (other,) = Webhooks(verify=trusting).ask((other_name,), DOCUMENT)
        assert "CERTIFICATE_VERIFY_FAILED" in other.detail
    assert len(hook.heard) == 1


def test_after_hooks_are_told_until_they_hear() -> None:
    pauses: list[float] = []
    with receiving(Hook((503, 429, 200))) as hook:
        (answer,) = Webhooks(sleep=pauses.append).tell((Webhook(hook.url),), DOCUMENT)
    assert (answer.ok, answer.attempts) == (True, 3)
    assert pauses == [0.5, 1.0]
    assert {headers["Idempotency-Key"] for headers in hook.headers} == {"4711-after"}


def test_after_hooks_are_given_up_and_a_final_no_is_not_repeated() -> None:
    with receiving(Hook((500,))) as hook:
        (answer,) = Webhooks(sleep=lambda _: None).tell((Webhook(hook.url),), DOCUMENT)
        assert (answer.ok, answer.status, answer.attempts) == (False, 500, 1 + RETRIES)
    with receiving(Hook((400,))) as hook:
        (answer,) = Webhooks(sleep=lambda _: None).tell((Webhook(hook.url),), DOCUMENT)
        assert (answer.ok, answer.status, answer.attempts) == (False, 400, 1)


def test_all_after_hooks_together_have_a_limit() -> None:
    clock = ManualClock(START)
    with receiving(Hook((500,))) as hook:
        webhooks = (Webhook(hook.url), Webhook(hook.url))
        first, second = Webhooks(clock, sleep=lambda _: clock.advance(TELL_WITHIN_S)).tell(webhooks, DOCUMENT)
    assert (first.ok, first.attempts) == (False, 1)
    assert (second.ok, second.attempts, second.detail) == (False, 0, "was not told: no time was left")
    assert len(hook.heard) == 1


def test_each_hook_hears_of_its_own_time_only() -> None:
    with receiving(Hook()) as before, receiving(Hook()) as after:
        webhooks = (Webhook(before.url, "before"), Webhook(after.url, "after"))
        hooks = Webhooks(SystemClock())
        assert [answer.url for answer in hooks.ask(webhooks, DOCUMENT)] == [before.url]
        assert [answer.url for answer in hooks.tell(webhooks, DOCUMENT)] == [after.url]
    assert [len(before.heard), len(after.heard)] == [1, 1]


def test_ids_are_of_one_decision() -> None:
    first = decision_id("a", 0, 0, "advance", "rollout")
    assert decision_id("a", 0, 0, "advance", "rollout") == first
    others = [("b", 0, 0, "advance"), ("a", 1, 0, "advance"), ("a", 0, 1, "advance"), ("a", 0, 0, "promote")]
    assert len({first, *(decision_id(*each, "rollout") for each in others)}) == 5
