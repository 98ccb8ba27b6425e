"""Who answers an invocation: a pure hash over an immutable snapshot, no I/O and no lock.

Running experiments decide first, each about the units at its places in the layer; units that none of them
has, and endpoints without one, follow the routes. Both are sticky: the same unit gets the same served entity
on every worker and after every restart, as long as shares stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec

from experiments.assignment import Allocation, Assignment, allocations, bucket
from experiments.definition_rules import refuse_overlaps
from experiments.experiment import Experiment, Unit
from servelens.errors import Invalid, InvalidSettings, Missing
from serving_proxy.authentication import NO_KEYS, Keys
from serving_proxy.endpoint import Endpoint, ServedEntity
from serving_proxy.gateway import Gateway
from serving_proxy.members import reader
from serving_proxy.privacy import Privacy
from serving_proxy.request_body import ReadRequest, RequestBody

_KEEPS_ALL: Final = Privacy(Gateway())


class Arm(NamedTuple):
    """What a variant puts into the choices of its units."""

    entity: ServedEntity
    propensity: float
    experiment: str
    variant: str
    phase: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All endpoints, and the running experiments of those that have any, both by endpoint name; and the API
    keys.
    """

    endpoints: Mapping[str, Endpoint]
    experiments: Mapping[str, Allocation[Arm]] = field(default_factory=dict)
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
        """Check that every variant has its served entity and that no two experiments want the same unit; else
        InvalidSettings.
        """
        by_name = {endpoint.name: endpoint for endpoint in endpoints}
        running = tuple(experiments)
        for experiment in running:
            _refuse_misfit(experiment, by_name)
        try:
            refuse_overlaps(running)
        except Invalid as error:
            raise InvalidSettings(error.message, field=error.field, fix=error.fix) from error

        def arm(experiment: Experiment, assignment: Assignment) -> Arm:
            variant, propensity = assignment
            entity = by_name[experiment.endpoint].entities[variant.served_entity]
            return Arm(entity, propensity, experiment.name, variant.name, experiment.phase)

        unrouted = Privacy.of_all(endpoint.gateway for endpoint in by_name.values())
        return cls(by_name, allocations(running, arm), keys, unrouted)


def _refuse_misfit(experiment: Experiment, endpoints: Mapping[str, Endpoint]) -> None:
    endpoint = endpoints.get(experiment.endpoint)
    if endpoint is None:
        raise InvalidSettings(
            f"experiment {experiment.name!r} runs on {experiment.endpoint!r}, which is no endpoint",
            field="experiments.endpoint",
            fix=f"Use one of: {', '.join(endpoints) or 'none is configured'}.",
        )
    for variant in experiment.variants:
        if variant.served_entity not in endpoint.entities:
            raise InvalidSettings(
                f"variant {variant.name!r} of experiment {experiment.name!r} is answered by "
                f"{variant.served_entity!r}, which endpoint {endpoint.name!r} does not have",
                field="experiments.variants.served_entity",
                fix=f"Use one of: {', '.join(endpoint.entities)}.",
            )


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
    """The entity that the client has named, else the variant of the experiment that has this unit, else the
    route whose share its hash falls into. Raises Missing when there is none of that name.
    """
    if named is not None:
        entity = endpoint.entities.get(named)
        if entity is None:
            raise Missing(
                f"Endpoint {endpoint.name!r} has no served entity named {named!r}.",
                fix=f"Use one of: {', '.join(endpoint.entities)}.",
            )
        return Choice(entity, unit_of(identity, "user"), 1.0)
    nearest = unit_of(identity, "user")
    allocation = snapshot.experiments.get(endpoint.name)
    if allocation is not None:
        unit = nearest if allocation.unit == "user" else unit_of(identity, allocation.unit)
        arm = allocation.answer_for(unit)
        if arm is not None:
            entity, propensity, experiment, variant, phase = arm
            return Choice(entity, unit, propensity, experiment, variant, phase)
    point = bucket(f"routes:{endpoint.name}", nearest) if len(endpoint.split) > 1 else 0.0
    for edge, entity, share in endpoint.split:
        if point < edge:
            return Choice(entity, nearest, share)
    _, entity, share = endpoint.split[-1]  # the edges' sum can fall short of 1.0 by rounding
    return Choice(entity, nearest, share)
