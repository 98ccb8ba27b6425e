from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from collector.event_stream import event_data

LINES = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=12)


def test_the_example_of_the_standard() -> None:
    body = (
        b"data: YHOO\ndata: +2\ndata: 10\n\n: a comment\nevent: x\nid: 1\nretry: 5\ndata:no space\n\ndata\n\n"
    )
    assert list(event_data(body)) == [b"YHOO\n+2\n10", b"no space", b""]


def test_one_space_is_taken_off_and_no_more() -> None:
    assert list(event_data(b"data:  two\n\n")) == [b" two"]


def test_fields_that_only_begin_like_data_are_others() -> None:
    assert list(event_data(b"database: 1\n\ndata : 2\n\n")) == []


def test_an_event_without_its_blank_line_is_given() -> None:
    assert list(event_data(b"data: a\n\ndata: b")) == [b"a", b"b"]
    assert list(event_data(b"")) == []


def test_a_byte_order_mark_is_no_part_of_the_first_field() -> None:
    assert list(event_data(b"\xef\xbb\xbfdata: a\n\n")) == [b"a"]


@given(
    st.lists(st.lists(LINES, min_size=1, max_size=3), max_size=5),
    st.lists(st.sampled_from(["\n", "\r\n", "\r"]), min_size=1, max_size=20),
    st.booleans(),
    st.lists(LINES, max_size=3),
)
def test_any_line_ends_and_comments_give_the_same_events(
    events: list[list[str]], ends: list[str], closed: bool, comments: list[str]
) -> None:
    lines: list[str] = []
    for number, event in enumerate(events):
        lines += [f":{comment}" for comment in comments]
        lines += [f"data: {line}" for line in event]
        if closed or number < len(events) - 1:
            lines.append("")
    # A bare CR before a line that is empty would read as CRLF with the next LF, so one kind of end per stream.
    for end in set(ends):
        body = "".join(line + end for line in lines).encode()
        assert list(event_data(body)) == ["\n".join(event).encode() for event in events]
