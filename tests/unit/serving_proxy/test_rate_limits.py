"""Rate limits on one machine: what is let in, when there is room again, and who shares a budget with whom."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servelens.clock import ManualClock
from serving_proxy.admission import Admission
from serving_proxy.endpoint import RateLimit
from serving_proxy.failure import failure_of
from tests.unit.serving_proxy.limited import admission, admitted, close, limited, refusal

START = datetime(2026, 1, 1, 12, 0, 0, 250_000, tzinfo=UTC)
FIVE_CALLS = limited(RateLimit("endpoint", calls=5))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def workers(tmp_path: Path, clock: ManualClock) -> Iterator[list[Admission]]:
    workers = [admission(tmp_path, f"proxy-{number}", clock) for number in range(3)]
    yield workers
    close(*workers)


@pytest.fixture
def worker(workers: list[Admission]) -> Admission:
    return workers[0]


def test_calls_up_to_the_limit_over_all_workers(workers: list[Admission]) -> None:
    assert [admitted(worker, FIVE_CALLS, of=2) for worker in workers] == [2, 2, 1]
    assert [admitted(worker, FIVE_CALLS, of=2) for worker in workers] == [0, 0, 0]
    assert [worker.refused for worker in workers] == [2, 2, 3]


def test_a_worker_that_joins_late_knows_what_was_counted(
    tmp_path: Path, workers: list[Admission], clock: ManualClock
) -> None:
    assert admitted(workers[0], FIVE_CALLS, of=4) == 4
    late = admission(tmp_path, "proxy-9", clock)
    assert admitted(late, FIVE_CALLS, of=3) == 1
    assert admitted(workers[0], FIVE_CALLS) == 0
    close(late)


def test_the_window_slides(worker: Admission, clock: ManualClock) -> None:
    assert admitted(worker, FIVE_CALLS, of=3) == 3
    clock.advance(30)
    assert admitted(worker, FIVE_CALLS, of=3) == 2
    clock.advance(31)  # the three are out, the two are not
    assert admitted(worker, FIVE_CALLS, of=4) == 3
    clock.advance(1_000_000)
    assert admitted(worker, FIVE_CALLS, of=9) == 5


def test_retry_after_is_when_there_is_room(workers: list[Admission], clock: ManualClock) -> None:
    admitted(workers[0], FIVE_CALLS, of=2)
    clock.advance(10)
    admitted(workers[1], FIVE_CALLS, of=3)
    clock.advance(5)
    refused = refusal(workers[2], FIVE_CALLS)
    assert refused is not None
    assert 45 <= refused.retry_after_s <= 46
    clock.advance(refused.retry_after_s - 0.01)
    still = refusal(workers[2], FIVE_CALLS)
    assert still is not None
    assert still.retry_after_s == pytest.approx(0.01, abs=0.001)
    clock.advance(0.02)
    assert admitted(workers[2], FIVE_CALLS, of=3) == 2


def test_what_a_refused_call_is_told(worker: Admission) -> None:
    endpoint = limited(RateLimit("user", calls=1))
    admitted(worker, endpoint, "ada")
    refused = refusal(worker, endpoint, "ada")
    assert refused is not None
    failure = failure_of(refused)
    assert (failure.status, failure.error_type) == (429, "rate_limited")
    assert "'chat' for 'ada' is used up: 1 calls in 60 s" in failure.message
    assert failure.head_lines.startswith(b"retry-after: 6")


def test_each_user_has_a_budget(workers: list[Admission]) -> None:
    endpoint = limited(RateLimit("user", calls=2))
    for requester in ("ada", "bob", None, "ad", "a"):
        assert [admitted(worker, endpoint, requester) for worker in workers] == [1, 1, 0]


def test_endpoints_do_not_share(worker: Admission) -> None:
    assert admitted(worker, limited(RateLimit("endpoint", calls=1), name="a"), of=2) == 1
    assert admitted(worker, limited(RateLimit("endpoint", calls=1), name="b"), of=2) == 1


def test_a_named_limit_takes_the_place_of_the_one_for_everybody(worker: Admission) -> None:
    endpoint = limited(RateLimit("user", calls=2), RateLimit("user", calls=4, principal="ada"))
    assert admitted(worker, endpoint, "ada", of=9) == 4
    assert admitted(worker, endpoint, "bob", of=9) == 2
    only_ada = limited(RateLimit("user", calls=1, principal="ada"), name="other")
    assert admitted(worker, only_ada, "bob", of=9) == 9
    assert admitted(worker, only_ada, None, of=9) == 9
    assert admitted(worker, only_ada, "ada", of=9) == 1


def test_a_call_that_one_limit_refuses_does_not_use_up_another(worker: Admission) -> None:
    endpoint = limited(RateLimit("endpoint", calls=3), RateLimit("user", calls=1))
    assert admitted(worker, endpoint, "ada", of=9) == 1
    assert admitted(worker, endpoint, "bob", of=9) == 1
    assert admitted(worker, endpoint, "eve", of=9) == 1
    assert admitted(worker, endpoint, "dan", of=9) == 0
    raised = limited(RateLimit("endpoint", calls=4), RateLimit("user", calls=1))
    assert admitted(worker, raised, "dan", of=9) == 1


def test_tokens_are_charged_afterwards(workers: list[Admission], clock: ManualClock) -> None:
    endpoint = limited(RateLimit("user", tokens=100))
    assert admitted(workers[0], endpoint, "ada", of=2) == 2
    workers[0].used(endpoint, "ada", 99)
    assert admitted(workers[1], endpoint, "ada") == 1
    clock.advance(30)
    workers[1].used(endpoint, "ada", 5_000)
    assert admitted(workers[2], endpoint, "ada") == 0
    assert admitted(workers[2], endpoint, "bob") == 1
    refused = refusal(workers[2], endpoint, "ada")
    assert refused is not None
    assert 60 <= refused.retry_after_s <= 61
    assert "100 tokens" in str(refused)
    clock.advance(refused.retry_after_s + 0.001)
    assert admitted(workers[0], endpoint, "ada") == 1


def test_a_limit_of_zero_lets_nobody_in(worker: Admission) -> None:
    for endpoint in (limited(RateLimit("endpoint", calls=0)), limited(RateLimit("endpoint", tokens=0))):
        refused = refusal(worker, endpoint)
        assert refused is not None
        assert refused.retry_after_s == pytest.approx(60)


def test_a_changed_limit_keeps_what_was_counted(worker: Admission) -> None:
    assert admitted(worker, FIVE_CALLS, of=9) == 5
    assert admitted(worker, limited(RateLimit("endpoint", calls=8)), of=9) == 3
    assert admitted(worker, limited(RateLimit("endpoint", calls=7)), of=9) == 0


def test_a_restarted_worker_goes_on_counting(
    tmp_path: Path, workers: list[Admission], clock: ManualClock
) -> None:
    assert admitted(workers[0], FIVE_CALLS, of=4) == 4
    again = admission(tmp_path, "proxy-0", clock)  # the first one was killed and has closed nothing
    assert admitted(again, FIVE_CALLS, of=4) == 1
    assert admitted(workers[1], FIVE_CALLS, of=4) == 0
    clock.advance(61)
    assert admitted(workers[1], FIVE_CALLS, of=4) == 4
    assert admitted(again, FIVE_CALLS, of=4) == 1
    close(again)


def test_a_clock_that_is_set_back_forgets_but_does_not_lock_out(
    worker: Admission, tmp_path: Path, clock: ManualClock
) -> None:
    assert admitted(worker, FIVE_CALLS, of=9) == 5
    clock.advance(-600)
    assert admitted(worker, FIVE_CALLS, of=9) == 5


def test_counts_that_cannot_be_shared_still_limit(tmp_path: Path, clock: ManualClock) -> None:
    (tmp_path / "counts").mkdir()
    alone = admission(tmp_path, "proxy-0", clock)
    assert admitted(alone, FIVE_CALLS, of=9) == 5
    close(alone)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.floats(0, 20), st.integers(0, 2), st.integers(1, 8)), max_size=80),
    st.integers(1, 12),
    st.floats(0, 1),
)
def test_no_window_holds_more_than_allowed_and_room_is_given(
    steps: list[tuple[float, int, int]], limit: int, offset_s: float
) -> None:
    endpoint = limited(RateLimit("endpoint", calls=limit))
    clock = ManualClock(START)
    clock.advance(offset_s)
    times: list[int] = []
    with TemporaryDirectory() as folder:
        workers = [admission(Path(folder), f"proxy-{number}", clock) for number in range(3)]
        for pause_s, number, burst in steps:
            clock.advance(pause_s)
            now = clock.now_us()
            for _ in range(burst):
                within_60_s = sum(now - time < 60_000_000 for time in times)
                within_61_s = sum(now - time < 61_000_000 for time in times)
                let_in = admitted(workers[number], endpoint) == 1
                assert not (let_in and within_60_s >= limit)
                assert let_in or within_61_s >= limit
                times += [now] * let_in
        close(*workers)
