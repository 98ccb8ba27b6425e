from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from evaluators.runs.schedule import Job, Schedule
from servelens.errors import Conflict, Invalid, Unavailable

SOON_S = 20.0


@pytest.fixture
def started() -> Iterator[Callable[..., Schedule]]:
    schedules: list[Schedule] = []

    def start(*jobs: Job) -> Schedule:
        schedule = Schedule(jobs)
        schedules.append(schedule)
        schedule.start()
        return schedule

    yield start
    for schedule in schedules:
        schedule.stop()


class Counter:
    """An action that counts its runs and those at the same time, and lets a test wait for a count."""

    def __init__(self, work: Callable[[], Any] = lambda: None) -> None:
        self._changed = threading.Condition()
        self._work = work
        self.runs = self.at_once = self.most_at_once = 0

    def __call__(self) -> int:
        with self._changed:
            self.runs += 1
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            self._changed.notify_all()
        try:
            self._work()
        finally:
            with self._changed:
                self.at_once -= 1
        return self.runs

    def wait_for(self, runs: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.runs >= runs, SOON_S), f"only {self.runs} runs"


def test_jobs_run_at_the_start_and_then_at_their_interval(started: Callable[..., Schedule]) -> None:
    often, seldom = Counter(), Counter()
    started(Job("often", 0.02, often), Job("seldom", 3600, seldom))
    seldom.wait_for(1)
    often.wait_for(4)
    assert seldom.runs == 1


def test_a_job_that_raises_is_logged_and_runs_again(
    started: Callable[..., Schedule], caplog: pytest.LogCaptureFixture
) -> None:
    def refuse() -> None:
        raise Unavailable("the model is gone")

    def break_down() -> None:
        raise ZeroDivisionError

    expected, unexpected, sound = Counter(refuse), Counter(break_down), Counter()
    with caplog.at_level(logging.ERROR):
        schedule = started(
            Job("expected", 0.02, expected), Job("unexpected", 0.02, unexpected), Job("sound", 0.02, sound)
        )
        for counter in (expected, unexpected, sound):
            counter.wait_for(3)
        schedule.stop()
    assert "job failed: job=expected error=the model is gone" in caplog.messages
    assert "job failed: job=unexpected" in caplog.messages
    status = {each.name: each for each in schedule.status()}
    assert status["expected"].failures == status["expected"].runs >= 2
    assert status["expected"].last_error == "Unavailable: the model is gone"
    assert (status["sound"].failures, status["sound"].last_error) == (0, None)


def test_a_job_never_runs_twice_at_once_and_a_missed_start_is_not_made_up_for(
    started: Callable[..., Schedule], caplog: pytest.LogCaptureFixture
) -> None:
    release = threading.Event()
    slow, quick = Counter(lambda: release.wait(SOON_S)), Counter()
    with caplog.at_level(logging.INFO):
        schedule = started(Job("slow", 0.02, slow), Job("quick", 0.02, quick))
        quick.wait_for(10)  # some ten starts of the slow one were due meanwhile
        assert (slow.runs, slow.most_at_once) == (1, 1)
        assert schedule.status()[0].running
        release.set()
        slow.wait_for(3)
    assert slow.most_at_once == 1
    assert not [record for record in caplog.records if "maximum number of running" in record.message]


def test_jobs_of_one_group_wait_for_each_other(started: Callable[..., Schedule]) -> None:
    together = Counter(lambda: time.sleep(0.002))
    started(*(Job(f"job-{index}", 0.01, together, group="chat") for index in range(4)))
    together.wait_for(20)
    assert together.most_at_once == 1


def test_jobs_of_different_groups_run_at_the_same_time(started: Callable[..., Schedule]) -> None:
    meeting = threading.Barrier(2, timeout=SOON_S)
    a, b = Counter(meeting.wait), Counter(meeting.wait)
    started(Job("a", 3600, a, group="one"), Job("b", 3600, b, group="two"))
    a.wait_for(1)
    b.wait_for(1)


