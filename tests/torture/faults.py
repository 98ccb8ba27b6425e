"""What is done to the machine: one fault after another, in an order that the seed decides."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.torture.damage import Destroyed, flip, segments, truncate, worker_of
from tests.torture.disk import SpoolDisk
from tests.torture.machine import Machine
from tests.torture.stepped_clock import step
from tests.torture.storage import Storage

_HOUR_US = 3_600_000_000
_STEPS_US = (
    -36 * _HOUR_US,
    -_HOUR_US,
    -5_000_000,
    0,
    5_000_000,
    _HOUR_US,
    36 * _HOUR_US,
    400 * 24 * _HOUR_US,
)
LOW_BYTES = 4 << 20
"""The spools' watermark; a disk that is only low keeps half of it."""


class Faults:
    """Counts what it did in ``done`` and remembers what it ``destroyed``.

    Workers are not killed while their disk refuses records: how many were dropped is on the disk within a tenth of a
    second, and what a kill makes of that last tenth nobody could tell from a loss.
    """

    def __init__(
        self,
        machine: Machine,
        disk: SpoolDisk,
        storage: Storage,
        clock: Path,
        workers: tuple[str, ...],
        chance: random.Random,
        say: Callable[[str], None],
    ) -> None:
        self.done: Counter[str] = Counter()
        self.destroyed: list[Destroyed] = []
        self._machine, self._disk, self._storage, self._clock = machine, disk, storage, clock
        self._workers, self._chance, self._say = workers, chance, say
        self._kinds: dict[str, Callable[[], None]] = {
            "worker killed": self._kill_worker,
            "collector killed": self._kill_collector,
            "disk full": self._fill_disk,
            "disk low": self._lower_disk,
            "storage away": self._take_storage,
            "clock stepped": self._step_clock,
            "closed segment damaged": self._damage_closed,
            "dead worker damaged": self._damage_dead,
            "newest segment cut": self._cut_newest,
        }

    def run(self, seconds: float) -> None:
        """Go through all kinds in ever new orders for ``seconds``, and at least once."""
        until = time.monotonic() + seconds
        kinds = [*self._kinds, "worker killed", "collector killed"]
        while time.monotonic() < until:
            self._chance.shuffle(kinds)
            for kind in kinds:
                if time.monotonic() >= until and self.done[kind]:
                    return
                self._say(kind)
                self._kinds[kind]()
                self.done[kind] += 1
                self._wait(0.2, 0.8)

    def heal(self) -> None:
        """Everything is well again, but for the clock."""
        self._disk.free()
        self._storage.bring_back()
        for name in self._machine.names:
            self._machine.release(name)

    def _wait(self, least: float, most: float) -> None:
        time.sleep(self._chance.uniform(least, most))  # the moment of a fault is what is random here

    def _kill_worker(self) -> None:
        self._machine.kill(self._chance.choice(self._workers))

    def _kill_collector(self) -> None:
        self._machine.kill("collector")

    def _fill_disk(self) -> None:
        self._full(leave_bytes=0)

    def _lower_disk(self) -> None:
        self._full(leave_bytes=LOW_BYTES // 2)

    def _full(self, *, leave_bytes: int) -> None:
        processes = [self._machine.process_id(name) for name in self._workers]
        self._disk.fill([each for each in processes if each is not None], leave_bytes=leave_bytes)
        self._wait(0.8, 1.6)
        if self._chance.random() < 0.3:
            self._kill_collector()
        self._disk.free()
        time.sleep(1.5)  # by then the workers have noted what they dropped

    def _take_storage(self) -> None:
        self._storage.take_away()
        self._wait(0.5, 1.5)
        self._chance.choice((self._kill_worker, self._kill_collector, lambda: None))()
        self._wait(0.5, 2.0)
        self._storage.bring_back()

    def _step_clock(self) -> None:
        step(self._clock, self._chance.choice(_STEPS_US))

    def _damage_closed(self) -> None:
        """Segments that the collector, which is dead, has not taken yet."""
        self._machine.hold("collector", kill=True)
        self._wait(1.5, 3.0)
        found = [
            (path, worker)
            for directory in self._directories()
            if (worker := worker_of(directory)) is not None
            for path in segments(directory)[:-1]
        ]
        for path, worker in self._chance.sample(found, min(2, len(found))):
            self._damage(path, worker, self._chance.choice((flip, truncate)))
        self._machine.release("collector")

    def _damage_dead(self) -> None:
        """Any segment of a worker that was killed."""
        name = self._chance.choice(self._workers)
        self._machine.hold(name, kill=True)
        self._damage_one_of(name, newest=False)
        self._machine.release(name)

    def _cut_newest(self) -> None:
        """The newest segment of a worker that was stopped, so that its notes say how far it came."""
        name = self._chance.choice(self._workers)
        if self._machine.hold(name, kill=False):  # else it had not even started
            self._damage_one_of(name, newest=True)
        self._machine.release(name)

    def _damage_one_of(self, name: str, *, newest: bool) -> None:
        directory = self._disk.path / name
        worker = worker_of(directory)
        paths = segments(directory)
        if worker is None or not paths:
            return
        self._damage(
            paths[-1] if newest else self._chance.choice(paths), worker, truncate if newest else flip
        )

    def _damage(
        self, path: Path, worker: str, how: Callable[[Path, str, random.Random], list[Destroyed]]
    ) -> None:
        try:
            destroyed = how(path, worker, self._chance)
        except FileNotFoundError:
            return  # the collector has just taken it
        self._say(f"  {how.__name__} {worker} {path.name}: {len(destroyed)} records")
        self.done[how.__name__] += 1
        self.destroyed += destroyed

    def _directories(self) -> list[Path]:
        return [self._disk.path / name for name in self._workers if (self._disk.path / name).is_dir()]
