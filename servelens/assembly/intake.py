"""The collector's other ways in, from the settings, the endpoints and the API keys of the database."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Final

from collector.intake.refusal import Refusal
from collector.intake.rules import Entity, Rules, Target
from collector.intake.server import IntakeConfig, IntakeServer
from collector.record import UNROUTED
from servelens.assembly.endpoints import build_endpoint
from servelens.clock import Clock
from servelens.control.store import EndpointStore
from servelens.database import Database
from servelens.errors import InvalidSettings, ServelensError, Unavailable
from servelens.keys.current import CurrentKeys
from servelens.keys.password import accept_password
from servelens.keys.store import KeyStore
from servelens.settings import Settings
from serving_proxy.authentication import Keys, authenticate, check_listen, is_loopback
from serving_proxy.endpoint import Endpoint
from serving_proxy.failure import Failure
from serving_proxy.privacy import Privacy

logger = logging.getLogger(__name__)

_REFRESH_S: Final = 0.5


class IntakeDoor:
    """Who may come in and by which rules, followed as keys and endpoints change; while the database is away, as they
    were. Until both are known nobody comes in. ``prepare`` is called once, before the database is first asked.
    """

    def __init__(
        self,
        store: EndpointStore,
        keys: CurrentKeys,
        clock: Clock,
        *,
        host: str,
        names: Mapping[str, str],
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._load_keys = keys
        self._clock = clock
        self._host = host
        self._names = names
        self._prepare: Callable[[], None] | None = prepare
        self._keys: Keys | None = None
        self._rules: Rules | None = None
        self._generation = -1
        self._built: dict[str, tuple[int, Endpoint]] = {}

    def caller(self, fields: Mapping[bytes, bytes]) -> str | None:
        """The name of the key, see :class:`~collector.intake.rules.Door`."""
        if self._keys is None:
            raise Refusal(503, "the API keys are not known yet: the database is away.", retry_after_s=5.0)
        if not self._keys.required and not is_loopback(self._host):
            raise Refusal(
                401,
                "there are no API keys, so nobody may come in from another machine.",
                fix="Create a key first.",
            )
        credentials = dict(fields)
        accept_password(credentials)
        outcome = authenticate(self._keys, credentials, self._clock.now_us())
        if isinstance(outcome, Failure):
            raise Refusal(outcome.status, outcome.message, field=outcome.field)
        return None if outcome is None else outcome.name

    def rules(self) -> Rules:
        """The current rules, see :class:`~collector.intake.rules.Door`."""
        if self._rules is None:
            raise Refusal(503, "the endpoints are not known yet: the database is away.", retry_after_s=5.0)
        return self._rules

    def refresh(self) -> None:
        """Ask the database; one thread at a time. Raises Unavailable."""
        if self._prepare is not None:
            self._prepare()
            self._prepare = None
        keys = self._load_keys()
        if self._rules is None or self._store.generation() != self._generation:
            self._generation, stored = self._store.state()
            built: dict[str, tuple[int, Endpoint]] = {}
            for endpoint in stored:
                known = self._built.get(endpoint.name)
                try:
                    if known is None or known[0] != endpoint.config_generation:
                        made = build_endpoint(endpoint.parsed(), endpoint.config_version)
                        known = (endpoint.config_generation, made)
                except InvalidSettings as error:
                    logger.warning("endpoint not usable: endpoint=%s reason=%s", endpoint.name, error)
                if known is not None:
                    built[endpoint.name] = known
            self._built = built
            self._rules = _rules([endpoint for _, endpoint in built.values()], self._names)
        self._keys = keys

    def follow(self, stop: threading.Event) -> None:
        """Refresh twice a second, in a thread, until ``stop`` is set."""
        threading.Thread(target=self._follow, args=(stop,), name="intake-rules", daemon=True).start()

    def _follow(self, stop: threading.Event) -> None:
        failing = False
        while not stop.wait(_REFRESH_S):
            try:
                self.refresh()
            except ServelensError as error:
                if not failing:
                    logger.warning("keys and endpoints not refreshed, the old ones stay: %s", error)
                failing = True
            else:
                failing = False

    def check_listen(self) -> None:
        """Load everything and refuse an address that everybody could call. Raises InvalidSettings."""
        try:
            self.refresh()
        except Unavailable as error:
            logger.warning("nothing comes in until the database is back: %s", error)
        else:
            check_listen(self._host, self._keys or Keys(), "collector.intake.host")


def build_intake(
    settings: Settings, database: Database, store: EndpointStore, clock: Clock, stop: threading.Event
) -> IntakeServer:
    """The server, listening but not serving yet. Raises InvalidSettings, Conflict and Unavailable."""
    chosen, spool = settings.collector.intake, settings.spool
    door = IntakeDoor(
        store,
        CurrentKeys(KeyStore(database, clock)),
        clock,
        host=chosen.host,
        names=chosen.endpoints,
        prepare=database.create_tables,
    )
    door.check_listen()
    server = IntakeServer.open(
        IntakeConfig(
            spool_root=settings.spool_directory,
            journal=settings.data_dir / "intake" / "events.db",
            host=chosen.host,
            port=chosen.port,
            max_body_bytes=chosen.max_body_bytes,
            join_timeout_s=chosen.join_timeout_s,
            window_s=chosen.duplicate_window_s,
            segment_bytes=spool.segment_bytes,
            segment_age_s=spool.segment_age_s,
            max_bytes=spool.max_bytes,
            min_free_bytes=spool.min_free_bytes,
        ),
        door,
        clock,
    )
    door.follow(stop)
    return server


def _rules(endpoints: list[Endpoint], names: Mapping[str, str]) -> Rules:
    unrouted = Privacy.of_all(endpoint.gateway for endpoint in endpoints)
    return Rules(
        {endpoint.name: _target(endpoint) for endpoint in endpoints},
        Target(UNROUTED, keep=unrouted.kept),
        names,
    )


def _target(endpoint: Endpoint) -> Target:
    entities = endpoint.served_entities
    return Target(
        endpoint.name,
        {entity.name: Entity(entity.name, entity.id, entity.entity_version) for entity in entities},
        endpoint.config_version,
        endpoint.payload_limit_bytes,
        endpoint.privacy.kept,
    )
