"""Who is calling: API keys, looked up by their digest in an immutable object that a snapshot carries.

Once a key has been created, every call needs one, also after all of them have been revoked: forgetting the last key
must not open the doors. Until then nobody is asked, and :func:`check_listen` keeps the process on loopback.

A key is 256 random bits, so its SHA-256 is as good as a slow hash, which only protects what people could
guess. A lookup in a dict by that digest gives no timing to learn from, since nobody can choose a digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from servelens.errors import InvalidSettings
from serving_proxy.failure import Failure

Scope = Literal["invoke", "admin", "annotate"]
SCOPES: Final[tuple[Scope, ...]] = ("invoke", "admin", "annotate")
"""What a key may do: call endpoints, change what is served (and manage keys), use the console."""

_CREATE: Final = "servelens keys create NAME --scope"


class Requester(NamedTuple):
    """The owner of a valid key."""

    name: str
    scopes: frozenset[str]
    key_id: str


class Key(NamedTuple):
    """A key that has not been revoked. ``expires_at_us``: microseconds since the Unix epoch."""

    requester: Requester
    expires_at_us: int | None = None


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one moment, by :func:`digest_of` their secret. ``required``: a call without one is refused."""

    by_digest: Mapping[bytes, Key] = field(default_factory=lambda: MappingProxyType({}))
    required: bool = False
    expiring: frozenset[str] = field(init=False, repr=False, compare=False)
    """The ids of the keys that time alone can end, so that nobody remembers that they were valid."""

    def __post_init__(self) -> None:
        ids = (requester.key_id for requester, end in self.by_digest.values() if end is not None)
        object.__setattr__(self, "expiring", frozenset(ids))


NO_KEYS: Final = Keys()
"""No key was ever created: nobody is asked for one."""


def digest_of(secret: bytes) -> bytes:
    """The 32 bytes by which a secret is known."""
    return hashlib.sha256(secret).digest()


def authenticate(
    keys: Keys, fields: Mapping[bytes, bytes], now_us: int, scope: Scope = "invoke"
) -> Requester | Failure | None:
    """The owner of the key in the request's ``fields`` (names in lower case), if it may do ``scope``.

    The key may be sent as OpenAI's, Anthropic's and Azure's clients do. A Failure is 401
    ``unauthenticated`` (its answer carries ``www-authenticate: Bearer``) or 403 ``forbidden``; ``None``
    means that no keys are in use.
    """
    if not keys.required:
        return None
    secret = fields.get(b"authorization")
    if secret is not None:
        if secret[:7].lower() != b"bearer ":
            return _unauthenticated("Send the API key as 'Authorization: Bearer sl-…'.", "authorization")
        secret = secret[7:].strip()
    for name in (b"x-api-key", b"api-key"):
        other = fields.get(name)
        if other is not None and other != secret:
            if secret is not None:
                return _unauthenticated(
                    "The request carries two different credentials. Send one of them.", name.decode()
                )
            secret = other
    return check_secret(keys, secret, now_us, scope)


def check_secret(keys: Keys, secret: bytes | None, now_us: int, scope: Scope) -> Requester | Failure:
    """The same for a secret that came by another way."""
    if not secret:
        return _unauthenticated(
            f"This needs an API key. Send 'Authorization: Bearer sl-…'; '{_CREATE} {scope}' makes one."
        )
    key = keys.by_digest.get(digest_of(secret))
    if key is None:
        return _unauthenticated(
            f"This API key is unknown or has been revoked. '{_CREATE} {scope}' makes a new one."
        )
    requester, expires_at_us = key
    if expires_at_us is not None and expires_at_us <= now_us:
        return _unauthenticated(
            f"The API key {requester.name!r} has expired. '{_CREATE} {scope}' makes a new one."
        )
    if scope not in requester.scopes:
        return Failure(
            "forbidden",
            403,
            f"The API key {requester.name!r} has no scope '{scope}'. '{_CREATE} {scope}' makes one that has it.",
            "authorization",
        )
    return requester


def check_listen(host: str, keys: Keys, setting: str = "proxy.host") -> None:
    """Refuse to be reachable from other machines while everybody may call. Raises InvalidSettings naming
    ``setting``.
    """
    if keys.required or is_loopback(host):
        return
    raise InvalidSettings(
        f"listening on {host!r} would let everybody in the network in, since there are no API keys.",
        field=setting,
        fix=f"Create a key first ('{_CREATE} invoke --scope admin'), or listen on 127.0.0.1.",
    )


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine only."""
    try:
        return ip_address(host).is_loopback
    except ValueError:  # a name; only this one is certain not to be another machine's view of us
        return host == "localhost"


def _unauthenticated(message: str, field_name: str = "authorization") -> Failure:
    return Failure("unauthenticated", 401, message, field_name)
