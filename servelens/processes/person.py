"""Who runs a command."""

from __future__ import annotations

import getpass


def user() -> str | None:
    """The name of the user of this process, if there is one."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without a name for its user
        return None
