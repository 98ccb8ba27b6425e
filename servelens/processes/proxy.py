"""``servelens proxy``: one worker of the data plane."""

from __future__ import annotations

from pathlib import Path

from collector.spool import Durability
from servelens.assembly.endpoints import build_snapshot
from servelens.processes.lifecycle import start
from servelens.settings import Settings
from servelens.settings_file import load_settings
from servelens.supervisor import unblock_sigterm
from serving_proxy.app import ProxyConfig, serve
from serving_proxy.limits import Limits
from serving_proxy.routing import Snapshot


class SnapshotFile:
    """The snapshot of a settings file: given at the first call, and again whenever the file has changed.

    A change of endpoints, routes or experiments is live within a refresh; everything else waits for a restart.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None

    def __call__(self) -> Snapshot | None:
        status = self._path.stat()
        seen = (status.st_mtime_ns, status.st_size)
        if seen == self._seen:
            return None
        snapshot = build_snapshot(load_settings(self._path))
        self._seen = seen
        return snapshot


def run(config: Path, slot: str, *, supervised: bool) -> int:
    """Serve until SIGTERM or Ctrl-C, then finish what is in flight and flush the spool."""
    settings = load_settings(config)
    start(slot, supervised=supervised)
    unblock_sigterm()
    return serve(_worker(settings, slot), SnapshotFile(config))


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
        limits=Limits(max_body_bytes=proxy.max_body_bytes),
        graceful_s=proxy.drain_s,
        log_invocations=proxy.canonical_log,
    )
