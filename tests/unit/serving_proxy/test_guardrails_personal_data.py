"""Personal data is found, and what only looks like it is not."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servelens.demo.prompts import prompts
from servelens.personal_data.detector import PersonalData
from serving_proxy.endpoint import Guardrails
from serving_proxy.guardrails.blocked import Blocked
from serving_proxy.guardrails.screen import Screen, screen_of

MASK = screen_of(Guardrails(pii="mask"), "input")


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("mail bob.o'brien+x@sub.example.co.uk.", "mail <EMAIL_ADDRESS>."),
        ("'bob@example.com' or `a@b.org`", "'<EMAIL_ADDRESS>' or `<EMAIL_ADDRESS>`"),
        ("Ω: jürgen@müller.de", "Ω: <EMAIL_ADDRESS>"),
        ("call +1 (415) 555-2671 24/7", "call <PHONE_NUMBER> 24/7"),
        ("+49 (0)30 901820 ok", "<PHONE_NUMBER> ok"),
        ("Tel. +44 20 7946 0958", "Tel. <PHONE_NUMBER>"),
        (
            "(415) 555-2671 or 415-555-2671 or 415.555.2671",
            "<PHONE_NUMBER> or <PHONE_NUMBER> or <PHONE_NUMBER>",
        ),
        ("my phone is 4155552671", "my phone is <PHONE_NUMBER>"),
        ("phone: 030 901820", "phone: <PHONE_NUMBER>"),
        ("ruf mich an, Handy 0151 23456789", "ruf mich an, Handy <PHONE_NUMBER>"),
        ("card 4111 1111 1111 1111 12/26 123", "card <CREDIT_CARD> 12/26 123"),
        ("4111-1111-1111-1111,378282246310005", "<CREDIT_CARD>,<CREDIT_CARD>"),
        ("2223003122003222", "<CREDIT_CARD>"),
        ("IBAN DE89 3704 0044 0532 0130 00 and more", "IBAN <IBAN_CODE> and more"),
        ("gb29nwbk60161331926819", "<IBAN_CODE>"),
        ("NO93 8601 1117 947 x", "<IBAN_CODE> x"),
        ("SSN 219-09-9998", "SSN <US_SSN>"),
        ("ssn: 219 09 9998, social security no. 219099998", "ssn: <US_SSN>, social security no. <US_SSN>"),
        ("ip 192.168.1.14, 8.8.8.8:53", "ip <IP_ADDRESS>, <IP_ADDRESS>:53"),
        ("http://10.1.2.3/x", "http://<IP_ADDRESS>/x"),
        ("2001:db8:85a3::8a2e:370:7334", "<IP_ADDRESS>"),
        ("电话4111111111111111、邮箱bob@example.com。", "电话<CREDIT_CARD>、邮箱<EMAIL_ADDRESS>。"),
        ("fe80::1ff:fe23:4567:890a", "<IP_ADDRESS>"),
    ],
)
def test_masked(text: str, masked: str) -> None:
    assert MASK.text(text) == masked


ORDINARY = [
    "On 2024-01-15 at 10:30:45 the price rose from $1,299.99 to 1 299,00 EUR (+8.5 %).",
    "Version 3.11.4, v1.2.3.4, release 10.0.19041.1, Python 3.12.0rc1, order #4532015112830366a",
    "ISBN 978-3-16-148410-0, 0-306-40615-2; EAN 4006381333931; 15.01.2024, 01/15/2024 12:00",
    "20240115103000, unix 1700000000 and 1700000000000; request 0199f0c2-6c1e-7a31-9d0f-3f6f0f5f9b1a",
    "sha 9b74c9897bac770ffc029102a2c5de00 pi 3.14159265358979 0.1234567890123456 1e-10 100,000,000",
    "127.0.0.1:8000 and 0.0.0.0, std::vector<int> a::b npm react@18.2.0 icon@2x.png @decorator C++",
    "In 1969 600 million people watched; 555-1234 is short. rows 10 20 30 40 50 60 70 80 90",
    "call me at 10:30 on 2024-01-15, text 12345 to 54321. 300 200 1000. range 1990-2000, 1999-2004",
    "UUID 550e8400-e29b-41d4-a716-446655440000 lat 52.520008, 13.404954; tracking 1Z999AA10123456784",
    "invoice 2024-000123-77; 12 345 678 items; call 0.12345678; 2+2=4; ratio 16:9; 1 000 000 000 people",
    "user@host, bob at example dot com, 12@34.56, a@b",
]


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_numbers_are_left_alone(text: str) -> None:
    assert MASK.text(text) is text


def test_ordinary_prompts_are_left_alone() -> None:
    assert len(prompts()) > 50
    assert [prompt.text for prompt in prompts() if MASK.text(prompt.text) is not prompt.text] == []


@given(year=st.dates(), number=st.integers(0, 10**9), price=st.decimals(0, 10**6, places=2))
def test_dates_counts_and_prices_are_left_alone(year: object, number: int, price: object) -> None:
    text = f"Since {year} we sold {number:,} for ${price} each, {number} in all (call it {price})."
    assert MASK.text(text) == text


def test_blocking_names_the_kind_and_not_the_secret() -> None:
    screen = Screen(Guardrails(pii="block"), "input")
    with pytest.raises(Blocked) as caught:
        screen.text("I am bob@example.com")
    assert "EMAIL_ADDRESS" in str(caught.value)
    assert "bob" not in str(caught.value)


@given(text=st.text(alphabet="0123456789 +-().@ab:,\n", max_size=120))
def test_spans_are_ordered_and_apart(text: str) -> None:
    found = PersonalData().find(text)
    ends = [0, *(span.end for span in found)]
    assert all(span.start >= end and span.end > span.start for span, end in zip(found, ends, strict=False))


@pytest.mark.parametrize(
    "unit",
    [
        "+1 415 555 2670 3 ",
        "DE00 3704 0044 0532 0130 01 ",
        "4111 1111 1111 1112 ",
        "a.b.c@d.",
        "1.2.3.",
        "a:",
        "1-2",
        "+",
    ],
)
def test_near_misses_cost_little(unit: str) -> None:
    text = unit * (200_000 // len(unit))
    started = time.process_time()
    MASK.text(text)
    assert time.process_time() - started < 4
