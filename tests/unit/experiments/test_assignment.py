"""Assignment: shares, independence, exclusive layers, growth. What decides is checked against the definition
written out in exact fractions over :mod:`hashlib`, and against scipy's tests of independence. The 10⁷-unit
form is ``python -m benchmarks.assignment``.
"""

from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from hashlib import blake2b, blake2s, sha256
from itertools import pairwise, permutations, product
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, kstest

from experiments.assignment import Allocation, allocations, assign, bucket, place
from experiments.experiment import Assignment, Experiment, Variant

THREE = Experiment(
    "three",
    "chat",
    Variant("control", "a", 50),
    (Variant("warm", "b", 30), Variant("hot", "c", 20)),
    "success_rate",
)
UNITS = [f"user-{number}" for number in range(100_000)]
SHADOW = replace(THREE, name="watcher", kind="shadow")
# Everything that str can hold: lone surrogates, NUL, and more than one block of the hash.
any_unit = st.text() | st.text("aß€😀\0\ud800\udfff") | st.text("a€\ud800", min_size=100, max_size=150)


def _pair(name: str, share: float = 100, share_from: float = 0, **changes: Any) -> Experiment:
    """An experiment of two even variants."""
    experiment = Experiment(
        name,
        "chat",
        Variant("control", "a", 50),
        (Variant("new", "b", 50),),
        "success_rate",
        share=share,
        share_from=share_from,
    )
    return replace(experiment, **changes)


def _named(experiment: Experiment, assignment: Assignment) -> tuple[str, str]:
    return experiment.name, assignment.variant.name


def _chat(*experiments: Experiment) -> Allocation[tuple[str, str]]:
    return allocations(experiments, _named)["chat"]


def _within_four_se(count: int, probability: float, n: int) -> bool:
    return abs(count - n * probability) <= 4 * math.sqrt(n * probability * (1 - probability))


def _by_definition(experiment: Experiment, unit: str) -> str | None:
    """The variant in exact arithmetic, from what RFC 7693's hashes give."""

    def number(function: Callable[..., Any], salt: str) -> Fraction:
        data = f"{salt}\0{unit}".encode("utf-8", "surrogatepass")
        return Fraction(int(function(data, digest_size=8).hexdigest(), 16) >> 11, 1 << 53)

    end = Fraction((experiment.share_from + experiment.share) / 100)
    if not Fraction(experiment.share_from / 100) <= number(blake2s, experiment.layer) < end:
        return None
    upper = 0.0
    for variant in experiment.variants:
        upper += variant.weight / 100
        if number(blake2b, experiment.salt) < Fraction(upper):
            return variant.name
    raise AssertionError("weights of these tests add up to 100")


@pytest.mark.parametrize("weights", [(50, 50), (90, 5, 5), (99, 1)])
@pytest.mark.parametrize(("share", "share_from"), [(100, 0), (40, 0), (12.5, 61)])
def test_units_get_their_shares_within_four_standard_errors(
    weights: tuple[float, ...], share: float, share_from: float
) -> None:
    control, *treatments = (Variant(f"v{number}", "a", weight) for number, weight in enumerate(weights))
    experiment = replace(
        THREE, control=control, treatments=tuple(treatments), share=share, share_from=share_from
    )
    propensity: dict[str, float] = {}

    def name(_: Experiment, assignment: Assignment) -> str:
        propensity[assignment.variant.name] = assignment.propensity
        return assignment.variant.name

    counts = Counter(map(allocations([experiment], name)["chat"].answer_for, UNITS))
    assert sum(counts.values()) == len(UNITS)
    assert counts[None] == 0 if share == 100 else _within_four_se(counts[None], 1 - share / 100, len(UNITS))
    for number, weight in enumerate(weights):
        assert propensity[f"v{number}"] == pytest.approx(share * weight / 10_000)
        assert _within_four_se(counts[f"v{number}"], propensity[f"v{number}"], len(UNITS))


@given(any_unit, st.floats(0.01, 100), st.data())
def test_an_endpoint_decides_as_the_definition_says(unit: str, share: float, data: st.DataObject) -> None:
    share_from = data.draw(st.floats(0, 100 - share))
    experiment = replace(THREE, share=share, share_from=share_from, layer=data.draw(st.text(max_size=5)))
    expected = _by_definition(experiment, unit)
    assignment = assign(experiment, unit)
    assert (None if assignment is None else assignment.variant.name) == expected
    assert _chat(experiment).answer_for(unit) == (None if expected is None else ("three", expected))


