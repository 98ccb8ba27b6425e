"""Request ids are valid UUIDs of version 7, grow, and tell their time."""

from __future__ import annotations

import time
import uuid

from servelens.identifiers import RequestIds, id_at, time_us


def test_ids_are_uuid7_and_grow_strictly() -> None:
    ids = RequestIds()
    made = [ids.next() for _ in range(20_000)]
    assert made == sorted(set(made))
    for text in made[::1000]:
        parsed = uuid.UUID(text)
        assert str(parsed) == text
        assert parsed.version == 7
        assert parsed.variant == uuid.RFC_4122


def test_an_id_tells_its_time() -> None:
    before = time.time_ns() // 1000
    text = RequestIds().next()
    after = time.time_ns() // 1000
    assert before - 1 <= time_us(text) <= after


def test_an_id_tells_exactly_the_time_that_its_record_has() -> None:
    ids = RequestIds()
    for _ in range(5_000):
        assert time_us(ids.next()) == ids.last_us
    for moment_us in (
        0,
        1,
        999,
        1_000,
        1_772_366_400_000_999,
        *range(1_772_366_400_000_000, 1_772_366_400_002_000),
    ):
        assert time_us(id_at(moment_us, b"an event")) == moment_us


def test_two_processes_do_not_make_the_same_ids() -> None:
    first, second = RequestIds(), RequestIds()
    assert not {first.next()[-16:] for _ in range(1000)} & {second.next()[-16:] for _ in range(1000)}
