"""The API keys, from the settings, and what listening beyond this machine asks of them."""

from __future__ import annotations

from servelens.assembly.database import build_database
from servelens.clock import SystemClock
from servelens.keys.current import CurrentKeys
from servelens.keys.store import KeyStore
from servelens.settings import Settings
from serving_proxy.authentication import check_listen, is_loopback


def check_addresses(settings: Settings) -> None:
    """Refuse addresses that other machines reach while there are no API keys. Raises InvalidSettings; asks the
    database only when there is such an address.
    """
    addresses = {"proxy.host": settings.proxy.host, "console.host": settings.console.host}
    if settings.collector.intake.enabled:
        addresses["collector.intake.host"] = settings.collector.intake.host
    if all(is_loopback(host) for host in addresses.values()):
        return
    database = build_database(settings)
    try:
        database.create_tables()
        keys = CurrentKeys(KeyStore(database, SystemClock()))()
    finally:
        database.dispose()
    for setting, host in addresses.items():
        check_listen(host, keys, setting)
