"""E-mail by SMTP (RFC 5321), with STARTTLS (RFC 3207) or TLS from the first byte, and a login where there is one.

Invariants: certificates are verified; without TLS nobody logs in. The message id is the document's, so repeats are
known as such, and reminders and the end of an incident answer to its start, so that they are one conversation. Text
cannot add headers: they are one line each.
"""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any, Final, Literal

from evaluators.alerts.channels.channel import Outcome
from evaluators.alerts.notification import details_of, text_of, title_of
from servelens.errors import Invalid

Security = Literal["starttls", "tls", "none"]

_DOMAIN: Final = "servelens.invalid"  # of message ids only (RFC 2606)


class EmailChannel:
    """Sends from ``sender`` to ``recipients`` by ``host:port``. ``timeout_s`` is for each step of the conversation."""

    kind = "email"

    def __init__(
        self,
        host: str,
        port: int,
        sender: str,
        recipients: Sequence[str],
        *,
        security: Security = "starttls",
        username: str | None = None,
        password: str | None = None,
        timeout_s: float = 10.0,
        verify: ssl.SSLContext | None = None,
    ) -> None:
        if username is not None and security == "none":
            raise Invalid(
                "a password does not go over a connection without TLS",
                field="security",
                fix="Use starttls or tls, or leave out username and password.",
            )
        self._address = (host, port)
        self._sender = sender
        self._recipients = list(recipients)
        self._security: Security = security
        self._login = None if username is None else (username, password or "")
        self._timeout_s = timeout_s
        self._verify = verify

    def send(self, document: Mapping[str, Any]) -> Outcome:
        try:
            refused = self._sent(message(document, self._sender, self._recipients))
        except smtplib.SMTPRecipientsRefused as error:
            status = max(code for code, _ in error.recipients.values())
            again = any(code < 500 for code, _ in error.recipients.values())
            return Outcome(False, f"refused all recipients: {status}", status, again)
        except smtplib.SMTPResponseException as error:
            status = error.smtp_code
            return Outcome(False, f"answered {status} ({type(error).__name__})", status, status < 500)
        except smtplib.SMTPNotSupportedError as error:
            return Outcome(False, f"cannot do what is asked of it: {error}")
        except ssl.SSLCertVerificationError as error:
            return Outcome(
                False, f"has a certificate that is not trusted: {error.verify_message}", again=True
            )
        except (
            ValueError
        ) as error:  # a password with an accent, an address with a line break; its words may quote them
            return Outcome(False, f"has a setting that no mail can carry ({type(error).__name__})")
        except TimeoutError:
            return Outcome(False, f"did not answer within {self._timeout_s:.3g} s", again=True)
        except (smtplib.SMTPException, OSError) as error:
            if isinstance(error.__context__, TimeoutError):  # smtplib calls that a lost connection
                return Outcome(False, f"did not answer within {self._timeout_s:.3g} s", again=True)
            return Outcome(False, f"could not be reached: {type(error).__name__}", again=True)
        if refused:
            # Those who took it must not get it again, so it is not tried again for the others.
            return Outcome(True, f"sent, but {refused} of {len(self._recipients)} recipients were refused")
        return Outcome(True, "sent")

    def _sent(self, mail: EmailMessage) -> int:
        host, port = self._address
        context = self._verify or ssl.create_default_context()
        if self._security == "tls":
            server: smtplib.SMTP = smtplib.SMTP_SSL(host, port, timeout=self._timeout_s, context=context)
        else:
            server = smtplib.SMTP(host, port, timeout=self._timeout_s)
        with server:
            if self._security == "starttls":
                server.starttls(context=context)
            if self._login is not None:
                server.login(*self._login)
            return len(server.send_message(mail, self._sender, self._recipients))


def message(document: Mapping[str, Any], sender: str, recipients: Sequence[str]) -> EmailMessage:
    """The mail."""
    mail = EmailMessage()
    mail["Subject"] = title_of(document)
    mail["From"] = sender
    mail["To"] = ", ".join(recipients)
    moment = datetime.fromisoformat(document["resolved_at"] or document["fired_at"])
    mail["Date"] = format_datetime(moment.astimezone(UTC))
    mail["Message-ID"] = f"<{document['id']}@{_DOMAIN}>"
    if document["kind"] != "firing":
        first = f"<{document['incident']}-firing-0@{_DOMAIN}>"
        mail["In-Reply-To"] = first
        mail["References"] = first
    mail["Auto-Submitted"] = "auto-generated"
    lines = [text_of(document), "", *(f"{label}: {value}" for label, value in details_of(document))]
    mail.set_content("\n".join(lines) + "\n")
    return mail
