"""relabel.interchange.json_array: arrays in pieces, and what is none."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from relabel.interchange.json_array import read_objects
from servelens.errors import Invalid

_VALUE: list[dict[str, Any]] = [
    {},
    {"text": 'brackets ]}, {[ and "quotes" \\', "emoji": "😀\ud83d\ude00"},
    {"nested": {"list": [1, -2.5e3, None, True, {"deep": [[], {}]}]}, "é": "\u0000\n\t"},
    {"number": 12345678901234567890},
]


def _cut(data: bytes, size: int) -> Iterator[bytes]:
    return (data[first : first + size] for first in range(0, len(data), size))


@pytest.mark.parametrize("ascii_only", [False, True])
@pytest.mark.parametrize("indent", [None, 1])
def test_an_array_is_read_whatever_the_pieces(ascii_only: bool, indent: int | None) -> None:
    value = json.loads(json.dumps(_VALUE))
    data = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    for size in (*range(1, 30), len(data)):
        assert list(read_objects(_cut(data, size))) == value


def test_elements_are_given_as_they_come() -> None:
    def endless() -> Iterator[bytes]:
        yield b'[{"a": 1}'
        while True:
            yield b', {"a": 2}'

    elements = read_objects(endless())
    assert [next(elements) for _ in range(3)] == [{"a": 1}, {"a": 2}, {"a": 2}]


def test_a_long_element_costs_its_length() -> None:
    data = json.dumps([{"text": "x" * 4_000_000}]).encode()
    started = time.process_time()
    [element] = read_objects(_cut(data, 1_000))
    assert len(element["text"]) == 4_000_000
    assert time.process_time() - started < 5  # at every piece anew it would be minutes


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is no JSON array"),
        (b'{"a": 1}', "it is no JSON array"),
        (b"[1]", r"\[0\]: it is no JSON object"),
        (b'[{"a": 1}, 2]', r"\[1\]: it is no JSON object"),
        (b'[{"a": 1},]', r"\[1\]: it is no JSON object"),
        (b'[{"a": 1}', r"\[1\]: the array does not go on"),
        (b'[{"a": ', r"\[0\]: it is no JSON"),
        (b'[{"a": NaN}]', r"\[0\]: it cannot be read: NaN is no JSON"),
        (b'[{"a": ' + b"[" * 200_000, r"\[0\]: it cannot be read"),
        (b'[{"a": "\xff"}]', "it is not UTF-8"),
        (b"[] x", "something follows the array"),
    ],
)
def test_what_is_no_array_of_objects_is_said(data: bytes, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        list(read_objects([data]))


def test_a_mark_at_the_beginning_is_passed_over() -> None:
    assert list(read_objects([b"\xef\xbb\xbf[", b' {"a": 1} ]\n'])) == [{"a": 1}]
