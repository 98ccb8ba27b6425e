"""Personal data in a text: e-mail and IP addresses, phone and credit card numbers, IBANs, US social security numbers.

The kinds are named as Microsoft Presidio names them (https://microsoft.github.io/presidio/supported_entities/), which is
what Databricks' gateway uses; Presidio itself needs spaCy and a language model, far too much for a proxy. Numbers
count only where their own rules hold (check digits, known prefixes, valid area codes: ``python-stdnum``,
``phonenumbers``) and their spelling is that of such a number: dates, prices, versions and identifiers are not to be hit.
A phone number without its country is taken when it is written the American way or follows a word like "phone".

Invariant: whether a span is found depends on at most CONTEXT characters before it and the characters of its own run,
so that a text can be looked at piece by piece.
"""

from __future__ import annotations

import ipaddress
import re
from bisect import bisect_left
from collections.abc import Callable
from typing import Final

from stdnum import iban, luhn
from stdnum.us import ssn

from servelens.personal_data.found import CONTEXT, Found, Kind
from servelens.personal_data.phone_numbers import WORD_CHARACTER, PhoneNumbers

# A letter, digit or underscore of a script that separates words: "电话4111…" is a number after a word.
_W: Final = WORD_CHARACTER
_DIGITS: Final = "0123456789"
_DENSE: Final = re.compile(r"[0-9](?:[^0-9\n]{0,3}[0-9]){6}")
_EMAIL: Final = re.compile(
    rf"(?<!{_W})(?<![.%+-])(?<!{_W}')(?:{_W}|[.%+-]|(?<={_W})'(?={_W})){{1,64}}@"
    rf"(?:(?!_){_W}(?:(?:{_W}|-){{0,61}}(?!_){_W})?\.){{1,8}}"
    rf"(?!(?:png|jpe?g|gif|webp|svg)\b)(?:(?![0-9_]){_W}){{2,24}}(?!{_W}|@)"
)
_OCTET: Final = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4_HINT: Final = re.compile(r"\.[0-9]{1,3}\.[0-9]")
_IPV4: Final = re.compile(rf"(?<!{_W})(?<!\.)(?:{_OCTET}\.){{3}}{_OCTET}(?!{_W}|\.[0-9]|-[A-Za-z])")
_IPV6: Final = re.compile(rf"(?<!{_W})(?<![:.])(?:[0-9A-Fa-f]{{0,4}}:){{2,7}}[0-9A-Fa-f]{{0,4}}(?!{_W}|:)")
_NOBODYS: Final = ("127.", "0.", "255.")
_VERSION_BEFORE: Final = re.compile(
    r"(?:version|release|build|firmware|section|chapter|ver\.?|v\.?|§)[\s:=]{0,3}\Z", re.I
)
_CARD: Final = re.compile(
    rf"(?<!{_W})(?<![0-9]\.)(?:"
    r"[2-6][0-9]{3}(?P<a>[ -]?)[0-9]{4}(?P=a)[0-9]{4}(?P=a)[0-9]{4}"
    r"|3[47][0-9]{2}(?P<b>[ -]?)[0-9]{6}(?P=b)[0-9]{5}"
    r"|3[0689][0-9]{2}(?P<c>[ -]?)[0-9]{6}(?P=c)[0-9]{4}"
    rf")(?!{_W}|-[0-9]|\.[0-9])"
)
_CARD_PREFIX: Final = re.compile(
    r"4|5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720|6011|62|64[4-9]|65|35(?:2[89]|[3-8])|3[47]|30[0-59]|36|3[89]"
)
_SSN: Final = re.compile(
    rf"(?<!{_W})(?<!-)[0-9]{{3}}(?P<gap>[ -]?)[0-9]{{2}}(?P=gap)[0-9]{{4}}(?!{_W}|-|\.[0-9])"
)
_SSN_BEFORE: Final = re.compile(r"\b(?:ssn|social security)\b[^0-9\n]{0,24}\Z", re.I)
_IBAN: Final = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}[0-9]{2}(?:[ -]?[A-Za-z0-9]){11,30}")
_IBAN_LENGTHS: Final = {  # IBAN registry (ISO 13616), release 99
    country: int(length)
    for length, countries in (
        *(
            ("15", "NO"),
            ("16", "BE"),
            ("18", "DK FK FI FO GL NL SD"),
            ("19", "MK SI"),
            ("20", "AT BA EE KZ LT LU MN XK"),
        ),
        *(("21", "CH HR LI LV"), ("22", "BG BH CR DE GB GE IE ME RS VA"), ("23", "AE GI IL IQ OM SO TL")),
        *(
            ("24", "AD CZ ES MD PK RO SA SE SK TN VG"),
            ("25", "LY PT ST"),
            ("26", "IS TR"),
            ("28", "AL AZ BY CY DO GT HN HU LB NI PL SV"),
        ),
        *(
            ("27", "BI DJ FR GR IT MC MR SM"),
            ("29", "BR EG PS QA UA"),
            ("30", "JO KW MU YE"),
            ("31", "MT SC"),
            ("32", "LC"),
            ("33", "RU"),
        ),
    )
    for country in countries.split()
}
_IBAN_GAP: Final = re.compile(r"[ -]")


