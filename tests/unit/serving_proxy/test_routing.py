"""Who answers: shares, stickiness, experiments, and what an invalid configuration is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.experiment import Experiment, Variant
from servelens.errors import InvalidSettings
from serving_proxy.endpoint import Backend, Endpoint, Overrides, Route, ServedEntity
from serving_proxy.routing import Choice, Identity, Snapshot, choose_served_entity, unit_of
from tests.backends import OpenAIBackend
from tests.unit.serving_proxy.running_proxy import call, chat, get, one_entity, running_proxy, split

ADDRESS = "http://127.0.0.1:9"
EXPERIMENT = Experiment(
    name="tone",
    endpoint="chat",
    control=Variant("control", "a", 50),
    treatments=(Variant("hot", "b", 50),),
    primary_metric="success_rate",
    share=40,
    salt="s",
    phase=3,
)
WATCHER = replace(EXPERIMENT, name="watcher", kind="shadow", share=100)


def next_to(**changes: Any) -> Experiment:
    """An experiment that has the next 20 % of the layer."""
    return replace(EXPERIMENT, **{"name": "next", "salt": "n", "share_from": 40, "share": 20, **changes})


def two(share: float = 90.0, *experiments: Experiment) -> Snapshot:
    return split({"a": ADDRESS, "b": ADDRESS}, {"a": share, "b": 100 - share}, experiments)


def test_shares_are_kept_and_units_stick() -> None:
    snapshot = two(80)
    endpoint = snapshot.endpoints["chat"]
    units = [Identity(f"request-{number}", user=f"user-{number}") for number in range(4000)]
    chosen = [choose_served_entity(snapshot, endpoint, unit) for unit in units]
    counts = Counter(choice.entity.name for choice in chosen)
    assert counts["a"] / 4000 == pytest.approx(0.8, abs=0.03)
    assert {choice.entity.name: choice.propensity for choice in chosen} == pytest.approx({"a": 0.8, "b": 0.2})
    again = [
        choose_served_entity(snapshot, endpoint, msgspec.structs.replace(unit, request_id="other"))
        for unit in units
    ]
    assert [choice.entity for choice in again] == [choice.entity for choice in chosen]


def test_a_share_of_nothing_gets_nothing() -> None:
    snapshot = two(100)
    endpoint = snapshot.endpoints["chat"]
    names = {choose_served_entity(snapshot, endpoint, Identity(str(n))).entity.name for n in range(500)}
    assert names == {"a"}


@given(st.lists(st.floats(0.001, 1.0), min_size=1, max_size=8), st.text(min_size=1, max_size=20))
def test_every_unit_has_an_entity_whatever_the_shares(weights: list[float], unit: str) -> None:
    total = sum(weights)
    names = [f"e{number}" for number in range(len(weights))]
    entities = tuple(ServedEntity(name, Backend((ADDRESS,))) for name in names)
    routes = tuple(Route(name, weight / total * 100) for name, weight in zip(names, weights, strict=True))
    snapshot = Snapshot.of([Endpoint("chat", entities, routes)])
    choice = choose_served_entity(snapshot, snapshot.endpoints["chat"], Identity("r", unit=unit))
    assert choice.entity.name in names
    assert 0 < choice.propensity <= 1


def test_an_experiment_decides_for_its_share_and_the_routes_for_the_rest() -> None:
    snapshot = two(100, EXPERIMENT)
    endpoint = snapshot.endpoints["chat"]
    chosen = [choose_served_entity(snapshot, endpoint, Identity("r", user=f"u{n}")) for n in range(4000)]
    inside = [choice for choice in chosen if choice.experiment]
    assert len(inside) / 4000 == pytest.approx(0.4, abs=0.03)
    variants = Counter(choice.variant for choice in inside)
    assert variants["hot"] / len(inside) == pytest.approx(0.5, abs=0.05)
    for choice in inside:
        assert (choice.experiment, choice.phase, choice.propensity) == ("tone", 3, pytest.approx(0.2))
        assert choice.entity.name == {"control": "a", "hot": "b"}[choice.variant or ""]
    for choice in chosen:
        if not choice.experiment:
            assert (choice.entity.name, choice.variant, choice.phase, choice.propensity) == (
                "a",
                None,
                None,
                1.0,
            )


def test_several_experiments_share_an_endpoint_and_routes_have_the_rest() -> None:
    units = [Identity("r", user=f"u{number}") for number in range(4000)]
    seen: list[list[Choice]] = []
    for order in permutations([EXPERIMENT, next_to(phase=1), WATCHER]):
        snapshot = two(100, *order)
        chosen = [choose_served_entity(snapshot, snapshot.endpoints["chat"], unit) for unit in units]
        seen.append(chosen)
    for choice, others in zip(seen[0], zip(*seen[1:], strict=True), strict=True):
        said = (choice.experiment, choice.variant, choice.entity.name, choice.unit)
        assert all((o.experiment, o.variant, o.entity.name, o.unit) == said for o in others)
    counts = Counter(
        (choice.experiment, choice.variant, choice.phase, choice.propensity) for choice in seen[0]
    )
    expected = {
        ("tone", "control", 3, 0.2): 0.2,
        ("tone", "hot", 3, 0.2): 0.2,
        ("next", "control", 1, 0.1): 0.1,
        ("next", "hot", 1, 0.1): 0.1,
        (None, None, None, 1.0): 0.4,
    }
    assert counts.keys() == expected.keys()
    assert {key: count / 4000 for key, count in counts.items()} == pytest.approx(expected, abs=0.03)


def test_experiments_on_two_endpoints_exclude_each_other_in_one_layer() -> None:
    entities = (entity("a"), entity("b"))
    endpoints = [Endpoint(name, entities, (Route("a", 100),)) for name in ("chat", "embed")]
    layer = [replace(EXPERIMENT, layer="users"), next_to(layer="users", share=60, endpoint="embed")]
    snapshot = Snapshot.of(endpoints, layer)
    for number in range(1000):
        chat, embed = (
            choose_served_entity(snapshot, each, Identity("r", f"u{number}")) for each in endpoints
        )
        assert (chat.experiment, embed.experiment) in {("tone", None), (None, "next")}


def test_an_experiment_of_sessions_decides_by_session_and_its_rest_is_routed_by_user() -> None:
    sessions = two(60, replace(EXPERIMENT, unit="session"))
    bare = two(60)
    endpoint = sessions.endpoints["chat"]
    for number in range(300):
        identity = Identity("r", None, f"user-{number}", f"session-{number}")
        choice = choose_served_entity(sessions, endpoint, identity)
        if choice.experiment:
            assert choice.unit == f"session-{number}"
        else:
            routed = choose_served_entity(bare, bare.endpoints["chat"], identity)
            assert (choice.unit, choice.entity.name) == (routed.unit, routed.entity.name)
            assert choice.unit == f"user-{number}"


def test_a_shadow_experiment_leaves_the_routes_alone() -> None:
    snapshot = two(70, WATCHER)
    assert not snapshot.experiments
    bare = two(70)
    for number in range(300):
        identity = Identity("r", f"u{number}")
        choice = choose_served_entity(snapshot, snapshot.endpoints["chat"], identity)
        routed = choose_served_entity(bare, bare.endpoints["chat"], identity)
        assert (choice.entity.name, choice.experiment) == (routed.entity.name, None)


def test_the_unit_is_what_the_client_names_or_the_nearest_there_is() -> None:
    full = Identity("r", "explicit", "user", "session")
    assert unit_of(full, "user") == unit_of(full, "session") == "explicit"
    assert unit_of(full, "request") == "r"
    unnamed = msgspec.structs.replace(full, unit=None)
    assert unit_of(unnamed, "user") == "user"
    assert unit_of(unnamed, "session") == "session"
    assert unit_of(Identity("r", user="user"), "session") == "user"
    assert unit_of(Identity("r", session="session"), "user") == "session"
    assert unit_of(Identity("r"), "user") == "r"


def entity(name: str = "a") -> ServedEntity:
    return ServedEntity(name, Backend((ADDRESS,)))


@pytest.mark.parametrize(
    ("build", "field"),
    [
        (lambda: Endpoint("chat", (entity(),), (Route("a", 90),)), "routes.traffic_percentage"),
        (
            lambda: Endpoint("chat", (entity(), entity("b")), (Route("a", 110), Route("b", -10))),
            "routes.traffic",
        ),
        (lambda: Endpoint("chat", (entity(),), (Route("zz", 100),)), "routes.served_entity"),
        (lambda: Endpoint("chat", (entity(), entity()), (Route("a", 100),)), "served_entities"),
        (lambda: Endpoint("a/b", (entity(),), (Route("a", 100),)), "endpoints.name"),
        (lambda: entity("x y"), "served_entities.name"),
        (lambda: Backend(()), "backend.urls"),
        (lambda: Backend(("gpu1:8000",)), "backend.urls"),
        (lambda: Backend(("http://gpu1:99999",)), "backend.urls"),
        (lambda: Backend(("http://gpu1/a b",)), "backend.urls"),
        (lambda: Backend((ADDRESS,), api_key="a\r\nx-evil: 1"), "backend.api_key"),
        (lambda: Overrides(body={"stream": True}), "overrides.body.stream"),
        (lambda: two(90, EXPERIMENT, EXPERIMENT), "experiments[tone].share_from"),
        (lambda: two(90, EXPERIMENT, next_to(share_from=39)), "experiments[next].share_from"),
        (lambda: two(90, EXPERIMENT, next_to(layer="other")), "experiments[next].layer"),
        (lambda: two(90, EXPERIMENT, next_to(unit="session")), "experiments[next].unit"),
        (lambda: two(90, replace(WATCHER, control=Variant("c", "zz"))), "experiments.variants.served_entity"),
        (lambda: two(90, replace(EXPERIMENT, endpoint="other")), "experiments.endpoint"),
        (
            lambda: two(90, replace(EXPERIMENT, control=Variant("c", "zz", 50))),
            "experiments.variants.served_entity",
        ),
    ],
)
def test_contradictions_are_refused_by_name(build: Callable[[], object], field: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        build()
    assert (caught.value.field or "").startswith(field)
    assert caught.value.fix


def test_an_api_key_is_not_in_a_representation() -> None:
    assert "sk-secret" not in repr(Backend((ADDRESS,), api_key="sk-secret"))


async def test_overrides_change_only_what_they_name(tmp_path: Path) -> None:
    overrides = Overrides(body={"temperature": 1.6, "top_p": None}, system_prompt="Be brief.")
    async with OpenAIBackend() as backend:
        snapshot = one_entity(backend.url, overrides=overrides, model="real-model", api_key="sk-backend")
        async with running_proxy(tmp_path, snapshot) as proxy:
            body = (
                b'{"model":"chat","messages":[{"role":"system","content":"Be long."},'
                b'{"role":"user","content":"hi","n":1e2}],"top_p":1,"seed":123456789012345678901234567890}'
            )
            await call(proxy, body, authorization="Bearer client")
            await call(proxy, chat("first", tools=[]))
            await call(proxy, {"model": "chat", "prompt": "p"}, "/v1/completions")
            refused = await call(proxy, {"model": "chat", "messages": ["hi"]})
            records = proxy.records()
    sent = backend.received[0]
    assert sent.headers["authorization"] == "Bearer sk-backend"
    assert sent.json() == {
        "model": "real-model",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "hi", "n": 100.0},
        ],
        "seed": 123456789012345678901234567890,
        "temperature": 1.6,
    }
    assert b'"n":1e2' in sent.body
    assert [message["role"] for message in backend.received[1].json()["messages"]] == ["system", "user"]
    assert backend.received[2].json() == {"model": "real-model", "prompt": "p", "temperature": 1.6}
    assert refused.status == 400
    assert refused.json()["error"]["param"] == "messages"
    assert records[0].request == body
    assert records[0].model == "real-model"


async def test_a_base_path_is_an_openai_base_url(tmp_path: Path) -> None:
    async with (
        OpenAIBackend() as backend,
        running_proxy(tmp_path, one_entity(f"{backend.url}/openai/v1/")) as proxy,
    ):
        await call(proxy, chat())
    assert backend.received[0].path == "/openai/v1/chat/completions"


async def test_the_record_says_how_it_was_chosen(tmp_path: Path) -> None:
    async with OpenAIBackend() as backend:
        everybody = replace(EXPERIMENT, share=100)
        snapshot = split({"a": backend.url, "b": backend.url}, {"a": 100.0}, [everybody])
        async with running_proxy(tmp_path, snapshot) as proxy:
            answers = [await call(proxy, chat(user=f"u{number % 8}")) for number in range(16)]
            records = proxy.records()
    assert {record.variant for record in records} == {"control", "hot"}
    for answer, record in zip(answers, records, strict=True):
        assert answer.headers["x-servelens-served-entity"] == record.served_entity
        assert (record.experiment, record.phase, record.propensity) == ("tone", 3, 0.5)
        assert (record.unit or "").startswith("u")
    assert [record.variant for record in records[:8]] == [record.variant for record in records[8:]]


async def test_a_new_snapshot_is_live_without_a_restart_and_a_bad_one_changes_nothing(tmp_path: Path) -> None:
    async with (
        OpenAIBackend() as backend,
        OpenAIBackend() as other,
        running_proxy(tmp_path, one_entity(backend.url), refresh_s=0.02) as proxy,
    ):
        await call(proxy, chat())
        proxy.pending.append(one_entity(other.url))
        while not other.received:
            assert (await call(proxy, chat())).status == 200
        proxy.load_failure = RuntimeError("the database is gone")
        health = await get(proxy, "/health/ready")
        while health.json()["snapshot"]["failure"] is None:
            health = await get(proxy, "/health/ready")
        answer = await call(proxy, chat())
    assert (health.status, health.json()["status"]) == (200, "degraded")
    assert health.json()["snapshot"]["failure"] == "the database is gone"
    assert answer.status == 200
    assert len(other.received) == 2
