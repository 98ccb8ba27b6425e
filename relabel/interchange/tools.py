"""The other labeling tools that there are, by name."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from relabel.interchange.argilla import Argilla
from relabel.interchange.label_studio import LabelStudio
from relabel.interchange.tool import Tool


class ToolName(StrEnum):
    """As in commands and paths."""

    LABEL_STUDIO = "label_studio"
    ARGILLA = "argilla"


TOOLS: Final[Mapping[ToolName, Tool]] = {
    ToolName.LABEL_STUDIO: LabelStudio(),
    ToolName.ARGILLA: Argilla(),
}
