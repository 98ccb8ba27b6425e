"""A key sent as a password (RFC 7617): by browsers, and by senders that know of addresses only (``http://x:sl-…@host/``)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import MutableMapping


def accept_password(fields: MutableMapping[bytes, bytes]) -> None:
    """Make Basic credentials in ``fields`` (names in lower case) the bearer token that their password is; any name will
    do.
    """
    sent = fields.get(b"authorization", b"")
    if sent[:6].lower() == b"basic ":
        fields[b"authorization"] = b"Bearer " + _password(sent[6:])


def _password(encoded: bytes) -> bytes:
    try:
        return base64.b64decode(encoded.strip(), validate=True).partition(b":")[2]
    except binascii.Error:
        return b""
