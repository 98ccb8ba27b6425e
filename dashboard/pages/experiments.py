"""Experiments: the verdict in one sentence, whether the split can be trusted, and what each metric says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from dash import ALL, Input, Output, State, ctx, dcc, html
from dash.exceptions import PreventUpdate

from dashboard import experiment_figures, formats
from dashboard.callbacks import Callbacks
from dashboard.console import Console
from dashboard.elements import (
    GRAPH_CONFIG,
    Element,
    badge,
    card,
    code_block,
    empty,
    facts,
    icon,
    page_head,
    problem_slot,
    table,
)
from dashboard.pages.experiment_guardrails import guardrails_card
from dashboard.pages.experiment_metrics import capital, estimate, metrics_card
from dashboard.pages.experiment_rollout import allocation_card, rollout_card, shadows_card
from dashboard.theme import arm_colours
from experiments.experiment import Experiment
from experiments.standing import Standing

_TICK_MS = 30_000
_DECISIONS = 20


def layout(console: Console) -> Element:
    """The page before its result."""
    return html.Div(
        [
            dcc.Interval(id="experiments-tick", interval=_TICK_MS),
            page_head(
                "Experiments",
                "What the variants do to what matters. Look as often as you like: the always-valid results allow it.",
                [html.Button([icon("refresh"), "Look now"], id="experiments-look", className="button")],
            ),
            problem_slot("experiments-problem"),
            html.Div(id="experiments-content", className="stack"),
        ]
    )


def register(callbacks: Callbacks, console: Console) -> None:
    """The callbacks of the page."""

    def update(
        data: Mapping[str, Any] | None,
        _tick: int | None,
        scheme: str | None,
        name: str | None,
        _look: int | None,
    ) -> Any:
        if data is None or scheme is None:
            raise PreventUpdate
        view = console.view(data)
        here = console.services.experiments_on(view.endpoint)
        experiment = console.services.experiment(name, view.endpoint)
        if experiment is None:
            return [_no_experiment(view.endpoint)]
        report = console.experiments.report(experiment, look_now=ctx.triggered_id == "experiments-look")
        standing = next(one for one in here if one.experiment.name == experiment.name)
        decisions = console.services.experiment_control.decisions(experiment.name, _DECISIONS)
        rollout = rollout_card(standing, decisions, view.zone)
        if report is None or not report["units"]:
            return [_choice(here, experiment), _waiting(experiment), rollout]
        return [
            _choice(here, experiment),
            _verdict(report, experiment, view.zone, console.services.clock.now()),
            html.Div([_ratio(report, experiment, scheme), _rests_on(report, experiment)], className="grid-2"),
            guardrails_card(report),
            rollout,
            allocation_card(report),
            shadows_card(report),
            metrics_card(report, scheme),
            _looks(console, experiment, report, scheme, view.zone),
            _variants(report, experiment, scheme),
        ]

    callbacks.server(
        update,
        [Output("experiments-content", "children")],
        [
            Input("view", "data"),
            Input("experiments-tick", "n_intervals"),
            Input("scheme", "data"),
            Input("experiment-name", "data"),
            Input("experiments-look", "n_clicks"),
        ],
        problems=Output("experiments-problem", "children"),
    )
    callbacks.browser("experimentName", Output("experiment-name", "data"), [Input("url", "search")])
    callbacks.browser(
        "chooseExperiment",
        Output("url", "search", allow_duplicate=True),
        [Input({"type": "experiment", "name": ALL}, "n_clicks")],
        [State("url", "search")],
        initial=False,
    )


def _choice(standings: Sequence[Standing], chosen: Experiment) -> Element | None:
    """A button for each experiment; one that has ended says how."""
    if len(standings) < 2:
        return None
    return html.Div([_button(standing, chosen) for standing in standings], className="toolbar")


def _button(standing: Standing, chosen: Experiment) -> Element:
    name = standing.experiment.name
    ended = f" ({str(standing.outcome).replace('_', ' ')})" if standing.outcome else ""
    return html.Button(
        [name, html.Span(ended, className="muted")] if ended else name,
        id={"type": "experiment", "name": name},
        className="button" + (" button-primary" if name == chosen.name else ""),
        title=standing.reason,
    )


def _no_experiment(endpoint: str) -> Element:
    example = (
        "experiments:\n"
        "  - name: warmer-answers\n"
        f"    endpoint: {endpoint or 'my-endpoint'}\n"
        "    control: {name: champion, served_entity: model-a, weight: 50}\n"
        "    treatments:\n"
        "      - {name: challenger, served_entity: model-b, weight: 50}\n"
        "    primary_metric: success_rate\n"
    )
    return empty(
        "experiments",
        f"No experiment runs on {endpoint}" if endpoint else "No endpoint is configured",
        [
            html.P("Add one to servelens.yaml. Users are split as soon as the proxy has read it."),
            code_block(example),
        ],
    )


def _waiting(experiment: Experiment) -> Element:
    return empty(
        "experiments",
        f"{experiment.name} has no exposures yet",
        html.P(
            f"The first {experiment.unit} that calls {experiment.endpoint} starts it. Results show here as traffic comes in."
        ),
        [dcc.Link("How to send a request", href=f"/?endpoint={experiment.endpoint}", className="button")],
    )


def _verdict(report: Mapping[str, Any], experiment: Experiment, zone: str, now: datetime) -> Element:
    ratio = report["sample_ratio"]
    primary = next((metric for metric in report["metrics"] if metric["role"] == "primary"), None)
    verdicts = [comparison["verdict"] for comparison in primary["comparisons"]] if primary else []
    decided = next((verdict for verdict in verdicts if verdict != "inconclusive"), "inconclusive")
    tone = "bad" if not ratio["ok"] else experiment_figures.tone(decided)
    as_of = datetime.fromisoformat(report["as_of"])
    headline, *others = str(report["verdict"]).rstrip(".").split("; ")
    return html.Section(
        [
            html.Div(
                [
                    html.Strong(experiment.name),
                    badge(str(report["state"]), "accent" if report["state"] == "running" else "neutral"),
                    html.Span(
                        f"looked {formats.ago(as_of, now)}",
                        className="muted small",
                        title=formats.full_moment(as_of, zone),
                    ),
                ],
                className="badges",
            ),
            html.P(f"{capital(headline)}.", className="verdict-sentence"),
            html.Ul([html.Li(capital(clause)) for clause in others], className="verdict-more")
            if others
            else None,
            _basis(report),
        ],
        className=f"card verdict verdict-{tone}",
    )


def _basis(report: Mapping[str, Any]) -> Element | None:
    """What the verdict rests on and what would change it; a report of an older release does not say."""
    if not report.get("rests_on"):
        return None
    return html.Div(
        facts([("Rests on", report["rests_on"]), ("What would change it", capital(report["would_change"]))]),
        className="verdict-basis",
    )


def _ratio(report: Mapping[str, Any], experiment: Experiment, scheme: str) -> Element:
    ratio = report["sample_ratio"]
    colours = arm_colours([variant.name for variant in experiment.variants], scheme)
    total = sum(ratio["observed"].values()) or 1
    rows = [
        [
            html.Span([html.I(style={"background": colours[name]}), name], className="swatch"),
            formats.count(ratio["observed"].get(name, 0)),
            formats.count(expected),
            formats.percent(ratio["observed"].get(name, 0) / total, 1),
        ]
        for name, expected in ratio["expected"].items()
    ]
    words = (
        f"The split is as designed ({formats.p_value(ratio['p_value'])})."
        if ratio["ok"]
        else f"The split is off ({formats.p_value(ratio['p_value'])}): no result below can be trusted until you know why."
    )
    return card(
        "Sample ratio",
        [
            table(
                ["Variant", f"{report['unit'].capitalize()}s", "Expected", "Share"],
                rows,
                caption="Sample ratio check",
            ),
            html.P(words, className="note"),
        ],
        actions=[
            badge("As designed", "good", icon_name="check")
            if ratio["ok"]
            else badge("Mismatch", "bad", icon_name="alert")
        ],
    )


def _rests_on(report: Mapping[str, Any], experiment: Experiment) -> Element:
    records = sum(report["records"].values())
    left_out = ", ".join(
        f"{number:,} {reason.replace('_', ' ')}" for reason, number in report["excluded"].items() if number
    )
    planned = f" of {formats.count(experiment.planned_units)} planned" if experiment.planned_units else ""
    return card(
        "What it rests on",
        facts(
            [
                ("Units", f"{formats.count(report['units'])} {report['unit']}s{planned}, each counted once"),
                ("Records", f"{formats.count(records)}" + (f"; left out: {left_out}" if left_out else "")),
                (
                    "Error probability",
                    f"{formats.percent(report['alpha'], 1)} per comparison, over all looks together",
                ),
                ("Phase", f"{report['phase']} (a change of weights starts a new one)"),
                (
                    "Data",
                    f"inference table version {_version(report['payload_version'])}, "
                    f"scores version {_version(report['scores_version'])}",
                ),
            ]
        ),
    )


def _version(version: int | None) -> str:
    return formats.MISSING if version is None else str(version)


def _looks(
    console: Console, experiment: Experiment, report: Mapping[str, Any], scheme: str, zone: str
) -> Element | None:
    history = console.experiments.history(experiment)
    if len(history) < 3:
        return None
    primary = next(metric for metric in report["metrics"] if metric["role"] == "primary")
    return card(
        "Evidence over the looks",
        html.Div(
            dcc.Graph(
                figure=experiment_figures.looks(history, primary["name"], report["alpha"], scheme, zone),
                config=dict(GRAPH_CONFIG),
                style={"height": "200px"},
                responsive=True,
            ),
            role="img",
            **{"aria-label": "Always-valid p-value over the looks"},
        ),
        note=f"always-valid p-value of {primary['label']}, smallest so far; decided below the dashed line at "
        f"{formats.significant(report['alpha'])}",
    )


def _variants(report: Mapping[str, Any], experiment: Experiment, scheme: str) -> Element:
    colours = arm_colours([variant.name for variant in experiment.variants], scheme)
    rows = []
    for variant in experiment.variants:
        name = variant.name
        cells = [
            f"{estimate(metric, metric['variants'][name]['estimate'])}"
            if name in metric["variants"]
            else formats.MISSING
            for metric in report["metrics"]
        ]
        rows.append(
            [
                html.Span([html.I(style={"background": colours[name]}), name], className="swatch"),
                html.Span(variant.served_entity, className="muted"),
                formats.count(report["exposures"].get(name)),
                formats.count(report["records"].get(name)),
                *cells,
            ]
        )
    head = [
        "Variant",
        "Served entity",
        f"{report['unit'].capitalize()}s",
        "Records",
        *(capital(metric["label"]) for metric in report["metrics"]),
    ]
    return card("Variants", table(head, rows, numeric_from=2, caption="Variants and their estimates"))
