from __future__ import annotations

from evaluators.runs.batch_size import BatchSize


def test_a_slow_model_has_small_batches_and_a_fast_one_grows_to_the_most() -> None:
    slow, fast = BatchSize(2_000), BatchSize(2_000)
    slow.learn(256, 100.0)
    assert slow.rows == 25
    slow.learn(25, 1_000.0)
    assert slow.rows == 16
    sizes = []
    for _ in range(3):
        fast.learn(fast.rows, 0.01)
        sizes.append(fast.rows)
    assert sizes == [1_024, 2_000, 2_000]


def test_the_most_stands_and_nothing_teaches_nothing() -> None:
    size = BatchSize(4)
    size.learn(0, 5.0)
    assert size.rows == 4
    size.learn(4, 100.0)
    assert size.rows == 4
