"""The process that is the cluster's driver for one evaluator: connects, has the actors, and shares out what it is sent.

Invariant: the actors end with it (Ray ends what a driver that is gone has left), and it ends with who started it. It holds
no more portions than are in work: it asks for the next when there is room for it.
"""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Mapping
from contextlib import closing, suppress
from typing import Any, Final

from evaluators.ray_cluster.placement import RayCluster
from evaluators.ray_cluster.portion import Portion
from evaluators.workers.child import follow
from evaluators.workers.wire import Channel, Closed, described, packed_error
from servelens.errors import Missing, ServelensError, Unavailable

JOIN_S: Final = 60.0
"""How long joining may take: Ray itself goes on for minutes."""
JOIN: Final = "See that the cluster runs, and that this machine has joined it: ray start --address=HEAD:6379"
_LOOK_S: Final = 5.0


def main(reading: int, writing: int, parent: int) -> None:
    """Serve until the pipe closes."""
    follow(parent)
    channel = Channel(reading, writing)
    with suppress(Closed):
        _serve(channel)


def _serve(channel: Channel) -> None:
    cluster, asked, level = channel.receive()
    logging.basicConfig(level=level, format="%(levelname)-7s %(name)s: %(message)s", stream=sys.stderr)
    try:
        _connect(cluster)
        channel.send(("joined",))
        from evaluators.ray_cluster.pool import Pool

        pool = Pool(cluster=cluster, **asked)
    except Exception as error:  # noqa: BLE001 - it is told to the starter, which raises it
        channel.send(("refused", packed_error(error)))
        return
    with closing(pool):
        try:
            channel.send(("ready", *pool.start()))
            while not pool.mixed:
                channel.receive()
                _share_out(pool, channel)
        except Closed:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            channel.send(("refused", packed_error(error)))


def _share_out(pool: Any, channel: Channel) -> None:
    def take() -> Portion | None:
        channel.send(("more",))
        portion: Portion | None = channel.receive()
        return portion

    try:
        pool.score(take, lambda start, scores: channel.send(("scores", start, scores)))
    except ServelensError as error:
        channel.send(("refused", packed_error(error), pool.mixed))
    else:
        channel.send(("done",))


def _connect(cluster: RayCluster) -> None:
    try:
        import ray
    except ImportError as error:
        raise Missing(
            f"it needs the Python package {error.name}.",
            field="engine 'ray'",
            fix="Install it: pip install 'servelens[ray]'",
        ) from error
    if cluster.address != "auto":
        _look(cluster.address)
    options: Mapping[str, Any] = {"runtime_env": dict(cluster.runtime_env)} if cluster.runtime_env else {}
    try:
        ray.init(
            address=cluster.address,
            namespace=cluster.namespace,
            log_to_driver=False,
            logging_level=logging.WARNING,
            **options,
        )
    except Exception as error:
        raise Unavailable(
            f"the Ray cluster cannot be joined: {described(error)}", field="ray.address", fix=JOIN
        ) from error


def _look(address: str) -> None:
    """Ray itself waits long for an address at which nobody is."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_LOOK_S).close()
    except OSError as error:
        raise Unavailable(
            f"no Ray cluster answers at {address}: {error}", field="ray.address", fix=JOIN
        ) from error
