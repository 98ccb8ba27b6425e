"""The members of a request's JSON body that the proxy looks at; the rest is checked to be JSON and passed over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final

import msgspec

MAX_IDENTIFIER: Final = 512
Identifier = Annotated[str, msgspec.Meta(max_length=MAX_IDENTIFIER)]


class RequestBody(msgspec.Struct, gc=False):
    """``Raw`` fields are only asked whether they are there."""

    model: Identifier | None = None
    stream: bool | None = None
    user: Identifier | None = None
    safety_identifier: Identifier | None = None
    client_request_id: Identifier | None = None
    messages: msgspec.Raw = msgspec.Raw()
    prompt: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()
    metadata: msgspec.Raw = msgspec.Raw()


ReadRequest = Callable[[bytes], RequestBody]
