"""Who is asked and told of a decision: one JSON document by POST, in the calling thread.

Invariant: a receiver can delay the caller by no more than its time limit (``after`` hooks: by no more than
:data:`TELL_WITHIN_S` together), and whatever it answers or does not answer is an :class:`Answer`, never an
exception. A redirect is no answer: the one who was named answers, or nobody. Certificates of https are verified.

Each document has an ``id`` (also as ``Idempotency-Key``) that stays the same when it is sent again, so that a
receiver can drop repeats.
"""

from __future__ import annotations

import json
import socket
import ssl
import time
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from http.client import HTTPConnection, HTTPException
from typing import Any, Final, Literal
from urllib.parse import SplitResult, unquote, urlsplit

from experiments.ramp import Webhook
from servelens.clock import Clock, SystemClock

RETRIES: Final = 3
TELL_WITHIN_S: Final = 30.0

_FIRST_PAUSE_S: Final = 0.5
# As in the proxy: what may succeed when it is said again.
_RETRYABLE: Final = (408, 425, 429)
_LONGEST_HEAD: Final = 65_536


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one webhook: ``status`` is ``None`` when there was no answer, and ``detail`` says why.

    ``url`` is without what may be secret in it: name, password and query.
    """

    url: str
    when: Literal["before", "after"]
    ok: bool
    status: int | None
    detail: str
    attempts: int = 1

    def words(self) -> str:
        """``webhook https://host/path answered 403``."""
        return f"webhook {self.url} {self.detail}"


class Webhooks:
    """Asks and tells. ``sleep`` waits between two attempts; ``verify`` is the TLS context of https."""

    def __init__(
        self,
        clock: Clock | None = None,
        *,
        sleep: Callable[[float], None] = time.sleep,
        verify: ssl.SSLContext | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._sleep = sleep
        self._verify = verify

    def ask(self, webhooks: Iterable[Webhook], document: Mapping[str, Any]) -> tuple[Answer, ...]:
        """Ask every ``before`` hook once, all of them, so that each refusal is known."""
        return tuple(
            self._post(webhook, document, webhook.timeout_s)
            for webhook in webhooks
            if webhook.when == "before"
        )

    def tell(self, webhooks: Iterable[Webhook], document: Mapping[str, Any]) -> tuple[Answer, ...]:
        """Tell every ``after`` hook, up to :data:`RETRIES` times more when it fails in a way that may pass."""
        deadline = self._clock.monotonic() + TELL_WITHIN_S
        return tuple(
            self._tell(webhook, document, deadline) for webhook in webhooks if webhook.when == "after"
        )

    def _tell(self, webhook: Webhook, document: Mapping[str, Any], deadline: float) -> Answer:
        attempts, pause = 0, _FIRST_PAUSE_S
        answer = Answer(shown(webhook.url), "after", False, None, "was not told: no time was left", 0)
        while (left := deadline - self._clock.monotonic()) > 0:
            attempts += 1
            answer = self._post(webhook, document, min(webhook.timeout_s, left), attempts)
            if answer.ok or not _may_pass(answer) or attempts > RETRIES:
                break
            self._sleep(min(pause, max(deadline - self._clock.monotonic(), 0.0)))
            pause *= 2
        return answer

    def _post(
        self, webhook: Webhook, document: Mapping[str, Any], timeout_s: float, attempts: int = 1
    ) -> Answer:
        url = shown(webhook.url)
        body = json.dumps({**document, "when": webhook.when}, allow_nan=False).encode()
        try:
            status = self._status(urlsplit(webhook.url), body, f"{document['id']}-{webhook.when}", timeout_s)
        except TimeoutError:
            return Answer(
                url, webhook.when, False, None, f"did not answer within {timeout_s:.3g} s", attempts
            )
        except (OSError, HTTPException, ValueError) as error:  # ValueError: a port or a host that is none
            detail = f"could not be reached: {str(error) or type(error).__name__}"
            return Answer(url, webhook.when, False, None, detail, attempts)
        hint = "; redirects are not followed" if 300 <= status < 400 else ""
        return Answer(url, webhook.when, 200 <= status < 300, status, f"answered {status}{hint}", attempts)

    def _status(self, url: SplitResult, body: bytes, key: str, timeout_s: float) -> int:
        # The time limit is for everything together, and http.client's would begin anew with every packet.
        deadline = self._clock.monotonic() + timeout_s
        tls = url.scheme == "https"
        host, port = url.hostname or "", url.port or (443 if tls else 80)
        connection = HTTPConnection(host, port)
        with self._connected(host, port, deadline) as plain:
            connection.sock = self._secured(plain, host, self._left(deadline)) if tls else plain
            try:
                connection.sock.settimeout(self._left(deadline))
                connection.request("POST", _target(url), body, _headers(url, key))
                return self._read_status(connection.sock, deadline)
            finally:
                connection.close()

    def _connected(self, host: str, port: int, deadline: float) -> socket.socket:
        refused: OSError | None = None
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            plain = socket.socket(family, kind, protocol)
            try:
                plain.settimeout(self._left(deadline))
                plain.connect(address)
            except OSError as error:
                plain.close()
                refused = error
            else:
                return plain
        raise refused or OSError(f"{host} has no address")

    def _secured(self, plain: socket.socket, host: str, timeout_s: float) -> ssl.SSLSocket:
        plain.settimeout(timeout_s)
        if self._verify is None:
            self._verify = ssl.create_default_context()
        return self._verify.wrap_socket(plain, server_hostname=host)

    def _read_status(self, sock: socket.socket, deadline: float) -> int:
        head = b""
        while True:
            line, found, rest = head.partition(b"\r\n")
            if found:
                status = _status_in(line)
                if status >= 200:
                    return status
                _, complete, after = rest.partition(b"\r\n\r\n")  # an interim answer; the real one follows
                if complete:
                    head = after
                    continue
            if len(head) > _LONGEST_HEAD:
                raise HTTPException("the answer has no end")
            sock.settimeout(self._left(deadline))
            received = sock.recv(4096)
            if not received:
                raise HTTPException("the connection was closed without an answer")
            head += received

    def _left(self, deadline: float) -> float:
        left = deadline - self._clock.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


def decision_id(experiment: str, phase: int, step: int, decision: str, by: str) -> str:
    """The id of a decision: the same one when it is taken again in the same phase.

    >>> decision_id("tone", 0, 0, "advance", "rollout") == decision_id("tone", 1, 0, "advance", "rollout")
    False
    """
    what = "\0".join((experiment, str(phase), str(step), decision, by))
    return blake2b(what.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def shown(url: str) -> str:
    """The address without name, password, query and fragment.

    >>> shown("https://me:secret@ci.example/hook?token=1")
    'https://ci.example/hook'
    """
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _may_pass(answer: Answer) -> bool:
    return answer.status is None or answer.status >= 500 or answer.status in _RETRYABLE


def _target(url: SplitResult) -> str:
    path = url.path or "/"
    return f"{path}?{url.query}" if url.query else path


def _headers(url: SplitResult, key: str) -> dict[str, str]:
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "servelens",
        "Idempotency-Key": key,
        "Connection": "close",
    }
    if url.username is not None:
        secret = f"{unquote(url.username)}:{unquote(url.password or '')}"
        headers["Authorization"] = f"Basic {b64encode(secret.encode()).decode()}"
    return headers


def _status_in(line: bytes) -> int:
    version, _, rest = line.partition(b" ")
    if not version.startswith(b"HTTP/1.") or not rest[:3].isdigit() or rest[3:4] not in (b"", b" "):
        raise HTTPException("the answer is not HTTP")
    return int(rest[:3])
