"""Who answers an invocation: a pure hash over an immutable snapshot, no I/O and no lock.

A running experiment decides first; units outside of its share, and endpoints without one, follow the
routes. Both are sticky: the same unit gets the same served entity on every worker and after every
restart, as long as shares stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from experiments.assignment import assign, bucket
from experiments.experiment import Experiment, Unit
from servelens.errors import InvalidSettings, Missing
from serving_proxy.authentication import NO_KEYS, Keys
from serving_proxy.endpoint import Endpoint, ServedEntity
from serving_proxy.gateway import Gateway
from serving_proxy.members import reader
from serving_proxy.privacy import Privacy
from serving_proxy.request_body import ReadRequest, RequestBody

_KEEPS_ALL: Final = Privacy(Gateway())


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All endpoints, and the running experiment of those that have one, both by endpoint name; and the API
    keys.
    """

    endpoints: Mapping[str, Endpoint]
    experiments: Mapping[str, Experiment] = field(default_factory=dict)
    keys: Keys = NO_KEYS
    unrouted_privacy: Privacy = _KEEPS_ALL
    """What may be recorded of calls that reach no endpoint."""
    read_body: ReadRequest = field(init=False, repr=False, compare=False)
    """Reads a request's body, with the members that some endpoint redacts."""

    def __post_init__(self) -> None:
        redacted = {name for each in self.endpoints.values() for name in each.privacy.redacted_members}
        object.__setattr__(self, "read_body", reader(RequestBody, redacted))

    @classmethod
    def of(
        cls, endpoints: Iterable[Endpoint], experiments: Iterable[Experiment] = (), keys: Keys = NO_KEYS
    ) -> Snapshot:
        """Check that every variant has its served entity and no endpoint two experiments; else
        InvalidSettings.
        """
        by_name = {endpoint.name: endpoint for endpoint in endpoints}
        running: dict[str, Experiment] = {}
        for experiment in experiments:
            endpoint = by_name.get(experiment.endpoint)
            if endpoint is None:
                raise InvalidSettings(
                    f"experiment {experiment.name!r} runs on {experiment.endpoint!r}, which is no endpoint",
                    field="experiments.endpoint",
                    fix=f"Use one of: {', '.join(by_name) or 'none is configured'}.",
                )
            for variant in experiment.variants:
                if variant.served_entity not in endpoint.entities:
                    raise InvalidSettings(
                        f"variant {variant.name!r} of experiment {experiment.name!r} is answered by "
                        f"{variant.served_entity!r}, which endpoint {endpoint.name!r} does not have",
                        field="experiments.variants.served_entity",
                        fix=f"Use one of: {', '.join(endpoint.entities)}.",
                    )
            if endpoint.name in running:
                raise InvalidSettings(
                    f"endpoint {endpoint.name!r} has two running experiments",
                    field="experiments.endpoint",
                    fix=f"Stop {running[endpoint.name].name!r} or {experiment.name!r}.",
                )
            running[endpoint.name] = experiment
        unrouted = Privacy.of_all(endpoint.gateway for endpoint in by_name.values())
        return cls(by_name, running, keys, unrouted)


class Identity(msgspec.Struct, frozen=True, gc=False):
    """Whom an invocation belongs to, as far as the client says."""

    request_id: str
    unit: str | None = None
    user: str | None = None
    session: str | None = None


class Choice(msgspec.Struct, frozen=True, gc=False):
    """The served entity that answers, and how it came to be chosen; this goes on the record."""

    entity: ServedEntity
    unit: str
    propensity: float
    experiment: str | None = None
    variant: str | None = None
    phase: int | None = None


def unit_of(identity: Identity, kind: Unit) -> str:
    """The randomised unit: what the client names explicitly wins, then the unit asked for, then the
    nearest one.

    A request that says nothing about itself is a unit of its own.
    """
    if kind == "request":
        return identity.request_id
    if kind == "session":
        return identity.unit or identity.session or identity.user or identity.request_id
    return identity.unit or identity.user or identity.session or identity.request_id


def choose_served_entity(
    snapshot: Snapshot, endpoint: Endpoint, identity: Identity, named: str | None = None
) -> Choice:
    """The entity that the client has named, else the experiment's variant for this unit, else the route whose
    share its hash falls into. Raises Missing when there is none of that name.
    """
    if named is not None:
        entity = endpoint.entities.get(named)
        if entity is None:
            raise Missing(
                f"Endpoint {endpoint.name!r} has no served entity named {named!r}.",
                fix=f"Use one of: {', '.join(endpoint.entities)}.",
            )
        return Choice(entity, unit_of(identity, "user"), 1.0)
    experiment = snapshot.experiments.get(endpoint.name)
    if experiment is not None:
        unit = unit_of(identity, experiment.unit)
        assignment = assign(experiment, unit)
        if assignment is not None:
            variant, propensity = assignment
            entity = endpoint.entities[variant.served_entity]
            return Choice(entity, unit, propensity, experiment.name, variant.name, experiment.phase)
    unit = unit_of(identity, "user")
    point = bucket(f"routes:{endpoint.name}", unit) if len(endpoint.split) > 1 else 0.0
    for edge, entity, share in endpoint.split:
        if point < edge:
            return Choice(entity, unit, share)
    _, entity, share = endpoint.split[-1]  # the edges' sum can fall short of 1.0 by rounding
    return Choice(entity, unit, share)
