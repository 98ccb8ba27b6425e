"""Where a proxy worker's snapshots come from: the endpoints and the experiments of the database.

A worker calls its source again and again, in a thread. The file is reconciled into the database when it has changed; a
new snapshot is made when one of the database's generations has. What is wrong never takes anything else along: with a
wrong file, or no database, the old snapshot stays; an endpoint that cannot be built stays as it was; an experiment of
the file that cannot be changed as it says stays as it was; one that does not fit its endpoint does not run. All of it is
raised at the next call, so that the worker says so in its readiness.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from experiments.definition_rules import refuse_overlaps
from experiments.experiment import Experiment
from experiments.lifecycle import Lifecycle
from servelens.clock import Clock
from servelens.control.proxy_workers import BEAT_S, ProxyWorkers, WorkerState
from servelens.control.store import EndpointStore
from servelens.control.stored_endpoint import StoredEndpoint
from servelens.control.stored_settings import resolved
from servelens.endpoint_settings import EndpointSettings
from servelens.errors import Conflict, Invalid, InvalidSettings, ServelensError, Unavailable
from servelens.secret_references import Secrets
from servelens.settings import Settings
from serving_proxy.authentication import NO_KEYS, Keys
from serving_proxy.endpoint import Endpoint
from serving_proxy.routing import Snapshot

logger = logging.getLogger(__name__)

_KEYS_S: Final = 0.4

BuildEndpoint = Callable[[EndpointSettings, int], Endpoint]


class SnapshotSource:
    """Gives ``worker`` its snapshots, and says in ``workers`` which generation it serves.

    ``keys`` is asked twice a second and gives the same object as long as no key has changed. One thread at a time may
    call; :attr:`snapshot` may be read from any.
    """

    def __init__(
        self,
        path: Path,
        load: Callable[[Path], Settings],
        store: EndpointStore,
        lifecycle: Lifecycle,
        workers: ProxyWorkers,
        build_endpoint: BuildEndpoint,
        build_experiments: Callable[[Settings], Sequence[Experiment]],
        secrets: Secrets,
        clock: Clock,
        *,
        worker: str,
        keys: Callable[[], Keys] = lambda: NO_KEYS,
    ) -> None:
        self.snapshot = Snapshot({})
        self._path = path
        self._load = load
        self._store = store
        self._lifecycle = lifecycle
        self._workers = workers
        self._build_endpoint = build_endpoint
        self._build_experiments = build_experiments
        self._secrets = secrets
        self._clock = clock
        self._worker = worker
        self._keys = keys
        self._file: tuple[int, int] | None = None
        self._generation = self._experiments_generation = -1
        self._built: dict[tuple[str, int], Endpoint] = {}
        self._failing: dict[str, str] = {}
        self._misfits: list[str] = []
        self._refused: Conflict | None = None
        self._refused_at = -1
        self._reported: WorkerState | None = None
        self._next_beat = self._next_keys = clock.monotonic()

    def __call__(self) -> Snapshot | None:
        """A new snapshot, or ``None`` when nothing has changed since the last call.

        Raises a ServelensError at the first call when there is nothing to serve, and later whatever keeps the worker
        from serving exactly what is configured.
        """
        serves = self._generation  # a worker that calls again has taken over what it was given last
        problem = self._follow_file()
        try:
            snapshot = self._follow_store()
            if snapshot is not None:
                return snapshot
            self._report(serves)
        except Unavailable:
            if problem is not None:
                raise problem from None
            raise
        said = [*self._failing.values(), *self._misfits]
        if self._refused is not None:
            said.append(str(self._refused))
        if problem is None and said:
            problem = InvalidSettings(" ".join(said))
        if problem is not None:
            raise problem
        return None

    def leave(self) -> None:
        """The worker ends: nobody need wait for it any more."""
        try:
            self._workers.leave(self._worker)
        except ServelensError as error:
            logger.warning("the end of this worker was not noted: %s", error)

    def _follow_file(self) -> ServelensError | None:
        """Reconcile the file when it has changed; what is wrong with it now."""
        try:
            status = self._path.stat()
            seen = (status.st_mtime_ns, status.st_size)
            if seen == self._file and not self._may_take_what_was_refused():
                return None
            settings = self._load(self._path)
            for block in settings.endpoints:
                self._build_endpoint(block, 1)  # what no worker could serve is not stored
            changed = self._store.apply_file(settings.endpoints, by=self._path.name)
            self._apply_experiments(self._build_experiments(settings))
        except OSError as error:
            problem: ServelensError = InvalidSettings(f"{self._path} cannot be read: {error.strerror}.")
        except ServelensError as error:
            problem = error
        else:
            if changed:
                logger.info("settings file applied: endpoints=%s", ",".join(changed))
            self._file = seen
            return None
        if self._file is None:  # there is no older configuration that could be served
            raise problem
        return problem

    def _may_take_what_was_refused(self) -> bool:
        """Whether another experiment's end or change may have made room for what the file wants."""
        return self._refused is not None and self._lifecycle.generation() != self._refused_at

    def _apply_experiments(self, experiments: Sequence[Experiment]) -> None:
        """Those of the file's experiments that are refused are no reason to start without, or to wait with, the others."""
        self._refused, self._refused_at = None, self._lifecycle.generation()
        try:
            changed = self._lifecycle.apply_file(experiments, by=self._path.name)
        except Conflict as error:
            if error.field is None:  # two transactions in each other's way, and no refusal
                raise
            self._refused = error
        else:
            if changed:
                logger.info("settings file applied: experiments=%s", ",".join(changed))

    def _follow_store(self) -> Snapshot | None:
        keys = self._current_keys()
        if keys is self.snapshot.keys and not self._has_changed():
            return None
        generation, endpoints = self._store.state()
        experiments_generation, experiments = self._lifecycle.assigned()
        self._build(endpoints)
        self._generation, self._experiments_generation = generation, experiments_generation
        served = {endpoint.name: endpoint for endpoint in self._built.values()}
        running, self._misfits = _fitting(experiments, served)
        self.snapshot = Snapshot.of(served.values(), running, keys)
        return self.snapshot

    def _has_changed(self) -> bool:
        return (
            self._store.generation() != self._generation
            or self._lifecycle.generation() != self._experiments_generation
        )

    def _current_keys(self) -> Keys:
        """The keys; asked for at every second call at the most, since that costs more than a generation."""
        now = self._clock.monotonic()
        if now < self._next_keys:
            return self.snapshot.keys
        self._next_keys = now + _KEYS_S
        return self._keys()

    def _build(self, stored: Sequence[StoredEndpoint]) -> None:
        """All endpoints, those that have not changed as the same objects."""
        before = {endpoint.name: (key, endpoint) for key, endpoint in self._built.items()}
        built: dict[tuple[str, int], Endpoint] = {}
        self._failing = {}
        for endpoint in stored:
            key = (endpoint.name, endpoint.config_generation)
            try:
                built[key] = self._built.get(key) or self._build_endpoint(
                    resolved(endpoint.parsed(), self._secrets), endpoint.config_version
                )
            except ServelensError as error:
                self._failing[endpoint.name] = f"endpoint '{endpoint.name}': {error}"
                old = before.get(endpoint.name)
                if old is not None and old[0][1] >= endpoint.created_generation:
                    built[old[0]] = old[1]
        self._built = built

    def _report(self, generation: int) -> None:
        state = WorkerState(self._worker, generation, self._failing)
        now = self._clock.monotonic()
        if state != self._reported or now >= self._next_beat:
            self._workers.report(state)
            self._reported, self._next_beat = state, now + BEAT_S


def _fitting(
    experiments: Sequence[Experiment], endpoints: Mapping[str, Endpoint]
) -> tuple[list[Experiment], list[str]]:
    """The experiments whose endpoint has every served entity that they need, and whose units no earlier one has; and why
    the others cannot run.
    """
    fitting: list[Experiment] = []
    misfits: list[str] = []
    for experiment in experiments:
        endpoint = endpoints.get(experiment.endpoint)
        entities = endpoint.entities if endpoint else {}
        missing = [each.served_entity for each in experiment.variants if each.served_entity not in entities]
        if missing:
            misfits.append(
                f"experiment '{experiment.name}' does not run: endpoint '{experiment.endpoint}' has no served entity "
                f"'{missing[0]}'."
            )
            continue
        try:
            refuse_overlaps((*fitting, experiment))  # an older release let two of them start
        except Invalid as error:
            misfits.append(f"experiment '{experiment.name}' does not run: {error.message}.")
        else:
            fitting.append(experiment)
    return fitting, misfits
