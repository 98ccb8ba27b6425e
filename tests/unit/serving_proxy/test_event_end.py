"""The end of a stream is found however the bytes are cut, and nowhere else."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving_proxy.event_end import DONE, EventEnd, Sight


@pytest.mark.parametrize("line", [b"data: [DONE]\n\n", b"data:[DONE]\r\n\r\n", b"data: [DONE]"])
@pytest.mark.parametrize("before", [b"", b"data: {}\n\n", b": ping\r\n", b"data: 1\r"])
@given(cuts=st.sets(st.integers(1, 40)))
def test_found_however_it_is_cut(before: bytes, line: bytes, cuts: set[int]) -> None:
    text = before + line
    edges = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    end = EventEnd(DONE)
    pieces = [text[start:stop] for start, stop in pairwise(edges)]
    seen = [end.look(piece) is Sight.COMPLETE for piece in pieces]
    assert any(seen)
    reached = sum(len(piece) for piece in pieces[: seen.index(True) + 1])
    assert reached >= text.index(b"[DONE]") + 6


@pytest.mark.parametrize(
    "text", [b'data: {"content": "data: [DONE]"}\n\n', b"xdata: [DONE]\n", b"[DONE]\n", b"data:  [DONE]"]
)
@given(cut=st.integers(0, 40))
def test_not_found_inside_a_text(text: bytes, cut: int) -> None:
    end = EventEnd(DONE)
    assert end.look(text[:cut]) is None
    assert end.look(text[cut:]) is None
