"""A real Ray cluster of two nodes on this machine, in a process of its own: tests never import Ray, nor inherit its threads.

Speaks in lines: prints the cluster's address, then does ``lose`` (the second node, with SIGKILL) and ``add`` (it again),
each answered by ``done``; it ends all of them when its input ends.
"""

from __future__ import annotations

import sys
from typing import Any

from ray.cluster_utils import Cluster

_STORE = 80 * 2**20
_QUICK = {
    "health_check_initial_delay_ms": 1_000,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 6,
    "memory_monitor_refresh_ms": 0,  # how full the machine is, is not ours to say
}


def _node(cluster: Cluster, name: str, **options: Any) -> Any:
    return cluster.add_node(
        num_cpus=2,
        object_store_memory=_STORE,
        include_dashboard=False,
        env_vars={"SERVELENS_TEST_NODE": name},
        **options,
    )


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Serve until the input ends."""
    cluster = Cluster()
    try:
        _node(cluster, "first", num_gpus=1, _system_config=_QUICK)
        second = _node(cluster, "second")
        _say(cluster.address)
        for command in sys.stdin:
            if command.strip() == "lose":
                cluster.remove_node(second, allow_graceful=False)
            else:
                second = _node(cluster, "second")
            _say("done")
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