def test_edges_fall_exactly_where_the_floats_do() -> None:
    """The unit on an edge belongs to what begins there; compared are bytes, so this could be off by one.

    The last 11 bits of a hash are cut off; those of some units are 0, so that their bytes are the edge's own.
    """

    def on_the_edge(function: Callable[..., Any], salt: str, unit: str) -> bool:
        digest = function(f"{salt}\0{unit}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") % 2048 == 0

    exact = [
        unit for unit in UNITS if on_the_edge(blake2b, "even", unit) or on_the_edge(blake2s, "chat", unit)
    ]
    assert len(exact) > 50
    checked = 0
    for unit in UNITS[:300] + exact:
        point, where = bucket("even", unit), place("chat", unit)
        if point * 100 / 100 != point or where * 100 / 100 != where or point == 0:
            continue
        checked += 1
        for edge, variant in ((point, "new"), (math.nextafter(point, 1), "control")):
            control, new = Variant("control", "a", edge * 100), Variant("new", "b", 100 - edge * 100)
            if control.weight / 100 == edge:
                experiment = _pair("even", control=control, treatments=(new,))
                assert _chat(experiment).answer_for(unit) == ("even", variant)
        assert _chat(_pair("even", where * 100)).answer_for(unit) is None
        assert _chat(_pair("even", 100 - where * 100, where * 100)).answer_for(unit) is not None
    assert checked > 100


def _cross_p(first: Allocation[str], second: Allocation[str]) -> float:
    pairs = Counter(zip(map(first.answer_for, UNITS), map(second.answer_for, UNITS), strict=True))
    rows, columns = ({pair[side] for pair in pairs} for side in (0, 1))
    return float(chi2_contingency([[pairs[row, column] for column in columns] for row in rows]).pvalue)


def _variant_of(experiment: Experiment) -> Allocation[str]:
    return allocations([experiment], lambda _, assignment: assignment.variant.name)["chat"]


def _tenth_of(layer: str) -> Allocation[str]:
    tenths = [_pair(f"tenth-{n}", 10, 10 * n, layer=layer) for n in range(10)]
    return allocations(tenths, lambda experiment, _: experiment.name)["chat"]


@pytest.mark.parametrize("salt", ["another salt", "three ", "THREE"])
def test_two_experiments_are_independent_of_each_other(salt: str) -> None:
    other = replace(THREE, name="other", salt=salt)
    assert _cross_p(_variant_of(THREE), _variant_of(other)) > 1e-4


def test_an_experiment_and_its_successor_at_the_same_places_are_independent() -> None:
    before, after = (_variant_of(_pair(name, 30, 10)) for name in ("before", "after"))
    inside = [unit for unit in UNITS if before.answer_for(unit)]
    assert all(after.answer_for(unit) for unit in inside)
    pairs = Counter((before.answer_for(unit), after.answer_for(unit)) for unit in inside)
    table = [[pairs[row, column] for column in ("control", "new")] for row in ("control", "new")]
    assert chi2_contingency(table).pvalue > 1e-4


@pytest.mark.parametrize("salt", ["three", "chat"])
def test_the_place_in_the_layer_is_independent_of_the_variant(salt: str) -> None:
    """Also when the experiment's salt reads like the layer's name: the two are different hashes."""
    assert _cross_p(_tenth_of("chat"), _variant_of(replace(THREE, salt=salt))) > 1e-4


def test_places_in_two_layers_are_independent() -> None:
    assert _cross_p(_tenth_of("chat"), _tenth_of("chat2")) > 1e-4


def test_nobody_is_in_two_experiments_of_a_layer_whatever_their_endpoints() -> None:
    layer = [
        _pair("a", 30, 0, layer="shared"),
        _pair("b", 20, 30, layer="shared", endpoint="embed"),
        _pair("c", 25, 50, layer="shared"),
        _pair("d", 15, 85, layer="shared", endpoint="embed"),
    ]
    by_endpoint = allocations(layer, lambda experiment, _: experiment.name)
    assert [each.name for each in by_endpoint["chat"].experiments] == ["a", "c"]
    chat, embed = by_endpoint["chat"].answer_for, by_endpoint["embed"].answer_for
    counts = Counter((chat(unit), embed(unit)) for unit in UNITS)
    assert set(counts) == {("a", None), (None, "b"), ("c", None), (None, "d"), (None, None)}
    shares = {("a", None): 0.3, (None, "b"): 0.2, ("c", None): 0.25, (None, "d"): 0.15, (None, None): 0.1}
    assert all(_within_four_se(counts[pair], share, len(UNITS)) for pair, share in shares.items())


cuts = st.lists(st.floats(0, 100), min_size=2, max_size=12, unique=True).map(sorted)


