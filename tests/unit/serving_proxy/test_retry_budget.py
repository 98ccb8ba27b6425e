"""How many retries there may be, and how long to wait for one."""

from __future__ import annotations

from random import Random

import pytest

from serving_proxy.endpoint import Retries
from serving_proxy.retry_budget import RetryBudget
from serving_proxy.retry_delay import retry_after, retry_delay


def granted(budget: RetryBudget, share: float, now_s: float, asked: int) -> int:
    count = 0
    for _ in range(asked):
        if budget.allows(share, now_s):
            budget.spend()
            count += 1
    return count


def test_a_quiet_entity_has_a_few_a_second() -> None:
    assert granted(RetryBudget(0.0), 0.2, 0.0, 100) == 30


def test_a_share_of_the_calls_of_late() -> None:
    budget = RetryBudget(0.0)
    total = 0
    for second in range(1, 101):  # 1000 calls a second, all of which ask
        budget.calls += 1000
        total += granted(budget, 0.2, float(second), 1000)
    assert total == pytest.approx(0.2 * 100_000, rel=0.05)


def test_what_is_long_ago_does_not_count() -> None:
    budget = RetryBudget(0.0)
    budget.calls += 1_000_000
    assert not budget.allows(0.0, 1.0)
    assert granted(budget, 0.2, 3600.0, 10_000) == 30


def test_a_burst_of_retries_is_paid_back_with_time() -> None:
    budget = RetryBudget(0.0)
    assert granted(budget, 0.2, 0.0, 100) == 30
    assert granted(budget, 0.2, 1.0, 100) in (2, 3)
    assert granted(budget, 0.2, 100.0, 100) in (29, 30)


def test_full_jitter_within_a_doubling_bound() -> None:
    retries, random = Retries(base_s=0.1, max_s=0.5), Random(7)
    for tries, bound in [(1, 0.1), (2, 0.2), (3, 0.4), (4, 0.5), (9, 0.5)]:
        delays = [retry_delay(retries, tries, None, random) or 0.0 for _ in range(200)]
        assert bound * 0.9 < max(delays) <= bound
        assert min(delays) < bound * 0.1


def test_retry_after_is_kept_when_it_is_short_enough() -> None:
    random = Random(7)
    assert retry_delay(Retries(max_s=2.0), 1, 1.5, random) == 1.5
    assert retry_delay(Retries(max_s=2.0), 1, 2.5, random) is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        (b"3", 3.0),
        (b" 0 ", 0.0),
        (b"Thu, 01 Jan 1970 00:00:30 GMT", 20.0),
        (b"Thu, 01 Jan 1970 00:00:05 GMT", 0.0),
        (b"soon", None),
        (b"-1", None),
        (b"1.5", None),
        (b"9" * 400, 999_999_999.0),
        (b"\xff", None),
    ],
)
def test_retry_after_as_seconds_or_as_a_date(value: bytes | None, seconds: float | None) -> None:
    assert retry_after(value, 10_000_000) == seconds
