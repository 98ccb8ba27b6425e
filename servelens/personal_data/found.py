"""What is found in a text, and how far it is looked for."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

Kind = Literal["EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD", "IBAN_CODE", "US_SSN", "IP_ADDRESS"]

CONTEXT: Final = 40
"""So many characters before a span can matter to whether it is found."""


class Found(NamedTuple):
    """Where personal data is in a text."""

    start: int
    end: int
    kind: Kind