class PersonalData:
    """Finds personal data. Making one loads the metadata of phone numbers (about 0.1 s the first time)."""

    def __init__(self) -> None:
        self._phones = PhoneNumbers(CONTEXT)

    def find(self, text: str, start: int = 0) -> list[Found]:
        """The spans that begin at ``start`` or later, in order, none overlapping another."""
        found: list[Found] = []
        if text.find("@", start) >= 0:
            _scan(_EMAIL, "EMAIL_ADDRESS", text, start, _match_end, found)
        for digit in _DIGITS:
            if text.find(digit, start) >= 0:
                break
        else:
            return found
        if text.find(":", start) >= 0:
            _scan(_IPV6, "IP_ADDRESS", text, start, _ipv6_end, found)
        if _IPV4_HINT.search(text, start) is not None:
            _scan(_IPV4, "IP_ADDRESS", text, start, _ipv4_end, found)
        if _DENSE.search(text, start) is not None:
            _scan(_IBAN, "IBAN_CODE", text, start, _iban_end, found)
            _scan(_CARD, "CREDIT_CARD", text, start, _card_end, found)
            _scan(_SSN, "US_SSN", text, start, _ssn_end, found)
            for begin, end in self._phones.find(text, start):
                _add(Found(begin, end, "PHONE_NUMBER"), found)
        return found


def _scan(
    pattern: re.Pattern[str],
    kind: Kind,
    text: str,
    start: int,
    end_of: Callable[[str, re.Match[str]], int | None],
    found: list[Found],
) -> None:
    # After a candidate that is none, the next one may begin inside it: what is found must not depend on `start`.
    while (match := pattern.search(text, start)) is not None:
        end = end_of(text, match)
        if end is None:
            start = match.start() + 1
        else:
            _add(Found(match.start(), end, kind), found)
            start = end


def _add(new: Found, found: list[Found]) -> None:
    at = bisect_left(found, new)
    if (at == 0 or found[at - 1].end <= new.start) and (at == len(found) or new.end <= found[at].start):
        found.insert(at, new)


def _match_end(_text: str, match: re.Match[str]) -> int | None:
    return match.end()


def _ipv4_end(text: str, match: re.Match[str]) -> int | None:
    start = match.start()
    if text.startswith(_NOBODYS, start) or _VERSION_BEFORE.search(text, max(0, start - CONTEXT), start):
        return None
    return match.end()


def _ipv6_end(_text: str, match: re.Match[str]) -> int | None:
    address = match.group()
    digits = address.replace(":", "")
    if len(digits) < 5 or digits.isalpha():
        return None
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return None
    return match.end()


def _card_end(_text: str, match: re.Match[str]) -> int | None:
    number = match.group().replace(" ", "").replace("-", "")
    return match.end() if _CARD_PREFIX.match(number) and luhn.is_valid(number) else None


def _ssn_end(text: str, match: re.Match[str]) -> int | None:
    start = match.start()
    if match["gap"] != "-" and _SSN_BEFORE.search(text, max(0, start - CONTEXT), start) is None:
        return None
    return match.end() if ssn.is_valid(match.group().replace(" ", "-")) else None


def _iban_end(text: str, match: re.Match[str]) -> int | None:
    """The end of the IBAN that the match begins with, as long as its country's are."""
    start = match.start()
    left = _IBAN_LENGTHS.get(text[start : start + 2].upper(), 0)
    if left == 0:
        return None
    end = start
    while left and end < match.end():
        left -= text[end] not in " -"
        end += 1
    number = _IBAN_GAP.sub("", text[start:end])
    if left or _is_alphanumeric(text[end : end + 1]):
        return None
    return end if iban.is_valid(number) else None


def _is_alphanumeric(character: str) -> bool:
    return character.isascii() and character.isalnum()
