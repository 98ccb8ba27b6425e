"""At most one holder, terms that only grow, by the database's clock; and who leads among several."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from servelens.clock import ManualClock, SystemClock
from servelens.database import Database
from servelens.errors import Conflict, Unavailable
from servelens.leadership import Leadership
from servelens.lease import Lease

REPOSITORY = Path(__file__).parents[2]
SOON_S = 20.0


def await_that(condition: Callable[[], bool], what: str) -> float:
    """Wait for it; the seconds that it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < SOON_S, what
        time.sleep(0.01)
    return time.monotonic() - began


def test_one_holds_it_and_the_next_has_another_term(database: Database) -> None:
    first, second = Lease(database, "work"), Lease(database, "work")
    assert first.acquire()
    assert not second.acquire()
    assert first.acquire()  # renewed
    assert (first.term, second.term) == (1, None)
    assert second.holder_now() == first.holder
    first.check()
    with pytest.raises(Conflict, match="'work'"):
        second.check()
    first.release()
    assert second.holder_now() is None
    assert second.acquire()
    assert second.term == 2
    with pytest.raises(Conflict, match="not kept"):
        first.check()
    first.release()  # not its any more: nothing happens
    second.check()


def test_leases_of_other_names_are_other_leases(database: Database) -> None:
    assert Lease(database, "a").acquire()
    assert Lease(database, "b").acquire()


def test_a_lease_that_is_not_renewed_runs_out_by_the_databases_clock(database: Database) -> None:
    first, second = Lease(database, "work", ttl_s=0.3), Lease(database, "work")
    assert first.acquire()
    await_that(second.acquire, "the lease does not run out")
    assert first.term is None
    with pytest.raises(Conflict):
        first.check()
    assert not first.acquire()


def test_a_holder_whose_machine_slept_believes_neither_its_clock_nor_itself(database: Database) -> None:
    clock = ManualClock(SystemClock().now())
    slept = Lease(database, "work", ttl_s=0.2, clock=clock)  # its own clock stands still
    assert slept.acquire()
    other = Lease(database, "work")
    await_that(other.acquire, "the lease does not run out")
    assert slept.term == 1  # it does not know
    with pytest.raises(Conflict):
        slept.check()


def test_a_holder_stops_believing_before_the_database_gives_it_away(database: Database) -> None:
    clock = ManualClock(SystemClock().now())
    lease = Lease(database, "work", ttl_s=30.0, clock=clock)
    assert lease.acquire()
    clock.advance(30.0)
    assert lease.term is None
    with pytest.raises(Conflict):
        lease.check()
    assert not Lease(database, "work").acquire()


def test_of_many_at_the_same_moment_one_gets_it(database: Database) -> None:
    leases = [Lease(database, "work") for _ in range(6)]
    got: list[str] = []
    together = threading.Barrier(len(leases))

    def take(lease: Lease) -> None:
        together.wait(SOON_S)
        if lease.acquire():
            got.append(lease.holder)

    threads = [threading.Thread(target=take, args=[lease]) for lease in leases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1


def test_it_is_held_and_renewed_for_the_time_of_a_block(database: Database) -> None:
    first, second = Lease(database, "work", ttl_s=1.0), Lease(database, "work")
    with first.held(renew_s=0.05) as mine:
        assert mine
        until = time.monotonic() + 1.3
        while time.monotonic() < until:
            assert not second.acquire()
            time.sleep(0.05)
        with second.held() as also:
            assert not also
    assert second.acquire()


class Candidate:
    """A thread that leads when it may, and notes when."""

    def __init__(self, database: Database, *, ttl_s: float = 10.0) -> None:
        self.stop = threading.Event()
        self.leading = threading.Event()
        self.leadership = Leadership(Lease(database, "work", ttl_s=ttl_s), renew_s=0.1, poll_s=0.05)
        self._thread = threading.Thread(target=self.leadership.run, args=(self._lead, self.stop))
        self._thread.start()

    def end(self) -> None:
        self.stop.set()
        self._thread.join()

    def _lead(self, enough: threading.Event) -> None:
        self.leading.set()
        enough.wait()
        self.leading.clear()


def test_one_leads_and_another_takes_over_at_once_when_it_stops(database: Database) -> None:
    candidates = [Candidate(database) for _ in range(3)]
    try:
        await_that(lambda: any(each.leading.is_set() for each in candidates), "nobody leads")
        leader = next(each for each in candidates if each.leading.is_set())
        others = [each for each in candidates if each is not leader]
        assert leader.leadership.leads
        assert not any(each.leadership.leads for each in others)
        leader.end()
        took_s = await_that(lambda: any(each.leading.is_set() for each in others), "nobody takes over")
        assert took_s < 5  # not the ten seconds of a lease that runs out
    finally:
        for each in candidates:
            each.end()
    assert Lease(database, "work").acquire()


def test_a_leader_that_lost_its_lease_is_told_to_end_its_term(database: Database) -> None:
    candidate = Candidate(database, ttl_s=1.0)
    try:
        await_that(candidate.leading.is_set, "it does not lead")
        with database.session() as session:
            session.connection().exec_driver_sql("UPDATE leases SET holder = 'another', term = 99")
        await_that(lambda: not candidate.leading.is_set(), "it leads on")
    finally:
        candidate.end()


HOLDER = """
import sys, time
from servelens.database import Database
from servelens.lease import Lease
lease = Lease(Database(sys.argv[1]), "work", ttl_s=1.0)
with lease.held(renew_s=0.2) as mine:
    print(mine, flush=True)
    time.sleep(600)
"""


def test_after_kill_9_another_has_it_when_its_time_is_over(database: Database, database_url: str) -> None:
    waiting = Lease(database, "work")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, database_url], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        assert not waiting.acquire()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert await_that(waiting.acquire, "nobody gets it") < 5


def test_a_database_that_is_away_gives_no_lease(tmp_path: Path) -> None:
    lease = Lease(Database(f"sqlite:///{tmp_path / 'nowhere' / 'servelens.db'}"), "work")
    with pytest.raises(Unavailable):
        lease.acquire()
    assert lease.term is None
