"""All replicas and their groups, by address and by served entity."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from servelens.clock import Clock, SystemClock
from serving_proxy.endpoint import Endpoint, ServedEntity
from serving_proxy.replica_group import ReplicaGroup
from serving_proxy.replicas import Replica


class Upstreams:
    """They outlive snapshots, so a change of routes keeps connections warm and remembers who is out."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock | None = None,
        *,
        max_idle: int = 512,
        idle_s: float = 60.0,
    ) -> None:
        self.loop = loop
        self._clock = clock or SystemClock()
        self._max_idle = max_idle
        self._idle_s = idle_s
        self._replicas: dict[str, Replica] = {}
        self._groups: dict[tuple[str, str], ReplicaGroup] = {}
        self._past_ejections = 0  # of groups that are gone
        self._past_refused = 0

    @property
    def ejections(self) -> int:
        """How often a replica has been ejected."""
        return self._past_ejections + sum(group.ejections for group in self._groups.values())

    @property
    def queued(self) -> int:
        """How many calls wait for a replica's turn."""
        return sum(len(group.line.places) for group in self._groups.values())

    @property
    def refused(self) -> int:
        """How many calls were turned away because a waiting line was full or too slow."""
        return self._past_refused + sum(group.line.refused for group in self._groups.values())

    @property
    def replicas(self) -> Iterable[Replica]:
        return self._replicas.values()

    def group(self, endpoint: str, entity: ServedEntity) -> ReplicaGroup:
        """The replicas of a served entity of an endpoint."""
        group = self._groups.get((endpoint, entity.name))
        if group is None:
            replicas = [self.replica(url) for url in entity.backend.urls]
            group = self._groups[endpoint, entity.name] = ReplicaGroup(entity, replicas, self._clock)
        elif group.entity is not entity:
            group.configure(entity, [self.replica(url) for url in entity.backend.urls])
        return group

    def replica(self, url: str) -> Replica:
        """The replica at an address."""
        replica = self._replicas.get(url)
        if replica is None:
            replica = self._replicas[url] = Replica(url, self.loop, self._max_idle)
        return replica

    def pick(self, urls: tuple[str, ...], tried: frozenset[str] = frozenset()) -> Replica | None:
        """For a question apart from any invocation: the replica with the fewest requests outstanding that has not
        been tried yet, usable ones first.
        """
        candidates = [self.replica(url) for url in urls if url not in tried]
        return min(candidates, key=lambda each: (not each.health.usable, each.outstanding), default=None)

    def follow(self, endpoints: Iterable[Endpoint]) -> None:
        """Configure the groups of these endpoints and forget those that are gone, once they are at rest."""
        named = {
            (endpoint.name, entity.name) for endpoint in endpoints for entity in endpoint.served_entities
        }
        for endpoint in endpoints:
            for entity in endpoint.served_entities:
                self.group(endpoint.name, entity)
        for key in [key for key, group in self._groups.items() if key not in named and not group.line.places]:
            group = self._groups.pop(key)
            self._past_ejections += group.ejections
            self._past_refused += group.line.refused
        used = {url for group in self._groups.values() for url in group.entity.backend.urls}
        for url in [url for url, each in self._replicas.items() if url not in used and not each.outstanding]:
            self._replicas.pop(url).close_idle()

    def tidy(self) -> None:
        """Close what nobody has used for a while, and compare the replicas. Called now and then."""
        for replica in self._replicas.values():
            replica.close_idle(self._idle_s)
        for group in self._groups.values():
            group.tidy()

    def close(self) -> None:
        """Close every connection, busy ones too."""
        for replica in self._replicas.values():
            replica.close()
