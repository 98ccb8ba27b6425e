"""Which variant a unit gets: a pure hash, so that every proxy worker decides alike without asking anybody.

Two hashes of the unit decide, one whether it takes part and one which variant it gets. Because they are
independent, raising the share adds units and moves none; because the salt differs, two experiments are
independent of each other. A cryptographic hash (BLAKE2b, RFC 7693) is used because weaker ones were seen to
correlate between experiments (Kohavi, Longbotham, Sommerfield & Henne 2009, "Controlled experiments on the
web", §4.1.1).

Light on purpose (standard library only): it runs in the proxy, once for each request.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b

from experiments.experiment import Assignment, Experiment

__all__ = ["Assignment", "assign", "bucket"]

_UNIT_INTERVAL = 2.0**-53
_from_bytes = int.from_bytes


def bucket(salt: str, unit: str) -> float:
    """A number in [0, 1), uniform over units and independent over salts; a multiple of 2⁻⁵³."""
    state = _salted(salt).copy()
    # Lone surrogates reach us from headers and JSON escapes; such a unit is as good as any other.
    state.update(unit.encode("utf-8", "surrogatepass"))
    # 53 bits, because 64 would round up to 1.0 for the highest hashes.
    return (_from_bytes(state.digest()) >> 11) * _UNIT_INTERVAL


@lru_cache(maxsize=4096)
def _salted(salt: str) -> blake2b:
    """The hash after the salt: every unit of an experiment goes on from there."""
    return blake2b(f"{salt}\0".encode("utf-8", "surrogatepass"), digest_size=8)


def assign(experiment: Experiment, unit: str) -> Assignment | None:
    """The unit's variant with its propensity (share times weight), or ``None``: the unit does not take
    part.
    """
    salt = experiment.salt
    share = experiment.share
    if share < 100.0 and bucket(f"{salt}:share", unit) * 100.0 >= share:
        return None
    point = bucket(salt, unit)
    for upper, assignment in experiment.arms:
        if point < upper:
            return assignment
    return experiment.arms[-1][1]
