"""Options of evaluators that hold secrets, such as a judge's ``api_key``: how they are shown, kept and resolved.

Which they are is told by their names, also inside of objects and lists, since evaluators of other packages name their
options themselves. Invariant: :func:`shown` gives no secret away, references (:mod:`servelens.secret_references`) excepted; and a
mask that comes back stands for its secret only while every address among the options is the one that its owner gave.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from servelens.errors import Invalid
from servelens.secret_references import MASK, is_reference

_SECRET: Final = re.compile(
    r"(?:.*[_.-])?(?:api[_-]?key|access[_-]?key|secret(?:[_-]?key)?|token|password|passwd|credentials?|authorization)",
    re.IGNORECASE,
)
_ADDRESS: Final = re.compile(r"url|uri|host|address|endpoint|server|port$", re.IGNORECASE)


def shown(options: Mapping[str, Any]) -> dict[str, Any]:
    """``options`` for people: what is secret is masked."""
    return dict(_each(options, lambda secret: secret if is_reference(secret) else MASK))


def resolved(options: Mapping[str, Any], resolve: Callable[[str, str], str]) -> dict[str, Any]:
    """``options`` with the values of references among the secrets; ``resolve`` is given a secret and where it stands."""
    return dict(_each(options, lambda secret: resolve(secret, "options")))


def restored(given: Mapping[str, Any], kept: Mapping[str, Any]) -> dict[str, Any]:
    """``given`` with each mask replaced by the secret that ``kept`` has in its place. Raises
    :class:`~servelens.errors.Invalid` where there is none, or where an address has changed.
    """
    if not _has_mask(given):
        return dict(given)
    if _addresses(given) != _addresses(kept):
        raise Invalid(
            f"'{MASK}' stands for a secret that was not given for this address.",
            field="options",
            fix="Give the secret itself, or a reference such as {{secrets/scope/key}}.",
        )
    return dict(_filled(given, kept))


def _each(value: Any, change: Callable[[str], str], *, secret: bool = False) -> Any:
    if isinstance(value, Mapping):
        return {
            name: _each(item, change, secret=secret or _SECRET.fullmatch(str(name)) is not None)
            for name, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_each(item, change, secret=secret) for item in value]
    return change(value) if secret and isinstance(value, str) else value


def _has_mask(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_has_mask(item) for item in value.values())
    if isinstance(value, list | tuple):
        return any(_has_mask(item) for item in value)
    return bool(value == MASK)


def _filled(given: Any, kept: Any) -> Any:
    if isinstance(given, Mapping):
        there = kept if isinstance(kept, Mapping) else {}
        return {name: _filled(item, there.get(name)) for name, item in given.items()}
    if isinstance(given, list | tuple):
        beside = kept if isinstance(kept, list | tuple) else []
        return [
            _filled(item, beside[place] if place < len(beside) else None) for place, item in enumerate(given)
        ]
    if given != MASK:
        return given
    if not isinstance(kept, str):
        raise Invalid(
            f"'{MASK}' stands for a secret that is not kept here.",
            field="options",
            fix="Give the secret itself, or a reference such as {{secrets/scope/key}}.",
        )
    return kept


def _addresses(value: Any, name: str = "") -> list[str]:
    """Everything that says where a secret may be sent, in a fixed order."""
    if isinstance(value, Mapping):
        return [address for key in sorted(value, key=str) for address in _addresses(value[key], str(key))]
    if isinstance(value, list | tuple):
        return [address for item in value for address in _addresses(item, name)]
    is_one = _ADDRESS.search(name) is not None or (isinstance(value, str) and "://" in value)
    return [str(value)] if is_one else []
