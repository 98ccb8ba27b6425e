"""The dialog of an export: which labels, in which format; what it would hold, what it leaves out and why, and the download.

Invariant: the link asks for what is shown. Both come of the same parameters, with the times fixed when the dialog was
changed last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

import dash_mantine_components as dmc
from dash import Input, Output, html
from dash.exceptions import PreventUpdate

from dashboard import conversation, formats
from dashboard.callbacks import Callbacks
from dashboard.console import Console
from dashboard.elements import Element, code_block, icon, problem_slot
from dashboard.view import RANGES
from relabel.export.export import Export, ExportSummary
from relabel.export.formats.format import Layout
from relabel.export.formats.registry import FORMATS
from relabel.export.preview import MAX_CASES, Preview, preview_of
from relabel.export.requested import requested_query
from relabel.export.write import is_folder
from servelens.errors import Invalid

_ANY = "any"
_EXAMPLES = 3
_MOST_SHOWN = 2_000
_WORDS: Mapping[str, str] = {
    "openai_chat": "One conversation a line, for OpenAI's supervised fine-tuning: the corrected answer, or the recorded "
    "one when it is good.",
    "openai_preference": "Pairs of a preferred and another answer, for OpenAI's preference fine-tuning (DPO).",
    "trl_language_modeling": "Whole conversations, for TRL's SFTTrainer; it learns from every message.",
    "trl_prompt_completion": "Conversation and answer apart, for TRL's SFTTrainer; it learns from the answer alone.",
    "trl_preference": "Prompt, chosen and rejected answer, for TRL's DPOTrainer.",
    "trl_kto": "Answers with thumbs up or down, for TRL's KTOTrainer; no pairs are needed.",
    "alpaca": "Instruction, input and output, as LLaMA-Factory reads them.",
    "sharegpt": "Turns of human and gpt, with tool calls, as LLaMA-Factory reads them.",
    "huggingface": "A folder of Parquet files for load_dataset: completions, preferences, KTO, and every label.",
}
_CONTROLS = ("format", "rating", "tags", "time", "agreement", "split", "dedupe", "mask")


def layout() -> Element:
    """The dialog before it is opened."""
    files = [each for each in FORMATS.values() if each.layout is not Layout.TABLE]
    return dmc.Modal(
        id="relabel-dialog",
        title="Export training data",
        opened=False,
        size="min(760px, 100vw)",
        closeButtonProps={"aria-label": "Close"},
        children=html.Div(
            [
                _select("format", "Format", [(each.name, each.title) for each in files], "openai_chat"),
                html.P(id="relabel-export-words", className="muted small"),
                html.Div(
                    [
                        _select("rating", "Rating", [(_ANY, "Any"), ("good", "Good"), ("bad", "Bad")], _ANY),
                        _select(
                            "time",
                            "Recorded",
                            [(_ANY, "Any time"), *((key, label) for key, (label, _) in RANGES.items())],
                            _ANY,
                        ),
                        _percent("agreement", "Agreement of at least", "Any"),
                        _percent("split", "For testing", "No split"),
                        _select(
                            "dedupe",
                            "Duplicates",
                            [(_ANY, "Keep"), ("exact", "Drop equal ones"), ("near", "Drop similar ones")],
                            _ANY,
                        ),
                        dmc.TagsInput(
                            id="relabel-export-tags",
                            label="Tags, all of them",
                            value=[],
                            className="choice",
                        ),
                    ],
                    className="choices",
                ),
                dmc.Switch(
                    id="relabel-export-mask",
                    label="Replace personal data: e-mail addresses, phone and card numbers, IP addresses",
                    checked=False,
                ),
                problem_slot("relabel-export-problem"),
                html.Div(id="relabel-export-summary", **{"aria-live": "polite"}),
            ],
            className="dialog-form",
        ),
    )


def _select(name: str, label: str, options: Sequence[tuple[str, str]], value: str) -> Element:
    return dmc.Select(
        id=f"relabel-export-{name}",
        label=label,
        data=[{"value": option, "label": words} for option, words in options],
        value=value,
        allowDeselect=False,
        className="choice",
        comboboxProps={"shadow": "md"},
    )


def _percent(name: str, label: str, placeholder: str) -> Element:
    return dmc.NumberInput(
        id=f"relabel-export-{name}",
        label=label,
        placeholder=placeholder,
        suffix=" %",
        min=0,
        max=100,
        step=5,
        value="",
        debounce=400,
        className="choice",
    )


def register(callbacks: Callbacks, console: Console) -> None:
    """The callbacks of the dialog."""
    callbacks.browser(
        "openExport", Output("relabel-dialog", "opened"), [Input("relabel-export", "n_clicks")], initial=False
    )

    def preview(opened: bool, data: Mapping[str, Any] | None, *chosen: Any) -> Any:
        if not opened or data is None:
            raise PreventUpdate
        view = console.view(data)
        wanted = parameters(
            dict(zip(_CONTROLS, chosen, strict=True)), view.endpoint, console.services.clock.now()
        )
        query = requested_query(**wanted)
        found = preview_of(Export(console.services.database, query), _EXAMPLES)
        suffix = "zip" if is_folder(query) else "jsonl"
        name = f"{query.format.replace('_', '-')}.{suffix}"
        return _WORDS.get(query.format, ""), preview_view(found, address(wanted), name)

    callbacks.server(
        preview,
        [Output("relabel-export-words", "children"), Output("relabel-export-summary", "children")],
        [
            Input("relabel-dialog", "opened"),
            Input("view", "data"),
            *(
                Input(f"relabel-export-{name}", "checked" if name == "mask" else "value")
                for name in _CONTROLS
            ),
        ],
        problems=Output("relabel-export-problem", "children"),
        initial=False,
    )


def parameters(chosen: Mapping[str, Any], endpoint: str, now: datetime) -> dict[str, Any]:
    """What the controls ask for, as parameters of the API. Raises :class:`~servelens.errors.Invalid` for no percentage."""
    found: dict[str, Any] = {"format": str(chosen["format"])}
    if endpoint:
        found["endpoint"] = [endpoint]
    for name in ("rating", "dedupe"):
        if chosen[name] not in (None, _ANY):
            found[name] = str(chosen[name])
    if chosen["tags"]:
        found["tag"] = [str(tag) for tag in chosen["tags"]]
    if chosen["time"] in RANGES:
        found["since"] = (now - RANGES[chosen["time"]][1]).replace(microsecond=0)
    for name, parameter in (("agreement", "min_agreement"), ("split", "split")):
        share = _share(chosen[name], parameter)
        if share:
            found[parameter] = share
    if chosen["mask"]:
        found["mask"] = ["all"]
    return found


def _share(value: Any, field: str) -> float:
    if value in (None, ""):
        return 0.0
    try:
        return float(value) / 100
    except (TypeError, ValueError) as error:
        raise Invalid(
            f"{value!r} is no percentage"[:200], field=field, fix="Give a number from 0 to 100."
        ) from error


def address(wanted: Mapping[str, Any]) -> str:
    """Where the export is downloaded."""
    pairs = [
        (name, each.isoformat() if isinstance(each, datetime) else each)
        for name, value in wanted.items()
        for each in (value if isinstance(value, list) else [value])
    ]
    return f"/api/relabel/export?{urlencode(pairs)}"


def preview_view(found: Preview, link: str, name: str) -> Element:
    """What the export holds, what it leaves out and why, its first examples, and the download."""
    summary = found.summary
    left_out = [
        html.Li(f"{number:,}: {reason.replace('_', ' ')}")
        for reason, number in sorted(summary.left_out.items(), key=lambda pair: -pair[1])
    ]
    return html.Div(
        [
            html.P([html.Strong(formats.plural(summary.written, "example")), _of(summary)])
            if summary.cases
            else None,
            None
            if found.is_whole
            else html.P(f"Counted over the first {MAX_CASES:,} cases; the file holds all.", className="note"),
            html.Div([html.P("Left out:"), html.Ul(left_out)]) if left_out else None,
            html.A(
                [icon("download"), f"Download {name}"],
                href=link,
                download=name,
                className="button button-primary",
                id="relabel-download",
            )
            if summary.written
            else html.P(
                "Label a case first, then there is something to export."
                if not summary.cases
                else "No label fits. Ask for less, or choose another format.",
                className="muted",
            ),
            html.Div(
                [
                    html.H3("The first examples" if len(found.examples) > 1 else "The first example"),
                    *(_example(each.value, each.part, each.split) for each in found.examples),
                ],
                className="panel-section",
            )
            if found.examples
            else None,
        ],
        className="stack",
    )


def _of(summary: ExportSummary) -> str:
    words = f" of {formats.plural(summary.cases, 'labeled case')}"
    if summary.by_split:
        words += ": " + ", ".join(f"{number:,} {name}" for name, number in summary.by_split.items())
    masked = sum((summary.masked or {}).values())
    return words + (f"; {formats.plural(masked, 'piece')} of personal data replaced" if masked else "")


def _example(value: Mapping[str, Any], part: str, split: str) -> Element:
    text = conversation.pretty_value(value)
    shown = text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN].rstrip()}\n…"
    place = ", ".join(filter(None, (part, split)))
    return html.Div([html.Span(place, className="muted small") if place else None, code_block(shown)])
