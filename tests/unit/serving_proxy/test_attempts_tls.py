"""Backends behind TLS and at IPv6 addresses."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from serving_proxy.endpoint import Retries
from tests.backends import OpenAIBackend
from tests.unit.serving_proxy.running_proxy import call, chat, one_entity, running_proxy


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for ``localhost`` in one file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed (Debian package 'openssl')")
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", str(path), "-out", str(path.with_suffix(".crt"))),
        ],
        check=True,
        capture_output=True,
    )
    path.write_text(path.read_text() + path.with_suffix(".crt").read_text())
    return path


class TlsBackend:
    """Answers everything with ``{}``; keeps the server names and hosts that clients asked for."""

    def __init__(self, certificate: Path) -> None:
        self.port = 0
        self.names: list[str | None] = []
        self.hosts: list[str] = []
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(certificate)
        self._context.sni_callback = lambda _, name, __: self.names.append(name)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[TlsBackend]:
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0, ssl=self._context)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
                self.hosts.append(fields["host"])
                await reader.readexactly(int(fields["content-length"]))
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
                )
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


async def test_a_certificate_is_checked_against_the_name(
    tmp_path: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with TlsBackend(certificate).serving() as backend:
        async with running_proxy(tmp_path, one_entity(f"https://localhost:{backend.port}")) as proxy:
            answers = [await call(proxy, chat()) for _ in range(3)]
        wrong = one_entity(f"https://127.0.0.1:{backend.port}", retries=Retries(attempts=1))
        async with running_proxy(tmp_path, wrong, slot="other") as proxy:
            refused = await call(proxy, chat())
    assert [answer.status for answer in answers] == [200] * 3
    assert backend.names == ["localhost", None]  # a connection is kept; an address is no server name
    assert backend.hosts == [f"localhost:{backend.port}"] * 3
    assert refused.status == 502
    assert "certificate" in refused.json()["error"]["message"]


async def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path, certificate: Path) -> None:
    async with TlsBackend(certificate).serving() as backend:
        snapshot = one_entity(f"https://localhost:{backend.port}", retries=Retries(attempts=1))
        async with running_proxy(tmp_path, snapshot) as proxy:
            answer = await call(proxy, chat())
    assert answer.status == 502
    assert "certificate" in answer.json()["error"]["message"]
    assert not backend.hosts


async def test_an_ipv6_address(tmp_path: Path) -> None:
    async with (
        OpenAIBackend(host="::1") as backend,
        running_proxy(tmp_path, one_entity(f"http://[::1]:{backend.port}")) as proxy,
    ):
        answer = await call(proxy, chat())
    assert answer.status == 200
    assert backend.received[0].headers["host"] == f"[::1]:{backend.port}"


@pytest.mark.parametrize("host", ["nowhere.invalid", "x" * 70 + ".invalid"])
async def test_a_name_that_cannot_be_looked_up(tmp_path: Path, host: str) -> None:
    async with running_proxy(tmp_path, one_entity(f"http://{host}", retries=Retries(attempts=1))) as proxy:
        answer = await call(proxy, chat())
        record = await proxy.record()
    assert answer.status in (502, 504)
    assert record.error_type in ("upstream_connect", "upstream_timeout")
    assert record.attempts == len(record.attempt_details) == 1
