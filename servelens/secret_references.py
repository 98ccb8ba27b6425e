"""References to secrets, ``{{secrets/SCOPE/KEY}}`` as Databricks writes them, and the values behind them.

Invariant: a reference may be stored and shown; its value comes from the environment variable ``SERVELENS_SECRET_SCOPE_KEY``
(upper case, every character that is not a letter or a digit becomes ``_``) of the process that needs it, and goes nowhere
else. A secret that is no reference is only ever shown as :data:`MASK`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from servelens.errors import InvalidSettings

MASK: Final = "**********"
_REFERENCE: Final = re.compile(r"\{\{\s*secrets/([^/{}\s]+)/([^/{}\s]+)\s*\}\}")


def is_reference(secret: str) -> bool:
    """Whether this is not a secret but the name of one."""
    return _REFERENCE.fullmatch(secret) is not None


class Secrets:
    """The values behind references, from ``environment`` (``SERVELENS_SECRET_…`` to value), for the processes called
    ``owner`` in messages."""

    def __init__(self, environment: Mapping[str, str], owner: str = "proxy worker") -> None:
        self._environment = environment
        self._owner = owner

    def resolve(self, secret: str, field: str) -> str:
        """``secret`` itself, or the value that it refers to. Raises InvalidSettings that names the variable."""
        reference = _REFERENCE.fullmatch(secret)
        if reference is None:
            return secret
        scope, key = reference.groups()
        name = "SERVELENS_SECRET_" + re.sub(r"[^A-Z0-9]", "_", f"{scope}_{key}".upper())
        try:
            return self._environment[name]
        except KeyError:
            raise InvalidSettings(
                f"the secret {secret} is not known here.",
                field=field,
                fix=f"Set the environment variable {name} for every {self._owner}.",
            ) from None
