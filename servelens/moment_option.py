"""Times on the command line."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import click


class _Moment(click.ParamType[datetime]):
    """A time, or a day; UTC where no zone is given."""

    name = "time"

    def convert(
        self, value: str | datetime, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no time; write 2026-03-04 or 2026-03-04T10:00:00+01:00.", param, ctx)
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


MOMENT: Final = _Moment()
