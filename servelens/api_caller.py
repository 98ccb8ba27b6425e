"""Who asks by the HTTP API, and which revision they have read: dependencies of the routers of all packages.

Errors are raised as :class:`~servelens.errors.ServelensError`; the application that includes a router answers them.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

from fastapi import Depends, Header, Request

from servelens.errors import Invalid

NOBODY: Final = "console"


def requester(request: Request) -> str:
    """The name of the API key, or :data:`NOBODY` while there are none."""
    return getattr(request.state, "requester", None) or NOBODY


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
