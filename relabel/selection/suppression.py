"""How alike cases may be."""

from __future__ import annotations

from dataclasses import dataclass

from servelens.errors import Invalid


@dataclass(frozen=True, slots=True)
class Suppression:
    """A record joins an earlier case of the last ``days`` as one more occurrence when their cosine is ``near_duplicate`` or
    more. Records whose cosine with a cluster's first case is ``cluster`` or more are one cluster, of which a day (UTC) gets
    at most ``max_per_cluster`` new cases. ``None`` turns either off.
    """

    near_duplicate: float | None = 0.95
    cluster: float = 0.8
    max_per_cluster: int | None = 20
    days: int = 7

    def __post_init__(self) -> None:
        """Raise :class:`~servelens.errors.Invalid`, naming the field."""
        for name, value in (("near_duplicate", self.near_duplicate), ("cluster", self.cluster)):
            if value is not None and not 0.0 < value <= 1.0:
                raise Invalid(f"{value} is no cosine", field=name, fix="Use more than 0 and at most 1.")
        if self.near_duplicate is not None and self.near_duplicate < self.cluster:
            raise Invalid(
                f"{self.near_duplicate} is less than 'cluster', {self.cluster}",
                field="near_duplicate",
                fix="Near duplicates are more alike than a cluster is.",
            )
        if self.max_per_cluster is not None and self.max_per_cluster < 1:
            raise Invalid(
                f"{self.max_per_cluster} cases are none", field="max_per_cluster", fix="Use 1 or more."
            )
        if self.days < 1:
            raise Invalid(f"{self.days} days are none", field="days", fix="Use 1 or more.")

    @property
    def is_on(self) -> bool:
        """Whether records are compared at all."""
        return self.near_duplicate is not None or self.max_per_cluster is not None


OFF = Suppression(near_duplicate=None, max_per_cluster=None)
