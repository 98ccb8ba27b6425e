"""The chaos benchmark itself, in short: no call fails and every attempt is on a record."""

from __future__ import annotations

from pathlib import Path

from benchmarks.chaos import FAULTS, WARM_S, plan, run


def test_each_fault_is_followed_by_a_well_phase() -> None:
    phases = plan(62.0)
    assert [phase.fault for phase in phases] == [None, *(each for fault in FAULTS for each in (fault, None))]
    assert phases[-1].stop_s == 62.0
    assert {round(phase.stop_s - phase.start_s, 6) for phase in phases[1:]} == {(62.0 - WARM_S) / 10}


def test_nothing_fails_and_everything_is_recorded(tmp_path: Path) -> None:
    result = run(tmp_path, 9.0)
    assert result["requests"] == 1800
    assert result["failed_requests"] == 0
    assert result["failed_streams"] == 0
    assert result["unrecorded_attempts"] == 0
    assert result["unrecorded_requests"] == 0
    assert result["attempts"] > result["requests"]