def test_stop_waits_for_the_running_job_and_starts_no_other() -> None:
    begun, release, finished = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        release.wait(SOON_S)
        finished.set()

    waiting = Counter()
    schedule = Schedule([Job("first", 0.02, work, group="chat"), Job("second", 0.02, waiting, group="chat")])
    schedule.start()
    assert begun.wait(SOON_S)
    runs = waiting.runs
    stopping = threading.Thread(target=schedule.stop)
    stopping.start()
    stopping.join(0.1)
    assert stopping.is_alive()
    release.set()
    stopping.join(SOON_S)
    assert not stopping.is_alive()
    assert finished.is_set()
    assert waiting.runs == runs
    assert not [thread.name for thread in threading.enumerate() if thread.name == "APScheduler"]
    schedule.stop()  # a second time does nothing


def test_run_forever_ends_when_it_is_told_to() -> None:
    stop, counter = threading.Event(), Counter()
    schedule = Schedule([Job("job", 0.02, counter)])
    thread = threading.Thread(target=schedule.run_forever, args=[stop])
    thread.start()
    counter.wait_for(2)
    stop.set()
    thread.join(SOON_S)
    assert not thread.is_alive()
    with pytest.raises(Conflict, match="started before"):
        schedule.start()


def test_run_once_runs_every_job_in_order_and_says_what_came_of_it() -> None:
    order: list[str] = []

    def refuse() -> None:
        order.append("b")
        raise Unavailable("no")

    schedule = Schedule(
        [
            Job("a", 60, lambda: order.append("a") or 7),
            Job("b", 60, refuse),
            Job("c", 60, lambda: order.append("c")),
        ]
    )
    results = schedule.run_once()
    assert order == ["a", "b", "c"]
    assert [result.name for result in results] == ["a", "b", "c"]
    assert results[0].value == 7
    assert isinstance(results[1].error, Unavailable)
    assert results[2].error is None
    assert [status.runs for status in schedule.status()] == [1, 1, 1]


def test_run_once_waits_for_a_job_that_the_schedule_runs(started: Callable[..., Schedule]) -> None:
    counter = Counter(lambda: time.sleep(0.002))
    schedule = started(Job("job", 0.01, counter))
    for _ in range(10):
        schedule.run_once()
    assert counter.most_at_once == 1


@pytest.mark.parametrize("every_s", [0, -1, float("nan")])
def test_an_interval_is_positive(every_s: float) -> None:
    with pytest.raises(Invalid, match="every_s"):
        Schedule([Job("job", every_s, lambda: None)])


def test_two_jobs_of_one_name_are_refused() -> None:
    with pytest.raises(Invalid, match="'job'"):
        Schedule([Job("job", 1, lambda: None), Job("job", 1, lambda: None)])


def test_jobs_come_and_go_while_it_runs(started: Callable[..., Schedule]) -> None:
    first, second = Counter(), Counter()
    schedule = started(Job("first", 0.02, first))
    schedule.add(Job("second", 0.02, second))
    second.wait_for(2)
    schedule.remove("first")
    schedule.remove("never there")
    assert [status.name for status in schedule.status()] == ["second"]
    runs = first.runs
    second.wait_for(second.runs + 5)
    assert first.runs <= runs + 1  # one may have been under way
    schedule.add(Job("first", 3600, first))
    first.wait_for(runs + 1)


def test_a_job_that_is_asked_for_runs_beside_its_times_but_never_twice_at_once(
    started: Callable[..., Schedule],
) -> None:
    counter = Counter(lambda: time.sleep(0.02))
    job = Job("job", 3600, counter)
    schedule = started(job)
    for _ in range(4):
        schedule.run_soon(job)
    counter.wait_for(5)
    assert counter.most_at_once == 1
    other = Counter()
    schedule.run_soon(Job("not added", 3600, other))
    other.wait_for(1)


def test_a_job_at_times_of_the_clock_waits_for_them(started: Callable[..., Schedule]) -> None:
    seldom, often = Counter(), Counter()
    schedule = started(Job("yearly", None, seldom, cron="0 0 29 2 *"), Job("often", 0.02, often))
    often.wait_for(5)
    assert seldom.runs == 0
    assert [status.name for status in schedule.status()] == ["yearly", "often"]


def test_times_that_are_none_are_refused() -> None:
    with pytest.raises(Invalid, match="cron"):
        Schedule([Job("job", None, lambda: None, cron="every day")])
