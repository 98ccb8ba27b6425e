"""relabel.selection.draws: a share of all records, the same everywhere, independent of other purposes."""

from __future__ import annotations

import numpy as np
import pytest

from relabel.selection.draws import CONTROL, drawn, is_drawn

IDS = [f"0199f0c2-6c1e-7a31-9d0f-{number:012x}" for number in range(20_000)]


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 1.0])
def test_about_the_share_is_drawn(share: float) -> None:
    taken = drawn(IDS, share, CONTROL)
    assert taken.mean() == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / len(IDS)) + 1e-12)
    assert taken.tolist()[:100] == [is_drawn(name, share, CONTROL) for name in IDS[:100]]


def test_a_smaller_share_is_a_part_of_a_larger_one() -> None:
    small, large = drawn(IDS, 0.1, CONTROL), drawn(IDS, 0.3, CONTROL)
    assert not (small & ~large).any()


def test_purposes_are_independent() -> None:
    both = (drawn(IDS, 0.5, CONTROL) & drawn(IDS, 0.5, "rule x")).mean()
    assert both == pytest.approx(0.25, abs=0.02)


def test_a_draw_stays_what_it_is() -> None:
    # Written down: a record must not leave the sample with a release.
    assert [place for place, taken in enumerate(drawn(IDS[:40], 0.2, CONTROL)) if taken] == [
        0,
        4,
        6,
        17,
        21,
        23,
        24,
        27,
        28,
    ]
