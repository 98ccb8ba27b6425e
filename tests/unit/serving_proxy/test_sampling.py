"""Sampling by request id: deterministic, uniform, nested."""

from __future__ import annotations

import math

import pytest

from servelens.identifiers import RequestIds
from serving_proxy.sampling import is_sampled

COUNT = 20_000


@pytest.mark.parametrize("fraction", [0.001, 0.1, 0.5, 0.9])
def test_the_share_is_kept(fraction: float) -> None:
    ids = RequestIds()
    kept = sum(is_sampled(ids.next(), fraction) for _ in range(COUNT))
    assert abs(kept - COUNT * fraction) < 5 * math.sqrt(COUNT * fraction * (1 - fraction))


def test_all_and_none() -> None:
    ids = [RequestIds().next() for _ in range(100)]
    assert all(is_sampled(request_id, 1.0) for request_id in ids)
    assert not any(is_sampled(request_id, 0.0) for request_id in ids)


def test_a_smaller_sample_is_part_of_a_larger_one() -> None:
    ids = RequestIds()
    drawn = [ids.next() for _ in range(2000)]
    small = {request_id for request_id in drawn if is_sampled(request_id, 0.2)}
    large = {request_id for request_id in drawn if is_sampled(request_id, 0.6)}
    assert small
    assert small < large
    assert small == {request_id for request_id in drawn if is_sampled(request_id, 0.2)}
