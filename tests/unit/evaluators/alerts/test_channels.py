"""evaluators.alerts.channels against real servers on loopback."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from evaluators.alerts.channels.channel import Outcome
from evaluators.alerts.channels.email import EmailChannel, message
from evaluators.alerts.channels.pagerduty import PagerDutyChannel
from evaluators.alerts.channels.slack import SlackChannel
from evaluators.alerts.channels.webhook import WebhookChannel
from servelens.clock import ManualClock
from servelens.errors import Invalid
from tests.unit.evaluators.alerts.receivers import http_sink, smtp_sink
from tests.unit.evaluators.alerts.rules import START, document

CLOCK = ManualClock(START)
RESOLVED = document(
    id="0b7c-resolved-0",
    kind="resolved",
    resolution="share of toxicity above 0.5 is 0, not above 0.1",
    resolved_at="2026-03-02T12:30:00+00:00",
)


def test_a_webhook_gets_the_document_with_a_key_to_drop_repeats_by() -> None:
    with http_sink(200) as sink:
        outcome = WebhookChannel(sink.url, CLOCK, headers={"authorization": "Bearer t0ken"}).send(document())
    assert outcome == Outcome(True, "answered 200", 200)
    (request,) = sink.received
    assert request.json == document()
    assert request.headers["idempotency-key"] == "0b7c-firing-0"
    assert request.headers["authorization"] == "Bearer t0ken"
    assert "webhook-signature" not in request.headers


@pytest.mark.parametrize("secret", ["whsec_" + base64.b64encode(b"k" * 24).decode(), "any text"])
def test_a_webhook_is_signed(secret: str) -> None:
    with http_sink(204) as sink:
        assert WebhookChannel(sink.url, CLOCK, secret=secret).send(document()).ok
    (request,) = sink.received
    key = b"k" * 24 if secret.startswith("whsec_") else secret.encode()
    stamp = str(int(START.timestamp()))
    signed = f"0b7c-firing-0.{stamp}.".encode() + request.body
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert request.headers["webhook-timestamp"] == stamp
    assert request.headers["webhook-signature"] == f"v1,{expected}"


def test_a_broken_secret_is_said() -> None:
    with pytest.raises(Invalid, match="no base64"):
        WebhookChannel("http://127.0.0.1/", CLOCK, secret="whsec_not base64!")


@pytest.mark.parametrize(
    ("status", "again"),
    [
        (410, False),
        (404, False),
        (401, False),
        (302, False),
        (429, True),
        (500, True),
        (503, True),
        (408, True),
    ],
)
def test_what_may_pass_is_tried_again_and_nothing_else(status: int, again: bool) -> None:
    with http_sink((status, {"retry-after": "7", "location": "http://127.0.0.1:1/"})) as sink:
        outcome = WebhookChannel(sink.url, CLOCK).send(document())
    assert (outcome.ok, outcome.status, outcome.again) == (False, status, again)
    assert outcome.retry_after_s == (7.0 if again else None)
    assert len(sink.received) == 1


@pytest.mark.parametrize("wish", ["nan", "-5", "1e9", "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_a_senseless_wish_is_not_obeyed(wish: str) -> None:
    with http_sink((429, {"retry-after": wish})) as sink:
        outcome = WebhookChannel(sink.url, CLOCK).send(document())
    assert outcome.retry_after_s in (None, 0.0, 3600.0)


def test_a_receiver_that_never_ends_is_left() -> None:
    with http_sink(None) as sink:
        outcome = WebhookChannel(sink.url, CLOCK, timeout_s=0.3).send(document())
    assert outcome == Outcome(False, "did not answer within 0.3 s", again=True)


def test_nobody_there() -> None:
    with http_sink(200) as sink:
        url = sink.url
    outcome = WebhookChannel(url, CLOCK).send(document())
    assert (outcome.ok, outcome.again, outcome.status) == (False, True, None)
    assert "hook" not in outcome.detail


def test_slack_gets_blocks_in_which_nobody_is_mentioned() -> None:
    nasty = document(reason="<!channel> & <https://evil.example|look>", link="https://lens.example/?a=1&b=2")
    with http_sink(200) as sink:
        assert SlackChannel(sink.url).send(nasty).ok
        SlackChannel(sink.url).send(RESOLVED)
    first, second = (request.json for request in sink.received)
    text = first["blocks"][0]["text"]["text"]
    assert text.startswith("🔴 *[critical] toxic on chat (b)*\n")
    assert "&lt;!channel&gt; &amp; &lt;https://evil.example|look&gt;" in text
    assert "<!channel>" not in str(first)
    assert "<https://lens.example/?a=1&amp;b=2|on the dashboard>" in first["blocks"][1]["elements"][0]["text"]
    assert first["text"].startswith("🔴 [critical] toxic on chat (b): &lt;!channel")
    assert second["blocks"][0]["text"]["text"].startswith(
        "✅ *[resolved] toxic on chat (b)*\nshare of toxicity"
    )


def test_slack_makes_no_links_of_plain_words() -> None:
    with http_sink(200) as sink:
        SlackChannel(sink.url).send(document(reason="see https://evil.example or @channel"))
    (request,) = sink.received
    first, second = request.json["blocks"]
    assert first["text"]["verbatim"] is second["elements"][0]["verbatim"] is True


def test_slack_says_why_it_refuses() -> None:
    with http_sink(410, body=b"channel_is_archived") as sink:
        outcome = SlackChannel(sink.url).send(document())
    assert outcome == Outcome(False, "answered 410: channel_is_archived", 410)


def test_long_texts_are_cut_to_what_slack_takes() -> None:
    long = document(reason="<" * 9_000, examples=["x" * 2_000] * 5)
    with http_sink(200) as sink:
        SlackChannel(sink.url).send(long)
    body = sink.received[0].json
    assert len(body["blocks"][0]["text"]["text"]) <= 3_000
    assert len(body["blocks"][1]["elements"][0]["text"]) <= 3_000


def test_pagerduty_opens_and_closes_one_incident() -> None:
    with http_sink(202) as sink:
        channel = PagerDutyChannel("r0ut1ng", url=sink.url)
        assert channel.send(document(link="https://lens.example/")).ok
        assert channel.send(RESOLVED).ok
    trigger, resolve = (request.json for request in sink.received)
    assert (trigger["event_action"], resolve["event_action"]) == ("trigger", "resolve")
    assert trigger["dedup_key"] == resolve["dedup_key"] == "0b7c"
    assert trigger["routing_key"] == "r0ut1ng"
    payload = trigger["payload"]
    assert payload["severity"] == "critical"
    assert payload["source"] == "chat"
    assert payload["summary"].startswith("[critical] toxic on chat (b): share")
    assert datetime.fromisoformat(payload["timestamp"]).tzinfo is not None
    assert payload["custom_details"]["examples"] == ["r1", "r2"]
    assert trigger["links"] == [{"href": "https://lens.example/", "text": "Dashboard"}]
    assert len(PagerDutyChannel.kind) < len(payload["summary"]) <= 1_024


def test_mail_is_one_conversation() -> None:
    with smtp_sink() as sink:
        channel = EmailChannel(
            "127.0.0.1", sink.port, "lens@example.com", ["a@example.com", "b@example.com"], security="none"
        )
        assert channel.send(document(reason="ßharp\nBcc: evil@example.com")) == Outcome(True, "sent")
        assert channel.send(RESOLVED).ok
    first, second = sink.mails
    assert sink.recipients == [["a@example.com", "b@example.com"]] * 2
    assert first["Subject"] == "[critical] toxic on chat (b)"
    assert first["Bcc"] is None
    assert "ßharp" in first.get_content()
    assert "Examples: r1, r2" in first.get_content()
    assert second["In-Reply-To"] == first["Message-ID"] == "<0b7c-firing-0@servelens.invalid>"


def test_a_name_cannot_add_a_header() -> None:
    mail = message(document(rule="x\r\nBcc: evil@example.com"), "a@example.com", ["b@example.com"])
    assert mail["Subject"] == "[critical] x Bcc: evil@example.com on chat (b)"
    assert mail["Bcc"] is None


@pytest.mark.parametrize(("code", "again"), [(550, False), (451, True)])
def test_mail_that_is_refused(code: int, again: bool) -> None:
    with smtp_sink() as sink:
        channel = EmailChannel(
            "127.0.0.1", sink.port, "a@example.com", ["b@example.com", "c@example.com"], security="none"
        )
        sink.refused = {"b@example.com": code}
        assert channel.send(document()).detail == "sent, but 1 of 2 recipients were refused"
        sink.refused = {"b@example.com": code, "c@example.com": code}
        refused = channel.send(document())
        assert (refused.ok, refused.status, refused.again) == (False, code, again)
        sink.refused, sink.answer = {}, code
        outcome = channel.send(document())
        assert (outcome.ok, outcome.status, outcome.again) == (False, code, again)


def test_a_silent_mail_server_is_left() -> None:
    with smtp_sink(silent=True) as sink:
        channel = EmailChannel(
            "127.0.0.1", sink.port, "a@example.com", ["b@example.com"], security="none", timeout_s=0.2
        )
        outcome = channel.send(document())
    assert outcome == Outcome(False, "did not answer within 0.2 s", again=True)
    assert channel.send(document()).again


@contextmanager
def certificate(folder: Path) -> Iterator[tuple[ssl.SSLContext, ssl.SSLContext]]:
    """TLS contexts of a server at 127.0.0.1 and of a client that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "server.pem"
    pem.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    client = ssl.create_default_context()
    client.load_verify_locations(cadata=made.public_bytes(serialization.Encoding.PEM).decode())
    yield server, client


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_mail_over_tls_with_a_login(tmp_path: Path, security: str) -> None:
    with (
        certificate(tmp_path) as (server, client),
        smtp_sink(server, implicit=security == "tls") as sink,
    ):

        def channel(verify: ssl.SSLContext | None) -> EmailChannel:
            return EmailChannel(
                "127.0.0.1",
                sink.port,
                "a@example.com",
                ["b@example.com"],
                security="tls" if security == "tls" else "starttls",
                username="me",
                password="hunter2",
                verify=verify,
                timeout_s=5,
            )

        assert channel(client).send(document()).ok
        untrusted = channel(None).send(document())
    assert sink.secured == [True]
    assert base64.b64decode(sink.logins[0].split()[-1]) == b"\0me\0hunter2"
    assert not untrusted.ok
    assert "not trusted" in untrusted.detail
    assert len(sink.logins) == 1  # nobody is told the password who is not known


