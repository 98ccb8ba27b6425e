"""What the desk shows while nobody has a case: what waits, and what to do next."""

from __future__ import annotations

from dash import dcc, html

from dashboard import formats
from dashboard.console import Console
from dashboard.elements import Element, empty, key
from dashboard.view import View
from relabel.case import CaseState


def idle_view(console: Console, view: View, *, disputes: bool, finished: bool) -> Element:
    """What to do next while no case is claimed; ``finished``: the annotator has just done the last one."""
    counts = console.services.queue.counts(view.endpoint).get(view.endpoint, {}) if view.endpoint else {}
    total = sum(int(number) for number in counts.values())
    if disputes and total:
        waiting = counts.get(CaseState.DISPUTED, 0)
        if waiting:
            return empty(
                "relabel",
                f"{formats.plural(waiting, 'dispute')} {'waits' if waiting == 1 else 'wait'} for a decision",
                html.P(
                    [key("N"), " claims the next one. You see what everybody said, and your answer counts."]
                ),
            )
        return empty("check", "Nobody disagrees", html.P("Cases show here when their labels differ."))
    waiting = counts.get(CaseState.OPEN, 0)
    lease = formats.duration(console.services.queue.lease)
    if waiting and not finished:
        return empty(
            "relabel",
            f"{formats.plural(waiting, 'case')} {'waits' if waiting == 1 else 'wait'} for a judgement",
            html.P(
                [
                    key("N"),
                    f" claims the next one. It is yours for {lease} at a time while this page is open.",
                ]
            ),
        )
    if waiting:
        return empty(
            "check",
            "You have done your part",
            html.P(
                f"{formats.plural(waiting, 'case')} still wait, but for somebody else: you have seen them."
            ),
        )
    if total:
        return empty(
            "check",
            "The queue is empty" if finished else "Nothing is waiting",
            html.P("Export the labels, or come back later: new cases show here when a rule finds them."),
        )
    return empty(
        "inbox",
        "No case has been flagged",
        html.P(
            [
                "Rules make cases of records: a score past a threshold, bad feedback, a random sample. They are under ",
                html.Code("relabel"),
                " in servelens.yaml; scores come from the evaluators.",
            ]
        ),
        [dcc.Link("See the scores", href="/quality", className="button")],
    )
