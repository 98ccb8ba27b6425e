"""The sources that an endpoint's rules need, in the order in which they are followed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from collector.catalog import EndpointTables
from relabel.selection.rule import (
    CaseRule,
    DriftRule,
    EvaluatorDisagreementRule,
    FeedbackRule,
    LabelRule,
    LowConfidenceRule,
    RandomRule,
    Rule,
    ShadowScoreRule,
    ShadowTextRule,
    UnscoredRule,
)
from relabel.selection.sources.control_sample import ControlSampleSource
from relabel.selection.sources.drift import DriftSource
from relabel.selection.sources.evaluator_disagreement import EvaluatorDisagreementSource
from relabel.selection.sources.feedback import FeedbackSource
from relabel.selection.sources.scores import ScoreSource
from relabel.selection.sources.shadow_scores import ShadowScoreSource
from relabel.selection.sources.shadow_text import ShadowTextSource
from relabel.selection.sources.source import Source

_Kind = TypeVar("_Kind", bound=CaseRule)


def sources_of(tables: EndpointTables, rules: Sequence[CaseRule]) -> list[Source]:
    """Those that at least one of ``rules`` needs. The control sample comes first: whether a record is in it must not
    depend on what else made it a case."""

    def numbered(*kinds: type[_Kind]) -> dict[int, _Kind]:
        return {number: rule for number, rule in enumerate(rules) if isinstance(rule, kinds)}

    sources: list[Source] = [
        ControlSampleSource(tables.payload, numbered(RandomRule)),
        ScoreSource(tables.scores, numbered(Rule, LabelRule, UnscoredRule, LowConfidenceRule)),
        EvaluatorDisagreementSource(tables.scores, numbered(EvaluatorDisagreementRule)),
        ShadowTextSource(tables.payload, numbered(ShadowTextRule)),
        ShadowScoreSource(tables.scores, tables.payload, numbered(ShadowScoreRule)),
        FeedbackSource(tables.feedback, numbered(FeedbackRule)),
        DriftSource(tables.drift, tables.payload, numbered(DriftRule)),
    ]
    return [source for source in sources if source.numbered]
