"""``servelens proxy``: one worker of the data plane, with the control plane beside it."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path

from fastapi import APIRouter

from collector.spool import Durability
from experiments.lifecycle import Lifecycle
from servelens.assembly.database import build_database
from servelens.assembly.endpoint_store import build_endpoint_store
from servelens.assembly.endpoints import build_endpoint
from servelens.assembly.experiments import build_experiments
from servelens.clock import Clock, SystemClock
from servelens.control import api as control_api
from servelens.control.api import ControlPlane
from servelens.control.open_metrics import LastMinute
from servelens.control.proxy_workers import ProxyWorkers
from servelens.control.refusals import DatabricksRoute
from servelens.control.snapshot_source import SnapshotSource
from servelens.keys import api as keys_api
from servelens.keys.current import CurrentKeys
from servelens.keys.store import KeyStore
from servelens.processes.lifecycle import start
from servelens.secret_references import Secrets
from servelens.settings import Settings
from servelens.settings_file import load_settings, secrets_of_environment
from servelens.supervisor import unblock_sigterm
from serving_proxy.access import require
from serving_proxy.app import Parts, ProxyConfig, serve
from serving_proxy.authentication import Keys, check_listen
from serving_proxy.limits import Limits
from serving_proxy.publication import read_others
from serving_proxy.routing import Snapshot


def run(config: Path, slot: str, *, supervised: bool, clock: Clock | None = None) -> int:
    """Serve until SIGTERM or Ctrl-C, then finish what is in flight and flush the spool."""
    settings = load_settings(config)
    start(slot, supervised=supervised)
    unblock_sigterm()
    database = build_database(settings)
    try:
        database.create_tables()
        clock = clock or SystemClock()
        store = build_endpoint_store(settings, database, clock)
        lifecycle = Lifecycle(database, clock)
        key_store = KeyStore(database, clock)
        keys = CurrentKeys(key_store)
        check_listen(settings.proxy.host, keys())
        workers = ProxyWorkers(database, clock)
        secrets = Secrets(secrets_of_environment())
        source = SnapshotSource(
            config,
            load_settings,
            store,
            lifecycle,
            workers,
            build_endpoint,
            build_experiments,
            secrets,
            clock,
            worker=f"{socket.gethostname()}/{slot}",
            keys=keys,
        )
        minute = LastMinute(lambda: read_others(settings.spool_directory, "", now_us=clock.now_us()), clock)

        def load() -> Snapshot | None:
            minute.tick()
            return source()

        def mount(parts: Parts) -> Sequence[APIRouter]:
            def current() -> Keys:
                return parts.snapshot().keys

            admin = require("admin", current, clock)
            control = ControlPlane(store, workers, secrets, build_endpoint, lifecycle.live)
            return [
                control_api.router(control, minute, admin, parts.snapshot, parts.published),
                keys_api.router(key_store, current, clock, route_class=DatabricksRoute),
                control_api.not_offered(admin),
            ]

        try:
            return serve(_worker(settings, slot), load, mount, clock)
        finally:
            source.leave()
    finally:
        database.dispose()


def _worker(settings: Settings, slot: str) -> ProxyConfig:
    proxy, spool = settings.proxy, settings.spool
    return ProxyConfig(
        spool_root=settings.spool_directory,
        slot=slot,
        host=proxy.host,
        port=proxy.port,
        durability=Durability(proxy.durability),
        on_log_failure=proxy.on_log_failure,
        spool_segment_bytes=spool.segment_bytes,
        spool_segment_age_s=spool.segment_age_s,
        spool_max_bytes=spool.max_bytes,
        spool_min_free_bytes=spool.min_free_bytes,
        limits=Limits(max_body_bytes=proxy.max_body_bytes),
        graceful_s=proxy.drain_s,
        log_invocations=proxy.canonical_log,
        rate_limit_url=proxy.rate_limit_url.get_secret_value() if proxy.rate_limit_url else None,
        scorer_url=settings.scorer.address,
    )
