"""Who a tool's users are here, as people write it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from relabel.case import checked_annotator
from servelens.errors import Invalid


def named_annotators(pairs: Sequence[str]) -> Mapping[str, str]:
    """Names by the tool's users, of ``USER=NAME`` each. Raises :class:`~servelens.errors.Invalid` for another form, a user
    who is named twice, and a name that is none.

    >>> named_annotators(["3=ann", "4=bob@example.com"])
    {'3': 'ann', '4': 'bob@example.com'}
    """
    names: dict[str, str] = {}
    for pair in pairs:
        user, equals, name = pair.partition("=")
        if not user.strip() or not equals:
            raise Invalid(
                f"{pair!r} names nobody"[:300],
                field="annotator",
                fix="Write USER=NAME, as in 3=ann@example.com.",
            )
        if user.strip() in names:
            raise Invalid(f"{user!r} is named twice"[:300], field="annotator", fix="Name everybody once.")
        names[user.strip()] = checked_annotator(name)
    return names
