"""The formats by name: what ``--format`` and ``format=`` take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from relabel.export.formats.alpaca import ALPACA
from relabel.export.formats.format import Format, Layout
from relabel.export.formats.huggingface import HUGGINGFACE
from relabel.export.formats.openai_chat import OPENAI_CHAT
from relabel.export.formats.openai_preference import OPENAI_PREFERENCE
from relabel.export.formats.sharegpt import SHAREGPT
from relabel.export.formats.trl import TRL_KTO, TRL_LANGUAGE_MODELING, TRL_PREFERENCE, TRL_PROMPT_COMPLETION
from servelens.errors import Invalid

LABELS_TABLE: Final = Format(
    name="labels_table", title="Delta table of the endpoint's labels", layout=Layout.TABLE
)

FORMATS: Final[Mapping[str, Format]] = {
    each.name: each
    for each in (
        OPENAI_CHAT,
        OPENAI_PREFERENCE,
        TRL_LANGUAGE_MODELING,
        TRL_PROMPT_COMPLETION,
        TRL_PREFERENCE,
        TRL_KTO,
        ALPACA,
        SHAREGPT,
        HUGGINGFACE,
        LABELS_TABLE,
    )
}


def format_of(name: str) -> Format:
    """The format of that name. Raises :class:`~servelens.errors.Invalid` when there is none."""
    try:
        return FORMATS[name]
    except KeyError as error:
        raise Invalid(
            f"{name!r} is no format"[:200], field="format", fix=f"Use one of: {', '.join(FORMATS)}."
        ) from error
