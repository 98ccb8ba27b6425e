"""The refusal of a guardrail."""

from __future__ import annotations

from typing import Literal

from servelens.errors import Invalid

Side = Literal["input", "output"]


class Blocked(Invalid):
    """A guardrail found what it looks for. The message names the guardrail and never what it found.

    ``masked`` is the body with its personal data masked, for the record; ``None`` when the body may be kept as it is.
    """

    status = 400

    def __init__(self, guardrail: str, what: str, side: Side, *, field: str | None = None) -> None:
        super().__init__(
            f"The {side} was blocked by the guardrail '{guardrail}': it contains {what}.",
            field=field,
            fix="Remove it and send the request again." if side == "input" else None,
        )
        self.guardrail = guardrail
        self.masked: bytes | None = None