@given(cuts, st.lists(any_unit, min_size=1, max_size=20), st.randoms(use_true_random=False))
def test_every_unit_is_in_the_one_experiment_that_has_its_place(
    bounds: list[float], units: list[str], random: Random
) -> None:
    layer = [
        _pair(f"e{number}", end - start, start, layer="shared", endpoint=f"endpoint-{number % 3}")
        for number, (start, end) in enumerate(pairwise(bounds))
        if end - start > 1e-3
    ]
    random.shuffle(layer)
    decided = allocations(layer, lambda experiment, _: experiment.name).values()
    for unit in units:
        having = [name for each in decided if (name := each.answer_for(unit)) is not None]
        assert len(having) <= 1
        assert having == [each.name for each in layer if assign(each, unit)]


def test_an_overlap_too_small_to_be_refused_puts_nobody_in_both() -> None:
    unit = "user-7"
    edge = place("chat", unit) * 100
    first = _pair("first", edge + 4e-7, layer="chat")
    second = _pair("second", 10, edge - 4e-7, layer="chat", endpoint="embed")
    assert assign(first, unit)
    assert assign(second, unit)
    for order in permutations([first, second]):
        by_endpoint = allocations(order, _named)
        assert by_endpoint["chat"].answer_for(unit)
        assert by_endpoint["embed"].answer_for(unit) is None


def test_the_order_of_experiments_does_not_matter() -> None:
    layer = [_pair("a", 20, 10), _pair("b", 30, 40), _pair("c", 10, 80), SHADOW]
    answers = [
        (chat.experiments, [chat.answer_for(unit) for unit in UNITS[:500]])
        for order in permutations(layer)
        for chat in [_chat(*order)]
    ]
    assert all(each == answers[0] for each in answers)


@given(any_unit, st.floats(0, 50), st.floats(0.5, 25), st.floats(25, 50))
def test_growth_of_the_share_keeps_everybody_in_place(
    unit: str, share_from: float, small: float, large: float
) -> None:
    before, after = (
        _chat(replace(THREE, share=share, share_from=share_from)).answer_for(unit) for share in (small, large)
    )
    assert before is None or after == before


def test_growth_to_everybody_keeps_everybody_in_place() -> None:
    before, whole = _chat(replace(THREE, share=20)), _chat(THREE)
    inside = [(unit, answer) for unit in UNITS if (answer := before.answer_for(unit))]
    assert _within_four_se(len(inside), 0.2, len(UNITS))
    assert all(whole.answer_for(unit) == answer for unit, answer in inside)


@pytest.mark.parametrize(
    "weights", [weights for weights in product((0, 100), repeat=3) if sum(weights) == 100] + [(0, 50, 50)]
)
def test_a_variant_of_weight_zero_is_never_assigned(weights: tuple[float, float, float]) -> None:
    arms = [Variant(name, "a", weight) for name, weight in zip("xyz", weights, strict=True)]
    for share in (100, 30):
        drained = replace(THREE, control=arms[0], treatments=tuple(arms[1:]), share=share)
        answers = set(map(_chat(drained).answer_for, UNITS[:1000])) - {None}
        assert answers == {("three", arm.name) for arm in arms if arm.weight}
        assert {assign(drained, unit) for unit in UNITS[:1000]} - {None} == {each for _, each in drained.arms}


def test_a_shadow_experiment_assigns_nobody() -> None:
    assert assign(SHADOW, "user-1") is None
    assert allocations([SHADOW], _named) == {}
    assert _chat(SHADOW, THREE).experiments == (THREE,)
    assert allocations([], _named) == {}


def test_buckets_and_places_are_uniform() -> None:
    for numbers in ([bucket("salt", unit) for unit in UNITS], [place("layer", unit) for unit in UNITS]):
        assert min(numbers) >= 0
        assert max(numbers) < 1
        assert kstest(numbers, "uniform").pvalue > 1e-4


def test_the_hash_never_changes() -> None:
    """Running experiments depend on it: a unit must find its variant again after an upgrade."""
    assert bucket("salt", "user-1") == 0.8298019805082419
    assert bucket("", "") == 0.5818916442384907
    assert place("chat", "user-1") == 0.12333822474359069
    assert place("", "") == 0.5985589503775022


def test_an_experiment_of_everybody_assigns_as_it_did_before_there_were_layers() -> None:
    variant_of = _variant_of(THREE).answer_for
    initials = "".join((variant_of(unit) or "-")[0] for unit in UNITS)
    digest = "0a0fe3e56d5bab043f4ec898f25427254e994c3c1b9e9b12879be62a356af41f"
    assert sha256(initials.encode()).hexdigest() == digest
    odd = ("", "user-5", "ä€𝄞", "\ud800", "\0", "x" * 300)
    assert [*map(variant_of, odd)] == ["control", "hot", "control", "warm", "control", "control"]


def test_assignment_loads_nothing_heavy() -> None:
    heavy = ("polars", "scipy", "numpy", "sqlalchemy", "deltalake", "pyarrow", "fastapi", "torch")
    code = f"import experiments.assignment, sys; print([m for m in {heavy!r} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
