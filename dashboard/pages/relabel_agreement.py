"""How far the people who label agree, and the evaluators with them: a section of the Relabel page.

Invariant: a number that the labels do not determine is not shown; in its place stands what is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from dash import dcc, html

from dashboard import agreement_figures, formats
from dashboard.agreement_queries import EvaluatorView
from dashboard.console import Console
from dashboard.elements import GRAPH_CONFIG, Element, card, empty, facts, table, tile
from dashboard.view import View

MOST_PAIRS: Final = 12
_SOURCES: Final = {"flagged_cases": "by the cases it chose", "control_sample": "by the control sample"}
_BASES: Final = {
    "control_sample": "on the control sample",
    "all_cases": "on all labeled cases, which evaluators chose: expect other precision and recall on the traffic",
}


def section(console: Console, view: View, scheme: str | None = None) -> Element:
    """The whole section for the endpoint of ``view``. Reads labels and scores, so never on the event loop."""
    report = console.agreement.people(view.endpoint)
    if not report["labels"] and not report["annotators"]:
        return empty(
            "user",
            "Nobody has labeled a case of this endpoint",
            html.P("Agreement shows here once there are labels. It needs cases that two people labeled."),
        )
    evaluators = console.agreement.evaluators(view.endpoint)
    return html.Div(
        [
            people_card(report, scheme),
            pairs_card(report, scheme),
            annotators_card(report),
            *(evaluator_card(each, scheme) for each in evaluators),
        ],
        className="stack",
    )


def people_card(report: Mapping[str, Any], scheme: str | None) -> Element:
    """Per field: how often two people say the same, and how much of that is more than chance."""
    fields = report["fields"]
    cases = report["cases_of_several"]
    note = f"{formats.plural(report['labels'], 'label')} of {formats.plural(report['cases'], 'case')}; {cases:,} have two or more"
    body: list[Element] = []
    if not cases:
        body.append(
            html.P(
                "No case has two labels. Set annotators: 2 in the label schema, and the next cases go to two people each.",
                className="muted",
            )
        )
    else:
        rows = []
        for field in fields:
            for name, measure in field["measures"].items():
                title = "Same answer" if name == "raw" else agreement_figures.NAMES[name]
                rows.append(
                    [
                        html.Span(field["field"], className="strong") if name == "raw" else "",
                        title,
                        *_measure(measure, percent=name == "raw"),
                        formats.count(measure["cases"]),
                    ]
                )
        body.append(
            table(
                ["Field", "Measure", "Value", "95 % interval", "Cases"],
                rows,
                numeric_from=2,
                caption="Agreement of people by field",
            )
        )
        if agreement_figures.shown_measures(fields):
            body.append(
                _figure(
                    agreement_figures.intervals(fields, scheme),
                    agreement_figures.intervals_height(fields),
                    "Agreement by field with intervals; 0 is chance, 1 is always, the dashed line is 0.8",
                )
            )
    unread = sum(report["unread"].values())
    if unread:
        left_out = f"{formats.plural(unread, 'label')} of unknown schema versions are left out."
        body.append(html.P(left_out, className="muted small"))
    return card("Agreement of people", body, note=note)


def pairs_card(report: Mapping[str, Any], scheme: str | None) -> Element:
    """Who agrees with whom on the field that decides first."""
    pairs = report["pairs"]
    if not pairs:
        return None
    decisive = pairs[0]["field"]
    for field in report["fields"]:
        if any(pair["field"] == field["field"] for pair in pairs):
            decisive = field["field"]
            break
    of_field = [pair for pair in pairs if pair["field"] == decisive]
    rows = [
        [
            f"{pair['first']}, {pair['second']}",
            formats.count(pair["cases"]),
            formats.percent(pair["raw"]["value"], 0),
            *_measure(pair["kappa"]),
        ]
        for pair in of_field[:MOST_PAIRS]
    ]
    body: list[Element] = []
    if any(pair["kappa"]["value"] is not None for pair in of_field) and len(of_field) > 1:
        body.append(
            _figure(
                agreement_figures.pair_matrix(of_field, scheme),
                agreement_figures.pair_matrix_height(of_field),
                f"Cohen's kappa of every two annotators on {decisive}",
            )
        )
    body.append(
        table(
            ["Annotators", "Cases", "Same answer", "Cohen's κ", "95 % interval"],
            rows,
            caption=f"Agreement of pairs on {decisive}",
        )
    )
    if len(of_field) > MOST_PAIRS:
        body.append(html.P(f"The {MOST_PAIRS} pairs with most cases of {len(of_field)}.", className="note"))
    return card("Pairs of annotators", body, note=f"on {decisive}")


def annotators_card(report: Mapping[str, Any]) -> Element:
    """Each annotator: labels, time, gold cases, and how often the decision was theirs."""
    rows = [
        [
            html.Span(each["annotator"], className="strong"),
            formats.count(each["labels"]),
            formats.count(each["skips"]),
            _seconds(each["median_s"]),
            *_share(each["gold"]),
            *_share(each["decision"]),
        ]
        for each in report["annotators"]
    ]
    head = ["Annotator", "Labels", "Skips", "Median time", "Gold right", "95 %", "As decided", "95 %"]
    without = not any(each["gold"]["cases"] for each in report["annotators"])
    note = "no gold case is labeled: make a few cases gold to see who is right" if without else None
    return card("Annotators", table(head, rows, caption="Annotators"), note=note)


def evaluator_card(shown: EvaluatorView, scheme: str | None) -> Element:
    """One evaluator against people: what is known of all traffic first, then of the labeled cases."""
    title = f"{shown.evaluator} of the {shown.target}, against people"
    found = shown.found
    if found is None:
        return card(title, html.P(_sentence(shown.problem or "it cannot be measured"), className="muted"))
    body: list[Element] = [_tiles(found), _traffic(found)]
    if found["suggestion"] is not None:
        body.append(_proposal(found))
    charts = []
    if found["reliability"]:
        charts.append(
            html.Div(
                [
                    html.H3("How often a score is right"),
                    _figure(
                        agreement_figures.reliability(found["reliability"], scheme),
                        260,
                        "People's yes by score; on the diagonal the score is the probability that it claims",
                    ),
                ]
            )
        )
    if found["curve"]:
        charts.append(
            html.Div(
                [
                    html.H3("Precision and recall by threshold"),
                    _figure(
                        agreement_figures.precision_recall(found, scheme),
                        260,
                        "Precision and recall by threshold, with the present threshold and the proposed one",
                    ),
                ]
            )
        )
    if charts:
        body.append(html.Div(charts, className="truth-grid"))
    reasons = [*found["insufficient"], *((found["sample"] or {}).get("insufficient", ()))]
    if reasons:
        body.append(html.Ul([html.Li(_sentence(reason)) for reason in reasons], className="muted small"))
    suspicious = f"{found['direction']} {formats.significant(found['threshold'])}"
    note = f"suspicious is {suspicious}; people's yes is an answer {found['positive_means']}"
    return card(title, body, note=note)


def _tiles(found: Mapping[str, Any]) -> Element:
    best = found["combined"] or {}
    shown = []
    for name in ("precision", "recall"):
        estimate, source = best.get(name), _SOURCES.get(str(best.get(f"{name}_from")), "")
        shown.append(
            tile(
                f"{name.capitalize()} on the traffic",
                formats.MISSING if estimate is None else formats.percent(estimate["value"], 1),
                "not known"
                if estimate is None
                else f"{_bounds(estimate['interval'], percent=True)}, {source}",
            )
        )
    kappa = found["kappa"]
    shown.append(
        tile(
            "Cohen's κ on labeled cases",
            formats.MISSING if kappa is None else formats.significant(kappa["value"]),
            f"{formats.plural(found['compared'], 'record')}"
            + (f", {_bounds(kappa['interval'])}" if kappa is not None and kappa["interval"] else ""),
        )
    )
    return html.Div(shown, className="tiles")


def _traffic(found: Mapping[str, Any]) -> Element:
    sample, flagged = found["sample"], found["flagged_cases"]
    pairs: list[tuple[str, Any]] = []
    if sample is None:
        pairs.append(
            ("Control sample", "none, so what it overlooks in the traffic is not known: add a random rule")
        )
    else:
        counts = (
            f"{sample['compared']:,} of {sample['drawn']:,} labeled and scored, {sample['waiting']:,} wait"
        )
        pairs.append(("Control sample", counts))
        for title, name in (("Precision there", "precision"), ("Recall there", "recall")):
            pairs.append((title, _estimate(sample[name])))
    if flagged is not None:
        words = f"{flagged['cases']:,}, precision {_estimate(flagged['precision'])}"
        pairs.append(("Cases it chose", words))
        if flagged["unfair"] and found["chosen_by_evaluator"]:
            pairs.append(("", f"no fair part of what it flags: {flagged['unfair']}"))
    return facts(pairs)


def _proposal(found: Mapping[str, Any]) -> Element:
    suggestion = found["suggestion"]
    expected = [
        f"{name} {formats.percent(suggestion[f'{name}_elsewhere'], 0)}"
        for name in ("precision", "recall")
        if suggestion[f"{name}_elsewhere"] is not None
    ]
    words = f"{found['direction']} {formats.significant(suggestion['threshold'])}"
    interval = suggestion["interval"]
    return html.P(
        [
            html.Strong(f"Proposed threshold: {words}"),
            f" (95 %: {_bounds(interval)})" if interval else None,
            f", expected {' and '.join(expected)} on other records" if expected else None,
            f", {_BASES[found['basis']]}.",
        ]
    )


def _measure(measure: Mapping[str, Any], *, percent: bool = False) -> tuple[Any, Any]:
    if measure["value"] is None:
        return formats.MISSING, html.Span(measure["reason"], className="muted")
    value = formats.percent(measure["value"], 0) if percent else formats.significant(measure["value"])
    if measure["interval"] is None:
        return value, html.Span(measure["reason"] or "", className="muted")
    return value, _bounds(measure["interval"], percent=percent)


def _share(measure: Mapping[str, Any]) -> tuple[str, str]:
    if measure["value"] is None:
        return formats.MISSING, ""
    return f"{formats.percent(measure['value'], 0)} of {measure['cases']:,}", _bounds(
        measure["interval"], percent=True
    )


def _estimate(estimate: Mapping[str, Any] | None) -> str:
    if estimate is None:
        return "not known"
    return f"{formats.percent(estimate['value'], 1)} ({_bounds(estimate['interval'], percent=True)})"


def _bounds(interval: Mapping[str, float] | None, *, percent: bool = False) -> str:
    if interval is None:
        return formats.MISSING
    low, high = (
        formats.percent(interval[side], 0) if percent else formats.significant(interval[side])
        for side in ("low", "high")
    )
    return f"{low} to {high}"


def _seconds(value: float | None) -> str:
    return formats.milliseconds(None if value is None else value * 1000)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _figure(figure: Any, height: int, label: str) -> Element:
    return html.Div(
        dcc.Graph(
            figure=figure,
            config=dict(GRAPH_CONFIG),
            style={"height": f"{height}px"},
            responsive=True,
        ),
        role="img",
        **{"aria-label": label},
    )