def test_without_tls_nobody_is_told_a_password() -> None:
    with pytest.raises(Invalid, match="without TLS"):
        EmailChannel("h", 25, "a@b", ["c@d"], security="none", username="me", password="x")
    with smtp_sink() as sink:
        channel = EmailChannel(
            "127.0.0.1", sink.port, "a@example.com", ["b@example.com"], username="me", password="hunter2"
        )
        outcome = channel.send(document())
    assert (outcome.ok, outcome.again) == (False, False)
    assert "STARTTLS" in outcome.detail
    assert sink.logins == []


def test_no_log_and_no_outcome_holds_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # as servelens.telemetry does
    with http_sink(500, body=b"no") as sink:
        url = sink.url.replace("/hook", "/services/T0/B0/s3cret")
        outcomes = [
            SlackChannel(url).send(document()),
            WebhookChannel(url, CLOCK, secret="s3cret", headers={"x": "s3cret"}).send(document()),
            PagerDutyChannel("s3cret", url=sink.url).send(document()),
        ]
    outcomes.append(SlackChannel(url).send(document()))
    assert "s3cret" not in caplog.text + "".join(outcome.detail for outcome in outcomes)


@pytest.mark.parametrize("value", ["Bearer s3cret\n", "Bearer s3crét", " s3cret"])
def test_a_header_that_cannot_be_sent_is_not_quoted(value: str) -> None:
    with http_sink(200) as sink:
        outcome = WebhookChannel(sink.url, CLOCK, headers={"authorization": value}).send(document())
    assert not outcome.ok
    assert not outcome.again
    assert "header" in outcome.detail
    assert "s3cr" not in outcome.detail


def test_a_password_that_cannot_be_sent_is_an_outcome(tmp_path: Path) -> None:
    with certificate(tmp_path) as (server, client), smtp_sink(server) as sink:
        channel = EmailChannel(
            "127.0.0.1",
            sink.port,
            "a@example.com",
            ["b@example.com"],
            username="me",
            password="s3crét",
            verify=client,
        )
        outcome = channel.send(document())
    assert not outcome.ok
    assert not outcome.again
    assert "s3cr" not in outcome.detail
