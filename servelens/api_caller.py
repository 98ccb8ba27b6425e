"""Who asks by the HTTP API, and which revision they have read: dependencies of the routers of all packages.

Errors are raised as :class:`~servelens.errors.ServelensError`; the application that includes a router answers them.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Final, TypeAlias

from fastapi import Depends, Header, Request

from servelens.errors import Invalid

NOBODY: Final = "console"


def requester(request: Request) -> str:
    """The name of the API key, or :data:`NOBODY` while there are none."""
    return getattr(request.state, "requester", None) or NOBODY


def api_key(request: Request) -> bytes | None:
    """The caller's API key, however it came; a browser sends it as a password (RFC 7617)."""
    sent = request.headers.get("authorization", "").encode("latin-1")
    scheme, _, rest = sent.partition(b" ")
    if scheme.lower() == b"bearer":
        return rest.strip() or None
    if scheme.lower() == b"basic":
        try:
            return base64.b64decode(rest.strip(), validate=True).partition(b":")[2] or None
        except binascii.Error:
            return None
    for name in ("x-api-key", "api-key"):
        if name in request.headers:
            return request.headers[name].encode("latin-1")
    return None


def revision(if_match: Annotated[str | None, Header()] = None) -> int | None:
    """The revision that the caller has read, from ``If-Match``."""
    if if_match is None or if_match == "*":
        return None
    try:
        return int(if_match.strip('"'))
    except ValueError:
        raise Invalid(
            "is not a revision.", field="If-Match", fix="Use the 'revision' that you read."
        ) from None


Caller: TypeAlias = Annotated[str, Depends(requester)]
Revision: TypeAlias = Annotated[int | None, Depends(revision)]
