"""The error tree: a class says what the caller should do, not what went wrong inside.

::

    ServelensError
    ├── Backpressure    slow down and come again          429, or 503 when the fault is ours
    │   └── SpoolFull   the spool takes no more records
    ├── Invalid         never retry: the input is wrong   422 (HTTP), exit status 2 (CLI), or the dead letter
    │   ├── InvalidSettings    a key in servelens.yaml
    │   └── CorruptFrame       bytes in the spool that are not a record
    ├── Missing         there is no such thing            404
    ├── Conflict        reread and try again              409
    └── Unavailable     something we depend on failed     502, or 504 when it was too slow

Foreign exceptions are translated at the boundary where they are caught, always with ``raise … from``.
"""

from __future__ import annotations

from typing import Self


class ServelensError(Exception):
    """Base of all errors that servelens raises on purpose.

    ``message`` is one sentence for a person; ``field`` names the input it is about, in the caller's own words
    (``messages[0].role``, ``endpoints[1].name``); ``fix`` says what to do.
    """

    status = 500

    def __init__(self, message: str, *, field: str | None = None, fix: str | None = None) -> None:
        self.message = message
        self.field = field
        self.fix = fix
        super().__init__(message)

    def __str__(self) -> str:
        where = f"{self.field}: " if self.field else ""
        if not self.fix:
            return f"{where}{self.message}"
        end = "" if self.message.endswith((".", "!", "?", ":", ";")) else "."
        return f"{where}{self.message}{end} {self.fix}"


class Backpressure(ServelensError):
    """Slow down: the same call may succeed after ``retry_after_s`` seconds."""

    status = 429

    def __init__(
        self, message: str, *, retry_after_s: float = 1.0, field: str | None = None, fix: str | None = None
    ) -> None:
        super().__init__(message, field=field, fix=fix)
        self.retry_after_s = retry_after_s


class SpoolFull(Backpressure):
    """The spool cannot take the record: its size limit is reached, or its disk failed."""

    status = 503


class Invalid(ServelensError):
    """The input is wrong and stays wrong: never retry."""

    status = 422

    def within(self, place: str) -> Self:
        """The same, said by who knows that the input is a part of a larger one, at ``place`` in it.

        >>> str(Invalid("0 is no margin", field="margin", fix="Use 0.01.").within("guardrails[1]"))
        'guardrails[1].margin: 0 is no margin. Use 0.01.'
        """
        return type(self)(self.message, field=f"{place}.{self.field}" if self.field else place, fix=self.fix)


class InvalidSettings(Invalid):
    """A key in the settings is unknown, missing or contradictory."""


class CorruptFrame(Invalid):
    """Bytes in a spool segment that do not decode to a record."""


class Missing(ServelensError):
    """There is no such thing."""

    status = 404


class Conflict(ServelensError):
    """Somebody else changed it first: reread and try again."""

    status = 409


class Unavailable(ServelensError):
    """Something this process depends on failed or was too slow."""

    status = 502
