"""Which records are scored: the same ones for everybody, and never more than the quota."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from collector.catalog import EndpointTables
from evaluators.evaluator import Score, Text
from evaluators.runs.run_history import RunHistory
from evaluators.runs.runner import EvaluationRunner
from evaluators.runs.sampling import Sampling, in_fraction
from servelens.clock import ManualClock
from servelens.errors import Invalid, Unavailable
from servelens.identifiers import RequestIds
from tests.unit.evaluators.inference_rows import ENDPOINT, payload_rows
from tests.unit.evaluators.scoring_evaluators import LengthEvaluator

START = datetime(2026, 3, 4, 10, tzinfo=UTC)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START + timedelta(hours=3))


def run(
    tables: EndpointTables, history: RunHistory, clock: ManualClock, sampling: Sampling, **options: int
) -> tuple[int, int]:
    target = "request" if options.pop("request", 0) else "response"
    evaluator = LengthEvaluator(target=target)  # type: ignore[arg-type]
    runner = EvaluationRunner(tables, ENDPOINT, evaluator, history, clock, sampling=sampling, **options)
    summary = runner.run()
    assert summary.to_version == tables.payload.version()
    return summary.scored, summary.skipped


def chosen(tables: EndpointTables, target: str = "response") -> set[str]:
    frame = tables.scores.scan().collect()
    return set(frame.filter(frame["target"] == target)["databricks_request_id"])


def test_a_fraction_is_about_right_and_a_smaller_one_a_part_of_it() -> None:
    ids = [RequestIds().next() for _ in range(4_000)]
    tenth = {each for each in ids if in_fraction(each, 0.1)}
    half = {each for each in ids if in_fraction(each, 0.5)}
    assert tenth < half
    assert abs(len(tenth) / 4_000 - 0.1) < 0.025  # over five standard errors
    assert abs(len(half) / 4_000 - 0.5) < 0.045
    assert all(in_fraction(each, 1.0) for each in ids)


def test_all_evaluators_score_the_same_fraction_and_the_rest_is_counted(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    tables.payload.append(payload_rows(300, START))
    scored, skipped = run(tables, history, clock, Sampling(fraction=0.2))
    assert scored + skipped == 300
    assert 20 < scored < 120
    assert history.recent()[0].skipped == skipped
    run(tables, history, clock, Sampling(fraction=0.2), request=1)
    assert chosen(tables, "request") == chosen(tables)
    assert run(tables, history, clock, Sampling(fraction=0.2)) == (0, 0)


def test_a_quota_holds_per_variant_and_window_over_batches_and_runs(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    sampling = Sampling(quota=5, per="1 hour")
    kept: Counter[tuple[str | None, int]] = Counter()
    for _ in range(3):
        for hour in (0, 1):
            rows = payload_rows(8, START + timedelta(hours=hour), variant=["control", "hot"] * 4)
            tables.payload.append(rows)
        run(tables, history, clock, sampling, max_rows=8)
        frame = tables.scores.scan().collect()
        kept = Counter(zip(frame["variant"], frame["request_time"].dt.hour(), strict=True))
    assert kept == {("control", 10): 5, ("hot", 10): 5, ("control", 11): 5, ("hot", 11): 5}
    assert sum(each.skipped or 0 for each in history.recent()) == 48 - 20


def test_a_quota_takes_the_first_of_the_window(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    payload = payload_rows(10, START, every=timedelta(minutes=1))
    tables.payload.append(payload.reverse())
    assert run(tables, history, clock, Sampling(quota=2, per="5 minutes")) == (4, 6)
    minutes = tables.scores.scan().collect()["request_time"].dt.minute().sort().to_list()
    assert minutes == [0, 1, 5, 6]


def test_a_batch_that_failed_has_not_used_up_the_quota(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    class Away(LengthEvaluator):
        is_away = True

        def score(self, batch: Sequence[Text]) -> list[Score]:
            if self.is_away:
                raise Unavailable("the model is away")
            return super().score(batch)

    evaluator = Away()
    runner = EvaluationRunner(tables, ENDPOINT, evaluator, history, clock, sampling=Sampling(quota=3))
    tables.payload.append(payload_rows(8, START))
    with pytest.raises(Unavailable):
        runner.run()
    evaluator.is_away = False
    summary = runner.run()
    assert (summary.scored, summary.skipped) == (3, 5)


def test_a_quota_is_of_the_fraction(tables: EndpointTables, history: RunHistory, clock: ManualClock) -> None:
    payload = payload_rows(200, START)
    tables.payload.append(payload)
    assert run(tables, history, clock, Sampling(fraction=0.5, quota=10))[0] == 10
    inside = [each for each in payload["databricks_request_id"] if in_fraction(each, 0.5)]
    assert chosen(tables) == set(inside[:10])


def test_what_sampling_left_out_stays_out_when_records_are_looked_for(
    tables: EndpointTables, history: RunHistory, clock: ManualClock
) -> None:
    for _ in range(3):
        tables.payload.append(payload_rows(50, START))
    # As after the end of the history: the first version is gone.
    from collector.maintenance_compaction import Compactor
    from collector.maintenance_history import clean_log, purge

    Compactor(min_files=2, target_bytes=128 << 20).run(
        tables.payload, now=datetime.now(UTC) + timedelta(hours=2)
    )
    clean_log(tables.payload, 48)
    purge(tables.payload)
    scored, skipped = run(tables, history, clock, Sampling(fraction=0.3), max_rows=40)
    assert scored + skipped == 150
    ids = tables.payload.scan().collect()["databricks_request_id"]
    assert chosen(tables) == {each for each in ids if in_fraction(each, 0.3)}


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"fraction": 0.0}, "fraction"),
        ({"fraction": 1.5}, "fraction"),
        ({"quota": 0}, "quota"),
        ({"quota": 5, "per": "1 fortnight"}, "per"),
    ],
)
def test_what_is_no_sampling_is_refused(options: dict[str, object], field: str) -> None:
    with pytest.raises(Invalid, match=rf"^sampling\.{field}: "):
        Sampling(**options)  # type: ignore[arg-type]
